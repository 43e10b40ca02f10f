//! The events of a run, and who hears them. Engines and the training loop print nothing and write no file: they send
//! events, and the log files, the lines and the bars are made from these.

use std::time::{Instant, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};

use crate::data::dataset::{TEST, TRAIN, VALIDATION};
use crate::data::sets::DataSource;
use crate::engine::Progress;
use crate::error::Error;
use crate::parameters::Parameters;
use crate::score::Score;

/// A network's answers to one split of the data set, such as `test`, and their score.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The split's name, see [`crate::data::dataset::Dataset::splits`].
    pub split: &'static str,
    /// How well the answers fit.
    pub score: Score,
    /// The answers, (N,K).
    pub logits: Vec<f32>,
}

impl Evaluation {
    /// The part of it that is kept for every epoch.
    pub fn summary(&self) -> SplitScore {
        SplitScore { split: self.split, loss: self.score.loss, accuracy: self.score.accuracy }
    }
}

/// The name of a split. An alias, since serde would take a reference for a part of what it reads.
pub type SplitName = &'static str;

/// Loss and accuracy on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitScore {
    /// The split's name.
    #[serde(deserialize_with = "split_named")]
    pub split: SplitName,
    /// Mean loss, in nats.
    pub loss: f64,
    /// From 0 to 1.
    pub accuracy: f64,
}

/// The results of one epoch, which snapshots hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// Mean training loss during the epoch, with dropout.
    pub loss: f64,
    /// Training accuracy during the epoch, with dropout; from 0 to 1.
    pub accuracy: f64,
    /// The time of the training steps, without the evaluations after them.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The scores after the epoch, one for each split that is evaluated then.
    pub splits: Vec<SplitScore>,
    /// When the epoch was over.
    pub finished: SystemTime,
}

/// Reads the name of a split.
fn split_named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SplitName, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = [TRAIN, VALIDATION, TEST];
    let unknown = || serde::de::Error::unknown_variant(&name, &[TRAIN, VALIDATION, TEST]);
    known.into_iter().find(|split| *split == name).ok_or_else(unknown)
}

/// Something that happened in a run of `download`, `train` or `evaluate`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum RunEvent<'a> {
    /// The data is known, with the number of images of each split that the task uses.
    Data { source: DataSource, images: &'a [(&'static str, usize)] },
    /// The parameters of the training to come; none of them is `auto` any more.
    Parameters(&'a Parameters),
    /// Everything is prepared; the work itself begins.
    RunStarted,
    /// The epochs of a training begin, after those of earlier runs that it goes on from. It ends at `deadline` at the latest.
    TrainingStarted { epochs: u32, before: &'a [EpochRecord], deadline: Option<Instant> },
    /// An epoch (from 1) of `epochs` begins, with `images` images.
    EpochStarted { epoch: u32, epochs: u32, images: usize },
    /// Some steps of the epoch are done.
    Progress(Progress),
    /// All steps of the epoch are done.
    EpochTrained { epoch: u32 },
    /// The evaluation of a split begins, after an epoch or by itself.
    EvaluationStarted { split: &'static str, epoch: Option<u32> },
    /// It is over.
    Evaluated { evaluation: &'a Evaluation, epoch: Option<u32> },
    /// The epoch is over, with its evaluations.
    EpochFinished { epochs: u32, record: &'a EpochRecord },
    /// Training was ended before its end by this; the model so far is written.
    Unfinished { reason: &'a Error },
}

/// Hears the events of a run.
pub trait Listener {
    /// Takes note of `event`.
    fn on(&mut self, event: RunEvent);
}

/// Passes every event on to each of these, in this order.
pub struct Listeners<'a>(pub Vec<&'a mut dyn Listener>);

impl Listener for Listeners<'_> {
    fn on(&mut self, event: RunEvent) {
        self.0.iter_mut().for_each(|listener| listener.on(event));
    }
}
