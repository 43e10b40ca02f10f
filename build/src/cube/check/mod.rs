//! `mnist cube check` reads a whole cube and finds everything that a runner would stumble over.

use std::path::{Path, PathBuf};

mod configuration_2;
mod reader;
mod runs;
mod tasks;

use super::directory::CubeDir;
use super::invocation::Invocation;
use super::locate::key;
use super::platform::{self, PLATFORMS};
use super::runner::Runner;
pub use reader::{CubeFault, Program, Report, TaskFlags};
use reader::{Document, Reader};

/// Checks the cube in the directory `root`.
pub fn check(root: &Path, program: &Program) -> Report {
    let mut reader = Reader::new(root, Path::new("workspace"), program);
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
                reader.expected(
                    &document,
                    &[key("platform")],
                    "another platform file beside this one",
                    &format!("{named:?}"),
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

/// The platform file that `file` calls `named`: in the same directory, with or without `.yaml`. None if it is `file` itself.
fn named_file(file: &Path, named: &str) -> Option<PathBuf> {
    let named = Path::new(named).file_name()?;
    let other = file.with_file_name(named).with_extension("yaml");
    (other != file).then_some(other)
}

/// Reads the run configuration `run` of the cube, and the tasks and parameters that it depends on.
///
/// # Errors
/// The faults of these files.
pub fn invocation(cube: &CubeDir, run: &Path, program: &Program) -> Result<Invocation, Vec<CubeFault>> {
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
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
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    let Some(tasks) = tasks::read(&mut reader) else { return reader.ended(None) };
    let files = reader.yaml_files("run");
    let invocations = files.iter().filter_map(|file| runs::read(&mut reader, file, &tasks)).collect();
    configuration_2::check(&mut reader, &tasks);
    let input_files = std::mem::take(&mut reader.input_files);
    reader.ended(Some(Configurations { invocations, input_files }))
}

/// Whether the cube is this program's. One that cannot be read is taken for it.
pub fn is_ours(cube: &CubeDir, program: &Program) -> bool {
    let mut reader = Reader::new(&cube.root, &cube.workspace, program);
    tasks::read(&mut reader).is_none() || reader.is_ours()
}

/// The runner that a platform file stands for.
///
/// # Errors
/// The faults of the file.
pub fn runner(file: &Path, cube: &CubeDir, program: &Program) -> Result<Box<dyn Runner>, Vec<CubeFault>> {
    let mut reader = Reader::new(Path::new(""), Path::new(""), program);
    let runner = read_runner(&mut reader, file, cube);
    reader.ended(runner)
}

fn read_runner(reader: &mut Reader, file: &Path, cube: &CubeDir) -> Option<Box<dyn Runner>> {
    let document = read_platform(reader, file)?;
    let named = match platform::named_by(&document.value) {
        Some((named, true)) => {
            let inner = named_file(file, named).filter(|file| reader.exists(file))?;
            let inner = read_platform(reader, &inner)?;
            if platform::named_by(&inner.value).is_some() {
                reader.expected(&document, &[key("platform")], "a platform of one machine", &format!("{named:?}"));
                return None;
            }
            Some(platform::runner(&inner.value, cube, None)?)
        }
        _ => None,
    };
    platform::runner(&document.value, cube, named)
}
