//! The files that a task leaves: none is ever half written under its final name, and no result is lost.
//!
//! [`directory`] makes their directory ready, [`atomic`] writes one file, [`set`] several that belong together, [`growing`]
//! holds what takes a while to make, and [`lock`] keeps a second writer out.

pub mod atomic;
pub mod directory;
pub mod growing;
pub mod lock;
pub mod permissions;
pub mod set;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use self::atomic::AtomicFile;
pub use self::directory::{
    OutputDirectory, lies_in, make_directory, make_lasting_directory, remove_empty_directories, writable_directory,
};
use crate::error::{Error, Result};
use crate::open;

/// Writes `bytes` to `target` whole or not at all.
///
/// # Errors
/// See [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write(target: impl Into<PathBuf>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes).map_err(Error::io("write", file.target()))?;
    file.commit()
}

/// [`write()`] to a name that the user gave, where anything may stand.
///
/// # Errors
/// There is something else than a file, such as a device, a pipe or a link, which would be replaced.
pub fn write_named(target: &Path, bytes: &[u8]) -> Result<()> {
    expect_file(target)?;
    write(target, bytes)
}

/// Checks that nothing or a file is at `target`.
fn expect_file(target: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(target) {
        Ok(there) if there.is_dir() => "a directory",
        Ok(there) if there.is_symlink() => "a link",
        Ok(there) if !there.is_file() => "a device or a pipe",
        _ => return Ok(()),
    };
    Err(Error::Occupied { path: target.into(), found })
}

/// Checks what [`write_mounted`] would replace, before the work begins: nothing, an empty file, or an earlier one of this
/// program, which begins with `beginning`. A mounted one is emptied: if the task fails, no old result looks new.
///
/// # Errors
/// Something else is there, or it cannot be read or emptied.
pub fn begin_mounted(target: &Path, beginning: &str) -> Result<()> {
    expect_file(target)?;
    let file = match open::regular(target) {
        // Whatever is wrong with its directory, writing says better.
        Err(error) if open::is_absent(&error) => return Ok(()),
        opened => opened.map_err(Error::io("read", target))?,
    };
    let mut found = vec![];
    file.take(beginning.len() as u64).read_to_end(&mut found).map_err(Error::io("read", target))?;
    if found.is_empty() {
        return Ok(());
    } else if found != beginning.as_bytes() {
        return Err(Error::Occupied { path: target.into(), found: "another file" });
    } else if is_mount_point(target) {
        emptied(target)?;
    }
    Ok(())
}

/// [`write()`] to a file that the user named, or that a container's engine mounted: that one cannot be replaced, nor its
/// directory written, so that it is filled in place. If this fails, it is empty. A missing directory is made.
///
/// # Errors
/// See [`write_named`]; or the file cannot be filled.
pub fn write_mounted(target: &Path, bytes: &[u8]) -> Result<()> {
    if !is_mount_point(target) {
        make_directory(directory_of(target))?;
        return write_named(target, bytes);
    }
    let mut file = emptied(target)?;
    let filled = file.write_all(bytes).and_then(|()| atomic::sync(&file, directory_of(target)));
    filled.map_err(|error| {
        let _ = file.set_len(0); // empty is a failure to whoever reads it; a half would be none
        Error::io("write", target)(error)
    })
}

/// The file at `target`, without its contents.
fn emptied(target: &Path) -> Result<File> {
    OpenOptions::new().write(true).truncate(true).open(target).map_err(Error::io("write", target))
}

/// Whether something is mounted at `path` itself. No where the system cannot tell, such as a Linux before 5.8.
fn is_mount_point(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
        found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// Begins a new file at `path`, to append to.
///
/// # Errors
/// There is one already, or the directory cannot be written.
pub fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).open(path)?;
    give_to_owner_of(directory_of(path), path);
    Ok(file)
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

/// The directory that `path` is in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in `directory` as safe against a power failure as their contents, where that is possible.
fn sync_names(directory: &Path) {
    // Some file systems cannot sync a directory. There is no more to do then.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

/// Whether the file system does not have the operation at all: many that lie over an object store have no rename, sync or
/// lock.
fn is_unsupported(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let refused = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL, Errno::PERM, Errno::NOLCK];
        Errno::from_io_error(error).is_some_and(|errno| refused.contains(&errno))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::Unsupported
    }
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
