//! Parses the command line, runs the task, and turns its result into messages and an exit code.

use std::process::ExitCode;

use mnist::output::console::{self, Console};
use mnist::{cli, files, interrupt, task};
use tracing::info;

fn main() -> ExitCode {
    let cli = cli::parse();
    let console = Console::install(cli.verbosity());
    if !cli.by_default.is_empty() {
        info!("in ./workspace: {}", cli.by_default.join(", "));
    }
    match interrupt::install().and_then(|()| task::run(cli.command, &console)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            files::remove_empty_directories();
            console::report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
