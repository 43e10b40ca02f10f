//! The table of parameters. The file's reader, the flags, their help, the README and the MLPerf log are made from it or
//! checked against it. A new parameter is a field, its default and a row, all in this file.

use serde::Serialize;
use serde_json::Value;

use super::given::Given;
use crate::engine::choice::{DeviceChoice, EngineChoice};
use crate::model::{MOST_HIDDEN_LAYERS, MOST_UNITS};
use crate::optim::OptimizerKind;
use crate::text::one_of;

/// Every parameter of a training run with its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Epochs: how often each training image is seen.
    pub train_epochs: u32,
    /// Images per step, over all threads and devices together. The last batch of an epoch may be short.
    pub batch_size: usize,
    /// The step size.
    pub learning_rate: f64,
    /// The fraction of the last update that is kept (sgd, rmsprop).
    pub momentum: f64,
    /// Nesterov's variant of momentum (sgd).
    pub nesterov: bool,
    /// Decoupled weight decay, per step and times the learning rate (all but adam).
    pub weight_decay: f64,
    /// The width of each hidden layer, from the input on.
    pub hidden_layers: Vec<usize>,
    /// The fraction of hidden activations that training drops, after each hidden layer.
    pub dropout: f64,
    /// The seed of initial weights, order and dropout.
    pub seed: u64,
    /// The device to train on.
    pub device: DeviceChoice,
    /// The engine that trains.
    pub engine: EngineChoice,
    /// The number of threads; 0: one for each processor.
    pub threads: usize,
}

/// The defaults of `mnist.py` and Keras.
impl Default for Parameters {
    fn default() -> Self {
        let optimizer = OptimizerKind::Adam;
        Self {
            optimizer,
            train_epochs: 5,
            batch_size: 32,
            learning_rate: optimizer.default_learning_rate(),
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            hidden_layers: vec![128],
            dropout: 0.2,
            seed: 42,
            device: DeviceChoice::Auto,
            engine: EngineChoice::Auto,
            threads: 0,
        }
    }
}

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
    default: Option<&'static str>,
}

