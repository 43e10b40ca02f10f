//! Parses the command line, runs the task, and turns its result into messages and an exit code.

use std::process::ExitCode;

use clap::Parser;
use mnist::cli::Cli;
use mnist::error::Error;
use mnist::output::console::Console;
use mnist::{interrupt, task};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::install();
    match interrupt::install().and_then(|()| task::run(cli.command, &console)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn report(error: &Error) {
    tracing::error!("{error}");
    if let Some(hint) = error.hint() {
        tracing::info!("hint: {hint}");
    }
}
