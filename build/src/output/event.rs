//! The events of a run, and who hears them. Engines and the training loop print nothing and write no file: they send
//! events, and the log files, the lines and the bars are made from these.

use std::time::SystemTime;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::data::sets::DataSource;
use crate::engine::Progress;
use crate::parameters::Parameters;
use crate::score::Score;

/// A network's answers to one split of the data set, such as `test`, and their score.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The split's name, see [`crate::data::dataset::Dataset::evaluated`].
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

/// Loss and accuracy on one split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitScore {
    /// The split's name.
    pub split: &'static str,
    /// Mean loss, in nats.
    pub loss: f64,
    /// From 0 to 1.
    pub accuracy: f64,
}

/// The results of one epoch.
#[derive(Debug, Clone, PartialEq)]
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
    /// The scores after the epoch, one for each evaluated split.
    pub splits: Vec<SplitScore>,
    /// When the epoch was over.
    pub finished: SystemTime,
}

/// In JSON the scores of a split are two numbers, `test_loss` and `test_accuracy` for `test`.
impl Serialize for EpochRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("epoch", &self.epoch)?;
        map.serialize_entry("loss", &self.loss)?;
        map.serialize_entry("accuracy", &self.accuracy)?;
        map.serialize_entry("seconds", &self.seconds)?;
        map.serialize_entry("images_per_second", &self.images_per_second)?;
        for SplitScore { split, loss, accuracy } in &self.splits {
            map.serialize_entry(&format!("{split}_loss"), loss)?;
            map.serialize_entry(&format!("{split}_accuracy"), accuracy)?;
        }
        map.end()
    }
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
