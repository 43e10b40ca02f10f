//! Reads the files of a cube and collects their faults.

use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::super::locate::{PathStep, Places, shown};
use super::super::schema::{self, Schema, described};
use crate::error::{beside, found_at};
use crate::text::escaped;
use crate::yaml::{self, Problem};

/// The flags of a task, without hyphens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFlags {
    /// All of them.
    pub all: Vec<String>,
    /// Those that the task does not run without.
    pub required: Vec<String>,
}

/// The program around the check, as far as the check depends on it.
pub struct Program<'a> {
    /// The flags of a task; none if the program has no such task.
    pub flags_of: &'a dyn Fn(&str) -> Option<TaskFlags>,
    /// Reads a parameters file.
    pub check_parameters: &'a dyn Fn(&Path) -> Result<(), Vec<Problem>>,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// The files read, by their paths in the cube.
    pub files: Vec<PathBuf>,
    /// The cube's tasks.
    pub tasks: Vec<String>,
    /// The faults, by file and line.
    pub faults: Vec<CubeFault>,
}

/// One fault. `Display` is one line: `run/train.yaml:9: input_binding.data: ...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CubeFault {
    /// The file's path in the cube.
    pub file: PathBuf,
    /// What is wrong with it, and where.
    pub problem: Problem,
    /// Whether it is no file, but an argument of the command line.
    pub is_argument: bool,
}

impl fmt::Display for CubeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.problem.in_file(&self.file)))
    }
}

/// A file that was read.
pub struct Document {
    name: PathBuf,
    text: String,
    /// The lines of `text`, once a fault has asked for one.
    places: OnceCell<Places>,
    /// Its contents.
    pub value: Value,
}

/// Reads files of the cube in `root` and keeps their faults.
pub struct Reader<'a> {
    root: PathBuf,
    /// Absolute, or relative to `root`.
    pub workspace: PathBuf,
    /// Whether that is the one which comes with the cube.
    has_own_workspace: bool,
    /// Whether input files may be missing there.
    pub takes_missing: bool,
    /// Whether a task's file cannot be read. Then nothing is known of tasks that are not there.
    pub lacks_tasks: bool,
    /// The name of the cube, once its file was read.
    pub cube: String,
    /// Its version.
    pub version: Option<String>,
    /// Whether the cube is this program's.
    pub is_ours: bool,
    /// The program around the check.
    pub program: &'a Program<'a>,
    /// The files that the cube's configurations name as inputs.
    pub input_files: Vec<PathBuf>,
    report: Report,
}

impl<'a> Reader<'a> {
    pub fn new(root: &Path, workspace: &Path, program: &'a Program) -> Self {
        let has_own_workspace = std::path::absolute(root).is_ok_and(|root| {
            let own = root.join("workspace");
            root.join(workspace) == own
        });
        let (root, workspace) = (root.to_path_buf(), workspace.to_path_buf());
        let report = Report::default();
        Self {
            root,
            workspace,
            has_own_workspace,
            takes_missing: false,
            lacks_tasks: false,
            cube: String::new(),
            version: None,
            is_ours: false,
            program,
            input_files: vec![],
            report,
        }
    }

    /// The files and faults so far, each fault once.
    pub fn report(mut self, tasks: Vec<String>) -> Report {
        self.report.faults.sort();
        self.report.faults.dedup();
        Report { tasks, ..self.report }
    }

    /// Whether a fault was found so far.
    pub fn has_faults(&self) -> bool {
        !self.report.faults.is_empty()
    }

    /// `value` if there are no faults.
    pub fn ended<T>(self, value: Option<T>) -> Result<T, Vec<CubeFault>> {
        let faults = self.report(vec![]).faults;
        value.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// Reads a file and compares it with `schemas`. Without schemas any keys are right. None if it is not YAML.
    pub fn read(&mut self, name: impl AsRef<Path>, schemas: &[&Schema]) -> Option<Document> {
        let name = name.as_ref();
        self.report.files.push(name.to_path_buf());
        let (text, value) = match text_and_value(&self.root.join(name)) {
            Ok(read) => read,
            Err(problem) => {
                self.problem(name, problem);
                return None;
            }
        };
        let document = Document { name: name.to_path_buf(), text, places: OnceCell::new(), value };
        if !schemas.is_empty() {
            self.mismatches(&document, schema::check(&document.value, schemas));
        } else if !document.value.is_mapping() {
            self.fault(&document, &[], format!("expected keys with values, found {}", described(&document.value)));
        }
        Some(document)
    }

    /// Checks a parameters file of this program, once however often it is named.
    pub fn parameters(&mut self, name: &Path) {
        if !self.is_ours || self.report.files.iter().any(|file| file == name) {
            return;
        }
        self.report.files.push(name.to_path_buf());
        let path = self.root.join(name);
        let checked = regular(&path).map_err(|problem| vec![problem]);
        let problems = checked.and_then(|()| (self.program.check_parameters)(&path)).err().unwrap_or_default();
        problems.into_iter().for_each(|problem| self.problem(name, problem));
    }

    /// Checks the input file that `value` names. In the cube's own workspace it comes with the cube; elsewhere it is the
    /// user's own.
    pub fn input_file(&mut self, document: &Document, path: &[PathStep], value: &str, file: PathBuf) {
        self.input_files.push(file.clone());
        if Path::new(value).is_absolute() {
            return;
        }
        if self.exists(&file) {
            self.parameters(&file);
        } else if self.has_own_workspace && (!self.takes_missing || self.root.join(&file).exists()) {
            let beside = beside(&self.root.join(&file)).map(|known| format!(": {known}")).unwrap_or_default();
            let found = self.found_at(&file).to_string() + &beside;
            self.expected(document, path, &format!("a file {}", file.display()), &found);
        }
    }

    /// What the cube has in place of a file `name`.
    pub fn found_at(&self, name: impl AsRef<Path>) -> &'static str {
        found_at(&self.root.join(name))
    }

