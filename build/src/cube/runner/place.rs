//! Outputs that were brought here get their names, all of a directory at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use super::super::listing::{FileChanges, Listed, is_left_out, listed};
use crate::error::{CubeError, Error, Result};
use crate::files::lock::{self, DirectoryLock};
use crate::files::set::FileSet;
use crate::files::{self, OutputDirectory};
use crate::output::artifacts;

/// How the names of directories begin that outputs are brought into.
const PREFIX: &str = ".mlcube-brought-";

/// A new directory in the workspace that outputs are brought into: so there is room for them and those that they replace.
#[derive(Debug)]
pub struct Brought {
    /// By its file it is known for what it is, should this process be killed.
    _lock: Option<DirectoryLock>,
    directory: TempDir,
    /// What could not be put in place.
    conflicts: Vec<CubeError>,
}

impl Brought {
    /// Makes it. Those that killed processes left go.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(workspace: &Path) -> Result<Self> {
        files::make_directory(workspace)?;
        for name in entries(workspace)?.into_iter().filter(|name| name.starts_with(PREFIX)) {
            remove_left(&workspace.join(name));
        }
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(workspace);
        let directory = directory.map_err(Error::io("write into the directory", workspace))?;
        Ok(Self { _lock: DirectoryLock::take_quietly(directory.path())?, directory, conflicts: vec![] })
    }

    /// What it is in.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Does the `changes` of a task to the directory `target`, with the files that were brought below `name`. Where one cannot
    /// be put in place, that is noted.
    ///
    /// # Errors
    /// See [`place`].
    pub fn place(&mut self, name: &Path, target: &Path, changes: &FileChanges) -> Result<()> {
        self.conflicts.extend(place(&self.root().join(name), target, changes)?);
        Ok(())
    }

    /// Removes it. Returns what could not be put in place, if that is so; of more than one, the others are warned of.
    pub fn end(mut self) -> Option<CubeError> {
        let last = self.conflicts.pop();
        self.conflicts.iter().for_each(|conflict| tracing::warn!("{conflict}"));
        last
    }
}

/// Removes a directory that a killed process left, which has the file of its lock. Any other one is a user's, or in use.
fn remove_left(directory: &Path) {
    let is_file = |path: PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_file());
    let is_directory = directory.symlink_metadata().is_ok_and(|found| found.is_dir());
    if is_directory && is_file(directory.join(lock::NAME)) && DirectoryLock::check_free(directory).is_ok() {
        let _ = fs::remove_dir_all(directory); // it is in nobody's way
    }
}

/// Longer names have no room for a temporary one.
const LONGEST_NAME: usize = 200;

/// Does the `changes` of a task to the directory `target`: puts the files in `stage` in place, and takes others away, unless
/// they have changed here meanwhile. Where one that was written has, or cannot stand there, none is put in place: all go into
/// a new directory beside `target`, and the conflict is returned.
///
/// # Errors
/// A file cannot be read or written, or another process writes there: what was there stays whole.
fn place(stage: &Path, target: &Path, changes: &FileChanges) -> Result<Option<CubeError>> {
    for name in &changes.unnamed {
        tracing::warn!("{name}: left out, since its name is no UTF-8");
    }
    changes.made.iter().try_for_each(|path| files::make_directory(&stage.join(path)))?;
    let made = changes.made.iter().find_map(|path| Some((path, not_a_directory(target, path)?)));
    let in_the_way = made.or_else(|| {
        changes.written.iter().find_map(|(path, before)| Some((path, in_the_way(stage, target, path, *before)?)))
    });
    let Some((path, problem)) = in_the_way.filter(|_| stage.exists()) else {
        put(stage, target, &changes.removed)?;
        changes.unmade.iter().rev().for_each(|path| remove_empty(&target.join(path)));
        return Ok(None);
    };
    let beside = beside(target);
    fs::rename(stage, &beside).map_err(Error::io("write", &beside))?;
    files::give_all_to_owner_of(target.parent().unwrap_or(target), &beside);
    Ok(Some(CubeError::Conflict { path: target.join(path), problem, target: target.into(), beside }))
}

/// Why a file cannot be put in place: what stands there is neither what the task found there nor what it wrote, but a user's.
fn in_the_way(stage: &Path, target: &Path, path: &Path, before: Option<(u64, u64)>) -> Option<&'static str> {
    let whole = target.join(path);
    let look = |path: &Path| {
        let (_, size, time) = listed(PathBuf::new(), &fs::metadata(path).ok()?);
        Some((size, time))
    };
    let here = look(&whole);
    let has_changed = here.is_some() && here != before && here != look(&stage.join(path));
    not_a_directory(target, path.parent().unwrap_or(path)).or(match () {
        () if path.iter().any(|name| name.len() > LONGEST_NAME) => Some("its name is too long to be put in place"),
        () if whole.is_dir() => Some("is a directory here, and a file where the task ran"),
        () if has_changed => Some("has changed here since the task began"),
        () => None,
    })
}

/// Why there can be no directory `path` below `target`.
fn not_a_directory(target: &Path, path: &Path) -> Option<&'static str> {
    let whole = target.join(path);
    let mut upwards = whole.ancestors().take_while(|part| part.starts_with(target));
    let is_in_the_way = upwards.any(|part| part.symlink_metadata().is_ok() && !part.is_dir());
    is_in_the_way.then_some("is no directory here, and one where the task ran")
}

