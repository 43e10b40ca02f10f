//! `mnist cube`: checks the cube, builds its image, runs a task in it, and cleans up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::info;

use crate::cli::{self, Cube, Place};
use crate::cube::check::{self, Fault, Program};
use crate::cube::clean;
use crate::cube::command::HostCommand;
use crate::cube::docker::{self, Engine};
use crate::cube::mount::{self, Mount, Parameter};
use crate::cube::platform::Platform;
use crate::cube::singularity::Singularity;
use crate::data::download::mirror::Mirror;
use crate::error::{Error, Result};
use crate::files;
use crate::output::console;
use crate::parameters::Parameters;

/// Runs one of them.
///
/// # Errors
/// The cube has faults, a program of the host is missing or fails, or the task does.
pub fn run(args: &Cube) -> Result<()> {
    match args {
        Cube::Check { mlcube } => check(mlcube),
        Cube::Configure { place, platform, dry_run } => configure(&CubeDir::of(place)?, platform, *dry_run),
        Cube::Run { place, platform, task, dry_run } => run_task(&CubeDir::of(place)?, platform, task, *dry_run),
        Cube::Clean { place, dry_run } => clean(&CubeDir::of(place)?, *dry_run),
    }
}

const PROGRAM: Program = Program { flags_of: &cli::flags_of, check_parameters: &check_parameters };

fn check_parameters(file: &Path) -> std::result::Result<(), String> {
    Parameters::read(file, &[]).map(drop).map_err(|error| error.to_string())
}

/// The faults, a line each, or what was checked, go to stdout.
fn check(mlcube: &Path) -> Result<()> {
    let report = check::check(mlcube, &PROGRAM);
    let (files, tasks) = (report.files.len(), report.tasks.join(", "));
    sound(mlcube, if report.faults.is_empty() { Ok(()) } else { Err(report.faults) })?;
    console::print(&format!("{}: {files} files are right, tasks {tasks}\n", mlcube.display()))
}

/// What was read of the cube's files, or their faults, which go to stdout.
fn sound<T>(mlcube: &Path, read: std::result::Result<T, Vec<Fault>>) -> Result<T> {
    let faults = match read {
        Ok(value) => return Ok(value),
        Err(faults) => faults,
    };
    console::print(&faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())?;
    Err(Error::Cube { path: mlcube.into(), faults: faults.len() })
}

/// A cube's directories; absolute but for `root`, which is as it was given.
struct CubeDir {
    root: PathBuf,
    build: PathBuf,
    workspace: PathBuf,
}

impl CubeDir {
    fn of(place: &Place) -> Result<Self> {
        let root = check::root_of(&place.mlcube);
        let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io("find", path));
        let workspace = place.workspace.clone().unwrap_or_else(|| root.join("workspace"));
        Ok(Self { root: root.into(), build: absolute(&root.join("build"))?, workspace: absolute(&workspace)? })
    }

    /// A file that was given: as it is, or else in the cube.
    fn file(&self, given: &Path) -> PathBuf {
        if given.exists() { given.into() } else { self.root.join(given) }
    }

    fn platform(&self, given: &Path) -> Result<Platform> {
        let file = self.file(given);
        let value = sound(&self.root, check::platform(&file, &PROGRAM))?;
        Ok(Platform::new(&value, &self.workspace))
    }
}

fn configure(cube: &CubeDir, platform: &Path, dry_run: bool) -> Result<()> {
    match cube.platform(platform)? {
        Platform::Docker { image, .. } => {
            if !dry_run {
                Engine::find()?;
            }
            build_docker(cube, &image, dry_run)
        }
        Platform::Singularity { image, .. } => {
            let singularity = if dry_run { Singularity::supposed() } else { Singularity::find()? };
            if is_newer(&image, &cube.build) {
                info!("{}: newer than everything it is built from, so it stays", image.display());
                return Ok(());
            }
            build_singularity(cube, &singularity, &image, dry_run)
        }
        Platform::Native => {
            info!("nothing to build: this platform has no image");
            Ok(())
        }
    }
}

fn build_docker(cube: &CubeDir, image: &str, dry_run: bool) -> Result<()> {
    if !cube.build.join("Dockerfile").is_file() {
        return Err(Error::NoDockerImage { image: image.into(), build: cube.build.clone() });
    }
    let command = docker::build(image, &cube.build);
    if dry_run {
        return console::print(&format!("{command}\n"));
    }
    let status = command.run()?;
    if status.success() { Ok(()) } else { Err(Error::ImageBuild { image: image.into() }) }
}

