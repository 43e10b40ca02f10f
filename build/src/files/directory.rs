//! The directory of outputs, before the first of them is written: it is made, tried, and tidied up.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::atomic::{TEMPORARY, sync, temporary};
use super::lock::DirectoryLock;
use super::{directory_of, give_to_owner_of, is_unsupported, set};
use crate::error::{Error, Result};
use crate::open;
use crate::threads;

/// Where a file system has no locks, temporary files older than this are leftovers: nothing here takes a day to write.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory in which files can be written.
#[derive(Debug)]
pub struct OutputDirectory {
    path: PathBuf,
    /// Whether its file system can rename files.
    renames: bool,
}

impl OutputDirectory {
    /// Makes the directory with its parents if it is missing, proves with a small file that files can be written, synced
    /// and renamed there, and removes the temporary files that killed processes left, unless they wait for their names: see
    /// [`finish_set`](Self::finish_set).
    ///
    /// # Errors
    /// It cannot be made, is not a directory, or refuses files.
    pub fn open(path: &Path) -> Result<Self> {
        make_directory(path)?;
        let renames = try_out(path).map_err(Error::io("write into the directory", path))?;
        let directory = Self { path: path.into(), renames };
        if renames {
            directory.remove_leftovers();
        } else {
            // Leftovers stay: a result that was kept has a temporary name.
            warn!("{}: this file system cannot rename files: they are written in place", path.display());
        }
        Ok(directory)
    }

    /// Ends the renames that a killed process began for a set of files whose names are among `names`.
    ///
    /// # Errors
    /// They cannot be renamed.
    pub fn finish_set(&self, names: &[&str]) -> Result<()> {
        if self.renames {
            match set::finish(&self.path, names) {
                Err(Error::InUse { .. }) => {} // that process ends them itself
                finished => finished?,
            }
            self.remove_leftovers();
        }
        Ok(())
    }

    fn remove_leftovers(&self) {
        if !set::has_journal(&self.path) {
            remove_leftovers(&self.path);
        }
    }

    /// Keeps other processes from locking the directory, until the value is dropped. None where the file system has no
    /// locks.
    ///
    /// # Errors
    /// Another process has locked it, which the message names.
    pub fn lock(&self) -> Result<Option<DirectoryLock>> {
        DirectoryLock::take(&self.path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `other` is the same directory by another name.
    pub fn is(&self, other: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        real(&self.path).is_some_and(|path| real(other) == Some(path))
    }

    /// Checks that files of these names can be written later: none is a directory, and where the file system cannot
    /// replace files, none is there.
    ///
    /// # Errors
    /// One is.
    pub fn check<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for path in names.into_iter().map(|name| self.path.join(name)) {
            if path.is_dir() {
                return Err(Error::io("write", path)(io::ErrorKind::IsADirectory.into()));
            } else if !self.renames && path.exists() {
                return Err(Error::NoRename { path });
            }
        }
        Ok(())
    }
}

/// [`OutputDirectory::open`] for a directory whose files need no check.
///
/// # Errors
/// See there.
pub fn writable_directory(path: &Path) -> Result<()> {
    OutputDirectory::open(path).map(drop)
}

/// Makes the directory with its parents, if it is missing; each gets the owner of the one that it is in. Should the task
/// fail, those that are still empty go.
///
/// # Errors
/// The operating system refuses, or a link on the way leads nowhere.
pub fn make_directory(path: &Path) -> Result<()> {
    make(path, |made| all_made().push(made.into()))
}

/// The same for a directory that is a result itself: it stays.
///
/// # Errors
/// See [`make_directory`].
pub fn make_lasting_directory(path: &Path) -> Result<()> {
    make(path, |_| ())
}

fn make(path: &Path, note: impl Fn(&Path)) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    if let Some((link, target)) = missing.iter().find_map(|part| Some((part, fs::read_link(part).ok()?))) {
        return Err(Error::DanglingLink { path: link.to_path_buf(), target });
    }
    if let Some(file) = path.ancestors().find(|part| part.exists()).filter(|part| !part.is_dir()) {
        let found = file.metadata().map_or("a file", |found| open::kind(found.file_type()));
        let problem = io::Error::new(io::ErrorKind::NotADirectory, format!("expected a directory, found {found}"));
        return Err(Error::io("create the directory", file)(problem));
    }
    let created = fs::create_dir_all(path);
    for made in missing.iter().rev().filter(|made| made.is_dir()) {
        give_to_owner_of(directory_of(made), made);
        note(made);
    }
    created.map_err(Error::io("create the directory", path))
}

