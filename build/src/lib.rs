//! The MNIST cube as one native program.

pub mod data;
pub mod error;
pub mod interrupt;
pub mod output;
pub mod task;
