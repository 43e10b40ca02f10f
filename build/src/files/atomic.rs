//! One file that appears whole or not at all: written beside its target under a temporary name, synced, renamed.
//!
//! Source: `rename` and `fsync` of POSIX.1-2017. Where a file system lacks them, see [`AtomicFile::commit`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;
use tracing::warn;

use super::{directory_of, give_to_owner_of, is_unsupported, sync_names};
use crate::error::{Error, Result};

/// The end of every temporary name.
pub const TEMPORARY: &str = ".mnist-part";

/// A file that gets its final name only by [`AtomicFile::commit`]; dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will replace `target`, in the same directory (a rename across file systems is a copy).
    ///
    /// # Errors
    /// The directory is missing or cannot be written.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let target = target.into();
        if target.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Error::io("write", &target)(io::ErrorKind::IsADirectory.into())); // a rename would say it too late
        }
        let prefix = format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy());
        let file = temporary(directory_of(&target), &prefix).map_err(Error::io("write", &target))?;
        give_to_owner_of(directory_of(&target), file.path());
        Ok(Self { file, target })
    }

    /// A file with these contents, synced, that only lacks its name.
    ///
    /// # Errors
    /// See [`create`](Self::create) and [`sync`](Self::sync).
    pub fn with_contents(target: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        let mut file = Self::create(target)?;
        file.write_all(bytes).map_err(Error::io("write", file.target()))?;
        file.sync().map(|()| file)
    }

    /// The name the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The name it has until then.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// The open file, to read back or to shorten what was written so far.
    pub fn as_file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the contents to the disk.
    ///
    /// # Errors
    /// The disk is full or fails. That the file system has no sync is a warning.
    pub fn sync(&self) -> Result<()> {
        sync(self.file.as_file(), directory_of(&self.target)).map_err(Error::io("write", &self.target))
    }

    /// Syncs the contents and gives the file its final name, replacing what was there. A file system without rename gets
    /// a copy, if nothing has that name.
    ///
    /// # Errors
    /// The disk is full, or the target cannot be replaced. The old target is then untouched, and the message says where
    /// the new contents are kept.
    pub fn commit(self) -> Result<()> {
        if let Err(error) = self.sync() {
            return Err(self.keep_after(error));
        }
        self.place()
    }

    /// [`commit`](Self::commit) for contents that are synced.
    ///
    /// # Errors
    /// See there.
    pub fn place(self) -> Result<()> {
        if let Err(error) = put_in_place(self.file.path(), &self.target) {
            let error = Error::io("write", &self.target)(error);
            return Err(self.keep_after(error));
        }
        drop(self.file.keep()); // the temporary name is gone: nothing to remove
        sync_names(directory_of(&self.target));
        Ok(())
    }

    /// [`place`](Self::place), unless something has the target's name, even if it came this moment: then the file is given
    /// back.
    ///
    /// # Errors
    /// See there.
    pub fn place_new(self) -> Result<Option<Self>> {
        let Self { file, target } = self;
        match file.persist_noclobber(&target) {
            Ok(_) => {
                sync_names(directory_of(&target));
                Ok(None)
            }
            Err(refused) => {
                let part = Self { file: refused.file, target };
                match refused.error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(Some(part)),
                    // The file system has no such way.
                    _ => part.place().map(|()| None),
                }
            }
        }
    }

    /// Lets the file outlive this process, under another name than the target's. Returns `error` with that name.
    pub fn keep_after(self, error: Error) -> Error {
        let Self { file, target } = self;
        let kept = unused_name(&target, "kept").and_then(|kept| {
            fs::rename(file.path(), &kept).map(|()| kept.clone()).inspect_err(|_| {
                let _ = fs::remove_file(&kept); // our own empty file
            })
        });
        // Where no more files may be opened, a name that nobody has just now will do.
        let kept = kept.or_else(|_| {
            let free = (1..100).map(|number| numbered(&target, "kept", number)).find(|name| !name.exists());
            let free = free.ok_or(io::ErrorKind::AlreadyExists)?;
            fs::rename(file.path(), &free).map(|()| free)
        });
        // Without rename it keeps its temporary name. `prepare` removes no leftovers there.
        match (file.keep(), kept) {
            (_, Ok(kept)) => Error::Kept { problem: Box::new(error), kept: vec![kept] },
            // Its directory may be gone.
            (Ok((_, kept)), Err(_)) if kept.exists() => Error::Kept { problem: Box::new(error), kept: vec![kept] },
            _ => error,
        }
    }

    /// Gives up the right to remove the file: from now on others answer for its temporary name. Returns the open file,
    /// which holds the lock.
    pub(super) fn release(self) -> Result<File> {
        let Self { file, target } = self;
        file.keep().map(|(file, _)| file).map_err(|e| Error::io("write", &target)(e.error))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes) // the file itself: the wrapper's errors name the temporary path
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// Syncs `file` to the disk. That the file system in `directory` has no sync is a warning.
pub(super) fn sync(file: &File, directory: &Path) -> io::Result<()> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    match file.sync_all() {
        Err(error) if is_unsupported(&error) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                warn!(
                    "{}: this file system cannot sync ({error}): a power failure may damage what is written",
                    directory.display()
                );
            }
            Ok(())
        }
        synced => synced,
    }
}

