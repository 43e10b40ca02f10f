//! The cube's tasks: mlcube.yaml and tasks/*.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_yaml::Value;

use super::super::NAME;
use super::super::locate::{PathStep, key};
use super::super::schema;
use super::reader::{Document, Reader};
use crate::text::one_of;

/// The cube's tasks by their names.
pub type Tasks = BTreeMap<String, TaskFile>;

/// The parameters of a task: name and type of each.
#[derive(Debug, Default)]
pub struct TaskFile {
    pub inputs: BTreeMap<String, String>,
    pub outputs: BTreeMap<String, String>,
}

/// Reads mlcube.yaml and the tasks that it lists; none if mlcube.yaml cannot be read.
pub fn read(reader: &mut Reader) -> Option<Tasks> {
    let mut tasks = Tasks::new();
    let cube = reader.read("mlcube.yaml", &[&schema::ROOT])?;
    if !cube.value.is_mapping() {
        return None;
    }
    reader.cube = cube.value.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    reader.is_ours = reader.cube == NAME;
    reader.version = cube.value.get("version").and_then(Value::as_str).map(String::from);
    let listed = cube.value.get("tasks").and_then(Value::as_sequence);
    if listed.is_some_and(Vec::is_empty) {
        reader.expected(&cube, &[key("tasks")], "at least one file of a task", "none");
    }
    for (nth, file) in listed.into_iter().flatten().enumerate() {
        let Some(file) = file.as_str() else {
            reader.lacks_tasks = true; // the schema's fault
            continue;
        };
        let path = [key("tasks"), PathStep::Item(nth)];
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if tasks.contains_key(&name) {
            reader.fault(&cube, &path, format!("expected each task once, found {name} again"));
            continue;
        }
        if !reader.exists(file) {
            reader.fault(&cube, &path, format!("expected a file {file}, found {}", reader.found_at(file)));
            reader.lacks_tasks = true;
            continue;
        }
        let Some(document) = reader.read(file, &[&schema::TASK]) else {
            reader.lacks_tasks = true;
            continue;
        };
        let value = &document.value;
        let task = TaskFile { inputs: parameters(value, "inputs"), outputs: parameters(value, "outputs") };
        check_flags(reader, &document, &name, &task);
        tasks.insert(name, task);
    }
    reader.lacks_tasks |= tasks.is_empty();
    Some(tasks)
}

/// Name and type of each input or output of a task. Malformed ones are left out.
fn parameters(task: &Value, direction: &str) -> BTreeMap<String, String> {
    let listed = task.get(direction).and_then(Value::as_sequence).into_iter().flatten();
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(String::from);
    listed.filter_map(|item| Some((text(item, "name")?, text(item, "type").unwrap_or_default()))).collect()
}

/// In this program's cube, the program has a task of this name, each parameter is one of its flags, and no required flag is
/// missing.
fn check_flags(reader: &mut Reader, document: &Document, name: &str, task: &TaskFile) {
    if !reader.is_ours {
        return;
    }
    let Some(flags) = (reader.program.flags_of)(name) else {
        return reader.fault(document, &[], format!("expected a task that the program has, found {name}"));
    };
    let mut seen = BTreeSet::new();
    for direction in ["inputs", "outputs"] {
        let listed = document.value.get(direction).and_then(Value::as_sequence).into_iter().flatten();
        for (nth, item) in listed.enumerate() {
            let at = |field: &str| [key(direction), PathStep::Item(nth), key(field)];
            let Some(parameter) = item.get("name").and_then(Value::as_str) else { continue };
            if !seen.insert(parameter) {
                reader.expected(document, &at("name"), "each parameter once", &format!("{parameter} again"));
            }
            if !flags.all.iter().any(|flag| flag == parameter) {
                let expected = format!("a flag of `mnist {name}` ({})", one_of(&flags.all));
                reader.expected(document, &at("name"), &expected, parameter);
                continue;
            }
            let kind = if parameter.ends_with("_file") { "file" } else { "directory" };
            if let Some(found @ ("file" | "directory")) = item.get("type").and_then(Value::as_str)
                && found != kind
            {
                reader.expected(document, &at("type"), &format!("{kind} for {parameter}"), found);
            }
        }
    }
    let has = |flag: &str| task.inputs.contains_key(flag) || task.outputs.contains_key(flag);
    for required in flags.required.iter().filter(|flag| !has(flag)) {
        let problem = format!("expected a parameter {required}, since `mnist {name}` requires it, found none");
        reader.fault(document, &[], problem);
    }
}
