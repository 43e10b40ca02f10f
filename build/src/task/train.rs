//! `mnist train`: checks everything that can fail, trains, writes MODEL_DIR.

use std::path::PathBuf;
use std::time::Instant;

use tracing::{info, warn};

use crate::cli::Train;
use crate::data::dataset::{Dataset, Provenance};
use crate::data::sets::DataSource;
use crate::engine::{self, Trainer, choice};
use crate::error::Result;
use crate::files;
use crate::model::file::{self as weights, Model};
use crate::model::{CLASSES, MlpShape, PIXELS};
use crate::output::console::{self, Console};
use crate::output::event::Listener;
use crate::output::logs::with_logs;
use crate::output::metrics::{self, ClassScore, Metrics};
use crate::output::mllog::MlLog;
use crate::output::onnx;
use crate::output::progress::{Bars, Lines};
use crate::output::report::{self, Subject};
use crate::output::tensorboard::{self, Board};
use crate::parameters::Parameters;
use crate::training::{self, Trained};

/// The name of the file with every parameter as it was used.
pub const PARAMETERS_FILE_NAME: &str = "parameters.yaml";

/// Runs the task and prints what came out.
///
/// # Errors
/// See [`train()`]; the logs hold the reason too.
pub fn run(args: &Train, console: &Console) -> Result<()> {
    let summary = with_logs(console, &args.log_dir, "train", |mllog| train(args, console, mllog))?;
    console::print(&summary)
}

/// Trains as `args` say and returns a summary for people.
///
/// # Errors
/// An output directory cannot be written, the parameters or the data are not what they should be, or training failed.
/// MODEL_DIR is only touched after the last epoch.
pub fn train(args: &Train, console: &Console, mllog: &mut MlLog) -> Result<String> {
    let begin = Instant::now();
    let mut parameters = Parameters::read(Some(&args.parameters_file), args.overrides.0.clone())?;
    files::writable_directory(&args.model_dir)?;
    let names = [weights::FILE_NAME, metrics::FILE_NAME, PARAMETERS_FILE_NAME, report::FILE_NAME, onnx::FILE_NAME];
    for name in names {
        files::no_directory(&args.model_dir.join(name))?;
    }
    files::no_directory(&args.log_dir.join(tensorboard::FILE_NAME))?;
    let dataset = Dataset::load(&args.data_dir)?;
    parameters.threads = engine::threads(parameters.threads);
    let recipe = parameters.recipe(PIXELS, CLASSES);
    let (mut engine, chosen) = choice::trainer(&recipe, &parameters.choice(), parameters.train_epochs, &dataset.train)?;
    (parameters.engine, parameters.device) = (chosen.engine, chosen.device);
    announce(&parameters, &dataset.provenance, &engine.info());
    mllog.hyper_parameters(&parameters, &dataset.provenance);

    train_with(engine.as_mut(), args, parameters, &dataset, begin, console, mllog)
}

