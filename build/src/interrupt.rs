//! SIGHUP, SIGINT and SIGTERM as a flag that long work asks. Work that does not ask within a second is ended, with its
//! process; a training that has a model has half a minute. Another signal ends the process at once, but only some time
//! after the first: `timeout` and shells send the same one to a process and then to its group.
//!
//! A loop over much work ends early once [`is_received`] says so. What it has computed is then worthless, so whoever began
//! it calls [`check`] afterwards. The end of the time that a training may take ends such work in the same way.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGABRT, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Error, Result};
use crate::threads;

/// Signals within this time after the first are the same one. Work that has not heard it until then is ended.
const SAME: Duration = Duration::from_millis(800);
/// The same for work that would lose something: see [`be_patient`].
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the thread that counts this time looks for the first signal.
const TICK: Duration = Duration::from_millis(100);

static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
/// Whether the next signal ends the process at once.
static AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Whether work has [`PATIENCE`] to hear.
static PATIENT: AtomicBool = AtomicBool::new(false);
/// Whether the process ends itself after the first signal: it writes its logs, or finishes what must be finished.
static ACKNOWLEDGED: AtomicBool = AtomicBool::new(false);
/// The bits of the seconds that work could take, once these are over; else 0.
static OVERDUE: AtomicU64 = AtomicU64::new(0);
/// The thread that writes the logs.
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// Starts listening. Called once, by `main`, before any work.
pub fn install() -> Result<()> {
    MAIN.get_or_init(|| thread::current().id());
    let signals = RECEIVED.get_or_init(Arc::default);
    let at_once = AT_ONCE.get_or_init(Arc::default);
    let mut listened = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    if !hang_up_is_ignored() {
        listened.push(signal_hook::consts::SIGHUP);
    }
    let failed = || Error::io("listen for signals to", "this process");
    for &signal in &listened {
        flag::register_conditional_shutdown(signal, 128 + signal, at_once.clone())
            .and_then(|_| flag::register_usize(signal, signals.clone(), signal as usize))
            .map_err(failed())?;
    }
    if threads::start(watch).is_err() {
        // Nobody counts the time: the second signal ends the process whenever it comes.
        for signal in listened {
            flag::register(signal, at_once.clone()).map_err(failed())?;
        }
    }
    hear_limits(signals).map_err(failed())
}

/// Makes failures of signals that the system's limits send.
#[cfg_attr(not(unix), expect(unused_variables, reason = "no limit of time"))]
fn hear_limits(signals: &Arc<AtomicUsize>) -> io::Result<()> {
    // Out of memory: the standard library says so and aborts.
    flag::register_conditional_shutdown(SIGABRT, 1, Arc::new(AtomicBool::new(true)))?;
    // A file that grows beyond `ulimit -f`: the write fails.
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    // The processor's time by `ulimit -t` is over: as if somebody had sent it. It comes again every second, which ends
    // nothing at once.
    #[cfg(unix)]
    flag::register_usize(signal_hook::consts::SIGXCPU, signals.clone(), signal_hook::consts::SIGXCPU as usize)?;
    Ok(())
}

/// Waits for the first signal, and ends the process if nobody else does.
fn watch() {
    let signal = loop {
        match received() {
            Some(signal) => break signal,
            None => thread::sleep(TICK),
        }
    };
    let begin = Instant::now();
    thread::sleep(SAME);
    end_at_once();
    while PATIENT.load(Ordering::Relaxed) && !ACKNOWLEDGED.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
        thread::sleep(TICK);
    }
    if !ACKNOWLEDGED.load(Ordering::Relaxed) {
        // Not by the console, which the work that does not hear may hold; and a pipe that takes nothing delays no exit.
        let message = format!("error: {}\n", Error::Interrupted { signal });
        let _ = threads::start(move || _ = io::Write::write_all(&mut io::stderr(), message.as_bytes()));
        thread::sleep(TICK);
        low_level::exit(128 + signal);
    }
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

/// From now on the first signal does not end the process after a second: for work that is worth finishing, and for
/// programs that were started and need time to end.
pub fn acknowledge() {
    ACKNOWLEDGED.store(true, Ordering::Relaxed);
}

/// From now on work has longer to hear a signal: something would be lost, and a step may take a while.
pub fn be_patient() {
    PATIENT.store(true, Ordering::Relaxed);
}

/// `nohup` starts a program with SIGHUP ignored, so that it outlives its terminal; where nothing tells, it is left alone.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 << (signal_hook::consts::SIGHUP - 1) != 0)
}

/// Whether this process listens.
pub fn is_installed() -> bool {
    RECEIVED.get().is_some()
}

/// The signal received so far, if any.
#[inline]
pub fn received() -> Option<i32> {
    RECEIVED.get().map(|signal| signal.load(Ordering::Relaxed) as i32).filter(|signal| *signal != 0)
}

/// The `seconds` that work could take are over; none: other work begins.
pub fn set_overdue(seconds: Option<f64>) {
    OVERDUE.store(seconds.map_or(0, f64::to_bits), Ordering::Relaxed);
}

/// Whether a signal has been received, or the time is over. Takes about a nanosecond.
#[inline]
pub fn is_received() -> bool {
    received().is_some() || OVERDUE.load(Ordering::Relaxed) != 0
}

/// Returns [`Error::Interrupted`] once a signal has been received, and [`Error::OutOfTime`] once the time is over.
pub fn check() -> Result<()> {
    match received() {
        None => match OVERDUE.load(Ordering::Relaxed) {
            0 => Ok(()),
            seconds => Err(Error::OutOfTime { seconds: f64::from_bits(seconds) }),
        },
        Some(signal) => {
            // The error is on its way to where the logs are written.
            if MAIN.get() == Some(&thread::current().id()) {
                acknowledge();
            }
            Err(Error::Interrupted { signal })
        }
    }
}
