//! From mirrors or strokes to checked images and labels in memory.

pub mod content;
pub mod fetch;
pub mod mirror;
pub mod proxy;
pub mod source;
pub mod store;
mod transfer;
