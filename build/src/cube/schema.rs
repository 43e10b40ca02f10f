//! The schemas of the cube's files, and the check of one file against them. They are those of MLCube's documentation
//! and of the package `mlcube` 0.0.3 (`mlcube/schemas/`). The schemas of platform files stand with their runners.

use serde_yaml::Value;

use super::image_name::is_image;
use super::invocation::is_path;
use super::locate::{PathStep, joined, key, shown};
use super::words::words;
use crate::text::{one_of, shortened, suggestion};

/// The only version of all schemas.
const VERSION: &str = "1.0.0";

/// A kind of file: its `schema_type` and the fields besides `schema_type` and `schema_version`.
pub struct Schema {
    /// The value of `schema_type`.
    pub name: &'static str,
    /// The other fields.
    pub fields: &'static [Field],
}

/// A field of a mapping.
pub struct Field {
    /// Its key.
    pub name: &'static str,
    required: bool,
    value: Expected,
}

/// The values that a field may have.
pub enum Expected {
    /// A text that is not empty.
    Text,
    /// The name of an image in Docker.
    Image,
    /// The file of an image.
    ImageFile,
    /// The name of a machine or of a user, which no program takes for a flag.
    Host,
    /// A text or a number without blanks, which no program takes for a flag.
    Word,
    /// A number without fraction and sign.
    Count,
    /// True or false.
    Bool,
    /// A text of three numbers with points between.
    Version,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of mappings with these fields.
    Records(&'static [Field]),
    /// A mapping with these fields.
    Record(&'static [Field]),
    /// A mapping from any names to texts.
    Binding,
    /// A mapping from any names to places: see [`place`].
    Places,
    /// The name of a claim of Kubernetes.
    Claim,
    /// Which GPUs a container gets: see [`Gpus`].
    Gpus,
    /// Arguments of a program: words as a shell splits them, or names with values.
    Arguments,
    /// A text, a number, true or false.
    Scalar,
    /// Any value.
    Any,
}

/// A field that must be there.
pub const fn required(name: &'static str, value: Expected) -> Field {
    Field { name, required: true, value }
}

/// A field that may be there.
pub const fn optional(name: &'static str, value: Expected) -> Field {
    Field { name, required: false, value }
}

const PARAMETER: &[Field] =
    &[required("name", Expected::Text), required("type", Expected::OneOf(&["directory", "file"]))];

/// mlcube.yaml.
pub const ROOT: Schema = Schema {
    name: "mlcube_root",
    fields: &[
        required("name", Expected::Text),
        required("author", Expected::Text),
        required("version", Expected::Version),
        required("mlcube_spec_version", Expected::Version),
        required("tasks", Expected::Texts),
    ],
};

/// tasks/*.yaml.
pub const TASK: Schema = Schema {
    name: "mlcube_task",
    fields: &[required("inputs", Expected::Records(PARAMETER)), required("outputs", Expected::Records(PARAMETER))],
};

/// run/*.yaml.
pub const INVOKE: Schema = Schema {
    name: "mlcube_invoke",
    fields: &[
        required("task_name", Expected::Text),
        required("input_binding", Expected::Places),
        required("output_binding", Expected::Places),
    ],
};

/// A value that is not as expected.
pub struct Mismatch {
    /// Where it is in the document.
    pub path: Vec<PathStep>,
    /// The path, then what was expected and found.
    pub problem: String,
}

impl Mismatch {
    /// At `path`, `expected` and what was `found`.
    pub fn new(path: &[PathStep], expected: &str, found: &str) -> Self {
        Self { path: path.to_vec(), problem: format!("{}: expected {expected}, found {found}", shown(path)) }
    }

    /// The same for a value that was found.
    pub fn of_value(path: &[PathStep], expected: &str, found: &Value) -> Self {
        Self::new(path, expected, &described(found))
    }
}

/// Compares `document` with the one of `schemas` that its `schema_type` names.
pub fn check(document: &Value, schemas: &[&Schema]) -> Vec<Mismatch> {
    let names: Vec<&str> = schemas.iter().map(|schema| schema.name).filter(|name| !SETTINGS.contains(name)).collect();
    let Some(mapping) = document.as_mapping() else {
        let found = if document.is_null() { "an empty file".into() } else { described(document) };
        let problem = format!("expected the keys of {}, found {found}", one_of(&names));
        return vec![Mismatch { path: vec![], problem }];
    };
    let named = schema_type(document);
    let Some(schema) = schemas.iter().find(|schema| named == Some(schema.name)) else {
        let found = mapping.get("schema_type").map_or("nothing".into(), described);
        return vec![Mismatch::new(&[key("schema_type")], &one_of(&names), &found)];
    };
    let mut mismatches = vec![];
    let common = [required("schema_type", Expected::Text), required("schema_version", Expected::OneOf(&[VERSION]))];
    let common = if mapping.contains_key("schema_type") { &common[..] } else { &[] };
    check_mapping(document, &[common, schema.fields], &[], &mut mismatches);
    mismatches
}

/// The `schema_type` of a file. Settings of the package `mlcube` have none: the section with the runner's keys tells.
pub fn schema_type(document: &Value) -> Option<&str> {
    match document.get("schema_type") {
        None if SETTINGS.iter().any(|section| document.get(*section).is_some_and(Value::is_mapping)) => {
            Some(SETTINGS[0])
        }
        found => found?.as_str(),
    }
}

/// The names of that section, in the user's settings and in a cube.
pub const SETTINGS: [&str; 2] = ["k8s", "runner"];

/// Compares `document` with `fields` and accepts any other keys.
pub fn check_fields(document: &Value, fields: &[Field]) -> Vec<Mismatch> {
    let mut mismatches = vec![];
    check_values(document, fields.iter(), &[], &mut mismatches);
    mismatches
}

/// A mapping with the fields of all `groups` and no others.
fn check_mapping(value: &Value, groups: &[&[Field]], path: &[PathStep], mismatches: &mut Vec<Mismatch>) {
    let fields = || groups.iter().flat_map(|group| group.iter());
    let known: Vec<&str> = fields().map(|field| field.name).collect();
    let Some(mapping) = value.as_mapping() else {
        return mismatches.push(Mismatch::of_value(path, &format!("keys {}", known.join(", ")), value));
    };
    for name in mapping.keys() {
        let name = name.as_str().map_or_else(|| described(name), str::to_string);
        if !known.contains(&name.as_str()) {
            let path = joined(path, key(&name));
            let problem =
                format!("{}: unknown key: {}", shown(&path), suggestion(&name, known.iter().copied(), &known));
            mismatches.push(Mismatch { path, problem });
        }
    }
    check_values(value, fields(), path, mismatches);
}

/// The values of `fields`, whichever other keys there are.
fn check_values<'a>(
    value: &Value,
    fields: impl Iterator<Item = &'a Field>,
    path: &[PathStep],
    mismatches: &mut Vec<Mismatch>,
) {
    for field in fields {
        let path = joined(path, key(field.name));
        match value.get(field.name) {
            // An optional key without a value is as good as none.
            Some(Value::Null) if !field.required => {}
            Some(value) => check_value(value, &field.value, &path, mismatches),
            None if field.required => mismatches.push(Mismatch::new(&path, "a value", "none")),
            None => {}
        }
    }
}

fn check_value(value: &Value, expected: &Expected, path: &[PathStep], mismatches: &mut Vec<Mismatch>) {
    let mut check = |is_right: bool, expected: &str| {
        if !is_right {
            mismatches.push(Mismatch::of_value(path, expected, value));
        }
    };
    match expected {
        Expected::Any => {}
        Expected::Scalar => check(scalar(value).is_some(), "a text or a number"),
        Expected::Text => check(value.as_str().is_some_and(|text| !text.is_empty()), "a text"),
        Expected::Image => {
            check(value.as_str().is_some_and(is_image), "the name of an image, such as mlcommons/mlcube:mnist");
        }
        Expected::ImageFile => check(
            value.as_str().is_some_and(|text| !text.is_empty() && !text.starts_with('-') && is_path(text)),
            "the path of an image, without variables and without - or ~ at its beginning",
        ),
        Expected::Count => check(value.is_u64(), "a whole number"),
        Expected::Bool => check(value.is_bool(), "true or false"),
        Expected::Host => check(value.as_str().is_some_and(is_host), "a name of letters, digits and ._-:@%"),
        Expected::Word => check(word(value).is_some(), "a word or a number"),
        Expected::Arguments => {
            check(arguments(value, "").is_some(), "arguments without what a shell acts on, or names with values")
        }
        Expected::Gpus => check(Gpus::read(value).is_some(), "a number of GPUs, all, or a list such as device=0,2"),
        Expected::Version => check(value.as_str().is_some_and(is_version), "a version such as 0.1.0"),
        Expected::OneOf(choices) => {
            check(value.as_str().is_some_and(|text| choices.contains(&text)), &one_of(choices));
        }
        Expected::Texts => match value.as_sequence() {
            None => check(false, "a list"),
            Some(items) => {
                for (nth, item) in items.iter().enumerate() {
                    check_value(item, &Expected::Text, &joined(path, PathStep::Item(nth)), mismatches);
                }
            }
        },
        Expected::Records(fields) => match value.as_sequence() {
            None => check(false, "a list"),
            Some(items) => {
                for (nth, item) in items.iter().enumerate() {
                    check_mapping(item, &[fields], &joined(path, PathStep::Item(nth)), mismatches);
                }
            }
        },
        Expected::Record(fields) => check_mapping(value, &[fields], path, mismatches),
        Expected::Claim => check(value.as_str().is_some_and(is_claim), "the name of a claim, such as mnist"),
        Expected::Binding | Expected::Places => match value.as_mapping() {
            None => check(false, "parameters with their values"),
            Some(mapping) => {
                for (name, value) in mapping {
                    let name = name.as_str().map_or_else(|| described(name), str::to_string);
                    let on_claim = matches!(expected, Expected::Places) && value.is_mapping();
                    let expected = if on_claim { &ON_CLAIM } else { &Expected::Text };
                    check_value(value, expected, &joined(path, key(&name)), mismatches);
                }
            }
        },
    }
}

/// The arguments that `value` stands for: the words of a text, or of names with values `FLAG=NAME=VALUE` for each. None of
/// anything else.
pub fn arguments(value: &Value, flag: &str) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(vec![]),
        Value::String(text) => words(text),
        Value::Mapping(pairs) => {
            let pair = |(name, value): (&Value, &Value)| Some(format!("{flag}={}={}", name.as_str()?, scalar(value)?));
            pairs.iter().map(pair).collect()
        }
        _ => None,
    }
}

