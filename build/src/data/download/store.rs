//! The files in DATA_DIR: which of them are there and right, and how new ones get there without harm to other files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::data::download::content::{Content, Wrong};
use crate::data::places;
use crate::data::sets::{SETS, SourceFile};
use crate::error::{Error, Result};
use crate::files::AtomicFile;
use crate::files::atomic::unused_name;
use crate::open;
use crate::threads;

/// How a directory holds one of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// As this file, with the right contents, where `Dataset::load` looks first.
    There(PathBuf),
    /// As this file, with the right contents, but gzipped or behind another file.
    Packed {
        /// The file.
        path: PathBuf,
        /// Whether `Dataset::load` would take it nevertheless.
        usable: bool,
    },
    /// Not at all; `NAME` may be another file.
    Nothing,
}

/// Looks for `file` in `directory`, in all its [`places`], and checks the hash. A wrong file is left alone, with a warning
/// unless its name is `NAME` itself.
///
/// # Errors
/// The file `NAME` cannot be read, or a signal arrived.
pub fn look(directory: &Path, file: &SourceFile) -> Result<Found> {
    let own = directory.join(file.name);
    for (place, path) in places::existing(directory, file.name).enumerate() {
        let mut content = Content::new(*file, io::sink());
        let opened = open::regular(&path).map_err(Error::io("read", &path));
        match opened.and_then(|open| pour(open, &path, &mut content)) {
            Ok(Ok(())) => {
                // Dataset::load goes by the names.
                let gzip_by_name = path.extension().is_some_and(|extension| extension == "gz");
                let usable = place == 0 && gzip_by_name == content.is_gzip();
                return Ok(match usable && (!gzip_by_name || own.is_dir()) {
                    true => Found::There(path),
                    false => Found::Packed { path, usable },
                });
            }
            Ok(Err(_)) if path == own => {}
            Ok(Err(wrong)) => warn!("{}: left alone, it is not the file: {wrong}", path.display()),
            Err(Error::Io { source, .. }) if path != own => {
                warn!("{}: left alone, it cannot be read: {source}", path.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Found::Nothing)
}

/// Copies or decompresses the open file `from` to its place in `directory`, if its contents are right.
///
/// # Errors
/// `from` cannot be read, the file cannot be written, or a signal arrived. The inner error says that the contents are
/// wrong. Nothing is written in either case.
pub fn unpack(
    from: (File, &Path),
    directory: &Path,
    file: &SourceFile,
    placing: &Placing,
) -> Result<std::result::Result<(), Wrong>> {
    let mut part = AtomicFile::create(directory.join(file.name))?;
    let poured = pour(from.0, from.1, &mut Content::new(*file, part.as_file_mut()))?;
    if let Err(wrong) = poured {
        return match wrong {
            Wrong::Write(error) => Err(Error::io("write", part.target())(error)),
            wrong => Ok(Err(wrong)),
        };
    }
    placing.settle(part, file)?;
    Ok(Ok(()))
}

/// Gives verified files their final names. Another file of such a name is kept under a new name, unless it is synthetic and
/// can be generated again. Where the synthetic ones are there, all wait for the last, so that the two are not mixed.
#[derive(Debug)]
pub struct Placing<'a> {
    stand_in: &'a [SourceFile],
    waiting: Option<Mutex<Vec<(AtomicFile, SourceFile)>>>,
}

impl<'a> Placing<'a> {
    /// For files that go into `directory`.
    ///
    /// # Errors
    /// A file there cannot be read.
    pub fn begin(directory: &Path, stand_in: &'a [SourceFile]) -> Result<Self> {
        for file in stand_in {
            if identify(&directory.join(file.name))?.is_some_and(|found| found.is(file)) {
                return Ok(Self { stand_in, waiting: Some(Mutex::default()) });
            }
        }
        Ok(Self { stand_in, waiting: None })
    }

    /// Takes a complete and verified `part`.
    ///
    /// # Errors
    /// The other file cannot be read or renamed, or `part` cannot be renamed.
    pub fn settle(&self, part: AtomicFile, file: &SourceFile) -> Result<()> {
        match &self.waiting {
            Some(waiting) => {
                threads::lock(waiting).push((part, *file));
                Ok(())
            }
            None => self.place(part, file),
        }
    }

    /// Places those that have waited. Without it, none of them stays.
    ///
    /// # Errors
    /// See [`settle`](Self::settle).
    pub fn finish(mut self) -> Result<()> {
        let waiting = self.waiting.take().map(|waiting| waiting.into_inner().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().flatten().try_for_each(|(part, file)| self.place(part, &file))
    }

    fn place(&self, part: AtomicFile, file: &SourceFile) -> Result<()> {
        set_aside(part.target(), file, self.stand_in)?;
        part.commit()
    }
}

/// Writes `bytes`, which are `file` of the synthetic set, into `directory`, where another file of this name is set aside. One
/// of the `real` set that a download places at the same time stays.
///
/// # Errors
/// A file of the real set is there. It cannot be written, another one there cannot be read or renamed, or a signal arrived.
pub fn place_drawn(directory: &Path, file: &SourceFile, bytes: &[u8], real: &[SourceFile]) -> Result<()> {
    let path = directory.join(file.name);
    let mut part = AtomicFile::create(&path)?;
    part.write_all(bytes).map_err(Error::io("write", &path))?;
    part.sync()?;
    loop {
        match identify(&path)? {
            Some(found) if found.is(file) => return Ok(()),
            Some(found) if real.iter().any(|real| real.name == file.name && found.is(real)) => {
                return Err(Error::RealData { directory: directory.into(), file: file.name.into() });
            }
            _ => set_aside(&path, file, &[])?,
        }
        match part.place_new()? {
            Some(refused) => part = refused,
            None => return Ok(()),
        }
    }
}

/// Renames the file at `path` to `NAME.mismatch` (or `NAME.mismatch-2`, ...), with a warning, unless it is `file`
/// itself or synthetic.
///
/// # Errors
/// It cannot be read or renamed.
pub fn set_aside(path: &Path, file: &SourceFile, stand_in: &[SourceFile]) -> Result<()> {
    let found = match identify(path)? {
        Some(found) if found.is(file) => return Ok(()), // another download was faster
        Some(found) if stand_in.iter().any(|stand_in| stand_in.name == file.name && found.is(stand_in)) => {
            info!("{}: replacing the synthetic stand-in", path.display());
            return Ok(());
        }
        Some(found) => format!("{} bytes with SHA-256 {}", found.bytes, found.sha256),
        None if places::is_dangling(path) => "a link to nothing".into(),
        None => return Ok(()),
    };
    let aside = unused_name(path, "mismatch").map_err(Error::io("write", path))?;
    if let Err(error) = fs::rename(path, &aside) {
        let _ = fs::remove_file(&aside); // our own empty file
        // Another download may just have renamed it.
        return if open::is_absent(&error) { Ok(()) } else { Err(Error::io("rename", path)(error)) };
    }
    warn!(
        "{}: not the file that belongs here (expected {} bytes with SHA-256 {}, found {found}): kept as {}",
        path.display(),
        file.bytes,
        file.sha256,
        aside.display()
    );
    Ok(())
}

/// Whether the file at `path` is one of a known data set under its right name.
///
/// # Errors
/// It cannot be read, or a signal arrived.
pub fn is_known(path: &Path) -> Result<bool> {
    let files = || SETS.iter().flat_map(|set| &set.files);
    let named: Vec<_> = files().filter(|file| path.file_name() == Some(file.name.as_ref())).collect();
    let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if !named.iter().any(|file| file.bytes == bytes) {
        return Ok(false); // not worth a hash
    }
    Ok(identify(path)?.is_some_and(|identity| named.iter().any(|file| identity.is(file))))
}

/// Size and hash of a file that is there.
struct Identity {
    bytes: u64,
    sha256: String,
}

impl Identity {
    fn is(&self, file: &SourceFile) -> bool {
        self.bytes == file.bytes && self.sha256 == file.sha256
    }
}

/// Hashes the file at `path`; `None` where there is none.
fn identify(path: &Path) -> Result<Option<Identity>> {
    let mut open = match open::regular(path) {
        Ok(open) => open,
        // Where DATA_DIR itself is a file, writing into it will report that.
        Err(error) if open::is_absent(&error) => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let (bytes, sha256) = open::hashed(&mut open, path)?;
    Ok(Some(Identity { bytes, sha256 }))
}

/// Pushes an open file into `content`. The outer error is the disk's, the inner one says that the contents are wrong.
fn pour<W: io::Write>(mut open: File, path: &Path, content: &mut Content<W>) -> Result<std::result::Result<(), Wrong>> {
    Ok(open::in_pieces(&mut open, path, |piece| content.push(piece))?.and_then(|()| content.finish()))
}
