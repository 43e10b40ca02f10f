//! `events.out.tfevents.train`: each epoch's loss, accuracy, learning rate and speed, for TensorBoard.
//!
//! Format: records as in <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>, each an
//! `Event` of <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>. The messages below
//! have only the fields that are written.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::output::artifact::{Artifact, Directory};
use crate::output::event::EpochRecord;
use crate::output::finished::Finished;

/// The file. TensorBoard reads every file with `tfevents` in its name. As the log files, it is written even where
/// training fails.
pub const ARTIFACT: Artifact = Artifact {
    name: "TensorBoard",
    file_name: "events.out.tfevents.train",
    directory: Directory::Logs,
    essential: false,
    encode: |finished| Some(encode(finished)),
};

fn encode(finished: &Finished) -> Vec<u8> {
    let version = BoardEvent {
        wall_time: since_1970(finished.started),
        file_version: "brain.Event:2".into(),
        ..BoardEvent::default()
    };
    let epochs = finished.epochs.iter().map(|epoch| BoardEvent {
        wall_time: since_1970(epoch.finished),
        step: epoch.epoch.into(),
        summary: Some(BoardSummary { values: scalars(epoch, finished.parameters.learning_rate) }),
        ..BoardEvent::default()
    });
    std::iter::once(version).chain(epochs).flat_map(|event| record(&event.encode_to_vec())).collect()
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
