//! A row of the table of parameters: how a value is named, checked, stored, shown and explained.

use std::ops::{Bound, RangeBounds};
use std::sync::LazyLock;

use serde_json::Value;

use super::given::Given;
use super::values::Parameters;
use crate::engine::choice::GpuCount;
use crate::model::{MOST_HIDDEN_LAYERS, MOST_UNITS};
use crate::text::one_of;

/// One row of the table.
#[derive(Debug)]
pub struct Key {
    /// The name in the parameters file; as a flag, with two hyphens before it.
    pub name: &'static str,
    /// A second name for the same.
    pub synonym: Option<&'static str>,
    /// The meaning, for the help.
    pub help: &'static str,
    /// The kind of value and its range.
    pub kind: ValueKind,
    /// The name in the MLPerf log, if it stands there.
    pub mllog: Option<&'static str>,
    /// The default in words, where it depends on other parameters.
    pub(super) default: Option<&'static str>,
}

/// The kinds of values, each with its range and the field that takes it.
#[derive(Debug)]
pub enum ValueKind {
    /// A text: `set` stores it and returns nothing if it is not one of `choices`.
    Text {
        /// All that are allowed; one such as `gpu:NAME` stands for many.
        choices: fn() -> Vec<&'static str>,
        /// Stores it.
        set: fn(&mut Parameters, &str) -> Option<()>,
    },
    /// A whole number from `least` to `most`.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
        /// Stores it.
        set: fn(&mut Parameters, u64),
    },
    /// A number.
    Number {
        /// The range, for messages.
        expected: &'static str,
        /// The range.
        range: (Bound<f64>, Bound<f64>),
        /// Stores it.
        set: fn(&mut Parameters, f64),
    },
    /// A share from 0 to below 1, or a whole number of images from 1 to `most`.
    Part {
        /// The largest number.
        most: u64,
        /// Stores it.
        set: fn(&mut Parameters, f64),
    },
    /// A whole number of GPUs from 1 to [`GpuCount::MOST`], or one of [`GpuCount::WORDS`].
    Gpus {
        /// Stores it.
        set: fn(&mut Parameters, GpuCount),
    },
    /// `true` or `false`.
    Truth {
        /// Stores it.
        set: fn(&mut Parameters, bool),
    },
    /// A list of layer widths.
    Widths {
        /// Stores it.
        set: fn(&mut Parameters, Vec<usize>),
    },
}

impl Key {
    pub(super) const fn new(name: &'static str, help: &'static str, kind: ValueKind) -> Self {
        Self { name, synonym: None, help, kind, mllog: None, default: None }
    }

    pub(super) const fn or(self, synonym: &'static str) -> Self {
        Self { synonym: Some(synonym), ..self }
    }

    pub(super) const fn logged_as(self, mllog: &'static str) -> Self {
        Self { mllog: Some(mllog), ..self }
    }

