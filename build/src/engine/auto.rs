//! What `device: auto` stands for: the faster of the processor and the GPU found, by measuring both.

use std::sync::Arc;

use super::Recipe;
use super::choice::{DeviceChoice, EngineChoice};
use crate::data::dataset::Images;
use crate::error::Result;

/// A build without GPUs has nothing to measure.
#[cfg(not(feature = "gpu"))]
pub fn device(_: &Recipe, _: EngineChoice, _: u32, _: &Arc<Images>) -> Result<DeviceChoice> {
    Ok(DeviceChoice::Cpu)
}

/// The device on which `engine` trains `recipe` on `train` faster, over all `epochs`; says why.
///
/// # Errors
/// The processor's engine fails. A GPU that fails is not taken.
#[cfg(feature = "gpu")]
pub fn device(recipe: &Recipe, engine: EngineChoice, epochs: u32, train: &Arc<Images>) -> Result<DeviceChoice> {
    measured::device(recipe, engine, epochs, train)
}

#[cfg(feature = "gpu")]
mod measured {
    use std::time::{Duration, Instant};

    use tracing::{info, warn};

    use super::*;
    use crate::engine::adapter;
    use crate::engine::choice::{AdapterChoice, Choice, build, engine_for};

    /// About how long a GPU takes to be found, to get the images and to have its kernels compiled.
    const GPU_START: Duration = Duration::from_secs(2);
    /// Steps per measurement, the best of [`MEASUREMENTS`].
    const STEPS: usize = 64;
    const MEASUREMENTS: usize = 3;

    pub fn device(recipe: &Recipe, engine: EngineChoice, epochs: u32, train: &Arc<Images>) -> Result<DeviceChoice> {
        if train.is_empty() {
            return Ok(DeviceChoice::Cpu);
        }
        let training = |device: DeviceChoice| -> Result<Duration> {
            let engine = engine_for(recipe, engine, &device)?;
            let mut trainer = build(recipe, &Choice { engine, device }, train)?;
            let images = recipe.batch_size.saturating_mul(STEPS).min(train.len());
            let order: Vec<u32> = (0..images as u32).collect();
            let mut best = Duration::MAX;
            // The first time is for caches and compilers.
            for attempt in 0..=MEASUREMENTS {
                let begin = Instant::now();
                trainer.train_epoch(&order, &mut |_| crate::interrupt::check())?;
                if attempt > 0 {
                    best = best.min(begin.elapsed());
                }
            }
            Ok(best.mul_f64(f64::from(epochs) * train.len() as f64 / images as f64))
        };
        let cpu = training(DeviceChoice::Cpu)?;
        if cpu < GPU_START {
            info!("device auto: cpu, which trains this in about {:.1} s, before a GPU is ready", cpu.as_secs_f64());
            return Ok(DeviceChoice::Cpu);
        }
        let Ok(adapter) = adapter::choose(&AdapterChoice::First) else {
            info!("device auto: cpu, since no GPU was found");
            return Ok(DeviceChoice::Cpu);
        };
        let choice = DeviceChoice::Gpu(AdapterChoice::First);
        let gpu = match training(choice.clone()) {
            Ok(gpu) => gpu + GPU_START,
            Err(error @ crate::error::Error::Interrupted { .. }) => return Err(error),
            Err(error) => {
                warn!("device auto: cpu, since {adapter} fails: {error}");
                return Ok(DeviceChoice::Cpu);
            }
        };
        let faster = if gpu < cpu { choice } else { DeviceChoice::Cpu };
        info!(
            "device auto: {faster}: about {:.1} s on the cpu, {:.1} s on {adapter}, for all epochs",
            cpu.as_secs_f64(),
            gpu.as_secs_f64()
        );
        Ok(faster)
    }
}
