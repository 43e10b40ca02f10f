//! The two log files of a task, and that they are finished however the task ends.

use std::path::Path;

use tracing::{error, info};

use crate::error::Result;
use crate::files;
use crate::output::console::{Console, LOG};
use crate::output::mllog::{self, MlLog};

/// Runs `work` with the log files of `task` open in `log_dir`, and finishes both with how it ended.
///
/// # Errors
/// What `work` returned; else, that the logs cannot be written.
pub fn with_logs<T>(
    console: &Console,
    log_dir: &Path,
    task: &'static str,
    work: impl FnOnce(&mut MlLog) -> Result<T>,
) -> Result<T> {
    files::writable_directory(log_dir)?;
    console.open_log(log_dir, task)?;
    let mut mllog = MlLog::create(log_dir, task, mllog::system_clock)?;
    info!(target: LOG, "mnist {} {task}", env!("CARGO_PKG_VERSION"));
    let result = work(&mut mllog);
    if let Err(problem) = &result {
        // The message for the terminal is main's; this one is for the log file.
        error!(target: LOG, "{problem}");
    }
    let closed = mllog.close(result.is_ok());
    info!(target: LOG, "{task}: {}", if result.is_ok() { "success" } else { "aborted" });
    let closed = closed.and(console.close_log());
    let done = result?;
    closed.map(|()| done)
}
