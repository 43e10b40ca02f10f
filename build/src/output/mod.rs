//! What a run leaves behind and shows: files, logs, progress.

pub mod console;
pub mod event;
pub mod logs;
pub mod metrics;
pub mod mllog;
pub mod onnx;
pub mod progress;
pub mod report;
pub mod tensorboard;
pub mod transfers;
