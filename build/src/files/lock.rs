//! A directory that one process at a time writes.
//!
//! The lock is an advisory one on the file [`NAME`] (`flock`), which the operating system releases however the process
//! ends. The file names the process for the error of a second one, and is removed with the lock. Whatever else has that
//! name, such as a link, is a user's: it is an error and stays as it is.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::is_unsupported;
use crate::error::{Error, Result};
use crate::open;

/// The file in the locked directory.
pub const NAME: &str = ".mnist-lock";
/// [`DirectoryLock::check_free`] of another process has long let go by then.
const LOOK: Duration = Duration::from_millis(50);

/// A directory that this process alone writes, until the value is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
    /// Open as long as the lock is held.
    file: File,
}

impl DirectoryLock {
    /// Locks `directory`. None where the file system has no locks, after a warning.
    ///
    /// # Errors
    /// Another process holds the lock, which the message names; or the directory cannot be written; or something else is in
    /// the place of the lock's file.
    pub fn take(directory: &Path) -> Result<Option<Self>> {
        let taken = Self::take_quietly(directory)?;
        if taken.is_none() {
            warn!("{}: this file system has no locks: let no second training write there", directory.display());
        }
        Ok(taken)
    }

    /// The same without the warning.
    ///
    /// # Errors
    /// See [`take`](Self::take).
    pub fn take_quietly(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(NAME);
        let begin = Instant::now();
        loop {
            let mut file = open_own(&path, OpenOptions::new().read(true).write(true).create(true))?;
            match file.try_lock() {
                Ok(()) if !is_at(&file, &path) => {} // its holder has just removed it: there is a new one, or none
                Ok(()) => {
                    let named = file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes()));
                    named.map_err(Error::io("write", &path))?;
                    return Ok(Some(Self { path, file }));
                }
                Err(TryLockError::WouldBlock) if begin.elapsed() < LOOK => thread::sleep(LOOK / 10),
                Err(TryLockError::WouldBlock) => return Err(in_use(directory, &mut file)),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    super::remove(&path)?;
                    return Ok(None);
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }

    /// Checks that no process holds the lock of `directory`, and writes nothing.
    ///
    /// # Errors
    /// One does, which the message names; or something else is in the place of the lock's file.
    pub fn check_free(directory: &Path) -> Result<()> {
        let mut file = match open_own(&directory.join(NAME), OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(in_use(directory, &mut file)),
            _ => Ok(()),
        }
    }

    /// Checks that the directory is still locked by this: another one may have its name by now, or somebody has taken the
    /// lock's file away.
    ///
    /// # Errors
    /// It is not.
    pub fn check_held(&self) -> Result<()> {
        if is_at(&self.file, &self.path) {
            return Ok(());
        }
        let found = if self.path.symlink_metadata().is_ok() { "that of another" } else { "none" };
        Err(Error::LockLost { path: self.path.clone(), found })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // While the lock is held, no other process can have taken it.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the lock's file. No link is followed, since the file is written.
fn open_own(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let expect_own = |metadata: Metadata| {
        let found = match names(&metadata) {
            _ if !metadata.is_file() => open::kind(metadata.file_type()).to_string(),
            0 | 1 => return Ok(()),
            many => format!("one with {many} names"),
        };
        Err(Error::InTheWay { path: path.into(), found })
    };
    // Looked at first, since opening a device may do something, and again, since it may have been replaced.
    path.symlink_metadata().ok().map(expect_own).transpose()?;
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits() as i32);
    }
    let file = options.open(path).map_err(Error::io("open", path))?;
    expect_own(file.metadata().map_err(Error::io("open", path))?)?;
    Ok(file)
}

/// How many names a file has.
fn names(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(metadata);
    #[cfg(not(unix))]
    {
        let _ = metadata;
        1
    }
}

/// Whether `path` is `file` and no link to it.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        file.metadata().ok().map(id).is_some_and(|open| path.symlink_metadata().ok().map(id) == Some(open))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

fn in_use(directory: &Path, file: &mut File) -> Error {
    Error::InUse { directory: directory.into(), holder: holder(file) }
}

/// The name of this machine, or of this container.
pub fn host() -> String {
    #[cfg(unix)]
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let host = std::env::var("COMPUTERNAME").unwrap_or_default();
    host.replace(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c), "_") // it becomes part of a file name
}

/// This process, as [`holder`] shows it to others.
fn this_process() -> String {
    format!("process {} on {}", std::process::id(), host())
}

/// The process that holds the lock, as it has named itself.
fn holder(file: &mut File) -> String {
    let mut name = String::new();
    let read = file.rewind().and_then(|()| file.take(300).read_to_string(&mut name));
    if read.is_ok() && name.starts_with("process ") { name } else { "another process".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_holds_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let message = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        let expected = format!("{}: {} is writing there", dir.path().display(), this_process());
        assert_eq!(message, expected);
        drop(first);
        assert!(!dir.path().join(NAME).exists());
        assert!(DirectoryLock::take(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_file_that_a_killed_process_left_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "process 1 on elsewhere").unwrap();
        drop(DirectoryLock::take(dir.path()).unwrap());
        assert!(!dir.path().join(NAME).exists());
    }
}
