//! The outputs of earlier runs, which `mnist cube clean` removes.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::invocation::{Binding, Invocation};
use crate::error::{Error, Result};

/// The outputs of `invocations` that exist inside `workspace`. Left out are directories that hold an input file, such as
/// the parameters, and paths that a link leads out of the workspace.
pub fn outputs(invocations: &[Invocation], workspace: &Path) -> Vec<PathBuf> {
    let bindings = || invocations.iter().flat_map(|invocation| &invocation.bindings);
    let holds_input = |path: &Path| bindings().any(|kept| kept.is_file && kept.is_input && kept.path.starts_with(path));
    let is_removed =
        |binding: &&Binding| !binding.is_input && is_inside(&binding.path, workspace) && !holds_input(&binding.path);
    let mut outputs: Vec<PathBuf> = bindings().filter(is_removed).map(|binding| binding.path.clone()).collect();
    outputs.sort();
    // An output inside another is removed with it.
    outputs.dedup_by(|inner, outer| inner.starts_with(outer));
    outputs
}

/// Whether there is something at `path` and it is below `workspace` once links are followed.
fn is_inside(path: &Path, workspace: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    let inside = || real(path.parent()?)?.starts_with(real(workspace)?).then_some(());
    path != workspace
        && path.starts_with(workspace)
        && !path.components().any(|part| part == Component::ParentDir)
        && path.symlink_metadata().is_ok()
        && inside().is_some()
}

/// Removes a file, or a directory with everything in it; a link is removed and its target stays.
///
/// # Errors
/// The operating system refuses.
pub fn remove(path: &Path) -> Result<()> {
    let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(Error::io("remove", path))
}
