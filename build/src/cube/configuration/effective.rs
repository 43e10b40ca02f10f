//! The effective configuration: the file with the changes of the command line, what is left out, and the values of all
//! `${...}`.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::super::directory::CubeDir;
use super::super::locate::{PathStep, joined, key};
use super::super::runner::{docker, singularity};
use super::super::schema::{Mismatch, scalar};
use super::interpolation::resolved;
use super::overrides::{Changes, TaskArgument, merge, slot};

/// The section of a configuration that a runner reads. The runner's name is its platform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `docker`, for Docker and Podman.
    Docker,
    /// `singularity`, or what follows from `docker`.
    Singularity,
}

impl Section {
    /// The section of the platform `name`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Docker, Self::Singularity].into_iter().find(|section| section.name() == name)
    }

    /// Its key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Singularity => "singularity",
        }
    }

    /// What a key of `runner` is where the section does not say: the defaults of `mlcube` 0.0.9, in YAML.
    fn defaults(self) -> &'static str {
        match self {
            Self::Docker => docker::DEFAULTS,
            Self::Singularity => singularity::DEFAULTS,
        }
    }
}

/// The configuration that tasks run by.
#[derive(Debug)]
pub struct Effective {
    /// As the file writes it.
    pub written: Value,
    /// With the values of all `${...}`.
    pub resolved: Value,
}

