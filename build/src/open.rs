//! Opens files to read them: regular files only. A pipe in the place of a file blocks for ever, and a device may never end.

use std::convert::Infallible;
use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::error::{self, Error};
use crate::interrupt::{self, EndAtOnce};
use crate::sha256::Sha256;

/// Bytes that [`in_pieces`] reads at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Opens the regular file at `path`.
///
/// # Errors
/// There is none, it cannot be opened, or something else is there; the error says what.
pub fn regular(path: &Path) -> io::Result<File> {
    expect_regular(fs::metadata(path)?.file_type())?; // first, since opening a device may do something
    let file = without_blocking().open(path)?;
    expect_regular(file.metadata()?.file_type())?; // again, since it may have been replaced
    Ok(file)
}

/// Opens the regular file or the pipe at `path`, such as a shell's `<(command)`.
///
/// # Errors
/// See [`regular`].
pub fn regular_or_pipe(path: &Path) -> io::Result<Source> {
    let found = fs::metadata(path)?.file_type();
    if is_pipe(found) {
        let waiting = EndAtOnce::begin();
        return Ok(Source { file: File::open(path)?, _waiting: Some(waiting) });
    }
    if !found.is_file() {
        return Err(unexpected("a file or a pipe", found));
    }
    Ok(Source { file: regular(path)?, _waiting: None })
}

/// A file or a pipe to be read. While a pipe is open, a signal ends the process at once: it may wait for ever.
#[derive(Debug)]
pub struct Source {
    file: File,
    _waiting: Option<EndAtOnce>,
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

/// All bytes of `from`, or none if there are more than `most`.
///
/// # Errors
/// They cannot be read.
pub fn read_at_most(most: u64, from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let length = from.take(most + 1).read_to_end(&mut bytes)?;
    Ok((length as u64 <= most).then_some(bytes))
}

/// Passes the bytes of `open`, the file at `path`, to `each`, until their end or the first error of `each`.
///
/// # Errors
/// They cannot be read, or a signal arrived in between. The inner error is that of `each`.
pub fn in_pieces<E>(
    open: &mut File,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> error::Result<Result<(), E>> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        interrupt::check()?;
        match open.read(&mut piece) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => {
                if let Err(wrong) = each(&piece[..count]) {
                    return Ok(Err(wrong));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}

/// The size of `open`, the file at `path`, and its SHA-256 in hexadecimal.
///
/// # Errors
/// It cannot be read, or a signal arrived.
pub fn hashed(open: &mut File, path: &Path) -> error::Result<(u64, String)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let Ok(()) = in_pieces(open, path, |piece| {
        bytes += piece.len() as u64;
        hash.update(piece);
        Ok::<(), Infallible>(())
    })?;
    Ok((bytes, hash.finish()))
}

/// Whether `error` says that nothing is there: no entry of that name, or a file in the place of its directory.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn expect_regular(found: FileType) -> io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(unexpected("a file", found)) }
}

fn unexpected(expected: &str, found: FileType) -> io::Error {
    let error = if found.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
    io::Error::new(error, format!("expected {expected}, found {}", kind(found)))
}

/// What `found` is.
pub fn kind(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a pipe";
        } else if found.is_char_device() || found.is_block_device() {
            return "a device";
        } else if found.is_socket() {
            return "a socket";
        }
    }
    if found.is_dir() {
        "a directory"
    } else if found.is_file() {
        "a file"
    } else if found.is_symlink() {
        "a link"
    } else {
        "something else"
    }
}

fn is_pipe(found: FileType) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(&found);
    #[cfg(not(unix))]
    false
}

fn without_blocking() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn anything_but_a_regular_file_is_refused_at_once_and_named() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let (pipe, socket) = (dir.path().join("pipe"), dir.path().join("socket"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, found) in [
            (pipe.as_path(), "a pipe"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
            (dir.path(), "a directory"),
        ] {
            assert_eq!(regular(path).unwrap_err().to_string(), format!("expected a file, found {found}"));
            if found != "a pipe" {
                let expected = format!("expected a file or a pipe, found {found}");
                assert_eq!(regular_or_pipe(path).unwrap_err().to_string(), expected);
            }
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "four").unwrap();
        for most in [4, 5] {
            assert_eq!(read_at_most(most, regular(&path).unwrap()).unwrap().unwrap(), b"four");
        }
        assert_eq!(read_at_most(3, regular_or_pipe(&path).unwrap()).unwrap(), None);
    }
}