fn build_singularity(cube: &CubeDir, singularity: &Singularity, image: &Path, dry_run: bool) -> Result<()> {
    if !cube.build.join("Singularity.recipe").is_file() {
        return Err(Error::NoSingularityImage { image: image.into(), build: cube.build.clone() });
    }
    if dry_run {
        return console::print(&format!("{}\n", singularity.build(image, &cube.build)?));
    }
    let directory = image.parent().unwrap_or(image);
    files::writable_directory(directory).map_err(|error| match error {
        Error::Io { source, .. } => Error::ImageDirectory { image: image.into(), source },
        error => error,
    })?;
    // Under another name until it is whole.
    let unfinished = image.with_extension("unfinished");
    let built = singularity.build(&unfinished, &cube.build)?.run();
    match built {
        Ok(status) if status.success() => fs::rename(&unfinished, image).map_err(Error::io("rename", &unfinished)),
        other => {
            let _ = fs::remove_file(&unfinished); // it may not have been begun
            other.and(Err(Error::ImageBuild { image: image.display().to_string() }))
        }
    }
}

/// Whether `image` is there and nothing in `build`, its `target` aside, was changed since.
fn is_newer(image: &Path, build: &Path) -> bool {
    fn newest(path: &Path) -> Option<SystemTime> {
        let mut newest_here = fs::metadata(path).ok()?.modified().ok()?;
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_name() != "target" {
                newest_here = newest_here.max(newest(&entry.path())?);
            }
        }
        Some(newest_here)
    }
    let made = fs::metadata(image).and_then(|metadata| metadata.modified()).ok();
    made.is_some_and(|made| newest(build).is_none_or(|changed| changed < made))
}

fn run_task(cube: &CubeDir, platform: &Path, task: &Path, dry_run: bool) -> Result<()> {
    let platform = cube.platform(platform)?;
    let task = std::path::absolute(cube.file(task)).map_err(Error::io("find", task))?;
    let invocation = sound(&cube.root, check::invocation(&cube.root, &cube.workspace, &task, &PROGRAM))?;
    let parameters = mount::parameters(&invocation, &cube.workspace);
    if !dry_run {
        find_inputs(&parameters)?;
    }
    let task = &invocation.task;
    let (mounts, arguments) = mount::in_container(task, &parameters);
    let mirror = mirror();
    let (command, container) = match platform {
        Platform::Docker { image, runtime } => {
            let engine = if dry_run { Engine::supposed() } else { Engine::find()? };
            if !dry_run && !engine.has(&image)? {
                info!("{image}: not there yet");
                build_docker(cube, &image, false)?;
            }
            let name = format!("mlcube_{task}_{}", std::process::id());
            let command = engine.run(&image, runtime.as_deref(), &name, &mounts, mirror.as_ref(), &arguments);
            (command, Some(name))
        }
        Platform::Singularity { image, nv } => {
            let singularity = if dry_run { Singularity::supposed() } else { Singularity::find()? };
            if !dry_run && !image.exists() {
                info!("{}: not there yet", image.display());
                build_singularity(cube, &singularity, &image, false)?;
            }
            (singularity.run(&image, nv, &mounts, mirror.as_ref(), &arguments), None)
        }
        Platform::Native => {
            let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
            (HostCommand::new(program).args(mount::on_host(task, &parameters)), None)
        }
    };
    if dry_run {
        return console::print(&format!("{command}\n"));
    }
    make_outputs(&parameters)?;
    let ended = command.run();
    if let (Err(_), Some(name)) = (&ended, container) {
        // A container that was told to stop may not have heard it.
        docker::remove(&name).ask()?;
    }
    let status = ended?;
    if status.success() { Ok(()) } else { Err(Error::Task { task: task.into(), status }) }
}

fn find_inputs(parameters: &[Parameter]) -> Result<()> {
    for Parameter { name, path, is_file, .. } in parameters.iter().filter(|parameter| parameter.is_input) {
        let (there, expected) = if *is_file { (path.is_file(), "file") } else { (path.is_dir(), "directory") };
        if !there {
            return Err(Error::CubeInput { name: name.clone(), path: path.clone(), expected });
        }
    }
    Ok(())
}

/// Makes the directories of outputs, which must be writable.
fn make_outputs(parameters: &[Parameter]) -> Result<()> {
    let outputs = parameters.iter().filter(|parameter| !parameter.is_input);
    outputs.map(Parameter::directory).try_for_each(files::writable_directory)
}

/// The mirror of the environment, where it is a directory of this machine.
fn mirror() -> Option<Mount> {
    let given = std::env::var("MNIST_MIRROR").ok()?;
    let Ok(Mirror::Directory(directory)) = Mirror::parse(&given) else { return None };
    let host = std::path::absolute(directory).ok()?;
    Some(Mount { host, container: "/mlcube_mirror".into(), read_only: true })
}

/// Says what it removes before it does.
fn clean(cube: &CubeDir, dry_run: bool) -> Result<()> {
    let invocations = sound(&cube.root, check::invocations(&cube.root, &cube.workspace, &PROGRAM))?;
    let outputs = clean::outputs(&invocations, &cube.workspace);
    if outputs.is_empty() {
        info!("{}: no outputs of earlier runs", cube.workspace.display());
        return Ok(());
    }
    let verb = if dry_run { "would remove" } else { "removing" };
    console::print(&outputs.iter().map(|path| format!("{verb} {}\n", path.display())).collect::<String>())?;
    if !dry_run {
        outputs.iter().try_for_each(|path| clean::remove(path))?;
    }
    Ok(())
}
