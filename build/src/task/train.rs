//! `mnist train`: checks everything that can fail, trains, and writes the files of [`artifacts::ALL`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use crate::cli::Train;
use crate::data::augment::augmenter::Augmenter;
use crate::data::dataset::{Dataset, Images, Provenance};
use crate::engine::choice::{self, Chosen};
use crate::engine::{self, Recipe, Trainer, TrainingState};
use crate::error::{self, Error, Result};
use crate::files::OutputDirectory;
use crate::files::lock::DirectoryLock;
use crate::interrupt;
use crate::memory;
use crate::model::MlpShape;
use crate::model::file::{self as model_file, Model};
use crate::optim::ScheduleKind;
use crate::output::artifacts::{self, Written};
use crate::output::console::{self, Console};
use crate::output::event::{Evaluation, Listener, Listeners, RunEvent};
use crate::output::finished::{Finished, InitialModel, training_seconds};
use crate::output::logs::with_logs;
use crate::output::names;
use crate::output::tensorboard::EventFiles;
use crate::output::unfinished::UnfinishedDirectory;
use crate::parameters::{Parameters, Setting};
use crate::sha256;
use crate::simd::tile::TileUnit;
use crate::simd::{InstructionSet, Precision};
use crate::task::verdict;
use crate::text;
use crate::threads;
use crate::training::course::Course;
use crate::training::recorder::Recorder;
use crate::training::snapshot::Snapshot;
use crate::training::snapshots;
use crate::training::{self, Deadline, Training, average};
use crate::workspace;

/// The memory of the program without data and network.
const PROGRAM_BYTES: u64 = 15_000_000;

/// A training run before its first step, with everything checked.
pub struct Plan {
    /// The parameters as they were asked for.
    pub parameters: Parameters,
    /// The same without any `auto` in them.
    pub used: Parameters,
    /// The data set.
    pub dataset: Dataset,
    /// The engine, built for them; it stands where `course` does.
    pub trainer: Box<dyn Trainer>,
    /// Distorts the training images, if the parameters say so.
    pub augmenter: Option<Augmenter>,
    /// The epochs so far.
    pub course: Course,
    /// Takes snapshots, if they are asked for.
    pub recorder: Option<Recorder>,
    /// Where the files go.
    pub model_dir: PathBuf,
    /// Keeps other trainings out of MODEL_DIR; none where the file system has no locks.
    pub lock: Option<Arc<DirectoryLock>>,
    /// Where the files of an unfinished training go if a finished model stands in MODEL_DIR.
    pub unfinished: UnfinishedDirectory,
    /// When the task began.
    pub begin: Begin,
}

/// A moment, by the clock that people read and by the one that never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    time: SystemTime,
    instant: Instant,
}

impl Begin {
    /// This moment.
    pub fn now() -> Self {
        Self { time: SystemTime::now(), instant: Instant::now() }
    }

    /// Seconds since then.
    fn seconds(self) -> f64 {
        self.instant.elapsed().as_secs_f64()
    }
}

/// Runs the task and prints its results, also those of a training that was stopped or missed its target.
///
/// # Errors
/// See [`logged`]; the logs hold the reason too.
pub fn run(args: &Train, console: &Console) -> Result<()> {
    let mut results = String::new();
    let ended = logged(args, || Dataset::load(&args.data_dir), console, &mut results);
    console::print(&results)?;
    ended
}

/// Trains as `args` say on `data`, and sets `results` to a summary for people once the files are written, even if an error
/// follows. The log files of the task and its events for TensorBoard go into a LOG_DIR that no other training writes at the
/// same time.
///
/// # Errors
/// See [`prepare`] and [`carry_out`]; or another training writes there, or one of these files cannot be written.
pub fn logged(
    args: &Train,
    data: impl FnOnce() -> Result<Dataset>,
    console: &Console,
    results: &mut String,
) -> Result<()> {
    let mut log_dir = OutputDirectory::open(&args.log_dir)?;
    if log_dir.is(&args.model_dir) {
        log_dir = artifacts::open(&args.log_dir)?; // before it is locked
    }
    let lock = log_dir.lock()?.map(Arc::new);
    let ended = with_logs(console, &log_dir, "train", |listener| {
        let plan = prepare(args, data, lock.clone())?;
        // Not before: TensorBoard would show every mistake in the parameters as a run.
        let mut events = EventFiles::create(log_dir.path())?;
        carry_out(plan, &mut Listeners(vec![listener, &mut events]), results)?;
        events.close()
    });
    if !results.is_empty() {
        *results += &text::named_values(&[("logs", args.log_dir.display().to_string())]);
    }
    ended
}

