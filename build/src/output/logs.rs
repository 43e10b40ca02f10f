//! The log files of a task, and the lines and bars that show its progress. The files are finished however the task ends.

use tracing::{error, info};

use crate::error::{Error, Result};
use crate::files::OutputDirectory;
use crate::interrupt;
use crate::output::console::{self, Console, LOG};
use crate::output::event::{Listener, Listeners, RunEvent};
use crate::output::mllog::{self, MlLog};
use crate::output::names;
use crate::output::progress::{Bars, Lines};
use crate::output::terminal;

/// Runs `work` with the log files of `task` open in `log_dir`. `work` sends its events to the listener that it is given.
///
/// # Errors
/// `work` failed; or it did not, and the log files cannot be written. If both happen, the second is named too.
pub fn with_logs<T>(
    console: &Console,
    log_dir: &OutputDirectory,
    task: &'static str,
    work: impl FnOnce(&mut dyn Listener) -> Result<T>,
) -> Result<T> {
    log_dir.check([&*names::log(task), &*names::mllog(task)])?;
    let mut mllog = MlLog::create(log_dir.path(), task, mllog::system_clock)?;
    console.open_log(log_dir.path(), task)?; // which nothing would close if the other failed
    info!(target: LOG, "mnist {} {task}", env!("CARGO_PKG_VERSION"));
    let mut unfinished = Reason(None);
    let result = {
        let mut bars = console.bars().map(|all| Bars::new(all.clone(), terminal::columns));
        let mut lines = Lines;
        let mut listeners = Listeners(vec![&mut mllog, &mut unfinished, &mut lines]);
        listeners.0.extend(bars.as_mut().map(|bars| bars as &mut dyn Listener));
        work(&mut listeners)
    };
    if let Err(problem) = &result {
        if matches!(problem, Error::Interrupted { .. }) {
            interrupt::acknowledge();
        }
        // `main` prints the message on the terminal; this one is for the log file.
        problem.lines().iter().for_each(|line| error!(target: LOG, "{line}"));
    }
    let closed = mllog.close(result.is_ok());
    match (&result, unfinished.0) {
        (Err(_), _) => info!(target: LOG, "{task}: aborted"),
        (Ok(_), Some(reason)) => info!(target: LOG, "{task}: unfinished: {reason}"),
        (Ok(_), None) => info!(target: LOG, "{task}: success"),
    }
    let closed = closed.and(console.close_log());
    match (result, closed) {
        (Err(failure), closed) => {
            closed.unwrap_or_else(|lost| console::report(&lost));
            Err(failure)
        }
        (Ok(done), closed) => closed.map(|()| done),
    }
}

/// Why a training was ended before its end, if it was.
struct Reason(Option<String>);

impl Listener for Reason {
    fn on(&mut self, event: RunEvent) {
        if let RunEvent::Unfinished { reason } = event {
            self.0 = Some(reason.to_string());
        }
    }
}
