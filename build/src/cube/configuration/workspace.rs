//! Inputs that come with a cube, for a run in another workspace.

use std::fs;
use std::io::Write;
use std::path::Path;

use tracing::info;

use super::{Configuration, ConfiguredTask};
use crate::cube::directory::CubeDir;
use crate::error::{Error, Result};
use crate::files::{AtomicFile, writable_directory};
use crate::open;

impl Configuration {
    /// Copies the inputs of `task` that the cube's own workspace has, and that the workspace of this run lacks. What a task of
    /// the cube makes is not copied.
    ///
    /// # Errors
    /// One cannot be read or written. No half of it is there.
    pub fn bring_inputs(&self, task: &ConfiguredTask, cube: &CubeDir) -> Result<()> {
        let own = cube.absolute_root().join("workspace");
        let outputs = || self.tasks.iter().flat_map(|task| &task.parameters).filter(|parameter| !parameter.is_input);
        for input in task.parameters.iter().filter(|parameter| parameter.is_input) {
            let (Ok(below), false) = (input.path.strip_prefix(&cube.workspace), input.path.exists()) else { continue };
            let source = own.join(below);
            if source.exists() && !outputs().any(|output| output.path == input.path) {
                info!("{}: copied from {}", input.path.display(), source.display());
                copy(&source, &input.path)?;
            }
        }
        Ok(())
    }
}

/// Copies a file or a directory to `target`, where nothing is, whole or not at all.
fn copy(source: &Path, target: &Path) -> Result<()> {
    let parent = target.parent().unwrap_or(target);
    writable_directory(parent)?;
    if !source.is_dir() {
        return copy_file(source, target);
    }
    let unfinished = tempfile::tempdir_in(parent).map_err(Error::io("write", parent))?;
    let copied = unfinished.path().join("copied");
    copy_directory(source, &copied)?;
    fs::rename(&copied, target).map_err(Error::io("rename", &copied))
}

/// Links to files are followed. One to a directory, which might lead back, cannot be read as a file.
fn copy_directory(source: &Path, target: &Path) -> Result<()> {
    writable_directory(target)?;
    for entry in fs::read_dir(source).map_err(Error::io("read", source))? {
        let entry = entry.map_err(Error::io("read", source))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let copy = if is_directory { copy_directory } else { copy_file };
        copy(&entry.path(), &target.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> Result<()> {
    let mut from = open::regular(source).map_err(Error::io("read", source))?;
    let mut file = AtomicFile::create(target)?;
    let copied = open::in_pieces(&mut from, source, |piece| file.as_file_mut().write_all(piece))?;
    copied.map_err(Error::io("write", target))?;
    file.commit()
}
