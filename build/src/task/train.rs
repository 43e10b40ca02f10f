//! `mnist train`: checks everything that can fail, trains, and writes the files of [`artifacts::ALL`].

use std::path::PathBuf;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::cli::Train;
use crate::data::dataset::{Dataset, Provenance, TRAIN};
use crate::engine::{self, Trainer, choice};
use crate::error::Result;
use crate::files::OutputDirectory;
use crate::files::lock::DirectoryLock;
use crate::interrupt;
use crate::model::file as model_file;
use crate::output::artifacts;
use crate::output::console::{self, Console};
use crate::output::event::{EpochRecord, Evaluation, Listener, Listeners, RunEvent};
use crate::output::finished::{Finished, training_seconds};
use crate::output::logs::with_logs;
use crate::output::tensorboard::EventFile;
use crate::parameters::Parameters;
use crate::text;
use crate::threads;
use crate::training;

/// The memory of the program without data and network.
const PROGRAM_BYTES: u64 = 15_000_000;

/// A training run before its first step, with everything checked.
pub struct Plan {
    /// The parameters; no `auto` is left in them.
    pub parameters: Parameters,
    /// The data set.
    pub dataset: Dataset,
    /// The engine, built for them.
    pub trainer: Box<dyn Trainer>,
    /// Where the files go.
    pub model_dir: PathBuf,
    /// Keeps other trainings out of MODEL_DIR, unless LOG_DIR is the same and locked already.
    pub lock: Option<DirectoryLock>,
    /// When the task began.
    pub begin: Instant,
}

/// Runs the task and prints its results.
///
/// # Errors
/// See [`train()`]; the logs hold the reason too.
pub fn run(args: &Train, console: &Console) -> Result<()> {
    console::print(&logged(args, || Dataset::load(&args.data_dir), console)?)
}

/// [`train()`] with the log files of the task and its events for TensorBoard, in a LOG_DIR that no other training writes
/// at the same time.
///
/// # Errors
/// See there, or another training writes there, or one of these files cannot be written.
pub fn logged(args: &Train, data: impl FnOnce() -> Result<Dataset>, console: &Console) -> Result<String> {
    let log_dir = OutputDirectory::open(&args.log_dir)?;
    let _lock = log_dir.lock()?;
    with_logs(console, &log_dir, "train", |listener| {
        let mut events = EventFile::create(log_dir.path())?;
        let summary = train(args, data, &mut Listeners(vec![listener, &mut events]))?;
        events.close()?;
        Ok(summary)
    })
}

/// Trains as `args` say on `data` and returns a summary for people.
///
/// # Errors
/// See [`prepare`] and [`carry_out`].
pub fn train(args: &Train, data: impl FnOnce() -> Result<Dataset>, listener: &mut dyn Listener) -> Result<String> {
    let summary = carry_out(prepare(args, data, listener)?, listener)?;
    Ok(summary + &text::named_values(&[("logs", args.log_dir.display().to_string())]))
}

/// Checks all that can fail before the first step, and builds the engine.
///
/// # Errors
/// The parameters or the data are wrong, an output directory cannot be written or is another training's, or the device is
/// missing or fails.
pub fn prepare(args: &Train, data: impl FnOnce() -> Result<Dataset>, listener: &mut dyn Listener) -> Result<Plan> {
    let begin = Instant::now();
    let mut parameters = Parameters::read(&args.parameters_file, &args.overrides.0)?;
    parameters.threads = engine::threads(parameters.threads);
    threads::limit(parameters.threads);
    let model_dir = OutputDirectory::open(&args.model_dir)?;
    model_dir.check(artifacts::names())?;
    let lock = if model_dir.is(&args.log_dir) { None } else { model_dir.lock()? };
    let dataset = data()?;
    let recipe = parameters.recipe(dataset.train.inputs(), dataset.train.classes.len());
    let (trainer, chosen) = choice::trainer(&recipe, &parameters.choice(), parameters.train_epochs, &dataset.train)?;
    (parameters.engine, parameters.device) = (chosen.engine, chosen.device.clone());
    announce(&parameters, &dataset.provenance, &trainer.info());
    let images = [&*dataset.train, &dataset.test].map(|images| images.pixels.len() as u64).iter().sum::<u64>();
    info!("memory: about {}", text::bytes(PROGRAM_BYTES + images + choice::memory(&recipe, &chosen, &dataset.train)));
    let evaluated = dataset.evaluated().map(|(split, images)| (split, images.len()));
    let images: Vec<_> = std::iter::once((TRAIN, dataset.train.len())).chain(evaluated).collect();
    listener.on(RunEvent::Data { source: dataset.provenance.source, images: &images });
    listener.on(RunEvent::Parameters(&parameters));
    Ok(Plan { parameters, dataset, trainer, model_dir: args.model_dir.clone(), lock, begin })
}

/// Trains as planned, writes the files, and returns a summary for people. MODEL_DIR is touched only after the last epoch.
///
/// # Errors
/// Training failed, see [`training::TrainingRun`], or a file cannot be written. If the device failed after the first
/// epoch, the model of the last whole epoch is written nevertheless.
pub fn carry_out(plan: Plan, listener: &mut dyn Listener) -> Result<String> {
    let Plan { mut parameters, dataset, mut trainer, model_dir, lock: _lock, begin } = plan;
    listener.on(RunEvent::RunStarted);
    let run = training::train(&parameters, &dataset, trainer.as_mut(), listener);
    let planned = std::mem::replace(&mut parameters.train_epochs, run.epochs.len() as u32);
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
        seconds: begin.elapsed().as_secs_f64(),
    };
    interrupt::acknowledge(); // a trained model is worth more than an end within a second
    let written = artifacts::write_all(&finished, &model_dir)?;
    let model_dir = model_dir.display();
    if let Some(failure) = trained.cut_short {
        warn!("{model_dir}: holds the model after epoch {} of {planned}", run.epochs.len());
        return Err(failure);
    }
    if let Some(failure) = written.failure {
        warn!("{model_dir}: holds the model, but not all files that are made from it");
        return Err(failure);
    }
    Ok(summary(&dataset.provenance, &run.epochs, &trained.evaluations, &written.files, begin))
}

/// Names data, parameters and engine, and warns of settings that are probably a mistake.
fn announce(parameters: &Parameters, data: &Provenance, engine: &engine::EngineInfo) {
    info!("data: {}, {} training and {} test images", data.source.description(), data.train_images, data.test_images);
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

fn summary(
    data: &Provenance,
    epochs: &[EpochRecord],
    evaluations: &[Evaluation],
    files: &[(&str, PathBuf)],
    begin: Instant,
) -> String {
    let mut lines = String::new();
    for Evaluation { split, score, .. } in evaluations {
        lines += &text::named_values(&[
            (&format!("{split} accuracy"), text::percent(score.accuracy)),
            (&format!("{split} loss"), format!("{:.4}", score.loss)),
        ]);
    }
    let (count, training, all) = (epochs.len(), training_seconds(epochs), begin.elapsed().as_secs_f64());
    lines += &text::named_values(&[
        ("data", data.source.description()),
        ("epochs", format!("{count} in {training:.1} s, {all:.1} s with everything")),
    ]);
    let files: Vec<_> = files.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    lines + &text::named_values(&files)
}