/// A learning rate so many times the optimizer's default, or so small a part of it, is probably a mistake.
const ODD_FACTOR: f64 = 500.0;

/// Checks all that can fail before the first step, and builds the engine. `log_lock` is the lock of LOG_DIR.
///
/// # Errors
/// The parameters or the data are wrong, an output directory cannot be written or is another training's, or the device is
/// missing or fails.
pub fn prepare(
    args: &Train,
    data: impl FnOnce() -> Result<Dataset>,
    log_lock: Option<Arc<DirectoryLock>>,
) -> Result<Plan> {
    let begin = Begin::now();
    let parameters = workspace_parameters(&args.parameters_file, &args.overrides.0)?;
    let mut used = Parameters { threads: engine::threads(parameters.threads), ..parameters.clone() };
    threads::limit(used.threads);
    let model_dir = artifacts::open(&args.model_dir)?;
    model_dir.check(artifacts::names())?;
    let lock = if model_dir.is(&args.log_dir) { log_lock } else { model_dir.lock()?.map(Arc::new) };
    let unfinished = UnfinishedDirectory::of(model_dir.path())?;
    let mut dataset = data()?;
    dataset.split(parameters.validation)?;
    warn_of_odd(&parameters, dataset.train.len());
    let recipe = used.recipe(&dataset.train);
    let resumed = resumed(args, &used)?;
    let choice = resumed.as_ref().map_or_else(|| used.choice(), |(_, snapshot)| snapshot.choice(used.choice()));
    let (left, images) = (memory::available(), dataset.train.pixels.len() as u64);
    let train = if used.augmentation().is_some() { dataset.train.clone() } else { dataset.give_train() };
    let Chosen { mut trainer, choice, memory: needed } = choice::trainer(&recipe, &choice, used.train_epochs, train)?;
    (used.engine, used.device, used.gpus) = (choice.engine, choice.device, choice.gpus);
    announce(&used, &dataset.provenance, &trainer.info());
    let run = resumed.as_ref().map(|(_, snapshot)| snapshot.run.clone());
    let course = match (resumed, &args.init) {
        (Some((path, snapshot)), given) => {
            snapshot.check(&path, &used, &dataset.provenance, &recipe)?;
            // A model in MODEL_DIR itself changes with every call.
            if let Some(given) = given.as_ref().filter(|given| !is_within(given, &args.model_dir)) {
                snapshot.check_init(&path, &initial_model(given)?.1)?;
            }
            go_on(&path, snapshot, &used, trainer.as_mut())?
        }
        (None, Some(given)) => begin_with(given, &recipe, trainer.as_mut())?,
        (None, None) => Course::default(),
    };
    let (data, optimizer) = (&dataset.provenance, &recipe.optimizer);
    let recorder = Recorder::new(&args.model_dir, run, &used, data, optimizer, trainer.info(), lock.clone())?;
    let distorted = used.augmentation().map_or(0, |_| Augmenter::memory(&dataset.train));
    let validation = dataset.validation.as_ref().map_or(0, Images::len);
    let extra = training::memory(&used, &recipe, validation) + distorted;
    memory::require(extra, "distorted images, averages, the best model, snapshots and the calibration")?;
    // When the files are made, the engine has given back its memory and the images that it got.
    let kept = dataset.train.pixels.len() as u64;
    let files = artifacts::memory(recipe.parameter_count());
    memory::require_of(left.map(|left| left + images - kept), files, error::FILES)?;
    let others = dataset.splits().skip(1).map(|(_, images)| images.pixels.len() as u64).sum::<u64>();
    info!("memory: about {}", text::bytes(PROGRAM_BYTES + others + (needed + extra).max(files + kept)));
    let model_dir = args.model_dir.clone();
    let augmenter = augmenter(&used, &dataset.train, trainer.info().threads)?;
    Ok(Plan { parameters, used, dataset, trainer, augmenter, course, recorder, model_dir, lock, unfinished, begin })
}

