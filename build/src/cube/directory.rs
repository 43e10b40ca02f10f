//! The directories of a cube, and the files in it that the user names.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use crate::error::{Error, Result};
use crate::yaml;

/// The file that makes a directory a cube.
const CUBE_FILE: &str = "mlcube.yaml";

/// A cube's directories, absolute except `root`, which is as the user wrote it, and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CubeDir {
    /// The directory with mlcube.yaml.
    pub root: PathBuf,
    /// The file in it that holds the whole cube, if it is one of configuration 2.0.
    pub configuration_2: Option<PathBuf>,
    /// The directory that images are built from.
    pub build: PathBuf,
    /// The directory that `$WORKSPACE` stands for.
    pub workspace: PathBuf,
}

/// An argument that names a file of the cube.
#[derive(Debug)]
pub struct FileFlag {
    /// Without hyphens.
    pub name: &'static str,
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
        let (root, file) = root_of(mlcube)?;
        let is_configuration_2 = is_configuration_2(&root.join(&file));
        if !is_configuration_2 && file != Path::new(CUBE_FILE) {
            return Err(not_a_cube(mlcube, "another file"));
        }
        let configuration_2 = is_configuration_2.then_some(file);
        let workspace = workspace.map_or_else(|| root.join("workspace"), Path::to_path_buf);
        let (build, workspace) = (absolute(&root.join("build"))?, absolute(&workspace)?);
        Ok(Self { root, configuration_2, build, workspace })
    }

    /// [`root`](Self::root), absolute.
    pub fn absolute_root(&self) -> &Path {
        self.build.parent().unwrap_or(&self.root)
    }

    /// The cube in messages: its directory, or its file where that has a name of its own.
    pub fn shown(&self) -> PathBuf {
        self.cube_in(&self.root)
    }

    /// What `--mlcube` takes for this cube, absolute.
    pub fn given(&self) -> PathBuf {
        self.cube_in(self.absolute_root())
    }

    fn cube_in(&self, root: &Path) -> PathBuf {
        let file = self.configuration_2.as_ref().filter(|file| **file != *CUBE_FILE);
        file.map_or_else(|| root.into(), |file| root.join(file))
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
        let found = if places.iter().any(|place| place.is_dir()) { "a directory" } else { "nothing of this name" };
        Err(Error::Argument { flag: flag.name, given: given.into(), expected: flag.expected, found, next: None })
    }

    /// The files that the user named with commas between, or the one whose name has commas.
    ///
    /// # Errors
    /// There is no such file.
    pub fn files(&self, flag: &FileFlag, given: &Path) -> Result<Vec<PathBuf>> {
        match self.file(flag, given) {
            Err(error) if listed(given).len() == 1 => Err(error),
            Err(_) => listed(given).iter().map(|name| self.file(flag, name)).collect(),
            Ok(file) => Ok(vec![file]),
        }
    }
}

/// The cube's directory and the name of its file there.
fn root_of(mlcube: &Path) -> Result<(PathBuf, PathBuf)> {
    let (root, file) = match (mlcube.parent(), mlcube.file_name()) {
        _ if mlcube.is_dir() => (mlcube, CUBE_FILE.as_ref()),
        (Some(parent), Some(file)) if mlcube.exists() => (parent, Path::new(file)),
        _ => return Err(not_a_cube(mlcube, "nothing of this name")),
    };
    // The name of the current directory is not empty in messages.
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    if root.join(file).symlink_metadata().is_err() {
        return Err(not_a_cube(mlcube, "a directory without mlcube.yaml"));
    }
    Ok((root.into(), file.into()))
}

fn not_a_cube(mlcube: &Path, found: &'static str) -> Error {
    Error::Argument {
        flag: "mlcube",
        given: mlcube.into(),
        expected: "the cube's directory, or its file, such as mlcube.yaml",
        found,
        next: None,
    }
}

/// Whether `file` holds a whole cube, as the runners since 0.0.4 read it: it has no `schema_type`, and a section of a runner
/// or tasks by their names. Any other file is of the old shape if it is called mlcube.yaml; under another name it is said what
/// is wrong with it, if it cannot be read.
fn is_configuration_2(file: &Path) -> bool {
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file()); // a pipe would have no end
    let if_faulty = is_file && !file.ends_with(CUBE_FILE);
    let text = if is_file { yaml::read(file, "a cube's file") } else { return false };
    let Ok(Ok(text)) = text else { return if_faulty };
    let sections = ["docker", "singularity", "tasks"];
    // Most files are told without their YAML being read, which is read once more by the check.
    let is_old = text.lines().any(|line| line.starts_with("schema_type:"));
    if is_old || !if_faulty && !sections.iter().any(|name| text.contains(name)) {
        return false;
    }
    let has = |value: &Value, key: &str| value.get(key).is_some_and(Value::is_mapping);
    yaml::parse::<Value>(&text)
        .map_or(if_faulty, |value| value.get("schema_type").is_none() && sections.iter().any(|name| has(&value, name)))
}

/// The names that `given` lists with commas between.
pub fn listed(given: &Path) -> Vec<PathBuf> {
    given.to_str().map_or_else(|| vec![given.into()], |names| names.split(',').map(PathBuf::from).collect())
}

/// `path` from the root of the file system; it need not exist.
///
/// # Errors
/// The current directory is needed and cannot be found.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}
