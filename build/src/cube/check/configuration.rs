//! A cube of configuration 2.0, whose tasks and platforms are in one file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_yaml::Value;
use tracing::warn;

use super::super::NAME;
use super::super::configuration::{Changes, Configuration, ConfiguredTask, Section, effective};
use super::super::directory::CubeDir;
use super::super::locate::{PathStep, joined, key, shown};
use super::super::overwriting::{Overwritten, overwritten};
use super::super::runner::{docker, singularity};
use super::super::schema::{Expected, Field, Mismatch, check_fields, described, optional, required};
use super::changes;
use super::reader::{Document, Program, Reader};
use crate::error::found_at;
use crate::text::{one_of, suggestion};

const FIELDS: &[Field] = &[
    required("name", Expected::Text),
    optional("docker", Expected::Record(docker::SECTION)),
    optional("singularity", Expected::Record(singularity::SECTION)),
];

/// `runner`, for each section that it may come from.
const DOCKER: &[Field] = &[required("runner", Expected::Record(docker::SECTION))];
const SINGULARITY: &[Field] = &[required("runner", Expected::Record(singularity::SECTION))];

/// Reads `file` of the cube, as `changes` change it, for the platform of `section`. None if it cannot be read as such a file.
pub fn read(
    reader: &mut Reader,
    cube: &CubeDir,
    file: &Path,
    section: Option<Section>,
    changes: &Changes,
) -> Option<(Configuration, Document)> {
    let document = reader.read(file, &[])?;
    let unknown = changes::unknown(&document.value, changes);
    if !unknown.is_empty() {
        unknown.into_iter().for_each(|(change, problem)| reader.wrong_argument(&change.typed(), problem));
        return None;
    }
    for change in changes::unused(&document.value, changes) {
        warn!("{}: has no effect: the cube's file has no such key, and no ${{...}} uses it", change.typed());
    }
    for change in section.iter().flat_map(|section| changes::without_effect(&document.value, *section, changes)) {
        let section = section.map(Section::name).unwrap_or_default();
        warn!("{}: has no effect with --platform={section}", change.typed());
    }
    let effective = match effective(&document.value, cube, section, changes) {
        Ok(effective) => effective,
        Err(faults) => {
            note(reader, &document, changes, faults);
            return None;
        }
    };
    let values = &effective.resolved;
    let mut faults = check_fields(values, FIELDS);
    if faults.is_empty() {
        faults = match section {
            Some(Section::Docker) => check_fields(values, DOCKER),
            Some(Section::Singularity) => check_fields(values, SINGULARITY),
            None => vec![],
        };
    }
    let accelerators = check_accelerators(values);
    faults.extend(accelerators);
    let mut configuration = Configuration::read(effective, &cube.workspace, &mut faults);
    if configuration.sections().is_empty() {
        let sections = [Section::Docker, Section::Singularity].map(Section::name);
        let problem = format!("expected a section {}, found none", one_of(&sections));
        faults.push(Mismatch { path: vec![], problem });
    }
    configuration.is_ours = is_ours(&configuration, reader.program);
    if configuration.is_ours {
        let more: Vec<_> =
            configuration.tasks.iter().flat_map(|task| check_flags(task, reader.program, &faults)).collect();
        faults.extend(more);
    }
    (reader.cube, reader.is_ours) = (configuration.name.clone(), configuration.is_ours);
    if faults.is_empty() {
        note_unknown(reader, &configuration, changes);
    }
    note(reader, &document, changes, faults);
    Some((configuration, document))
}

/// Checks the cube's file, and the input files of a cube of this program.
pub fn check(reader: &mut Reader, cube: &CubeDir, file: &Path) -> Vec<String> {
    let Some((configuration, document)) = read(reader, cube, file, None, &Changes::default()) else { return vec![] };
    for parameter in configuration.tasks.iter().flat_map(|task| &task.parameters) {
        if configuration.is_ours && parameter.is_input && parameter.is_file == Some(true) {
            if reader.exists(&parameter.path) {
                reader.parameters(&parameter.path);
            } else {
                let path = joined(&parameter.place, key("default"));
                let expected = format!("a file {}", parameter.path.display());
                reader.expected(&document, &path, &expected, found_at(&parameter.path));
            }
        }
    }
    for task in &configuration.tasks {
        for Overwritten { input, problem } in overwritten(&task.bindings(), configuration.is_ours) {
            if let Some(parameter) = task.parameters.iter().find(|one| one.is_input && one.name == input) {
                let path = joined(&parameter.place, key("default"));
                reader.fault(&document, &path, format!("{}: {problem}", shown(&path)));
            }
        }
    }
    configuration.tasks.into_iter().map(|task| task.name).collect()
}

