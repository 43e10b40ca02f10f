//! `mnist completions`: prints what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, NAME};
use crate::error::Result;
use crate::output::console;

/// Prints the script for `shell`.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(shell: Shell) -> Result<()> {
    let mut script = vec![];
    generate(shell, &mut Cli::command(), NAME, &mut script);
    console::print(&String::from_utf8_lossy(&script))
}
