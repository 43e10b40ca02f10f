//! mlcube-2.0.yaml, for the runners 0.0.4 to 0.0.9, beside the files of the old shape: both name the same tasks.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::super::locate::{PathStep, joined, key};
use super::super::runner::{docker, singularity};
use super::super::schema::{Expected, Field, check_fields, required};
use super::reader::{Document, Reader};
use super::tasks::Tasks;

const FILE: &str = "mlcube-2.0.yaml";

/// The file without its tasks and without the sections of other runners.
const FIELDS: &[Field] = &[
    required("name", Expected::Text),
    required("docker", Expected::Record(docker::SECTION)),
    required("singularity", Expected::Record(singularity::SECTION)),
];

/// Checks the file, if the cube has one: its tasks and their parameters are those of mlcube.yaml.
pub fn check(reader: &mut Reader, tasks: &Tasks) {
    if !reader.is_there(FILE) {
        return;
    }
    let Some(document) = reader.read(FILE, &[]) else { return };
    reader.mismatches(&document, check_fields(&document.value, FIELDS));
    let listed = document.value.get("tasks").filter(|tasks| tasks.is_mapping());
    let Some(listed) = listed else {
        return reader.expected(&document, &[key("tasks")], "the cube's tasks", "none");
    };
    if !reader.lacks_tasks {
        same_names(reader, &document, &[key("tasks")], Some(listed), tasks.keys());
    }
    for (name, task) in tasks {
        let Some(definition) = listed.get(name.as_str()) else { continue };
        for (direction, parameters) in [("inputs", &task.inputs), ("outputs", &task.outputs)] {
            let path = [key("tasks"), key(name), key("parameters"), key(direction)];
            let defined = definition.get("parameters").and_then(|all| all.get(direction));
            same_names(reader, &document, &path, defined, parameters.keys());
            for (parameter, kind) in parameters {
                if let Some(definition) = defined.and_then(|all| all.get(parameter)) {
                    check_parameter(reader, &document, &joined(&path, key(parameter)), definition, kind);
                }
            }
        }
    }
}

/// A parameter is a path, of a directory if it ends in a slash, or a mapping with `type` and `default`.
fn check_parameter(reader: &mut Reader, document: &Document, path: &[PathStep], definition: &Value, kind: &str) {
    let default = definition.as_str().or_else(|| definition.get("default")?.as_str());
    let found = match (definition.get("type").and_then(Value::as_str), default) {
        (Some(kind), _) => kind,
        (None, Some(default)) if default.ends_with('/') => "directory",
        _ => "no type",
    };
    if found != kind && ["file", "directory"].contains(&kind) {
        let expected = if kind == "file" { "type: file" } else { "a path that ends in a slash" };
        reader.expected(document, path, expected, found);
    } else if let ("file", true, Some(default)) = (kind, path.contains(&key("inputs")), default) {
        let file = reader.workspace.join(default);
        reader.input_file(document, path, default, file);
    }
}

/// Checks that the keys of `mapping` are the `expected` ones.
fn same_names<'a>(
    reader: &mut Reader,
    document: &Document,
    path: &[PathStep],
    mapping: Option<&Value>,
    expected: impl Iterator<Item = &'a String>,
) {
    let keys = mapping.and_then(Value::as_mapping).into_iter().flat_map(|mapping| mapping.keys());
    let found: BTreeSet<&str> = keys.filter_map(Value::as_str).collect();
    let expected: BTreeSet<&str> = expected.map(String::as_str).collect();
    for missing in expected.difference(&found) {
        reader.expected(document, path, missing, "nothing");
    }
    for unknown in found.difference(&expected) {
        let path = joined(path, key(unknown));
        reader.expected(document, &path, "only names that the cube's tasks have", unknown);
    }
}