    /// Whether the cube has the file `name`.
    pub fn exists(&self, name: impl AsRef<Path>) -> bool {
        self.root.join(name).is_file()
    }

    /// Whether the cube has anything named `name`, a broken link included.
    pub fn is_there(&self, name: &str) -> bool {
        self.root.join(name).symlink_metadata().is_ok()
    }

    /// The YAML files in a directory of the cube, sorted.
    pub fn yaml_files(&mut self, directory: impl AsRef<Path>) -> Vec<PathBuf> {
        let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        self.entries(directory.as_ref()).into_iter().filter(is_yaml).collect()
    }

    /// The YAML files in the directories directly below a directory of the cube, sorted.
    pub fn yaml_files_one_below(&mut self, directory: &str) -> Vec<PathBuf> {
        let mut entries = self.entries(Path::new(directory));
        entries.retain(|path| self.root.join(path).is_dir());
        entries.iter().flat_map(|path| self.yaml_files(path)).collect()
    }

    /// What a directory of the cube holds, by the paths in the cube, sorted. Nothing if there is no such directory; one
    /// that cannot be read is a fault.
    fn entries(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(directory)).and_then(|entries| {
            entries.map(|entry| Ok(directory.join(entry?.file_name()))).collect::<io::Result<Vec<_>>>()
        });
        match entries {
            Ok(mut entries) => {
                entries.sort();
                entries
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => {
                self.problem(directory, unreadable(error));
                vec![]
            }
        }
    }

    /// Notes a fault at `path` of a document; the problem begins with the path.
    pub fn expected(&mut self, document: &Document, path: &[PathStep], expected: &str, found: &str) {
        self.fault(document, path, format!("{}: expected {expected}, found {found}", shown(path)));
    }

    /// Notes a fault at the line of `path` in a document.
    pub fn fault(&mut self, document: &Document, path: &[PathStep], text: String) {
        let line = document.places.get_or_init(|| Places::of(&document.text)).line_of(path);
        self.problem(&document.name, Problem { line, text });
    }

    /// Notes the differences between a document and its schema.
    pub fn mismatches(&mut self, document: &Document, mismatches: Vec<schema::Mismatch>) {
        for schema::Mismatch { path, problem } in mismatches {
            self.fault(document, &path, problem);
        }
    }

    /// Notes that the cube's directory lacks a file.
    pub fn missing(&mut self, directory: &str, expected: &str) {
        self.problem(Path::new(directory), Problem::of_file(format!("expected {expected}, found none")));
    }

    /// Notes a problem of a file.
    pub fn problem(&mut self, file: &Path, problem: Problem) {
        self.report.faults.push(CubeFault { file: file.to_path_buf(), problem, is_argument: false });
    }

    /// Notes what is wrong with an argument of the command line.
    pub fn wrong_argument(&mut self, argument: &str, problem: String) {
        let problem = Problem::of_file(problem);
        self.report.faults.push(CubeFault { file: argument.into(), problem, is_argument: true });
    }
}

fn text_and_value(path: &Path) -> Result<(String, Value), Problem> {
    regular(path)?;
    let text = yaml::read(path, "a cube's file").map_err(unreadable)??;
    let value = yaml::parse(&text)?;
    Ok((text, value))
}

/// Whether `path` is a file. Reading something else might never end: a pipe, say.
fn regular(path: &Path) -> Result<(), Problem> {
    if fs::metadata(path).map_err(unreadable)?.is_file() {
        Ok(())
    } else {
        Err(Problem::of_file("expected a file, found something else"))
    }
}

fn unreadable(error: io::Error) -> Problem {
    Problem::of_file(format!("cannot read: {error}"))
}