/// Says which parameters hardly make sense for so many training `images`, though they can be used.
fn warn_of_odd(parameters: &Parameters, images: usize) {
    let Parameters { batch_size, learning_rate, optimizer, ema, train_epochs, .. } = *parameters;
    let steps = images.div_ceil(batch_size);
    if ema > 0.0 && train_epochs == 1 && steps <= average::INTERVAL {
        warn!(
            "ema: {} changes nothing in {} of training: the average begins with the weights after {} steps, or after the \
             first epoch if it has fewer",
            text::number(ema),
            text::counted(steps, "step"),
            average::INTERVAL
        );
    }
    if batch_size > images {
        warn!(
            "batch_size: {batch_size} is more than the {} training images: an epoch is one step",
            text::grouped(images)
        );
    }
    let usual = optimizer.default_learning_rate();
    if !(usual / ODD_FACTOR..=usual * ODD_FACTOR).contains(&learning_rate) {
        let (found, usual, optimizer) = (text::number(learning_rate), text::number(usual), optimizer.name());
        warn!("learning_rate: {found} is far from the {usual} that {optimizer} has by default: it may learn nothing");
    }
}

/// The parameters in `file` and `flags`. The workspace's file may be missing: then all others have their defaults.
fn workspace_parameters(file: &Path, flags: &[Setting]) -> Result<Parameters> {
    if file == Path::new(workspace::PARAMETERS) && !file.exists() {
        info!("{}: not there, so defaults are used", file.display());
        return Parameters::of_flags(flags);
    }
    Parameters::read(file, flags)
}

/// What distorts the images of `train` while an engine trains with `threads` threads.
fn augmenter(parameters: &Parameters, train: &Arc<Images>, threads: usize) -> Result<Option<Augmenter>> {
    let Some(augmentation) = parameters.augmentation() else { return Ok(None) };
    let free = parameters.threads.saturating_sub(threads);
    let set = InstructionSet::choose()?;
    Ok(Some(Augmenter::new(augmentation, parameters.seed, train.clone(), set, [parameters.threads, free])))
}

/// Whether `path`, which may not exist, is `directory` or in it.
fn is_within(path: &Path, directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    path.starts_with(directory) || real(path).starts_with(real(directory))
}

/// The snapshot to go on from, and its path.
fn resumed(args: &Train, parameters: &Parameters) -> Result<Option<(PathBuf, Snapshot)>> {
    let model_dir = &args.model_dir;
    if !args.resume {
        if snapshots::exist(model_dir) {
            let what_happens = match parameters.snapshots {
                0 => "they are kept, and --resume would use the newest",
                _ => "they are kept, but for those of the same epochs: these are replaced",
            };
            warn!("{}: holds snapshots of an earlier training; {what_happens}", model_dir.display());
        }
        return Ok(None);
    }
    let found = snapshots::newest(model_dir)?;
    if found.is_none() {
        info!("{}: has no snapshot: training begins anew", model_dir.display());
    }
    Ok(found)
}

/// Brings `trainer` to where `snapshot`, read from `path`, was taken.
fn go_on(path: &Path, snapshot: Snapshot, parameters: &Parameters, trainer: &mut dyn Trainer) -> Result<Course> {
    let (epoch, epochs) = (snapshot.epoch(), parameters.train_epochs);
    let before = &snapshot.parameters["train_epochs"];
    let rates_change =
        parameters.schedule != ScheduleKind::Constant || 0.0 < parameters.warmup && parameters.warmup < 1.0;
    if *before != epochs && rates_change {
        warn!(
            "train_epochs: {epochs} instead of {before} changes the learning rates from here on: the model will differ from \
             that of an undisturbed training of {epochs} epochs"
        );
    }
    let instruction_set = trainer.info().instruction_set;
    if let Some(before) = snapshot.instruction_set.as_ref().filter(|before| **before != instruction_set) {
        warn!(
            "the instruction set is {instruction_set}, before it was {before}: the model will differ a little from that of an \
             undisturbed training"
        );
    }
    let (gpus, before) = (trainer.info().gpus, snapshot.gpus());
    if gpus > 0 && gpus != before {
        warn!(
            "gpus: {gpus} instead of {before} rounds otherwise: the model will differ a little from that of an undisturbed \
             training"
        );
    }
    let (state, course) = snapshot.into_course();
    if let Some(before) = course.reached_before(parameters) {
        warn!(
            "target_accuracy: epoch {before} reached it already, where an undisturbed training ends: this one ends when \
             another epoch does"
        );
    }
    if epoch == epochs || course.over(parameters).is_some() {
        info!("{}: training was finished already, after epoch {epoch} of {epochs}", path.display());
    } else {
        info!("{}: training goes on after epoch {epoch} of {epochs}", path.display());
    }
    trainer.load_state(&state).map(|()| course)
}

