//! `mnist cube check`: reads a whole cube and finds everything that a runner would trip over.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::locate::{Step, line_of};
use super::schema::{self, Schema, described, joined, key, shown};
use crate::text::one_of;

/// The longest file of a cube that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A flag of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Without hyphens before it.
    pub name: String,
    /// Whether the task does not run without it.
    pub required: bool,
}

/// What the check needs to know of the program around it.
pub struct Program<'a> {
    /// The flags of a task; none where there is no such task.
    pub flags_of: &'a dyn Fn(&str) -> Option<Vec<Flag>>,
    /// Reads a parameters file; the error is one line that begins with the path.
    pub check_parameters: &'a dyn Fn(&Path) -> Result<(), String>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The files read, by their paths in the cube.
    pub files: Vec<String>,
    /// The cube's tasks.
    pub tasks: Vec<String>,
    /// What is wrong, by file and line.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong. `Display` is one line: `run/train.yaml:9: input_binding.data: ...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file's path in the cube.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What was expected, and what was found.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        // What a file says may hold line breaks.
        let text = format!("{}{line}: {}", self.file, self.problem);
        text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_debug()) } else { write!(f, "{c}") })
    }
}

/// A file that was read.
struct Document {
    name: String,
    text: String,
    value: Value,
}

/// A task's parameters: name and type of each.
#[derive(Debug, Default)]
struct Task {
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

impl Task {
    fn has(&self, parameter: &str) -> bool {
        self.inputs.contains_key(parameter) || self.outputs.contains_key(parameter)
    }
}

/// Checks the cube at `mlcube`: its directory, or the mlcube.yaml in it.
pub fn check(mlcube: &Path, program: &Program) -> Report {
    let mut checker = Checker::new(root_of(mlcube), Path::new("workspace"), program);
    let Some(tasks) = checker.tasks() else {
        // Without the cube's own file nothing else can be held against anything.
        return checker.report();
    };
    checker.runs(&tasks);
    let platforms = [checker.yaml_files("platforms"), checker.yaml_files_one_below("platforms")].concat();
    for name in &platforms {
        checker.read(name, schema::PLATFORMS);
    }
    if platforms.is_empty() {
        checker.missing("platforms", "a platform file (*.yaml)");
    }
    for name in checker.yaml_files("workspace/parameters") {
        checker.parameters(&name);
    }
    checker.configuration_2(&tasks);
    checker.report.tasks = tasks.into_keys().collect();
    checker.report()
}

/// The directory of the cube that was given as it or as the mlcube.yaml in it.
pub fn root_of(mlcube: &Path) -> &Path {
    if mlcube.is_file() { mlcube.parent().unwrap_or(mlcube) } else { mlcube }
}

/// What a run configuration asks for, with nothing wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The task's name.
    pub task: String,
    /// Its parameters with their values, inputs before outputs, each in the file's order.
    pub bindings: Vec<Binding>,
}

/// A parameter of a task and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The parameter.
    pub name: String,
    /// A file; otherwise a directory.
    pub is_file: bool,
    /// An input; otherwise an output.
    pub is_input: bool,
    /// A path, perhaps below `$WORKSPACE`.
    pub value: String,
}

/// Reads the run configuration `task` of the cube in `root` and what it depends on; relative paths in it are below
/// `workspace`.
///
/// # Errors
/// What is wrong with these files.
pub fn invocation(root: &Path, workspace: &Path, task: &Path, program: &Program) -> Result<Invocation, Vec<Fault>> {
    let mut checker = Checker::new(root, workspace, program);
    let invocation = checker.tasks().and_then(|tasks| checker.run(&task.to_string_lossy(), &tasks));
    checker.ended(invocation)
}

/// Reads a platform file.
///
/// # Errors
/// What is wrong with it.
pub fn platform(file: &Path, program: &Program) -> Result<Value, Vec<Fault>> {
    let mut checker = Checker::new(Path::new(""), Path::new(""), program);
    let document = checker.read(&file.to_string_lossy(), schema::PLATFORMS);
    checker.ended(document.map(|document| document.value))
}

/// All run configurations of the cube in `root`.
///
/// # Errors
/// What is wrong with the cube's tasks; a run configuration with a fault is left out.
pub fn invocations(root: &Path, workspace: &Path, program: &Program) -> Result<Vec<Invocation>, Vec<Fault>> {
    let mut checker = Checker::new(root, workspace, program);
    let Some(tasks) = checker.tasks() else { return checker.ended(None) };
    let files = checker.yaml_files("run");
    Ok(files.iter().filter_map(|file| checker.run(file, &tasks)).collect())
}

struct Checker<'a> {
    root: PathBuf,
    workspace: PathBuf,
    program: &'a Program<'a>,
    report: Report,
}

