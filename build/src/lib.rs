//! The MNIST cube as one native program: download, train, evaluate, predict, and run as a cube.
//!
//! The way of the data:
//!
//! ```text
//! cli -> task      download | train | evaluate | predict | augment | demo | devices | schema | completions | man | cube | medperf
//!
//! train:    parameters (file, flags, defaults)
//!           data: download or synthetic -> idx -> dataset -> split -> in every epoch, augment
//!           training: order of an epoch -> engine (reference | fused | fused_gpu | burn_engine) -> evaluation
//!                     course: go on, stop, or keep this model; recorder -> snapshots -> resume
//!                     each step of the run is an event -> output: console, logs, MLLOG, TensorBoard
//!           output: the finished run -> artifacts: model, metrics, parameters, report, ONNX -> files/set
//! predict:  data/picture -> engine -> answers
//! medperf:  prepared data -> engine -> predictions -> score
//! cube:     the cube's files -> check, configuration -> invocation -> runner (docker | singularity | native | ssh | slurm | kubernetes)
//! ```
//!
//! Imports go one way. A module uses those below it, never those above:
//!
//! ```text
//! task > cli > cube, training > output > parameters > engine > data > model, optim, score
//!     > simd, rng, files, yaml > open > interrupt, memory > error > host_paths, sha256
//!     > text, threads, workspace
//! ```
//!
//! CONTRIBUTING.md has a tour of five minutes, and says where each kind of extension begins.

pub mod cli;
pub mod task;

pub mod cube;
pub mod training;

pub mod output;
pub mod parameters;

pub mod engine;

pub mod data;

pub mod model;
pub mod optim;
pub mod score;

pub mod error;
pub mod files;
pub mod host_paths;
pub mod interrupt;
pub mod memory;
pub mod open;
pub mod rng;
pub mod sha256;
pub mod simd;
pub mod text;
pub mod threads;
pub mod workspace;
pub mod yaml;