    pub(super) const fn default_in_words(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The kind of value, for help.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            ValueKind::Text { .. } => "NAME",
            ValueKind::Whole { .. } | ValueKind::Number { .. } | ValueKind::Part { .. } | ValueKind::Gpus { .. } => {
                "NUMBER"
            }
            ValueKind::Truth { .. } => "true|false",
            ValueKind::Widths { .. } => "WIDTHS",
        }
    }

    /// The default value, for help.
    pub fn default(&self) -> String {
        if let Some(words) = self.default {
            return words.into();
        }
        match self.default_value() {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
            Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }

    /// The default value; none for one that is not set.
    pub fn default_value(&self) -> &'static Value {
        // All keys at once: every start of the program needs them, for its help.
        static DEFAULTS: LazyLock<Value> = LazyLock::new(|| Parameters::default().to_json());
        &DEFAULTS[self.name]
    }

    /// Checks `given` and stores it.
    ///
    /// # Errors
    /// A sentence such as `expected a whole number from 1 to 1000000, found 0`.
    pub fn set(&self, parameters: &mut Parameters, given: &Given) -> Result<(), String> {
        self.store(parameters, given).ok_or_else(|| format!("expected {}, found {given}", self.expected()))
    }

    fn store(&self, parameters: &mut Parameters, given: &Given) -> Option<()> {
        match &self.kind {
            ValueKind::Text { set, .. } => set(parameters, text(given)?)?,
            ValueKind::Whole { least, most, set } => set(parameters, whole(given, *least, *most)?),
            ValueKind::Number { range, set, .. } => {
                set(parameters, number(given).filter(|value| range.contains(value))?);
            }
            ValueKind::Part { most, set } => {
                let fits = |value: &f64| *value < 1.0 || value.fract() == 0.0 && *value <= *most as f64;
                set(parameters, number(given).filter(|value| *value >= 0.0 && fits(value))?);
            }
            ValueKind::Gpus { set } => set(parameters, gpu_count(given)?),
            ValueKind::Truth { set } => set(parameters, truth(given)?),
            ValueKind::Widths { set } => set(parameters, widths(given)?),
        }
        Some(())
    }

    /// The values that are allowed, in words.
    pub fn expected(&self) -> String {
        match &self.kind {
            ValueKind::Text { choices, .. } => one_of(&choices()),
            ValueKind::Whole { least, most, .. } => format!("a whole number from {least} to {most}"),
            ValueKind::Number { expected, .. } => expected.to_string(),
            ValueKind::Part { .. } => "a share from 0 to below 1, or a whole number of images".into(),
            ValueKind::Gpus { .. } => format!("auto, all or a whole number from 1 to {}", GpuCount::MOST),
            ValueKind::Truth { .. } => "true or false".into(),
            ValueKind::Widths { .. } => {
                format!(
                    "a list of at most {MOST_HIDDEN_LAYERS} widths, each a whole number from 1 to {MOST_UNITS}, such as \
                     [256, 128]"
                )
            }
        }
    }

    /// Reads the text of a flag as the file's value would be read.
    pub fn given_by_flag(&self, text: &str) -> Given {
        let yaml = match self.kind {
            ValueKind::Text { .. } => return Given::Text(text.into()),
            // Without a value it is a mistake, such as a variable that is not set, and no empty list.
            ValueKind::Widths { .. } if !text.trim().is_empty() && !text.starts_with('[') => {
                let widths = text.split(',').map(|widths| widths.split_whitespace().collect::<Vec<_>>().join(","));
                let widths: Vec<_> = widths.collect();
                // One that is missing is a mistake too, and no network with a layer less.
                if widths.iter().any(String::is_empty) {
                    return Given::Text(text.into());
                }
                format!("[{}]", widths.join(","))
            }
            _ => text.to_string(),
        };
        serde_yaml::from_str(&yaml).unwrap_or_else(|_| Given::Text(text.into()))
    }
}

/// A number from 0 to below 1.
pub(super) const fn fraction(set: fn(&mut Parameters, f64)) -> ValueKind {
    let range = (Bound::Included(0.0), Bound::Excluded(1.0));
    ValueKind::Number { expected: "a number from 0 to below 1", range, set }
}

fn text(given: &Given) -> Option<&str> {
    if let Given::Text(text) = given { Some(text) } else { None }
}

fn truth(given: &Given) -> Option<bool> {
    if let Given::Truth(value) = given { Some(*value) } else { None }
}

fn whole(given: &Given, least: u64, most: u64) -> Option<u64> {
    let Given::Whole(value) = given else { return None };
    u64::try_from(*value).ok().filter(|value| (least..=most).contains(value))
}

fn gpu_count(given: &Given) -> Option<GpuCount> {
    match given {
        Given::Text(text) => named(&GpuCount::WORDS, text),
        _ => whole(given, 1, GpuCount::MOST as u64).map(|number| GpuCount::Number(number as usize)),
    }
}

fn number(given: &Given) -> Option<f64> {
    match given {
        Given::Whole(value) => Some(*value as f64),
        Given::Number(value) => Some(*value),
        _ => None,
    }
}

fn widths(given: &Given) -> Option<Vec<usize>> {
    let list = match given {
        Given::List(list) => list.as_slice(),
        Given::Whole(_) => std::slice::from_ref(given),
        _ => return None,
    };
    let width = |item| whole(item, 1, MOST_UNITS as u64).map(|width| width as usize);
    if list.len() > MOST_HIDDEN_LAYERS { None } else { list.iter().map(width).collect() }
}

/// The names of `choices`.
pub(super) fn names<T>(choices: &[(&'static str, T)]) -> Vec<&'static str> {
    choices.iter().map(|(name, _)| *name).collect()
}

/// The choice of this name, in any case.
pub(super) fn named<T: Copy>(choices: &[(&'static str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}
