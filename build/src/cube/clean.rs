//! What earlier runs wrote into the workspace, which `mnist cube clean` removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::check::Configurations;
use super::invocation::Invocation;
use crate::data::download::store;
use crate::error::{Error, Result};
use crate::files::atomic::TEMPORARY;
use crate::files::directory::is_being_written;
use crate::files::lock::{self, DirectoryLock};
use crate::output::{artifacts, names};

/// What is removed and what stays.
#[derive(Debug, Default)]
pub struct Cleaning {
    /// Files that this program wrote, and the directories that hold nothing else, each before what it holds.
    pub removed: Vec<PathBuf>,
    /// What stays of the contents of output directories, and why.
    pub kept: Vec<(PathBuf, &'static str)>,
    /// Keep others out of the directories, each under its own, until the removal is over.
    locks: BTreeMap<PathBuf, DirectoryLock>,
}

/// Looks through the output directories of `configurations` that are in `workspace`, links followed. Only files go that
/// have a name and a place which this program gives them, and which it wrote; those of a data set only `with_data`, and if their hash is right.
/// None of another program's cube: its parameters may have the names of ours.
/// The directories from which something goes are locked, unless it is a `dry_run`, which writes nothing.
///
/// # Errors
/// A directory or the data cannot be read, a training writes there, or a signal arrived.
pub fn look(configurations: &Configurations, workspace: &Path, with_data: bool, dry_run: bool) -> Result<Cleaning> {
    let mut cleaning = Cleaning::default();
    let Some(workspace) = real(workspace) else { return Ok(cleaning) };
    let bindings = || configurations.invocations.iter().flat_map(Invocation::here);
    // A file that a task is given is nobody's output, whichever way it is bound.
    let files = bindings().filter(|binding| binding.is_file).map(|binding| &binding.path);
    let inputs: BTreeSet<_> = files.chain(&configurations.input_files).filter_map(|path| real(path)).collect();
    let ours = configurations.invocations.iter().filter(|invocation| invocation.is_ours).flat_map(Invocation::here);
    let outputs = ours.filter(|binding| !binding.is_input && !binding.is_file);
    let mut directories: BTreeMap<PathBuf, BTreeSet<&str>> = BTreeMap::new();
    // A link to a directory that is gone would be in the way of the next run.
    let mut lasting = BTreeSet::from([workspace.clone()]);
    for (path, binding) in outputs.filter_map(|binding| Some((real(&binding.path)?, binding))) {
        if path.starts_with(&workspace) && path.is_dir() {
            lasting.extend(binding.path.is_symlink().then(|| path.clone()));
            // A link is not followed: a task makes none.
            let inner = names::directories_in(&binding.name).iter().map(|name| (path.join(name), *name));
            let inner = inner.filter(|(path, _)| path.symlink_metadata().is_ok_and(|found| found.is_dir()));
            for (path, flag) in inner.chain([(path.clone(), &*binding.name)]) {
                directories.entry(path).or_default().insert(flag);
            }
        }
    }
    for (directory, kinds) in made_in(&directories)? {
        directories.entry(directory).or_default().extend(kinds);
    }
    // Backwards, so that a directory comes after those in it.
    for (directory, flags) in directories.iter().rev() {
        DirectoryLock::check_free(directory)?; // a task that runs is not robbed of its files
        let before = (cleaning.kept.len(), cleaning.removed.len());
        let mut holds_more = false;
        for path in entries(directory)? {
            if directories.contains_key(&path) {
                holds_more |= !cleaning.removed.contains(&path);
                continue;
            }
            let reason =
                if inputs.contains(&path) { Some("an input of the cube") } else { stays(&path, flags, with_data)? };
            match reason {
                Some(reason) => cleaning.kept.push((path, reason)),
                None => cleaning.removed.push(path),
            }
        }
        if !dry_run && cleaning.removed.len() > before.1 {
            cleaning.locks.extend(DirectoryLock::take(directory)?.map(|lock| (directory.clone(), lock)));
        }
        if cleaning.kept.len() == before.0 && !holds_more && !lasting.contains(directory) {
            cleaning.removed.push(directory.clone());
        }
    }
    cleaning.removed.sort();
    cleaning.kept.sort();
    Ok(cleaning)
}

/// The directories that tasks make in `directories`, with their kinds. A link to one is not followed.
fn made_in(directories: &BTreeMap<PathBuf, BTreeSet<&str>>) -> Result<Vec<(PathBuf, BTreeSet<&'static str>)>> {
    let mut made = vec![];
    for (directory, flags) in directories {
        for path in entries(directory)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let kinds: BTreeSet<_> = flags.iter().filter_map(|flag| names::subdirectory(flag, name)).collect();
            if !kinds.is_empty() && path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                made.push((path, kinds));
            }
        }
    }
    Ok(made)
}

/// Why something in the output directory that `flags` name is not removed; none if it is.
fn stays(path: &Path, flags: &BTreeSet<&str>, with_data: bool) -> Result<Option<&'static str>> {
    // A link is not followed: a task writes none.
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = path.parent().unwrap_or(path);
    Ok(if is_file && name.ends_with(TEMPORARY) && is_being_written(path) {
        Some("a running process writes it")
    } else if is_file && flags.iter().any(|flag| names::is_ours(flag, name)) && !artifacts::is_stranger(directory, name)
    {
        None
    } else if is_file && names::is_data(name) && store::is_known(path)? {
        (!with_data).then_some("data, which --data removes")
    } else {
        Some("not written by this program")
    })
}

/// What `directory` holds, sorted.
fn entries(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(Error::io("read", directory))
}

/// `path` as the file system knows it, without links and `..`; none if there is nothing.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

impl Cleaning {
    /// Removes the files and directories of [`removed`](Self::removed), from the end, since a directory must be empty.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn carry_out(mut self) -> Result<()> {
        for path in self.removed.iter().rev() {
            if path.ends_with(lock::NAME) {
                continue; // it goes with the lock
            }
            let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            self.locks.remove(path); // whose file is the last one there
            match if is_directory { fs::remove_dir(path) } else { fs::remove_file(path) } {
                // Something came or went since the look.
                Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {}
                other => other.map_err(Error::io("remove", path))?,
            }
        }
        Ok(())
    }
}
