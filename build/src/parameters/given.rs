//! A value of a parameter as the user gave it, in a file or as a flag, before its key says what it should be.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::text::shortened;

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
            Given::Number(value) if value.is_infinite() => f.write_str(if *value > 0.0 { ".inf" } else { "-.inf" }),
            Given::Number(value) => write!(f, "{value:?}"),
            Given::Text(text) => write!(f, "the text {:?}", shortened(text)),
            Given::List(list) => {
                let shown = |item: &Given| match item {
                    Given::Text(text) => format!("{:?}", shortened(text)),
                    Given::List(_) => "a list".into(), // whose items were skipped
                    other => other.to_string(),
                };
                let items: Vec<String> = list.iter().take(8).map(shown).collect();
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

/// Reads one value and passes it to `then`. The parser adds the place in the file to an error of `then`.
///
/// Items of a list in a list are skipped. No parameter nests, and a few lines of nested aliases would unfold to
/// gigabytes.
pub struct GivenReader<F> {
    /// Whether the value is an item of a list.
    pub in_list: bool,
    /// Takes the value.
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
