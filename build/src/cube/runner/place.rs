//! Outputs that were brought here get their names, all of a directory at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use super::super::listing::{FileChanges, Listed, has_below, listed};
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

    /// Does the `changes` of a task to an output, with the files that were brought below `name`. Where one cannot be put in
    /// place, that is noted.
    ///
    /// # Errors
    /// See [`place`].
    pub fn place(&mut self, name: &Path, output: Output, changes: &FileChanges) -> Result<()> {
        self.conflicts.extend(place(&self.root().join(name), output, changes)?);
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

/// An output whose changes are put in place.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The directory that changes are below: the output itself, or that of a file.
    pub directory: &'a Path,
    /// The output.
    pub path: &'a Path,
}

/// Does the `changes` of a task to an output: puts the files that it wrote in place, which were brought into `stage`, and
/// takes others away, unless they have changed here meanwhile. Where one that was written has, or cannot stand there, none is
/// put in place or taken away: all go into a new directory beside the output, and the conflict is returned.
///
/// # Errors
/// A file cannot be read or written, or another process writes there: what was there stays whole.
fn place(stage: &Path, output: Output, changes: &FileChanges) -> Result<Option<CubeError>> {
    let Output { directory: target, path: shown } = output;
    for name in &changes.unnamed {
        tracing::warn!("{name}: left out, since its name is no UTF-8");
    }
    let freed = freed(target, changes);
    let made = changes.made.iter().find_map(|path| Some((path, not_a_directory(target, path, &freed)?)));
    let in_the_way = made.or_else(|| {
        changes
            .written
            .iter()
            .find_map(|(path, before)| Some((path, in_the_way(stage, target, path, *before, &freed)?)))
    });
    let Some((path, problem)) = in_the_way else {
        clear(target, changes, &freed)?;
        put(stage, target, changes, &changes.removed)?;
        changes.unmade.iter().rev().for_each(|path| remove_empty(&target.join(path)));
        return Ok(None);
    };
    let beside = beside(shown);
    put(stage, &beside, changes, &[])?;
    Ok(Some(CubeError::Conflict { path: target.join(path), problem, target: shown.into(), beside }))
}

/// The files and directories here that the task took away, and that nobody has changed since.
fn freed(target: &Path, changes: &FileChanges) -> BTreeSet<PathBuf> {
    let files = changes.removed.iter().map(|(path, size, time)| (target.join(path), *size, *time));
    let mut freed: BTreeSet<PathBuf> =
        files.filter(|(path, size, time)| is_still(path, *size, *time)).map(|(path, ..)| path).collect();
    // Those within others first.
    for directory in changes.unmade.iter().rev().map(|path| target.join(path)) {
        let is_freed = |name: &String| name == lock::NAME || freed.contains(&directory.join(name));
        let is_real = directory.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_real && entries(&directory).is_ok_and(|names| names.iter().all(is_freed)) {
            freed.insert(directory);
        }
    }
    freed
}

/// Takes away what of `freed` stands where files come or directories are made.
fn clear(target: &Path, changes: &FileChanges, freed: &BTreeSet<PathBuf>) -> Result<()> {
    let written = changes.written.iter().map(|(path, _)| path);
    let come: BTreeSet<PathBuf> = written.chain(&changes.made).map(|path| target.join(path)).collect();
    let is_in_the_way = |path: &Path| has_below(&come, path) || path.ancestors().any(|above| come.contains(above));
    for path in freed.iter().rev().filter(|path| is_in_the_way(path)) {
        match path.is_dir() {
            true => remove_empty(path),
            false => fs::remove_file(path).map_err(Error::io("remove", path))?,
        }
    }
    Ok(())
}