/// The model at `path`, which is a directory or the file in it, for a training to begin with.
fn initial_model(path: &Path) -> Result<(Model, InitialModel)> {
    let directory = model_file::directory_of(path);
    let (model, sha256) = model_file::load_hashed(directory)?;
    Ok((model, InitialModel { path: directory.join(model_file::FILE_NAME).display().to_string(), sha256 }))
}

/// Gives `trainer` the weights of the model at `path`.
fn begin_with(path: &Path, recipe: &Recipe, trainer: &mut dyn Trainer) -> Result<Course> {
    let (model, init) = initial_model(path)?;
    let described = |shape: &MlpShape, networks: usize| match networks {
        1 => format!("layers {:?}", shape.widths()),
        _ => format!("{networks} networks of layers {:?}", shape.widths()),
    };
    let expected = described(&recipe.shape, recipe.ensemble);
    let found = described(&model.shape, model.members().len());
    if expected != found {
        return Err(Error::OtherNetwork { path: init.path.into(), expected, found });
    }
    trainer.load_state(&TrainingState::new(&recipe.optimizer, model.parameters))?;
    info!("{}: training begins with the weights of this model", init.path);
    info!(target: console::LOG, "{}: SHA-256 {}", init.path, init.sha256);
    Ok(Course { init: Some(init), ..Course::default() })
}

/// Trains as planned, writes the files, and sets `results` to a summary for people. MODEL_DIR is touched only after the last epoch.
///
/// # Errors
/// Training failed, see [`training::TrainingRun`], or a file cannot be written, or the target accuracy was not reached.
/// What ends training after the first epoch, a signal or a device that fails, leaves the files of an unfinished training.
pub fn carry_out(mut plan: Plan, listener: &mut dyn Listener, results: &mut String) -> Result<()> {
    let images: Vec<_> = plan.dataset.splits().map(|(split, images)| (split, images.len())).collect();
    listener.on(RunEvent::Data { source: plan.dataset.provenance.source, images: &images });
    listener.on(RunEvent::Parameters(&plan.used));
    listener.on(RunEvent::RunStarted);
    let (before, init) = (plan.course.epochs.len(), plan.course.init.clone());
    let training = Training {
        parameters: &plan.used,
        dataset: &plan.dataset,
        trainer: plan.trainer.as_mut(),
        augmenter: plan.augmenter,
        listener,
        course: plan.course,
        deadline: (plan.used.max_seconds > 0.0).then(|| Deadline::after(plan.begin.instant, plan.used.max_seconds)),
        recorder: plan.recorder.as_mut(),
    };
    let run = training.run();
    // A trained model, and snapshots that wait for a slow disk, are worth more than an end within a second.
    interrupt::acknowledge();
    let engine = plan.trainer.info();
    drop(plan.trainer); // the files take memory too
    let trained = run.result?;
    let weights = model_file::encode(&trained.model);
    let finished = Finished {
        parameters: &plan.parameters,
        dataset: &plan.dataset,
        engine: &engine,
        init: init.as_ref(),
        epochs: &run.epochs,
        before,
        trained: &trained,
        model_sha256: &sha256::of(&weights),
        weights: &weights,
        began: plan.begin.time,
        seconds: plan.begin.seconds(),
    };
    let model_dir = &plan.model_dir;
    verdict::warn_of(&finished, model_dir);
    plan.recorder.iter_mut().for_each(Recorder::settle); // one that does not fit takes space until it fails
    let written = write_files(&finished, model_dir, plan.lock.as_deref(), plan.unfinished);
    // Even if they cannot be written: a training that goes on from the snapshot writes them.
    let snapshots = plan.recorder.map(Recorder::close);
    let snapshot = matches!(snapshots, Some(Ok(())));
    let mut failures = vec![];
    match written {
        Ok((directory, written)) => {
            if let Some(reason) = &trained.unfinished {
                listener.on(RunEvent::Unfinished { reason });
                verdict::tell_unfinished(&trained, reason, &directory, model_dir, snapshot);
            }
            *results = summary(&finished, &written.files);
            failures.extend(written.failure);
        }
        Err(failure) => {
            tell_unwritten(&failure, model_dir, plan.parameters.snapshots > 0, snapshot);
            failures.push(failure);
        }
    }
    failures.extend(snapshots.and_then(Result::err));
    failures.extend(verdict::of(&plan.parameters, trained).err());
    verdict::end(failures)
}

