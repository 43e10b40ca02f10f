//! A file or a directory that takes a while to make, such as a copy or an image, and then gets its name at once.
//!
//! It grows in a hidden directory beside its place, `.NAME.mnist-part`, which only its owner may enter and one process at a
//! time has locked. What a killed process left there goes when the next one begins, or by [`remove_leftover`].

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::info;

use super::atomic::TEMPORARY;
use super::lock::{self, DirectoryLock};
use super::make_directory;
use super::permissions::set_mode;
use crate::error::{Error, Result};
use crate::interrupt;

/// Between two looks whether another process has ended.
const TICK: Duration = Duration::from_millis(50);
/// After so long, a line says what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The hidden directory, until the value is dropped.
#[derive(Debug)]
pub struct Growing {
    directory: PathBuf,
    /// None where the file system has no locks: of two processes at once, one may fail there.
    lock: Option<DirectoryLock>,
}

impl Growing {
    /// Makes the directory for what will become `target`, in whose own directory files can be written. Waits while another
    /// process has it: `target` may be there then.
    ///
    /// # Errors
    /// It cannot be written, something else has its name, or a signal arrived.
    pub fn beside(target: &Path) -> Result<Self> {
        let directory = place_of(target);
        if directory.is_symlink() {
            return Err(Error::InTheWay { path: directory, found: "a link".into() });
        }
        let growing = Self { lock: hold(&directory, target)?, directory };
        empty(&growing.directory)?; // of what a killed process left
        set_mode(&growing.directory, 0o700)?;
        Ok(growing)
    }

    /// The path of `name` in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let _ = empty(&self.directory); // the next process tries again
        self.lock = None;
        let _ = fs::remove_dir(&self.directory); // which another process may have by now
    }
}

/// Removes what a killed process left of what should have become `target`.
pub fn remove_leftover(target: &Path) {
    let directory = place_of(target);
    let is_there = directory.symlink_metadata().is_ok_and(|found| found.is_dir());
    // That of a living process is locked.
    if is_there && let Ok(lock @ Some(_)) = DirectoryLock::take_quietly(&directory) {
        info!("{}: removed, left by a process that was killed", directory.display());
        drop(Growing { directory, lock });
    }
}

/// The directory in which `target` grows: on the same file system.
fn place_of(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    target.with_file_name(name)
}

/// Makes `directory` and locks it, once no other process has it.
fn hold(directory: &Path, target: &Path) -> Result<Option<DirectoryLock>> {
    let begin = Instant::now();
    let mut is_said = false;
    loop {
        interrupt::check()?;
        match make_directory(directory).and_then(|()| DirectoryLock::take_quietly(directory)) {
            Err(Error::InUse { holder, .. }) => {
                if !is_said && begin.elapsed() > PATIENCE {
                    is_said = true;
                    info!("{}: waiting for {holder}, which makes it", target.display());
                }
                thread::sleep(TICK);
            }
            // Its holder has just removed it.
            Err(Error::Io { source, .. })
                if [ErrorKind::NotFound, ErrorKind::AlreadyExists].contains(&source.kind()) => {}
            taken => return taken,
        }
    }
}

/// Removes what `directory` holds, except its lock.
fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let path = entry.path();
        if path.ends_with(lock::NAME) {
            continue;
        }
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(Error::io("remove", &path))?;
    }
    Ok(())
}