/// Why a file cannot be put in place: what stands there is neither what the task found there nor what it wrote or took away,
/// but a user's.
fn in_the_way(
    stage: &Path,
    target: &Path,
    path: &Path,
    before: Option<(u64, u64)>,
    freed: &BTreeSet<PathBuf>,
) -> Option<&'static str> {
    let whole = target.join(path);
    let look = |path: &Path| {
        let (_, size, time) = listed(PathBuf::new(), &fs::metadata(path).ok()?);
        Some((size, time))
    };
    let here = look(&whole);
    let has_changed = here.is_some() && here != before && here != look(&stage.join(path));
    not_a_directory(target, path.parent().unwrap_or(path), freed).or(match () {
        () if path.iter().any(|name| name.len() > LONGEST_NAME) => Some("its name is too long to be put in place"),
        () if freed.contains(&whole) => None,
        () if whole.is_dir() => Some("is a directory here, and a file where the task ran"),
        () if has_changed => Some("has changed here since the task began"),
        () => None,
    })
}

/// Why there can be no directory `path` below `target`.
fn not_a_directory(target: &Path, path: &Path, freed: &BTreeSet<PathBuf>) -> Option<&'static str> {
    // Without a slash at its end, after which a file would not be seen.
    let whole: PathBuf = target.join(path).components().collect();
    let mut upwards = whole.ancestors().take_while(|part| part.starts_with(target));
    let is_in_the_way = upwards.any(|part| part.symlink_metadata().is_ok() && !part.is_dir() && !freed.contains(part));
    is_in_the_way.then_some("is no directory here, and one where the task ran")
}

/// Removes a directory with nothing in it. Another one is somebody's.
fn remove_empty(directory: &Path) {
    if entries(directory).is_ok_and(|names| names.iter().all(|name| name == lock::NAME)) {
        let _ = fs::remove_file(directory.join(lock::NAME)); // its lock is over
        let _ = fs::remove_dir(directory);
    }
}

/// A path beside `target` where nothing is.
fn beside(target: &Path) -> PathBuf {
    let path = |end: &str| {
        let mut name = target.components().collect::<PathBuf>().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|number| path(&format!(".brought-{number}")));
    let mut free = std::iter::once(path(".brought")).chain(numbered).filter(|path| path.symlink_metadata().is_err());
    free.next().unwrap_or_else(|| unreachable!("numbers do not end"))
}

/// What changes in one directory, at once.
#[derive(Debug, Default)]
struct InOne {
    /// The names of the files that come.
    come: Vec<String>,
    /// Those of the files that go.
    go: Vec<String>,
}

/// Puts the files that were written, which are in `stage`, in place in `target`, and takes `removed` away.
fn put(stage: &Path, target: &Path, changes: &FileChanges, removed: &[Listed]) -> Result<()> {
    let mut directories = BTreeMap::<PathBuf, InOne>::new();
    let mut at = |path: &Path, add: fn(&mut InOne) -> &mut Vec<String>| {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
        let one = directories.entry(directory.into()).or_default();
        add(one).push(name.to_string_lossy().into_owned());
    };
    changes.written.iter().for_each(|(path, _)| at(path, |one| &mut one.come));
    let still = removed.iter().filter(|(path, size, time)| is_still(&target.join(path), *size, *time));
    still.for_each(|(path, ..)| at(path, |one| &mut one.go));
    changes.made.iter().try_for_each(|path| files::make_lasting_directory(&target.join(path)))?;
    for (directory, InOne { come, go }) in directories {
        replace(&stage.join(&directory), &target.join(&directory), &come, &go)?;
    }
    Ok(())
}

