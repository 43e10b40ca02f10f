//! The fused engine on a GPU, by kernels in CubeCL, which run on Vulkan, Metal and DX12.
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
//! A launch can be no shorter than a large GPU takes from one to the next, some 5 microseconds, and a small network has little
//! work for each: 3.2 million multiply-adds forward and as many backward in the default network (784-128-10, batch 32). So the
//! work is shared out over as many units as possible, and each reads several numbers before it works on any, since the way
//! from memory takes longer than the work. On an NVIDIA H100 a step takes 25 microseconds, in 3 launches.

mod kernels;
mod layers;
mod memory;
mod plan;
mod queue;
mod tile;
mod update;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cubecl::prelude::*;

use self::memory::{DeviceBuffer, DeviceMemory, GpuEpoch, GpuImages};
use self::plan::NetworkPlan;
use self::queue::{EpochSteps, StepQueue};
use super::adapter::Adapter;
use super::device_error::guarded;
use super::pace::steps_for;
use super::pixel_words::pixel_words;
use super::{EngineInfo, EpochTotals, Network, Recipe, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::error::Result;
use crate::interrupt;

/// The losses are read about this often. Each time, the host waits for the device.
const LOSSES_PERIOD: Duration = Duration::from_millis(100);
/// How many activations an evaluation may take at a time.
const EVALUATION_ACTIVATIONS: usize = 1 << 22;
/// How many images it takes at a time, at most.
const EVALUATION_BATCH: usize = 2_000;

/// The fused engine on a GPU.
pub struct FusedGpuEngine {
    recipe: Recipe,
    plan: NetworkPlan,
    memory: DeviceMemory,
    images: GpuImages,
    /// Parameters and slots, (1 + slots, P).
    state: DeviceBuffer,
    /// Activations of the hidden layers, gradients by them and by the logits.
    scratch: DeviceBuffer,
    step: u64,
    /// How many steps the device does before the losses are read.
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

    /// About how many bytes of this machine's memory training `recipe` on `train` takes at most, without the images
    /// themselves: copies of what the device gets.
    pub fn memory(recipe: &Recipe, train: &Images) -> u64 {
        let state = recipe.shape.parameter_count() * (1 + recipe.optimizer.slots().len());
        (3 * size_of::<f32>() * state + train.pixels.len()) as u64
    }

    /// The network of `recipe` at its beginning, to be trained on `train` by `adapter`.
    ///
    /// # Errors
    /// The recipe is not supported, the device cannot be opened, or it has not enough memory.
    pub fn new(recipe: Recipe, train: Arc<Images>, adapter: Adapter) -> Result<Self> {
        Self::supports(&recipe)?;
        guarded(|| {
            let client = cubecl::Device::Wgpu(adapter.open()?).client();
            let memory = DeviceMemory { client, adapter };
            let widths = recipe.shape.widths();
            let hidden: usize = widths[1..widths.len() - 1].iter().sum();
            let batch = recipe.batch_size.min(train.len().max(1));
            let rows = batch.max((EVALUATION_ACTIVATIONS / hidden.max(1)).min(EVALUATION_BATCH));
            let plan = NetworkPlan::new(&recipe, rows);
            let images = memory.images(&train, recipe.shape.inputs())?;
            let slots = recipe.optimizer.slots().len();
            let state = memory.empty("the parameters", (1 + slots) * recipe.shape.parameter_count())?;
            let scratch = memory.empty("the activations of a batch", plan.scratch)?;
            let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
            let mut engine = Self { recipe, plan, memory, images, state, scratch, step: 0, steps_per_read: 1 };
            engine.write_state(&initial);
            Ok(engine)
        })
    }

    fn write_state(&mut self, state: &TrainingState) {
        let all = state.parameters.iter().chain(state.slots.iter().flatten()).copied().collect::<Vec<f32>>();
        self.state.handle = self.memory.client.create_from_slice(f32::as_bytes(&all));
        self.step = state.step;
    }

    /// Copies `order` and the plan of its steps to the device.
    fn epoch(&self, order: &[u32]) -> Result<GpuEpoch> {
        let records = plan::records(&self.recipe, self.step, order.len());
        Ok(GpuEpoch {
            clock: self.memory.words("the steps' numbers", &[0, 0])?,
            order: self.memory.words("the order of the images", order)?,
            plan: self.memory.words("the plan of the steps", &records)?,
            scores: self.memory.empty("the losses", 2 * order.len())?,
        })
    }

    fn queue<'a>(&'a self, epoch: &'a GpuEpoch, pixels: &'a DeviceBuffer) -> StepQueue<'a> {
        StepQueue {
            client: &self.memory.client,
            plan: &self.plan,
            dropout: self.recipe.dropout,
            pixels,
            labels: &self.images.labels,
            epoch,
            state: &self.state,
            scratch: &self.scratch,
        }
    }

    /// Trains on the batches of `order`; counts those that are `done`, and finds out after how many steps to read the losses.
    fn train_steps(
        &self,
        order: &[u32],
        done: &mut usize,
        steps_per_read: &mut usize,
        progress: &mut Report,
    ) -> Result<EpochTotals> {
        let batch = self.recipe.batch_size;
        // The kernels check neither.
        assert!(order.iter().all(|&image| (image as usize) < self.images.count), "expected the order of the images");
        assert!(batch.min(order.len()) <= self.plan.rows, "expected no more than all images in a batch");
        let epoch = guarded(|| self.epoch(order))?;
        let steps = order.len().div_ceil(batch);
        let mut launches = EpochSteps::new(self.queue(&epoch, &self.images.pixels), batch.min(order.len()), steps);
        let mut totals = EpochTotals::default();
        while *done < steps {
            let (begin, before) = (Instant::now(), *done);
            totals = guarded(|| {
                let end = steps.min(before + *steps_per_read);
                *done = launches.advance(end).map_err(|e| self.memory.failure(&e.to_string()))?;
                self.add_losses(&epoch, totals, order.len().min(done.saturating_mul(batch)))
            })?;
            *steps_per_read = steps_for(LOSSES_PERIOD, *done - before, begin.elapsed());
            progress(totals.progress())?;
        }
        Ok(totals)
    }

    /// Adds the images of the order up to `end` to `totals`, which are those of the images before; waits for the device. The
    /// loss is one sum over all images, so that no bit depends on how often this is called.
    fn add_losses(&self, epoch: &GpuEpoch, mut totals: EpochTotals, end: usize) -> Result<EpochTotals> {
        let numbers = self.memory.read(&epoch.scores, 2 * totals.images..2 * end)?;
        totals.images = end;
        for image in numbers.chunks_exact(2) {
            totals.loss_sum += f64::from(image[0]);
            totals.correct += usize::from(image[1] > 0.5);
        }
        Ok(totals)
    }

    /// The logits of `pixels`, at most as many images as the scratch memory has space for.
    fn logits_of_part(&self, pixels: &[u8]) -> Result<Vec<f32>> {
        let inputs = self.recipe.shape.inputs();
        let rows = pixels.len() / inputs;
        let pixels = self.memory.words("the images", &pixel_words(pixels, inputs).collect::<Vec<_>>())?;
        let epoch = GpuEpoch {
            clock: self.memory.words("the step's number", &[0, 0])?,
            order: self.memory.words("the order of the images", &(0..rows as u32).collect::<Vec<_>>())?,
            plan: self.memory.words("the plan", &self.plan.evaluation(rows))?,
            scores: self.memory.empty("the logits", rows * self.recipe.shape.classes())?,
        };
        self.queue(&epoch, &pixels).evaluate(rows);
        self.memory.read(&epoch.scores, 0..epoch.scores.length)
    }
}

