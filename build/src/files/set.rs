//! Files that belong together, such as a model and what is made from it: a directory holds all of the old ones or all of
//! the new ones.
//!
//! Every file is written and synced under a temporary name first. Then the journal gets its name: the list of the renames
//! that are left to do. From here on the new set counts. A process killed before leaves the old set; one killed after
//! leaves the journal. Whoever writes the directory next ends the renames ([`finish`]); whoever reads it finds the new files
//! under their temporary names ([`open()`]) and writes nothing.
//!
//! A journal may come from anywhere, as a part of a directory that somebody copied. It is believed only where it gives a
//! temporary file the name that this file was made for, and where each name is one of the set's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::atomic::{self, AtomicFile, TEMPORARY, put_in_place};
use super::lock::DirectoryLock;
use super::permissions::{mode, set_mode};
use super::{remove, sync_names};
use crate::error::{Error, Result};
use crate::open;

/// The file name of the journal.
pub const JOURNAL: &str = ".mnist-set";
/// A longer journal is not ours: that of a hundred thousand files is shorter.
const LONGEST_JOURNAL: u64 = 1 << 24;

/// The renames that make the new set.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    /// Temporary name and final name of each file.
    rename: Vec<(String, String)>,
    /// Files of an earlier set that the new one has not.
    remove: Vec<String>,
}

/// A set that is being written; dropped before [`FileSet::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct FileSet<'a> {
    directory: PathBuf,
    lock: Option<&'a DirectoryLock>,
    files: Vec<AtomicFile>,
}

impl<'a> FileSet<'a> {
    /// Begins a set in `directory`, which `lock` keeps others out of; none where the file system has no locks.
    pub fn new(directory: &Path, lock: Option<&'a DirectoryLock>) -> Self {
        Self { directory: directory.into(), lock, files: vec![] }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds the file `name` with these contents, and returns the path that it will have.
    ///
    /// # Errors
    /// It cannot be written. The set goes on without it.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let file = AtomicFile::with_contents(self.directory.join(name), bytes)?;
        let path = file.target().to_path_buf();
        self.files.push(file);
        Ok(path)
    }

    /// Adds a copy of the file `from` as `name`, with its time and permissions.
    ///
    /// # Errors
    /// It cannot be read or written. The set goes on without it.
    pub fn add_copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let mut file = AtomicFile::create(self.directory.join(name))?;
        let mut source = File::open(from).map_err(Error::io("read", from))?;
        io::copy(&mut source, &mut file).map_err(Error::io("write", file.target()))?;
        let copied = source.metadata().and_then(|metadata| {
            file.as_file_mut().set_modified(metadata.modified()?)?;
            Ok(metadata)
        });
        let metadata = copied.map_err(Error::io("write", file.target()))?;
        set_mode(file.temporary(), mode(&metadata))?;
        file.sync()?;
        self.files.push(file);
        Ok(())
    }

    /// Replaces the set in the directory. Of the files in `left_out` none stays.
    ///
    /// # Errors
    /// The lock is lost or the journal cannot be written: the old set stays, and the new files are kept under names that the
    /// message gives. Or a rename fails: the next call of [`finish`] goes on from there.
    pub fn commit(self, left_out: &[&str]) -> Result<()> {
        if let Err(error) = self.lock.map_or(Ok(()), DirectoryLock::check_held) {
            return Err(self.keep_after(error));
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let journal = Journal {
            rename: self.files.iter().map(|file| (name(file.temporary()), name(file.target()))).collect(),
            remove: left_out.iter().map(|name| name.to_string()).collect(),
        };
        let bytes = serde_json::to_vec(&journal).unwrap_or_else(|e| unreachable!("plain names become JSON: {e}"));
        let path = self.directory.join(JOURNAL);
        let written = match bytes.len() as u64 > LONGEST_JOURNAL {
            true => Err(Error::io("write", &path)(io::Error::other("expected at most 16 MiB of names"))),
            false => super::write(&path, &bytes),
        };
        if let Err(error) = written {
            return Err(self.keep_after(atomic::without_copy(error)));
        }
        // The open files hold the locks that mark them as no leftovers. All are released, since the journal names all.
        let held: Vec<Result<File>> = self.files.into_iter().map(AtomicFile::release).collect();
        journal.carry_out(&self.directory)?;
        held.into_iter().collect::<Result<Vec<_>>>().map(drop)
    }

    /// Keeps what was added under other names than the final ones. Returns `error` with these names.
    pub fn keep_after(self, error: Error) -> Error {
        let mut problem = error;
        let mut all = vec![];
        for file in self.files {
            match file.keep_after(problem) {
                Error::Kept { problem: same, kept } => {
                    problem = *same;
                    all.extend(kept);
                }
                same => problem = same,
            }
        }
        if all.is_empty() { problem } else { Error::Kept { problem: Box::new(problem), kept: all } }
    }
}

