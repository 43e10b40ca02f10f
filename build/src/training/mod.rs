//! The epochs: order, engine, evaluation, events.

use std::time::Instant;

use crate::data::dataset::{self, Dataset};
use crate::engine::{Network, Progress, Trainer, TrainingState};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::output::event::{EpochRecord, Event, Listener};
use crate::parameters::Parameters;
use crate::score::Score;

/// What training gave.
#[derive(Debug)]
pub struct Trained {
    /// Parameters and optimizer state after the last whole epoch.
    pub state: TrainingState,
    /// Each epoch as it went.
    pub epochs: Vec<EpochRecord>,
    /// The last evaluation of the test set.
    pub test: Score,
    /// The network's answers to the test set after that epoch, (N,K).
    pub test_logits: Vec<f32>,
    /// Why there are fewer epochs than asked for: the device failed after these.
    pub cut_short: Option<Error>,
}

impl Trained {
    /// How long all epochs took, without the evaluations after them.
    pub fn seconds(&self) -> f64 {
        self.epochs.iter().map(|epoch| epoch.seconds).sum()
    }
}

/// Trains for the epochs of `parameters` on the training images, with an evaluation of the test set after each.
///
/// A device that fails after the first epoch does not take the epochs before with it, see [`Trained::cut_short`].
///
/// # Errors
/// SIGINT or SIGTERM arrived, the loss is no number any more, or the device failed in the first epoch.
pub fn train(
    parameters: &Parameters,
    dataset: &Dataset,
    trainer: &mut dyn Trainer,
    listeners: &mut [&mut dyn Listener],
) -> Result<Trained> {
    let mut tell = |event: Event| listeners.iter_mut().for_each(|listener| listener.on(event));
    let mut trained: Option<Trained> = None;
    for epoch in 1..=parameters.train_epochs {
        let (state, record, (test, test_logits)) =
            match (train_epoch(parameters, dataset, trainer, epoch, &mut tell), &mut trained) {
                (Ok(result), _) => result,
                (Err(failure @ Error::Device { .. }), Some(trained)) => {
                    trained.cut_short = Some(failure);
                    break;
                }
                (Err(failure), _) => return Err(failure),
            };
        let mut epochs = trained.map_or(vec![], |trained| trained.epochs);
        epochs.push(record);
        trained = Some(Trained { state, epochs, test, test_logits, cut_short: None });
    }
    Ok(trained.unwrap_or_else(|| unreachable!("train_epochs is at least 1")))
}

fn train_epoch(
    parameters: &Parameters,
    dataset: &Dataset,
    trainer: &mut dyn Trainer,
    epoch: u32,
    tell: &mut dyn FnMut(Event),
) -> Result<(TrainingState, EpochRecord, (Score, Vec<f32>))> {
    let epochs = parameters.train_epochs;
    let images = dataset.train.len();
    tell(Event::EpochStarted { epoch, epochs, images });
    let order = dataset::epoch_order(parameters.seed, u64::from(epoch - 1), images);
    let begin = Instant::now();
    let totals = trainer.train_epoch(&order, &mut |progress: Progress| {
        tell(Event::Progress(progress));
        interrupt::check()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    tell(Event::EpochTrained { epoch });

    let loss = totals.loss_sum / totals.images as f64;
    if !loss.is_finite() {
        return Err(Error::Diverged { epoch, loss });
    }
    let (score, logits) = evaluate(trainer, dataset)?;
    if !score.loss.is_finite() {
        return Err(Error::Diverged { epoch, loss: score.loss });
    }
    tell(Event::Evaluated { epoch, score: &score });
    let state = trainer.state()?;
    let record = EpochRecord {
        epoch,
        loss,
        accuracy: totals.correct as f64 / totals.images as f64,
        seconds,
        images_per_second: totals.images as f64 / seconds,
        test_loss: score.loss,
        test_accuracy: score.accuracy,
    };
    tell(Event::EpochFinished { epochs, record: &record });
    Ok((state, record, (score, logits)))
}

/// Scores `network` on the test set, and gives its answers (N,K).
///
/// # Errors
/// SIGINT or SIGTERM arrived, or the device failed.
pub fn evaluate(network: &mut dyn Network, dataset: &Dataset) -> Result<(Score, Vec<f32>)> {
    interrupt::check()?;
    let logits = network.logits(&dataset.test.pixels)?;
    Ok((Score::new(&logits, &dataset.test.labels), logits))
}
