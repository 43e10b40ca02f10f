//! From mirrors or strokes to checked images and labels in memory; from pictures to images like them.

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

pub mod picture;
pub mod prepare;