/// The kinds of values, each with its range and the field that takes it.
#[derive(Debug)]
pub enum ValueKind {
    /// A text: `set` stores it and returns nothing if it is not one of those in `expected`.
    Text {
        /// All that are allowed, for messages.
        expected: fn() -> String,
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
        fits: fn(f64) -> bool,
        /// Stores it.
        set: fn(&mut Parameters, f64),
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

/// All parameters, in the order in which they are explained and written.
pub static KEYS: [Key; 13] = [
    Key::new(
        "optimizer",
        "adam, adamw, sgd, rmsprop or adagrad",
        ValueKind::Text {
            expected: || names(&OptimizerKind::ALL),
            set: |p, text| named(&OptimizerKind::ALL, text).map(|value| p.optimizer = value),
        },
    )
    .logged_as("opt_name"),
    Key::new(
        "train_epochs",
        "How often each training image is seen",
        ValueKind::Whole { least: 1, most: 100_000, set: |p, value| p.train_epochs = value as u32 },
    )
    .or("epochs")
    .logged_as("max_epochs"),
    Key::new(
        "batch_size",
        "Images per step, over all threads together",
        ValueKind::Whole { least: 1, most: 1_000_000, set: |p, value| p.batch_size = value as usize },
    )
    .logged_as("global_batch_size"),
    Key::new(
        "learning_rate",
        "The step size",
        ValueKind::Number {
            expected: "a number above 0 and at most 1000",
            fits: |value| value > 0.0 && value <= 1000.0,
            set: |p, value| p.learning_rate = value,
        },
    )
    .default_in_words("0.01 for sgd, else 0.001")
    .logged_as("opt_base_learning_rate"),
    Key::new(
        "momentum",
        "The fraction of the last update that is kept, for sgd and rmsprop",
        fraction(|p, value| p.momentum = value),
    ),
    Key::new(
        "nesterov",
        "Nesterov's variant of momentum, for sgd: true or false",
        ValueKind::Truth { set: |p, value| p.nesterov = value },
    ),
    Key::new(
        "weight_decay",
        "Decoupled weight decay, for all optimizers but adam",
        ValueKind::Number {
            expected: "a number from 0 to 1",
            fits: |value| (0.0..=1.0).contains(&value),
            set: |p, value| p.weight_decay = value,
        },
    )
    .logged_as("opt_weight_decay"),
    Key::new(
        "hidden_layers",
        "The width of each hidden layer, such as 256,128; [] for none",
        ValueKind::Widths { set: |p, value| p.hidden_layers = value },
    )
    .logged_as("hidden_layers"),
    Key::new(
        "dropout",
        "The fraction of activations dropped after each hidden layer",
        fraction(|p, value| p.dropout = value),
    )
    .logged_as("dropout"),
    Key::new(
        "seed",
        "The seed of initial weights, order and dropout",
        ValueKind::Whole { least: 0, most: u64::MAX, set: |p, value| p.seed = value },
    )
    .logged_as("seed"),
    Key::new(
        "device",
        "auto, cpu, gpu, or one of those that `mnist devices` lists: gpu:NUMBER, gpu:NAME",
        ValueKind::Text {
            expected: || DeviceChoice::EXPECTED.into(),
            set: |p, text| DeviceChoice::parse(text).map(|value| p.device = value),
        },
    ),
    Key::new(
        "engine",
        "auto, fused or burn; auto is fused",
        ValueKind::Text {
            expected: || names(EngineChoice::ALL),
            set: |p, text| named(EngineChoice::ALL, text).map(|value| p.engine = value),
        },
    ),
    Key::new(
        "threads",
        "The number of threads; 0: one for each processor. A narrow network uses fewer",
        ValueKind::Whole { least: 0, most: 1024, set: |p, value| p.threads = value as usize },
    ),
];

impl Key {
    const fn new(name: &'static str, help: &'static str, kind: ValueKind) -> Self {
        Self { name, synonym: None, help, kind, mllog: None, default: None }
    }

    const fn or(self, synonym: &'static str) -> Self {
        Self { synonym: Some(synonym), ..self }
    }

    const fn logged_as(self, mllog: &'static str) -> Self {
        Self { mllog: Some(mllog), ..self }
    }

    const fn default_in_words(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The key of that name or synonym.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name || key.synonym == Some(name))
    }

    /// The default value, for help and README.
    pub fn default(&self) -> String {
        if let Some(words) = self.default {
            return words.into();
        }
        match self.value(&Parameters::default()) {
            Value::String(text) => text,
            Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
            Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }

    /// The value that `parameters` have for it.
    pub fn value(&self, parameters: &Parameters) -> Value {
        let mut all =
            serde_json::to_value(parameters).unwrap_or_else(|e| unreachable!("plain fields become JSON: {e}"));
        all[self.name].take()
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
            ValueKind::Number { fits, set, .. } => set(parameters, number(given).filter(|value| fits(*value))?),
            ValueKind::Truth { set } => set(parameters, truth(given)?),
            ValueKind::Widths { set } => set(parameters, widths(given)?),
        }
        Some(())
    }

    fn expected(&self) -> String {
        match &self.kind {
            ValueKind::Text { expected, .. } => expected(),
            ValueKind::Whole { least, most, .. } => format!("a whole number from {least} to {most}"),
            ValueKind::Number { expected, .. } => expected.to_string(),
            ValueKind::Truth { .. } => "true or false".into(),
            ValueKind::Widths { .. } => {
                format!("a list of at most {MOST_HIDDEN_LAYERS} widths, each a whole number from 1 to {MOST_UNITS}")
            }
        }
    }

    /// Reads the text of a flag as the file's value would be read.
    pub fn given_by_flag(&self, text: &str) -> Given {
        let yaml = match self.kind {
            ValueKind::Text { .. } => return Given::Text(text.into()),
            // Without a value it is a mistake, such as a variable that is not set, and no empty list.
            ValueKind::Widths { .. } if !text.trim().is_empty() && !text.starts_with('[') => format!("[{text}]"),
            _ => text.to_string(),
        };
        serde_yaml::from_str(&yaml).unwrap_or_else(|_| Given::Text(text.into()))
    }
}

const fn fraction(set: fn(&mut Parameters, f64)) -> ValueKind {
    ValueKind::Number { expected: "a number from 0 to below 1", fits: |value| (0.0..1.0).contains(&value), set }
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

fn number(given: &Given) -> Option<f64> {
    match given {
        Given::Whole(value) => Some(*value as f64),
        Given::Number(value) => Some(*value),
        _ => None,
    }
}

fn widths(given: &Given) -> Option<Vec<usize>> {
    let Given::List(list) = given else { return None };
    let width = |item| whole(item, 1, MOST_UNITS as u64).map(|width| width as usize);
    if list.len() > MOST_HIDDEN_LAYERS { None } else { list.iter().map(width).collect() }
}

fn names<T>(choices: &[(&'static str, T)]) -> String {
    one_of(&choices.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

fn named<T: Copy>(choices: &[(&'static str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_one_row_in_its_order() {
        let fields = serde_json::to_value(Parameters::default()).unwrap();
        let fields: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, KEYS.each_ref().map(|key| key.name));
    }

    #[test]
    fn defaults_are_shown_as_they_are_typed() {
        let shown = |name| Key::find(name).unwrap().default();
        assert_eq!(shown("optimizer"), "adam");
        assert_eq!(shown("momentum"), "0");
        assert_eq!(shown("dropout"), "0.2");
        assert_eq!(shown("hidden_layers"), "128");
        for key in KEYS.iter().filter(|key| key.default.is_none()) {
            let mut parameters = Parameters::default();
            key.set(&mut parameters, &key.given_by_flag(&key.default())).unwrap();
            assert_eq!(parameters, Parameters::default(), "{}", key.name);
        }
    }
}
