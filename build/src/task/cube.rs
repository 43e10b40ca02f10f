//! `mnist cube check`: verifies the cube's files and prints every fault.

use std::path::Path;

use crate::cli::{self, Cube};
use crate::config::Parameters;
use crate::config::keys::Draft;
use crate::cube::check::{self, Program};
use crate::error::{Error, Result};
use crate::output::console;

/// Runs the task: the faults, a line each, or what was checked, go to stdout.
///
/// # Errors
/// The cube has faults.
pub fn run(args: &Cube) -> Result<()> {
    let Cube::Check { mlcube } = args;
    let check_parameters =
        |path: &Path| Parameters::read(Some(path), Draft::default()).map(drop).map_err(|error| error.to_string());
    let report = check::check(mlcube, &Program { flags_of: &cli::flags_of, check_parameters: &check_parameters });
    if report.faults.is_empty() {
        let (files, tasks) = (report.files.len(), report.tasks.join(", "));
        return console::print(&format!("{}: {files} files are right, tasks {tasks}\n", mlcube.display()));
    }
    console::print(&report.faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())?;
    Err(Error::Cube { path: mlcube.clone(), faults: report.faults.len() })
}
