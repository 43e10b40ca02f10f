//! `mnist medperf evaluate`: the score of predictions, for MedPerf's server.

use serde::Serialize;

use super::predictions::Predictions;
use super::{output, prepared};
use crate::cli::ScoreArgs;
use crate::error::Result;
use crate::files;
use crate::output::console;
use crate::output::metrics::ClassScore;
use crate::score::Score;
use crate::task::evaluate::table;
use crate::text;

/// The first of [`Results`], by which an earlier file is known.
const FIRST_KEY: &str = "images";

/// The file's contents. Shares are from 0 to 1, the loss is in nats.
#[derive(Debug, Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    score: &'a Score,
    /// Each class' precision and recall; null where no image was classified so, or none is of the class.
    classes: Vec<ClassScore>,
    model_sha256: &'a str,
    images_sha256: &'a str,
}

/// Runs the task, and prints the score and where it went.
///
/// # Errors
/// The predictions or the labels are missing or damaged, they are of different images, or the file cannot be written or
/// would replace anything but an earlier one.
pub fn run(args: &ScoreArgs) -> Result<()> {
    output::begin(&args.output_path, [&args.predictions, &args.labels], FIRST_KEY)?;
    let labels = prepared::labels(&args.labels)?;
    let predictions = Predictions::read(&args.predictions, &labels)?;
    let score = Score::new(&predictions.logits(), &labels.labels, prepared::classes().len());
    let results = Results {
        score: &score,
        classes: ClassScore::all(&score),
        model_sha256: &predictions.model_sha256,
        images_sha256: &predictions.images_sha256,
    };
    let yaml = serde_yaml::to_string(&results).unwrap_or_else(|e| unreachable!("fields become YAML: {e}"));
    files::write_mounted(&args.output_path, yaml.as_bytes())?;
    console::print(&table(&score, prepared::classes()))?;
    console::print(&text::named_values(&[("results", args.output_path.display().to_string())]))
}