impl<'a> Checker<'a> {
    fn new(root: &Path, workspace: &Path, program: &'a Program) -> Self {
        Self { root: root.to_path_buf(), workspace: workspace.to_path_buf(), program, report: Report::default() }
    }

    /// What was found, each fault once.
    fn report(mut self) -> Report {
        self.report.faults.sort();
        self.report.faults.dedup();
        self.report
    }

    /// `value`, where nothing was found that is wrong.
    fn ended<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        let faults = self.report().faults;
        value.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// mlcube.yaml and the tasks that it lists.
    fn tasks(&mut self) -> Option<BTreeMap<String, Task>> {
        let mut tasks = BTreeMap::new();
        let cube = self.read("mlcube.yaml", &[schema::ROOT])?;
        let listed = cube.value.get("tasks").and_then(Value::as_sequence).cloned().unwrap_or_default();
        for (nth, file) in listed.iter().enumerate() {
            let Some(file) = file.as_str() else { continue };
            let path = [key("tasks"), Step::Item(nth)];
            let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if tasks.contains_key(&name) {
                self.fault(&cube, &path, format!("expected each task once, found {name} again"));
                continue;
            }
            if !self.root.join(file).is_file() {
                self.fault(&cube, &path, format!("expected a file {file}, found none"));
                continue;
            }
            let Some(document) = self.read(file, &[schema::TASK]) else { continue };
            let task =
                Task { inputs: parameters(&document.value, "inputs"), outputs: parameters(&document.value, "outputs") };
            self.flags(&document, &name, &task);
            tasks.insert(name, task);
        }
        Some(tasks)
    }

    /// A task has the program's own task, each of its parameters is a flag of it, and no flag that it needs is missing.
    fn flags(&mut self, document: &Document, name: &str, task: &Task) {
        let Some(flags) = (self.program.flags_of)(name) else {
            self.fault(document, &[], format!("expected a task of the program, found {name}, which it has not"));
            return;
        };
        let names: Vec<&str> = flags.iter().map(|flag| flag.name.as_str()).collect();
        let mut seen: Vec<&str> = vec![];
        for direction in ["inputs", "outputs"] {
            let listed = document.value.get(direction).and_then(Value::as_sequence).into_iter().flatten();
            for (nth, item) in listed.enumerate() {
                let at = |field: &str| [key(direction), Step::Item(nth), key(field)];
                let Some(parameter) = item.get("name").and_then(Value::as_str) else { continue };
                let mut fault = |field: &str, expected: &str, found: &str| {
                    let path = at(field);
                    self.fault(document, &path, format!("{}: expected {expected}, found {found}", shown(&path)));
                };
                if seen.contains(&parameter) {
                    fault("name", "each parameter once", &format!("{parameter} again"));
                }
                seen.push(parameter);
                if !names.contains(&parameter) {
                    fault("name", &format!("a flag of `mnist {name}` ({})", one_of(&names)), parameter);
                    continue;
                }
                let kind = if parameter.ends_with("_file") { "file" } else { "directory" };
                if let Some(found @ ("file" | "directory")) = item.get("type").and_then(Value::as_str)
                    && found != kind
                {
                    fault("type", &format!("{kind}, which {parameter} is"), found);
                }
            }
        }
        for needed in flags.iter().filter(|flag| flag.required && !task.has(&flag.name)) {
            let problem = format!("expected {}, which `mnist {name}` needs, found no such parameter", needed.name);
            self.fault(document, &[], problem);
        }
    }

    /// Every run configuration names a task and binds exactly its parameters, and every task has one.
    fn runs(&mut self, tasks: &BTreeMap<String, Task>) {
        let mut without: Vec<&String> = tasks.keys().collect();
        for file in self.yaml_files("run") {
            match self.run(&file, tasks) {
                Some(Invocation { task, .. }) => without.retain(|name| **name != task),
                // A file that does not tell its task may be any task's.
                None => without.clear(),
            }
        }
        for task in without {
            self.missing("run", &format!("a run configuration (*.yaml) of task {task}"));
        }
    }

