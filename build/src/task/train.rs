//! `mnist train`: checks everything that can fail, trains, and writes the files of [`artifacts::ALL`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::cli::Train;
use crate::data::dataset::{Dataset, Provenance};
use crate::engine::{self, Recipe, Trainer, TrainingState, choice};
use crate::error::{Error, Result};
use crate::files::OutputDirectory;
use crate::files::lock::DirectoryLock;
use crate::interrupt;
use crate::memory;
use crate::model::file as model_file;
use crate::optim::ScheduleKind;
use crate::output::artifacts::{self, Written};
use crate::output::console::{self, Console};
use crate::output::event::{Evaluation, Listener, Listeners, RunEvent};
use crate::output::finished::{Finished, training_seconds};
use crate::output::logs::with_logs;
use crate::output::names;
use crate::output::tensorboard::EventFiles;
use crate::output::unfinished::UnfinishedDirectory;
use crate::parameters::Parameters;
use crate::task::verdict;
use crate::text;
use crate::threads;
use crate::training::course::Course;
use crate::training::recorder::Recorder;
use crate::training::snapshot::Snapshot;
use crate::training::snapshots;
use crate::training::{self, Deadline, Training};

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

/// Runs the task and prints its results.
///
/// # Errors
/// See [`logged`]; the logs hold the reason too.
pub fn run(args: &Train, console: &Console) -> Result<()> {
    console::print(&logged(args, || Dataset::load(&args.data_dir), console)?)
}

/// Trains as `args` say on `data` and returns a summary for people. The log files of the task and its events for TensorBoard
/// go into a LOG_DIR that no other training writes at the same time.
///
/// # Errors
/// See [`prepare`] and [`carry_out`]; or another training writes there, or one of these files cannot be written.
pub fn logged(args: &Train, data: impl FnOnce() -> Result<Dataset>, console: &Console) -> Result<String> {
    let mut log_dir = OutputDirectory::open(&args.log_dir)?;
    if log_dir.is(&args.model_dir) {
        log_dir = artifacts::open(&args.log_dir)?; // before it is locked
    }
    let lock = log_dir.lock()?.map(Arc::new);
    with_logs(console, &log_dir, "train", |listener| {
        let plan = prepare(args, data, lock.clone())?;
        // Not before: TensorBoard would show every mistake in the parameters as a run.
        let mut events = EventFiles::create(log_dir.path())?;
        let summary = carry_out(plan, &mut Listeners(vec![listener, &mut events]))?;
        events.close()?;
        Ok(summary + &text::named_values(&[("logs", args.log_dir.display().to_string())]))
    })
}

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
    let parameters = Parameters::read(&args.parameters_file, &args.overrides.0)?;
    let mut used = Parameters { threads: engine::threads(parameters.threads), ..parameters.clone() };
    threads::limit(used.threads);
    let model_dir = artifacts::open(&args.model_dir)?;
    model_dir.check(artifacts::names())?;
    let lock = if model_dir.is(&args.log_dir) { log_lock } else { model_dir.lock()?.map(Arc::new) };
    let unfinished = UnfinishedDirectory::of(model_dir.path())?;
    let mut dataset = data()?;
    dataset.split(parameters.validation)?;
    let recipe = used.recipe(&dataset.train);
    let resumed = resumed(args, &used)?;
    let choice = resumed.as_ref().map_or_else(|| used.choice(), |(_, snapshot)| snapshot.choice(used.choice()));
    let (mut trainer, chosen) = choice::trainer(&recipe, &choice, used.train_epochs, &dataset.train)?;
    (used.engine, used.device) = (chosen.engine, chosen.device.clone());
    announce(&used, &dataset.provenance, &trainer.info());
    let run =
        resumed.as_ref().map_or_else(|| snapshots::new_run(&args.model_dir), |(_, snapshot)| snapshot.run.clone());
    let course = match (resumed, &args.init) {
        (Some((path, snapshot)), _) => {
            snapshot.check(&path, &used, &dataset.provenance, &recipe)?;
            go_on(&path, snapshot, &used, trainer.as_mut())?
        }
        (None, Some(directory)) => begin_with(directory, &recipe, trainer.as_mut())?,
        (None, None) => Course::default(),
    };
    let recorder = Recorder::new(&args.model_dir, run, &used, &dataset.provenance, &recipe.optimizer, lock.clone())?;
    let extra = training::memory(&used, &recipe);
    memory::require(extra, "averages, the best model and snapshots")?;
    let images = dataset.splits().map(|(_, images)| images.pixels.len() as u64).sum::<u64>();
    let engine = choice::memory(&recipe, &chosen, &dataset.train);
    info!("memory: about {}", text::bytes(PROGRAM_BYTES + images + engine + extra));
    let model_dir = args.model_dir.clone();
    Ok(Plan { parameters, used, dataset, trainer, course, recorder, model_dir, lock, unfinished, begin })
}

