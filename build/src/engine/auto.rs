//! The devices that `device: auto` and `gpus: auto` take: the processor, a GPU or all GPUs, whichever trains faster. They are
//! measured.

use std::sync::Arc;

use super::device::{DeviceChoice, GpuCount};
use super::{Recipe, Trainer};
use crate::data::dataset::Images;
use crate::error::Result;

/// Builds the trainer for a device, and for how many of it if it is a GPU.
type BuildTrainer<'a> = &'a dyn Fn(&DeviceChoice, usize) -> Result<Box<dyn Trainer>>;

/// A build without GPUs has nothing to measure.
#[cfg(not(feature = "gpu"))]
pub fn devices(
    _: &Recipe,
    device: &DeviceChoice,
    gpus: GpuCount,
    _: u32,
    _: &Arc<Images>,
    _: BuildTrainer,
) -> Result<(DeviceChoice, usize)> {
    if *device == DeviceChoice::Auto && matches!(gpus, GpuCount::All | GpuCount::Number(2..)) {
        tracing::warn!("gpus: this program was built without GPUs and trains on the processor");
    }
    Ok((if *device == DeviceChoice::Auto { DeviceChoice::Cpu } else { device.clone() }, 1))
}

/// The device that is asked for, and how many of it. Where that is open, it is what trains `recipe` on `train` faster, over all
/// `epochs`, with a trainer made by `build`; the reason is logged.
///
/// # Errors
/// There are no such GPUs, or the processor's engine fails. GPUs that fail are not taken, unless they are asked for.
#[cfg(feature = "gpu")]
pub fn devices(
    recipe: &Recipe,
    device: &DeviceChoice,
    gpus: GpuCount,
    epochs: u32,
    train: &Arc<Images>,
    build: BuildTrainer,
) -> Result<(DeviceChoice, usize)> {
    use super::adapter;
    use super::device::AdapterChoice;

    let trial = measured::TrialTraining { recipe, epochs, train, build };
    let number = match (device, gpus) {
        (DeviceChoice::Auto, _) => return trial.device(gpus),
        (DeviceChoice::Gpu(AdapterChoice::First), GpuCount::Auto) => {
            let all = adapter::choose(&AdapterChoice::First, gpus)?;
            measured::one_or_all(all.len(), recipe.batch_size, |count| trial.gpus(count))?.0
        }
        (DeviceChoice::Gpu(adapter), GpuCount::All) => adapter::choose(adapter, gpus)?.len(),
        (DeviceChoice::Gpu(_), GpuCount::Number(number)) => number,
        // Who names one GPU means that one.
        _ => 1,
    };
    Ok((device.clone(), number))
}

#[cfg(feature = "gpu")]
mod measured {
    use std::time::{Duration, Instant};

    use tracing::{info, warn};

    use super::*;
    use crate::engine::adapter;
    use crate::engine::device::AdapterChoice;
    use crate::error::Error;

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