/// Removes a directory with nothing in it. Another one is somebody's.
fn remove_empty(directory: &Path) {
    if entries(directory).is_ok_and(|names| names.iter().all(|name| name == lock::NAME)) {
        let _ = fs::remove_file(directory.join(lock::NAME)); // its lock is over
        let _ = fs::remove_dir(directory);
    }
}

/// A path beside the directory where nothing is.
fn beside(target: &Path) -> PathBuf {
    let path = |end: &str| {
        let mut name = target.as_os_str().to_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|number| path(&format!(".brought-{number}")));
    let mut free = std::iter::once(path(".brought")).chain(numbered).filter(|path| path.symlink_metadata().is_err());
    free.next().unwrap_or_else(|| unreachable!("numbers do not end"))
}

/// Puts the files in `stage` in place in `target`, and takes `removed` away.
fn put(stage: &Path, target: &Path, removed: &[Listed]) -> Result<()> {
    if stage.is_dir() {
        files::make_lasting_directory(target)?;
    }
    let brought: BTreeSet<String> = entries(stage)?.into_iter().filter(|name| !is_left_out(Path::new(name))).collect();
    let (mut gone, mut deeper) = (vec![], BTreeMap::<String, Vec<Listed>>::new());
    for (path, size, time) in removed {
        let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        match (parts.next(), parts.next()) {
            (Some(name), None) if is_still(&target.join(&name), *size, *time) => gone.push(name),
            (Some(name), Some(_)) => {
                let below = path.iter().skip(1).collect();
                deeper.entry(name).or_default().push((below, *size, *time));
            }
            _ => {}
        }
    }
    let is_directory = |name: &&String| stage.join(name).symlink_metadata().is_ok_and(|found| found.is_dir());
    let (directories, files): (Vec<&String>, Vec<&String>) = brought.iter().partition(is_directory);
    if !files.is_empty() || !gone.is_empty() {
        replace(stage, target, &files, &gone)?;
    }
    for name in directories {
        put(&stage.join(name), &target.join(name), &deeper.remove(name).unwrap_or_default())?;
    }
    for (name, removed) in deeper {
        let (stage, target) = (stage.join(&name), target.join(&name));
        if target.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            put(&stage, &target, &removed)?;
        }
    }
    Ok(())
}

/// Puts `files` of `stage` in place in `target` and removes `gone` there, all at once.
fn replace(stage: &Path, target: &Path, files: &[&String], gone: &[String]) -> Result<()> {
    let directory = OutputDirectory::open(target)?;
    let mut names: Vec<&str> = artifacts::names().collect();
    names.extend(files.iter().map(|name| name.as_str()));
    directory.finish_set(&names)?;
    let held = directory.lock()?;
    let mut set = FileSet::new(target, held.as_ref());
    for name in files {
        let path = stage.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => set.add_copy(name, &path)?,
            found => {
                let what = if found.is_ok_and(|found| found.is_symlink()) { "a link" } else { "no file" };
                tracing::warn!("{}: left out, since it is {what}", target.join(name).display());
            }
        }
    }
    set.commit(&gone.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The names in a directory; none if it is not there.
fn entries(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries,
    };
    let names = entries
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect());
    names.map_err(Error::io("read", directory))
}

/// Whether a file has this size and this time in seconds.
fn is_still(path: &Path, size: u64, time: u64) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.is_file() && listed(PathBuf::new(), &found) == (PathBuf::new(), size, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_where_the_task_made_a_directory_stays_and_so_does_the_rest() {
        let workspace = tempfile::tempdir().unwrap();
        let at = |name: &str| workspace.path().join(name);
        for name in ["stage/written", "model/new"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "text").unwrap();
        }
        let changes = FileChanges {
            written: vec![("written".into(), None)],
            made: ["new", "new/deep"].map(PathBuf::from).into(),
            ..FileChanges::default()
        };
        let conflict = place(&at("stage"), &at("model"), &changes).unwrap().unwrap().to_string();
        let said =
            format!(": is no directory here, and one where the task ran, so {} is as it was", at("model").display());
        assert!(conflict.contains(&said), "{conflict}");
        assert_eq!(entries(&at("model")).unwrap(), ["new".to_string()].into());
        assert!(at("model/new").is_file());
        assert!(at("model.brought/new/deep").is_dir() && at("model.brought/written").is_file());
        // With nothing in the way they come, and no others go than those that are empty here.
        fs::remove_file(at("model/new")).unwrap();
        fs::create_dir_all(at("model/mine/deep")).unwrap();
        fs::write(at("model/mine/file"), "text").unwrap();
        let unmade = ["mine", "mine/deep"].map(PathBuf::from).into();
        assert!(place(&at("model.brought"), &at("model"), &FileChanges { unmade, ..changes }).unwrap().is_none());
        assert!(at("model/new/deep").is_dir() && at("model/written").is_file() && at("model/mine/file").is_file());
        assert!(!at("model/mine/deep").exists());
    }

    #[test]
    fn a_directory_of_a_user_is_no_leftover() {
        let workspace = tempfile::tempdir().unwrap();
        let at = |name: &str| workspace.path().join(name);
        for name in [".mlcube-brought/file", ".mlcube-brought-a/file", ".mlcube-brought-b/.mnist-lock"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "text").unwrap();
        }
        let first = Brought::begin(workspace.path()).unwrap();
        let second = Brought::begin(workspace.path()).unwrap();
        assert!(first.root().is_dir() && second.root() != first.root());
        drop((first, second));
        assert_eq!(
            entries(workspace.path()).unwrap(),
            [".mlcube-brought", ".mlcube-brought-a"].map(String::from).into()
        );
    }
}
