//! Which engine trains on which device: the user's choice, and building it.

use std::sync::Arc;

use serde::Serialize;

#[cfg(feature = "gpu")]
use super::adapter;
use super::auto;
#[cfg(feature = "burn")]
use super::burn_engine::{BurnDevice, BurnEngine};
use super::ensemble::{self, Ensemble};
use super::fused::{FusedEngine, FusedNetwork};
#[cfg(feature = "gpu")]
use super::fused_gpu::FusedGpuEngine;
use super::{Network, Recipe, Trainer};
use crate::data::dataset::Images;
use crate::error::{self, Error, Result};
use crate::memory;
use crate::model::MlpShape;
use crate::simd::{InstructionSet, Precision};
use crate::threads;

pub use super::device::{AdapterChoice, DeviceChoice, GpuCount};

/// The engine and the device to train with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which engine.
    pub engine: EngineChoice,
    /// On which device.
    pub device: DeviceChoice,
    /// On how many of its kind, if it is a GPU.
    pub gpus: GpuCount,
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

/// What trains, and how much memory it takes.
pub struct Chosen {
    /// The choice, in which every `auto` and `all` is replaced by what is taken.
    pub choice: Choice,
    /// About how many bytes of this machine's memory training takes at most, with its images.
    pub memory: u64,
}

/// Chooses engine and devices for `recipe`, where `choice` leaves them open, to train on the images of `train` for `epochs`. If
/// the images are nobody else's, they will give their memory back.
///
/// # Errors
/// The engine does not support the recipe or is not in this build, the device is not there or fails, or there is too little
/// memory.
pub fn choose(recipe: &Recipe, choice: &Choice, epochs: u32, train: &Arc<Images>) -> Result<Chosen> {
    let engine = |device: &DeviceChoice| engine_for(recipe, choice.engine, device);
    let resolved = |device: &DeviceChoice, gpus: usize| -> Result<Choice> {
        Ok(Choice { engine: engine(device)?, device: device.clone(), gpus: GpuCount::Number(gpus) })
    };
    let check = |choice: &Choice| {
        supports(recipe, choice.engine, &choice.device)?;
        memory::require(memory(recipe, choice, train), error::TRAINING)
    };
    let trial = |device: &DeviceChoice, gpus: usize| {
        let choice = resolved(device, gpus)?;
        check(&choice).and_then(|()| build(recipe, &choice, train.clone()))
    };
    let gpus = match choice.gpus {
        GpuCount::Auto if !engine(&DeviceChoice::Gpu(AdapterChoice::First)).is_ok_and(shares_batches) => {
            GpuCount::Number(1)
        }
        gpus => gpus,
    };
    let (device, gpus) = auto::devices(recipe, &choice.device, gpus, epochs, train, &trial)?;
    let choice = resolved(&device, gpus)?;
    check(&choice)?;
    let (images, engine) = (train.pixels.len() as u64, memory(recipe, &choice, train));
    let gives_back = is_on_processor(&choice) && recipe.ensemble == 1 && Arc::strong_count(train) == 1;
    let memory = if gives_back { images.max(engine) } else { images + engine };
    Ok(Chosen { choice, memory })
}

/// Whether the fused engine trains on the processor.
fn is_on_processor(choice: &Choice) -> bool {
    choice.engine != EngineChoice::Burn && !matches!(choice.device, DeviceChoice::Gpu(_))
}

/// Whether `engine` trains on several GPUs.
fn shares_batches(engine: EngineChoice) -> bool {
    engine != EngineChoice::Burn
}

/// Builds a network of `shape` with `parameters` (P), to answer on the processor with [`threads::most`] threads. Several times as many
/// parameters are those of an ensemble.
///
/// # Errors
/// The shape is not supported, or the environment names an instruction set that this processor lacks.
pub fn network(shape: &MlpShape, parameters: &[f32]) -> Result<Box<dyn Network>> {
    let members = parameters.chunks_exact(shape.parameter_count());
    memory::require(members.len() as u64 * FusedNetwork::memory(shape), "the network")?;
    let (at_once, threads) = ensemble::share_out(members.len(), threads::most());
    let set = InstructionSet::choose()?;
    let build = |parameters: &[f32]| -> Result<Box<dyn Network>> {
        Ok(Box::new(FusedNetwork::new(shape, parameters, threads, set)?))
    };
    match members.len() {
        1 => build(parameters),
        _ => {
            let members = members.map(build).collect::<Result<Vec<_>>>()?;
            Ok(Box::new(Ensemble::new(members, at_once, shape.classes())))
        }
    }
}

