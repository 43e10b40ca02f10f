//! The table of parameters: name, what values it takes, how a given value is checked and stored.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::engine::choice::{DeviceChoice, EngineChoice};
use crate::optim::OptimizerKind;
use crate::text::{one_of, shortened};

/// The parameters that were given, by file or flag; what was not is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Parameters`")]
pub struct Draft {
    pub optimizer: Option<OptimizerKind>,
    pub train_epochs: Option<u32>,
    pub batch_size: Option<usize>,
    pub learning_rate: Option<f64>,
    pub momentum: Option<f64>,
    pub nesterov: Option<bool>,
    pub weight_decay: Option<f64>,
    pub hidden_layers: Option<Vec<usize>>,
    pub dropout: Option<f64>,
    pub seed: Option<u64>,
    pub device: Option<DeviceChoice>,
    pub engine: Option<EngineChoice>,
    pub threads: Option<usize>,
}

impl Draft {
    /// This draft with everything that `other` gives in its place.
    pub fn overridden_by(self, other: Draft) -> Draft {
        Draft {
            optimizer: other.optimizer.or(self.optimizer),
            train_epochs: other.train_epochs.or(self.train_epochs),
            batch_size: other.batch_size.or(self.batch_size),
            learning_rate: other.learning_rate.or(self.learning_rate),
            momentum: other.momentum.or(self.momentum),
            nesterov: other.nesterov.or(self.nesterov),
            weight_decay: other.weight_decay.or(self.weight_decay),
            hidden_layers: other.hidden_layers.or(self.hidden_layers),
            dropout: other.dropout.or(self.dropout),
            seed: other.seed.or(self.seed),
            device: other.device.or(self.device),
            engine: other.engine.or(self.engine),
            threads: other.threads.or(self.threads),
        }
    }
}

/// One parameter.
#[derive(Debug)]
pub struct Key {
    /// Its name in the parameters file; as a flag, with two hyphens before it.
    pub name: &'static str,
    /// A second name for the same in the file.
    pub synonym: Option<&'static str>,
    /// Other spellings of the flag.
    pub aliases: &'static [&'static str],
    /// What it means, for the help.
    pub help: &'static str,
    /// Checks a value and stores it; the error says what was expected.
    set: fn(&mut Draft, &Given) -> std::result::Result<(), String>,
}