    /// A training. Some of its steps are timed.
    pub struct TrialTraining<'a> {
        pub recipe: &'a Recipe,
        pub epochs: u32,
        pub train: &'a Arc<Images>,
        pub build: BuildTrainer<'a>,
    }

    impl TrialTraining<'_> {
        /// The processor, or GPUs as `gpus` says.
        ///
        /// # Errors
        /// See [`devices`].
        pub fn device(&self, gpus: GpuCount) -> Result<(DeviceChoice, usize)> {
            let on_cpu = (DeviceChoice::Cpu, 1);
            if self.train.is_empty() {
                return Ok(on_cpu);
            }
            let cpu = self.time(&DeviceChoice::Cpu, 1)?;
            if cpu < GPU_START {
                info!("device auto: cpu, which trains this in about {:.1} s, before a GPU is ready", cpu.as_secs_f64());
                return Ok(on_cpu);
            }
            let adapters = match adapter::choose(&AdapterChoice::First, gpus) {
                Ok(adapters) => adapters,
                Err(Error::NoAdapter { .. }) => {
                    info!("device auto: cpu, since no GPU was found");
                    return Ok(on_cpu);
                }
                Err(error @ Error::TooFewGpus { .. }) => {
                    warn!("device auto: cpu, since there are too few GPUs: {error}");
                    return Ok(on_cpu);
                }
                Err(error) => return Err(error),
            };
            let measured = match gpus {
                GpuCount::Auto => one_or_all(adapters.len(), self.recipe.batch_size, |count| self.gpus(count)),
                _ => self.gpus(adapters.len()).map(|time| (adapters.len(), time)),
            };
            let (count, gpu) = match measured {
                Ok(measured) => measured,
                Err(error) if ends_all(&error) => return Err(error),
                Err(error) => {
                    warn!("device auto: cpu, since {} fails: {error}", adapters[0]);
                    return Ok(on_cpu);
                }
            };
            let times = if count > 1 { format!("{count} x ") } else { String::new() };
            let (faster, count) = if gpu < cpu { (DeviceChoice::Gpu(AdapterChoice::First), count) } else { on_cpu };
            info!(
                "device auto: {faster}: about {:.1} s on the cpu, {:.1} s on {times}{}, for all epochs",
                cpu.as_secs_f64(),
                gpu.as_secs_f64(),
                adapters[0]
            );
            Ok((faster, count))
        }

        /// How long all epochs take on so many GPUs, with starting them.
        ///
        /// # Errors
        /// One fails.
        pub fn gpus(&self, count: usize) -> Result<Duration> {
            let time = self.time(&DeviceChoice::Gpu(AdapterChoice::First), count)?;
            Ok(time + start(count))
        }

        /// How long all epochs take on `count` devices.
        fn time(&self, device: &DeviceChoice, count: usize) -> Result<Duration> {
            let mut trainer = (self.build)(device, count)?;
            let batch = self.recipe.batch_size;
            let images = batch.saturating_mul(STEPS).min(self.train.len());
            if images == 0 {
                return Ok(Duration::ZERO);
            }
            let order: Vec<u32> = (0..images as u32).collect();
            let before = batch.saturating_mul(STEPS_BEFORE).min(images);
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
            Ok(best.mul_f64(f64::from(self.epochs) * self.train.len() as f64 / images as f64))
        }
    }

    /// One GPU or all `count` of its kind, whichever trains faster by `time`, which measures so many GPUs, on batches of
    /// `batch` images. Logs the reason where there is a choice.
    ///
    /// # Errors
    /// One GPU alone fails.
    pub fn one_or_all(
        count: usize,
        batch: usize,
        time: impl Fn(usize) -> Result<Duration>,
    ) -> Result<(usize, Duration)> {
        let one = time(1)?;
        if count == 1 {
            return Ok((1, one));
        }
        let [on_one, ready] = [one, start(count)].map(|time| time.as_secs_f64());
        if one < start(count) {
            info!(
                "gpus auto: 1 of {count}, which trains this in about {on_one:.1} s; all are ready after {ready:.1} s"
            );
            return Ok((1, one));
        }
        let all = match time(count) {
            Ok(all) => all,
            Err(error) if ends_all(&error) => return Err(error),
            Err(error) => {
                warn!("gpus auto: 1 of {count}, since all together fail: {error}");
                return Ok((1, one));
            }
        };
        let faster = if all < one { (count, all) } else { (1, one) };
        let why =
            if all < one { String::new() } else { format!(", since batches of {batch} are too small to share out") };
        let on_all = all.as_secs_f64();
        info!(
            "gpus auto: {} of {count}{why}: about {on_one:.1} s on one, {on_all:.1} s on all, for all epochs",
            faster.0
        );
        Ok(faster)
    }

    /// About how long it takes until so many GPUs are ready, one after the other.
    fn start(count: usize) -> Duration {
        GPU_START * count as u32
    }

    /// Whether `error` is no fault of a device.
    fn ends_all(error: &Error) -> bool {
        matches!(error, Error::Interrupted { .. })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn all_gpus_are_taken_where_they_are_faster_and_only_tried_where_they_may_be() {
            let choose = |count, seconds: fn(usize) -> Option<u64>| {
                let tried = std::cell::RefCell::new(vec![]);
                let time = |gpus| {
                    tried.borrow_mut().push(gpus);
                    let lost = || Error::Device { problem: "lost".into() };
                    seconds(gpus).map(Duration::from_secs).ok_or_else(lost)
                };
                let chosen = one_or_all(count, 32, time).map(|(gpus, time)| (gpus, time.as_secs()));
                (chosen.ok(), tried.into_inner())
            };
            assert_eq!(choose(1, |_| Some(90)), (Some((1, 90)), vec![1]));
            assert_eq!(choose(8, |gpus| Some(90 / gpus as u64)), (Some((8, 11)), vec![1, 8]));
            assert_eq!(choose(8, |gpus| Some(90 * gpus as u64)), (Some((1, 90)), vec![1, 8]));
            // One is done before eight are ready.
            assert_eq!(choose(8, |gpus| Some(15 / gpus as u64)), (Some((1, 15)), vec![1]));
            assert_eq!(choose(8, |gpus| (gpus == 1).then_some(90)), (Some((1, 90)), vec![1, 8]));
            assert_eq!(choose(8, |_| None), (None, vec![1]));
        }
    }
}