    /// A run configuration, as far as it is one of a task of the cube.
    fn run(&mut self, file: &str, tasks: &BTreeMap<String, Task>) -> Option<Invocation> {
        let document = self.read(file, &[schema::INVOKE])?;
        let name = document.value.get("task_name").and_then(Value::as_str)?;
        let Some(task) = tasks.get(name) else {
            let known: Vec<&String> = tasks.keys().collect();
            let problem = format!("task_name: expected {}, found {name:?}", one_of(&known));
            self.fault(&document, &[key("task_name")], problem);
            return None;
        };
        let mut bindings = vec![];
        for (binding, parameters) in [("input_binding", &task.inputs), ("output_binding", &task.outputs)] {
            let bound = document.value.get(binding).and_then(Value::as_mapping).cloned().unwrap_or_default();
            let path = [key(binding)];
            for missing in parameters.keys().filter(|name| !bound.contains_key(name.as_str())) {
                let problem = format!("{binding}: expected a value for {missing} of task {name}, found none");
                self.fault(&document, &path, problem);
            }
            for (parameter, value) in &bound {
                let (Some(parameter), Some(value)) = (parameter.as_str(), value.as_str()) else { continue };
                let path = joined(&path, key(parameter));
                if value.strip_prefix("$WORKSPACE").unwrap_or(value).contains('$') {
                    let problem =
                        format!("{}: expected a path, perhaps below $WORKSPACE, found {value:?}", shown(&path));
                    self.fault(&document, &path, problem);
                    continue;
                }
                let Some(kind) = parameters.get(parameter) else {
                    let known: Vec<&String> = parameters.keys().collect();
                    let known = if known.is_empty() { "no parameter".into() } else { one_of(&known) };
                    let problem = format!("{}: expected {known} of task {name}, found {parameter}", shown(&path));
                    self.fault(&document, &path, problem);
                    continue;
                };
                let (is_file, is_input) = (kind == "file", binding == "input_binding");
                if is_file && is_input {
                    self.input_file(&document, &path, value);
                }
                bindings.push(Binding { name: parameter.into(), is_file, is_input, value: value.into() });
            }
        }
        Some(Invocation { task: name.into(), bindings })
    }

    /// Something that a directory of the cube should hold.
    fn missing(&mut self, directory: &str, expected: &str) {
        let problem = format!("expected {expected}, found none");
        self.report.faults.push(Fault { file: directory.into(), line: None, problem });
    }

    /// An input file in the workspace comes with the cube; one elsewhere is its user's affair.
    fn input_file(&mut self, document: &Document, path: &[Step], value: &str) {
        let in_workspace = value.strip_prefix("$WORKSPACE/").unwrap_or(value);
        if Path::new(in_workspace).is_absolute() {
            return;
        }
        let file = self.workspace.join(in_workspace).to_string_lossy().into_owned();
        if self.root.join(&file).is_file() {
            self.parameters(&file);
        } else {
            self.fault(document, path, format!("{}: expected a file {file}, found none", shown(path)));
        }
    }

    fn parameters(&mut self, name: &str) {
        if self.report.files.iter().any(|file| file == name) {
            return;
        }
        self.report.files.push(name.to_string());
        let path = self.root.join(name);
        if let Err(problem) = regular(&path) {
            self.report.faults.push(Fault { file: name.into(), line: None, problem });
            return;
        }
        if let Err(problem) = (self.program.check_parameters)(&path) {
            // The message begins with the path, and with the line where there is one.
            let problem = problem.strip_prefix(&*path.to_string_lossy()).unwrap_or(&problem);
            let (line, problem) = match problem.strip_prefix(':').and_then(|rest| rest.split_once(": ")) {
                Some((line, rest)) if line.parse::<usize>().is_ok() => (line.parse().ok(), rest),
                _ => (None, problem.trim_start_matches(": ")),
            };
            self.report.faults.push(Fault { file: name.into(), line, problem: problem.into() });
        }
    }

    /// mlcube-2.0.yaml, where there is one, has the same tasks with the same parameters.
    fn configuration_2(&mut self, tasks: &BTreeMap<String, Task>) {
        let name = "mlcube-2.0.yaml";
        if self.root.join(name).symlink_metadata().is_err() {
            return;
        }
        let Some(document) = self.read(name, &[]) else { return };
        for (path, problem) in schema::check_configuration_2(&document.value) {
            self.fault(&document, &path, problem);
        }
        let Some(listed) = document.value.get("tasks").and_then(Value::as_mapping).cloned() else {
            self.fault(&document, &[key("tasks")], "tasks: expected the cube's tasks, found none".into());
            return;
        };
        let names = |mapping: Option<&Value>| -> Vec<String> {
            let mapping = mapping.and_then(Value::as_mapping);
            mapping
                .map_or(vec![], |mapping| mapping.keys().filter_map(|name| name.as_str().map(String::from)).collect())
        };
        let listed_names = names(document.value.get("tasks"));
        let expected: Vec<String> = tasks.keys().cloned().collect();
        self.same(&document, &[key("tasks")], &listed_names, &expected);
        for (task_name, task) in tasks {
            let Some(definition) = listed.get(task_name.as_str()) else { continue };
            for (direction, parameters) in [("inputs", &task.inputs), ("outputs", &task.outputs)] {
                let path = [key("tasks"), key(task_name), key("parameters"), key(direction)];
                let found = names(definition.get("parameters").and_then(|parameters| parameters.get(direction)));
                self.same(&document, &path, &found, &parameters.keys().cloned().collect::<Vec<_>>());
                for (parameter, kind) in parameters {
                    let definition = definition.get("parameters").and_then(|all| all.get(direction)?.get(parameter));
                    if let Some(definition) = definition {
                        self.definition_2(&document, &joined(&path, key(parameter)), definition, kind, direction);
                    }
                }
            }
        }
    }