/// All parameters, in the order in which they are explained and written.
pub const KEYS: [Key; 13] = [
    Key {
        name: "optimizer",
        synonym: None,
        aliases: &[],
        help: "adam, adamw, sgd, rmsprop or adagrad [default: adam]",
        set: |draft, given| choice(given, &OptimizerKind::ALL).map(|v| draft.optimizer = Some(v)),
    },
    Key {
        name: "train_epochs",
        synonym: Some("epochs"),
        aliases: &["train-epochs", "epochs"],
        help: "How often each training image is seen [default: 5]",
        set: |draft, given| whole(given, 1, 100_000).map(|v| draft.train_epochs = Some(v as u32)),
    },
    Key {
        name: "batch_size",
        synonym: None,
        aliases: &["batch-size"],
        help: "Images per step, over all threads together [default: 32]",
        set: |draft, given| whole(given, 1, 1_000_000).map(|v| draft.batch_size = Some(v as usize)),
    },
    Key {
        name: "learning_rate",
        synonym: None,
        aliases: &["learning-rate"],
        help: "The step size [default: 0.01 for sgd, else 0.001]",
        set: |draft, given| {
            let range = "a number above 0 and at most 1000";
            number(given, range, |v| v > 0.0 && v <= 1000.0).map(|v| draft.learning_rate = Some(v))
        },
    },
    Key {
        name: "momentum",
        synonym: None,
        aliases: &[],
        help: "How much of the last step is kept, for sgd and rmsprop [default: 0]",
        set: |draft, given| fraction(given).map(|v| draft.momentum = Some(v)),
    },
    Key {
        name: "nesterov",
        synonym: None,
        aliases: &[],
        help: "Nesterov's variant of momentum, for sgd: true or false [default: false]",
        set: |draft, given| match given {
            Given::Truth(value) => {
                draft.nesterov = Some(*value);
                Ok(())
            }
            _ => Err("true or false".into()),
        },
    },
    Key {
        name: "weight_decay",
        synonym: None,
        aliases: &["weight-decay"],
        help: "Decoupled weight decay, for all optimizers but adam [default: 0]",
        set: |draft, given| {
            number(given, "a number from 0 to 1", |v| (0.0..=1.0).contains(&v)).map(|v| draft.weight_decay = Some(v))
        },
    },
    Key {
        name: "hidden_layers",
        synonym: None,
        aliases: &["hidden-layers"],
        help: "The width of each hidden layer, such as 256,128; [] for none [default: 128]",
        set: |draft, given| {
            let expected = || "a list of at most 32 widths, each a whole number from 1 to 4096".to_string();
            let Given::List(list) = given else { return Err(expected()) };
            if list.len() > 32 {
                return Err(expected());
            }
            let widths: Option<Vec<usize>> =
                list.iter().map(|item| whole(item, 1, 4096).ok().map(|width| width as usize)).collect();
            draft.hidden_layers = Some(widths.ok_or_else(expected)?);
            Ok(())
        },
    },
    Key {
        name: "dropout",
        synonym: None,
        aliases: &[],
        help: "The share of activations dropped after each hidden layer [default: 0.2]",
        set: |draft, given| fraction(given).map(|v| draft.dropout = Some(v)),
    },
    Key {
        name: "seed",
        synonym: None,
        aliases: &[],
        help: "The seed of initial weights, order and dropout [default: 42]",
        set: |draft, given| whole(given, 0, u64::MAX).map(|v| draft.seed = Some(v)),
    },
    Key {
        name: "device",
        synonym: None,
        aliases: &[],
        help: "auto, cpu, gpu, or one of those that `mnist devices` lists: gpu:NUMBER, gpu:NAME [default: auto]",
        set: |draft, given| {
            let Given::Text(text) = given else { return Err(DeviceChoice::EXPECTED.into()) };
            draft.device = Some(DeviceChoice::parse(text).ok_or(DeviceChoice::EXPECTED)?);
            Ok(())
        },
    },
    Key {
        name: "engine",
        synonym: None,
        aliases: &[],
        help: "auto, fused or burn; auto is fused [default: auto]",
        set: |draft, given| choice(given, EngineChoice::ALL).map(|v| draft.engine = Some(v)),
    },
    Key {
        name: "threads",
        synonym: None,
        aliases: &[],
        help: "How many threads; 0: as many as there are processors [default: 0]",
        set: |draft, given| whole(given, 0, 1024).map(|v| draft.threads = Some(v as usize)),
    },
];

impl Key {
    /// The key of that name or synonym.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name || key.synonym == Some(name))
    }

    /// Checks `given` and stores it in `draft`.
    ///
    /// # Errors
    /// A sentence such as `expected a whole number from 1 to 1000000, found 0`.
    pub fn set(&self, draft: &mut Draft, given: &Given) -> std::result::Result<(), String> {
        (self.set)(draft, given).map_err(|expected| format!("expected {expected}, found {given}"))
    }

    /// Reads the text of a flag as the file's value would be read.
    pub fn given_by_flag(&self, text: &str) -> Given {
        let yaml = match self.name {
            "optimizer" | "device" | "engine" => return Given::Text(text.into()),
            "hidden_layers" if !text.starts_with('[') => format!("[{text}]"),
            _ => text.to_string(),
        };
        serde_yaml::from_str(&yaml).unwrap_or_else(|_| Given::Text(text.into()))
    }
}

fn whole(given: &Given, least: u64, most: u64) -> std::result::Result<u64, String> {
    match given {
        Given::Whole(value) => u64::try_from(*value).ok().filter(|value| (least..=most).contains(value)),
        _ => None,
    }
    .ok_or_else(|| format!("a whole number from {least} to {most}"))
}

