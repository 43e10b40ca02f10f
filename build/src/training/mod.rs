//! The training loop. It gives every epoch its order, has the engine train it, evaluates, and sends events.

mod resume;
pub mod snapshot;
pub mod snapshots;

use std::time::{Instant, SystemTime};

use crate::data::dataset::{self, Dataset, Images};
use crate::engine::{Network, Progress, Trainer};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::MlpShape;
use crate::model::file::Model;
use crate::output::event::{EpochRecord, Evaluation, Listener, RunEvent};
use crate::output::finished::Trained;
use crate::parameters::Parameters;
use crate::score::Score;

/// A run of the training loop that is over.
#[derive(Debug)]
pub struct TrainingRun {
    /// The whole epochs.
    pub epochs: Vec<EpochRecord>,
    /// The model, or the reason why there is none: SIGINT or SIGTERM arrived, the loss or a weight became infinite or
    /// NaN, or the device failed in the first epoch. A device that fails later leaves the model of the last whole epoch, see
    /// [`Trained::cut_short`].
    pub result: Result<Trained>,
}

/// The results of one epoch.
struct EpochResult {
    record: EpochRecord,
    /// (P)
    parameters: Vec<f32>,
    evaluations: Vec<Evaluation>,
}

/// Trains for the epochs of `parameters` on the training images, with an evaluation after each.
pub fn train(
    parameters: &Parameters,
    dataset: &Dataset,
    trainer: &mut dyn Trainer,
    listener: &mut dyn Listener,
) -> TrainingRun {
    let mut epochs = vec![];
    let mut last = None;
    let mut failure = None;
    for epoch in 1..=parameters.train_epochs {
        match train_epoch(parameters, dataset, trainer, epoch, listener) {
            Ok(EpochResult { record, parameters, evaluations }) => {
                epochs.push(record);
                last = Some((parameters, evaluations));
            }
            Err(problem) => {
                failure = Some(problem);
                break;
            }
        }
    }
    let result = match (last, failure) {
        (Some((weights, evaluations)), failure @ (None | Some(Error::Device { .. }))) => {
            let Images { classes, .. } = *dataset.train;
            let shape = MlpShape::new(dataset.train.inputs(), &parameters.hidden_layers, classes.len());
            let model = Model { shape, parameters: weights, data: dataset.provenance.source.id().into() };
            Ok(Trained { model, evaluations, cut_short: failure })
        }
        (_, Some(failure)) => Err(failure),
        (None, None) => unreachable!("train_epochs is at least 1"),
    };
    TrainingRun { epochs, result }
}

fn train_epoch(
    parameters: &Parameters,
    dataset: &Dataset,
    trainer: &mut dyn Trainer,
    epoch: u32,
    listener: &mut dyn Listener,
) -> Result<EpochResult> {
    let epochs = parameters.train_epochs;
    let images = dataset.train.len();
    listener.on(RunEvent::EpochStarted { epoch, epochs, images });
    let order = dataset::epoch_order(parameters.seed, u64::from(epoch - 1), images);
    let begin = Instant::now();
    let totals = trainer.train_epoch(&order, &mut |progress: Progress| {
        listener.on(RunEvent::Progress(progress));
        interrupt::check()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    listener.on(RunEvent::EpochTrained { epoch });

    let loss = totals.loss_sum / totals.images as f64;
    check_finite(epoch, "the loss", loss)?;
    let evaluations: Vec<Evaluation> = dataset
        .evaluated()
        .map(|(split, images)| evaluate(trainer, split, images, Some(epoch), listener))
        .collect::<Result<_>>()?;
    let parameters = trainer.parameters()?;
    let infinite = parameters.iter().find(|parameter| !parameter.is_finite());
    infinite.map_or(Ok(()), |&parameter| check_finite(epoch, "a weight", parameter.into()))?;
    let record = EpochRecord {
        epoch,
        loss,
        accuracy: totals.correct as f64 / totals.images as f64,
        seconds,
        images_per_second: totals.images as f64 / seconds,
        splits: evaluations.iter().map(Evaluation::summary).collect(),
        finished: SystemTime::now(),
    };
    listener.on(RunEvent::EpochFinished { epochs, record: &record });
    Ok(EpochResult { record, parameters, evaluations })
}

/// Scores `network` on the images of `split`, after `epoch` or by itself.
///
/// # Errors
/// SIGINT or SIGTERM arrived, the device failed, or after an epoch the loss is infinite or NaN.
pub fn evaluate<N: Network + ?Sized>(
    network: &mut N,
    split: &'static str,
    images: &Images,
    epoch: Option<u32>,
    listener: &mut dyn Listener,
) -> Result<Evaluation> {
    interrupt::check()?;
    listener.on(RunEvent::EvaluationStarted { split, epoch });
    let logits = network.logits(&images.pixels)?;
    let evaluation = Evaluation { split, score: Score::new(&logits, &images.labels, images.classes.len()), logits };
    if let Some(epoch) = epoch {
        check_finite(epoch, "the loss", evaluation.score.loss)?;
    }
    listener.on(RunEvent::Evaluated { evaluation: &evaluation, epoch });
    Ok(evaluation)
}

fn check_finite(epoch: u32, what: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::Diverged { epoch, what, value }) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::dataset::Provenance;
    use crate::data::sets::{DataSource, SYNTHETIC};
    use crate::engine::{EngineInfo, EpochTotals, TrainingState};
    use crate::output::event::Listeners;

    /// A trainer whose answers and losses are finite, but not one of its weights.
    struct Broken;

    impl Network for Broken {
        fn info(&self) -> EngineInfo {
            let [backend, instruction_set] = ["none", "none"].map(String::from);
            EngineInfo { engine: "broken", device: "none", backend, instruction_set, threads: 1 }
        }
        fn logits(&mut self, _: &[u8]) -> Result<Vec<f32>> {
            Ok(vec![0.0; 10])
        }
    }

    impl Trainer for Broken {
        fn train_epoch(&mut self, _: &[u32], _: &mut dyn FnMut(Progress) -> Result<()>) -> Result<EpochTotals> {
            Ok(EpochTotals { images: 1, loss_sum: 1.0, correct: 0 })
        }
        fn set_images(&mut self, _: Arc<Images>) -> Result<()> {
            Ok(())
        }
        fn state(&mut self) -> Result<TrainingState> {
            Ok(TrainingState { parameters: vec![1.0, f32::NAN], slots: vec![], step: 1 })
        }
        fn load_state(&mut self, _: &TrainingState) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_weight_that_is_nan_ends_the_training_even_if_the_loss_is_finite() {
        let images = Images { side: 28, classes: SYNTHETIC.classes, pixels: vec![0; 784], labels: vec![0] };
        let provenance = Provenance { source: DataSource(None), train_images: 1, test_images: 1, files: vec![] };
        let dataset = Dataset { train: Arc::new(images.clone()), test: images, provenance };
        let run = train(&Parameters::default(), &dataset, &mut Broken, &mut Listeners(vec![]));
        let error = run.result.unwrap_err().to_string();
        assert_eq!(error, "training diverged: a weight of epoch 1 is NaN");
    }
}
