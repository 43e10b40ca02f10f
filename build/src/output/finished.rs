//! The outcome of a training run: all that its files are made from.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::data::dataset::{Dataset, Images};
use crate::engine::EngineInfo;
use crate::error::Error;
use crate::model::file::Model;
use crate::output::event::{EpochRecord, Evaluation, SplitScore};
use crate::parameters::{Keep, Parameters};

/// The model that gave a training its first weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialModel {
    /// The path of its file, as it was given.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// How the model was calibrated, see `training/calibration.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibration {
    /// What the logits were divided by.
    pub temperature: f64,
    /// The calibration error on the test set without that, see [`crate::score::Score::calibration_error`].
    pub error_before: f64,
}

/// The model that training gave.
#[derive(Debug)]
pub struct Trained {
    /// The model that is kept.
    pub model: Model,
    /// The epoch after which it was as it is.
    pub epoch: u32,
    /// Its score after that epoch, by which training was ended and the model chosen. What its calibration changes is not in it.
    pub watched: SplitScore,
    /// Its evaluations: of the split that is watched after every epoch, and at last of the test set if that is another.
    pub evaluations: Vec<Evaluation>,
    /// How it was calibrated, if there is a validation split.
    pub calibration: Option<Calibration>,
    /// What ended training before its end, if something did: a signal, `max_seconds`, a device that failed, a lack of memory,
    /// a loss that was infinite or NaN.
    pub unfinished: Option<Error>,
}

impl Trained {
    /// The last evaluation: of the test set, or if training is unfinished perhaps of the validation split.
    pub fn final_evaluation(&self) -> &Evaluation {
        self.evaluations.last().unwrap_or_else(|| unreachable!("every whole epoch is evaluated"))
    }

    /// Whether it reached `target_accuracy` on the split that is watched; none without a target.
    pub fn target_reached(&self, parameters: &Parameters) -> Option<bool> {
        parameters.reaches_target(self.watched.accuracy)
    }
}

/// A training run that gave a model.
pub struct Finished<'a> {
    /// The parameters as they were asked for, each `auto` included.
    pub parameters: &'a Parameters,
    /// The data set.
    pub dataset: &'a Dataset,
    /// The engine that trained.
    pub engine: &'a EngineInfo,
    /// The model that gave the first weights, with `--init`.
    pub init: Option<&'a InitialModel>,
    /// Whether a training that comes to its end takes its place.
    pub replaces_init: bool,
    /// The whole epochs.
    pub epochs: &'a [EpochRecord],
    /// How many of them are of earlier runs, which this one went on from.
    pub before: usize,
    /// The model.
    pub trained: &'a Trained,
    /// The contents of the model's file.
    pub weights: &'a [u8],
    /// Their SHA-256, in hexadecimal. Every file that is made from the model names it.
    pub model_sha256: &'a str,
    /// When the task began.
    pub began: SystemTime,
    /// From there to the end of training.
    pub seconds: f64,
}

impl<'a> Finished<'a> {
    /// When training ended.
    pub fn ended(&self) -> SystemTime {
        self.began + Duration::from_secs_f64(self.seconds)
    }

    /// Whether the model may be of another epoch than the last, so that its epoch is named.
    pub fn has_choice(&self) -> bool {
        self.parameters.keep == Keep::Best || self.trained.epoch as usize != self.epochs.len()
    }

    /// The epoch with the lowest loss on the split that is evaluated after every epoch; of equal ones the first.
    pub fn best_epoch(&self) -> u32 {
        let best = |best: &'a EpochRecord, epoch: &'a EpochRecord| match (best.splits.first(), epoch.splits.first()) {
            (Some(lowest), Some(score)) if score.loss < lowest.loss => epoch,
            _ => best,
        };
        self.epochs.iter().reduce(best).map_or(self.trained.epoch, |epoch| epoch.epoch)
    }

    /// The last evaluation, and the images that it is about.
    pub fn final_evaluation(&self) -> (&'a Evaluation, &'a Images) {
        let evaluation = self.trained.final_evaluation();
        let images = self.dataset.splits().find(|(split, _)| *split == evaluation.split);
        (evaluation, images.map_or(&self.dataset.test, |(_, images)| images))
    }
}

/// The time of all training steps of `epochs`, without the evaluations.
pub fn training_seconds(epochs: &[EpochRecord]) -> f64 {
    epochs.iter().map(|epoch| epoch.seconds).sum()
}
