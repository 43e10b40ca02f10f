//! What is known of a training after some epochs, besides the trainer's own state: the results so far, and the decisions
//! that follow from them.

use crate::output::event::{EpochRecord, Evaluation, SplitScore};
use crate::parameters::{Keep, Parameters};

/// A training after some whole epochs. With the trainer's state it is all that the epochs to come depend on.
#[derive(Debug, Default)]
pub struct Course {
    /// The results of each epoch.
    pub epochs: Vec<EpochRecord>,
    /// The moving average of the weights (P), with `ema`.
    pub average: Option<Vec<f32>>,
    /// The model that is kept; none before the first epoch.
    pub kept: Option<Kept>,
}

/// The model of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The epoch, from 1.
    pub epoch: u32,
    /// (P)
    pub parameters: Vec<f32>,
    /// Its evaluation on the split that is watched; none after a snapshot was read.
    pub evaluation: Option<Evaluation>,
}

/// Why a training is over before its last epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// `target_accuracy` is reached.
    Target,
    /// The loss did not improve for as many epochs as `early_stopping` says.
    EarlyStop,
}

impl Course {
    /// The number of whole epochs.
    pub fn whole(&self) -> u32 {
        self.epochs.len() as u32
    }

    /// Whether training is over, by the results so far.
    pub fn over(&self, parameters: &Parameters) -> Option<Over> {
        if parameters.target_accuracy > 0.0 && self.best_accuracy() >= Some(parameters.target_accuracy) {
            return Some(Over::Target);
        }
        let patience = parameters.early_stopping;
        (patience > 0 && self.epochs_without_improvement(parameters.min_delta) >= patience).then_some(Over::EarlyStop)
    }

    /// The highest accuracy on the watched split.
    pub fn best_accuracy(&self) -> Option<f64> {
        self.watched().map(|score| score.accuracy).reduce(f64::max)
    }

    /// Epochs since the loss on the watched split was last lower than the lowest before, by more than `min_delta`.
    ///
    /// Source: Keras' `EarlyStopping` with `monitor="val_loss"`.
    fn epochs_without_improvement(&self, min_delta: f64) -> u32 {
        let (mut lowest, mut without) = (f64::INFINITY, 0);
        for score in self.watched() {
            if score.loss < lowest - min_delta {
                (lowest, without) = (score.loss, 0);
            } else {
                without += 1;
            }
        }
        without
    }

    /// Whether the model of the last epoch is to be kept: with `keep: best` if its loss is lower than all before, or if it
    /// reaches the target, which ends the training.
    pub fn keeps_last(&self, parameters: &Parameters) -> bool {
        if parameters.keep == Keep::Last {
            return true;
        }
        let losses: Vec<f64> = self.watched().map(|score| score.loss).collect();
        let Some((last, before)) = losses.split_last() else { return false };
        before.iter().all(|loss| last < loss) || self.over(parameters) == Some(Over::Target)
    }

    /// The scores on the watched split, one for each epoch.
    fn watched(&self) -> impl Iterator<Item = &SplitScore> {
        self.epochs.iter().filter_map(|record| record.splits.first())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn course(scores: &[(f64, f64)]) -> Course {
        let record = |(epoch, &(loss, accuracy)): (usize, &(f64, f64))| EpochRecord {
            epoch: epoch as u32 + 1,
            loss: 1.0,
            accuracy: 0.5,
            seconds: 1.0,
            images_per_second: 1.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split: "validation", loss, accuracy }],
            finished: SystemTime::UNIX_EPOCH,
        };
        Course { epochs: scores.iter().enumerate().map(record).collect(), ..Course::default() }
    }

    #[test]
    fn training_stops_after_epochs_without_improvement() {
        let asked = |early_stopping, min_delta| Parameters { early_stopping, min_delta, ..Parameters::default() };
        let losses = [1.0, 0.8, 0.75, 0.9, 0.74].map(|loss| (loss, 0.5));
        let stops = |parameters: &Parameters| {
            (1..=5).find(|&epochs| course(&losses[..epochs]).over(parameters) == Some(Over::EarlyStop))
        };
        assert_eq!(stops(&asked(0, 0.0)), None);
        assert_eq!(stops(&asked(1, 0.0)), Some(4));
        assert_eq!(stops(&asked(2, 0.0)), None);
        assert_eq!(stops(&asked(2, 0.1)), Some(4)); // 0.75 and 0.9 are no improvement of 0.8
        assert_eq!(stops(&asked(1, 0.1)), Some(3));
    }

    #[test]
    fn the_best_model_has_the_lowest_loss_or_reaches_the_target() {
        let asked = Parameters { keep: Keep::Best, target_accuracy: 0.9, ..Parameters::default() };
        let scores = [(1.0, 0.5), (0.8, 0.6), (0.8, 0.7), (0.9, 0.9)];
        let kept: Vec<bool> = (1..=4).map(|epochs| course(&scores[..epochs]).keeps_last(&asked)).collect();
        assert_eq!(kept, [true, true, false, true]);
        assert_eq!(course(&scores[..3]).over(&asked), None);
        assert_eq!(course(&scores).over(&asked), Some(Over::Target));
        assert!((1..=4).all(|epochs| course(&scores[..epochs]).keeps_last(&Parameters::default())));
    }
}
