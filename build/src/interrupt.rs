//! SIGHUP, SIGINT and SIGTERM as a flag that long work asks between steps. Another signal ends the process at once, but
//! only some time after the first: `timeout` and shells send the same one to a process and then to its group.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

/// Signals within this time after the first are the same one.
const SAME: Duration = Duration::from_secs(1);
/// How often the thread that counts this time looks for the first signal.
const TICK: Duration = Duration::from_millis(100);

static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
/// Whether the next signal ends the process at once.
static AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts listening. Called once, by `main`, before any work.
pub fn install() -> Result<()> {
    let signals = RECEIVED.get_or_init(Arc::default);
    let at_once = AT_ONCE.get_or_init(Arc::default);
    let mut listened = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    if !hang_up_is_ignored() {
        listened.push(signal_hook::consts::SIGHUP);
    }
    for signal in listened {
        flag::register_conditional_shutdown(signal, 128 + signal, at_once.clone())
            .and_then(|_| flag::register_usize(signal, signals.clone(), signal as usize))
            .map_err(Error::io("listen for signals to", "this process"))?;
    }
    thread::spawn(move || {
        while received().is_none() {
            thread::sleep(TICK);
        }
        thread::sleep(SAME);
        end_at_once();
    });
    Ok(())
}

/// From now on a signal ends the process at once: for work that leaves nothing behind.
pub fn end_at_once() {
    AT_ONCE.get_or_init(Arc::default).store(true, Ordering::Relaxed);
}

/// While this lives, a signal ends the process at once: for waits that nothing else interrupts.
#[derive(Debug)]
pub struct EndAtOnce {
    before: bool,
}

impl EndAtOnce {
    /// Begins such a wait.
    pub fn begin() -> Self {
        Self { before: AT_ONCE.get_or_init(Arc::default).swap(true, Ordering::Relaxed) }
    }
}

impl Drop for EndAtOnce {
    fn drop(&mut self) {
        if received().is_none() {
            AT_ONCE.get_or_init(Arc::default).store(self.before, Ordering::Relaxed);
        }
    }
}

/// `nohup` starts a program with SIGHUP ignored, so that it outlives its terminal; where nothing tells, it is left alone.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 << (signal_hook::consts::SIGHUP - 1) != 0)
}

/// The signal received so far, if any.
pub fn received() -> Option<i32> {
    RECEIVED.get().map(|signal| signal.load(Ordering::Relaxed) as i32).filter(|signal| *signal != 0)
}

/// Returns [`Error::Interrupted`] once a signal has been received.
pub fn check() -> Result<()> {
    match received() {
        None => Ok(()),
        Some(signal) => Err(Error::Interrupted { signal }),
    }
}
