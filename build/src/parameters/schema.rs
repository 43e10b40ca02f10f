//! The JSON Schema of parameters files, made from the table of parameters. Editors complete and check a file by it.
//!
//! Format: <https://json-schema.org/draft/2020-12>. Its rules say which parameters go together, except that a warmup has
//! fewer epochs than `train_epochs`: no rule compares two values.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::key::{Key, ValueKind, names};
use super::table::KEYS;
use super::values::DISTORTIONS;
use crate::data::augment::AugmentKind;
use crate::engine::choice::GpuCount;
use crate::model::{MOST_HIDDEN_LAYERS, MOST_UNITS};
use crate::optim::{OptimizerKind, OptimizerOption, ScheduleKind};

/// The version of JSON Schema.
pub const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a parameters file.
pub fn schema() -> Value {
    let both = |key: &'static Key| [Some(key.name), key.synonym].into_iter().flatten();
    let properties = KEYS.iter().flat_map(|key| both(key).map(|name| (name.to_string(), property(key))));
    let synonyms = KEYS.iter().filter_map(|key| Some(json!({ "not": { "required": [key.name, key.synonym?] } })));
    json!({
        "$schema": DRAFT,
        "title": "Parameters of mnist train",
        "description": "mnist train also checks that a warmup of 1 or more is less than train_epochs",
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
        "allOf": synonyms.chain(rules()).collect::<Vec<_>>(),
    })
}

/// Which parameters go together: what [`Parameters`] checks, as far as a schema can say it.
fn rules() -> Vec<Value> {
    let above_0 = || json!({ "exclusiveMinimum": 0 });
    let split = || set("validation", &above_0());
    let options = OptimizerOption::ALL.map(|option| {
        let is_set = if option == OptimizerOption::Nesterov { json!({ "const": true }) } else { above_0() };
        let takers = OptimizerKind::ALL.iter().filter(|(_, kind)| kind.takes(option)).map(|(name, _)| *name);
        rule(set(option.name(), &is_set), choice("optimizer", takers))
    });
    let with_final = ScheduleKind::ALL.iter().filter(|(_, kind)| kind.takes_final()).map(|(name, _)| *name);
    let exponential = choice("schedule", [ScheduleKind::Exponential.name()]);
    let mut rules = vec![
        rule(choice("keep", ["best"]), split()),
        rule(set("early_stopping", &above_0()), split()),
        rule(set("min_delta", &above_0()), set("early_stopping", &above_0())),
        rule(set("nesterov", &json!({ "const": true })), set("momentum", &above_0())),
        rule(json!({ "required": ["final_learning_rate"] }), choice("schedule", with_final)),
        rule(exponential, json!({ "properties": { "final_learning_rate": above_0() } })),
        rule(set("gpus", &json!({ "anyOf": [{ "type": "integer", "minimum": 2 }, text(&["all"])] })), {
            json!({ "not": { "anyOf": [choice("device", ["cpu"]), choice("engine", ["burn"])] } })
        }),
    ];
    rules.extend(options);
    rules.extend(DISTORTIONS.map(|(name, _, takes_it)| {
        rule(json!({ "required": [name] }), choice("augment", AugmentKind::names(takes_it)))
    }));
    rules
}

fn rule(condition: Value, consequence: Value) -> Value {
    json!({ "if": condition, "then": consequence })
}

/// A parameter that is given with a value as `value` says. None of the rules holds for a default.
fn set(name: &str, value: &Value) -> Value {
    json!({ "properties": { name: value }, "required": [name] })
}

/// A parameter that is given with one of the values `choices`.
fn choice<'a>(name: &str, choices: impl IntoIterator<Item = &'a str>) -> Value {
    set(name, &text(&choices.into_iter().collect::<Vec<_>>()))
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
        ValueKind::Gpus { .. } => {
            let number = json!({ "type": "integer", "minimum": 1, "maximum": GpuCount::MOST });
            json!({ "anyOf": [number, text(&names(&GpuCount::WORDS))] })
        }
        ValueKind::Truth { .. } => json!({ "type": "boolean" }),
        ValueKind::Widths { .. } => {
            let width = json!({ "type": "integer", "minimum": 1, "maximum": MOST_UNITS });
            json!({ "anyOf": [{ "type": "array", "maxItems": MOST_HIDDEN_LAYERS, "items": width }, width] })
        }
    };
    property["description"] = match key.default {
        None => key.help.into(),
        Some(words) => format!("{}. Default: {words}", key.help).into(),
    };
    if key.default.is_none() {
        property["default"] = key.default_value().clone();
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
