//! All tests that run the program or the library from outside, in one binary: it is linked once instead of a dozen times.
//! Each module says what it tests. `cargo test --release --test main train::` runs those of one module.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails may panic, and may show figures")]

mod common;

mod architecture;
mod augment;
mod cli;
mod cluster;
mod containers;
mod course;
mod crash;
mod cube;
mod cube_2;
mod cube_advice;
mod cube_arguments;
mod cube_clean;
mod cube_hostile;
mod cube_image;
mod cube_inputs;
mod cube_other;
mod cube_places;
mod cube_published;
mod cube_run;
mod cube_sudo;
mod docs;
mod doubts;
mod download;
mod engines_agree;
mod ensemble;
mod fonts;
mod foreign;
mod fuzz;
mod gpu;
mod kubernetes;
mod machine;
mod medperf;
mod outside;
mod predict;
mod python_module;
mod reading;
mod readme;
mod report;
mod resume;
mod resumed;
mod schema;
mod sets;
mod slurm;
mod snapshots;
mod ssh;
mod terminal;
mod train;
mod unfinished;
