//! `mnist cube check` reads a whole cube and finds everything that a runner would stumble over.

use std::path::{Path, PathBuf};

mod changes;
mod configuration;
mod configuration_2;
mod reader;
mod runs;
mod tasks;

use serde_yaml::Value;

use super::configuration::{Changes, Configuration, Section};
use super::directory::{CubeDir, PLATFORM};
use super::invocation::Invocation;
use super::locate::key;
use super::platform::{self, PLATFORMS};
use super::runner::{Runner, native};
use super::schema;
use crate::text::{quoted, suggestion};
pub use reader::{CubeFault, Program, Report, TaskFlags};
use reader::{Document, Reader};

/// Checks the whole cube.
pub fn check(cube: &CubeDir, program: &Program) -> Report {
    let mut reader = Reader::new(&cube.root, Path::new("workspace"), program);
    if let Some(file) = &cube.configuration_2 {
        let tasks = configuration::check(&mut reader, cube, file);
        return reader.report(tasks);
    }
    let Some(tasks) = tasks::read(&mut reader) else {
        // The other files can only be compared with the tasks.
        return reader.report(vec![]);
    };
    runs::check(&mut reader, &tasks);
    let platforms = [reader.yaml_files("platforms"), reader.yaml_files_one_below("platforms")].concat();
    for name in &platforms {
        read_platform(&mut reader, name);
    }
    if platforms.is_empty() {
        reader.missing("platforms", "a platform file (*.yaml)");
    }
    for name in reader.yaml_files("workspace/parameters") {
        reader.parameters(&name);
    }
    configuration_2::check(&mut reader, &tasks);
    reader.report(tasks.into_keys().collect())
}

fn read_platform(reader: &mut Reader, name: &Path) -> Option<Document> {
    let document = reader.read(name, &PLATFORMS.iter().map(|platform| &platform.schema).collect::<Vec<_>>())?;
    reader.mismatches(&document, platform::check_container(&document.value));
    if let Some((named, _)) = platform::named_by(&document.value) {
        match named_file(name, named) {
            Some(file) if !reader.exists(&file) => {
                let siblings = reader.yaml_files(name.parent().unwrap_or(Path::new("")));
                let names: Vec<_> = siblings.iter().filter_map(|file| file.file_name()?.to_str()).collect();
                let others: Vec<&str> = names.iter().copied().filter(|other| !name.ends_with(other)).collect();
                let known = if others.is_empty() {
                    "there is none".into()
                } else {
                    suggestion(named, others.iter().copied(), &others)
                };
                let expected = "the path of another platform file, from this one's directory on";
                reader.expected(
                    &document,
                    &[key("platform")],
                    expected,
                    &format!("{named:?}, which is not there: {known}"),
                );
            }
            Some(_) => {}
            None => reader.expected(
                &document,
                &[key("platform")],
                "a platform file other than this one",
                &format!("{named:?}"),
            ),
        }
    }
    Some(document)
}

/// The platform file that `file` calls `named`: from the same directory on, with or without `.yaml`; `platforms/` before it
/// means that directory too. None if it is `file` itself.
fn named_file(file: &Path, named: &str) -> Option<PathBuf> {
    let named = Path::new(named);
    let named = named.strip_prefix("platforms").ok().filter(|below| below.file_name().is_some()).unwrap_or(named);
    let mut other = file.parent()?.join(named).into_os_string();
    if named.extension().is_none_or(|end| end != "yaml") {
        other.push(".yaml");
    }
    (other != file).then(|| other.into())
}

/// Reads the file of a cube of configuration 2.0, as `changes` change it, for the platform of `section`.
///
/// # Errors
/// The faults of the file and the changes.
pub fn configuration(
    cube: &CubeDir,
    section: Option<Section>,
    changes: &Changes,
    program: &Program,
) -> Result<Configuration, Vec<CubeFault>> {
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    let file = cube.configuration_2.as_deref().unwrap_or(Path::new(""));
    let read = configuration::read(&mut reader, cube, file, section, changes);
    reader.ended(read.map(|(configuration, _)| configuration))
}