fn number(given: &Given, range: &str, fits: impl Fn(f64) -> bool) -> std::result::Result<f64, String> {
    let value = match given {
        Given::Whole(value) => *value as f64,
        Given::Number(value) => *value,
        _ => f64::NAN,
    };
    if fits(value) { Ok(value) } else { Err(range.into()) }
}

fn fraction(given: &Given) -> std::result::Result<f64, String> {
    number(given, "a number from 0 to below 1", |v| (0.0..1.0).contains(&v))
}

fn choice<T: Copy>(given: &Given, choices: &[(&'static str, T)]) -> std::result::Result<T, String> {
    let found = match given {
        Given::Text(text) => choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)),
        _ => None,
    };
    found.map(|(_, value)| *value).ok_or_else(|| one_of(&choices.iter().map(|(name, _)| *name).collect::<Vec<_>>()))
}

/// A value as it was given, before its key says what it should be. `Display` is how messages quote it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are YAML's kinds of values")]
pub enum Given {
    Nothing,
    Truth(bool),
    Whole(i128),
    Number(f64),
    Text(String),
    List(Vec<Given>),
    Mapping,
    Tagged,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Nothing => f.write_str("nothing"),
            Given::Truth(value) => write!(f, "{value}"),
            Given::Whole(value) => write!(f, "{value}"),
            Given::Number(value) if value.is_nan() => f.write_str(".nan"),
            Given::Number(value) => write!(f, "{value:?}"),
            Given::Text(text) => write!(f, "the text {:?}", shortened(text)),
            Given::List(list) => {
                let items: Vec<String> = list.iter().take(8).map(Given::to_string).collect();
                write!(f, "[{}{}]", items.join(", "), if list.len() > 8 { ", ..." } else { "" })
            }
            Given::Mapping => f.write_str("a mapping"),
            Given::Tagged => f.write_str("a value with a tag"),
        }
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        GivenReader { in_list: false, then: Ok }.deserialize(deserializer)
    }
}

/// Reads one value and passes it to `then`, whose error gets the value's place in the file.
///
/// A list in a list is read only as far as knowing that it is one: no parameter nests, and a few lines of nested
/// aliases would unfold to gigabytes.
pub struct GivenReader<F> {
    /// Whether the value is an item of a list.
    pub in_list: bool,
    /// What becomes of it.
    pub then: F,
}

impl<F, T> GivenReader<F>
where
    F: FnOnce(Given) -> std::result::Result<T, String>,
{
    fn take<E: serde::de::Error>(self, given: Given) -> std::result::Result<T, E> {
        (self.then)(given).map_err(E::custom)
    }
}

impl<'de, F, T> DeserializeSeed<'de> for GivenReader<F>
where
    F: FnOnce(Given) -> std::result::Result<T, String>,
{
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F, T> Visitor<'de> for GivenReader<F>
where
    F: FnOnce(Given) -> std::result::Result<T, String>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<T, E> {
        self.take(Given::Nothing)
    }
    fn visit_none<E: serde::de::Error>(self) -> std::result::Result<T, E> {
        self.take(Given::Nothing)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> std::result::Result<T, E> {
        self.take(Given::Truth(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> std::result::Result<T, E> {
        self.take(Given::Whole(value.into()))
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> std::result::Result<T, E> {
        self.take(Given::Whole(value.into()))
    }
    fn visit_i128<E: serde::de::Error>(self, value: i128) -> std::result::Result<T, E> {
        self.take(Given::Whole(value))
    }
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> std::result::Result<T, E> {
        self.take(i128::try_from(value).map_or(Given::Number(value as f64), Given::Whole))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<T, E> {
        self.take(Given::Number(value))
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<T, E> {
        self.take(Given::Text(value.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<T, A::Error> {
        let mut list = Vec::new();
        if self.in_list {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while let Some(item) = seq.next_element_seed(GivenReader { in_list: true, then: Ok })? {
                list.push(item);
            }
        }
        self.take(Given::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<T, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.take(Given::Mapping)
    }
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> std::result::Result<T, A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant::<IgnoredAny>()?;
        self.take(Given::Tagged)
    }
}
