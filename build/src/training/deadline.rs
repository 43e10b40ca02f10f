//! The end of the time that a training may take.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::threads;

/// A moment at which work ends.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// The moment; none if no clock comes so far.
    pub(super) at: Option<Instant>,
    /// The time until there, for the message.
    seconds: f64,
}

impl Deadline {
    /// `seconds` after `begin`.
    pub fn after(begin: Instant, seconds: f64) -> Self {
        let limit = Duration::try_from_secs_f64(seconds).ok();
        Self { at: limit.and_then(|limit| begin.checked_add(limit)), seconds }
    }

    /// # Errors
    /// It is over.
    fn check(self) -> Result<()> {
        if self.at.is_some_and(|at| Instant::now() >= at) {
            return Err(Error::OutOfTime { seconds: self.seconds });
        }
        Ok(())
    }
}

/// While this lives, the deadline ends work in the middle of a long step, as a signal does.
#[derive(Debug)]
pub struct Alarm {
    /// The thread that waits for the deadline, and what tells it that it need not.
    waiting: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Alarm {
    /// Begins to wait for `deadline`. Where the system starts no more threads, work ends between two steps only.
    pub fn begin(deadline: Option<Deadline>) -> Self {
        let (over, is_over) = mpsc::channel::<()>();
        let wait = move |at: Instant, seconds| {
            let left = at.saturating_duration_since(Instant::now());
            if is_over.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                interrupt::set_overdue(Some(seconds));
            }
        };
        let begin = |Deadline { at, seconds }| Some((at?, seconds));
        let waiting = deadline.and_then(begin).and_then(|(at, seconds)| threads::begin(move || wait(at, seconds)).ok());
        Self { waiting: waiting.map(|thread| (over, thread)) }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.waiting.take() {
            drop(over);
            threads::end(thread);
            interrupt::set_overdue(None);
        }
    }
}

/// Whether work may go on.
///
/// # Errors
/// SIGINT or SIGTERM arrived, or the time is over.
pub fn check(deadline: Option<Deadline>) -> Result<()> {
    interrupt::check()?; // first, since its exit code is awaited
    deadline.map_or(Ok(()), Deadline::check)
}
