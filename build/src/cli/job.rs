//! The commands that a runner sends to this program on another machine.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;

/// `mnist cube job`, which no person types: see `cube/job.rs`.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each is what its command is about")]
pub enum JobCommand {
    /// Start a task; what it is, in JSON, comes first.
    Start {
        directory: PathBuf,
        about: String,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run the task and write its exit code down.
    Supervise {
        directory: PathBuf,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Copy the task's output until it ends.
    Follow { directory: PathBuf },
    /// Send it a signal.
    Stop { directory: PathBuf, signal: i32 },
    /// What there is, in JSON.
    State { directory: PathBuf },
    /// Keep the place from others until stdin ends.
    Hold { directory: PathBuf },
    /// Forget the task.
    Free { directory: PathBuf },
    /// The files in a directory, in JSON.
    List { directory: PathBuf },
    /// End a process group once stdin ends without a byte.
    #[cfg(unix)]
    Guard {
        group: i32,
        /// The program that brings signals to it, without `--signal`.
        #[arg(last = true)]
        messenger: Vec<OsString>,
    },
    /// Write files to stdout as one stream; each source is NAME=PATH.
    Pack {
        /// Only what has changed since this file was made by `mark`.
        #[arg(long)]
        since: Option<PathBuf>,
        sources: Vec<String>,
    },
    /// Read such a stream from stdin.
    Unpack { directory: PathBuf },
    #[cfg(unix)]
    /// In a pod: wait for a file, with so many seconds of patience when nothing is at work.
    Wait { file: PathBuf, seconds: u64 },
    #[cfg(unix)]
    /// In a pod: make that file, which holds what is in its directory.
    Mark { file: PathBuf },
    #[cfg(unix)]
    /// In a pod: end the task.
    Signal { signal: i32 },
}
