//! The schemas of the cube's files, as the MLCube documents and the packages `mlcube` 0.0.3 (`mlcube/schemas/`) give them.

use serde_yaml::Value;

use super::locate::Step;
use crate::text::{nearest, one_of};

/// The only version of all schemas.
const VERSION: &str = "1.0.0";

/// A kind of file: its `schema_type` and its fields, besides `schema_type` and `schema_version`.
pub struct Schema {
    /// The value of `schema_type`.
    pub name: &'static str,
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    required: bool,
    value: Shape,
}

/// What a value must look like.
enum Shape {
    Text,
    Bool,
    /// Three numbers between points.
    Version,
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of mappings with these fields.
    Records(&'static [Field]),
    Record(&'static [Field]),
    /// Any names with texts.
    Binding,
    Any,
}

const fn required(name: &'static str, value: Shape) -> Field {
    Field { name, required: true, value }
}

const fn optional(name: &'static str, value: Shape) -> Field {
    Field { name, required: false, value }
}

const PARAMETER: &[Field] = &[required("name", Shape::Text), required("type", Shape::OneOf(&["directory", "file"]))];

/// mlcube.yaml.
pub const ROOT: Schema = Schema {
    name: "mlcube_root",
    fields: &[
        required("name", Shape::Text),
        required("author", Shape::Text),
        required("version", Shape::Version),
        required("mlcube_spec_version", Shape::Version),
        required("tasks", Shape::Texts),
    ],
};

/// tasks/*.yaml.
pub const TASK: Schema = Schema {
    name: "mlcube_task",
    fields: &[required("inputs", Shape::Records(PARAMETER)), required("outputs", Shape::Records(PARAMETER))],
};

/// run/*.yaml.
pub const INVOKE: Schema = Schema {
    name: "mlcube_invoke",
    fields: &[
        required("task_name", Shape::Text),
        required("input_binding", Shape::Binding),
        required("output_binding", Shape::Binding),
    ],
};

/// platforms/**/*.yaml: the documents' two, the one of the runners 0.0.1 to 0.0.3, and ours for no container.
pub const PLATFORMS: &[Schema] = &[
    Schema {
        name: "mlcube_docker",
        fields: &[
            required("image", Shape::Text),
            required("docker_runtime", Shape::OneOf(&["docker", "nvidia-docker"])),
        ],
    },
    // `nv` is ours: the documents say nothing of GPUs.
    Schema { name: "mlcube_singularity", fields: &[required("image", Shape::Text), optional("nv", Shape::Bool)] },
    Schema { name: "mlcube_native", fields: &[] },
    Schema {
        name: "mlcube_platform",
        fields: &[
            required(
                "platform",
                Shape::Record(&[
                    required("name", Shape::OneOf(&["docker", "singularity"])),
                    required("version", Shape::Text),
                ]),
            ),
            required("container", Shape::Record(&[required("image", Shape::Text), optional("runtime", Shape::Text)])),
        ],
    },
];

/// mlcube-2.0.yaml but for its tasks, other runners' sections left alone. The keys are those of the runners' defaults in
/// `mlcube-docker` and `mlcube-singularity` 0.0.9, which refuse others.
const CONFIGURATION_2: &[Field] = &[
    required("name", Shape::Text),
    required(
        "docker",
        Shape::Record(&[
            required("image", Shape::Text),
            optional("runner", Shape::Text),
            optional("docker", Shape::Text),
            optional("env_args", Shape::Any),
            optional("gpu_args", Shape::Any),
            optional("cpu_args", Shape::Any),
            optional("build_args", Shape::Any),
            optional("build_context", Shape::Text),
            optional("build_file", Shape::Text),
            optional("build_strategy", Shape::OneOf(&["pull", "auto", "always"])),
        ]),
    ),
    required(
        "singularity",
        Shape::Record(&[
            required("image", Shape::Text),
            optional("runner", Shape::Text),
            optional("image_dir", Shape::Text),
            optional("singularity", Shape::Text),
            optional("build_args", Shape::Any),
            optional("run_args", Shape::Any),
            optional("build_file", Shape::Text),
        ]),
    ),
];

/// What is wrong in a document, and where.
pub type Problem = (Vec<Step>, String);

/// Holds `document` against whichever of `schemas` its `schema_type` names.
pub fn check(document: &Value, schemas: &[Schema]) -> Vec<Problem> {
    let names: Vec<&str> = schemas.iter().map(|schema| schema.name).collect();
    let Some(mapping) = document.as_mapping() else {
        return vec![(vec![], format!("expected the keys of {}, found {}", one_of(&names), described(document)))];
    };
    let named = mapping.get("schema_type").and_then(Value::as_str);
    let Some(schema) = schemas.iter().find(|schema| named == Some(schema.name)) else {
        let found = mapping.get("schema_type").map_or("nothing".into(), described);
        let problem = format!("schema_type: expected {}, found {found}", one_of(&names));
        return vec![(vec![key("schema_type")], problem)];
    };
    let mut problems = Vec::new();
    let common = [required("schema_type", Shape::Text), required("schema_version", Shape::OneOf(&[VERSION]))];
    fields(document, &[&common, schema.fields], &[], &mut problems);
    problems
}

/// Holds mlcube-2.0.yaml, without its tasks, against what its runners know.
pub fn check_configuration_2(document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    values(document, CONFIGURATION_2.iter(), &[], &mut problems);
    problems
}

fn fields(value: &Value, groups: &[&[Field]], path: &[Step], problems: &mut Vec<Problem>) {
    let known: Vec<&str> = groups.iter().flat_map(|group| group.iter().map(|field| field.name)).collect();
    let Some(mapping) = value.as_mapping() else {
        problems.push(wrong(path, &format!("keys {}", known.join(", ")), value));
        return;
    };
    for name in mapping.keys() {
        let name = name.as_str().map_or_else(|| described(name), str::to_string);
        if !known.contains(&name.as_str()) {
            let advice = match nearest(&name, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", known.join(", ")),
            };
            let path = joined(path, key(&name));
            problems.push((path.clone(), format!("{}: unknown key: {advice}", shown(&path))));
        }
    }
    values(value, groups.iter().flat_map(|group| group.iter()), path, problems);
}

/// The values of `fields`, whatever other keys there are.
fn values<'a>(value: &Value, fields: impl Iterator<Item = &'a Field>, path: &[Step], problems: &mut Vec<Problem>) {
    for field in fields {
        let path = joined(path, key(field.name));
        match value.get(field.name) {
            Some(value) => shape(value, &field.value, &path, problems),
            None if field.required => {
                problems.push((path.clone(), format!("{}: expected it, found nothing", shown(&path))))
            }
            None => {}
        }
    }
}

fn shape(value: &Value, expected: &Shape, path: &[Step], problems: &mut Vec<Problem>) {
    let items = |expected: &str, problems: &mut Vec<Problem>| match value.as_sequence() {
        Some(items) => items.clone(),
        None => {
            problems.push(wrong(path, expected, value));
            vec![]
        }
    };
    match expected {
        Shape::Text => {
            if value.as_str().is_none_or(str::is_empty) {
                problems.push(wrong(path, "a text", value));
            }
        }
        Shape::Bool => {
            if value.as_bool().is_none() {
                problems.push(wrong(path, "true or false", value));
            }
        }
        Shape::Version => {
            let numbers = value.as_str().map(|text| text.split('.').map(str::parse::<u32>).collect::<Vec<_>>());
            if !numbers.is_some_and(|numbers| numbers.len() == 3 && numbers.iter().all(Result::is_ok)) {
                problems.push(wrong(path, "a version such as 0.1.0", value));
            }
        }
        Shape::OneOf(choices) => {
            if !value.as_str().is_some_and(|text| choices.contains(&text)) {
                problems.push(wrong(path, &one_of(choices), value));
            }
        }
        Shape::Texts => {
            for (nth, item) in items("a list", problems).iter().enumerate() {
                shape(item, &Shape::Text, &joined(path, Step::Item(nth)), problems);
            }
        }
        Shape::Records(of) => {
            for (nth, item) in items("a list", problems).iter().enumerate() {
                fields(item, &[of], &joined(path, Step::Item(nth)), problems);
            }
        }
        Shape::Record(of) => fields(value, &[of], path, problems),
        Shape::Any => {}
        Shape::Binding => match value.as_mapping() {
            None => problems.push(wrong(path, "parameters with their values", value)),
            Some(mapping) => {
                for (name, value) in mapping {
                    let name = name.as_str().map_or_else(|| described(name), str::to_string);
                    shape(value, &Shape::Text, &joined(path, key(&name)), problems);
                }
            }
        },
    }
}

fn wrong(path: &[Step], expected: &str, found: &Value) -> Problem {
    (path.to_vec(), format!("{}: expected {expected}, found {}", shown(path), described(found)))
}

/// A path as messages show it: `inputs[1].type`.
pub fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Item(nth) => text.push_str(&format!("[{nth}]")),
        }
    }
    text
}

/// A step by key.
pub fn key(name: &str) -> Step {
    Step::Key(name.to_string())
}

/// `path` and one step more.
pub fn joined(path: &[Step], step: Step) -> Vec<Step> {
    [path, &[step]].concat()
}

/// A value as messages show it.
pub fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::String(text) => format!("{:?}", crate::text::shortened(text)),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "keys with values".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Tagged(value) => format!("a value tagged {}", value.tag),
    }
}
