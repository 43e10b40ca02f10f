//! The training loop. It gives every epoch its order, has the engine train it, evaluates, decides whether to go on, and
//! sends events.
//!
//! [`evaluation`] scores a network, and [`deadline`] says when the time is over. [`course`] decides from the results so far,
//! [`average`] averages the weights, [`calibration`] corrects the confidence. A [`snapshot`] holds the whole state after an
//! epoch: [`recorder`] takes them, [`snapshots`] are their files, and [`resume`] checks whether a training may go on from
//! one.

pub mod average;
pub mod calibration;
pub mod course;
pub mod deadline;
pub mod evaluation;
pub mod recorder;
pub mod resume;
pub mod snapshot;
pub mod snapshots;

use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use self::course::{Course, Kept, Over};
use self::deadline::{Alarm, Deadline};
use self::evaluation::{check_finite, evaluate, logits};
use self::recorder::Recorder;
use crate::data::augment::augmenter::Augmenter;
use crate::data::dataset::{self, Dataset, Images, TEST};
use crate::engine::choice;
use crate::engine::{EpochTotals, Progress, Recipe, Trainer};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::MlpShape;
use crate::model::file::{Model, Unfinished};
use crate::output::event::{EpochRecord, Evaluation, Listener, RunEvent};
use crate::output::finished::{Calibration, Trained};
use crate::parameters::{Keep, Parameters};
use crate::text;

/// A training in progress.
pub struct Training<'a> {
    /// The parameters.
    pub parameters: &'a Parameters,
    /// The data set.
    pub dataset: &'a Dataset,
    /// What trains; it stands where `course` does.
    pub trainer: &'a mut dyn Trainer,
    /// Distorts the training images.
    pub augmenter: Option<Augmenter>,
    /// Hears the events.
    pub listener: &'a mut dyn Listener,
    /// The epochs so far; none for a training from the beginning.
    pub course: Course,
    /// When `max_seconds` are over.
    pub deadline: Option<Deadline>,
    /// Takes snapshots.
    pub recorder: Option<&'a mut Recorder>,
}

/// A run of the training loop that is over.
#[derive(Debug)]
pub struct TrainingRun {
    /// The whole epochs.
    pub epochs: Vec<EpochRecord>,
    /// The model, or the reason why there is no whole epoch. Whatever ends training later, even a loss that is infinite or NaN,
    /// leaves the model of the epochs before.
    pub result: Result<Trained>,
}

