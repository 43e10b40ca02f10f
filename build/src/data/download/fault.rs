//! Why an attempt to fetch a file ended.

use std::time::Duration;

use crate::error::Error;

/// Why an attempt ended.
pub enum Stop {
    /// The mirror failed.
    Fault(MirrorFault),
    /// No mirror has delivered anything in the time that all have together.
    Unanswered,
    /// No mirror can help.
    Run(Error),
}

/// What a mirror did wrong, and whether it may help to ask it again.
#[derive(Debug)]
pub struct MirrorFault {
    /// What it did wrong, for users.
    pub answer: String,
    /// Whether it may help to ask again.
    pub again: Again,
    /// The wait that the server asks for.
    pub wait: Option<Duration>,
}

/// How often a mirror is asked again after faults of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would answer the same.
    Never,
    /// It may be chance, but each attempt takes long.
    Once,
    /// As often as the limits allow.
    Often,
}

impl MirrorFault {
    /// A fault whose server asks for no wait.
    pub fn new(again: Again, answer: String) -> Self {
        Self { answer, again, wait: None }
    }
}

impl From<MirrorFault> for Stop {
    fn from(fault: MirrorFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}
