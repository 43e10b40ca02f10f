//! The device to train on, and how many of its kind, as users name them.

use std::fmt;

use serde::{Serialize, Serializer};

/// The device to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The fastest one of this build and this machine.
    Auto,
    /// The processor.
    Cpu,
    /// The processor, through Burn's deprecated ndarray backend (feature `ndarray`).
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// A GPU (feature `gpu`). Known in every build, so that a parameters file means the same everywhere.
    Gpu(AdapterChoice),
}

/// A GPU among those that `mnist devices` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The first one that is hardware.
    First,
    /// The one with this number among those that are hardware.
    Number(usize),
    /// The first one whose name contains this, in upper or lower case. Only this finds a software adapter.
    Named(String),
}

impl DeviceChoice {
    /// The names of devices, for messages and the schema.
    pub const CHOICES: [&str; 5] = ["auto", "cpu", "gpu", "gpu:NUMBER", "gpu:NAME"];

    /// The device of that name in the parameters file.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, adapter) = text.split_once(':').map_or((text, None), |(kind, adapter)| (kind, Some(adapter.trim())));
        Some(match (kind.trim().to_ascii_lowercase().as_str(), adapter) {
            ("auto", None) => Self::Auto,
            ("cpu", None) => Self::Cpu,
            #[cfg(feature = "ndarray")]
            ("ndarray", None) => Self::Ndarray,
            ("gpu", None) => Self::Gpu(AdapterChoice::First),
            ("gpu", Some(adapter)) if !adapter.is_empty() => Self::Gpu(match adapter.parse() {
                Ok(number) => AdapterChoice::Number(number),
                Err(_) => AdapterChoice::Named(adapter.to_string()),
            }),
            _ => return None,
        })
    }
}

impl fmt::Display for DeviceChoice {
    /// The name that [`DeviceChoice::parse`] takes back.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            #[cfg(feature = "ndarray")]
            Self::Ndarray => f.write_str("ndarray"),
            Self::Gpu(AdapterChoice::First) => f.write_str("gpu"),
            Self::Gpu(AdapterChoice::Number(number)) => write!(f, "gpu:{number}"),
            Self::Gpu(AdapterChoice::Named(name)) => write!(f, "gpu:{name}"),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How many GPUs share out each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuCount {
    /// One, or all where that is faster.
    Auto,
    /// All that are of the chosen one's kind, from it on.
    All,
    /// So many of that kind, from 1.
    Number(usize),
}

impl GpuCount {
    /// The choices that are no numbers, by their names in the parameters file.
    pub const WORDS: [(&'static str, Self); 2] = [("auto", Self::Auto), ("all", Self::All)];
    /// The largest number.
    pub const MOST: usize = 64;

    /// Whether these may be several, whatever is faster.
    pub fn asks_for_several(self) -> bool {
        !matches!(self, Self::Auto | Self::Number(1))
    }
}

impl Serialize for GpuCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::All => serializer.serialize_str("all"),
            Self::Number(number) => serializer.serialize_u64(*number as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_keep_their_names() {
        for name in ["auto", "cpu", "gpu", "gpu:1", "gpu:NVIDIA H100"] {
            assert_eq!(DeviceChoice::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(DeviceChoice::parse("GPU: 7"), Some(DeviceChoice::Gpu(AdapterChoice::Number(7))));
        for name in ["", "gpu:", "cpu:0", "gpus", "llvmpipe"] {
            assert_eq!(DeviceChoice::parse(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_of_gpus_keep_their_names() {
        let shown = |count: GpuCount| serde_json::to_value(count).unwrap();
        assert!(GpuCount::WORDS.iter().all(|(name, count)| shown(*count) == *name));
        assert_eq!(shown(GpuCount::Number(8)), 8);
    }
}
