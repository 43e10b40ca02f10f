//! The MNIST cube as one native program: download, train, evaluate.
//!
//! The modules in the order in which data passes them:
//!
//! ```text
//! cli -> parameters -> task (download | train | evaluate | predict | demo | devices | cube)
//! data: fetch or synthetic -> idx -> dataset -> order of an epoch
//!       -> engine (reference | fused | fused_gpu | burn), driven by training
//!       -> events -> output: console, logs, MLLOG, metrics, weights, report, ONNX, TensorBoard
//!       picture -> prepare -> engine -> answers of predict
//! cube: the files of the MLCube around it -> check -> invocation -> runner (docker | singularity | native)
//! ```
//!
//! Begin with `task/train.rs`, then `training.rs`, `engine/mod.rs` and `engine/reference.rs`.

pub mod cli;
pub mod parameters;
pub mod task;

pub mod data;

pub mod engine;
pub mod model;
pub mod optim;
pub mod rng;
pub mod score;
pub mod training;

pub mod output;

pub mod cube;

pub mod error;
pub mod files;
pub mod interrupt;
pub mod simd;
pub mod text;
pub mod yaml;
