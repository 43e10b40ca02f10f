//! `metrics.json`: the results of `train` or `evaluate`, with their data and engine, for programs to read.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::data::dataset::{Provenance, TEST};
use crate::engine::EngineInfo;
use crate::files::lock::host;
use crate::model::file::Unfinished;
use crate::open;
use crate::output::artifact::Artifact;
use crate::output::event::{EpochRecord, Evaluation, SplitScore};
use crate::output::finished::{Calibration, Finished, InitialModel};
use crate::output::machine;
use crate::parameters::{Parameters, schema};
use crate::score::Score;
use crate::text::rfc3339;

/// The name of the file.
pub const FILE_NAME: &str = "metrics.json";

/// The longest metrics file that is read, in bytes. That of 100,000 epochs has 30 million.
const LONGEST_METRICS: u64 = 1 << 26;

/// The metrics of a training run.
pub const ARTIFACT: Artifact = Artifact {
    name: "metrics",
    file_name: FILE_NAME,
    essential: true,
    encode: |finished| Some(Metrics::of(finished).encode().into()),
};

/// The results of `train` or `evaluate`.
#[derive(Debug)]
pub struct Metrics<'a> {
    /// `train` or `evaluate`.
    pub task: &'static str,
    /// When it began.
    pub began: SystemTime,
    /// From there to here.
    pub seconds: f64,
    /// The engine that computed.
    pub engine: &'a EngineInfo,
    /// The test data, and for training the training data.
    pub data: &'a Provenance,
    /// The id of the data set that the model was trained on.
    pub trained_on: &'a str,
    /// SHA-256 of the model's file.
    pub model_sha256: &'a str,
    /// Parameters of the network.
    pub parameter_count: usize,
    /// How far the training came, if it was ended before its end.
    pub unfinished: Option<Unfinished>,
    /// What only `train` knows.
    pub training: Option<TrainingMetrics<'a>>,
    /// The scores of the model.
    pub evaluations: &'a [Evaluation],
}

/// The part of the metrics that only `train` knows.
#[derive(Debug, Serialize)]
pub struct TrainingMetrics<'a> {
    /// The parameters as they were asked for, each `auto` included.
    pub parameters: &'a Parameters,
    /// Each epoch.
    pub epochs: Vec<EpochMetrics<'a>>,
    /// How many of them are of earlier runs, which this one went on from.
    pub epochs_before: usize,
    /// The model that gave the first weights, with `--init`.
    pub init: Option<&'a InitialModel>,
    /// Whether the model reaches `target_accuracy`; none without a target.
    pub target_reached: Option<bool>,
    /// The epoch whose model is kept.
    pub kept_epoch: u32,
    /// The epoch with the lowest loss on the split that is evaluated after every epoch.
    pub best_epoch: u32,
    /// How the model was calibrated.
    pub calibration: Option<Calibration>,
    /// What ended training before its end.
    #[serde(skip)]
    pub unfinished_because: Option<String>,
}

/// The file's contents, as `metrics.schema.json` describes them too. Shares are from 0 to 1, losses in nats, times in seconds.
#[derive(Serialize)]
struct Contents<'a> {
    task: &'static str,
    program_version: &'static str,
    host: String,
    processor: String,
    began: String,
    finished: String,
    seconds: f64,
    unfinished: Option<UnfinishedEntry>,
    #[serde(flatten)]
    engine: &'a EngineInfo,
    data: &'a Provenance,
    trained_on: &'a str,
    model_sha256: &'a str,
    parameter_count: usize,
    #[serde(flatten)]
    training: Option<&'a TrainingMetrics<'a>>,
    /// Each split's score, under the split's name.
    #[serde(flatten, serialize_with = "by_split")]
    evaluations: &'a [Evaluation],
    /// Precision and recall of each digit on the test set.
    classes: Vec<ClassScore>,
}

/// How far a training came, and why no further.
#[derive(Serialize)]
struct UnfinishedEntry {
    #[serde(flatten)]
    unfinished: Unfinished,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// An epoch. The scores of a split are two numbers, `test_loss` and `test_accuracy` for `test`.
#[derive(Debug)]
pub struct EpochMetrics<'a>(&'a EpochRecord);

