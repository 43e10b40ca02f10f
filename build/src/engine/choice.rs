//! Which engine trains, and on which device: what users may ask for, and what is built for it.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

#[cfg(feature = "gpu")]
use super::adapter;
use super::auto;
#[cfg(feature = "burn")]
use super::burn_engine::{BurnDevice, BurnEngine};
use super::fused::{FusedEngine, FusedNetwork};
#[cfg(feature = "gpu")]
use super::fused_gpu::FusedGpuEngine;
use super::{Network, Recipe, Trainer};
use crate::data::dataset::Images;
use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::simd::InstructionSet;

/// The engine and the device to train with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which engine.
    pub engine: EngineChoice,
    /// On which device.
    pub device: DeviceChoice,
}

/// Which device to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The fastest that this build and this machine have.
    Auto,
    /// The processor.
    Cpu,
    /// The processor, through Burn's deprecated ndarray backend (feature `ndarray`).
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// A GPU (feature `gpu`). Known in every build, so that a parameters file means the same everywhere.
    Gpu(AdapterChoice),
}

/// Which of the GPUs that `mnist devices` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The first one that is real hardware.
    First,
    /// The one with this number among those that are real hardware.
    Number(usize),
    /// The first one whose name contains this, in any case; the only way to a software adapter.
    Named(String),
}

impl DeviceChoice {
    /// What a device may be called, for messages.
    pub const EXPECTED: &str = "auto, cpu, gpu, gpu:NUMBER or gpu:NAME";

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

/// Which engine trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The fastest for the device.
    Auto,
    /// One hand-fused training step.
    Fused,
    /// The network in Burn (feature `burn`). Known in every build.
    Burn,
}

impl EngineChoice {
    /// The choices by their names in the parameters file.
    pub const ALL: &[(&'static str, Self)] = &[("auto", Self::Auto), ("fused", Self::Fused), ("burn", Self::Burn)];
}

/// Builds the trainer that `choice` names for `recipe`, at the beginning of training on the images of `train`. Returns
/// `choice` too, with every `auto` in it replaced by what was chosen; `epochs` are those to come.
///
/// # Errors
/// The engine does not support the recipe or is not in this build, the device is not there or fails, or the environment
/// names an instruction set that this processor lacks.
pub fn trainer(
    recipe: &Recipe,
    choice: &Choice,
    epochs: u32,
    train: &Arc<Images>,
) -> Result<(Box<dyn Trainer>, Choice)> {
    let device = match &choice.device {
        DeviceChoice::Auto => auto::device(recipe, choice.engine, epochs, train)?,
        device => device.clone(),
    };
    let choice = Choice { engine: engine_for(recipe, choice.engine, &device)?, device };
    Ok((build(recipe, &choice, train)?, choice))
}

/// Builds a network of `shape` with `parameters` (P), to answer on the processor with all its threads.
///
/// # Errors
/// The shape is not supported, or the environment names an instruction set that this processor lacks.
pub fn network(shape: &MlpShape, parameters: &[f32]) -> Result<Box<dyn Network>> {
    Ok(Box::new(FusedNetwork::new(shape, parameters, super::threads(0), InstructionSet::choose()?)?))
}

/// The engine itself, or for `auto` the first that supports `recipe` on `device`.
pub(super) fn engine_for(recipe: &Recipe, engine: EngineChoice, device: &DeviceChoice) -> Result<EngineChoice> {
    if engine != EngineChoice::Auto {
        return Ok(engine);
    }
    match supports(recipe, EngineChoice::Fused, device) {
        Err(_) if supports(recipe, EngineChoice::Burn, device).is_ok() => Ok(EngineChoice::Burn),
        fused => fused.map(|()| EngineChoice::Fused),
    }
}

/// Whether `engine` can train `recipe` on `device`.
fn supports(recipe: &Recipe, engine: EngineChoice, device: &DeviceChoice) -> Result<()> {
    match (engine, device) {
        #[cfg(feature = "burn")]
        (EngineChoice::Burn, _) => Ok(()),
        #[cfg(not(feature = "burn"))]
        (EngineChoice::Burn, _) => Err(Error::NotBuiltIn { parameter: "engine burn", feature: "burn" }),
        #[cfg(feature = "gpu")]
        (_, DeviceChoice::Gpu(_)) => FusedGpuEngine::supports(recipe),
        #[cfg(not(feature = "gpu"))]
        (_, DeviceChoice::Gpu(_)) => Err(Error::NotBuiltIn { parameter: "device gpu", feature: "gpu" }),
        #[cfg(feature = "ndarray")]
        (_, DeviceChoice::Ndarray) => Err(Error::Unsupported {
            engine: "fused",
            reason: "expected device cpu or gpu, found ndarray, which is a device of the engine burn".into(),
        }),
        (_, DeviceChoice::Auto | DeviceChoice::Cpu) => FusedEngine::supports(recipe),
    }
}

/// Builds the trainer that `choice` names, in which no `auto` is left.
pub(super) fn build(recipe: &Recipe, choice: &Choice, train: &Arc<Images>) -> Result<Box<dyn Trainer>> {
    supports(recipe, choice.engine, &choice.device)?;
    let (recipe, train) = (recipe.clone(), train.clone());
    #[cfg(feature = "burn")]
    if choice.engine == EngineChoice::Burn {
        let device = match &choice.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => BurnDevice::Flex,
            #[cfg(feature = "ndarray")]
            DeviceChoice::Ndarray => BurnDevice::Ndarray,
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(adapter) => BurnDevice::Gpu(adapter::choose(adapter)?),
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Gpu(_) => return Err(Error::NotBuiltIn { parameter: "device gpu", feature: "gpu" }),
        };
        return Ok(Box::new(BurnEngine::new(recipe, train, device)?));
    }
    #[cfg(feature = "gpu")]
    if let DeviceChoice::Gpu(adapter) = &choice.device {
        return Ok(Box::new(FusedGpuEngine::new(recipe, train, adapter::choose(adapter)?)?));
    }
    Ok(Box::new(FusedEngine::new(recipe, train, InstructionSet::choose()?)?))
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
}
