//! The files below a directory, and what becomes of them: what a task changes in its output directories on another machine
//! is done here as well, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{atomic, lock, set};
use crate::output::{artifacts, names};

/// What is never sent: it guards a directory, or has not got its name yet.
pub const LEFT_OUT: [&str; 3] = [lock::NAME, set::JOURNAL, atomic::TEMPORARY];

/// Whether a file of this name is never sent.
pub fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    LEFT_OUT.iter().any(|end| name.ends_with(end))
}

/// Whether a path leads to something below a directory, whichever that is.
pub fn is_below(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The same, or the directory itself, which is an empty path.
pub fn is_inside(path: &Path) -> bool {
    path.as_os_str().is_empty() || is_below(path)
}

/// A file below a directory: its path, size and time in seconds since 1970. On another machine, a copy has the same.
pub type Listed = (PathBuf, u64, u64);

/// A file as it is listed.
pub fn listed(path: PathBuf, metadata: &Metadata) -> Listed {
    (path, metadata.len(), time(metadata).as_secs())
}

fn time(metadata: &Metadata) -> Duration {
    let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    time.unwrap_or_default()
}

/// All files below `directory`, sorted; none if it is not there.
///
/// # Errors
/// It cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Listed>> {
    Ok(walk(directory)?.into_iter().map(|(path, metadata)| listed(path, &metadata)).collect())
}

fn walk(directory: &Path) -> Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let path = directory.join(&below);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("read", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &path))?;
            let name = below.join(entry.file_name());
            let Ok(metadata) = fs::metadata(entry.path()) else { continue }; // a link to nothing
            if metadata.is_dir() {
                waiting.push(name);
            } else if metadata.is_file() {
                found.insert(name, metadata);
            }
        }
    }
    Ok(found)
}

/// The files of a directory when a task started: the size of each, and its time since 1970, to the nanosecond. By these,
/// a file on the same machine is told from what it becomes when it is written again.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory(BTreeMap<PathBuf, (u64, Duration)>);

impl Inventory {
    /// That of `directory`, or of the one file `only` in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(directory: &Path, only: Option<&Path>) -> Result<Self> {
        let mut files = BTreeMap::new();
        for (path, metadata) in walk(directory)? {
            if only.is_none_or(|only| only == path) && !is_left_out(&path) {
                files.insert(path, (metadata.len(), time(&metadata)));
            }
        }
        Ok(Self(files))
    }

    /// What has to be done to get from these files to those of `later`.
    pub fn changes_to(&self, later: &Self) -> FileChanges {
        let written = later.0.iter().filter(|(path, file)| self.0.get(*path) != Some(file));
        let removed = self.0.iter().filter(|(path, _)| !later.0.contains_key(*path));
        FileChanges {
            written: written.map(|(path, _)| path.clone()).collect(),
            removed: removed.map(|(path, (size, time))| (path.clone(), *size, time.as_secs())).collect(),
        }
    }
}

/// What a task has done to the files of a directory.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Those that it has made or written again.
    pub written: Vec<PathBuf>,
    /// Those that are gone, as they were.
    pub removed: Vec<Listed>,
}

impl FileChanges {
    /// Whether every path is below the directory. What another machine says decides which files are changed here.
    pub fn are_safe(&self) -> bool {
        self.written.iter().chain(self.removed.iter().map(|(path, ..)| path)).all(|path| is_below(path))
    }
}

/// Puts in place, in an output directory, the files of a set that a killed task has left under temporary names.
///
/// # Errors
/// The directory cannot be written.
pub fn settle(directory: &Path) -> Result<()> {
    let names: Vec<&str> = artifacts::names().collect();
    let inner = names::directories_in("model_dir").iter().map(|name| directory.join(name));
    inner.chain([directory.to_path_buf()]).try_for_each(|directory| set::finish(&directory, &names))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_a_task_has_done_is_told_by_size_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, nanoseconds| {
            fs::create_dir_all(directory.path().join("deep")).unwrap();
            let file = directory.path().join(name);
            fs::write(&file, text).unwrap();
            let time = UNIX_EPOCH + Duration::new(1_000_000_000, nanoseconds);
            File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        };
        let inventory = || Inventory::of(directory.path(), None).unwrap();
        for name in ["same", "longer", "later", "deep/gone", "deep/.mnist-lock"] {
            write(name, "text", 1);
        }
        let before = inventory();
        assert_eq!(before.changes_to(&before), FileChanges::default());
        write("longer", "texts", 1);
        write("later", "text", 2);
        write("deep/new", "text", 1);
        fs::remove_file(directory.path().join("deep/gone")).unwrap();
        fs::remove_file(directory.path().join("deep/.mnist-lock")).unwrap();
        let changes = before.changes_to(&inventory());
        assert_eq!(changes.written, ["deep/new", "later", "longer"].map(PathBuf::from));
        assert_eq!(changes.removed, [("deep/gone".into(), 4, 1_000_000_000)]);
        let only = Inventory::of(directory.path(), Some(Path::new("later"))).unwrap();
        assert_eq!(before.changes_to(&only).written, [PathBuf::from("later")]);
        let json = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), before);
    }

    #[test]
    fn another_machine_does_not_say_which_files_are_changed_elsewhere() {
        for (path, is_safe) in
            [("model/a", true), ("../a", false), ("/etc/a", false), ("a/../../b", false), ("", false)]
        {
            let written = FileChanges { written: vec![path.into()], removed: vec![] };
            let removed = FileChanges { written: vec![], removed: vec![(path.into(), 0, 0)] };
            assert_eq!([written.are_safe(), removed.are_safe()], [is_safe; 2], "{path}");
        }
    }
}
