//! `events.out.tfevents.train`: each epoch's loss, accuracy, learning rate and speed, for TensorBoard.
//!
//! Format: records as in <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>, each an
//! `Event` of <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>, of which the
//! messages below are the fields that are written.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::Result;
use crate::files;
use crate::output::event::{Event, Listener};

/// The name of the file in LOG_DIR. TensorBoard reads every file with `tfevents` in its name.
pub const FILE_NAME: &str = "events.out.tfevents.train";

/// Collects the epochs until they are written.
#[derive(Debug)]
pub struct Board {
    learning_rate: f64,
    events: Vec<BoardEvent>,
}

impl Board {
    /// One without epochs yet.
    pub fn new(learning_rate: f64) -> Self {
        let version = BoardEvent { wall_time: now(), file_version: "brain.Event:2".into(), ..BoardEvent::default() };
        Self { learning_rate, events: vec![version] }
    }

    /// Writes the file into `log_dir`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, log_dir: &Path) -> Result<PathBuf> {
        let path = log_dir.join(FILE_NAME);
        let records: Vec<u8> = self.events.iter().flat_map(|event| record(&event.encode_to_vec())).collect();
        files::write(&path, &records)?;
        Ok(path)
    }
}

impl Listener for Board {
    fn on(&mut self, event: Event) {
        let Event::EpochFinished { record, .. } = event else { return };
        let scalars = [
            ("loss/train", record.loss),
            ("loss/test", record.test_loss),
            ("accuracy/train", record.accuracy),
            ("accuracy/test", record.test_accuracy),
            ("learning_rate", self.learning_rate),
            ("images_per_second", record.images_per_second),
        ];
        let values = scalars.map(|(tag, value)| Scalar { tag: tag.into(), value: Some(value as f32) }).into();
        self.events.push(BoardEvent {
            wall_time: now(),
            step: record.epoch.into(),
            summary: Some(Summary { values }),
            ..BoardEvent::default()
        });
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `data` with its length before it and a checksum after each.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// CRC-32C, masked as TFRecord files have it.
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
    summary: Option<Summary>,
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
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
    fn a_record_is_what_tensorflow_writes() {
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
