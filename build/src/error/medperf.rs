//! The errors of MedPerf's tasks: what a container gets, and what it must not.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::Error;
use crate::text::Problem;

/// One variant per cause, as in [`Error`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message explains each field")]
pub enum MedPerfError {
    /// A file of images or labels that is missing, damaged or of another set.
    #[error("{problem}")]
    Input { problem: Box<Error>, next: &'static str },
    /// A fault in any other input.
    #[error("{}", problem.in_file(path))]
    Fault { path: PathBuf, problem: Problem, next: &'static str },
}

impl MedPerfError {
    /// `error`, with `next` as its hint if it is about an input.
    pub fn input(error: Error, next: &'static str) -> Error {
        match &error {
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {}
            Error::Idx { .. } | Error::Gzip { .. } | Error::OtherSet { .. } | Error::CountsDiffer { .. } => {}
            _ => return error,
        }
        Self::Input { problem: Box::new(error), next }.into()
    }

    /// The next step.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Input { next, .. } | Self::Fault { next, .. } => Some((*next).into()),
        }
    }
}
