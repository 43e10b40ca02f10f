//! The run configurations: run/*.yaml.

use std::collections::BTreeMap;
use std::path::Path;

use serde_yaml::Value;

use super::super::invocation::{Binding, Invocation, on_claim, resolved};
use super::super::locate::{joined, key, shown};
use super::super::overwriting::{Overwritten, overwritten};
use super::super::schema;
use super::reader::{Document, Reader};
use super::tasks::Tasks;
use crate::text::{one_of, shortened};

/// Checks that every run configuration is right and that every task has one.
pub fn check(reader: &mut Reader, tasks: &Tasks) {
    let mut without: Vec<&String> = tasks.keys().collect();
    for file in reader.yaml_files("run") {
        match read_noted(reader, &file, tasks) {
            Some((invocation, document)) => {
                without.retain(|name| **name != invocation.task);
                for Overwritten { input, problem } in overwritten(&invocation.bindings, invocation.is_ours) {
                    let path = [key("input_binding"), key(&input)];
                    reader.fault(&document, &path, format!("{}: {problem}", shown(&path)));
                }
            }
            // It may be the one of any task.
            None => without.clear(),
        }
    }
    for task in without {
        reader.missing("run", &format!("a run configuration (*.yaml) of task {task}"));
    }
}

/// Reads a run configuration: it names a task of the cube and binds exactly the task's parameters. None if it names no
/// task; faulty bindings are left out.
pub fn read(reader: &mut Reader, file: &Path, tasks: &Tasks) -> Option<Invocation> {
    read_noted(reader, file, tasks).map(|(invocation, _)| invocation)
}

/// The same, with the file.
fn read_noted(reader: &mut Reader, file: &Path, tasks: &Tasks) -> Option<(Invocation, Document)> {
    let document = reader.read(file, &[&schema::INVOKE])?;
    let name = document.value.get("task_name").and_then(Value::as_str)?;
    let Some(task) = tasks.get(name) else {
        if !reader.lacks_tasks {
            let known: Vec<&String> = tasks.keys().collect();
            reader.expected(&document, &[key("task_name")], &one_of(&known), &format!("{name:?}"));
        }
        return None;
    };
    let inputs = bindings(reader, &document, name, true, &task.inputs);
    let outputs = bindings(reader, &document, name, false, &task.outputs);
    let invocation = Invocation {
        cube: reader.cube.clone(),
        is_ours: reader.is_ours,
        task: name.into(),
        entrypoint: vec![],
        bindings: [inputs, outputs].concat(),
    };
    Some((invocation, document))
}

/// The inputs or the outputs of `task`, whose `parameters` are given by name and type.
fn bindings(
    reader: &mut Reader,
    document: &Document,
    task: &str,
    is_input: bool,
    parameters: &BTreeMap<String, String>,
) -> Vec<Binding> {
    let section = if is_input { "input_binding" } else { "output_binding" };
    let bound = document.value.get(section).and_then(Value::as_mapping).cloned().unwrap_or_default();
    for name in parameters.keys().filter(|name| !bound.contains_key(name.as_str())) {
        reader.expected(document, &[key(section)], &format!("a value for {name} of task {task}"), "none");
    }
    let known: Vec<&String> = parameters.keys().collect();
    let known = if known.is_empty() { "no parameter".into() } else { one_of(&known) };
    let mut bindings = vec![];
    for (name, value) in &bound {
        let (Some(name), Some((value, claim))) = (name.as_str(), schema::place(value)) else { continue };
        let path = joined(&[key(section)], key(name));
        let found = if claim.is_some() { on_claim(value) } else { resolved(value, &reader.workspace) };
        let Some(resolved) = found else {
            let expected = if claim.is_some() {
                "a path on the claim, without variables, ~ and .."
            } else {
                "a path without variables and without ~ at its beginning, or $WORKSPACE/..."
            };
            reader.expected(document, &path, expected, &format!("{:?}", shortened(value)));
            continue;
        };
        let Some(kind) = parameters.get(name) else {
            reader.expected(document, &path, &format!("{known} of task {task}"), name);
            continue;
        };
        let is_file = kind == "file";
        if is_file && is_input && claim.is_none() {
            reader.input_file(document, &path, value, resolved.clone());
        }
        let claim = claim.map(String::from);
        bindings.push(Binding { claim, ..Binding::of(name, resolved, is_file, is_input) });
    }
    bindings
}