/// Notes faults: at the place in the file, or with the argument of the command line that the value comes from.
fn note(reader: &mut Reader, document: &Document, changes: &Changes, faults: Vec<Mismatch>) {
    for Mismatch { path, problem } in faults {
        match typed(changes, &path) {
            Some(argument) => reader.wrong_argument(&argument, problem),
            None => reader.fault(document, &path, problem),
        }
    }
}

/// Notes the values of parameters that no task has.
fn note_unknown(reader: &mut Reader, configuration: &Configuration, changes: &Changes) {
    let names: Vec<&str> = configuration
        .tasks
        .iter()
        .flat_map(|task| &task.parameters)
        .map(|parameter| &*parameter.name)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for argument in changes.arguments.iter().filter(|argument| !names.contains(&&*argument.name)) {
        let known = if names.is_empty() {
            "the tasks have none".into()
        } else {
            suggestion(&argument.name, names.iter().copied(), &names)
        };
        let problem = format!("expected the name of a parameter of some task, found none of this name: {known}");
        reader.wrong_argument(&argument.typed(), problem);
    }
}

/// The argument of the command line that the value at `path` comes from.
fn typed(changes: &Changes, path: &[PathStep]) -> Option<String> {
    let is_below =
        |keys: &[String]| keys.len() <= path.len() && keys.iter().zip(path).all(|(name, step)| key(name) == *step);
    if let Some(change) = changes.overrides.iter().rev().find(|change| is_below(&change.path)) {
        return Some(change.typed());
    }
    let is_value = path.last() == Some(&key("default"));
    let argument = changes.arguments.iter().rev().find(|argument| is_value && path.contains(&key(&argument.name)))?;
    Some(argument.typed())
}

fn check_accelerators(values: &Value) -> Option<Mismatch> {
    let count = values.get("platform")?.get("accelerator_count").filter(|count| !count.is_null() && !count.is_u64())?;
    Some(Mismatch::new(&[key("platform"), key("accelerator_count")], "a whole number", &described(count)))
}

/// Whether the cube is this program's: it has its name, and one of its tasks. The example of MLCommons that has this name too
/// has other parameters.
fn is_ours(configuration: &Configuration, program: &Program) -> bool {
    configuration.name == NAME
        && configuration.tasks.iter().any(|task| {
            (program.flags_of)(&task.name).is_some_and(|flags| {
                let has = |name: &String| task.parameters.iter().any(|parameter| parameter.name == *name);
                let is_flag = |name: &String| flags.all.contains(name);
                flags.required.iter().all(has) && task.parameters.iter().all(|parameter| is_flag(&parameter.name))
            })
        })
}

/// In this program's cube, the program has the task, each parameter is one of its flags, and no required flag is missing. A
/// parameter with one of the `known` faults is not among those of the task.
fn check_flags(task: &ConfiguredTask, program: &Program, known: &[Mismatch]) -> Vec<Mismatch> {
    let name = &task.name;
    let path = [key("tasks"), key(name)];
    let Some(flags) = (program.flags_of)(name) else {
        return vec![Mismatch::new(&path, "a task that the program has", name)];
    };
    let mut faults = vec![];
    for parameter in &task.parameters {
        if !flags.all.contains(&parameter.name) {
            let expected = format!("a flag of `mnist {name}` ({})", one_of(&flags.all));
            faults.push(Mismatch::new(&parameter.place, &expected, &parameter.name));
        } else if parameter.is_file == Some(!parameter.name.ends_with("_file")) {
            let (expected, found) =
                if parameter.name.ends_with("_file") { ("file", "directory") } else { ("directory", "file") };
            faults.push(Mismatch::new(&joined(&parameter.place, key("type")), expected, found));
        }
    }
    let is_missing = |flag: &&String| {
        let is_at_fault = |fault: &Mismatch| fault.path.starts_with(&path) && fault.path.contains(&key(flag));
        !task.parameters.iter().any(|parameter| parameter.name == **flag) && !known.iter().any(is_at_fault)
    };
    faults.extend(
        flags
            .required
            .iter()
            .filter(is_missing)
            .map(|flag| Mismatch::new(&path, &format!("a parameter {flag}, since `mnist {name}` requires it"), "none")),
    );
    faults
}