/// Says how to come to the files that `failure` kept from being written: from a `snapshot`, for which older ones may have to
/// give up their place in `model_dir` where the training `takes` some.
fn tell_unwritten(failure: &Error, model_dir: &Path, takes: bool, snapshot: bool) {
    let again = verdict::again_by_resume(model_dir);
    if snapshot {
        info!("the state of this training is in a snapshot: to write the files, {again}");
    }
    let problem = if let Error::Kept { problem, .. } = failure { problem } else { failure };
    let Error::Io { source, .. } = problem else { return };
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        && takes
        && snapshots::exist(model_dir)
    {
        let directory = model_dir.join(names::SNAPSHOTS);
        warn!("{}: takes space on that disk: move older snapshots elsewhere, then {again}", directory.display());
    }
}

/// Writes the files of `finished` into `model_dir`, or into `unfinished` if a finished model stands there and it is not.
///
/// # Errors
/// See [`artifacts::write_all`]; or `unfinished` cannot be used any more.
fn write_files(
    finished: &Finished,
    model_dir: &Path,
    lock: Option<&DirectoryLock>,
    unfinished: UnfinishedDirectory,
) -> Result<(PathBuf, Written)> {
    let state = finished.trained.model.unfinished;
    let beside = state.is_some() && artifacts::is_finished(model_dir);
    let unfinished = match beside {
        true => unfinished.make().map_err(|problem| artifacts::keep_all(finished, model_dir, problem))?,
        false => unfinished,
    };
    let (directory, lock) = if beside { (unfinished.path(), unfinished.lock()) } else { (model_dir, lock) };
    let written = artifacts::write_all(finished, directory, lock)?;
    if written.failure.is_some() {
        warn!("{}: holds the model, but not all files that are made from it", directory.display());
    }
    let directory = directory.to_path_buf();
    if state.is_none() {
        unfinished.remove().unwrap_or_else(|problem| warn!("{problem}"));
    }
    Ok((directory, written))
}

/// Names data, parameters and engine, and warns of settings that are probably a mistake.
fn announce(parameters: &Parameters, data: &Provenance, engine: &engine::EngineInfo) {
    let validation = match data.validation_images {
        0 => String::new(),
        images => format!(", {images} validation"),
    };
    let (source, train, test) = (data.source.description(), data.train_images, data.test_images);
    info!("data: {source}, {train} training{validation} and {test} test images");
    for file in &data.files {
        info!(target: console::LOG, "{}: SHA-256 {}", file.name, file.sha256);
    }
    for line in parameters.to_yaml().replace("\n- ", " ").lines() {
        info!(target: console::LOG, "parameter {line}");
    }
    info!(
        "engine: {} on {} ({}, {}), {}",
        engine.engine,
        engine.device,
        engine.backend,
        engine.instruction_set,
        text::counted(engine.threads, "thread")
    );
    if let Some(original) = data.source.stands_in_for() {
        warn!("this is the synthetic stand-in: nothing trained on it says anything about {}", original.title);
    }
    let unit = InstructionSet::choose_for(parameters.precision).map(InstructionSet::tile_unit);
    if parameters.precision == Precision::Bf16 && unit.is_ok_and(|unit| unit == TileUnit::VECTORS) {
        warn!("precision: {} has no products of bf16 numbers: float32 is faster", engine.instruction_set);
    }
    if let Some(warning) = parameters.optimizer.warning(&parameters.optimizer_options()) {
        warn!("{warning}");
    }
}

fn summary(finished: &Finished, files: &[(&str, PathBuf)]) -> String {
    let mut lines = String::new();
    for Evaluation { split, score, .. } in &finished.trained.evaluations {
        lines += &text::named_values(&[
            (&format!("{split} accuracy"), text::percent(score.accuracy)),
            (&format!("{split} loss"), format!("{:.4}", score.loss)),
        ]);
    }
    let (count, training, all) = (finished.epochs.len(), training_seconds(finished.epochs), finished.seconds);
    let epochs = match count - finished.before {
        now if now < count => format!("{count} in {training:.1} s, {now} of them now; this run {all:.1} s"),
        _ => format!("{count} in {training:.1} s, {all:.1} s with everything"),
    };
    lines += &text::named_values(&[("data", finished.dataset.provenance.source.description()), ("epochs", epochs)]);
    if finished.has_choice() {
        lines += &text::named_values(&[("kept", format!("the model of epoch {}", finished.trained.epoch))]);
    }
    let files: Vec<_> = files.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    lines + &text::named_values(&files)
}
