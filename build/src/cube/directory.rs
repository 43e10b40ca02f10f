//! The directories of a cube, and the files in it that the user names.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file that makes a directory a cube.
const CUBE_FILE: &str = "mlcube.yaml";

/// The directories of a cube; absolute except `root`, which is as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CubeDir {
    /// The directory with mlcube.yaml.
    pub root: PathBuf,
    /// The directory that images are built from.
    pub build: PathBuf,
    /// The directory that `$WORKSPACE` stands for.
    pub workspace: PathBuf,
}

/// An argument that names a file of the cube.
#[derive(Debug)]
pub struct FileFlag {
    name: &'static str,
    expected: &'static str,
    /// Where such files are.
    folder: &'static str,
}

/// `--platform`.
pub const PLATFORM: FileFlag =
    FileFlag { name: "platform", expected: "a platform file, such as platforms/docker.yaml", folder: "platforms" };

/// `--task`.
pub const TASK: FileFlag =
    FileFlag { name: "task", expected: "a run configuration, such as run/train.yaml", folder: "run" };

impl CubeDir {
    /// The cube at `mlcube`, with its own workspace unless another is given.
    ///
    /// # Errors
    /// There is no cube, or the current directory is needed and cannot be found.
    pub fn new(mlcube: &Path, workspace: Option<&Path>) -> Result<Self> {
        let root = root_of(mlcube)?;
        let workspace = workspace.map_or_else(|| root.join("workspace"), Path::to_path_buf);
        Ok(Self { build: absolute(&root.join("build"))?, workspace: absolute(&workspace)?, root })
    }

    /// A file that the user named: relative to the current directory if it exists there, otherwise to the cube, or by its
    /// name alone, such as `docker`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn file(&self, flag: &FileFlag, given: &Path) -> Result<PathBuf> {
        let by_name = self.root.join(flag.folder).join(given).with_extension("yaml");
        let places = [given.to_path_buf(), self.root.join(given), by_name];
        if let Some(place) = places.iter().find(|place| place.exists() && !place.is_dir()) {
            return Ok(place.clone());
        }
        let (found, next) = if places.iter().any(|place| place.is_dir()) {
            ("a directory", None)
        } else if flag.name == TASK.name && given.to_string_lossy().contains(',') {
            ("several names", Some("run one task after the other".into()))
        } else {
            ("nothing of this name", None)
        };
        Err(Error::Argument { flag: flag.name, given: given.into(), expected: flag.expected, found, next })
    }
}

/// The cube's directory, which may be given as the mlcube.yaml in it.
///
/// # Errors
/// `mlcube` is neither.
pub fn root_of(mlcube: &Path) -> Result<PathBuf> {
    let wrong = |found| Error::Argument {
        flag: "mlcube",
        given: mlcube.into(),
        expected: "the cube's directory, or the mlcube.yaml in it",
        found,
        next: None,
    };
    let root = match mlcube.parent() {
        _ if mlcube.is_dir() => mlcube,
        _ if !mlcube.exists() => return Err(wrong("nothing of this name")),
        Some(parent) if mlcube.file_name() == Some(CUBE_FILE.as_ref()) => parent,
        _ => return Err(wrong("another file")),
    };
    // The name of the current directory is not empty in messages.
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    if root.join(CUBE_FILE).symlink_metadata().is_err() {
        return Err(wrong("a directory without mlcube.yaml"));
    }
    Ok(root.to_path_buf())
}

/// `path` from the root of the file system; it need not exist.
///
/// # Errors
/// The current directory is needed and cannot be found.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}