/// Ends the renames of a set that a killed process began to put in place in `directory`, if there is one. `names` are those
/// that a file of the set may have; a journal with others is ignored with a warning.
///
/// # Errors
/// The directory cannot be written, or another process is writing it.
pub fn finish(directory: &Path, names: &[&str]) -> Result<()> {
    if Journal::read(directory, names).is_none() {
        return Ok(());
    }
    let _lock = DirectoryLock::take(directory)?;
    // Read again: the process that held the lock may have ended the renames itself.
    Journal::read(directory, names).map_or(Ok(()), |journal| journal.carry_out(directory))
}

/// Whether `directory` has a file in the place of the journal.
pub fn has_journal(directory: &Path) -> bool {
    directory.join(JOURNAL).symlink_metadata().is_ok()
}

/// Opens the file `name` of the set in `directory`, which may have its temporary name still.
///
/// # Errors
/// It is not there or cannot be read.
pub fn open(directory: &Path, name: &str) -> Result<File> {
    let opened = |path: PathBuf| open::regular(&path).map_err(Error::io("read", path));
    match waiting(directory, name).map(opened) {
        None => opened(directory.join(name)),
        // Another process has just given it its name.
        Some(Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => opened(directory.join(name)),
        Some(opened) => opened,
    }
}

/// Where the file `name` of the set in `directory` is. While another process writes there, [`open()`] is sure to find it.
pub fn locate(directory: &Path, name: &str) -> PathBuf {
    waiting(directory, name).filter(|path| path.exists()).unwrap_or_else(|| directory.join(name))
}

/// The temporary name under which a new file `name` waits for it, as the journal says.
fn waiting(directory: &Path, name: &str) -> Option<PathBuf> {
    let journal = Journal::read_any(directory)?;
    let pair = journal.rename.into_iter().find(|pair| is_pair(pair) && pair.1 == name)?;
    Some(directory.join(pair.0))
}

/// Whether the first name is a temporary one for the second.
fn is_pair((first, last): &(String, String)) -> bool {
    let random = first.strip_prefix(&format!(".{last}.")).and_then(|rest| rest.strip_suffix(TEMPORARY));
    random.is_some_and(|random| !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

impl Journal {
    /// The journal of a set of `names` in `directory`, if there is one; a file of that name with other contents is none.
    fn read(directory: &Path, names: &[&str]) -> Option<Self> {
        if !has_journal(directory) {
            return None;
        }
        let journal = Self::read_any(directory).filter(|journal| journal.is_of(names));
        if journal.is_none() {
            warn!("{}: ignored, since this program did not write it", directory.join(JOURNAL).display());
        }
        journal
    }

    /// Whatever is said to be the journal in `directory`.
    fn read_any(directory: &Path) -> Option<Self> {
        let path = directory.join(JOURNAL);
        path.symlink_metadata().ok().filter(fs::Metadata::is_file)?; // no link, which might lead elsewhere
        let mut text = String::new();
        open::regular(&path).ok()?.take(LONGEST_JOURNAL).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether it renames and removes only files of `names`.
    fn is_of(&self, names: &[&str]) -> bool {
        let last = self.rename.iter().map(|(_, last)| last);
        self.rename.iter().all(is_pair) && last.chain(&self.remove).all(|name| names.contains(&name.as_str()))
    }

    fn carry_out(&self, directory: &Path) -> Result<()> {
        sync_names(directory);
        for (first, last) in &self.rename {
            let [first, last] = [first, last].map(|name| directory.join(name));
            match put_in_place(&first, &last) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it was renamed before
                Err(error) => {
                    let problem = Box::new(Error::io("write", last)(error));
                    return Err(Error::Kept { problem, kept: vec![first] });
                }
                Ok(()) => {}
            }
        }
        for name in &self.remove {
            remove(&directory.join(name))?;
        }
        sync_names(directory);
        remove(&directory.join(JOURNAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::lock;

    /// A directory with an old set, and a new set for it.
    fn old_and_new() -> (tempfile::TempDir, FileSet<'static>) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        fs::write(dir.path().join("notes"), "the user's").unwrap();
        let mut set = FileSet::new(dir.path(), None);
        set.add("a", b"new").unwrap();
        set.add("b", b"new").unwrap();
        (dir, set)
    }

    fn contents(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut all: Vec<_> = entries
            .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read_to_string(&path).unwrap()))
            .collect();
        all.sort();
        all
    }

    fn all(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    const OLD: [(&str, &str); 4] = [("a", "old"), ("b", "old"), ("c", "old"), ("notes", "the user's")];
    const NEW: [(&str, &str); 3] = [("a", "new"), ("b", "new"), ("notes", "the user's")];

    #[test]
    fn a_set_replaces_the_old_one_and_leaves_other_files_alone() {
        let (dir, set) = old_and_new();
        set.commit(&["c", "d"]).unwrap();
        assert_eq!(contents(dir.path()), all(&NEW));
    }

    #[test]
    fn a_set_that_is_not_committed_leaves_the_old_one() {
        let (dir, set) = old_and_new();
        drop(set);
        assert_eq!(contents(dir.path()), all(&OLD));
    }

    #[test]
    fn a_set_that_cannot_be_put_in_place_is_kept() {
        let (dir, set) = old_and_new();
        fs::create_dir(dir.path().join(JOURNAL)).unwrap();
        let error = set.commit(&["c"]).unwrap_err();
        let Error::Kept { kept, .. } = &error else { panic!("{error}") };
        assert_eq!(*kept, ["a.kept", "b.kept"].map(|name| dir.path().join(name)));
        assert!(kept.iter().all(|path| fs::read(path).unwrap() == b"new"));
        fs::remove_dir(dir.path().join(JOURNAL)).unwrap();
        assert_eq!(contents(dir.path())[0].1, "old");
    }

    /// The directory as a process leaves it that is killed after `done` renames.
    fn killed_after(done: usize) -> tempfile::TempDir {
        let (dir, set) = old_and_new();
        let temporary = |file: &AtomicFile| file.temporary().file_name().unwrap().to_str().unwrap().to_string();
        let rename: Vec<_> =
            set.files.iter().zip(["a", "b"]).map(|(file, name)| (temporary(file), name.into())).collect();
        let journal = Journal { rename, remove: vec!["c".into()] };
        fs::write(dir.path().join(JOURNAL), serde_json::to_vec(&journal).unwrap()).unwrap();
        set.files.into_iter().for_each(|file| drop(file.release().unwrap()));
        for (first, last) in &journal.rename[..done] {
            fs::rename(dir.path().join(first), dir.path().join(last)).unwrap();
        }
        dir
    }

    #[test]
    fn renames_that_a_killed_process_left_are_ended() {
        for done in 0..=2 {
            let dir = killed_after(done);
            finish(dir.path(), &NAMES).unwrap();
            assert_eq!(contents(dir.path()), all(&NEW), "after {done} renames");
        }
    }

    #[test]
    fn a_reader_finds_the_new_set_and_writes_nothing() {
        for done in 0..=2 {
            let dir = killed_after(done);
            let before = contents(dir.path());
            for name in ["a", "b"] {
                let mut text = String::new();
                open(dir.path(), name).unwrap().read_to_string(&mut text).unwrap();
                assert_eq!((text.as_str(), fs::read(locate(dir.path(), name)).unwrap()), ("new", b"new".to_vec()));
            }
            assert_eq!(contents(dir.path()), before, "after {done} renames");
        }
    }

    #[test]
    fn a_set_whose_lock_is_lost_is_kept_beside_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        let new = |name: &str| {
            let mut set = FileSet::new(dir.path(), lock.as_ref());
            set.add(name, b"new").unwrap();
            set.commit(&[])
        };
        new("a").unwrap();
        fs::remove_file(dir.path().join(lock::NAME)).unwrap();
        let message = new("a").unwrap_err().to_string();
        let expected =
            format!("{}: expected the lock of this process, found none", dir.path().join(lock::NAME).display());
        assert!(message.starts_with(&expected), "{message}");
        fs::write(dir.path().join(lock::NAME), "theirs").unwrap();
        assert!(new("a").unwrap_err().to_string().contains("found that of another"));
        drop(lock);
        assert_eq!(fs::read(dir.path().join("a.kept-2")).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join(lock::NAME)).unwrap(), b"theirs");
    }

    #[test]
    fn a_journal_of_other_files_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let places = ["victim", ".x.abc123.mnist-part"].map(|name| dir.path().join(name)).into_iter();
        let places = places.chain(
            ["notes", "a", ".a.mnist-part", ".b.abc123.mnist-part", ".notes.abc123.mnist-part"]
                .map(|name| inner.join(name)),
        );
        let places: Vec<_> = places.collect();
        places.iter().for_each(|path| fs::write(path, path.display().to_string()).unwrap());
        for journal in [
            r#"{"rename":[],"remove":["../victim"]}"#,
            r#"{"rename":[],"remove":["notes"]}"#,
            r#"{"rename":[],"remove":["a","notes"]}"#,
            r#"{"rename":[["../.x.abc123.mnist-part","a"]],"remove":[]}"#,
            r#"{"rename":[["a","../victim"]],"remove":[]}"#,
            r#"{"rename":[["a","b"]],"remove":[]}"#,
            r#"{"rename":[[".a.mnist-part","a"]],"remove":[]}"#,
            r#"{"rename":[[".b.abc123.mnist-part","a"]],"remove":[]}"#,
            r#"{"rename":[[".notes.abc123.mnist-part","notes"]],"remove":[]}"#,
            "{",
        ] {
            fs::write(inner.join(JOURNAL), journal).unwrap();
            finish(&inner, &NAMES).unwrap();
            for path in &places {
                assert_eq!(fs::read_to_string(path).unwrap(), path.display().to_string(), "{journal}");
            }
            if !journal.contains(r#"[".notes"#) {
                assert_eq!(locate(&inner, "a"), inner.join("a"), "{journal}");
            }
        }
    }
}
