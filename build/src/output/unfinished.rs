//! `MODEL_DIR/unfinished`: the files of an unfinished training, where those of a finished one stand in MODEL_DIR.
//!
//! Only a model that is marked as unfinished is replaced or removed there. A link is not followed, since this program makes
//! none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::artifacts;
use crate::error::{Error, Result};
use crate::files::lock::DirectoryLock;
use crate::files::{self, make_directory};
use crate::model::file as weights;
use crate::open;

/// The directory, which need not be there.
#[derive(Debug)]
pub struct UnfinishedDirectory {
    path: PathBuf,
    /// Keeps other processes out; none before the directory is made, and where the file system has no locks.
    lock: Option<DirectoryLock>,
}

impl UnfinishedDirectory {
    /// That of `model_dir`, locked if it is there.
    ///
    /// # Errors
    /// Something else has its name, it holds another model than an unfinished one, another process writes there, or it
    /// cannot be written.
    pub fn of(model_dir: &Path) -> Result<Self> {
        Self::at(model_dir.join(weights::UNFINISHED))
    }

    fn at(path: PathBuf) -> Result<Self> {
        let found = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path, lock: None }),
            found => found.map_err(Error::io("read", &path))?.file_type(),
        };
        if !found.is_dir() {
            return Err(Error::NotUnfinished { path, found: open::kind(found) });
        }
        let directory = artifacts::open(&path)?;
        directory.check(artifacts::names())?;
        let lock = directory.lock()?;
        if artifacts::is_finished(&path) {
            return Err(Error::NotUnfinished { path, found: "one with a model that is not marked as unfinished" });
        }
        Ok(Self { path, lock })
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// See [`of`](Self::of).
    pub fn make(self) -> Result<Self> {
        if self.lock.is_some() {
            return Ok(self);
        }
        if self.path.symlink_metadata().is_err() {
            make_directory(&self.path)?;
        }
        Self::at(self.path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its lock.
    pub fn lock(&self) -> Option<&DirectoryLock> {
        self.lock.as_ref()
    }

    /// Removes the files of an unfinished training, and the directory unless the user put something into it.
    ///
    /// # Errors
    /// They cannot be removed, or the directory is another than before.
    pub fn remove(self) -> Result<()> {
        let Self { path, lock } = if self.lock.is_some() { self } else { Self::at(self.path)? };
        lock.as_ref().map_or(Ok(()), DirectoryLock::check_held)?;
        // Looked at again, since the user may have put something there. The model goes last: it tells what they are.
        artifacts::refuse_strangers(&path, artifacts::names())?;
        if path.join(weights::FILE_NAME).exists() && weights::is_unfinished(&path) {
            artifacts::names().rev().try_for_each(|name| files::remove(&path.join(name)))?;
        }
        drop(lock); // whose file is the last one there
        let _ = fs::remove_dir(&path);
        Ok(())
    }
}
