//! `train/events.out.tfevents...` and others: each epoch's loss, accuracy, learning rate and speed, for TensorBoard.
//!
//! As Keras' callback does, every split has a directory of its own with the same names of values in it: TensorBoard shows
//! the curves of all splits in one chart.
//!
//! As TensorFlow does, every run writes files of its own, named after time, host and process, and only appends to them: an
//! open TensorBoard shows each epoch as it ends. A record says at which epoch the run begins; TensorBoard then drops that
//! epoch and the later ones of earlier runs in the same directory instead of mixing both.
//!
//! Format: records as in <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>, each an
//! `Event` of <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>. The messages below
//! have only the fields that are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::data::dataset::{TEST, TRAIN, VALIDATION};
use crate::error::{Error, Result};
use crate::files;
use crate::output::event::{Listener, RunEvent, SplitScore};

/// The directories in LOG_DIR that hold the event files: the names of the splits.
pub const DIRECTORIES: [&str; 3] = [TRAIN, VALIDATION, TEST];

/// The beginning of the names of all event files. TensorBoard reads every file with `tfevents` in its name.
pub const PREFIX: &str = "events.out.tfevents.";

/// The end of the names of ours, by which `cube clean` tells them from those of other programs.
pub const SUFFIX: &str = ".mnist";

/// The event files of a run.
#[derive(Debug)]
pub struct EventFiles {
    log_dir: PathBuf,
    /// The file of each split.
    files: Vec<(&'static str, EventFile)>,
    /// The run's first epoch.
    first: Option<u32>,
    /// The epoch that ended last.
    last: Option<u32>,
    /// The first error. It is returned when the files are closed: events never stop a training.
    error: Option<Error>,
}

impl EventFiles {
    /// Begins new files in the directories of `log_dir`.
    ///
    /// # Errors
    /// One cannot be written.
    pub fn create(log_dir: &Path) -> Result<Self> {
        let mut events = Self { log_dir: log_dir.into(), files: vec![], first: None, last: None, error: None };
        for split in DIRECTORIES {
            // A split that only an earlier run had gets a file too, or its old curve would stand beside the new ones.
            let is_wanted = split == TRAIN || log_dir.join(split).exists();
            if is_wanted && let Err(error) = events.file(split) {
                events.files.iter().for_each(|(_, file)| _ = fs::remove_file(&file.path)); // no run has begun
                return Err(error);
            }
        }
        Ok(events)
    }

    /// Ends the files.
    ///
    /// # Errors
    /// One could not be written.
    pub fn close(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }

    /// The file of `split`, which is begun if there is none.
    fn file(&mut self, split: &'static str) -> Result<&mut EventFile> {
        let at = match self.files.iter().position(|(other, _)| *other == split) {
            Some(at) => at,
            None => {
                let mut file = EventFile::create(&self.log_dir.join(split))?;
                self.first.map_or(Ok(()), |epoch| file.append(BoardEvent::start(epoch)))?;
                self.files.push((split, file));
                self.files.len() - 1
            }
        };
        Ok(&mut self.files[at].1)
    }

    /// Notes that the run begins with `epoch`.
    fn begin(&mut self, epoch: u32) {
        self.first = Some(epoch);
        for (_, file) in &mut self.files {
            if let Err(error) = file.append(BoardEvent::start(epoch)) {
                self.error.get_or_insert(error);
            }
        }
    }

    /// Appends `values` of `split` after `epoch`.
    fn add<const N: usize>(&mut self, split: &'static str, epoch: u32, time: SystemTime, values: [(&str, f64); N]) {
        let scalar = |(tag, value): (&str, f64)| Scalar { tag: tag.into(), value: Some(value as f32) };
        let event = BoardEvent {
            wall_time: since_1970(time),
            step: epoch.into(),
            summary: Some(BoardSummary { values: values.map(scalar).into() }),
            ..BoardEvent::default()
        };
        if self.error.is_none() {
            self.error = self.file(split).and_then(|file| file.append(event)).err();
        }
    }

