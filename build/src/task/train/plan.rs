//! The plan of a training: everything that can fail before the first step is checked here, and the engine is built.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use crate::cli::Train;
use crate::data::augment::augmenter::Augmenter;
use crate::data::dataset::{Dataset, Images, Provenance};
use crate::engine::choice::{self, Chosen};
use crate::engine::{self, EngineInfo, Recipe, Trainer, TrainingState};
use crate::error::{self, Error, Result};
use crate::files::lies_in;
use crate::files::lock::DirectoryLock;
use crate::memory;
use crate::model::MlpShape;
use crate::model::file::{self as model_file, Model};
use crate::optim::ScheduleKind;
use crate::output::artifacts;
use crate::output::console;
use crate::output::finished::InitialModel;
use crate::output::unfinished::UnfinishedDirectory;
use crate::parameters::{Parameters, Setting};
use crate::simd::{InstructionSet, Precision};
use crate::text;
use crate::threads;
use crate::training::course::Course;
use crate::training::recorder::Recorder;
use crate::training::snapshot::Snapshot;
use crate::training::{self, average, snapshots};
use crate::workspace;

/// The memory of the program without data and network.
const PROGRAM_BYTES: u64 = 18_000_000;

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
    /// Where they go if they cannot go there.
    pub log_dir: PathBuf,
    /// Keeps other trainings out of MODEL_DIR; none where the file system has no locks.
    pub lock: Option<Arc<DirectoryLock>>,
    /// Where the files of an unfinished training go if a finished model stands in MODEL_DIR.
    pub unfinished: UnfinishedDirectory,
    /// When the task began.
    pub begin: Begin,
}

/// A moment.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// By the clock that people read.
    pub time: SystemTime,
    /// By the one that never jumps.
    pub instant: Instant,
}

impl Begin {
    /// This moment.
    pub fn now() -> Self {
        Self { time: SystemTime::now(), instant: Instant::now() }
    }

    /// Seconds since then.
    pub fn seconds(self) -> f64 {
        self.instant.elapsed().as_secs_f64()
    }
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
    InstructionSet::choose()?; // whatever trains, the last scores and distorted images are the processor's
    let parameters = workspace_parameters(&args.parameters_file, &args.overrides.0)?;
    let mut used = Parameters { threads: engine::threads(parameters.threads), ..parameters.clone() };
    threads::limit(used.threads);
    let model_dir = artifacts::open(&args.model_dir)?;
    model_dir.check(artifacts::names())?;
    let lock = if model_dir.is(&args.log_dir) { log_lock } else { model_dir.lock()?.map(Arc::new) };
    let unfinished = UnfinishedDirectory::of(model_dir.path())?;
    let mut dataset = data()?;
    dataset.split(parameters.validation)?;
    announce_data(&dataset.provenance);
    warn_of_odd(&parameters, dataset.train.len());
    let recipe = used.recipe(&dataset.train);
    let resumed = resumed(args, &used)?;
    let choice = resumed.as_ref().map_or_else(|| used.choice(), |(_, snapshot)| snapshot.choice(used.choice()));
    let train = if used.augmentation().is_some() { dataset.train.clone() } else { dataset.give_train() };
    let Chosen { choice, memory: needed } = choice::choose(&recipe, &choice, used.train_epochs, &train)?;
    (used.engine, used.device, used.gpus) = (choice.engine, choice.device.clone(), choice.gpus);
    announce_parameters(&used);
    if let Some((path, snapshot)) = &resumed {
        snapshot.check(path, &used, &dataset.provenance, &recipe)?;
        // A model in MODEL_DIR itself changes with every call.
        if let Some(given) = args.init.as_ref().filter(|given| !lies_in(given, &args.model_dir)) {
            snapshot.check_init(path, &initial_model(given)?.1)?;
        }
    }
    require_memory(needed, &used, &recipe, &dataset, train.pixels.len() as u64, resumed.is_some())?;
    let mut trainer = choice::build(&recipe, &choice, train)?;
    announce_engine(&trainer.info(), used.precision);
    let run = resumed.as_ref().map(|(_, snapshot)| snapshot.run.clone());
    let course = match (resumed, &args.init) {
        (Some((path, snapshot)), _) => go_on(&path, snapshot, &used, trainer.as_mut())?,
        (None, Some(given)) => begin_with(given, &recipe, trainer.as_mut())?,
        (None, None) => Course::default(),
    };
    let (data, optimizer) = (&dataset.provenance, &recipe.optimizer);
    let recorder = Recorder::new(&args.model_dir, run, &used, data, optimizer, trainer.info(), lock.clone())?;
    let (model_dir, log_dir) = (args.model_dir.clone(), args.log_dir.clone());
    let augmenter = augmenter(&used, &dataset.train, trainer.info().threads)?;
    Ok(Plan {
        parameters,
        used,
        dataset,
        trainer,
        augmenter,
        course,
        recorder,
        model_dir,
        log_dir,
        lock,
        unfinished,
        begin,
    })
}

