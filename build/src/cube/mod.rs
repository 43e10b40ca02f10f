//! The MLCube around this program: its files are checked, its image is built, and its tasks run on a platform.
//!
//! ```text
//! schema, locate: one file      check: all files of the cube
//! configuration: a cube in one file
//! invocation: a task with its parameters -> runner (docker | singularity | native | ssh | slurm | kubernetes), which
//!     platform reads from a file
//! job: a task on another machine that outlives its connection; listing: what it has changed there
//! stream, in_pod: a task's files on their way to a pod and back
//! command: a program of this machine; guard: ends it with its runner
//! ```
//!
//! The files follow MLCube's documentation and two of the published packages, `mlcube` 0.0.3 and 0.0.9.

/// The name of this program's own cube. A cube of another name belongs to another program, whose flags are not known.
pub const NAME: &str = "mnist";

pub mod check;
pub mod clean;
pub mod command;
pub mod configuration;
pub mod directory;
#[cfg(unix)]
pub mod guard;
mod image_name;
#[cfg(unix)]
pub mod in_pod;
pub mod invocation;
pub mod job;
pub mod listing;
mod locate;
mod mount;
pub mod overwriting;
pub mod platform;
pub mod runner;
mod schema;
pub mod stream;
mod words;