/// Trains with `engine`, which is of `parameters`, and writes what came out.
///
/// # Errors
/// Training failed, see [`training::train()`], or MODEL_DIR cannot be written. Where the device failed after the first
/// epoch, the model of the last whole one is written nevertheless.
pub fn train_with(
    engine: &mut dyn Trainer,
    args: &Train,
    mut parameters: Parameters,
    dataset: &Dataset,
    begin: Instant,
    console: &Console,
    mllog: &mut MlLog,
) -> Result<String> {
    mllog.run_start();
    let (mut bars, mut lines) = (console.bars().cloned().map(Bars::new), Lines);
    let mut board = Board::new(parameters.learning_rate);
    let mut listeners: Vec<&mut dyn Listener> = vec![mllog, &mut lines, &mut board];
    if let Some(bars) = &mut bars {
        listeners.push(bars);
    }
    let trained = training::train(&parameters, dataset, engine, &mut listeners);
    let board = board.save(&args.log_dir); // as the logs, however training ended
    let mut trained = trained?;

    let asked = std::mem::replace(&mut parameters.train_epochs, trained.epochs.len() as u32);
    let shape = MlpShape::mnist(&parameters.hidden_layers);
    let engine = engine.info();
    let metrics = Metrics {
        task: "train",
        program_version: env!("CARGO_PKG_VERSION"),
        engine: &engine,
        data: &dataset.provenance,
        trained_on: dataset.provenance.source,
        parameter_count: shape.parameter_count(),
        epochs: &trained.epochs,
        test: &trained.test,
        classes: ClassScore::all(&trained.test),
        seconds: begin.elapsed().as_secs_f64(),
    };
    let parameters_path = args.model_dir.join(PARAMETERS_FILE_NAME);
    let model = Model { shape, parameters: trained.state.parameters.clone(), data: dataset.provenance.source };
    let model_path = weights::save(&args.model_dir, &model)?;
    for outdated in [report::FILE_NAME, onnx::FILE_NAME] {
        files::remove(&args.model_dir.join(outdated))?;
    }
    let mut files = vec![
        ("model", model_path),
        ("metrics", metrics::save(&args.model_dir, &metrics)?),
        ("parameters", parameters_path.clone()),
    ];
    files::write(parameters_path, parameters.to_yaml().as_bytes())?;
    // What is made of the model, last: each is tried, and none takes the model or another with it.
    let subject = Subject {
        parameters: &parameters,
        data: &dataset.provenance,
        test: &dataset.test,
        engine: &engine,
        model: &model,
        trained: &trained,
        seconds: begin.elapsed().as_secs_f64(),
    };
    let exports = [
        ("report", report::save(&args.model_dir, &subject)),
        ("ONNX", onnx::save(&args.model_dir, &model)),
        ("TensorBoard", board),
    ];
    let mut failure = None;
    for (name, saved) in exports {
        match saved {
            Ok(path) => files.push((name, path)),
            Err(problem) if failure.is_none() => failure = Some(problem),
            Err(problem) => warn!("{problem}"),
        }
    }
    files.push(("logs", args.log_dir.clone()));
    if let Some(failure) = trained.cut_short.take() {
        warn!("{}: holds the model after epoch {} of {asked}", args.model_dir.display(), trained.epochs.len());
        return Err(failure);
    }
    if let Some(failure) = failure {
        warn!("{}: holds the model, but not all that is made of it", args.model_dir.display());
        return Err(failure);
    }
    Ok(summary(&dataset.provenance, &trained, &files, begin.elapsed().as_secs_f64()))
}

/// Says what is about to be trained, and warns of what the user may not have meant.
fn announce(parameters: &Parameters, data: &Provenance, engine: &engine::EngineInfo) {
    info!("data: {}, {} training and {} test images", data.source.description(), data.train_images, data.test_images);
    for file in &data.files {
        info!(target: console::LOG, "{}: SHA-256 {}", file.name, file.sha256);
    }
    for line in parameters.to_yaml().replace("\n- ", " ").lines() {
        info!(target: console::LOG, "parameter {line}");
    }
    info!(
        "engine: {} on {} ({}, {}), {} threads",
        engine.engine, engine.device, engine.backend, engine.instruction_set, engine.threads
    );
    if data.source == DataSource::Synthetic {
        warn!("this is the synthetic stand-in: nothing trained on it says anything about MNIST");
    }
    if let Some(warning) = parameters.optimizer.warning(&parameters.optimizer_options()) {
        warn!("{warning}");
    }
}

fn summary(data: &Provenance, trained: &Trained, files: &[(&str, PathBuf)], seconds: f64) -> String {
    let train_seconds = trained.seconds();
    let mut rows = vec![
        ("test accuracy", format!("{:.2} %", 100.0 * trained.test.accuracy)),
        ("test loss", format!("{:.4}", trained.test.loss)),
        ("data", data.source.description().to_string()),
        ("epochs", format!("{} in {train_seconds:.1} s, {seconds:.1} s with everything", trained.epochs.len())),
    ];
    rows.extend(files.iter().map(|(name, path)| (*name, path.display().to_string())));
    rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}