/// Puts the files `come` of `stage` in place in `target` and removes those that `go` there, all at once.
fn replace(stage: &Path, target: &Path, come: &[String], go: &[String]) -> Result<()> {
    if !come.is_empty() {
        files::make_lasting_directory(target)?;
    }
    let directory = OutputDirectory::open(target)?;
    let mut names: Vec<&str> = artifacts::names().collect();
    names.extend(come.iter().chain(go).map(String::as_str));
    directory.finish_set(&names)?;
    let held = directory.lock()?;
    let mut set = FileSet::new(target, held.as_ref());
    for name in come {
        let path = stage.join(name);
        let found = path.symlink_metadata().map_err(Error::io("read", &path))?;
        if found.is_file() {
            set.add_copy(name, &path)?;
        } else {
            let what = if found.is_symlink() { "a link" } else { "no file" };
            tracing::warn!("{}: left out, since it is {what}", target.join(name).display());
        }
    }
    set.commit(&go.iter().map(String::as_str).collect::<Vec<_>>())
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
        let conflict = place(&at("stage"), whole(&at("model")), &changes).unwrap().unwrap().to_string();
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
        place(&at("model.brought"), whole(&at("model")), &FileChanges { unmade, ..changes }).unwrap();
        assert!(at("model/new/deep").is_dir() && at("model/written").is_file() && at("model/mine/file").is_file());
        assert!(!at("model/mine/deep").exists());
    }

    /// An output that is a directory.
    fn whole(path: &Path) -> Output<'_> {
        Output { directory: path, path }
    }

    /// A workspace with these files, each with its name as text.
    fn workspace(names: &[&str]) -> tempfile::TempDir {
        let workspace = tempfile::tempdir().unwrap();
        for name in names {
            let path = workspace.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        workspace
    }

    #[test]
    fn files_in_one_directory_are_placed_each_for_itself() {
        let workspace = workspace(&["stage/one.json", "stage/two.json", "two.json"]);
        let at = |name: &str| workspace.path().join(name);
        let written = |name: &str| FileChanges { written: vec![(name.into(), None)], ..FileChanges::default() };
        for name in ["one.json", "two.json"] {
            place(&at("stage"), Output { directory: workspace.path(), path: &at(name) }, &written(name)).unwrap();
        }
        // The second has changed here.
        let text = |name: &str| fs::read_to_string(at(name)).unwrap();
        assert_eq!((text("one.json"), text("two.json")), ("stage/one.json".into(), "two.json".into()));
        assert_eq!(text("two.json.brought/two.json"), "stage/two.json");
    }

    #[test]
    fn a_file_and_a_directory_take_each_others_place_unless_they_have_changed_here() {
        for changed in [None, Some("model/file"), Some("model/directory/deep/file"), Some("model/directory/mine")] {
            let workspace =
                workspace(&["stage/file/new", "stage/directory", "model/file", "model/directory/deep/file"]);
            let at = |name: &str| workspace.path().join(name);
            let listed = |name: &str| listed(name.into(), &fs::metadata(at("model").join(name)).unwrap());
            let changes = FileChanges {
                written: ["file/new", "directory"].map(|name| (name.into(), None)).into(),
                removed: ["file", "directory/deep/file"].map(listed).into(),
                made: vec!["file".into()],
                unmade: ["directory", "directory/deep"].map(PathBuf::from).into(),
                ..FileChanges::default()
            };
            changed.iter().for_each(|name| fs::write(at(name), "another text of mine").unwrap());
            let conflict = place(&at("stage"), whole(&at("model")), &changes).unwrap();
            let place = if changed.is_some() { "model.brought" } else { "model" };
            assert_eq!(conflict.is_some(), changed.is_some(), "{changed:?}");
            for name in ["file/new", "directory"] {
                let text = fs::read_to_string(at(place).join(name)).unwrap();
                assert_eq!(text, format!("stage/{name}"), "{changed:?}");
            }
            if changed.is_some() {
                assert!(at("model/file").is_file() && at("model/directory/deep/file").is_file(), "{changed:?}");
            }
        }
    }

    #[test]
    fn only_what_was_written_comes() {
        let workspace = workspace(&["stage/written", "stage/other", "model/other"]);
        let at = |name: &str| workspace.path().join(name);
        let written = FileChanges { written: vec![("written".into(), None)], ..FileChanges::default() };
        place(&at("stage"), whole(&at("model")), &written).unwrap();
        assert_eq!(fs::read_to_string(at("model/other")).unwrap(), "model/other");
        assert!(at("model/written").is_file());
    }

    #[test]
    fn a_file_in_the_place_of_an_output_stays() {
        let workspace = workspace(&["stage/written", "model"]);
        let at = |name: &str| workspace.path().join(name);
        let written = FileChanges { written: vec![("written".into(), None)], ..FileChanges::default() };
        place(&at("stage"), whole(&at("model")), &written).unwrap();
        assert!(at("model").is_file() && at("model.brought/written").is_file());
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
