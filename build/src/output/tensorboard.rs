//! `events.out.tfevents...`: each epoch's loss, accuracy, learning rate and speed, for TensorBoard.
//!
//! As TensorFlow does, every run writes a file of its own, named after time, host and process, and only appends to it: an
//! open TensorBoard shows each epoch as it ends. The first record says that a run begins; TensorBoard then drops the later
//! steps of earlier runs in the same directory instead of mixing both.
//!
//! Format: records as in <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>, each an
//! `Event` of <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>. The messages below
//! have only the fields that are written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Error, Result};
use crate::files;
use crate::output::event::{EpochRecord, Listener, RunEvent};

/// The beginning of the names of all event files. TensorBoard reads every file with `tfevents` in its name.
pub const PREFIX: &str = "events.out.tfevents.";

/// The end of the names of ours, by which `cube clean` tells them from those of other programs.
pub const SUFFIX: &str = ".mnist";

/// The event file of a run.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    learning_rate: f64,
    /// The first error in writing. It is returned when the file is closed: events never stop a training.
    error: Option<io::Error>,
}

impl EventFile {
    /// Begins a new file in `log_dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(log_dir: &Path) -> Result<Self> {
        let now = SystemTime::now();
        let (seconds, process) = (since_1970(now) as u64, std::process::id());
        let host = files::lock::host();
        let mut number = 0;
        let (path, file) = loop {
            let path = log_dir.join(format!("{PREFIX}{seconds:010}.{host}.{process}.{number}{SUFFIX}"));
            match files::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                created => break (path.clone(), created.map_err(Error::io("write", &path))?),
            }
        };
        let mut events = Self { path, file, learning_rate: 0.0, error: None };
        let wall_time = since_1970(now);
        events.append(BoardEvent { wall_time, file_version: "brain.Event:2".into(), ..BoardEvent::default() });
        let session = Some(SessionLog { status: SessionLog::START });
        events.append(BoardEvent { wall_time, step: 1, session, ..BoardEvent::default() });
        Ok(events)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// An event could not be written.
    pub fn close(self) -> Result<()> {
        self.error.map_or(Ok(()), |error| Err(Error::io("write", &self.path)(error)))
    }

    fn append(&mut self, event: BoardEvent) {
        // In one call, so that a reader sees whole records.
        if self.error.is_none()
            && let Err(error) = self.file.write_all(&record(&event.encode_to_vec()))
        {
            self.error = Some(error);
        }
    }
}

impl Listener for EventFile {
    fn on(&mut self, event: RunEvent) {
        match event {
            RunEvent::Parameters(parameters) => self.learning_rate = parameters.learning_rate,
            RunEvent::EpochFinished { record: epoch, .. } => self.append(BoardEvent {
                wall_time: since_1970(epoch.finished),
                step: epoch.epoch.into(),
                summary: Some(BoardSummary { values: scalars(epoch, self.learning_rate) }),
                ..BoardEvent::default()
            }),
            _ => {}
        }
    }
}

fn scalars(epoch: &EpochRecord, learning_rate: f64) -> Vec<Scalar> {
    let mut scalars = Vec::new();
    let mut add = |tag: String, value: f64| scalars.push(Scalar { tag, value: Some(value as f32) });
    add("loss/train".into(), epoch.loss);
    epoch.splits.iter().for_each(|split| add(format!("loss/{}", split.split), split.loss));
    add("accuracy/train".into(), epoch.accuracy);
    epoch.splits.iter().for_each(|split| add(format!("accuracy/{}", split.split), split.accuracy));
    add("learning_rate".into(), learning_rate);
    add("images_per_second".into(), epoch.images_per_second);
    scalars
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
