//! The tasks of the command line, a file each: from the flags to the files.

pub mod augment;
pub mod completions;
pub mod cube;
pub mod demo;
pub mod devices;
pub mod download;
pub mod evaluate;
pub mod man;
pub mod medperf;
pub mod predict;
pub mod schema;
pub mod train;
mod verdict;

use crate::cli::Command;
use crate::error::Result;
use crate::output::console::Console;

/// Runs one task.
///
/// # Errors
/// The task failed.
pub fn run(command: Command, console: &Console) -> Result<()> {
    match command {
        Command::Download(args) => download::run(&args, console),
        Command::Train(args) => train::run(&args, console),
        Command::Evaluate(args) => evaluate::run(&args, console),
        Command::Predict(args) => predict::run(&args),
        Command::Augment(args) => augment::run(&args),
        Command::Demo(args) => demo::run(&args, console),
        Command::Devices => devices::run(),
        Command::Schema { file } => schema::run(file),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { directory } => man::run(&directory),
        Command::Cube(args) => cube::run(&args),
        Command::MedPerf(args) => medperf::run(&args),
    }
}