/// Whether `path` is `directory` or lies below it, by whatever names. Neither needs to be there yet.
pub fn lies_in(path: &Path, directory: &Path) -> bool {
    real(path).starts_with(real(directory))
}

/// `path` from the root and without links. What is missing of it will be made, so that it holds no link.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    path.components().fold(PathBuf::new(), |mut done, part| match part {
        Component::Normal(name) => {
            done.push(name);
            done.canonicalize().unwrap_or(done)
        }
        Component::ParentDir => {
            done.pop(); // it holds no link
            done
        }
        root => {
            done.push(root);
            done
        }
    })
}

/// The directories that this process made, each after the one that it is in.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);

fn all_made() -> MutexGuard<'static, Vec<PathBuf>> {
    threads::lock(&MADE)
}

/// Removes the directories that this process made and wrote nothing into: what a failed task leaves is of use.
pub fn remove_empty_directories() {
    // One that is not empty stays: the operating system refuses.
    all_made().drain(..).rev().for_each(|made| _ = fs::remove_dir(made));
}

/// Writes, syncs and renames a small file. Returns whether the file system can rename.
fn try_out(directory: &Path) -> io::Result<bool> {
    let mut file = temporary(directory, ".probe.")?;
    file.as_file_mut().write_all(b"probe")?;
    sync(file.as_file(), directory)?;
    let mut renamed = file.path().as_os_str().to_owned();
    renamed.push(TEMPORARY); // a leftover too, should this process be killed now
    match fs::rename(file.path(), &renamed) {
        Ok(()) => fs::remove_file(renamed).map(|()| true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the temporary files of killed processes. Those of living ones are locked.
fn remove_leftovers(directory: &Path) {
    // Files that cannot be listed or removed stay: they do no harm.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_encoded_bytes().ends_with(TEMPORARY.as_bytes());
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // The lock is held until the file is gone: its process, which may just be locking it, takes another one then.
        if left(&path).is_some_and(|_locked| fs::remove_file(&path).is_ok()) {
            info!(target: crate::text::LOG, "{}: removed, left by a process that was killed", path.display());
        }
    }
}

/// Whether a living process writes the temporary file at `path`.
pub fn is_being_written(path: &Path) -> bool {
    path.exists() && left(path).is_none()
}

/// The file at `path`, locked where that is possible, if it belongs to no living process.
fn left(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let is_left = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = modified.and_then(|time| SystemTime::now().duration_since(time).ok());
            age.is_some_and(|age| age > STALE)
        }
    };
    is_left.then_some(file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::files::AtomicFile;

    #[test]
    fn a_file_that_is_just_begun_is_no_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        remove_leftovers(dir.path());
                    }
                });
            }
            let lost = (0..2000).filter(|_| {
                let file = temporary(dir.path(), ".begun.").unwrap();
                (0..20).for_each(|_| std::thread::yield_now());
                !file.path().exists()
            });
            let lost = lost.count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        fs::write(&path, "").unwrap();
        let message = writable_directory(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot create the directory: ", path.display())), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/gone/away", &link).unwrap();
        for path in [link.clone(), link.join("deeper")] {
            let message = writable_directory(&path).unwrap_err().to_string();
            let expected = "expected a directory, found a link to /gone/away, which is not there";
            assert_eq!(message, format!("{}: {expected}", link.display()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_lies_in_a_directory_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("one/two")).unwrap();
        std::os::unix::fs::symlink("one/two", at("link")).unwrap();
        for inside in ["one", "one/", "one/two", "one/new/deep", "link", "link/new", "link/..", "new/../one/./x"] {
            assert!(lies_in(&at(inside), &at("one")), "{inside}");
        }
        for outside in ["", "one/..", "ones", "new", "one/../new", "link/../../new"] {
            assert!(!lies_in(&at(outside), &at("one")), "{outside}");
        }
        assert!(lies_in(&at("one/two/x"), &at("link")));
    }

    #[test]
    fn leftovers_of_dead_processes_go_and_files_of_living_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (left, users) = (dir.path().join(".model.safetensors.aB3xYz.mnist-part"), dir.path().join("thesis.part"));
        fs::write(&left, "half").unwrap();
        fs::write(&users, "mine").unwrap();
        let mut living = AtomicFile::create(dir.path().join("model")).unwrap();
        living.write_all(b"new").unwrap();
        writable_directory(dir.path()).unwrap();
        assert!(!left.exists() && users.exists());
        living.commit().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
