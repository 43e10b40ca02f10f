//! What the command line changes in a configuration: `-Pdocker.image=a/b:c` and `data_dir=PATH`.

use serde_yaml::{Mapping, Value};

use super::super::locate::{key, shown};
use super::super::schema::Mismatch;
use crate::text::{repeated, shortened};
use crate::yaml;

/// The most keys that lead to a value. Whatever works on a value calls itself for each.
pub const DEEPEST_KEYS: usize = 500;

/// A value in place of the file's.
#[derive(Debug, Clone)]
pub struct Override {
    /// As it was typed, after `-P`.
    text: String,
    /// The keys that lead to the value.
    pub path: Vec<String>,
    value: Value,
}

impl Override {
    /// Reads `KEY=VALUE`: keys with points between, and a value in YAML.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (keys, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as docker.image=a/b:c")?;
        let path: Vec<String> = keys.split('.').map(String::from).collect();
        if path.iter().any(String::is_empty) {
            return Err(format!("expected keys with points between, found {:?}", shortened(keys)));
        }
        if path.len() > DEEPEST_KEYS {
            return Err(format!("expected at most {DEEPEST_KEYS} keys with points between, found {}", path.len()));
        }
        if ["runtime", "workspace"].contains(&&*path[0]) {
            return Err("expected --workspace=DIR, which sets these keys".into());
        }
        let value = yaml::parse(value).map_err(|problem| format!("the value {}", problem.text))?;
        Ok(Self { text: text.into(), path, value })
    }

    /// As messages repeat it.
    pub fn typed(&self) -> String {
        format!("-P{}", repeated(&self.text))
    }

    /// The whole argument.
    pub fn argument(&self) -> String {
        format!("-P{}", self.text)
    }

    /// What takes the place of the file's value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Puts the value into `document`. A mapping is added to one that is there.
    pub fn apply(&self, document: &mut Value) -> Result<(), Mismatch> {
        let mut at = document;
        for (nth, name) in self.path.iter().enumerate() {
            let may_have_keys = match at {
                Value::Null | Value::Mapping(_) | Value::Tagged(_) => true,
                Value::String(text) => text.contains("${"), // the value of another key
                Value::Sequence(_) | Value::Number(_) | Value::Bool(_) => false,
            };
            if !may_have_keys {
                let path: Vec<_> = self.path.iter().map(|name| key(name)).collect();
                let expected = format!("keys with values in {}", shown(&path[..nth]));
                return Err(Mismatch::of_value(&path, &expected, at));
            }
            at = slot(at, name);
        }
        merge(at, &self.value);
        Ok(())
    }
}

/// The value of `name` in `value`, which becomes a mapping if it is none.
pub fn slot<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_mapping() {
        *value = Value::Mapping(Mapping::new());
    }
    match value.as_mapping_mut() {
        Some(mapping) => mapping.entry(name.into()).or_insert(Value::Null),
        None => unreachable!("it was made a mapping"),
    }
}

/// Puts `value` in place of `target`; of two mappings, key by key.
pub fn merge(target: &mut Value, value: &Value) {
    match (&mut *target, value) {
        (Value::Mapping(target), Value::Mapping(values)) => {
            for (name, value) in values {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *target = value.clone(),
    }
}

/// The value of a parameter, in every task that has one of this name.
#[derive(Debug, Clone)]
pub struct TaskArgument {
    /// The parameter's name.
    pub name: String,
    /// A path, as a file of configuration 2.0 has it.
    pub value: String,
}

impl TaskArgument {
    /// Reads `NAME=PATH`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.into(), value: value.into() }),
            _ => Err("expected NAME=PATH, such as data_dir=/datasets/mnist".into()),
        }
    }

    /// As messages repeat it.
    pub fn typed(&self) -> String {
        repeated(&self.argument())
    }

    /// The whole argument.
    pub fn argument(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

/// All changes of one command line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'a> {
    /// `-P`, in their order.
    pub overrides: &'a [Override],
    /// The values of parameters.
    pub arguments: &'a [TaskArgument],
}

impl Changes<'_> {
    /// The first of them, as it was typed.
    pub fn first(&self) -> Option<String> {
        let change = self.overrides.first().map(Override::typed);
        change.or_else(|| self.arguments.first().map(TaskArgument::typed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_with_a_tag_takes_values_too() {
        let mut value = serde_yaml::from_str("!c {image: a/b}").unwrap();
        *slot(&mut value, "image") = "c".into();
        assert_eq!(value.get("image").and_then(Value::as_str), Some("c"));
        let mut document = Value::Null;
        for change in ["docker=!x {image: a/b}", "docker.image=c"] {
            Override::parse(change)
                .unwrap()
                .apply(&mut document)
                .unwrap_or_else(|mismatch| panic!("{}", mismatch.problem));
        }
        assert_eq!(document.get("docker").and_then(|docker| docker.get("image")).and_then(Value::as_str), Some("c"));
    }
}