    /// A parameter of configuration 2.0: a path, which is a directory if it ends in a slash, or its type and its default.
    fn definition_2(&mut self, document: &Document, path: &[Step], definition: &Value, kind: &str, direction: &str) {
        let default = definition.as_str().or_else(|| definition.get("default")?.as_str());
        let found = match (definition.get("type").and_then(Value::as_str), default) {
            (Some(kind), _) => kind,
            (None, Some(default)) if default.ends_with('/') => "directory",
            _ => "no type",
        };
        if found != kind && ["file", "directory"].contains(&kind) {
            let expected = if kind == "file" { "type: file" } else { "a path that ends in a slash" };
            self.fault(document, path, format!("{}: expected {expected}, found {found}", shown(path)));
        } else if let ("file", "inputs", Some(default)) = (kind, direction, default) {
            self.input_file(document, path, default);
        }
    }

    fn same(&mut self, document: &Document, path: &[Step], found: &[String], expected: &[String]) {
        for missing in expected.iter().filter(|name| !found.contains(name)) {
            self.fault(document, path, format!("{}: expected {missing}, found nothing", shown(path)));
        }
        for unknown in found.iter().filter(|name| !expected.contains(name)) {
            let path = joined(path, key(unknown));
            let problem = format!("{}: expected what the cube's tasks have, found {unknown}", shown(&path));
            self.fault(document, &path, problem);
        }
    }

    /// Reads a file and holds it against `schemas` (none: any keys); nothing if it is not YAML, with the fault noted.
    fn read(&mut self, name: &str, schemas: &[Schema]) -> Option<Document> {
        let mut text = String::new();
        let path = self.root.join(name);
        self.report.files.push(name.to_string());
        let mut fault = |line, problem| {
            self.report.faults.push(Fault { file: name.to_string(), line, problem });
            None
        };
        if let Err(problem) = regular(&path) {
            return fault(None, problem);
        }
        let read = File::open(&path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
        if let Err(error) = read {
            return fault(None, format!("cannot read: {error}"));
        }
        if text.len() as u64 > LONGEST {
            return fault(None, format!("is longer than {LONGEST} bytes, too long for a cube's file"));
        }
        let value: Value = match serde_yaml::from_str(&text) {
            Ok(value) => value,
            Err(error) => {
                let message = error.to_string();
                let end = message.find(" at line ").unwrap_or(message.len());
                return fault(error.location().map(|at| at.line()), format!("is not YAML: {}", &message[..end]));
            }
        };
        let document = Document { name: name.to_string(), text, value };
        if schemas.is_empty() {
            if document.value.as_mapping().is_none() {
                self.fault(&document, &[], format!("expected keys with values, found {}", described(&document.value)));
            }
        } else {
            for (path, problem) in schema::check(&document.value, schemas) {
                self.fault(&document, &path, problem);
            }
        }
        Some(document)
    }

    fn fault(&mut self, document: &Document, path: &[Step], problem: String) {
        let line = line_of(&document.text, path);
        self.report.faults.push(Fault { file: document.name.clone(), line, problem });
    }

    /// The YAML files in a directory of the cube, sorted.
    fn yaml_files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let yaml = |name: &String| name.ends_with(".yaml") || name.ends_with(".yml");
        let mut files: Vec<String> = names.filter(yaml).map(|name| format!("{directory}/{name}")).collect();
        files.sort();
        files
    }

    fn yaml_files_one_below(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        let mut files: Vec<String> = names.flat_map(|name| self.yaml_files(&format!("{directory}/{name}"))).collect();
        files.sort();
        files
    }
}

/// Whether there is a file at `path` that can be read to its end: a pipe might never have one.
fn regular(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Err(error) => Err(format!("cannot read: {error}")),
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err("expected a file, found something else".into()),
    }
}

/// Name and type of each of a task's inputs or outputs, as far as they are well-formed.
fn parameters(task: &Value, direction: &str) -> BTreeMap<String, String> {
    let listed = task.get(direction).and_then(Value::as_sequence).into_iter().flatten();
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(String::from);
    listed.filter_map(|item| Some((text(item, "name")?, text(item, "type").unwrap_or_default()))).collect()
}