/// A new file in `directory` with a temporary name. It is locked, so that no other process takes it for a leftover.
pub(super) fn temporary(directory: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    loop {
        // Opened here, since the library would put the temporary name into the error.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = tempfile::Builder::new().prefix(prefix).suffix(TEMPORARY).make_in(directory, open)?;
        // Where locks are unknown, leftovers are told by their age.
        let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && file.path().exists() {
            return Ok(file);
        } // else another process removes it, which saw it before the lock
    }
}

/// Gives the file `temporary` the name `target`, by a copy where the file system has no rename and nothing has that name.
///
/// # Errors
/// The target cannot be replaced or written. Both are then as they were.
pub(super) fn put_in_place(temporary: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(temporary, target) {
        Err(error) if is_unsupported(&error) && !target.exists() => {}
        renamed => return renamed,
    }
    let mut from = File::open(temporary)?;
    let mut to = OpenOptions::new().write(true).create_new(true).open(target)?;
    let copied = io::copy(&mut from, &mut to).and_then(|_| sync(&to, directory_of(target)));
    copied.inspect_err(|_| {
        let _ = fs::remove_file(target); // a half of it must not keep this name
    })?;
    let _ = fs::remove_file(temporary); // a leftover does no harm
    Ok(())
}

/// The problem alone, after the removal of the contents that were kept: they are of no use under another name.
pub fn without_copy(error: Error) -> Error {
    let Error::Kept { problem, kept } = error else { return error };
    kept.iter().for_each(|path| {
        let _ = fs::remove_file(path); // it does no harm
    });
    *problem
}

/// A new, empty file `NAME.SUFFIX`, `NAME.SUFFIX-2`, ... beside `path`, so that nobody else takes this name.
///
/// # Errors
/// The directory cannot be written.
pub fn unused_name(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let name = numbered(path, suffix, number);
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Ok(_) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// `path` with an end: `NAME.kept`, `NAME.kept-2` and so on.
fn numbered(path: &Path, suffix: &str, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(if number == 1 { format!(".{suffix}") } else { format!(".{suffix}-{number}") });
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write;

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        fs::write(&target, "old").unwrap();
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_committed_file_replaces_the_old_one_and_can_be_read_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("with space é");
        fs::write(&target, "old").unwrap();
        write(&target, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = dir.path().join("plain");
            fs::write(&plain, "").unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&target), mode(&plain));
        }
    }

    #[test]
    fn contents_that_cannot_get_their_name_are_kept_under_another() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        fs::create_dir(&target).unwrap();
        fs::write(dir.path().join("model.kept"), "of an earlier time").unwrap();
        let message = write(&target, b"new").unwrap_err().to_string();
        let kept = dir.path().join("model.kept-2");
        assert!(message.ends_with(&format!("; the new contents are kept as {}", kept.display())), "{message}");
        assert_eq!(fs::read(kept).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_error_names_the_file_and_not_its_temporary_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("missing/model");
        let message = AtomicFile::create(&target).unwrap_err().to_string();
        assert_eq!(message, format!("{}: cannot write: No such file or directory (os error 2)", target.display()));
    }
}
