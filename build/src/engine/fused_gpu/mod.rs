//! The fused engine on GPUs, by kernels in CubeCL, which run on Vulkan, Metal and DX12. This is about one GPU;
//! `several.rs` says what several do.
//!
//! All launches are written into the device's queue without waiting, and many steps go to the driver at once. A step of a
//! network with L hidden layers is some 2 L + 2 launches:
//!
//! ```text
//! for each hidden layer:          forward   images of the batch or activations -> product, bias, ReLU, dropout
//! loss                            last layer, softmax, loss, gradient, gradient by the last hidden layer
//! for each hidden layer but the first, from the last on:
//!                                 backward  gradient by the hidden layer before it
//! for each layer:                 update    gradient of weights and biases, optimizer in place
//! ```
//!
//! With small batches, one launch updates the last two layers; with large ones, where cubes share out the images of a small
//! layer, a second launch adds up their shares.
//!
//! The images are on the device from the start. When an epoch begins, its order follows, with a plan: a record for each
//! step that says where its batch begins, how long it is, its learning rate and the dropout masks' keys. The device counts
//! the steps. So all steps are the same launches, which are recorded once an epoch and queued 16 steps at a time. The device
//! returns a loss and a bit for each image, about ten times a second.
//!
//! The networks of an ensemble are trained by the same launches, each with cubes of its own, which a large GPU works on at the
//! same time (`MembersPlan`). Each has the same bits as a network alone.
//!
//! A launch can be no shorter than a large GPU takes from one to the next, some 5 microseconds, and a small network has little
//! work for each: 3.2 million multiply-adds forward and as many backward in the default network (784-128-10, batch 32). So the
//! work is shared out over as many units as possible, and each reads several numbers before it works on any, since the way
//! from memory takes longer than the work. On an NVIDIA H100 a step takes 25 microseconds, in 3 launches.

