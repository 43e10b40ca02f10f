//! `mllog_<task>.log`: MLPerf's `:::MLLOG` lines, which its tools read.
//!
//! Source: <https://github.com/mlcommons/logging>, `mlperf_logging/mllog/mllog.py` (the line) and `constants.py` (the
//! keys). MNIST is no MLPerf benchmark: the lines have the format, and claim nothing else.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::data::dataset::Provenance;
use crate::error::{Error, Result};
use crate::files::AtomicFile;
use crate::output::event::{Event, Listener};
use crate::parameters::Parameters;
use crate::score::Score;

/// What a line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventType {
    Start,
    End,
    Point,
}

impl EventType {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "INTERVAL_START",
            Self::End => "INTERVAL_END",
            Self::Point => "POINT_IN_TIME",
        }
    }
}

/// The file in the making.
pub struct MlLog {
    file: AtomicFile,
    clock: fn() -> u64,
    running: bool,
    /// The first error in writing, told when the file is closed: a log never stops the work it is about.
    error: Option<std::io::Error>,
}

/// Milliseconds since 1970, of the machine's clock.
pub fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl MlLog {
    /// Begins the file of `task` in `log_dir` with `clock` for the times, and the run's initialisation.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(log_dir: &Path, task: &str, clock: fn() -> u64) -> Result<Self> {
        let file = AtomicFile::create(log_dir.join(format!("mllog_{task}.log")))?;
        let mut log = Self { file, clock, running: false, error: None };
        log.point("submission_benchmark", json!("mnist"));
        log.point("submission_platform", json!(std::env::consts::ARCH));
        log.start("init_start", json!({}));
        Ok(log)
    }

    /// A value: a hyper-parameter or a result.
    #[track_caller]
    pub fn point(&mut self, key: &str, value: Value) {
        self.line(EventType::Point, key, value, json!({}));
    }

    /// Initialisation is over, the run begins.
    #[track_caller]
    pub fn run_start(&mut self) {
        self.line(EventType::End, "init_stop", Value::Null, json!({}));
        self.start("run_start", json!({}));
        self.running = true;
    }

    /// Writes what training starts from: the data and every hyper-parameter.
    #[track_caller]
    pub fn hyper_parameters(&mut self, parameters: &Parameters, data: &Provenance) {
        self.point("data_source", json!(data.source));
        self.point("train_samples", json!(data.train_images));
        self.point("eval_samples", json!(data.test_images));
        self.point("seed", json!(parameters.seed));
        self.point("global_batch_size", json!(parameters.batch_size));
        self.point("max_epochs", json!(parameters.train_epochs));
        self.point("opt_name", json!(parameters.optimizer));
        self.point("opt_base_learning_rate", json!(parameters.learning_rate));
        self.point("opt_weight_decay", json!(parameters.weight_decay));
        for (key, value) in parameters.optimizer.logged(&parameters.optimizer_options()) {
            self.point(key, json!(value));
        }
        self.point("hidden_layers", json!(parameters.hidden_layers));
        self.point("dropout", json!(parameters.dropout));
    }

    /// An evaluation without training begins.
    #[track_caller]
    pub fn evaluation_start(&mut self) {
        self.start("eval_start", json!({}));
    }

    /// An evaluation without training is over.
    #[track_caller]
    pub fn evaluation_stop(&mut self, score: &Score) {
        self.evaluated(score, &json!({}));
    }

    /// Ends the run, as `success` or `aborted`, and gives the file its name.
    ///
    /// # Errors
    /// A line could not be written, or the file not be finished.
    #[track_caller]
    pub fn close(mut self, succeeded: bool) -> Result<()> {
        if !self.running {
            self.run_start();
        }
        let status = if succeeded { "success" } else { "aborted" };
        self.line(EventType::End, "run_stop", Value::Null, json!({ "status": status }));
        match self.error {
            Some(error) => Err(Error::io("write", self.file.target())(error)),
            None => self.file.commit(),
        }
    }

    #[track_caller]
    fn start(&mut self, key: &str, metadata: Value) {
        self.line(EventType::Start, key, Value::Null, metadata);
    }

    #[track_caller]
    fn evaluated(&mut self, score: &Score, metadata: &Value) {
        self.line(EventType::Point, "eval_loss", json!(score.loss), metadata.clone());
        self.line(EventType::Point, "eval_accuracy", json!(score.accuracy), metadata.clone());
        self.line(EventType::End, "eval_stop", Value::Null, metadata.clone());
    }

    /// One line, its fields in the order of the original.
    #[track_caller]
    fn line(&mut self, event_type: EventType, key: &str, value: Value, metadata: Value) {
        let place = std::panic::Location::caller();
        let mut with_place = Map::new();
        with_place.insert("file".into(), json!(place.file()));
        with_place.insert("lineno".into(), json!(place.line()));
        if let Value::Object(metadata) = metadata {
            with_place.extend(metadata);
        }
        let line = json!({
            "namespace": "",
            "time_ms": (self.clock)(),
            "event_type": event_type.name(),
            "key": key,
            "value": value,
            "metadata": with_place,
        });
        if let Err(error) = self.write(&line) {
            self.error.get_or_insert(error);
        }
    }

    fn write(&mut self, line: &Value) -> std::io::Result<()> {
        // The serializer writes every comma by itself: collected, a line is one call of the system.
        let mut text = b":::MLLOG ".to_vec();
        line.serialize(&mut serde_json::Serializer::with_formatter(&mut text, PythonSpacing))?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// JSON with a space after each comma and colon, as Python's `json.dumps` sets it: some tools search for the text.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

impl Listener for MlLog {
    fn on(&mut self, event: Event) {
        match event {
            Event::EpochStarted { epoch, .. } => self.start("epoch_start", json!({ "epoch_num": epoch })),
            Event::Progress(_) => {}
            Event::EpochTrained { epoch } => {
                self.line(EventType::End, "epoch_stop", Value::Null, json!({ "epoch_num": epoch }));
                self.start("eval_start", json!({ "epoch_num": epoch }));
            }
            Event::Evaluated { epoch, score } => {
                self.evaluated(score, &json!({ "epoch_num": epoch }));
            }
            Event::EpochFinished { record, .. } => {
                let metadata = json!({ "epoch_num": record.epoch });
                self.line(EventType::Point, "train_loss", json!(record.loss), metadata);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_the_original_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MlLog::create(dir.path(), "train", || 1_555_000_000_123).unwrap();
        log.run_start();
        log.close(false).unwrap();
        let text = std::fs::read_to_string(dir.path().join("mllog_train.log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(
            ":::MLLOG {\"namespace\": \"\", \"time_ms\": 1555000000123, \"event_type\": \"POINT_IN_TIME\", \
             \"key\": \"submission_benchmark\", \"value\": \"mnist\", \"metadata\": {\"file\": \""
        ));
        let last = lines[lines.len() - 1];
        assert!(last.contains("\"INTERVAL_END\", \"key\": \"run_stop\", \"value\": null"), "{last}");
        assert!(last.ends_with("\"status\": \"aborted\"}}"), "{last}");
    }
}
