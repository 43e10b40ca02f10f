//! The directories of a cube, and the files in it that the user names.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use crate::error::{Error, Result};
use crate::text::suggestion;
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
    pub folder: &'static str,
    /// Whether they are platform files. Otherwise they are run configurations.
    is_platform: bool,
}

/// Other names of platforms.
const SYNONYMS: [(&str, &str); 2] = [("k8s", "kubernetes"), ("apptainer", "singularity")];

/// `--platform`.
pub const PLATFORM: FileFlag = FileFlag {
    name: "platform",
    expected: "a platform file, or the name of one in platforms/",
    folder: "platforms",
    is_platform: true,
};

/// `--platform` for a cube of one file.
pub const PLATFORM_OR_SECTION: FileFlag =
    FileFlag { expected: "a section of the cube's file, or a platform file", ..PLATFORM };

/// `--task`.
pub const TASK: FileFlag = FileFlag {
    name: "task",
    expected: "a run configuration, or the name of one in run/",
    folder: "run",
    is_platform: false,
};

impl FileFlag {
    /// What `file` is, if its `schema_type` is that of another kind of file.
    fn other_kind(&self, file: &Path) -> Option<&'static str> {
        // A pipe would have no end, and what is wrong with a file the check says.
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let text = is_file.then(|| yaml::read(file, "a cube's file"))?.ok()?.ok()?;
        let document = yaml::parse::<Value>(&text).ok()?;
        let schema_type = document.get("schema_type")?.as_str()?;
        match schema_type {
            "mlcube_root" => Some("the file of a cube"),
            "mlcube_task" => Some("the file of a task"),
            "mlcube_invoke" => self.is_platform.then_some("a run configuration"),
            _ => {
                let has = |name: &&str| document.get(*name).is_some();
                let is_run = ["task_name", "input_binding", "output_binding"].iter().any(has);
                let is_platform = schema_type.starts_with("mlcube_") && !is_run;
                (is_platform && !self.is_platform).then_some("a platform file")
            }
        }
    }
}

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
        if let Some(given) = workspace.filter(|given| given.exists() && !given.is_dir()) {
            let (expected, found) = ("a directory", "something else");
            return Err(Error::Argument { flag: "workspace", given: given.into(), expected, found, next: None });
        }
        let workspace = workspace.map_or_else(|| root.join("workspace"), Path::to_path_buf);
        let (build, workspace) = (absolute(&root.join("build"))?, absolute(&workspace)?);
        Ok(Self { root, configuration_2, build, workspace })
    }

    /// [`root`](Self::root), absolute.
    pub fn absolute_root(&self) -> &Path {
        self.build.parent().unwrap_or(&self.root)
    }

    /// The workspace that belongs to the cube, absolute.
    pub fn own_workspace(&self) -> PathBuf {
        self.absolute_root().join("workspace")
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
    /// name alone, such as `docker`. What else the flag takes is in `others`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn file(&self, flag: &FileFlag, given: &Path, others: &[&str]) -> Result<PathBuf> {
        let folder = self.root.join(flag.folder);
        let mut by_name = folder.join(given).into_os_string();
        by_name.push(".yaml");
        let places = [given.to_path_buf(), self.root.join(given), folder.join(given), by_name.into()];
        let place = places.iter().find(|place| place.exists() && !place.is_dir());
        let found = match place.map(|place| flag.other_kind(place)) {
            Some(None) => return Ok(place.cloned().unwrap_or_default()),
            Some(Some(other)) => other,
            None if places.iter().any(|place| place.is_dir()) => "a directory",
            None => "nothing of this name",
        };
        let next =
            Some(self.known(flag, place.and_then(|place| place.file_stem()).unwrap_or(given.as_os_str()), others));
        Err(Error::Argument { flag: flag.name, given: given.into(), expected: flag.expected, found, next })
    }

    /// The hint to what the flag takes where `name` is none of it.
    fn known(&self, flag: &FileFlag, name: &OsStr, others: &[&str]) -> String {
        let named = if flag.is_platform { self.platforms(others) } else { self.names_in(flag.folder) };
        let known: Vec<&str> = named.iter().map(String::as_str).collect();
        let name = name.to_string_lossy();
        let synonym = SYNONYMS.iter().find(|(other, meant)| name == *other && known.contains(meant));
        match synonym {
            Some((_, meant)) if flag.is_platform => format!("did you mean {meant}?"),
            _ if known.is_empty() => format!("{} has no files *.yaml", self.root.join(flag.folder).display()),
            _ if name == "podman" && others.contains(&"docker") && !known.contains(&"podman") => {
                "give --platform=docker with -Pdocker.docker=podman".into()
            }
            _ => {
                let suggested = suggestion(&name, known.iter().copied(), &known);
                let with_path = !others.is_empty() && !suggested.ends_with('?');
                suggested + if with_path { ", or the path of a platform file" } else { "" }
            }
        }
    }

    /// What `--platform` takes by name: the `sections` of the cube's file that are platforms, then platform files.
    pub fn platforms(&self, sections: &[&str]) -> Vec<String> {
        let files = self.names_in(PLATFORM.folder).into_iter().filter(|name| !sections.contains(&&**name));
        sections.iter().map(|section| section.to_string()).chain(files).collect()
    }

    /// The names alone of the files in a folder of the cube.
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".yaml")?.to_string());
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        names
    }

    /// The files that the user named with commas between, or the one whose name has commas.
    ///
    /// # Errors
    /// There is no such file, or a name is empty.
    pub fn files(&self, flag: &FileFlag, given: &Path) -> Result<Vec<PathBuf>> {
        match self.file(flag, given, &[]) {
            Ok(file) => Ok(vec![file]),
            Err(_) => listed(flag, given)?.iter().map(|name| self.file(flag, name, &[])).collect(),
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
        next: Some("give --mlcube=DIR, or change into the cube's directory".into()),
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

/// The names that `given` lists with commas between. One that is there twice is meant twice.
///
/// # Errors
/// A name is empty.
pub fn listed(flag: &FileFlag, given: &Path) -> Result<Vec<PathBuf>> {
    let Some(names) = given.to_str() else { return Ok(vec![given.into()]) };
    if names.split(',').any(|name| name.trim().is_empty()) {
        let (expected, found) = ("names with commas between", "an empty one");
        return Err(Error::Argument { flag: flag.name, given: given.into(), expected, found, next: None });
    }
    Ok(names.split(',').map(PathBuf::from).collect())
}

/// `path` from the root of the file system; it need not exist.
///
/// # Errors
/// The current directory is needed and cannot be found.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}
