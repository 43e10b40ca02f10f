//! One file a command.

pub mod download;
