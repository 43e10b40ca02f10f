//! The files below a directory, and what becomes of them: what a task changes in its output directories on another machine
//! is done here as well, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{atomic, lock, set};
use crate::open;
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

/// Whether one of `paths` is below `path`. In their order, those that are follow it.
pub fn has_below(paths: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let mut later = paths.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
    later.next().is_some_and(|next| next.starts_with(path))
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

/// What is below a directory.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Sorted.
    pub files: Vec<Listed>,
    /// Each before those in it.
    pub directories: BTreeSet<PathBuf>,
}

/// All files and directories below `directory`; none if it is not there. Left out are those whose names are no UTF-8, and
/// what is at a path `without` or below it.
///
/// # Errors
/// It cannot be read.
pub fn tree(directory: &Path, without: &[&Path]) -> Result<Tree> {
    let mut tree = Tree::default();
    walk(directory, &mut |path, metadata, _| {
        match path.to_str() {
            _ if without.contains(&&*path) => return Walk::Past,
            Some(_) if metadata.is_file() => tree.files.push(listed(path, metadata)),
            Some(_) if metadata.is_dir() => _ = tree.directories.insert(path),
            _ => {}
        }
        Walk::On
    })?;
    tree.files.sort();
    Ok(tree)
}

/// Its files alone.
///
/// # Errors
/// It cannot be read.
pub fn list(directory: &Path, without: &[&Path]) -> Result<Vec<Listed>> {
    tree(directory, without).map(|tree| tree.files)
}

/// Whether there are at most so many files below `directory`, with at most so many bytes together. What is at a path
/// `without` does not count. No more is read than that takes.
///
/// # Errors
/// It cannot be read.
pub fn is_small(directory: &Path, without: &[&Path], most: (usize, u64)) -> Result<bool> {
    let (mut files, mut bytes) = (0, 0);
    walk(directory, &mut |path, metadata, _| {
        if without.contains(&&*path) {
            return Walk::Past;
        } else if metadata.is_file() {
            (files, bytes) = (files + 1, bytes + metadata.len());
        }
        if files > most.0 || bytes > most.1 { Walk::End } else { Walk::On }
    })?;
    Ok(files <= most.0 && bytes <= most.1)
}

/// Where to go after a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// On, and into a directory.
    On,
    /// On, and not into it.
    Past,
    /// Nowhere.
    End,
}

/// Shows `visit` every file and directory below `directory`: its path there, what it is or a link leads to, and whether it is
/// a link.
fn walk(directory: &Path, visit: &mut dyn FnMut(PathBuf, &Metadata, bool) -> Walk) -> Result<()> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let path = directory.join(&below);
        let entries = match fs::read_dir(&path) {
            // A task may put a file in the place of a directory.
            Err(error) if open::is_absent(&error) => continue,
            entries => entries.map_err(Error::io("read", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &path))?;
            let name = below.join(entry.file_name());
            let Ok(metadata) = fs::metadata(entry.path()) else { continue }; // a link to nothing
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if metadata.is_dir() && is_link && leads_up(&entry.path(), &path) {
                continue;
            }
            match visit(name.clone(), &metadata, is_link) {
                Walk::On if metadata.is_dir() => waiting.push(name),
                Walk::On | Walk::Past => {}
                Walk::End => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Whether a link leads to a directory that it is in, or that the way to it goes through, so that following it would never end.
pub fn leads_up(link: &Path, directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    let on_the_way = || directory.ancestors().filter_map(real);
    real(link).is_none_or(|target| on_the_way().any(|on_the_way| on_the_way.starts_with(&target)))
}

/// By this a file is told, on its own machine, from another one in its place and from what it becomes when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    bytes: u64,
    /// When it was written, since 1970.
    time: Duration,
    /// When it got its name, owner and permissions, in seconds and nanoseconds, which no program can set.
    changed: (i64, i64),
    inode: u64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let (changed, inode) = {
            use std::os::unix::fs::MetadataExt;
            ((metadata.ctime(), metadata.ctime_nsec()), metadata.ino())
        };
        #[cfg(not(unix))]
        let (changed, inode) = ((0, 0), 0);
        Self { bytes: metadata.len(), time: time(metadata), changed, inode }
    }
}

/// What is in a directory when a task starts, or when it has ended.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    files: BTreeMap<PathBuf, FileIdentity>,
    #[serde(default)]
    directories: BTreeSet<PathBuf>,
    /// Those that are left out because their names are no UTF-8.
    unnamed: Vec<String>,
    /// Pipes, sockets and devices.
    #[serde(default)]
    others: BTreeSet<PathBuf>,
}