/// What a cube is, for people.
#[derive(Debug)]
pub struct CubeDescription {
    /// Its name.
    pub name: String,
    /// Whether it is this program's.
    pub is_ours: bool,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Each task with its inputs and its outputs.
    pub tasks: Vec<(String, [Vec<String>; 2])>,
    /// What `--task` takes.
    pub runs: Vec<String>,
    /// What `--platform` takes and runs its tasks.
    pub platforms: Vec<String>,
}

/// Describes a cube.
///
/// # Errors
/// The faults of the files that say what it is.
pub fn description(cube: &CubeDir, program: &Program) -> Result<CubeDescription, Vec<CubeFault>> {
    if cube.configuration_2.is_some() {
        return configuration(cube, None, &Changes::default(), program).map(|configuration| {
            let platforms = platforms(cube, &configuration.platforms(), configuration.is_ours, program);
            let Configuration { name, version, tasks, is_ours, .. } = configuration;
            let runs = tasks.iter().map(|task| task.name.clone()).collect();
            let tasks = tasks.into_iter().map(|task| {
                let (inputs, outputs): (Vec<_>, Vec<_>) = task.parameters.into_iter().partition(|one| one.is_input);
                (task.name, [inputs, outputs].map(|all| all.into_iter().map(|one| one.name).collect()))
            });
            CubeDescription { name, is_ours, version, tasks: tasks.collect(), runs, platforms }
        });
    }
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    let tasks = tasks::read(&mut reader);
    let runs = reader.yaml_files("run").iter().map(|file| file.display().to_string()).collect();
    let (name, version, is_ours) = (reader.cube.clone(), reader.version.clone(), reader.is_ours);
    let description = tasks.map(|tasks| {
        let task = |(name, task): (String, tasks::TaskFile)| {
            (name, [task.inputs, task.outputs].map(|all| all.into_keys().collect()))
        };
        let platforms = platforms(cube, &[], is_ours, program);
        CubeDescription { name, is_ours, version, tasks: tasks.into_iter().map(task).collect(), runs, platforms }
    });
    reader.ended(description)
}

/// The platforms that run the cube's tasks: its `sections`, and the platform files.
fn platforms(cube: &CubeDir, sections: &[&str], is_ours: bool, program: &Program) -> Vec<String> {
    let mut names = cube.platforms(sections);
    let file = |name: &str| cube.root.join(PLATFORM.folder).join(format!("{name}.yaml"));
    names.retain(|name| is_ours || sections.contains(&&**name) || !is_native(&file(name), program));
    names
}

/// Whether the platform `file` runs tasks by this program alone, or names one that does. Not if it cannot be read.
pub fn is_native(file: &Path, program: &Program) -> bool {
    let mut reader = Reader::new(Path::new(""), Path::new(""), program);
    let mut next = Some(file.to_path_buf());
    // No more than another machine, a node of its cluster, and the platform there.
    for _ in 0..3 {
        let Some(file) = next.filter(|file| reader.exists(file)) else { return false };
        let Some(Document { value, .. }) = reader.read(&file, &[]) else { return false };
        if schema::schema_type(&value) == Some(native::PLATFORM.schema.name) {
            return true;
        }
        next = platform::named_by(&value).and_then(|(named, _)| named_file(&file, named));
    }
    false
}

/// Reads the run configuration `run` of the cube, and the tasks and parameters that it depends on. `dry` takes one whose
/// inputs are not there.
///
/// # Errors
/// The faults of these files.
pub fn invocation(cube: &CubeDir, run: &Path, program: &Program, dry: bool) -> Result<Invocation, Vec<CubeFault>> {
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    reader.takes_missing = dry;
    let tasks = tasks::read(&mut reader);
    let invocation = tasks.and_then(|tasks| runs::read(&mut reader, run, &tasks));
    reader.ended(invocation)
}

