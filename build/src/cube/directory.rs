//! The directories of a cube.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The directories of a cube; absolute except `root`, which is as the user wrote it.
#[derive(Debug)]
pub struct CubeDir {
    /// The directory with mlcube.yaml.
    pub root: PathBuf,
    /// The directory that images are built from.
    pub build: PathBuf,
    /// The directory that `$WORKSPACE` stands for.
    pub workspace: PathBuf,
}

impl CubeDir {
    /// The cube at `mlcube`, with its own workspace unless another is given.
    ///
    /// # Errors
    /// The current directory is needed and cannot be found.
    pub fn new(mlcube: &Path, workspace: Option<&Path>) -> Result<Self> {
        let root = root_of(mlcube);
        let workspace = workspace.map_or_else(|| root.join("workspace"), Path::to_path_buf);
        Ok(Self { root: root.into(), build: absolute(&root.join("build"))?, workspace: absolute(&workspace)? })
    }

    /// A file that the user named: relative to the current directory if it exists there, otherwise to the cube.
    pub fn file(&self, given: &Path) -> PathBuf {
        if given.exists() { given.into() } else { self.root.join(given) }
    }
}

/// The cube's directory, which may be given as the mlcube.yaml in it.
pub fn root_of(mlcube: &Path) -> &Path {
    if mlcube.is_file() { mlcube.parent().unwrap_or(mlcube) } else { mlcube }
}

/// `path` from the root of the file system; it need not exist.
///
/// # Errors
/// The current directory is needed and cannot be found.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}
