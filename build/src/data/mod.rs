//! From mirrors or strokes to checked images and labels in memory.

pub mod source;

pub mod content;
pub mod download;
pub mod fetch;
pub mod mirror;
pub mod proxy;
pub mod store;
mod transfer;

pub mod synthetic;

pub mod dataset;
pub mod idx;
