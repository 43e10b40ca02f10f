//! Reads the files of a cube and collects their faults.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::super::locate::{PathStep, line_of, shown};
use super::super::schema::{self, Schema, described};
use crate::yaml::{self, Problem};

/// The longest file of a cube, in bytes.
const LONGEST: u64 = 1 << 20;

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
    pub check_parameters: &'a dyn Fn(&Path) -> Result<(), Problem>,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// The files read, by their paths in the cube.
    pub files: Vec<String>,
    /// The cube's tasks.
    pub tasks: Vec<String>,
    /// The faults, by file and line.
    pub faults: Vec<CubeFault>,
}

/// One fault. `Display` is one line: `run/train.yaml:9: input_binding.data: ...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CubeFault {
    /// The file's path in the cube.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What was expected and what was found.
    pub problem: String,
}

impl fmt::Display for CubeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        // Texts from a file may hold line breaks.
        let text = format!("{}{line}: {}", self.file, self.problem);
        text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_debug()) } else { write!(f, "{c}") })
    }
}

/// A file that was read.
pub struct Document {
    name: String,
    text: String,
    /// Its contents.
    pub value: Value,
}

/// Reads files of the cube in `root` and keeps their faults.
pub struct Reader<'a> {
    root: PathBuf,
    /// Absolute, or relative to `root`.
    pub workspace: PathBuf,
    /// The program around the check.
    pub program: &'a Program<'a>,
    report: Report,
}

impl<'a> Reader<'a> {
    pub fn new(root: &Path, workspace: &Path, program: &'a Program) -> Self {
        Self { root: root.to_path_buf(), workspace: workspace.to_path_buf(), program, report: Report::default() }
    }

    /// The files and faults so far, each fault once.
    pub fn report(mut self, tasks: Vec<String>) -> Report {
        self.report.faults.sort();
        self.report.faults.dedup();
        Report { tasks, ..self.report }
    }

    /// `value` if there are no faults.
    pub fn ended<T>(self, value: Option<T>) -> Result<T, Vec<CubeFault>> {
        let faults = self.report(vec![]).faults;
        value.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// Reads a file and compares it with `schemas`. Without schemas any keys are right. None if it is not YAML.
    pub fn read(&mut self, name: &str, schemas: &[&Schema]) -> Option<Document> {
        self.report.files.push(name.to_string());
        let (text, value) = match text_and_value(&self.root.join(name)) {
            Ok(read) => read,
            Err(problem) => {
                self.problem(name, problem);
                return None;
            }
        };
        let document = Document { name: name.to_string(), text, value };
        if !schemas.is_empty() {
            self.mismatches(&document, schema::check(&document.value, schemas));
        } else if !document.value.is_mapping() {
            self.fault(&document, &[], format!("expected keys with values, found {}", described(&document.value)));
        }
        Some(document)
    }

    /// Checks a parameters file, once however often it is named.
    pub fn parameters(&mut self, name: &str) {
        if self.report.files.iter().any(|file| file == name) {
            return;
        }
        self.report.files.push(name.to_string());
        let path = self.root.join(name);
        if let Err(problem) = regular(&path).and_then(|()| (self.program.check_parameters)(&path)) {
            self.problem(name, problem);
        }
    }

    /// Checks an input file. In the workspace it comes with the cube; elsewhere it is the user's own.
    pub fn input_file(&mut self, document: &Document, path: &[PathStep], value: &str) {
        let in_workspace = value.strip_prefix("$WORKSPACE/").unwrap_or(value);
        if Path::new(in_workspace).is_absolute() {
            return;
        }
        let file = self.workspace.join(in_workspace).to_string_lossy().into_owned();
        if self.exists(&file) {
            self.parameters(&file);
        } else {
            self.expected(document, path, &format!("a file {file}"), "none");
        }
    }

    /// Whether the cube has the file `name`.
    pub fn exists(&self, name: &str) -> bool {
        self.root.join(name).is_file()
    }

    /// Whether the cube has anything named `name`, a broken link included.
    pub fn is_there(&self, name: &str) -> bool {
        self.root.join(name).symlink_metadata().is_ok()
    }

    /// The YAML files in a directory of the cube, sorted.
    pub fn yaml_files(&self, directory: &str) -> Vec<String> {
        let names = self.names(directory).into_iter();
        names.filter(|name| name.ends_with(".yaml") || name.ends_with(".yml")).collect()
    }

    /// The YAML files in the directories directly below a directory of the cube, sorted.
    pub fn yaml_files_one_below(&self, directory: &str) -> Vec<String> {
        let names = self.names(directory).into_iter();
        names.filter(|name| self.root.join(name).is_dir()).flat_map(|name| self.yaml_files(&name)).collect()
    }

    /// What a directory of the cube holds, by the paths in the cube, sorted.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut paths: Vec<String> = names.map(|name| format!("{directory}/{name}")).collect();
        paths.sort();
        paths
    }

    /// Notes a fault at `path` of a document; the problem begins with the path.
    pub fn expected(&mut self, document: &Document, path: &[PathStep], expected: &str, found: &str) {
        self.fault(document, path, format!("{}: expected {expected}, found {found}", shown(path)));
    }

    /// Notes a fault at the line of `path` in a document.
    pub fn fault(&mut self, document: &Document, path: &[PathStep], text: String) {
        let line = line_of(&document.text, path);
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
        self.problem(directory, Problem { line: None, text: format!("expected {expected}, found none") });
    }

    fn problem(&mut self, file: &str, Problem { line, text }: Problem) {
        self.report.faults.push(CubeFault { file: file.to_string(), line, problem: text });
    }
}

fn text_and_value(path: &Path) -> Result<(String, Value), Problem> {
    regular(path)?;
    let text = yaml::read(path, LONGEST, "a cube's file").map_err(unreadable)??;
    let value = yaml::parse(&text)?;
    Ok((text, value))
}

/// Whether `path` is a file. Reading something else might never end: a pipe, say.
fn regular(path: &Path) -> Result<(), Problem> {
    if fs::metadata(path).map_err(unreadable)?.is_file() {
        Ok(())
    } else {
        Err(Problem { line: None, text: "expected a file, found something else".into() })
    }
}

fn unreadable(error: std::io::Error) -> Problem {
    Problem { line: None, text: format!("cannot read: {error}") }
}
