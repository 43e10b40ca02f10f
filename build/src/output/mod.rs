//! The files that a run leaves, its log files, and its messages and progress bars.
//!
//! [`artifacts`] lists the files, [`names`] tells them from others; [`event`] is what the log files and the progress are made from.

pub mod artifact;
pub mod artifacts;
pub mod console;
pub mod event;
pub mod finished;
pub mod logs;
pub mod machine;
pub mod metrics;
pub mod mllog;
pub mod names;
pub mod onnx;
pub mod origin;
pub mod progress;
pub mod report;
#[cfg(test)]
mod screen;
pub mod tensorboard;
pub mod terminal;
pub mod transfers;
pub mod unfinished;
