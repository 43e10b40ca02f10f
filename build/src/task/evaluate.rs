//! `mnist evaluate`: scores what `train` left on the test set.

use std::fmt::Write;
use std::time::Instant;

use tracing::{info, warn};

use crate::cli::Evaluate;
use crate::data::dataset::Dataset;
use crate::data::sets::DataSource;
use crate::engine;
use crate::error::Result;
use crate::model::file as weights;
use crate::output::console::{self, Console};
use crate::output::logs::with_logs;
use crate::output::metrics::{self, ClassScore, Metrics};
use crate::output::mllog::MlLog;
use crate::score::Score;
use crate::training;

/// Runs the task and prints the score.
///
/// # Errors
/// See [`evaluate()`]; the logs hold the reason too.
pub fn run(args: &Evaluate, console: &Console) -> Result<()> {
    let summary = with_logs(console, &args.log_dir, "evaluate", |mllog| evaluate(args, mllog))?;
    console::print(&summary)
}

/// Scores the model in MODEL_DIR, writes `metrics.json` into LOG_DIR and returns a summary for people.
///
/// # Errors
/// Model or data are not what they should be, or LOG_DIR cannot be written.
pub fn evaluate(args: &Evaluate, mllog: &mut MlLog) -> Result<String> {
    let begin = Instant::now();
    let model = weights::load(&args.model_dir)?;
    let dataset = Dataset::load(&args.data_dir)?;
    let parameter_count = model.parameters.len();
    let mut engine = engine::choice::network(&model.shape, &model.parameters)?;
    info!("model: trained on {}", model.data.description());
    info!("data: {}, {} test images", dataset.provenance.source.description(), dataset.provenance.test_images);
    if model.data != dataset.provenance.source {
        warn!("the model was trained on other data than it is tested on");
    } else if model.data == DataSource::Synthetic {
        warn!("this is the synthetic stand-in: the score says nothing about MNIST");
    }

    mllog.point("data_source", serde_json::json!(dataset.provenance.source));
    mllog.point("eval_samples", serde_json::json!(dataset.provenance.test_images));
    mllog.run_start();
    mllog.evaluation_start();
    let (score, _) = training::evaluate(engine.as_mut(), &dataset)?;
    mllog.evaluation_stop(&score);
    let metrics = Metrics {
        task: "evaluate",
        program_version: env!("CARGO_PKG_VERSION"),
        engine: &engine.info(),
        data: &dataset.provenance,
        trained_on: model.data,
        parameter_count,
        epochs: &[],
        test: &score,
        classes: ClassScore::all(&score),
        seconds: begin.elapsed().as_secs_f64(),
    };
    let metrics_path = metrics::save(&args.log_dir, &metrics)?;
    info!(target: console::LOG, "accuracy {:.2} %, loss {:.4}", 100.0 * score.accuracy, score.loss);
    let mut summary = table(&score);
    let _ = writeln!(summary, "\ntest data      {}", dataset.provenance.source.description());
    let _ = writeln!(summary, "metrics        {}", metrics_path.display());
    Ok(summary)
}

fn table(score: &Score) -> String {
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.2} %", 100.0 * share));
    let mut text = format!("accuracy       {:.2} %\nloss           {:.4}\n\n", 100.0 * score.accuracy, score.loss);
    text.push_str("digit  images  precision     recall\n");
    for class in ClassScore::all(score) {
        let images: u32 = score.confusion[class.digit].iter().sum();
        let (precision, recall) = (percent(class.precision), percent(class.recall));
        let _ = writeln!(text, "{:>5}  {images:>6}  {precision:>9}  {recall:>9}", class.digit);
    }
    text
}
