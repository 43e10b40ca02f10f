//! Files that appear whole or not at all: written beside their target under a temporary name, synced, renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

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
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)] // Temporary files are private by default; outputs are as readable as the user's umask says.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory_of(&target)).map_err(Error::io("write", &target))?;
        Ok(Self { file, target })
    }

    /// The name the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The open file, to read back or to shorten what was written so far.
    pub fn as_file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the contents to the disk and gives the file its final name, replacing what was there.
    ///
    /// # Errors
    /// The disk is full or the target cannot be replaced; the old target is then untouched.
    pub fn commit(self) -> Result<()> {
        let error = |e| Error::io("write", &self.target)(e);
        self.file.as_file().sync_all().map_err(error)?;
        give_to_owner_of(directory_of(&self.target), self.file.path());
        self.file.persist(&self.target).map_err(|e| Error::io("write", &self.target)(e.error))?;
        // The rename itself is safe on disk once the directory is; where that can't be synced there is no more to do.
        let _ = File::open(directory_of(&self.target)).and_then(|directory| directory.sync_all());
        Ok(())
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

/// Writes `bytes` to `target` whole or not at all.
///
/// # Errors
/// See [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write(target: impl Into<PathBuf>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes).map_err(Error::io("write", file.target()))?;
    file.commit()
}

/// Makes `directory` with its parents if it is missing and proves that files can be written there.
///
/// # Errors
/// It cannot be made, is not a directory, or refuses files.
pub fn writable_directory(directory: &Path) -> Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    if let Some(link) = missing.iter().find(|path| path.is_symlink()) {
        let target = fs::read_link(link).unwrap_or_default();
        let problem = format!("{} is a link to {}, which is not there", link.display(), target.display());
        return Err(Error::io("create the directory", directory)(io::Error::new(io::ErrorKind::NotFound, problem)));
    }
    fs::create_dir_all(directory).map_err(Error::io("create the directory", directory))?;
    for made in missing.iter().rev() {
        give_to_owner_of(directory_of(made), made);
    }
    tempfile::tempfile_in(directory).map_err(Error::io("write into the directory", directory))?;
    Ok(())
}

/// Checks that no directory is in the place of a file to be written later.
///
/// # Errors
/// There is one.
pub fn no_directory(path: &Path) -> Result<()> {
    if path.is_dir() { Err(Error::io("write", path)(io::ErrorKind::IsADirectory.into())) } else { Ok(()) }
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether this process has root's rights.
pub fn is_root() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    false
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Root in a container leaves its outputs to whoever owns the directory they go into, who could not remove them
/// otherwise. Where the file system knows no owners, or root is not allowed to, the file stays root's.
fn give_to_owner_of(directory: &Path, path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if !is_root() {
            return;
        }
        if let Ok(owner) = fs::metadata(directory)
            && owner.uid() != 0
        {
            let _ = std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()));
        }
    }
    #[cfg(not(unix))]
    let _ = (directory, path);
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_in_the_way_of_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        fs::write(&path, "").unwrap();
        let message = writable_directory(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot create the directory: ", path.display())), "{message}");
    }
}
