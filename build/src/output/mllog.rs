//! `mllog_<task>.log`: MLPerf's `:::MLLOG` lines, for MLPerf's tools.
//!
//! Source: <https://github.com/mlcommons/logging>, `mlperf_logging/mllog/mllog.py` (the line) and `constants.py` (the
//! keys). MNIST is not an MLPerf benchmark: the lines have the format and claim nothing else.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::data::dataset::{TEST, TRAIN, VALIDATION};
use crate::error::{Error, Result};
use crate::files::AtomicFile;
use crate::output::event::{EpochRecord, Listener, RunEvent, SplitScore};
use crate::output::names;
use crate::parameters::Parameters;
use crate::parameters::table::KEYS;

/// The key and the value of a line for each hyper-parameter: the logged rows of the table of parameters, the warmup for
/// epochs of `images` training images, then the optimizer's own settings.
fn hyper_parameters(parameters: &Parameters, images: usize) -> Vec<(String, Value)> {
    let values = parameters.to_json();
    let logged = KEYS.iter().filter_map(|key| Some((key.mllog?.to_string(), values[key.name].clone())));
    // A parameter that the others leave no place for has no value.
    let mut lines: Vec<(String, Value)> = logged.filter(|(_, value)| !value.is_null()).collect();
    let warmup_steps = parameters.schedule(images).warmup_steps;
    lines.push(("opt_learning_rate_warmup_steps".into(), json!(warmup_steps)));
    let settings = parameters.optimizer.logged(&parameters.optimizer_options());
    lines.extend(settings.into_iter().map(|(key, value)| (key.to_string(), json!(value))));
    lines
}

/// The kind of a line.
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

/// The log file of a task that runs.
pub struct MlLog {
    file: AtomicFile,
    clock: fn() -> u64,
    running: bool,
    /// Whether training was ended before its end.
    unfinished: bool,
    /// The number of training images.
    train_images: usize,
    /// The split that is evaluated after every epoch: MLPerf knows one kind of evaluation.
    watched: &'static str,
    /// The first error in writing. It is returned when the file is closed: a log never stops the task.
    error: Option<std::io::Error>,
}

/// Milliseconds since 1970, by the machine's clock.
pub fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl MlLog {
    /// Begins the file of `task` in `log_dir`, and the run's initialisation. `clock` gives milliseconds since 1970.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(log_dir: &Path, task: &str, clock: fn() -> u64) -> Result<Self> {
        let file = AtomicFile::create(log_dir.join(names::mllog(task)))?;
        let (running, unfinished) = (false, false);
        let mut log = Self { file, clock, running, unfinished, train_images: 0, watched: TEST, error: None };
        log.point("submission_benchmark", json!("mnist"));
        log.point("submission_platform", json!(std::env::consts::ARCH));
        log.start("init_start", json!({}));
        Ok(log)
    }

    /// A value: a hyper-parameter or a result.
    #[track_caller]
    fn point(&mut self, key: &str, value: Value) {
        self.line(EventType::Point, key, value, json!({}));
    }

    /// The end of the initialisation and the start of the run.
    #[track_caller]
    fn run_start(&mut self) {
        self.line(EventType::End, "init_stop", Value::Null, json!({}));
        self.start("run_start", json!({}));
        self.running = true;
    }

    /// Ends the run, as `success` or if it failed or is unfinished as `aborted`, and gives the file its name.
    ///
    /// # Errors
    /// A line could not be written, or the file cannot be finished.
    #[track_caller]
    pub fn close(mut self, succeeded: bool) -> Result<()> {
        if !self.running {
            self.run_start();
        }
        let status = if succeeded && !self.unfinished { "success" } else { "aborted" };
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

    /// The numbers of images of the splits.
    #[track_caller]
    fn samples(&mut self, images: &[(&'static str, usize)]) {
        if images.iter().any(|(split, _)| *split == VALIDATION) {
            self.watched = VALIDATION;
        }
        for &(split, images) in images {
            if split == TRAIN {
                self.train_images = images;
            }
            let key = if split == self.watched { "eval_samples".into() } else { format!("{split}_samples") };
            self.point(&key, json!(images));
        }
    }

    /// The metadata of an evaluation's lines. They name the split where there is another one than the test set.
    fn evaluation_metadata(&self, split: &str, epoch: Option<u32>) -> Value {
        let mut metadata = Map::new();
        if let Some(epoch) = epoch {
            metadata.insert("epoch_num".into(), json!(epoch));
        }
        if self.watched != TEST {
            metadata.insert("split".into(), json!(split));
        }
        Value::Object(metadata)
    }

    #[track_caller]
    fn scored(&mut self, score: &SplitScore, epoch: Option<u32>) {
        let metadata = self.evaluation_metadata(score.split, epoch);
        self.line(EventType::Point, "eval_loss", json!(score.loss), metadata.clone());
        self.line(EventType::Point, "eval_accuracy", json!(score.accuracy), metadata);
    }

    #[track_caller]
    fn trained(&mut self, record: &EpochRecord) {
        self.line(EventType::Point, "train_loss", json!(record.loss), json!({ "epoch_num": record.epoch }));
    }

    /// One line, with its fields in the order of the original.
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
        // The serializer writes every comma by itself: collected first, a line is one system call.
        let mut text = b":::MLLOG ".to_vec();
        line.serialize(&mut serde_json::Serializer::with_formatter(&mut text, PythonSpacing))?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// JSON with a space after each comma and colon, as Python's `json.dumps` writes it: some tools search for this text.
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
    fn on(&mut self, event: RunEvent) {
        match event {
            RunEvent::Data { source, images } => {
                self.point("data_source", json!(source));
                self.samples(images);
            }
            RunEvent::Parameters(parameters) => {
                let lines = hyper_parameters(parameters, self.train_images);
                lines.into_iter().for_each(|(key, value)| self.point(&key, value));
            }
            RunEvent::RunStarted => self.run_start(),
            RunEvent::TrainingStarted { before, .. } => {
                for record in before {
                    record.splits.iter().for_each(|score| self.scored(score, Some(record.epoch)));
                    self.trained(record);
                }
            }
            RunEvent::EpochStarted { epoch, .. } => self.start("epoch_start", json!({ "epoch_num": epoch })),
            RunEvent::Progress(_) => {}
            RunEvent::EpochTrained { epoch } => {
                self.line(EventType::End, "epoch_stop", Value::Null, json!({ "epoch_num": epoch }));
            }
            RunEvent::EvaluationStarted { split, epoch } => {
                self.start("eval_start", self.evaluation_metadata(split, epoch));
            }
            RunEvent::Evaluated { evaluation, epoch } => {
                self.scored(&evaluation.summary(), epoch);
                self.line(EventType::End, "eval_stop", Value::Null, self.evaluation_metadata(evaluation.split, epoch));
            }
            RunEvent::EpochFinished { record, .. } => self.trained(record),
            RunEvent::Unfinished { .. } => self.unfinished = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_form_of_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MlLog::create(dir.path(), "train", || 1_555_000_000_123).unwrap();
        log.on(RunEvent::RunStarted);
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