/// Checks that there is memory for all that a training takes besides the engine, before the engine takes what it `needed` with
/// its `images`, and says how much that is together.
fn require_memory(
    needed: u64,
    parameters: &Parameters,
    recipe: &Recipe,
    dataset: &Dataset,
    images: u64,
    resumed: bool,
) -> Result<()> {
    let available = memory::available();
    let distorted = parameters.augmentation().map_or(0, |_| Augmenter::memory(&dataset.train));
    let validation = dataset.validation.as_ref().map_or(0, Images::len);
    let extra = training::memory(parameters, recipe, validation, resumed) + distorted;
    let left = available.map(|left| left.saturating_sub(needed - images));
    memory::require_of(left, extra, "distorted images, averages, the best model, snapshots and the calibration")?;
    // When the files are made, the engine has given back its memory and the images that it got.
    let kept = dataset.train.pixels.len() as u64;
    let files = artifacts::memory(recipe.parameter_count());
    memory::require_of(available.map(|left| left + images - kept), files, error::FILES)?;
    let others = dataset.splits().skip(1).map(|(_, images)| images.pixels.len() as u64).sum::<u64>();
    info!("memory: about {}", text::bytes(PROGRAM_BYTES + others + (needed + extra).max(files + kept)));
    Ok(())
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

/// Whether a training that comes to its end takes the place of the model at `path`, which stands in `model_dir`, or unfinished
/// in there.
pub fn replaces(model_dir: &Path, path: &str) -> bool {
    let own = model_file::directory_of(Path::new(path));
    let same = |directory: &Path| lies_in(own, directory) && lies_in(directory, own);
    same(model_dir) || same(&model_dir.join(model_file::UNFINISHED))
}

/// The snapshot to go on from, and its path.
fn resumed(args: &Train, parameters: &Parameters) -> Result<Option<(PathBuf, Snapshot)>> {
    let model_dir = &args.model_dir;
    if !args.resume {
        if snapshots::exist(model_dir) {
            let what_happens = match parameters.snapshots {
                0 => "they are kept, and --resume with the same parameters goes on from the newest",
                _ => "they are kept, but for those of the same epochs: these are replaced",
            };
            warn!("{}: holds snapshots of an earlier training; {what_happens}", model_dir.display());
        }
        return Ok(None);
    }
    let found = snapshots::newest(model_dir)?;
    if found.is_none() {
        let next = if parameters.snapshots == 0 { "; --snapshots=1 takes one after every epoch" } else { "" };
        warn!("{}: has no snapshot: training begins anew{next}", model_dir.display());
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
    let is_over = epoch == epochs || course.over(parameters).is_some();
    if let Some(before) = course.reached_before(parameters).filter(|_| !is_over) {
        warn!(
            "target_accuracy: epoch {before} reached it already, where an undisturbed training ends: this one ends when \
             another epoch does"
        );
    }
    if is_over {
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

fn announce_data(data: &Provenance) {
    let validation = match data.validation_images {
        0 => String::new(),
        images => format!(", {images} validation"),
    };
    let (source, train, test) = (data.source.description(), data.train_images, data.test_images);
    info!("data: {source}, {train} training{validation} and {test} test images");
    for file in &data.files {
        info!(target: console::LOG, "{}: SHA-256 {}", file.name, file.sha256);
    }
    if let Some(original) = data.source.stands_in_for() {
        warn!("this is the synthetic stand-in: nothing trained on it says anything about {}", original.title);
    }
}

fn announce_parameters(parameters: &Parameters) {
    for line in parameters.to_yaml().replace("\n- ", " ").lines() {
        info!(target: console::LOG, "parameter {line}");
    }
    if let Some(warning) = parameters.optimizer.warning(&parameters.optimizer_options()) {
        warn!("{warning}");
    }
}

fn announce_engine(engine: &EngineInfo, precision: Precision) {
    info!(
        "engine: {} on {} ({}, {}), {}",
        engine.engine,
        engine.device,
        engine.backend,
        engine.instruction_set,
        text::counted(engine.threads, "thread")
    );
    // Those without a unit for products of bf16 numbers.
    let is_plain = InstructionSet::available().iter().any(|set| set.name() == engine.instruction_set);
    if precision == Precision::Bf16 && is_plain {
        warn!("precision: {} has no products of bf16 numbers: --precision=float32 is faster", engine.instruction_set);
    }
}
