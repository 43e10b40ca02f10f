//! `metrics.json`: what was trained or evaluated, on what, by whom, and how well, for programs to read.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::data::dataset::Provenance;
use crate::data::sets::DataSource;
use crate::engine::EngineInfo;
use crate::error::Result;
use crate::files;
use crate::model::CLASSES;
use crate::output::event::EpochRecord;
use crate::score::Score;

/// The name of the file.
pub const FILE_NAME: &str = "metrics.json";

/// The file's contents. Shares are from 0 to 1, losses in nats, times in seconds.
#[derive(Debug, Serialize)]
pub struct Metrics<'a> {
    /// `train` or `evaluate`.
    pub task: &'static str,
    /// This program's version.
    pub program_version: &'static str,
    /// Who computed.
    #[serde(flatten)]
    pub engine: &'a EngineInfo,
    /// The test data, and for training the training data.
    pub data: &'a Provenance,
    /// What the model was trained on.
    pub trained_on: DataSource,
    /// Parameters of the network.
    pub parameter_count: usize,
    /// Each epoch; none for `evaluate`.
    #[serde(skip_serializing_if = "<[EpochRecord]>::is_empty")]
    pub epochs: &'a [EpochRecord],
    /// The score on the test set.
    pub test: &'a Score,
    /// Precision and recall of each digit on the test set.
    pub classes: Vec<ClassScore>,
    /// From the start of the task to here.
    pub seconds: f64,
}

/// One digit's score; absent where no image was taken for it, or none is of it.
#[derive(Debug, Serialize)]
pub struct ClassScore {
    /// The digit.
    pub digit: usize,
    /// See [`Score::precision`].
    pub precision: Option<f64>,
    /// See [`Score::recall`].
    pub recall: Option<f64>,
}

impl ClassScore {
    /// The scores of all digits.
    pub fn all(score: &Score) -> Vec<Self> {
        (0..CLASSES)
            .map(|digit| Self { digit, precision: score.precision(digit), recall: score.recall(digit) })
            .collect()
    }
}

/// Writes `metrics` into `directory`.
///
/// # Errors
/// The file cannot be written.
pub fn save(directory: &Path, metrics: &Metrics) -> Result<PathBuf> {
    let path = directory.join(FILE_NAME);
    let mut json = serde_json::to_string_pretty(metrics).unwrap_or_else(|e| unreachable!("fields become JSON: {e}"));
    json.push('\n');
    files::write(&path, json.as_bytes())?;
    Ok(path)
}
