//! Engines: what trains a network. The host decides which images form which batch; an engine owns the memory.

#[cfg(feature = "gpu")]
pub mod adapter;
mod auto;
#[cfg(feature = "burn")]
pub mod burn_engine;
pub mod checked;
pub mod choice;
pub mod device;
#[cfg(any(feature = "burn", feature = "gpu"))]
mod device_error;
pub mod dropout;
pub mod ensemble;
pub mod fused;
#[cfg(feature = "gpu")]
pub mod fused_gpu;
mod pace;
#[cfg(feature = "gpu")]
mod pixel_words;
pub mod reference;

use std::sync::Arc;

use serde::Serialize;

use crate::data::dataset::Images;
use crate::error::Result;
use crate::model::MlpShape;
use crate::optim::OptimizerSettings;
use crate::simd::Precision;

/// What every engine is built from. Two engines of the same recipe see the same batches and the same dropout masks.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The network.
    pub shape: MlpShape,
    /// The optimizer with its settings.
    pub optimizer: OptimizerSettings,
    /// B; an epoch's last batch may be short, and the loss is the mean over the batch as it is.
    pub batch_size: usize,
    /// The fraction of hidden activations dropped in training.
    pub dropout: f64,
    /// The fraction s of each target that is spread over all classes (K): the targets are `(1 - s) onehot(label) + s / K`.
    ///
    /// Source: Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, 2015; `label_smoothing` of Keras'
    /// `CategoricalCrossentropy` and PyTorch's `CrossEntropyLoss`.
    pub label_smoothing: f64,
    /// The probability of the label from which on an image adds nothing to the gradient of its batch; 0: every image adds to it.
    pub skip_confident: f64,
    /// How many networks answer together, see [`ensemble`]. Most engines train one.
    pub ensemble: usize,
    /// The seed of the initial weights and of the dropout masks, see [`crate::engine::dropout::DropoutMask`].
    pub seed: u64,
    /// How many threads; at least 1.
    pub threads: usize,
    /// What the products of hidden layers are made of.
    pub precision: Precision,
    /// Whether fewer threads do where they turn out to be faster.
    pub fewer_threads: bool,
}

impl Recipe {
    /// Parameters of all networks.
    pub fn parameter_count(&self) -> usize {
        self.ensemble * self.shape.parameter_count()
    }

    /// The seed of network number `member`: the recipe's own for the first.
    pub fn member_seed(&self, member: usize) -> u64 {
        self.seed.wrapping_add(member as u64)
    }

    /// The recipes of the ensemble's networks in groups of `each`, which divides their number, for this many `threads` each.
    pub fn groups(&self, each: usize, threads: usize) -> impl Iterator<Item = Self> {
        (0..self.ensemble).step_by(each).map(move |first| {
            let seed = self.member_seed(first);
            Self { ensemble: each, seed, threads, ..self.clone() }
        })
    }
}

/// Who trained, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// The engine's name in the parameters file.
    pub engine: &'static str,
    /// The device's kind in the parameters file.
    pub device: &'static str,
    /// How many GPUs share out each batch; 0 on the processor.
    pub gpus: usize,
    /// What computes there.
    pub backend: String,
    /// Which instructions the kernels were chosen for, as far as the engine knows.
    pub instruction_set: String,
    /// How many threads.
    pub threads: usize,
}

/// Everything that a step changes: what a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// (P), see [`MlpShape::layers`].
    pub parameters: Vec<f32>,
    /// The optimizer's memory: (slots, P), see [`OptimizerSettings::slots`].
    pub slots: Vec<Vec<f32>>,
    /// Steps done.
    pub step: u64,
}

impl TrainingState {
    /// The state before the first step.
    pub fn new(optimizer: &OptimizerSettings, parameters: Vec<f32>) -> Self {
        let slots = optimizer.slots().iter().map(|slot| vec![slot.initial; parameters.len()]).collect();
        Self { parameters, slots, step: 0 }
    }
}

/// Where an epoch stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Images trained on so far in this epoch.
    pub images: usize,
    /// The mean loss over them, if the engine knows it without waiting for its device.
    pub loss: Option<f64>,
    /// The share of right answers among them, if the engine knows it.
    pub accuracy: Option<f64>,
}

/// Hears where an epoch stands; when it fails, the epoch ends there.
pub type Report<'a> = dyn FnMut(Progress) -> Result<()> + Send + 'a;

/// Totals over an epoch or a part of it, with dropout. As in Keras, each batch counts with the parameters before its step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EpochTotals {
    /// Images seen.
    pub images: usize,
    /// The sum of their losses.
    pub loss_sum: f64,
    /// How many were classified right.
    pub correct: usize,
}

impl EpochTotals {
    /// The mean of the totals of several networks that saw the same images; at least one.
    pub fn mean(networks: &[Self]) -> Self {
        let mut sum = Self::default();
        networks.iter().for_each(|totals| sum += *totals);
        let count = networks.len();
        Self { images: sum.images / count, loss_sum: sum.loss_sum / count as f64, correct: sum.correct / count }
    }

    /// Where an epoch stands that has these totals, of at least one image.
    pub fn progress(&self) -> Progress {
        let mean = |sum: f64| Some(sum / self.images as f64);
        Progress { images: self.images, loss: mean(self.loss_sum), accuracy: mean(self.correct as f64) }
    }

    /// Where an epoch stands that has these totals, and goes on as `progress` says.
    pub fn and(&self, progress: Progress) -> Progress {
        let images = self.images + progress.images;
        let mean = |sum: f64, more: f64| (sum + more * progress.images as f64) / images as f64;
        Progress {
            images,
            loss: progress.loss.map(|loss| mean(self.loss_sum, loss)),
            accuracy: progress.accuracy.map(|accuracy| mean(self.correct as f64, accuracy)),
        }
    }
}

impl std::ops::AddAssign for EpochTotals {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
    }
}

/// A network that answers.
pub trait Network: Send {
    /// Who this is.
    fn info(&self) -> EngineInfo;

    /// The network's answers without dropout to `pixels` (N,D): logits (N,K).
    ///
    /// # Errors
    /// The device failed.
    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>>;
}

/// A network in training on one device.
pub trait Trainer: Network {
    /// Trains one step on each batch of `order`: indices of training images, `batch_size` at a time.
    ///
    /// `progress` is called after every step or every few; when it fails the epoch ends there.
    ///
    /// # Errors
    /// What `progress` returned, or the device failed.
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals>;

    /// Replaces the training images by `train`, of the same number and size: augmentation gives every epoch its own.
    ///
    /// # Errors
    /// The device failed.
    fn set_images(&mut self, train: Arc<Images>) -> Result<()>;

    /// A copy of parameters and optimizer state.
    ///
    /// # Errors
    /// The device failed.
    fn state(&mut self) -> Result<TrainingState>;

    /// A copy of the parameters (P) alone.
    ///
    /// # Errors
    /// The device failed.
    fn parameters(&mut self) -> Result<Vec<f32>> {
        Ok(self.state()?.parameters)
    }

    /// Continues from `state`, which must fit the recipe.
    ///
    /// # Errors
    /// The device failed.
    fn load_state(&mut self, state: &TrainingState) -> Result<()>;
}

/// How many threads `asked` stands for: 0 is one for each processor.
pub fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { crate::threads::processors() }
}
