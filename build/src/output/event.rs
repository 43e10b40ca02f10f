//! The events of a run, and who hears them. Engines and the training loop print nothing and write no file: they send
//! events, and the log files, the lines and the bars are made from these.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};

use crate::data::dataset::{TEST, TRAIN, VALIDATION};
use crate::data::sets::DataSource;
use crate::engine::Progress;
use crate::error::Error;
use crate::parameters::Parameters;
use crate::score::{self, Classification, Score};

/// A network's answers to one split of the data set, such as `test`, and their score.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The split's name, see [`crate::data::dataset::Dataset::splits`].
    pub split: &'static str,
    /// How well the answers fit.
    pub score: Score,
    /// (N,K).
    pub logits: Vec<f32>,
    /// What they choose (N).
    pub answers: Vec<Classification>,
}

impl Evaluation {
    /// That of `logits` (N,K) for images with these `labels` (N) of `classes` classes (K).
    pub fn new(split: &'static str, logits: Vec<f32>, labels: &[u8], classes: usize) -> Self {
        let answers = score::classify(&logits, classes);
        Self { split, score: Score::of_answers(&answers, &logits, labels, classes), logits, answers }
    }

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

/// No loss is lower: what rounding may make of 0.
const LEAST_LOSS: f64 = -1e-3;
/// The end of the year 9999, in seconds since 1970. Later times have no text.
const LAST_SECOND: u64 = 253_402_300_799;

impl EpochRecord {
    /// Checks that a training which scores each epoch on the split `watched` alone can have given every value.
    ///
    /// # Errors
    /// The first that it cannot have given, the expected and the found.
    pub fn check(&self, watched: SplitName) -> Result<(), String> {
        let [score] = &*self.splits else {
            return Err(format!("expected one score, on the {watched} set, found {}", self.splits.len()));
        };
        if score.split != watched {
            return Err(format!("expected a score on the {watched} set, found one on the {} set", score.split));
        }
        for (name, value, least, most) in [
            ("loss", self.loss, LEAST_LOSS, f64::MAX),
            ("accuracy", self.accuracy, 0.0, 1.0),
            ("seconds", self.seconds, 0.0, f64::MAX),
            ("images_per_second", self.images_per_second, 0.0, f64::MAX),
            ("learning_rate", self.learning_rate, 0.0, f64::MAX),
            ("loss of the score", score.loss, LEAST_LOSS, f64::MAX),
            ("accuracy of the score", score.accuracy, 0.0, 1.0),
        ] {
            if !(least..=most).contains(&value) {
                let expected = if most == 1.0 { "0 to 1" } else { "a number from 0 on" };
                return Err(format!("{name}: expected {expected}, found {value:?}"));
            }
        }
        match self.finished.duration_since(UNIX_EPOCH) {
            Ok(since) if since.as_secs() < LAST_SECOND => Ok(()),
            _ => Err("finished: expected a time from 1970 to 9999, found another".into()),
        }
    }
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
pub trait Listener: Send {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn records_that_cannot_be_are_refused() {
        let sound = EpochRecord {
            epoch: 2,
            loss: 0.0,
            accuracy: 1.0,
            seconds: 0.1,
            images_per_second: 1e6,
            learning_rate: 0.0,
            splits: vec![SplitScore { split: VALIDATION, loss: 1e300, accuracy: 0.0 }],
            finished: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        };
        assert_eq!(sound.check(VALIDATION), Ok(()));
        let wrong = "expected a score on the test set, found one on the validation set";
        assert_eq!(sound.check(TEST), Err(wrong.into()));
        let broken = |change: fn(&mut EpochRecord)| {
            let mut record = sound.clone();
            change(&mut record);
            record.check(VALIDATION).unwrap_err()
        };
        assert_eq!(broken(|r| r.accuracy = 1.5), "accuracy: expected 0 to 1, found 1.5");
        assert_eq!(broken(|r| r.splits[0].accuracy = -7.0), "accuracy of the score: expected 0 to 1, found -7.0");
        assert_eq!(broken(|r| r.loss = -1.0), "loss: expected a number from 0 on, found -1.0");
        assert_eq!(
            broken(|r| r.splits[0].loss = -1e308),
            "loss of the score: expected a number from 0 on, found -1e308"
        );
        assert_eq!(broken(|r| r.seconds = -5.0), "seconds: expected a number from 0 on, found -5.0");
        assert_eq!(
            broken(|r| r.images_per_second = -1.0),
            "images_per_second: expected a number from 0 on, found -1.0"
        );
        assert_eq!(broken(|r| r.learning_rate = f64::NAN), "learning_rate: expected a number from 0 on, found NaN");
        assert_eq!(broken(|r| r.splits.clear()), "expected one score, on the validation set, found 0");
        let twice = |r: &mut EpochRecord| r.splits.extend(r.splits.clone());
        assert_eq!(broken(twice), "expected one score, on the validation set, found 2");
        let late = "finished: expected a time from 1970 to 9999, found another";
        assert_eq!(broken(|r| r.finished = UNIX_EPOCH + Duration::from_secs(1 << 40)), late);
        assert_eq!(broken(|r| r.finished = UNIX_EPOCH - Duration::from_secs(1)), late);
    }
}
