//! The network in the memory of one GPU, or all networks of an ensemble, with the training images.

use cubecl::prelude::*;

use super::memory::{DeviceBuffer, DeviceMemory, GpuEpoch, GpuImages};
use super::plan::{self, BatchShare, NetworkPlan};
use super::queue::StepQueue;
use crate::data::dataset::Images;
use crate::engine::adapter::Adapter;
use crate::engine::pixel_words::pixel_words;
use crate::engine::{EpochTotals, Recipe, TrainingState};
use crate::error::Result;

/// How many activations an evaluation may take at a time.
const EVALUATION_ACTIVATIONS: usize = 1 << 22;
/// How many images it takes at a time, at most.
const EVALUATION_BATCH: usize = 2_000;

/// How many images the networks of `recipe` work on at a time, at most, of a training set of so many `images` on so many `gpus`.
fn most_rows(recipe: &Recipe, images: usize, gpus: usize) -> usize {
    let widths = recipe.shape.widths();
    let hidden: usize = widths[1..widths.len() - 1].iter().sum();
    let batch = recipe.batch_size.min(images.max(1)).div_ceil(gpus);
    let evaluated = EVALUATION_ACTIVATIONS / recipe.ensemble / hidden.max(1);
    batch.max(evaluated.clamp(1, EVALUATION_BATCH))
}

/// How many networks of `recipe` have place in the buffers of `adapter`, to be trained on so many `images`.
///
/// # Errors
/// The device cannot be opened.
pub fn most_members(recipe: &Recipe, images: usize, adapter: &Adapter) -> Result<usize> {
    let memory = DeviceMemory::open(adapter.clone())?;
    let plan = NetworkPlan::new(recipe, most_rows(recipe, images, 1), 1);
    let scratch = plan.members().scratch;
    let state = (1 + recipe.optimizer.slots().len()) * recipe.shape.parameter_count();
    let (scores, keys) = (2 * images, plan.members().keys * images.div_ceil(recipe.batch_size));
    Ok(memory.most_numbers() / [scratch, state, scores, keys].into_iter().fold(1, usize::max))
}

/// The network in the memory of one GPU, which takes a share of each batch.
pub struct GpuNetwork {
    pub plan: NetworkPlan,
    pub memory: DeviceMemory,
    pub images: GpuImages,
    pub share: BatchShare,
    /// D and K.
    inputs: usize,
    classes: usize,
    dropout: f64,
    /// Parameters and slots, (1 + slots, networks, P).
    state: DeviceBuffer,
    /// Activations of the hidden layers, gradients by them and by the logits.
    pub scratch: DeviceBuffer,
}

impl GpuNetwork {
    /// The network of `recipe` on `adapter`, without weights, to be trained on a `share` of the batches of `train`.
    ///
    /// # Errors
    /// The device cannot be opened, or it has not enough memory.
    pub fn new(recipe: &Recipe, train: &Images, adapter: Adapter, share: BatchShare) -> Result<Self> {
        let memory = DeviceMemory::open(adapter)?;
        let plan = NetworkPlan::new(recipe, most_rows(recipe, train.len(), share.gpus), share.gpus);
        let images = memory.images(train, recipe.shape.inputs())?;
        let slots = recipe.optimizer.slots().len();
        let state = memory.empty("the parameters", (1 + slots) * recipe.parameter_count())?;
        let scratch = memory.empty("the activations of a batch", plan.scratch())?;
        let (inputs, classes, dropout) = (recipe.shape.inputs(), recipe.shape.classes(), recipe.dropout);
        Ok(Self { plan, memory, images, share, inputs, classes, dropout, state, scratch })
    }

    /// Replaces parameters and slots by those of `state`.
    pub fn write_state(&mut self, state: &TrainingState) {
        let all = state.parameters.iter().chain(state.slots.iter().flatten()).copied().collect::<Vec<f32>>();
        assert_eq!(all.len(), self.state.length, "expected the state of this network and optimizer");
        self.state.handle = self.memory.client.create_from_slice(f32::as_bytes(&all));
    }

