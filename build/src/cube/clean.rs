//! The outputs of earlier runs, which `mnist cube clean` removes.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::check::Invocation;
use super::mount;
use crate::error::{Error, Result};

/// What the run configurations `invocations` name as outputs and what is there of it, inside `workspace` and nowhere else:
/// no directory with an input file, such as the parameters, and nothing that a link leads out to.
pub fn outputs(invocations: &[Invocation], workspace: &Path) -> Vec<PathBuf> {
    let parameters: Vec<_> =
        invocations.iter().flat_map(|invocation| mount::parameters(invocation, workspace)).collect();
    let kept = |path: &Path| parameters.iter().any(|kept| kept.is_file && kept.is_input && kept.path.starts_with(path));
    let mut outputs: Vec<PathBuf> = (parameters.iter())
        .filter(|parameter| !parameter.is_input && is_inside(&parameter.path, workspace) && !kept(&parameter.path))
        .map(|parameter| parameter.path.clone())
        .collect();
    outputs.sort();
    // What lies in another output goes with it.
    outputs.dedup_by(|inner, outer| inner.starts_with(outer));
    outputs
}

/// Whether something is at `path`, below `workspace` however links lead there.
fn is_inside(path: &Path, workspace: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    let inside = || real(path.parent()?)?.starts_with(real(workspace)?).then_some(());
    path != workspace
        && path.starts_with(workspace)
        && !path.components().any(|part| part == Component::ParentDir)
        && path.symlink_metadata().is_ok()
        && inside().is_some()
}

/// Removes a file or a directory with all that is in it; of a link, the link.
///
/// # Errors
/// The operating system refuses.
pub fn remove(path: &Path) -> Result<()> {
    let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(Error::io("remove", path))
}