mod kernels;
mod layers;
mod memory;
mod network;
mod plan;
mod queue;
mod several;
mod tile;
mod update;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::network::{GpuNetwork, add_scores};
use self::plan::BatchShare;
use self::queue::EpochSteps;
use super::adapter::Adapter;
use super::device_error::guarded;
use super::ensemble::largest_group;
use super::pace::steps_for;
use super::{EngineInfo, EpochTotals, Network, Recipe, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::error::Result;
use crate::interrupt;
use crate::score::mean_of_answers;

/// The losses are read about this often. Each time, the host waits for the device.
const LOSSES_PERIOD: Duration = Duration::from_millis(100);

/// The fused engine on GPUs.
pub struct FusedGpuEngine {
    recipe: Recipe,
    /// At least one. All have the same parameters and optimizer state.
    gpus: Vec<GpuNetwork>,
    step: u64,
    /// How many steps a GPU alone does before the losses are read.
    steps_per_read: usize,
}

impl FusedGpuEngine {
    /// Whether this engine can train `recipe`.
    ///
    /// # Errors
    /// It cannot, with the reason.
    pub fn supports(recipe: &Recipe) -> Result<()> {
        plan::supports(recipe)
    }

    /// About how many bytes of this machine's memory training `recipe` on `train` takes at most with so many `gpus`, without
    /// the images themselves: copies of what the devices get, and gradients.
    pub fn memory(recipe: &Recipe, train: &Images, gpus: usize) -> u64 {
        let p = recipe.parameter_count();
        let state = p * (1 + recipe.optimizer.slots().len());
        let gradients = if gpus > 1 { 2 * gpus * p } else { 0 };
        (size_of::<f32>() * (3 * state + gradients) + train.pixels.len()) as u64
    }

    /// How many networks of the `recipe`'s ensemble one engine trains at a time on so many `images`: the most that have place in
    /// the device's buffers and divide their number. Several `adapters` together train one.
    ///
    /// # Errors
    /// The device cannot be opened.
    pub fn together(recipe: &Recipe, images: usize, adapters: &[Adapter]) -> Result<usize> {
        let [adapter] = adapters else {
            return Ok(1);
        };
        let most = guarded(|| network::most_members(recipe, images, adapter))?;
        Ok(largest_group(recipe.ensemble, most))
    }

    /// The networks of `recipe` at their beginning, to be trained on `train`. If there are several `adapters`, they share out each
    /// batch of one network. They should be of one kind: the same kernel gives other bits on another kind.
    ///
    /// # Errors
    /// The recipe is not supported, a device cannot be opened, or it has not enough memory.
    pub fn new(recipe: Recipe, train: Arc<Images>, adapters: Vec<Adapter>) -> Result<Self> {
        Self::supports(&recipe)?;
        assert!(!adapters.is_empty(), "expected at least one GPU");
        guarded(|| {
            let count = adapters.len();
            let network =
                |(number, adapter)| GpuNetwork::new(&recipe, &train, adapter, BatchShare { number, gpus: count });
            let gpus = adapters.into_iter().enumerate().map(network).collect::<Result<Vec<_>>>()?;
            let seeds = (0..recipe.ensemble).map(|member| recipe.member_seed(member));
            let parameters = seeds.flat_map(|seed| recipe.shape.initial_parameters(seed)).collect();
            let initial = TrainingState::new(&recipe.optimizer, parameters);
            let mut engine = Self { recipe, gpus, step: 0, steps_per_read: 1 };
            engine.write_state(&initial);
            Ok(engine)
        })
    }

    fn write_state(&mut self, state: &TrainingState) {
        self.gpus.iter_mut().for_each(|gpu| gpu.write_state(state));
        self.step = state.step;
    }

    /// Trains one GPU alone on the batches of `order`; counts those that are `done`, and finds out after how many steps to
    /// read the losses.
    fn train_alone(
        &self,
        order: &[u32],
        done: &mut usize,
        steps_per_read: &mut usize,
        progress: &mut Report,
    ) -> Result<EpochTotals> {
        let (gpu, batch) = (&self.gpus[0], self.recipe.batch_size);
        let epoch = guarded(|| gpu.epoch(&self.recipe, self.step, order))?;
        let steps = order.len().div_ceil(batch);
        let mut launches = EpochSteps::new(gpu.steps(&epoch), gpu.rows(&self.recipe, order), steps);
        let mut totals = vec![EpochTotals::default(); self.recipe.ensemble];
        while *done < steps {
            let (begin, before) = (Instant::now(), *done);
            guarded(|| {
                let end = steps.min(before + *steps_per_read);
                *done = launches.advance(end).map_err(|e| gpu.memory.failure(&e.to_string()))?;
                let images = order.len().min(done.saturating_mul(batch));
                let place = |images: usize| 2 * totals.len() * images;
                let scores = gpu.memory.read(&epoch.scores, place(totals[0].images)..place(images))?;
                add_scores(&mut totals, &scores);
                Ok(())
            })?;
            *steps_per_read = steps_for(LOSSES_PERIOD, *done - before, begin.elapsed());
            progress(EpochTotals::mean(&totals).progress())?;
        }
        Ok(EpochTotals::mean(&totals))
    }
}

impl Network for FusedGpuEngine {
    fn info(&self) -> EngineInfo {
        let (gpus, adapter) = (self.gpus.len(), &self.gpus[0].memory.adapter);
        let times = if gpus > 1 { format!("{gpus} x ") } else { String::new() };
        EngineInfo {
            engine: "fused",
            device: "gpu",
            gpus,
            backend: format!("own kernels on {times}{adapter}"),
            instruction_set: "wgsl".into(),
            threads: 1,
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let (d, classes) = (self.recipe.shape.inputs(), self.recipe.shape.classes());
        let gpu = &self.gpus[0];
        let mut answers = vec![Vec::with_capacity(pixels.len() / d * classes); self.recipe.ensemble];
        for part in pixels.chunks(gpu.plan.rows * d) {
            interrupt::check()?;
            let logits = guarded(|| gpu.logits(part))?;
            for (n, logits) in logits.chunks_exact(classes).enumerate() {
                answers[n % self.recipe.ensemble].extend_from_slice(logits);
            }
        }
        Ok(if answers.len() == 1 { answers.remove(0) } else { mean_of_answers(&answers, classes) })
    }
}

impl Trainer for FusedGpuEngine {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let (mut done, mut steps_per_read) = (0, self.steps_per_read);
        let totals = match &*self.gpus {
            [_] => self.train_alone(order, &mut done, &mut steps_per_read, progress),
            gpus => several::train(gpus, &self.recipe, self.step, order, &mut done, progress),
        };
        self.step += done as u64;
        self.steps_per_read = steps_per_read;
        totals
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        assert_eq!(train.len(), self.gpus[0].images.count, "expected as many images as before");
        guarded(|| self.gpus.iter_mut().try_for_each(|gpu| gpu.set_images(&train)))
    }

    fn state(&mut self) -> Result<TrainingState> {
        guarded(|| self.gpus[0].read_state(self.step))
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        guarded(|| self.gpus[0].read_parameters())
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        guarded(|| {
            self.write_state(state);
            Ok(())
        })
    }
}
