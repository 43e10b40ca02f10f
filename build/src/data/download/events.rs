//! What happens during a download, for progress bars and logs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tracing::{info, warn};

use crate::data::sets::SourceFile;
use crate::text::{LOG, PROGRESS};
use crate::threads;

/// Where one of the files is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was there as this file, below the directory, and is used as it is.
    There(PathBuf),
    /// It was there as this file, which stays, and was decompressed or copied.
    Unpacked(PathBuf),
    /// From this mirror, as shown to users.
    Mirror(String),
    /// This program generated it: synthetic data.
    Drawn,
    /// It generated it earlier, as this file, below the directory.
    DrawnBefore(PathBuf),
}

impl Origin {
    /// Where `file` now is, below the directory.
    pub fn place<'a>(&'a self, file: &'a SourceFile) -> &'a Path {
        match self {
            Self::There(place) | Self::DrawnBefore(place) => place,
            _ => Path::new(file.name),
        }
    }

    /// Without the hash, which is right in any case.
    pub fn in_short(&self) -> String {
        match self {
            Self::There(_) | Self::DrawnBefore(_) => "there already".into(),
            Self::Unpacked(from) => format!("from {}", from.display()),
            Self::Mirror(mirror) => format!("from {mirror}"),
            Self::Drawn => "drawn".into(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drawn => f.write_str("drawn, not MNIST"),
            Self::DrawnBefore(_) => write!(f, "{}, drawn, not MNIST", self.in_short()),
            Self::Unpacked(_) => write!(f, "{}, which was there, SHA-256 right", self.in_short()),
            Self::There(_) | Self::Mirror(_) => write!(f, "{}, SHA-256 right", self.in_short()),
        }
    }
}

/// Something that happens to a file.
#[derive(Debug)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum DownloadEvent<'a> {
    /// Bytes begin to arrive. `total` counts them as sent, if the server says how many there are.
    Started { mirror: &'a str, total: Option<u64> },
    /// So many bytes have arrived, as sent.
    Received { bytes: u64 },
    /// The mirror will be asked again after a wait.
    Retry { mirror: &'a str, answer: &'a str, wait: Duration },
    /// A mirror is given up.
    MirrorFailed { mirror: &'a str, answer: &'a str },
    /// The file is there.
    Done { origin: &'a Origin },
}

/// Receives the events, for example to draw progress bars. Called from several threads.
pub trait DownloadWatch: Sync {
    /// Something happened to `file`.
    fn on(&self, file: &SourceFile, event: &DownloadEvent);
}

/// Watches nothing.
impl DownloadWatch for () {
    fn on(&self, _: &SourceFile, _: &DownloadEvent) {}
}

/// Logs events and passes them on.
pub struct Reporter<'a> {
    watch: &'a dyn DownloadWatch,
    /// Mirrors and their answers that were shown. Four files mostly fail for the same reason, which is shown once.
    shown: Mutex<Vec<(String, String)>>,
}

impl<'a> Reporter<'a> {
    /// Passes events on to `watch`.
    pub fn new(watch: &'a dyn DownloadWatch) -> Self {
        Self { watch, shown: Mutex::default() }
    }

    /// Logs an event of `file` and passes it on.
    pub fn report(&self, file: &SourceFile, event: &DownloadEvent) {
        let name = file.name;
        match event {
            DownloadEvent::Started { mirror, total: Some(total) } => {
                info!(target: PROGRESS, "{name}: {total} bytes from {mirror}");
            }
            DownloadEvent::Started { mirror, total: None } => info!(target: PROGRESS, "{name}: from {mirror}"),
            DownloadEvent::Received { .. } => {}
            DownloadEvent::Retry { mirror, answer, wait } => {
                warn!(target: LOG, "{name}: {mirror}: {answer}; once more in {:.1} s", wait.as_secs_f64());
            }
            DownloadEvent::MirrorFailed { mirror, answer } if self.is_new(mirror, answer) => {
                warn!("{mirror}: {answer}");
            }
            DownloadEvent::MirrorFailed { mirror, answer } => warn!(target: LOG, "{name}: {mirror}: {answer}"),
            DownloadEvent::Done { origin } => {
                info!(target: PROGRESS, "{}: {origin}", origin.place(file).display());
            }
        }
        self.watch.on(file, event);
    }

    fn is_new(&self, mirror: &str, answer: &str) -> bool {
        let mut shown = threads::lock(&self.shown);
        let answer = (mirror.to_string(), answer.to_string());
        let new = !shown.contains(&answer);
        shown.push(answer);
        new
    }
}
