//! `mnist evaluate`: scores the model of `train` on the test set.

use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use crate::cli::Evaluate;
use crate::data::dataset::{TEST, TestSet};
use crate::data::sets::DataSource;
use crate::engine;
use crate::error::{Error, Result};
use crate::files::{self, OutputDirectory};
use crate::model::file as weights;
use crate::output::artifacts;
use crate::output::console::{self, Console};
use crate::output::event::{Listener, RunEvent};
use crate::output::logs::with_logs;
use crate::output::metrics::{self, ClassScore, Metrics};
use crate::score::Score;
use crate::text;
use crate::training::evaluation;

/// Runs the task and prints the score.
///
/// # Errors
/// See [`evaluate()`]; the logs hold the reason too.
pub fn run(args: &Evaluate, console: &Console) -> Result<()> {
    console::print(&logged(args, || TestSet::load(&args.data_dir), console)?)
}

/// [`evaluate()`] with the log files of the task.
///
/// # Errors
/// See there, or the log files cannot be written.
pub fn logged(args: &Evaluate, data: impl FnOnce() -> Result<TestSet>, console: &Console) -> Result<String> {
    let log_dir = OutputDirectory::open(&args.log_dir)?;
    if args.log_dir.join(weights::FILE_NAME).exists() {
        return Err(Error::LogsBesideModel { log_dir: args.log_dir.clone() });
    }
    artifacts::refuse_strangers(log_dir.path(), [metrics::FILE_NAME].into_iter())?;
    with_logs(console, &log_dir, "evaluate", |listener| evaluate(args, data, listener))
}

/// Scores the model in MODEL_DIR on the test set of `data`, writes `metrics.json` into LOG_DIR and returns a summary for
/// people.
///
/// # Errors
/// The model or the data are wrong, or LOG_DIR cannot be written.
pub fn evaluate(
    args: &Evaluate,
    data: impl FnOnce() -> Result<TestSet>,
    listener: &mut dyn Listener,
) -> Result<String> {
    let (began, begin) = (SystemTime::now(), Instant::now());
    let (model, model_sha256) = weights::load_hashed(&args.model_dir)?;
    artifacts::warn_of_other_origin(&args.model_dir, &model_sha256);
    let trained_on = DataSource::of_model(&args.model_dir, &model)?;
    let test = data()?;
    test.check_fit(&args.model_dir, &model)?;
    let mut network = engine::checked::network(&args.model_dir, &model)?;
    let source = test.provenance.source;
    info!("model: trained on {}", trained_on.description());
    if let Some(unfinished) = &model.unfinished {
        warn!("{}: the model is {unfinished}", args.model_dir.display());
    }
    info!("data: {}, {} test images", source.description(), test.images.len());
    if trained_on != source {
        warn!("the model was trained on other data than it is tested on");
    } else if let Some(original) = source.stands_in_for() {
        warn!("this is the synthetic stand-in: the score says nothing about {}", original.title);
    }

    listener.on(RunEvent::Data { source, images: &[(TEST, test.images.len())] });
    listener.on(RunEvent::RunStarted);
    let evaluation = evaluation::evaluate(network.as_mut(), TEST, &test.images, None, None, listener)?;
    let metrics = Metrics {
        task: "evaluate",
        began,
        seconds: begin.elapsed().as_secs_f64(),
        engine: &network.info(),
        data: &test.provenance,
        trained_on: trained_on.id(),
        model_sha256: &model_sha256,
        parameter_count: model.parameters.len(),
        unfinished: model.unfinished,
        training: None,
        evaluations: std::slice::from_ref(&evaluation),
    };
    let metrics_path = args.log_dir.join(metrics::FILE_NAME);
    files::write(&metrics_path, &metrics.encode())?;
    let score = &evaluation.score;
    let places = [("test data", source.description()), ("metrics", metrics_path.display().to_string())];
    Ok(format!("{}\n{}", table(score, test.images.classes), text::named_values(&places)))
}

/// The score, and each digit's images, precision and recall.
pub(super) fn table(score: &Score, names: &[&str]) -> String {
    let percent = |share: Option<f64>| share.map_or("-".into(), text::percent);
    let mut rows = vec![["digit", "images", "precision", "   recall"].map(String::from)];
    rows.extend(ClassScore::all(score).into_iter().map(|class| {
        let images: u32 = score.confusion[class.digit].iter().sum();
        [names[class.digit].to_string(), images.to_string(), percent(class.precision), percent(class.recall)]
    }));
    let whole = [("accuracy", text::percent(score.accuracy)), ("loss", format!("{:.4}", score.loss))];
    format!("{}\n{}", text::named_values(&whole), text::table(['>'; 4], &rows))
}
