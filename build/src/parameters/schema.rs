//! The JSON Schema of parameters files, made from the table of parameters. Editors complete and check a file by it.
//!
//! Format: <https://json-schema.org/draft/2020-12>. A schema judges one parameter at a time; the program also checks that
//! they go together.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::key::{Key, ValueKind};
use super::table::KEYS;
use super::values::Parameters;
use crate::model::{MOST_HIDDEN_LAYERS, MOST_UNITS};

/// The version of JSON Schema.
pub const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a parameters file.
pub fn schema() -> Value {
    let names = |key: &'static Key| [Some(key.name), key.synonym].into_iter().flatten();
    let properties = KEYS.iter().flat_map(|key| names(key).map(|name| (name.to_string(), property(key))));
    let synonyms = KEYS.iter().filter_map(|key| Some([key.name, key.synonym?]));
    json!({
        "$schema": DRAFT,
        "title": "Parameters of mnist train",
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
        "allOf": synonyms.map(|both| json!({ "not": { "required": both } })).collect::<Vec<_>>(),
    })
}

fn property(key: &Key) -> Value {
    let mut property = match &key.kind {
        ValueKind::Text { choices, .. } => text(&choices()),
        ValueKind::Whole { least, most, .. } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        ValueKind::Number { range, .. } => number(*range),
        ValueKind::Part { most, .. } => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
            { "type": "integer", "minimum": 1, "maximum": most },
        ] }),
        ValueKind::Truth { .. } => json!({ "type": "boolean" }),
        ValueKind::Widths { .. } => json!({
            "type": "array",
            "maxItems": MOST_HIDDEN_LAYERS,
            "items": { "type": "integer", "minimum": 1, "maximum": MOST_UNITS },
        }),
    };
    property["description"] = match key.default {
        None => key.help.into(),
        Some(words) => format!("{}. Default: {words}", key.help).into(),
    };
    if key.default.is_none() {
        property["default"] = key.value(&Parameters::default());
    }
    property
}

/// One of `choices`, for editors as they are, but valid in upper case too. One such as `gpu:NAME` stands for all that begin
/// with `gpu:`.
fn text(choices: &[&str]) -> Value {
    let in_any_case = |text: &str| -> String {
        let both = |c: char| if c.is_alphabetic() { format!("[{c}{}]", c.to_ascii_uppercase()) } else { c.into() };
        text.chars().map(both).collect()
    };
    let pattern = |choice: &&str| match choice.split_once(':') {
        None => in_any_case(choice),
        Some((kind, _)) => in_any_case(kind) + ":.+",
    };
    let patterns: Vec<String> = choices.iter().map(pattern).collect();
    let plain: Vec<&&str> = choices.iter().filter(|choice| !choice.contains(':')).collect();
    json!({ "anyOf": [
        { "enum": plain },
        { "type": "string", "pattern": format!("^({})$", patterns.join("|")) },
    ] })
}

fn number((least, most): (Bound<f64>, Bound<f64>)) -> Value {
    let mut number = json!({ "type": "number" });
    let bounds = [("minimum", "exclusiveMinimum", least), ("maximum", "exclusiveMaximum", most)];
    for (included, excluded, bound) in bounds {
        match bound {
            Bound::Included(value) => number[included] = json!(value),
            Bound::Excluded(value) => number[excluded] = json!(value),
            Bound::Unbounded => {}
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_has_its_kind_range_meaning_and_default() {
        let properties = &schema()["properties"];
        assert_eq!(
            properties["batch_size"],
            json!({
                "type": "integer",
                "minimum": 1,
                "maximum": 1_000_000,
                "description": "Images per step, over all threads together",
                "default": 32,
            })
        );
        assert_eq!(
            properties["learning_rate"],
            json!({
                "type": "number",
                "exclusiveMinimum": 0.0,
                "maximum": 1000.0,
                "description": "The step size. Default: 0.01 for sgd, else 0.001",
            })
        );
        assert_eq!(properties["keep"]["anyOf"][0], json!({ "enum": ["last", "best"] }));
        assert_eq!(properties["keep"]["anyOf"][1]["pattern"], "^([lL][aA][sS][tT]|[bB][eE][sS][tT])$");
        assert_eq!(properties["device"]["anyOf"][0], json!({ "enum": ["auto", "cpu", "gpu"] }));
        assert_eq!(properties["epochs"], properties["train_epochs"]);
    }
}