impl Training<'_> {
    /// Trains for the epochs of the parameters, with an evaluation after each, then scores the model that is kept.
    pub fn run(mut self) -> TrainingRun {
        let (epochs, before, deadline) =
            (self.parameters.train_epochs, &self.course.epochs, self.deadline.and_then(|deadline| deadline.at));
        self.listener.on(RunEvent::TrainingStarted { epochs, before, deadline });
        let alarm = Alarm::begin(self.deadline);
        let mut failure = self.evaluate_kept().err();
        while failure.is_none() && self.course.whole() < self.parameters.train_epochs {
            if let Some(over) = self.course.over(self.parameters) {
                self.tell(over);
                break;
            }
            if self.course.whole() > 0 {
                interrupt::be_patient(); // there is a model to be written, even if a step takes seconds
            }
            failure = self.train_epoch(self.course.whole() + 1).err();
        }
        // A trained model, and snapshots that wait for a slow disk, are worth more than an end within a second.
        interrupt::acknowledge();
        let result = self.outcome(failure);
        drop(alarm);
        TrainingRun { epochs: self.course.epochs, result }
    }

    fn tell(&self, over: Over) {
        let Parameters { early_stopping, min_delta, target_accuracy, .. } = *self.parameters;
        let (split, epoch) = (self.dataset.watched().0, self.course.whole());
        match over {
            Over::Target => {
                info!(
                    "epoch {epoch}: target_accuracy {} is reached: its model is kept",
                    text::percent(target_accuracy)
                );
            }
            Over::EarlyStop => {
                let epochs = text::counted(early_stopping as usize, "epoch");
                let by = if min_delta > 0.0 { format!(" by more than min_delta {min_delta}") } else { String::new() };
                info!("epoch {epoch}: {split} loss not lower{by} for {epochs}: training ends, as early_stopping says");
            }
        }
    }

    /// The kept model with its evaluations; `failure` ended training.
    fn outcome(&mut self, failure: Option<Error>) -> Result<Trained> {
        let kept = self.course.kept(self.parameters).take_if(|kept| kept.evaluation.is_some());
        let Some(Kept { epoch, parameters, evaluation: Some(evaluation) }) = kept else {
            return Err(failure.unwrap_or_else(|| unreachable!("train_epochs is at least 1")));
        };
        let Images { classes, .. } = *self.dataset.train;
        let shape = MlpShape::new(self.dataset.train.inputs(), &self.parameters.hidden_layers, classes.len());
        let (watched, mut evaluations) = (evaluation.summary(), vec![evaluation]);
        let (mut parameters, mut calibration, mut unfinished) = (parameters, None, failure);
        if unfinished.is_none() && self.dataset.validation.is_some() {
            match self.finish(&shape, &parameters) {
                Ok((calibrated, scores, how)) => (parameters, evaluations, calibration) = (calibrated, scores, how),
                Err(error) => unfinished = Some(error),
            }
        }
        let model = Model {
            shape,
            parameters,
            data: self.dataset.provenance.source.id().into(),
            unfinished: unfinished
                .is_some()
                .then(|| Unfinished { epochs: self.course.whole(), of: self.parameters.train_epochs }),
        };
        Ok(Trained { model, epoch, watched, evaluations, calibration, unfinished })
    }

    /// Calibrates `parameters` on the validation split, and scores them there and on the test set.
    fn finish(
        &mut self,
        shape: &MlpShape,
        parameters: &[f32],
    ) -> Result<(Vec<f32>, Vec<Evaluation>, Option<Calibration>)> {
        let (deadline, (split, validation), test) = (self.deadline, self.dataset.watched(), &self.dataset.test);
        let temperature = calibration::temperature(shape, parameters, validation, || deadline::check(deadline))?;
        let score = |parameters: &[f32], split, images: &Images| -> Result<Evaluation> {
            let logits = logits(choice::network(shape, parameters)?.as_mut(), &images.pixels, images.inputs(), || {
                deadline::check(deadline)
            })?;
            Ok(Evaluation::new(split, logits, &images.labels, images.classes.len()))
        };
        let calibration = match temperature {
            Some(temperature) => {
                let error_before = score(parameters, TEST, test)?.score.calibration_error;
                info!(
                    "calibration: logits divided by {temperature:.3}, as the {split} set asks for; before, the confidence \
                     on the test set was off by {} on average",
                    text::percent(error_before)
                );
                Some(Calibration { temperature, error_before })
            }
            None => None,
        };
        let parameters = match calibration {
            Some(Calibration { temperature, .. }) => calibration::divided(shape, parameters, temperature),
            None => parameters.to_vec(),
        };
        let scores = vec![score(&parameters, split, validation)?, self.evaluate_as(&parameters, TEST, test, None)?];
        Ok((parameters, scores, calibration))
    }

    /// Evaluates the model that was kept before, which a snapshot holds without its answers.
    fn evaluate_kept(&mut self) -> Result<()> {
        let unscored = self.course.kept(self.parameters).take_if(|kept| kept.evaluation.is_none());
        let Some(Kept { epoch, parameters, .. }) = unscored else { return Ok(()) };
        let (split, images) = self.dataset.watched();
        let evaluation = self.evaluate_as(&parameters, split, images, None).inspect_err(|_| {
            warn!("no model is written: that of the snapshot is not evaluated yet, which stays for the next --resume");
        })?;
        *self.course.kept(self.parameters) = Some(Kept { epoch, parameters, evaluation: Some(evaluation) });
        Ok(())
    }

    fn train_epoch(&mut self, epoch: u32) -> Result<()> {
        let (epochs, images) = (self.parameters.train_epochs, self.dataset.train.len());
        self.listener.on(RunEvent::EpochStarted { epoch, epochs, images });
        let order = dataset::epoch_order(self.parameters.seed, u64::from(epoch - 1), images);
        let begin = Instant::now();
        self.set_images(epoch)?;
        let totals = self.take_steps(&order)?;
        let seconds = begin.elapsed().as_secs_f64();
        self.listener.on(RunEvent::EpochTrained { epoch });

        let loss = totals.loss_sum / totals.images as f64;
        check_finite(epoch, "the loss", loss)?;
        let (split, images) = self.dataset.watched();
        let (evaluation, parameters) = match self.course.average.clone() {
            None => {
                let evaluation = evaluate(self.trainer, split, images, Some(epoch), self.deadline, self.listener)?;
                (evaluation, self.trainer.parameters()?)
            }
            Some(average) => (self.evaluate_as(&average, split, images, Some(epoch))?, average),
        };
        let infinite = parameters.iter().find(|parameter| !parameter.is_finite());
        infinite.map_or(Ok(()), |&parameter| check_finite(epoch, "a weight", parameter.into()))?;
        // Before the epoch counts: nothing after that may fail, or a file would lack what another has.
        let state = self.recorder.is_some().then(|| self.trainer.state()).transpose()?;
        let schedule = self.parameters.schedule(order.len());
        self.course.epochs.push(EpochRecord {
            epoch,
            loss,
            accuracy: totals.correct as f64 / totals.images as f64,
            seconds,
            images_per_second: totals.images as f64 / seconds,
            learning_rate: schedule.rate(u64::from(epoch) * order.len().div_ceil(self.parameters.batch_size) as u64),
            splits: vec![evaluation.summary()],
            finished: SystemTime::now(),
        });
        self.course.add(Kept { epoch, parameters, evaluation: Some(evaluation) }, self.parameters);
        if let (Some(recorder), Some(state)) = (&mut self.recorder, state) {
            recorder.epoch_done(state, &self.course);
        }
        let record = &self.course.epochs[self.course.epochs.len() - 1];
        self.listener.on(RunEvent::EpochFinished { epochs, record });
        Ok(())
    }

    /// Gives the trainer the distorted images of `epoch`, and begins with those of the next.
    fn set_images(&mut self, epoch: u32) -> Result<()> {
        let Some(augmenter) = &mut self.augmenter else { return Ok(()) };
        let images = augmenter.images(u64::from(epoch - 1));
        interrupt::check()?; // which may have left some as they were
        self.trainer.set_images(images)?;
        if epoch < self.parameters.train_epochs {
            augmenter.go_ahead(u64::from(epoch));
        }
        Ok(())
    }

    /// The steps of an epoch over the images of `order`. Some at a time, if the weights are averaged.
    fn take_steps(&mut self, order: &[u32]) -> Result<EpochTotals> {
        let Parameters { batch_size, ema, .. } = *self.parameters;
        let at_once = if ema > 0.0 { batch_size.saturating_mul(average::INTERVAL) } else { order.len() };
        let mut totals = EpochTotals::default();
        for images in order.chunks(at_once.max(1)) {
            let before = totals;
            totals += self.trainer.train_epoch(images, &mut |progress: Progress| {
                self.listener.on(RunEvent::Progress(before.and(progress)));
                deadline::check(self.deadline)
            })?;
            if ema > 0.0 {
                let parameters = self.trainer.parameters()?;
                average::update(&mut self.course.average, &parameters, ema, images.len().div_ceil(batch_size));
            }
        }
        Ok(totals)
    }

    /// Evaluates the network with `parameters` (P) in place of those in training.
    fn evaluate_as(
        &mut self,
        parameters: &[f32],
        split: &'static str,
        images: &Images,
        epoch: Option<u32>,
    ) -> Result<Evaluation> {
        let mut state = self.trainer.state()?;
        let own = std::mem::replace(&mut state.parameters, parameters.to_vec());
        self.trainer.load_state(&state)?;
        let evaluation = evaluate(self.trainer, split, images, epoch, self.deadline, self.listener);
        state.parameters = own;
        let restored = self.trainer.load_state(&state);
        evaluation.and_then(|evaluation| restored.map(|()| evaluation))
    }
}

