//! One file a task: what `mnist TASK` does, from its flags to its files.

pub mod evaluate;
pub mod train;

use crate::cli::Command;
use crate::error::Result;
use crate::output::console::Console;

/// Runs one task.
///
/// # Errors
/// The task failed.
pub fn run(command: Command, console: &Console) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args, console),
        Command::Evaluate(args) => evaluate::run(&args, console),
        _ => todo!(),
    }
}