impl Inventory {
    /// That of `directory`, or of the one file `only` in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(directory: &Path, only: Option<&Path>) -> Result<Self> {
        let mut inventory = Self::default();
        walk(directory, &mut |path, metadata, is_link| {
            if only.is_some_and(|only| only != path) {
                return Walk::Past;
            }
            match path.to_str() {
                _ if is_left_out(&path) => {}
                None if metadata.is_file() => inventory.unnamed.push(path.to_string_lossy().into_owned()),
                Some(_) if metadata.is_file() => _ = inventory.files.insert(path, FileIdentity::of(metadata)),
                Some(_) if only.is_none() && is_link => {}
                Some(_) if only.is_none() && metadata.is_dir() => _ = inventory.directories.insert(path),
                Some(_) if !metadata.is_dir() => _ = inventory.others.insert(path),
                _ => {}
            }
            Walk::On
        })?;
        Ok(inventory)
    }

    /// What has to be done to get from this to `later`.
    pub fn changes_to(&self, later: &Self) -> FileChanges {
        let there = |file: &FileIdentity| (file.bytes, file.time.as_secs());
        let written = later.files.iter().filter(|(path, file)| self.files.get(*path) != Some(file));
        let removed = self.files.iter().filter(|(path, _)| !later.files.contains_key(*path));
        let unnamed = later.unnamed.iter().filter(|name| !self.unnamed.contains(name));
        FileChanges {
            written: written.map(|(path, _)| (path.clone(), self.files.get(path).map(there))).collect(),
            removed: removed.map(|(path, file)| (path.clone(), file.bytes, file.time.as_secs())).collect(),
            unnamed: unnamed.cloned().collect(),
            made: later.directories.difference(&self.directories).cloned().collect(),
            unmade: self.directories.difference(&later.directories).cloned().collect(),
            others: later.others.difference(&self.others).cloned().collect(),
        }
    }
}

/// What a task has done in a directory.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Those that it has made or written again, with size and time in seconds of what was there before.
    pub written: Vec<(PathBuf, Option<(u64, u64)>)>,
    /// Those that are gone, as they were.
    pub removed: Vec<Listed>,
    /// New ones whose names are no UTF-8, as they can be shown.
    #[serde(default)]
    pub unnamed: Vec<String>,
    /// The directories that it has made, each before those in it.
    #[serde(default)]
    pub made: Vec<PathBuf>,
    /// Those that are gone.
    #[serde(default)]
    pub unmade: Vec<PathBuf>,
    /// New pipes, sockets and devices, which are left out.
    #[serde(default)]
    pub others: Vec<PathBuf>,
}

impl FileChanges {
    /// Those whose paths `rename` knows, by what it makes of them.
    pub fn renamed(&self, rename: impl Fn(&Path) -> Option<PathBuf>) -> Self {
        let written = self.written.iter().filter_map(|(path, before)| Some((rename(path)?, *before)));
        let removed = self.removed.iter().filter_map(|(path, size, time)| Some((rename(path)?, *size, *time)));
        let all = |paths: &[PathBuf]| paths.iter().filter_map(|path| rename(path)).collect();
        Self {
            written: written.collect(),
            removed: removed.collect(),
            unnamed: self.unnamed.clone(),
            made: all(&self.made),
            unmade: all(&self.unmade),
            others: all(&self.others),
        }
    }

    /// Says what does not come into `directory`, since it is neither a file nor a directory.
    pub fn warn_of_left_out(&self, directory: &Path) {
        for path in &self.others {
            tracing::warn!("{}: left out, since it is no file", directory.join(path).display());
        }
    }

