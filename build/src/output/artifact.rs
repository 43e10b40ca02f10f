//! The kind of file that a training run leaves. [`artifacts`](super::artifacts) lists them.

use std::path::PathBuf;

use crate::error::Result;
use crate::files;
use crate::output::finished::Finished;

/// A file that a training run leaves.
#[derive(Debug)]
pub struct Artifact {
    /// Its name in the summary.
    pub name: &'static str,
    /// The name of the file.
    pub file_name: &'static str,
    /// Where the file goes.
    pub directory: Directory,
    /// Whether a run that cannot write it stops writing MODEL_DIR there. The others are made from the model: each is
    /// tried, and a failure costs only the one.
    pub essential: bool,
    /// The file's contents; none where the run has not what they are made from.
    pub encode: fn(&Finished) -> Option<Vec<u8>>,
}

/// One of the output directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// MODEL_DIR: written only after a run that gave a model.
    Model,
    /// LOG_DIR: written even where training failed.
    Logs,
}

/// The output directories of a run.
#[derive(Debug, Clone)]
pub struct Directories {
    /// MODEL_DIR.
    pub model: PathBuf,
    /// LOG_DIR.
    pub logs: PathBuf,
}

impl Artifact {
    /// Where the file goes.
    pub fn path(&self, directories: &Directories) -> PathBuf {
        let directory = match self.directory {
            Directory::Model => &directories.model,
            Directory::Logs => &directories.logs,
        };
        directory.join(self.file_name)
    }

    /// Writes the file, and returns its path; none where it has no contents.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, finished: &Finished, directories: &Directories) -> Result<Option<PathBuf>> {
        let Some(bytes) = (self.encode)(finished) else { return Ok(None) };
        let path = self.path(directories);
        files::write(&path, &bytes)?;
        Ok(Some(path))
    }
}
