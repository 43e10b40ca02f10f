//! The parameters of a training run, and their defaults.

use serde::Serialize;

use crate::data::augment::AugmentKind;
use crate::engine::choice::{DeviceChoice, EngineChoice, GpuCount};
use crate::optim::{OptimizerKind, ScheduleKind};
use crate::simd::Precision;

/// Every parameter of a training run with its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Epochs: how often each training image is seen.
    pub train_epochs: u32,
    /// Images per step, over all threads and devices together. The last batch of an epoch may be short.
    pub batch_size: usize,
    /// The step size.
    pub learning_rate: f64,
    /// The fraction of the last update that is kept (sgd, rmsprop).
    pub momentum: f64,
    /// Nesterov's variant of momentum (sgd).
    pub nesterov: bool,
    /// Decoupled weight decay, per step and times the learning rate.
    pub weight_decay: f64,
    /// The width of each hidden layer, from the input on.
    pub hidden_layers: Vec<usize>,
    /// The fraction of hidden activations that training drops, after each hidden layer.
    pub dropout: f64,
    /// The fraction of each target that is spread over all classes (label smoothing).
    pub label_smoothing: f64,
    /// The probability of the label from which on a training image has no backward pass; 0: every image has one.
    pub skip_confident: f64,
    /// How the learning rate changes over the steps.
    pub schedule: ScheduleKind,
    /// The steps in which the rate rises: below 1 a share of all, from 1 on a number of epochs.
    pub warmup: f64,
    /// The rate at the end of the schedule; none for a constant one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_learning_rate: Option<f64>,
    /// The decay per step of the average of the weights, which takes their place; 0: none.
    pub ema: f64,
    /// How training images are distorted, anew in every epoch.
    pub augment: AugmentKind,
    /// The largest rotation, in degrees; none without affine distortion, as are the next three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<f64>,
    /// The largest relative change of width and height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The largest shear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shear: Option<f64>,
    /// The largest shift, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// The smoothness of elastic distortion, in pixels; none without it, as is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic_sigma: Option<f64>,
    /// Its strength.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic_alpha: Option<f64>,
    /// Images taken from the end of the training set to validate with: below 1 a share of it, from 1 on a number.
    pub validation: f64,
    /// Which epoch's model is kept, if none reaches `target_accuracy`.
    pub keep: Keep,
    /// Epochs without improvement of the validation loss after which training ends; 0: never.
    pub early_stopping: u32,
    /// By how much the loss must fall to be an improvement.
    pub min_delta: f64,
    /// The accuracy, from 0 to 1, at which training ends with the model that has it, and below which it fails; 0: none.
    pub target_accuracy: f64,
    /// The time after which training ends with what there is, in seconds; 0: none.
    pub max_seconds: f64,
    /// Every how many epochs a snapshot is written; 0: never.
    pub snapshots: u32,
    /// How many networks are trained, whose probabilities are averaged.
    pub ensemble: usize,
    /// The seed of initial weights, order, dropout and augmentation.
    pub seed: u64,
    /// The device to train on.
    pub device: DeviceChoice,
    /// How many GPUs share out each batch.
    pub gpus: GpuCount,
    /// The engine that trains.
    pub engine: EngineChoice,
    /// What the products of hidden layers are made of.
    pub precision: Precision,
    /// The number of threads; 0: one for each processor, or fewer where these are faster.
    pub threads: usize,
}

/// A parameter of `augment`: its name, its value, and which kinds take it.
type Distortion = (&'static str, fn(&Parameters) -> Option<f64>, fn(AugmentKind) -> bool);

/// The parameters of `augment`.
pub(super) const DISTORTIONS: [Distortion; 6] = [
    ("rotation", |p| p.rotation, AugmentKind::is_affine),
    ("scale", |p| p.scale, AugmentKind::is_affine),
    ("shear", |p| p.shear, AugmentKind::is_affine),
    ("shift", |p| p.shift, AugmentKind::is_affine),
    ("elastic_sigma", |p| p.elastic_sigma, AugmentKind::is_elastic),
    ("elastic_alpha", |p| p.elastic_alpha, AugmentKind::is_elastic),
];

/// The defaults of `mnist.py` and Keras.
impl Default for Parameters {
    fn default() -> Self {
        let optimizer = OptimizerKind::Adam;
        Self {
            optimizer,
            train_epochs: 5,
            batch_size: 32,
            learning_rate: optimizer.default_learning_rate(),
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            hidden_layers: vec![128],
            dropout: 0.2,
            label_smoothing: 0.0,
            skip_confident: 0.0,
            schedule: ScheduleKind::Constant,
            warmup: 0.0,
            final_learning_rate: None,
            ema: 0.0,
            augment: AugmentKind::None,
            rotation: None,
            scale: None,
            shear: None,
            shift: None,
            elastic_sigma: None,
            elastic_alpha: None,
            validation: 0.0,
            keep: Keep::Last,
            early_stopping: 0,
            min_delta: 0.0,
            target_accuracy: 0.0,
            max_seconds: 0.0,
            snapshots: 0,
            ensemble: 1,
            seed: 42,
            device: DeviceChoice::Auto,
            gpus: GpuCount::Auto,
            engine: EngineChoice::Auto,
            precision: Precision::Float32,
            threads: 0,
        }
    }
}

/// Which epoch's model is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// That of the last epoch.
    Last,
    /// That of the epoch with the lowest validation loss.
    Best,
}

impl Keep {
    /// The choices by their names in the parameters file.
    pub const ALL: &[(&'static str, Self)] = &[("last", Self::Last), ("best", Self::Best)];
}