    /// Parameters and slots after `step` steps.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_state(&self, step: u64) -> Result<TrainingState> {
        let all = self.memory.read(&self.state, 0..self.state.length)?;
        let mut parts = all.chunks_exact(self.plan.update.parameters).map(<[f32]>::to_vec);
        let parameters = parts.next().unwrap_or_default();
        Ok(TrainingState { parameters, slots: parts.collect(), step })
    }

    /// The parameters (networks, P).
    ///
    /// # Errors
    /// The device failed.
    pub fn read_parameters(&self) -> Result<Vec<f32>> {
        self.memory.read(&self.state, 0..self.plan.update.parameters)
    }

    /// Replaces the training images by those of `train`.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_images(&mut self, train: &Images) -> Result<()> {
        self.images = self.memory.images(train, self.inputs)?;
        Ok(())
    }

    /// Copies this GPU's shares of the batches of `order` to the device, and the plan of the steps from `first_step` on.
    ///
    /// # Errors
    /// The device failed.
    pub fn epoch(&self, recipe: &Recipe, first_step: u64, order: &[u32]) -> Result<GpuEpoch> {
        // The kernels check neither.
        assert!(order.iter().all(|&image| (image as usize) < self.images.count), "expected the order of the images");
        assert!(self.rows(recipe, order) <= self.plan.rows, "expected no more than all images in a batch");
        let batches = order.chunks(recipe.batch_size);
        let own: Vec<u32> = batches.flat_map(|batch| &batch[self.share.of(batch.len())]).copied().collect();
        let records = plan::records(recipe, first_step, order.len(), self.share);
        Ok(GpuEpoch {
            clock: self.memory.words("the steps' numbers", &[0, 0])?,
            order: self.memory.words("the order of the images", &own)?,
            plan: self.memory.words("the plan of the steps", &records)?,
            scores: self.memory.empty("the losses", 2 * self.plan.members().count * own.len())?,
        })
    }

    /// How many images the largest share of a batch of `order` has.
    pub fn rows(&self, recipe: &Recipe, order: &[u32]) -> usize {
        recipe.batch_size.min(order.len()).div_ceil(self.share.gpus)
    }

    /// Launches the steps of `epoch`.
    pub fn steps<'a>(&'a self, epoch: &'a GpuEpoch) -> StepQueue<'a> {
        self.queue(epoch, &self.images.pixels)
    }

    fn queue<'a>(&'a self, epoch: &'a GpuEpoch, pixels: &'a DeviceBuffer) -> StepQueue<'a> {
        StepQueue {
            client: &self.memory.client,
            plan: &self.plan,
            dropout: self.dropout,
            pixels,
            labels: &self.images.labels,
            epoch,
            state: &self.state,
            scratch: &self.scratch,
        }
    }

    /// The logits (N, networks, K) of `pixels`, at most as many images as the scratch memory has space for.
    ///
    /// # Errors
    /// The device failed.
    pub fn logits(&self, pixels: &[u8]) -> Result<Vec<f32>> {
        let rows = pixels.len() / self.inputs;
        let pixels = self.memory.words("the images", &pixel_words(pixels, self.inputs).collect::<Vec<_>>())?;
        let epoch = GpuEpoch {
            clock: self.memory.words("the step's number", &[0, 0])?,
            order: self.memory.words("the order of the images", &(0..rows as u32).collect::<Vec<_>>())?,
            plan: self.memory.words("the plan", &self.plan.evaluation(rows))?,
            scores: self.memory.empty("the logits", rows * self.plan.members().count * self.classes)?,
        };
        self.queue(&epoch, &pixels).evaluate(rows);
        self.memory.read(&epoch.scores, 0..epoch.scores.length)
    }
}

/// Adds images to the `totals` of each network, by the loss and the correctness of each. The loss is one sum over all images, so
/// that no bit depends on how often this is called.
pub fn add_scores(totals: &mut [EpochTotals], scores: &[f32]) {
    for image in scores.chunks_exact(2 * totals.len()) {
        for (totals, score) in totals.iter_mut().zip(image.chunks_exact(2)) {
            totals.images += 1;
            totals.loss_sum += f64::from(score[0]);
            totals.correct += usize::from(score[1] > 0.5);
        }
    }
}
