//! The outcome of a training run: all that its files are made from.

use crate::data::dataset::{Dataset, TEST};
use crate::engine::EngineInfo;
use crate::error::Error;
use crate::model::file::Model;
use crate::output::event::{EpochRecord, Evaluation};
use crate::parameters::Parameters;

/// The model that training gave.
#[derive(Debug)]
pub struct Trained {
    /// The model after the last whole epoch.
    pub model: Model,
    /// Its evaluations, one for each evaluated split.
    pub evaluations: Vec<Evaluation>,
    /// The failure of the device that ended training before its last epoch, if there was one.
    pub cut_short: Option<Error>,
}

impl Trained {
    /// The evaluation of the test set.
    pub fn test(&self) -> &Evaluation {
        let test = self.evaluations.iter().find(|evaluation| evaluation.split == TEST);
        test.unwrap_or_else(|| unreachable!("the test set is evaluated after every epoch"))
    }
}

/// A training run that gave a model.
pub struct Finished<'a> {
    /// The parameters; `train_epochs` is the number of whole epochs.
    pub parameters: &'a Parameters,
    /// The data set.
    pub dataset: &'a Dataset,
    /// The engine that trained.
    pub engine: &'a EngineInfo,
    /// The whole epochs.
    pub epochs: &'a [EpochRecord],
    /// The model.
    pub trained: &'a Trained,
    /// The contents of the model's file.
    pub weights: &'a [u8],
    /// Their SHA-256, in hexadecimal. Every file that is made from the model names it.
    pub model_sha256: &'a str,
    /// From the start of the task to the end of training.
    pub seconds: f64,
}

/// The time of all training steps of `epochs`, without the evaluations.
pub fn training_seconds(epochs: &[EpochRecord]) -> f64 {
    epochs.iter().map(|epoch| epoch.seconds).sum()
}
