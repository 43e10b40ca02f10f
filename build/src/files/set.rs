//! Files that belong together, such as a model and what is made from it: a directory holds all of the old ones or all of
//! the new ones.
//!
//! Every file is written and synced under a temporary name first. Then the journal gets its name: the list of the renames
//! that are left to do. From here on the new set counts. A process killed before leaves the old set; one killed after
//! leaves the journal, and whoever opens the directory next ends the renames ([`finish`]) or, where it may not write,
//! reads the new files under their temporary names ([`locate`]).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::atomic::{self, AtomicFile, TEMPORARY, put_in_place};
use super::lock::DirectoryLock;
use super::{remove, sync_names};
use crate::error::{Error, Result};
use crate::open;

/// The file name of the journal.
pub const JOURNAL: &str = ".mnist-set";
/// A longer journal is not ours.
const LONGEST_JOURNAL: u64 = 1 << 16;
/// How long a reader waits for a process that is about to end its renames.
const PATIENCE: Duration = Duration::from_secs(2);

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
pub struct FileSet {
    directory: PathBuf,
    files: Vec<AtomicFile>,
}

impl FileSet {
    /// Begins a set in `directory`, which this process has locked.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.into(), files: vec![] }
    }

    /// Adds the file `name` with these contents, and returns the path that it will have.
    ///
    /// # Errors
    /// It cannot be written. The set goes on without it.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let mut file = AtomicFile::create(self.directory.join(name))?;
        file.write_all(bytes).map_err(Error::io("write", file.target()))?;
        file.sync()?;
        let path = file.target().to_path_buf();
        self.files.push(file);
        Ok(path)
    }

    /// Replaces the set in the directory. Of the files in `left_out` none stays.
    ///
    /// # Errors
    /// The journal cannot be written: the old set stays, and the new files are kept under names that the message gives.
    /// Or a rename fails: the next call of [`finish`] goes on from there.
    pub fn commit(self, left_out: &[&str]) -> Result<()> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let journal = Journal {
            rename: self.files.iter().map(|file| (name(file.temporary()), name(file.target()))).collect(),
            remove: left_out.iter().map(|name| name.to_string()).collect(),
        };
        let bytes = serde_json::to_vec(&journal).unwrap_or_else(|e| unreachable!("plain names become JSON: {e}"));
        if let Err(error) = super::write(self.directory.join(JOURNAL), &bytes) {
            return Err(self.keep_after(atomic::without_copy(error)));
        }
        // The open files hold the locks that mark them as no leftovers.
        let _held = self.files.into_iter().map(AtomicFile::release).collect::<Result<Vec<File>>>()?;
        journal.carry_out(&self.directory)
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

/// Ends the renames of a set that a killed process began to put in place in `directory`, if there is one.
///
/// # Errors
/// The directory cannot be written, or another process is writing it.
pub fn finish(directory: &Path) -> Result<()> {
    if Journal::read(directory).is_none() {
        return Ok(());
    }
    let _lock = DirectoryLock::take(directory)?;
    // Read again: the process that held the lock may have ended the renames itself.
    Journal::read(directory).map_or(Ok(()), |journal| journal.carry_out(directory))
}

/// Where to read the file `name` of the set in `directory`, which is whole then.
pub fn locate(directory: &Path, name: &str) -> PathBuf {
    let begin = Instant::now();
    while let Err(error) = finish(directory) {
        if !matches!(error, Error::InUse { .. }) || begin.elapsed() > PATIENCE {
            break; // such as on a read-only file system
        }
        thread::sleep(Duration::from_millis(10));
    }
    let journal = Journal::read(directory).unwrap_or_default();
    let temporary = journal.rename.into_iter().find(|(_, last)| last == name).map(|(first, _)| directory.join(first));
    temporary.filter(|path| path.exists()).unwrap_or_else(|| directory.join(name))
}

impl Journal {
    /// The journal in `directory`, if there is one; a file of that name with other contents is none.
    fn read(directory: &Path) -> Option<Self> {
        let path = directory.join(JOURNAL);
        fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?; // no link, which might lead elsewhere
        let mut text = String::new();
        let read = open::regular(&path).and_then(|file| file.take(LONGEST_JOURNAL).read_to_string(&mut text));
        let journal = read.ok().and_then(|_| serde_json::from_str::<Self>(&text).ok()).filter(Self::is_sound);
        if journal.is_none() {
            warn!("{}: ignored, since this program did not write it", path.display());
        }
        journal
    }

    /// Whether all names lead to files of the directory itself, which a hostile journal's might not.
    fn is_sound(&self) -> bool {
        let plain = |name: &String| Path::new(name).file_name() == Some(name.as_ref());
        let files = self.rename.iter().all(|(first, last)| plain(first) && first.ends_with(TEMPORARY) && plain(last));
        files && self.remove.iter().all(plain)
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

    /// A directory with an old set, and a new set for it.
    fn old_and_new() -> (tempfile::TempDir, FileSet) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        fs::write(dir.path().join("notes"), "the user's").unwrap();
        let mut set = FileSet::new(dir.path());
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
            finish(dir.path()).unwrap();
            assert_eq!(contents(dir.path()), all(&NEW), "after {done} renames");
            let dir = killed_after(done);
            assert_eq!(locate(dir.path(), "b"), dir.path().join("b"));
            assert_eq!(contents(dir.path()), all(&NEW), "after {done} renames");
        }
    }

    #[cfg(unix)]
    #[test]
    fn where_nothing_can_be_written_the_new_set_is_read_all_the_same() {
        use std::os::unix::fs::PermissionsExt;
        let dir = killed_after(1);
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o555)).unwrap();
        if fs::write(dir.path().join("x"), "").is_ok() {
            println!("skipped: this user can write everywhere");
            return;
        }
        assert_eq!(fs::read(locate(dir.path(), "a")).unwrap(), b"new");
        assert_eq!(fs::read(locate(dir.path(), "b")).unwrap(), b"new");
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_journal_that_leads_elsewhere_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for name in ["victim", ".x.mnist-part"] {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        for journal in [
            r#"{"rename":[],"remove":["../victim"]}"#,
            r#"{"rename":[["../.x.mnist-part","a"]],"remove":[]}"#,
            r#"{"rename":[["a","../victim"]],"remove":[]}"#,
            "{",
        ] {
            fs::write(inner.join(JOURNAL), journal).unwrap();
            finish(&inner).unwrap();
            assert_eq!(contents(dir.path()).iter().filter(|(_, text)| text == "mine").count(), 2, "{journal}");
        }
    }
}