    /// Whether every path is below the directory. What another machine says decides which files are changed here.
    pub fn are_safe(&self) -> bool {
        let names: BTreeSet<&Path> = self.written.iter().map(|(path, _)| &**path).collect();
        if names.iter().any(|path| path.ancestors().skip(1).any(|above| names.contains(above))) {
            return false; // what is below a file would be read elsewhere
        }
        let written = self.written.iter().map(|(path, _)| path);
        let files = written.chain(self.removed.iter().map(|(path, ..)| path));
        files.chain(&self.made).chain(&self.unmade).chain(&self.others).all(|path| is_below(path))
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
        let start = inventory();
        assert_eq!(start.changes_to(&start), FileChanges::default());
        write("longer", "texts", 1);
        write("later", "text", 2);
        write("deep/new", "text", 1);
        fs::remove_file(directory.path().join("deep/gone")).unwrap();
        fs::remove_file(directory.path().join("deep/.mnist-lock")).unwrap();
        let changes = start.changes_to(&inventory());
        let before = Some((4, 1_000_000_000));
        let expected = [("deep/new", None), ("later", before), ("longer", before)];
        assert_eq!(changes.written, expected.map(|(path, before)| (PathBuf::from(path), before)));
        assert_eq!(changes.removed, [("deep/gone".into(), 4, 1_000_000_000)]);
        let only = Inventory::of(directory.path(), Some(Path::new("later"))).unwrap();
        assert_eq!(start.changes_to(&only).written, [(PathBuf::from("later"), before)]);
        let json = serde_json::to_string(&start).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), start);
        // One in the place of another, with its time.
        let start = inventory();
        write("other", "text", 1);
        fs::rename(directory.path().join("other"), directory.path().join("same")).unwrap();
        assert_eq!(start.changes_to(&inventory()).written, [(PathBuf::from("same"), before)]);
    }

    #[cfg(unix)]
    #[test]
    fn directories_that_are_made_and_removed_are_told_and_links_to_them_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let inventory = |only| Inventory::of(directory.path(), only).unwrap();
        for name in ["same", "gone/deep"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let start = inventory(None);
        fs::create_dir_all(at("new/deep")).unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
        std::os::unix::fs::symlink(at("same"), at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let changes = start.changes_to(&inventory(None));
        assert_eq!(changes.made, ["new", "new/deep"].map(PathBuf::from));
        assert_eq!(changes.unmade, ["gone", "gone/deep"].map(PathBuf::from));
        assert_eq!(changes.others, [PathBuf::from("socket")]);
        // The output is one file: its neighbours are none of it.
        assert_eq!(inventory(Some(Path::new("same"))), Inventory::default());
    }

    #[test]
    fn what_is_large_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        for name in 0..30 {
            fs::create_dir_all(directory.path().join("target/deep")).unwrap();
            fs::write(directory.path().join("target/deep").join(name.to_string()), "text").unwrap();
        }
        fs::write(directory.path().join("file"), "text").unwrap();
        let is_small = |without: &[&str], most| {
            is_small(directory.path(), &without.iter().map(Path::new).collect::<Vec<_>>(), most).unwrap()
        };
        assert!(is_small(&[], (31, 124)));
        assert!(!is_small(&[], (30, 124)) && !is_small(&[], (31, 123)));
        assert!(is_small(&["target"], (1, 4)));
        assert!(!is_small(&["deep"], (1, 4)), "that is no path from the directory on");
        let mut seen = 0;
        let mut visit = |_, _: &Metadata, _| {
            seen += 1;
            if seen == 3 { Walk::End } else { Walk::On }
        };
        walk(directory.path(), &mut visit).unwrap();
        assert_eq!(seen, 3);
        assert_eq!(list(directory.path(), &[Path::new("target")]).unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn directories_that_lead_to_each_other_are_entered_once_on_each_way() {
        let directory = tempfile::tempdir().unwrap();
        for (name, other) in [("a", "../b"), ("b", "../a")] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), "text").unwrap();
            std::os::unix::fs::symlink(other, directory.path().join(name).join("other")).unwrap();
        }
        let names: Vec<_> = list(directory.path(), &[]).unwrap().into_iter().map(|(path, ..)| path).collect();
        assert_eq!(names, ["a/file", "a/other/file", "b/file", "b/other/file"].map(PathBuf::from));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_link_upwards_is_not_followed_and_a_name_that_is_no_text_is_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::os::unix::fs::symlink(".", directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("file"), "text").unwrap();
        fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"f\xff")), "text").unwrap();
        assert_eq!(list(directory.path(), &[]).unwrap().len(), 1);
        let changes = Inventory::default().changes_to(&Inventory::of(directory.path(), None).unwrap());
        assert_eq!(changes.written, [("file".into(), None)]);
        assert_eq!(changes.unnamed, ["f\u{fffd}"]);
    }

    #[test]
    fn another_machine_does_not_say_which_files_are_changed_elsewhere() {
        for (path, is_safe) in
            [("model/a", true), ("../a", false), ("/etc/a", false), ("a/../../b", false), ("", false)]
        {
            let written = FileChanges { written: vec![(path.into(), None)], ..FileChanges::default() };
            let removed = FileChanges { removed: vec![(path.into(), 0, 0)], ..FileChanges::default() };
            let made = FileChanges { made: vec![path.into()], ..FileChanges::default() };
            let unmade = FileChanges { unmade: vec![path.into()], ..FileChanges::default() };
            assert_eq!([written, removed, made, unmade].map(|changes| changes.are_safe()), [is_safe; 4], "{path}");
        }
        let written = ["way/file", "way"].map(|path| (path.into(), None)).into();
        assert!(!FileChanges { written, ..FileChanges::default() }.are_safe());
    }
}
