//! The epochs: order, engine, evaluation, events.

use std::time::Instant;

use crate::config::Parameters;
use crate::data::dataset::{self, Dataset};
use crate::engine::{Engine, Progress, TrainingState};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::output::event::{EpochRecord, Event, Listener};
use crate::score::Score;

/// What training gave.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Parameters and optimizer state after the last step.
    pub state: TrainingState,
    /// Each epoch as it went.
    pub epochs: Vec<EpochRecord>,
    /// The last evaluation of the test set.
    pub test: Score,
}

/// Trains `engine` for the epochs of `parameters` on the training images, with an evaluation of the test set after each.
///
/// # Errors
/// SIGINT or SIGTERM arrived, the loss is no number any more, or the device failed.
pub fn train(
    parameters: &Parameters,
    dataset: &Dataset,
    engine: &mut dyn Engine,
    listeners: &mut [&mut dyn Listener],
) -> Result<Trained> {
    let mut tell = |event: Event| listeners.iter_mut().for_each(|listener| listener.on(event));
    let epochs = parameters.train_epochs;
    let images = dataset.train.len();
    let mut records = Vec::new();
    let mut test = None;
    for epoch in 1..=epochs {
        tell(Event::EpochStarted { epoch, epochs, images });
        let order = dataset::epoch_order(parameters.seed, u64::from(epoch - 1), images);
        let begin = Instant::now();
        let totals = engine.train_epoch(&order, &mut |progress: Progress| {
            tell(Event::Progress(progress));
            interrupt::check()
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        tell(Event::EpochTrained { epoch });

        let loss = totals.loss_sum / totals.images as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged { epoch, loss });
        }
        let score = evaluate(engine, dataset)?;
        tell(Event::Evaluated { epoch, score: &score });
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
        records.push(record);
        test = Some(score);
    }
    let test = test.unwrap_or_else(|| unreachable!("train_epochs is at least 1"));
    Ok(Trained { state: engine.state()?, epochs: records, test })
}

/// Scores `engine` on the test set.
///
/// # Errors
/// SIGINT or SIGTERM arrived, or the device failed.
pub fn evaluate(engine: &mut dyn Engine, dataset: &Dataset) -> Result<Score> {
    interrupt::check()?;
    Ok(Score::new(&engine.logits(&dataset.test.pixels)?, &dataset.test.labels))
}
