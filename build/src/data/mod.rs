//! From mirrors or strokes to checked images and labels in memory; from pictures to images like them.

pub mod sets;

pub mod download;
pub mod synthetic;

pub mod dataset;
pub mod idx;

pub mod picture;
