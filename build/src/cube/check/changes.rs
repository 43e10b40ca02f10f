//! Which changes of the command line, such as `-Pdocker.image=a/b:c`, mean something.

use serde_yaml::Value;

use super::super::configuration::{Changes, Override, Section, uses};
use crate::text::{nearest, shortened, suggestion};

/// The keys of configuration 2.0 that a file may leave out.
const KEYS: [&str; 8] = ["name", "description", "authors", "platform", "docker", "singularity", "tasks", "runner"];

/// The changes of keys that were hardly meant: `document` has no such key, no `${...}` names it, and another one is near; or
/// of a task that the cube has not. Each with what is wrong. `mlcube` 0.0.9 takes keys of one's own, and so does a cube here.
pub fn unknown<'a>(document: &Value, changes: &Changes<'a>) -> Vec<(&'a Override, String)> {
    let names = |value: Option<&Value>| -> Vec<String> {
        let names = value.and_then(Value::as_mapping).into_iter().flatten().filter_map(|(name, _)| name.as_str());
        names.map(String::from).collect()
    };
    let mut keys = names(Some(document));
    keys.extend(KEYS.iter().filter(|key| document.get(**key).is_none()).map(|key| key.to_string()));
    let tasks = names(document.get("tasks"));
    let suggested = |name: &str, known: &[String]| {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        suggestion(name, known.iter().copied(), &known)
    };
    let problem = |change: &Override| {
        let key = &change.path[0];
        if !keys.contains(key) && is_misspelt(key, &keys) && !is_used(document, changes, key) {
            let known = suggested(key, &keys);
            let key = shortened(key);
            return Some(format!(
                "{key}: expected a key of the cube's file, or one that a ${{...}} uses, found none: {known}"
            ));
        }
        // The tasks may be the value of another key.
        let task = change.path.get(1).filter(|task| key == "tasks" && !tasks.is_empty() && !tasks.contains(task))?;
        let known = suggested(task, &tasks);
        Some(format!("tasks.{}: expected a task of the cube, found none of this name: {known}", shortened(task)))
    };
    changes.overrides.iter().filter_map(|change| Some((change, problem(change)?))).collect()
}

/// The changes of own keys that nothing uses.
pub fn unused<'a>(document: &Value, changes: &Changes<'a>) -> Vec<&'a Override> {
    let is_unused = |key: &String| {
        !KEYS.contains(&&**key) && document.get(key.as_str()).is_none() && !is_used(document, changes, key)
    };
    changes.overrides.iter().filter(|change| is_unused(&change.path[0])).collect()
}

fn is_misspelt(key: &str, keys: &[String]) -> bool {
    nearest(key, keys.iter().map(String::as_str)).is_some()
}

/// Whether a `${...}` of the file or of the command line may name `key`.
pub fn is_used(document: &Value, changes: &Changes, key: &str) -> bool {
    let arguments = changes.arguments.iter().any(|argument| uses(&argument.value.as_str().into(), key));
    arguments || uses(document, key) || changes.overrides.iter().any(|change| uses(change.value(), key))
}

/// The changes of a section that does not count on the platform of `section`.
pub fn without_effect<'a>(document: &Value, section: Section, changes: &Changes<'a>) -> Vec<&'a Override> {
    let has = |name: &str| {
        let has_keys = |value: &Value| !value.is_null() && value.as_mapping().is_none_or(|keys| !keys.is_empty());
        document.get(name).is_some_and(has_keys) || changes.overrides.iter().any(|change| change.path[0] == name)
    };
    let other = match section {
        Section::Docker => Section::Singularity,
        // Without a section of its own it follows from that of Docker.
        Section::Singularity if has(Section::Singularity.name()) => Section::Docker,
        Section::Singularity => return vec![],
    };
    let of_other = changes.overrides.iter().filter(|change| change.path[0] == other.name());
    of_other.filter(|_| !is_used(document, changes, other.name())).collect()
}