/// The engine itself, or for `auto` the first that supports `recipe` on `device`.
fn engine_for(recipe: &Recipe, engine: EngineChoice, device: &DeviceChoice) -> Result<EngineChoice> {
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
    if recipe.precision == Precision::Bf16 {
        require_fused_on_processor(engine, device)?;
    }
    match (engine, device) {
        #[cfg(feature = "burn")]
        (EngineChoice::Burn, _) => Ok(()),
        // The feature gpu contains burn.
        #[cfg(not(feature = "burn"))]
        (EngineChoice::Burn, DeviceChoice::Gpu(_)) => {
            Err(Error::NotBuiltIn { parameter: "engine burn on device gpu", feature: "gpu" })
        }
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

/// That products of bf16 numbers are the fused engine's, on the processor.
fn require_fused_on_processor(engine: EngineChoice, device: &DeviceChoice) -> Result<()> {
    let engine = match (engine, device) {
        (EngineChoice::Burn, _) => "burn",
        (_, DeviceChoice::Auto | DeviceChoice::Cpu) => return Ok(()),
        _ => "fused",
    };
    Err(Error::Precision { engine, device: device.to_string() })
}

/// About how many bytes of this machine's memory training takes at most with the engine and device of `choice`, in which
/// no `auto` is left, besides the images. A GPU's own memory does not count.
fn memory(recipe: &Recipe, choice: &Choice, train: &Images) -> u64 {
    let networks = recipe.ensemble as u64;
    match (choice.engine, &choice.device) {
        #[cfg(feature = "burn")]
        (EngineChoice::Burn, device) => {
            networks * BurnEngine::memory(recipe, train, matches!(device, DeviceChoice::Gpu(_)))
        }
        #[cfg(feature = "gpu")]
        (_, DeviceChoice::Gpu(_)) => FusedGpuEngine::memory(recipe, train, number(choice.gpus)),
        _ => networks * FusedEngine::memory(recipe, train),
    }
}

/// How many GPUs `gpus` are, in which no `auto` and no `all` is left.
fn number(gpus: GpuCount) -> usize {
    if let GpuCount::Number(number) = gpus { number } else { 1 }
}

/// Builds the trainer that `choice` names, in which no `auto` is left, of all networks of the `recipe`, at the beginning of
/// training on the images of `train`.
///
/// # Errors
/// The engine does not support the recipe or is not in this build, the device is not there or fails, the environment names
/// an instruction set that this processor lacks, or a signal arrived.
pub fn build(recipe: &Recipe, choice: &Choice, train: Arc<Images>) -> Result<Box<dyn Trainer>> {
    let each = together(recipe, choice, train.len())?;
    if each == recipe.ensemble {
        return build_together(recipe, choice, train);
    }
    // The others have threads of their own.
    let shares_out = is_on_processor(choice);
    let (at_once, threads) =
        if shares_out { ensemble::share_out(recipe.ensemble, recipe.threads) } else { (1, recipe.threads) };
    let groups = recipe.groups(each, threads).map(|group| build_together(&group, choice, train.clone()));
    let groups = groups.collect::<Result<Vec<_>>>()?;
    Ok(Box::new(Ensemble::new(groups, at_once, recipe.shape.classes())))
}

/// How many networks of the `recipe` one trainer trains on so many `images`.
#[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only GPUs train several"))]
fn together(recipe: &Recipe, choice: &Choice, images: usize) -> Result<usize> {
    #[cfg(feature = "gpu")]
    if let DeviceChoice::Gpu(adapter) = &choice.device
        && choice.engine != EngineChoice::Burn
        && recipe.ensemble > 1
    {
        return FusedGpuEngine::together(recipe, images, &adapter::choose(adapter, choice.gpus)?);
    }
    Ok(1)
}

/// Builds one trainer of all networks of the `recipe`. Only one on a GPU takes several.
fn build_together(recipe: &Recipe, choice: &Choice, train: Arc<Images>) -> Result<Box<dyn Trainer>> {
    supports(recipe, choice.engine, &choice.device)?;
    if number(choice.gpus) > 1 && !shares_batches(choice.engine) {
        let reason = format!("expected gpus 1, found {}: only the engine fused trains on several", number(choice.gpus));
        return Err(Error::Unsupported { engine: "burn", reason });
    }
    let recipe = recipe.clone();
    #[cfg(feature = "burn")]
    if choice.engine == EngineChoice::Burn {
        let device = match &choice.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => BurnDevice::Flex,
            #[cfg(feature = "ndarray")]
            DeviceChoice::Ndarray => BurnDevice::Ndarray,
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(adapter) => BurnDevice::Gpu(adapter::choose(adapter, GpuCount::Number(1))?.remove(0)),
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Gpu(_) => {
                return Err(Error::NotBuiltIn { parameter: "device gpu", feature: "gpu" });
            }
        };
        return Ok(Box::new(BurnEngine::new(recipe, train, device)?));
    }
    #[cfg(feature = "gpu")]
    if let DeviceChoice::Gpu(adapter) = &choice.device {
        return Ok(Box::new(FusedGpuEngine::new(recipe, train, adapter::choose(adapter, choice.gpus)?)?));
    }
    let set = InstructionSet::choose_for(recipe.precision)?;
    Ok(Box::new(FusedEngine::new(recipe, train, set)?))
}