/// About how many bytes averages, the best model, snapshots and the calibration on so many `validation` images take at most,
/// besides the engine's own memory. A training that is `resumed` may have to evaluate the model that its snapshot keeps.
pub fn memory(parameters: &Parameters, recipe: &Recipe, validation: usize, resumed: bool) -> u64 {
    let state = 1 + recipe.optimizer.slots().len();
    let [average, best, snapshots] =
        [parameters.ema > 0.0, parameters.keep == Keep::Best, parameters.snapshots > 0].map(usize::from);
    // The state makes room in an evaluation for the average, the model that is kept, or at last the calibrated one.
    let evaluation = match validation {
        0 if average + best > 0 || resumed => state + 1,
        0 => 0,
        _ => state + 2,
    };
    // One snapshot is being written, one waits, and one is kept that was not due; the next state is read beside it.
    let unwritten = usize::from(parameters.snapshots > 1) * state;
    let blocks = 2 * (average + best) + evaluation + 3 * snapshots * (state + average + best) + unwritten;
    let calibration = calibration::memory(recipe.ensemble, recipe.shape.classes(), validation);
    (blocks * size_of::<f32>() * recipe.parameter_count()) as u64 + calibration
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::evaluation::EVALUATED_AT_ONCE;
    use super::*;
    use crate::data::dataset::Provenance;
    use crate::data::sets::{DataSource, SYNTHETIC};
    use crate::engine::{EngineInfo, Network, Report, TrainingState};
    use crate::output::event::Listeners;

    /// A trainer whose answers and losses are finite. After an epoch its state cannot be read if it is `interrupted`.
    struct Stub {
        parameters: Vec<f32>,
        interrupted: bool,
    }

    impl Network for Stub {
        fn info(&self) -> EngineInfo {
            let [backend, instruction_set] = ["none", "none"].map(String::from);
            EngineInfo { engine: "stub", device: "none", gpus: 0, backend, instruction_set, threads: 1 }
        }
        fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
            Ok(vec![0.0; pixels.len() / 784 * 10])
        }
    }

    impl Trainer for Stub {
        fn train_epoch(&mut self, _: &[u32], _: &mut Report) -> Result<EpochTotals> {
            Ok(EpochTotals { images: 1, loss_sum: 1.0, correct: 0 })
        }
        fn set_images(&mut self, _: Arc<Images>) -> Result<()> {
            Ok(())
        }
        fn state(&mut self) -> Result<TrainingState> {
            if self.interrupted {
                return Err(Error::Interrupted { signal: 15 });
            }
            Ok(TrainingState { parameters: self.parameters()?, slots: vec![], step: 1 })
        }
        fn parameters(&mut self) -> Result<Vec<f32>> {
            Ok(self.parameters.clone())
        }
        fn load_state(&mut self, _: &TrainingState) -> Result<()> {
            Ok(())
        }
    }

    const INTERRUPTED: Stub = Stub { parameters: vec![], interrupted: true };

    /// A data set of `images` black images.
    fn dataset(images: usize) -> Dataset {
        let side = 28;
        let images =
            Images { side, classes: SYNTHETIC.classes, pixels: vec![0; side * side * images], labels: vec![0; images] };
        let source = DataSource(None);
        let (train_images, test_images) = (images.len(), images.len());
        let provenance = Provenance { source, train_images, validation_images: 0, test_images, files: vec![] };
        Dataset { train: Arc::new(images.clone()), validation: None, test: images, provenance }
    }

    #[test]
    fn an_epoch_counts_only_if_its_state_is_known() {
        struct Counter(usize);
        impl Listener for Counter {
            fn on(&mut self, event: RunEvent) {
                self.0 += usize::from(matches!(event, RunEvent::EpochFinished { .. }));
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let parameters = Parameters { snapshots: 1, ..Parameters::default() };
        let dataset = dataset(1);
        let optimizer = parameters.recipe(&dataset.train).optimizer;
        let (data, engine) = (&dataset.provenance, INTERRUPTED.info());
        let mut recorder = Recorder::new(dir.path(), None, &parameters, data, &optimizer, engine, None).unwrap();
        let mut listener = Counter(0);
        let training = Training {
            parameters: &parameters,
            dataset: &dataset,
            trainer: &mut { INTERRUPTED },
            augmenter: None,
            listener: &mut listener,
            course: Course::default(),
            deadline: None,
            recorder: recorder.as_mut(),
        };
        let run = training.run();
        assert!(matches!(run.result, Err(Error::Interrupted { signal: 15 })));
        assert_eq!((run.epochs.len(), listener.0), (0, 0));
    }

    #[test]
    fn an_evaluation_hears_the_time_limit_and_gives_the_same_answers_with_one() {
        let images = dataset(EVALUATED_AT_ONCE + 1).test;
        let mut nobody = Listeners(vec![]);
        let mut limited = |seconds: Option<f64>| {
            let deadline = seconds.map(|seconds| Deadline::after(Instant::now(), seconds));
            evaluate(&mut { INTERRUPTED }, TEST, &images, None, deadline, &mut nobody)
        };
        assert!(matches!(limited(Some(0.0)), Err(Error::OutOfTime { seconds: 0.0 })));
        assert_eq!(limited(Some(1e300)).unwrap(), limited(None).unwrap());
    }

    #[test]
    fn a_weight_that_is_nan_ends_the_training_even_if_the_loss_is_finite() {
        let dataset = dataset(1);
        let training = Training {
            parameters: &Parameters::default(),
            dataset: &dataset,
            trainer: &mut Stub { parameters: vec![1.0, f32::NAN], interrupted: false },
            augmenter: None,
            listener: &mut Listeners(vec![]),
            course: Course::default(),
            deadline: None,
            recorder: None,
        };
        let error = training.run().result.unwrap_err().to_string();
        assert_eq!(error, "training diverged: a weight of epoch 1 is NaN");
    }

    #[test]
    fn a_target_that_ended_the_training_counts_as_reached_whatever_the_last_score_says() {
        let mut dataset = dataset(200);
        dataset.split(0.5).unwrap();
        let parameters = Parameters { target_accuracy: 0.9, hidden_layers: vec![], ..Parameters::default() };
        // A network that takes all images for ones, where the trainer answers that they are zeros, and is right.
        let shape = parameters.recipe(&dataset.train).shape;
        let mut weights = vec![0.0; shape.parameter_count()];
        weights[shape.layers()[0].biases.start + 1] = 1.0;
        let training = Training {
            parameters: &parameters,
            dataset: &dataset,
            trainer: &mut Stub { parameters: weights, interrupted: false },
            augmenter: None,
            listener: &mut Listeners(vec![]),
            course: Course::default(),
            deadline: None,
            recorder: None,
        };
        let trained = training.run().result.unwrap();
        assert_eq!((trained.epoch, trained.evaluations[0].score.accuracy), (1, 0.0));
        assert_eq!(trained.target_reached(&parameters), Some(true));
    }
}
