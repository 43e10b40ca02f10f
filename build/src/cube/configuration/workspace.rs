//! Inputs that come with a cube, for a run in another workspace.
//!
//! A copy grows in a hidden directory beside its target, `.NAME.mnist-part`, which only its owner may enter and one process
//! at a time has locked, and a rename ends it. What a killed process left there, the next run with this input removes.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tracing::info;

use super::{Configuration, ConfiguredTask};
use crate::cube::directory::CubeDir;
use crate::error::{Error, Result};
use crate::files::atomic::TEMPORARY;
use crate::files::lock::{self, DirectoryLock};
use crate::files::permissions::{mode, set_mode};
use crate::files::{AtomicFile, lies_in, make_directory, writable_directory};
use crate::{interrupt, open};

/// Between two looks whether another run has ended its copy.
const TICK: Duration = Duration::from_millis(50);

impl Configuration {
    /// Copies the inputs of `task` that the cube's own workspace has, and that the workspace of this run lacks. What a task of
    /// the cube makes is not copied.
    ///
    /// # Errors
    /// One cannot be read or written, or would be copied into itself. No half of it is there.
    pub fn bring_inputs(&self, task: &ConfiguredTask, cube: &CubeDir) -> Result<()> {
        let own = cube.absolute_root().join("workspace");
        let parameters = self.tasks.iter().flat_map(|task| &task.parameters);
        let outputs: Vec<&Path> = parameters.filter(|made| !made.is_input).map(|made| made.path.as_path()).collect();
        for input in task.parameters.iter().filter(|parameter| parameter.is_input) {
            let Ok(below) = input.path.strip_prefix(&cube.workspace) else { continue };
            if input.path.exists() {
                remove_leftover(&input.path);
                continue;
            }
            let source = own.join(below);
            if !source.exists() || outputs.contains(&input.path.as_path()) {
                continue;
            }
            expect_outside(&source, &input.path, &cube.workspace)?;
            let within = outputs.iter().filter_map(|output| output.strip_prefix(&input.path).ok());
            let left_out: Vec<PathBuf> = within.map(|output| source.join(output)).collect();
            if copy(&source, &input.path, &left_out)? {
                info!("{}: copied from {}", input.path.display(), source.display());
            }
        }
        Ok(())
    }
}

/// Checks that `target` is not in `source`: the copy would hold a copy of itself, and so on.
fn expect_outside(source: &Path, target: &Path, workspace: &Path) -> Result<()> {
    if !lies_in(target, source) {
        return Ok(());
    }
    Err(Error::Argument {
        flag: "workspace",
        given: workspace.into(),
        expected: "a directory outside the inputs that come with the cube",
        found: "one in such an input",
        next: Some(format!("choose a directory that is not in {}", source.display())),
    })
}

/// Copies a file or a directory to `target`, where nothing is, whole or not at all, without the paths `left_out`. Returns
/// whether this process did: another run may be faster, and is waited for.
fn copy(source: &Path, target: &Path, left_out: &[PathBuf]) -> Result<bool> {
    writable_directory(target.parent().unwrap_or(target))?;
    let unfinished = unfinished_of(target);
    let lock = hold(&unfinished)?;
    let copied = if target.exists() { Ok(false) } else { fill(&unfinished, source, target, left_out) };
    release(&unfinished, lock);
    copied
}

/// The directory in which the copy to `target` grows: on the same file system.
fn unfinished_of(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    target.with_file_name(name)
}

/// Makes the directory `unfinished` and locks it, once no other process has it. None where the file system has no locks: of
/// two runs at once, one may fail there.
fn hold(unfinished: &Path) -> Result<Option<DirectoryLock>> {
    if unfinished.is_symlink() {
        return Err(Error::InTheWay { path: unfinished.into(), found: "a link".into() });
    }
    loop {
        interrupt::check()?;
        match make_directory(unfinished).and_then(|()| DirectoryLock::take_quietly(unfinished)) {
            Err(Error::InUse { .. }) => thread::sleep(TICK),
            // Its holder has just removed it.
            Err(Error::Io { source, .. })
                if [ErrorKind::NotFound, ErrorKind::AlreadyExists].contains(&source.kind()) => {}
            taken => return taken,
        }
    }
}

/// Copies into the directory `unfinished`, and from there to `target`. Returns whether the copy is the one that is there.
fn fill(unfinished: &Path, source: &Path, target: &Path, left_out: &[PathBuf]) -> Result<bool> {
    empty(unfinished)?; // of what a killed process left
    set_mode(unfinished, 0o700)?;
    let copied = unfinished.join("copied");
    if source.is_dir() {
        copy_directory(source, &copied, left_out)?;
    } else {
        copy_file(source, &copied)?;
    }
    match fs::rename(&copied, target) {
        Ok(()) => Ok(true),
        Err(_) if target.exists() => Ok(false),
        // A file system without rename, where this ends in a copy.
        Err(_) if copied.is_file() => copy_file(source, target).map(|()| true),
        Err(error) => Err(Error::io("rename", &copied)(error)),
    }
}

/// Removes the directory `unfinished` and what is in it.
fn release(unfinished: &Path, lock: Option<DirectoryLock>) {
    let _ = empty(unfinished); // the next run tries again
    drop(lock);
    let _ = fs::remove_dir(unfinished); // which another run may have by now
}

/// Removes what a killed process left of a copy to `target`.
fn remove_leftover(target: &Path) {
    let unfinished = unfinished_of(target);
    let is_there = unfinished.symlink_metadata().is_ok_and(|found| found.is_dir());
    // That of a living process is locked.
    if is_there && let Ok(Some(lock)) = DirectoryLock::take_quietly(&unfinished) {
        release(&unfinished, Some(lock));
        info!("{}: removed, left by a process that was killed", unfinished.display());
    }
}

/// Removes what the directory `unfinished` holds, except its lock.
fn empty(unfinished: &Path) -> Result<()> {
    for entry in fs::read_dir(unfinished).map_err(Error::io("read", unfinished))? {
        let entry = entry.map_err(Error::io("read", unfinished))?;
        let path = entry.path();
        if path.ends_with(lock::NAME) {
            continue;
        }
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Links to files are followed. One to a directory, which might lead back, cannot be read as a file.
fn copy_directory(source: &Path, target: &Path, left_out: &[PathBuf]) -> Result<()> {
    make_directory(target)?;
    for entry in fs::read_dir(source).map_err(Error::io("read", source))? {
        let entry = entry.map_err(Error::io("read", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if left_out.contains(&from) {
            continue;
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_directory(&from, &to, left_out)?;
        } else {
            copy_file(&from, &to)?;
        }
    }
    let found = source.metadata().map_err(Error::io("read", source))?;
    set_mode(target, mode(&found) | 0o700) // its owner can move and remove it
}

fn copy_file(source: &Path, target: &Path) -> Result<()> {
    let mut from = open::regular(source).map_err(Error::io("read", source))?;
    let found = from.metadata().map_err(Error::io("read", source))?;
    let mut file = AtomicFile::create(target)?;
    set_mode(file.temporary(), mode(&found))?; // before anything is in it
    let copied = open::in_pieces(&mut from, source, |piece| file.as_file_mut().write_all(piece))?;
    copied.map_err(Error::io("write", target))?;
    file.commit()
}
