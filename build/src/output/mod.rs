//! What a run leaves behind and shows: files, logs, progress.

pub mod atomic;
pub mod transfers;
