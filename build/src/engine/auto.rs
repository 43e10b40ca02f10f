//! The device that `device: auto` takes: the faster of the processor and the first GPU. Both are measured.

use std::sync::Arc;

use super::device::DeviceChoice;
use super::{Recipe, Trainer};
use crate::data::dataset::Images;
use crate::error::Result;

/// Builds the trainer for a device.
type BuildTrainer<'a> = &'a dyn Fn(&DeviceChoice) -> Result<Box<dyn Trainer>>;

/// A build without GPUs has nothing to measure.
#[cfg(not(feature = "gpu"))]
pub fn device(_: &Recipe, _: u32, _: &Arc<Images>, _: BuildTrainer) -> Result<DeviceChoice> {
    Ok(DeviceChoice::Cpu)
}

/// The device whose trainer, made by `build`, trains `recipe` on `train` faster, over all `epochs`. Logs the reason.
///
/// # Errors
/// The processor's engine fails. A GPU that fails is not taken.
#[cfg(feature = "gpu")]
pub fn device(recipe: &Recipe, epochs: u32, train: &Arc<Images>, build: BuildTrainer) -> Result<DeviceChoice> {
    measured::device(recipe, epochs, train, build)
}

#[cfg(feature = "gpu")]
mod measured {
    use std::time::{Duration, Instant};

    use tracing::{info, warn};

    use super::*;
    use crate::engine::adapter;
    use crate::engine::device::AdapterChoice;

    /// About how long it takes to find a GPU, to copy the images to it and to compile its kernels.
    const GPU_START: Duration = Duration::from_secs(2);
    /// Steps of a measurement.
    const STEPS: usize = 64;
    /// The fastest of so many measurements counts.
    const MEASUREMENTS: usize = 3;
    /// One that takes so long is enough.
    const LONG: Duration = Duration::from_millis(200);
    /// Steps before, which fill caches and compile kernels.
    const STEPS_BEFORE: usize = 4;

    pub fn device(recipe: &Recipe, epochs: u32, train: &Arc<Images>, build: BuildTrainer) -> Result<DeviceChoice> {
        if train.is_empty() {
            return Ok(DeviceChoice::Cpu);
        }
        let training = |device: &DeviceChoice| -> Result<Duration> {
            let mut trainer = build(device)?;
            let images = recipe.batch_size.saturating_mul(STEPS).min(train.len());
            let order: Vec<u32> = (0..images as u32).collect();
            let before = recipe.batch_size.saturating_mul(STEPS_BEFORE).min(images);
            trainer.train_epoch(&order[..before], &mut |_| crate::interrupt::check())?;
            let mut best = Duration::MAX;
            for _ in 0..MEASUREMENTS {
                let begin = Instant::now();
                trainer.train_epoch(&order, &mut |_| crate::interrupt::check())?;
                best = best.min(begin.elapsed());
                if best > LONG {
                    break;
                }
            }
            Ok(best.mul_f64(f64::from(epochs) * train.len() as f64 / images as f64))
        };
        let cpu = training(&DeviceChoice::Cpu)?;
        if cpu < GPU_START {
            info!("device auto: cpu, which trains this in about {:.1} s, before a GPU is ready", cpu.as_secs_f64());
            return Ok(DeviceChoice::Cpu);
        }
        let Ok(adapter) = adapter::choose(&AdapterChoice::First) else {
            info!("device auto: cpu, since no GPU was found");
            return Ok(DeviceChoice::Cpu);
        };
        let choice = DeviceChoice::Gpu(AdapterChoice::First);
        let gpu = match training(&choice) {
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