impl Network for FusedGpuEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "fused",
            device: "gpu",
            backend: format!("own kernels on {}", self.memory.adapter),
            instruction_set: "wgsl".into(),
            threads: 1,
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let (d, classes) = (self.recipe.shape.inputs(), self.recipe.shape.classes());
        let mut logits = Vec::with_capacity(pixels.len() / d * classes);
        for part in pixels.chunks(self.plan.rows * d) {
            interrupt::check()?;
            logits.extend(guarded(|| self.logits_of_part(part))?);
        }
        Ok(logits)
    }
}

impl Trainer for FusedGpuEngine {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let (mut done, mut steps_per_read) = (0, self.steps_per_read);
        let totals = self.train_steps(order, &mut done, &mut steps_per_read, progress);
        self.step += done as u64;
        self.steps_per_read = steps_per_read;
        totals
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        assert_eq!(train.len(), self.images.count, "expected as many images as before");
        self.images = guarded(|| self.memory.images(&train, self.recipe.shape.inputs()))?;
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        let p = self.recipe.shape.parameter_count();
        let all = guarded(|| self.memory.read(&self.state, 0..self.state.length))?;
        let mut parts = all.chunks_exact(p).map(<[f32]>::to_vec);
        let parameters = parts.next().unwrap_or_default();
        Ok(TrainingState { parameters, slots: parts.collect(), step: self.step })
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        guarded(|| self.memory.read(&self.state, 0..self.recipe.shape.parameter_count()))
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        let length = state.parameters.len() + state.slots.iter().map(Vec::len).sum::<usize>();
        assert_eq!(length, self.state.length, "expected the state of this network and optimizer");
        guarded(|| {
            self.write_state(state);
            Ok(())
        })
    }
}
