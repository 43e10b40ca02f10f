//! The tasks of a configuration: their parameters, and the paths that these stand for.

use std::path::{Component, Path, PathBuf};

use serde_yaml::Value;

use super::super::invocation::Binding;
use super::super::locate::{PathStep, joined, key};
use super::super::schema::{Mismatch, scalar};
use super::super::words::words;
use super::effective::DIRECTIONS;

/// A task of a cube of configuration 2.0.
#[derive(Debug)]
pub struct ConfiguredTask {
    /// Its name.
    pub name: String,
    /// The words of its own program in the container; none for the image's.
    pub entrypoint: Vec<String>,
    /// Inputs before outputs, each in the file's order.
    pub parameters: Vec<ConfiguredParameter>,
}

/// A parameter of a task.
#[derive(Debug)]
pub struct ConfiguredParameter {
    /// Its name.
    pub name: String,
    /// Its value, absolute.
    pub path: PathBuf,
    /// Whether it is a file; none if the path itself will tell, once it is there.
    pub is_file: Option<bool>,
    /// Whether the task reads it. Otherwise the task writes it.
    pub is_input: bool,
    /// Whether the task may write there.
    pub is_writable: bool,
    /// Where it is in the document.
    pub place: Vec<PathStep>,
}

impl ConfiguredTask {
    /// Its parameters. One of an unknown type is what is there now, or else taken for a directory.
    pub fn bindings(&self) -> Vec<Binding> {
        let binding = |parameter: &ConfiguredParameter| {
            let is_file = parameter.is_file.unwrap_or_else(|| parameter.path.is_file());
            let binding = Binding::of(&parameter.name, &parameter.path, is_file, parameter.is_input);
            Binding { is_writable: parameter.is_writable, ..binding }
        };
        self.parameters.iter().map(binding).collect()
    }
}

/// Reads a task of an effective configuration. What is wrong with it is left in `faults`.
pub fn read_task(name: &Value, task: &Value, workspace: &Path, faults: &mut Vec<Mismatch>) -> Option<ConfiguredTask> {
    let path = joined(&[key("tasks")], key(&scalar(name).unwrap_or_default()));
    let Some(name) = name.as_str() else {
        faults.push(Mismatch::of_value(&path, "a text as the task's name", name));
        return None;
    };
    let entrypoint = match task.get("entrypoint") {
        None => vec![],
        Some(entrypoint) => {
            entrypoint.as_str().and_then(words).filter(|words| !words.is_empty()).unwrap_or_else(|| {
                let path = joined(&path, key("entrypoint"));
                faults.push(Mismatch::of_value(
                    &path,
                    "a program with its arguments, without what a shell acts on",
                    entrypoint,
                ));
                vec![]
            })
        }
    };
    let mut parameters = vec![];
    for direction in DIRECTIONS {
        let path = joined(&joined(&path, key("parameters")), key(direction));
        let listed = task.get("parameters").and_then(|all| all.get(direction)).and_then(Value::as_mapping);
        for (name, parameter) in listed.into_iter().flatten() {
            let place = joined(&path, key(&scalar(name).unwrap_or_default()));
            match read_parameter(name, parameter, place, direction == "inputs", workspace) {
                Ok(parameter) => parameters.push(parameter),
                Err(fault) => faults.push(fault),
            }
        }
    }
    Some(ConfiguredTask { name: name.into(), entrypoint, parameters })
}

fn read_parameter(
    name: &Value,
    parameter: &Value,
    place: Vec<PathStep>,
    is_input: bool,
    workspace: &Path,
) -> Result<ConfiguredParameter, Mismatch> {
    let Some(name) = name.as_str() else {
        return Err(Mismatch::of_value(&place, "a text as the parameter's name", name));
    };
    let at = |field: &str| joined(&place, key(field));
    let value = &parameter["default"];
    let is_file = match parameter["type"].as_str() {
        Some("file") => Some(true),
        Some("directory") => Some(false),
        Some("unknown") if is_input => None,
        Some("unknown") => {
            return Err(Mismatch::of_value(&place, "type: file, or a directory's path that ends in a slash", value));
        }
        _ => return Err(Mismatch::of_value(&at("type"), "file or directory", &parameter["type"])),
    };
    let wrong = |expected: &str| Mismatch::of_value(&at("default"), expected, value);
    let text = value.as_str().ok_or_else(|| wrong("a path"))?;
    if text.is_empty() {
        return Err(Mismatch::new(&at("default"), "a path", "nothing"));
    }
    if is_file == Some(true) && text.ends_with('/') {
        return Err(wrong("the path of a file"));
    }
    let path = host_path(text, workspace).map_err(|expected| wrong(&expected))?;
    let is_writable = match parameter.get("opts") {
        None | Some(Value::Null) => !is_input,
        Some(opts) => match opts.as_str() {
            Some("ro") => false,
            Some("rw") => true,
            _ => return Err(Mismatch::of_value(&at("opts"), "ro or rw", opts)),
        },
    };
    Ok(ConfiguredParameter { name: name.into(), path, is_file, is_input, is_writable, place })
}

/// The path that a value stands for: `~` and `$NAME` are replaced, and a relative path is in `workspace`. The error is what
/// was expected.
fn host_path(text: &str, workspace: &Path) -> Result<PathBuf, String> {
    let home = text == "~" || text.starts_with("~/");
    if text.starts_with('~') && !home {
        return Err("a path, without the name of a user".into());
    }
    let text = if home { format!("$HOME{}", &text[1..]) } else { text.to_string() };
    let path = PathBuf::from(with_variables(&text)?);
    let mut depth = 0;
    for part in path.components() {
        match part {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
        if depth < 0 && !path.is_absolute() {
            return Err("a path in the workspace, or an absolute one".into());
        }
    }
    Ok(workspace.join(path).components().collect())
}

/// `text` with the values of its environment variables.
fn with_variables(text: &str) -> Result<String, String> {
    let mut parts = text.split('$');
    let mut done = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, rest) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
            Some(named) => named,
            None => part.split_at(part.find(|c| !is_name(c)).unwrap_or(part.len())),
        };
        let value = std::env::var(name).ok().filter(|_| !name.is_empty());
        done += &value.ok_or_else(|| {
            format!("a value in the environment variable {}", if name.is_empty() { "NAME of $NAME" } else { name })
        })?;
        done += rest;
    }
    Ok(done)
}
