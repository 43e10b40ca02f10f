//! What is known of a training after some epochs, besides the trainer's own state: the results so far, and the decisions
//! that follow from them.

use crate::output::event::{EpochRecord, Evaluation, SplitScore};
use crate::output::finished::InitialModel;
use crate::parameters::{Keep, Parameters};

/// A training after some whole epochs. With the trainer's state it is all that the epochs to come depend on.
#[derive(Debug, Default)]
pub struct Course {
    /// The results of each epoch.
    pub epochs: Vec<EpochRecord>,
    /// The moving average of the weights (P), with `ema`.
    pub average: Option<Vec<f32>>,
    /// The model of the last epoch.
    pub last: Option<Kept>,
    /// The model of the epoch with the lowest loss, with `keep: best`.
    pub best: Option<Kept>,
    /// The model that gave the weights before the first epoch, with `--init`.
    pub init: Option<InitialModel>,
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
    /// The last epoch reached `target_accuracy`.
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
        if self.watched().next_back().is_some_and(|score| reaches_target(parameters, score)) {
            return Some(Over::Target);
        }
        let patience = parameters.early_stopping;
        (patience > 0 && self.epochs_without_improvement(parameters.min_delta) >= patience).then_some(Over::EarlyStop)
    }

    /// The first epoch before the last that reached the target: a training that had it from the beginning ended there.
    pub fn reached_before(&self, parameters: &Parameters) -> Option<u32> {
        let before = self.epochs.len().saturating_sub(1);
        let at = self.watched().take(before).position(|score| reaches_target(parameters, score))?;
        Some(self.epochs[at].epoch)
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

    /// Takes the model of the last epoch, whose record is the last of `epochs`.
    pub fn add(&mut self, model: Kept, parameters: &Parameters) {
        if parameters.keep == Keep::Best && self.last_is_best() {
            self.best = Some(model.clone());
        }
        self.last = Some(model);
    }

    /// The model that is kept, none before the first epoch: with `keep: best` that of the lowest loss, but if the last epoch
    /// reached the target, its own. The best one stays beside it: a training that goes on without the target ends as if it
    /// never had one.
    pub fn kept(&mut self, parameters: &Parameters) -> &mut Option<Kept> {
        let best = parameters.keep == Keep::Best && self.over(parameters) != Some(Over::Target);
        if best { &mut self.best } else { &mut self.last }
    }

    /// Whether the loss of the last epoch is lower than all before.
    fn last_is_best(&self) -> bool {
        let losses: Vec<f64> = self.watched().map(|score| score.loss).collect();
        losses.split_last().is_some_and(|(last, before)| before.iter().all(|loss| last < loss))
    }

    /// The scores on the watched split, one for each epoch.
    fn watched(&self) -> impl DoubleEndedIterator<Item = &SplitScore> {
        self.epochs.iter().filter_map(|record| record.splits.first())
    }
}

fn reaches_target(parameters: &Parameters, score: &SplitScore) -> bool {
    parameters.reaches_target(score.accuracy) == Some(true)
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
    fn the_best_model_has_the_lowest_loss_and_that_which_reaches_the_target_stays_beside_it() {
        let without = Parameters { keep: Keep::Best, ..Parameters::default() };
        let asked = Parameters { target_accuracy: 0.9, ..without.clone() };
        let scores = [(1.0, 0.5), (0.8, 0.6), (0.8, 0.7), (0.9, 0.9), (0.7, 0.8)];
        let mut grown = Course::default();
        let mut kept = |parameters: &Parameters, epoch: u32| {
            if grown.whole() < epoch {
                grown.epochs = course(&scores[..epoch as usize]).epochs;
                grown.add(Kept { epoch, parameters: vec![], evaluation: None }, parameters);
            }
            grown.kept(parameters).as_ref().map(|kept| kept.epoch)
        };
        assert_eq!(kept(&asked, 0), None);
        assert_eq!([1, 2, 3, 4].map(|epoch| kept(&asked, epoch)), [1, 2, 2, 4].map(Some));
        assert_eq!(kept(&without, 4), Some(2));
        assert_eq!(kept(&without, 5), Some(5));
        assert_eq!(kept(&Parameters::default(), 5), Some(5));
        assert_eq!(course(&scores[..3]).over(&asked), None);
        assert_eq!(course(&scores[..4]).over(&asked), Some(Over::Target));
        // Only what the last epoch reached counts: the model of an earlier one is gone.
        assert_eq!(course(&scores).over(&asked), None);
    }
}