/// The snapshot to go on from, and its path.
fn resumed(args: &Train, parameters: &Parameters) -> Result<Option<(PathBuf, Snapshot)>> {
    let model_dir = &args.model_dir;
    if !args.resume {
        if snapshots::exist(model_dir) {
            let what_happens = match parameters.snapshots {
                0 => "which stay: --resume goes on from the newest",
                _ => "which stay, but for those of the same epochs: these are replaced",
            };
            warn!("{}: has snapshots of an earlier training, {what_happens}", model_dir.display());
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
    if snapshot.parameters["train_epochs"] != epochs && parameters.schedule != ScheduleKind::Constant {
        warn!("train_epochs is another than before: from here on the schedule is that of {epochs} epochs");
    }
    info!("{}: training goes on after epoch {epoch} of {epochs}", path.display());
    let (state, course) = snapshot.into_course();
    trainer.load_state(&state).map(|()| course)
}

/// Gives `trainer` the weights of the model in `directory`.
fn begin_with(directory: &Path, recipe: &Recipe, trainer: &mut dyn Trainer) -> Result<Course> {
    let model = model_file::load(directory)?;
    let (expected, found) = (recipe.shape.widths(), model.shape.widths());
    if expected != found {
        let path = directory.join(model_file::FILE_NAME);
        return Err(Error::OtherNetwork { path, expected: expected.into(), found: found.into() });
    }
    trainer.load_state(&TrainingState::new(&recipe.optimizer, model.parameters))?;
    info!("{}: training begins with the weights of the model there", directory.display());
    Ok(Course::default())
}

/// Trains as planned, writes the files, and returns a summary for people. MODEL_DIR is touched only after the last epoch.
///
/// # Errors
/// Training failed, see [`training::TrainingRun`], or a file cannot be written, or the target accuracy was not reached.
/// What ends training after the first epoch, a signal or a device that fails, leaves the files of an unfinished training.
pub fn carry_out(plan: Plan, listener: &mut dyn Listener) -> Result<String> {
    let Plan { parameters, used, dataset, mut trainer, course, mut recorder, model_dir, lock, unfinished, begin } =
        plan;
    let images: Vec<_> = dataset.splits().map(|(split, images)| (split, images.len())).collect();
    listener.on(RunEvent::Data { source: dataset.provenance.source, images: &images });
    listener.on(RunEvent::Parameters(&used));
    listener.on(RunEvent::RunStarted);
    let training = Training {
        parameters: &used,
        dataset: &dataset,
        trainer: trainer.as_mut(),
        listener,
        course,
        deadline: (used.max_seconds > 0.0).then(|| Deadline::after(begin.instant, used.max_seconds)),
        recorder: recorder.as_mut(),
    };
    let run = training.run();
    // A trained model, and snapshots that wait for a slow disk, are worth more than an end within a second.
    interrupt::acknowledge();
    let trained = run.result?;
    let weights = model_file::encode(&trained.model);
    let finished = Finished {
        parameters: &parameters,
        dataset: &dataset,
        engine: &trainer.info(),
        epochs: &run.epochs,
        trained: &trained,
        model_sha256: &text::hexadecimal(&Sha256::digest(&weights)),
        weights: &weights,
        began: begin.time,
        seconds: begin.seconds(),
    };
    verdict::warn_of(&finished, &model_dir);
    let mut failures = vec![];
    let files = match write_files(&finished, &model_dir, lock.as_deref(), unfinished) {
        Ok(written) => {
            if trained.unfinished.is_some() {
                listener.on(RunEvent::Unfinished);
            }
            failures.extend(written.failure);
            written.files
        }
        Err(failure) => {
            warn_of_full_disk(&failure, &model_dir);
            failures.push(failure);
            vec![]
        }
    };
    let summary = summary(&finished, &files);
    failures.extend(recorder.and_then(|recorder| recorder.close().err()));
    failures.extend(verdict::of(&parameters, trained).err());
    verdict::end(failures).map(|()| summary)
}

/// Says how to come to the model if snapshots have taken its place on the disk.
fn warn_of_full_disk(failure: &Error, model_dir: &Path) {
    let problem = if let Error::Kept { problem, .. } = failure { problem } else { failure };
    let Error::Io { source, .. } = problem else { return };
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) && snapshots::exist(model_dir)
    {
        let directory = model_dir.join(names::SNAPSHOTS);
        warn!(
            "{}: takes space on that disk: move older snapshots elsewhere, then train with --resume",
            directory.display()
        );
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
) -> Result<Written> {
    let state = finished.trained.model.unfinished;
    let beside = state.is_some() && artifacts::is_finished(model_dir);
    let unfinished = match beside {
        true => unfinished.make().map_err(|problem| artifacts::keep_all(finished, model_dir, problem))?,
        false => unfinished,
    };
    let (directory, lock) = if beside { (unfinished.path(), unfinished.lock()) } else { (model_dir, lock) };
    let written = artifacts::write_all(finished, directory, lock)?;
    if let Some(state) = state {
        warn!("{}: holds a model that is {state}", directory.display());
    }
    if beside {
        warn!("{}: still holds the finished model of before", model_dir.display());
    }
    if written.failure.is_some() {
        warn!("{}: holds the model, but not all files that are made from it", directory.display());
    }
    if state.is_none() {
        unfinished.remove().unwrap_or_else(|problem| warn!("{problem}"));
    }
    Ok(written)
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
    lines += &text::named_values(&[
        ("data", finished.dataset.provenance.source.description()),
        ("epochs", format!("{count} in {training:.1} s, {all:.1} s with everything")),
    ]);
    if finished.trained.epoch as usize != count {
        lines += &text::named_values(&[("kept", format!("the model of epoch {}", finished.trained.epoch))]);
    }
    let files: Vec<_> = files.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    lines + &text::named_values(&files)
}