    fn add_score(&mut self, SplitScore { split, loss, accuracy }: &SplitScore, epoch: u32, time: SystemTime) {
        self.add(split, epoch, time, [("epoch_loss", *loss), ("epoch_accuracy", *accuracy)]);
    }
}

impl Listener for EventFiles {
    fn on(&mut self, event: RunEvent) {
        match event {
            RunEvent::EpochStarted { epoch, .. } if self.first.is_none() => self.begin(epoch),
            RunEvent::EpochFinished { record, .. } => {
                self.last = Some(record.epoch);
                let values = [
                    ("epoch_loss", record.loss),
                    ("epoch_accuracy", record.accuracy),
                    ("epoch_learning_rate", record.learning_rate),
                    ("images_per_second", record.images_per_second),
                ];
                self.add(TRAIN, record.epoch, record.finished, values);
                record.splits.iter().for_each(|score| self.add_score(score, record.epoch, record.finished));
            }
            // The test set, at the end of a training with a validation split.
            RunEvent::Evaluated { evaluation, epoch: None } => {
                if let Some(last) = self.last {
                    self.add_score(&evaluation.summary(), last, SystemTime::now());
                }
            }
            _ => {}
        }
    }
}

/// An event file.
#[derive(Debug)]
struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a new file in `directory`, which is made if it is missing.
    fn create(directory: &Path) -> Result<Self> {
        files::make_directory(directory)?;
        let now = SystemTime::now();
        let (seconds, process) = (since_1970(now) as u64, std::process::id());
        let host = files::lock::host();
        let mut number = 0;
        let (path, file) = loop {
            let path = directory.join(format!("{PREFIX}{seconds:010}.{host}.{process}.{number}{SUFFIX}"));
            match files::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                created => break (path.clone(), created.map_err(Error::io("write", &path))?),
            }
        };
        let mut events = Self { path, file };
        let file_version = "brain.Event:2".into();
        match events.append(BoardEvent { wall_time: since_1970(now), file_version, ..BoardEvent::default() }) {
            Ok(()) => Ok(events),
            Err(error) => {
                let _ = fs::remove_file(&events.path); // nothing is in it
                Err(error)
            }
        }
    }

    fn append(&mut self, event: BoardEvent) -> Result<()> {
        // In one call, so that a reader sees whole records.
        self.file.write_all(&record(&event.encode_to_vec())).map_err(Error::io("write", &self.path))
    }
}

/// In seconds.
fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `data` as a record: its length before it, and a checksum after each of the two.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// CRC-32C, masked as in TFRecord files.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `Event`.
#[derive(Clone, PartialEq, Message)]
struct BoardEvent {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, tag = "3")]
    file_version: String,
    #[prost(message, optional, tag = "5")]
    summary: Option<BoardSummary>,
    #[prost(message, optional, tag = "7")]
    session: Option<SessionLog>,
}

impl BoardEvent {
    /// The beginning of a run with `epoch`.
    fn start(epoch: u32) -> Self {
        let session = Some(SessionLog { status: SessionLog::START });
        Self { wall_time: since_1970(SystemTime::now()), step: epoch.into(), session, ..Self::default() }
    }
}

/// `SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl SessionLog {
    /// `SessionStatus.START`.
    const START: i32 = 1;
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
struct BoardSummary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

/// `Summary.Value` with a `simple_value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, or a zero would be left out.
    #[prost(float, optional, tag = "2")]
    value: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_tensorflow_writes() {
        // tf.io.TFRecordWriter of TensorFlow 2.21, with the record b"mnist".
        let expected = "0500000000000000eab2043e6d6e69737446640ae6";
        assert_eq!(crate::text::hexadecimal(&record(b"mnist")), expected);
    }

    #[test]
    fn a_zero_is_a_value() {
        let zero = Scalar { tag: "accuracy".into(), value: Some(0.0) };
        assert_eq!(Scalar::decode(&zero.encode_to_vec()[..]).unwrap().value, Some(0.0));
    }
}
