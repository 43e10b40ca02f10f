//! From mirrors or strokes to checked images and labels in memory.

pub mod dataset;
pub mod idx;
pub mod source;
pub mod synthetic;