impl Serialize for EpochMetrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("epoch", &record.epoch)?;
        map.serialize_entry("loss", &record.loss)?;
        map.serialize_entry("accuracy", &record.accuracy)?;
        map.serialize_entry("seconds", &record.seconds)?;
        map.serialize_entry("images_per_second", &record.images_per_second)?;
        map.serialize_entry("learning_rate", &record.learning_rate)?;
        for SplitScore { split, loss, accuracy } in &record.splits {
            map.serialize_entry(&format!("{split}_loss"), loss)?;
            map.serialize_entry(&format!("{split}_accuracy"), accuracy)?;
        }
        map.end()
    }
}

/// One digit's score.
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
        (0..score.classes())
            .map(|digit| Self { digit, precision: score.precision(digit), recall: score.recall(digit) })
            .collect()
    }
}

impl<'a> Metrics<'a> {
    fn of(finished: &Finished<'a>) -> Self {
        let trained = finished.trained;
        let training = TrainingMetrics {
            parameters: finished.parameters,
            epochs: finished.epochs.iter().map(EpochMetrics).collect(),
            epochs_before: finished.before,
            init: finished.init,
            target_reached: trained.target_reached(finished.parameters),
            kept_epoch: trained.epoch,
            best_epoch: finished.best_epoch(),
            calibration: trained.calibration,
            unfinished_because: trained.unfinished.as_ref().map(ToString::to_string),
        };
        Self {
            task: "train",
            began: finished.began,
            seconds: finished.seconds,
            engine: finished.engine,
            data: &finished.dataset.provenance,
            trained_on: &trained.model.data,
            model_sha256: finished.model_sha256,
            parameter_count: trained.model.parameters.len(),
            unfinished: trained.model.unfinished,
            training: Some(training),
            evaluations: &trained.evaluations,
        }
    }

    /// The file's contents.
    pub fn encode(&self) -> Vec<u8> {
        let test = self.evaluations.iter().find(|evaluation| evaluation.split == TEST);
        let reason = self.training.as_ref().and_then(|training| training.unfinished_because.clone());
        let contents = Contents {
            task: self.task,
            program_version: env!("CARGO_PKG_VERSION"),
            host: host(),
            processor: machine::processor(),
            began: rfc3339(self.began),
            finished: rfc3339(self.began + Duration::from_secs_f64(self.seconds)),
            seconds: self.seconds,
            unfinished: self.unfinished.map(|unfinished| UnfinishedEntry { unfinished, reason }),
            engine: self.engine,
            data: self.data,
            trained_on: self.trained_on,
            model_sha256: self.model_sha256,
            parameter_count: self.parameter_count,
            training: self.training.as_ref(),
            evaluations: self.evaluations,
            classes: test.map(|test| ClassScore::all(&test.score)).unwrap_or_default(),
        };
        let json = serde_json::to_vec_pretty(&contents);
        let mut json = json.unwrap_or_else(|e| unreachable!("fields become JSON: {e}"));
        json.push(b'\n');
        json
    }
}

/// The JSON Schema of the file.
pub fn schema() -> Value {
    let text = include_str!("metrics.schema.json");
    let mut metrics: Value = serde_json::from_str(text).unwrap_or_else(|e| unreachable!("the tests read it: {e}"));
    let mut parameters = schema::schema();
    metrics["$schema"] = parameters["$schema"].take();
    for keyword in ["properties", "additionalProperties"] {
        metrics["properties"]["parameters"][keyword] = parameters[keyword].take();
    }
    metrics
}

fn by_split<S: Serializer>(evaluations: &&[Evaluation], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(evaluations.iter().map(|evaluation| (evaluation.split, &evaluation.score)))
}

/// The metrics in `model_dir`; none if they cannot be read.
pub fn read(model_dir: &Path) -> Option<Value> {
    let file = open::regular(&model_dir.join(FILE_NAME)).ok()?;
    serde_json::from_slice(&open::read_at_most(LONGEST_METRICS, file).ok()??).ok()
}