/// The effective configuration of the cube whose file holds `document`. With a `section`, `runner` has its values.
///
/// # Errors
/// What is wrong with the document or the changes.
pub fn effective(
    document: &Value,
    cube: &CubeDir,
    section: Option<Section>,
    changes: &Changes,
) -> Result<Effective, Vec<Mismatch>> {
    let root = cube.absolute_root();
    let workspace = if root.join("workspace") == cube.workspace {
        "${runtime.root}/workspace".into()
    } else {
        cube.workspace.display().to_string()
    };
    let mut written = document.clone();
    changes.overrides.iter().try_for_each(|change| change.apply(&mut written)).map_err(|fault| vec![fault])?;
    let mut faults = complete_tasks(&mut written);
    if faults.is_empty() {
        expect_plain_keys(&written, &[], &mut faults);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    *slot(&mut written, "runtime") = Value::Mapping(Mapping::from_iter([
        ("root".into(), root.display().to_string().into()),
        ("workspace".into(), workspace.clone().into()),
    ]));
    *slot(&mut written, "runner") = Value::Mapping(Mapping::new());
    *slot(&mut written, "workspace") = workspace.into();
    // First without `runner`, whose values come from other keys, so that each fault is found once.
    let mut values = resolved_in(cube, &written)?;
    infer_types(&mut written, &values);
    put_in(&mut written, changes.arguments);
    values = resolved_in(cube, &written)?;
    infer_types(&mut written, &values);
    if let Some(section) = section {
        *slot(&mut written, "runner") = runner(&written, &values, section).map_err(|fault| vec![fault])?;
        let mut of_runner = changes.overrides.iter().filter(|change| change.path[0] == "runner");
        of_runner.try_for_each(|change| change.apply(&mut written)).map_err(|fault| vec![fault])?;
    }
    values = resolved_in(cube, &written)?;
    Ok(Effective { written, resolved: values })
}

/// [`resolved`] for `cube`. YAML is text: the name of a directory that is none would become another directory's where a value
/// uses it, which is a fault.
fn resolved_in(cube: &CubeDir, written: &Value) -> Result<Value, Vec<Mismatch>> {
    let values = resolved(written)?;
    let directories = [cube.absolute_root(), cube.workspace.as_path()];
    let nameless: Vec<&Path> = directories.into_iter().filter(|directory| directory.to_str().is_none()).collect();
    let mut faults = vec![];
    for (name, value) in values.as_mapping().into_iter().flatten() {
        // These say where the directories are.
        if !["runtime", "workspace"].map(Some).contains(&name.as_str()) {
            find_nameless(value, &[step(name)], &nameless, &mut faults);
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// Finds the keys in `value` that are no texts, numbers or the like, which nothing can print.
fn expect_plain_keys(value: &Value, path: &[PathStep], faults: &mut Vec<Mismatch>) {
    match value {
        Value::Sequence(items) => items.iter().enumerate().for_each(|(nth, item)| {
            expect_plain_keys(item, &joined(path, PathStep::Item(nth)), faults);
        }),
        Value::Mapping(values) => values.iter().for_each(|(name, value)| {
            if scalar(name).is_none() {
                return faults.push(Mismatch::of_value(path, "keys that are texts", name));
            }
            expect_plain_keys(value, &joined(path, step(name)), faults);
        }),
        Value::Tagged(tagged) => expect_plain_keys(&tagged.value, path, faults),
        _ => {}
    }
}

/// Finds the texts in `value` that have the name of one of the directories `nameless`, as far as it is text.
fn find_nameless(value: &Value, path: &[PathStep], nameless: &[&Path], faults: &mut Vec<Mismatch>) {
    match value {
        Value::String(text) => {
            let used = nameless.iter().find(|directory| text.contains(&*directory.to_string_lossy()));
            let fault = |used: &&Path| Mismatch::new(path, "directories with names in UTF-8", &format!("{used:?}"));
            faults.extend(used.map(fault));
        }
        Value::Sequence(items) => items.iter().enumerate().for_each(|(nth, item)| {
            find_nameless(item, &joined(path, PathStep::Item(nth)), nameless, faults);
        }),
        Value::Mapping(values) => values.iter().for_each(|(name, value)| {
            find_nameless(value, &joined(path, step(name)), nameless, faults);
        }),
        _ => {}
    }
}

/// The defaults of a runner, and over them what its section says.
fn runner(written: &Value, resolved: &Value, section: Section) -> Result<Value, Mismatch> {
    let mut runner: Value =
        serde_yaml::from_str(section.defaults()).unwrap_or_else(|error| unreachable!("the defaults are YAML: {error}"));
    let given = |values: &Value, section: Section| {
        let given = values.get(section.name())?.as_mapping().filter(|given| !given.is_empty())?;
        Some(Value::Mapping(given.clone()))
    };
    // A section may be the value of another key.
    let own = given(written, section).or_else(|| given(resolved, section));
    match (own, given(resolved, Section::Docker)) {
        (Some(given), _) => merge(&mut runner, &given),
        (None, Some(docker)) => merge(&mut runner, &singularity::from_docker(&docker)),
        (None, None) => return Err(Mismatch::new(&[key(section.name())], "a section of this platform", "none")),
    }
    Ok(runner)
}

/// The inputs and outputs of a task.
pub const DIRECTIONS: [&str; 2] = ["inputs", "outputs"];

/// Makes every task a mapping with `parameters`, and every parameter one with `default` and `type`.
fn complete_tasks(written: &mut Value) -> Vec<Mismatch> {
    let mut faults = vec![];
    let path = [key("tasks")];
    let Some(tasks) = mapping(slot(written, "tasks"), &path, &mut faults) else { return faults };
    for (name, task) in tasks {
        let path = joined(&path, step(name));
        let Some(task) = mapping(task, &path, &mut faults) else { continue };
        if task.get("entrypoint").is_some_and(Value::is_null) {
            task.remove("entrypoint");
        }
        let path = joined(&path, key("parameters"));
        let parameters = task.entry("parameters".into()).or_insert(Value::Null);
        let Some(parameters) = mapping(parameters, &path, &mut faults) else { continue };
        for direction in DIRECTIONS {
            let path = joined(&path, key(direction));
            let listed = parameters.entry(direction.into()).or_insert(Value::Null);
            for (name, parameter) in mapping(listed, &path, &mut faults).into_iter().flatten() {
                complete_parameter(name, parameter, &joined(&path, step(name)), &mut faults);
            }
        }
    }
    faults
}

fn step(name: &Value) -> PathStep {
    key(&scalar(name).unwrap_or_default())
}

/// The mapping `value`, which becomes an empty one if it is nothing.
fn mapping<'a>(value: &'a mut Value, path: &[PathStep], faults: &mut Vec<Mismatch>) -> Option<&'a mut Mapping> {
    if value.is_null() {
        *value = Value::Mapping(Mapping::new());
    }
    if !value.is_mapping() {
        faults.push(Mismatch::of_value(path, "names with values", value));
    }
    value.as_mapping_mut()
}

/// A parameter is a path, or a mapping with `type`, `default` and `opts`. Without a path its name is the path.
fn complete_parameter(name: &Value, parameter: &mut Value, path: &[PathStep], faults: &mut Vec<Mismatch>) {
    if parameter.is_string() {
        *parameter = Value::Mapping(Mapping::from_iter([("default".into(), parameter.clone())]));
    }
    if !parameter.is_mapping() && !parameter.is_null() {
        return faults.push(Mismatch::of_value(path, "a path, or the keys default, type and opts", parameter));
    }
    for (field, value) in [("default", name.clone()), ("type", "unknown".into())] {
        let slot = slot(parameter, field);
        if slot.is_null() {
            *slot = value;
        }
    }
}

/// Gives the type `directory` to each parameter of an unknown type whose path ends in a slash.
fn infer_types(written: &mut Value, resolved: &Value) {
    for (place, parameter) in parameters(written) {
        let path = place.iter().try_fold(resolved, |at, name| at.get(name)).and_then(|found| found["default"].as_str());
        if parameter["type"].as_str() == Some("unknown") && path.is_some_and(|path| path.ends_with(['/', '\\'])) {
            *slot(parameter, "type") = "directory".into();
        }
    }
}

/// Puts the values of the command line in.
fn put_in(written: &mut Value, arguments: &[TaskArgument]) {
    for (place, parameter) in parameters(written) {
        let name = place.last().and_then(Value::as_str);
        if let Some(argument) = arguments.iter().find(|argument| Some(&*argument.name) == name) {
            *slot(parameter, "default") = argument.value.clone().into();
        }
    }
}

/// The parameters of all tasks, each with the keys that lead to it.
fn parameters(written: &mut Value) -> Vec<([Value; 5], &mut Value)> {
    fn named(value: Option<&mut Value>) -> impl Iterator<Item = (&Value, &mut Value)> {
        value.and_then(Value::as_mapping_mut).into_iter().flatten()
    }
    let mut found = vec![];
    for (task, definition) in named(written.get_mut("tasks")) {
        let directions = named(definition.get_mut("parameters"));
        for (direction, listed) in directions.filter(|(name, _)| DIRECTIONS.map(Some).contains(&name.as_str())) {
            for (name, parameter) in named(Some(listed)) {
                let place = ["tasks".into(), task.clone(), "parameters".into(), direction.clone(), name.clone()];
                found.push((place, parameter));
            }
        }
    }
    found
}

/// A configuration in YAML, as `mlcube show_config` prints it: the arguments of Docker as they are on its command line.
pub fn printed(mut configuration: Value) -> String {
    if let Some(runner) = configuration.get_mut("runner") {
        for (name, flag) in [("build_args", "--build-arg"), ("env_args", "-e")] {
            if let Some(pairs) = runner.get(name).and_then(Value::as_mapping) {
                let pair = |(name, value)| Some(format!("{flag} {}={}", scalar(name)?, scalar(value)?));
                *slot(runner, name) = pairs.iter().filter_map(pair).collect::<Vec<_>>().join(" ").into();
            }
        }
    }
    serde_yaml::to_string(&configuration).unwrap_or_else(|error| unreachable!("YAML becomes YAML: {error}"))
}
