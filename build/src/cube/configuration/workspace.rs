//! Inputs that come with a cube, for a run in another workspace.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tracing::info;

use super::{Configuration, ConfiguredTask};
use crate::cube::directory::CubeDir;
use crate::error::{Error, Result};
use crate::files::growing::{self, Growing};
use crate::files::permissions::{mode, set_mode};
use crate::files::{AtomicFile, lies_in, make_directory, writable_directory};
use crate::open;

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
                growing::remove_leftover(&input.path);
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
    let growing = Growing::beside(target)?;
    if target.exists() { Ok(false) } else { fill(&growing.join("copied"), source, target, left_out) }
}

/// Copies to `copied`, and from there to `target`. Returns whether the copy is the one that is there.
fn fill(copied: &Path, source: &Path, target: &Path, left_out: &[PathBuf]) -> Result<bool> {
    if source.is_dir() {
        copy_directory(source, copied, left_out)?;
    } else {
        copy_file(source, copied)?;
    }
    match fs::rename(copied, target) {
        Ok(()) => Ok(true),
        Err(_) if target.exists() => Ok(false),
        // A file system without rename, where this ends in a copy.
        Err(_) if copied.is_file() => copy_file(source, target).map(|()| true),
        Err(error) => Err(Error::io("rename", copied)(error)),
    }
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
