//! The end of the time that a training may take.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;

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

/// Whether work may go on.
///
/// # Errors
/// SIGINT or SIGTERM arrived, or the time is over.
pub fn check(deadline: Option<Deadline>) -> Result<()> {
    interrupt::check()?; // first, since its exit code is awaited
    deadline.map_or(Ok(()), Deadline::check)
}