/// All that the configurations of a cube name.
#[derive(Debug)]
pub struct Configurations {
    /// The run configurations.
    pub invocations: Vec<Invocation>,
    /// The input files of these and of mlcube-2.0.yaml.
    pub input_files: Vec<PathBuf>,
}

/// Reads all configurations of the cube.
///
/// # Errors
/// The faults of any of them: one that is not understood may name anything.
pub fn configurations(cube: &CubeDir, program: &Program) -> Result<Configurations, Vec<CubeFault>> {
    if cube.configuration_2.is_some() {
        let configuration = configuration(cube, None, &Changes::default(), program)?;
        // A task whose input is not there yet, and of an unknown type, did not run.
        let invocations =
            configuration.tasks.iter().filter_map(|task| configuration.invocation(task.name.as_ref()).ok());
        return Ok(Configurations { invocations: invocations.collect(), input_files: vec![] });
    }
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    let Some(tasks) = tasks::read(&mut reader) else { return reader.ended(None) };
    let files = reader.yaml_files("run");
    let invocations = files.iter().filter_map(|file| runs::read(&mut reader, file, &tasks)).collect();
    configuration_2::check(&mut reader, &tasks);
    let input_files = std::mem::take(&mut reader.input_files);
    reader.ended(Some(Configurations { invocations, input_files }))
}

/// The name of a cube with `tasks/` and `run/` that is another program's. One that cannot be read is taken for this program's.
pub fn foreign(cube: &CubeDir, program: &Program) -> Option<String> {
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    tasks::read(&mut reader).filter(|_| !reader.is_ours).map(|_| reader.cube)
}

/// The runner that a platform file stands for, and the file's `schema_type`.
///
/// # Errors
/// The faults of the file.
pub fn runner(file: &Path, cube: &CubeDir, program: &Program) -> Result<(Box<dyn Runner>, String), Vec<CubeFault>> {
    let mut reader = Reader::new(Path::new(""), Path::new(""), program);
    let document = read_platform(&mut reader, file);
    let runner = document.and_then(|document| {
        let kind = schema::schema_type(&document.value)?.to_string();
        Some((read_runner(&mut reader, file, &document, cube)?, kind))
    });
    reader.ended(runner)
}

fn read_runner(reader: &mut Reader, file: &Path, document: &Document, cube: &CubeDir) -> Option<Box<dyn Runner>> {
    if cube.configuration_2.is_some() && platform::named_by(&document.value).is_some_and(|(_, is_here)| !is_here) {
        let found = document.value.get("schema_type").and_then(Value::as_str).unwrap_or_default();
        let old_shape = cube.root.join("mlcube.yaml");
        let has_old_shape = cube.configuration_2.as_deref() != Some(Path::new("mlcube.yaml")) && old_shape.is_file();
        let directory = if has_old_shape { quoted(&cube.root) } else { "DIR".into() };
        let problem = format!(
            "expected a platform of this machine for a cube of one file, found {found}: it runs cubes with tasks/ and run/, \
             as --mlcube={directory} names one"
        );
        reader.wrong_argument(&format!("--platform={}", file.display()), problem);
        return None;
    }
    let named = match platform::named_by(&document.value) {
        Some((named, true)) => {
            let inner = named_file(file, named).filter(|file| reader.exists(file))?;
            let inner = read_platform(reader, &inner)?;
            if platform::named_by(&inner.value).is_some() {
                reader.expected(document, &[key("platform")], "a platform of one machine", &format!("{named:?}"));
                return None;
            }
            Some(right_runner(reader, &inner, cube, None)?)
        }
        _ => None,
    };
    right_runner(reader, document, cube, named)
}

/// The runner of a platform file in which nothing is wrong: runners rely on that.
fn right_runner(
    reader: &Reader,
    document: &Document,
    cube: &CubeDir,
    named: Option<Box<dyn Runner>>,
) -> Option<Box<dyn Runner>> {
    if reader.has_faults() { None } else { platform::runner(&document.value, cube, named) }
}