/// A value as a part of a text, as Python writes it.
pub fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        _ => return None,
    })
}

/// A value on a claim of Kubernetes, as the package `mlcube` 0.0.3 has it.
const ON_CLAIM: Expected = Expected::Record(&[
    required("path", Expected::Text),
    required("k8s", Expected::Record(&[required("pvc", Expected::Claim)])),
]);

/// A value of a run configuration: a path, and the claim that it is on.
pub fn place(value: &Value) -> Option<(&str, Option<&str>)> {
    match value.as_str() {
        Some(path) => Some((path, None)),
        None => Some((value.get("path")?.as_str()?, Some(value.get("k8s")?.get("pvc")?.as_str()?))),
    }
}

/// RFC 1123's subdomain, as Kubernetes wants it.
fn is_claim(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = text.chars().all(|c| ends(c) || "-.".contains(c));
    (1..=253).contains(&text.len()) && is_plain && text.starts_with(ends) && text.ends_with(ends)
}

/// A text or a number as a flag takes it.
pub fn word(value: &Value) -> Option<String> {
    let text = value.as_str().map(String::from).or_else(|| value.as_u64().map(|number| number.to_string()))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:,&|*@+/".contains(c);
    (!text.is_empty() && !text.starts_with('-') && text.chars().all(plain)).then_some(text)
}

fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:@%".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_:".contains(c)) && text.chars().all(plain)
}

/// The GPUs that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    /// `all`.
    All,
    /// So many of them.
    Number(u32),
    /// `device=0,2`: these, by number or by UUID.
    Devices(Vec<String>),
}

impl Gpus {
    /// Reads a value of a platform file.
    pub fn read(value: &Value) -> Option<Self> {
        if let Some(number) = value.as_u64() {
            return u32::try_from(number).ok().filter(|number| (1..=MOST_GPUS).contains(number)).map(Self::Number);
        }
        let text = value.as_str()?;
        if text == "all" {
            return Some(Self::All);
        }
        let devices: Vec<String> = text.strip_prefix("device=")?.split(',').map(String::from).collect();
        let is_name = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '/'].contains(&c))
        };
        devices.iter().all(is_name).then_some(Self::Devices(devices))
    }
}

/// No machine has more.
const MOST_GPUS: u32 = 1024;

fn is_version(text: &str) -> bool {
    let numbers: Vec<_> = text.split('.').map(str::parse::<u32>).collect();
    numbers.len() == 3 && numbers.iter().all(Result::is_ok)
}

/// A value as messages show it.
pub fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::String(text) => format!("{:?}", shortened(text)),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "keys with values".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Tagged(value) => format!("a value tagged {}", value.tag),
    }
}
