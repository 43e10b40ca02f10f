//! Outputs that were brought here get their names, all of a directory at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::lock::{self, DirectoryLock};
use crate::files::set::{self, FileSet};
use crate::files::{self, OutputDirectory};
use crate::output::{artifacts, names};

/// The directory in the workspace that outputs are brought into: so there is room for them and those that they replace. One
/// process at a time has it, and what a killed one left there goes.
#[derive(Debug)]
pub struct Brought {
    directory: PathBuf,
    _lock: Option<DirectoryLock>,
}

impl Brought {
    /// Makes it, empty.
    ///
    /// # Errors
    /// It cannot be made, or another process has it.
    pub fn begin(workspace: &Path) -> Result<Self> {
        let directory = workspace.join(".mlcube-brought");
        files::make_directory(&directory)?;
        let lock = DirectoryLock::take(&directory)?;
        for name in entries(&directory)?.into_iter().filter(|name| name != lock::NAME) {
            fs::remove_dir_all(directory.join(name)).map_err(Error::io("remove", &directory))?;
        }
        Ok(Self { directory, _lock: lock })
    }

    /// What it is in.
    pub fn root(&self) -> &Path {
        &self.directory
    }

    /// A directory for the output `name`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name);
        files::make_directory(&directory)?;
        Ok(directory)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory); // or the next one does
    }
}

/// Puts the files in `stage` in place in `target`, the directory of the output `flag`. Files that a task of this program
/// writes there and that are not in `stage` go: they are those of an earlier run. All others stay.
///
/// # Errors
/// A file cannot be read or written, or another process writes there: what was there stays whole.
pub fn place(stage: &Path, target: &Path, flag: &str) -> Result<()> {
    let brought = entries(stage)?;
    // A task that was killed may have left a set whose files wait for their names.
    let mut names: Vec<&str> = brought.iter().map(String::as_str).collect();
    for name in artifacts::names() {
        names.push(name);
    }
    set::finish(stage, &names)?;
    let brought = entries(stage)?;
    let is_guard = |name: &str| names::is_ours("", name); // of no flag: it guards, or is not finished
    if brought.iter().all(|name| is_guard(name)) && !target.exists() {
        return Ok(());
    }
    let directory = OutputDirectory::open(target)?;
    let known: Vec<&str> = brought.iter().map(String::as_str).filter(|name| !is_guard(name)).collect();
    directory.finish_set(&known)?;
    let held = directory.lock()?;
    let mut set = FileSet::new(target, held.as_ref());
    for &name in &known {
        let path = stage.join(name);
        let kind = path.symlink_metadata().map_err(Error::io("read", &path))?;
        if kind.is_dir() {
            place(&path, &target.join(name), names::subdirectory(flag, name).unwrap_or(name))?;
        } else if !kind.is_file() {
            tracing::warn!("{}: left out, since it is no file", path.display());
        } else if !is_same(&path, &target.join(name)) {
            set.add_copy(name, &path)?;
        }
    }
    let gone = entries(target)?.into_iter().filter(|name| names::is_ours(flag, name) && !is_guard(name));
    let gone: Vec<String> = gone.filter(|name| !brought.contains(name)).collect();
    if !set.is_empty() || !gone.is_empty() {
        set.commit(&gone.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    drop(held);
    for inner in names::directories_in(flag).iter().filter(|inner| !brought.contains(**inner)) {
        let inner = target.join(inner);
        if inner.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            let empty = tempfile::tempdir().map_err(Error::io("make", "a temporary directory"))?;
            place(empty.path(), &inner, inner.file_name().and_then(|name| name.to_str()).unwrap_or_default())?;
            let _ = fs::remove_file(inner.join(lock::NAME)); // its lock is over
            let _ = fs::remove_dir(&inner); // stays if it holds something of a user's
        }
    }
    Ok(())
}

/// The names in a directory.
fn entries(directory: &Path) -> Result<BTreeSet<String>> {
    let read = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect());
    read.map_err(Error::io("read", directory))
}

/// Whether two files have equal size and time, as those have that were brought and have not been changed.
fn is_same(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| {
        let metadata = path.symlink_metadata().ok().filter(|found| found.is_file())?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    look(one).is_some_and(|found| look(other) == Some(found))
}
