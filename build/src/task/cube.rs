//! `mnist cube` checks the cube, builds its image, runs a task on a platform, and removes the outputs.

use std::io::{self, IsTerminal};
use std::path::Path;

use tracing::info;

use crate::cli::{self, CleanArgs, Cube, CubeArgs, JobCommand};
use crate::cube::check::{self, CubeFault, Program, TaskFlags};
use crate::cube::clean;
use crate::cube::command::HostCommand;
use crate::cube::directory::{CubeDir, PLATFORM, TASK, absolute, root_of};
use crate::cube::job::{self, About, DetachedTask};
use crate::cube::runner;
use crate::error::{CubeError, Error, Result};
use crate::output::console;
use crate::parameters::Parameters;
use crate::text::{self, Problem};

/// The most faults, and the most files that stay, that are shown.
const MOST_SHOWN: usize = 50;

/// Runs one of the commands.
///
/// # Errors
/// The cube has faults, a program of the host is missing or fails, or the task does.
pub fn run(args: &Cube) -> Result<()> {
    match args {
        Cube::Check { mlcube } => check(mlcube),
        Cube::Configure { cube, platform, dry_run } => configure(&cube_dir(cube)?, platform, *dry_run),
        Cube::Run { cube, platform, task, dry_run, attach, keep } => {
            run_task(&cube_dir(cube)?, platform, task, How { dry_run: *dry_run, attach: *attach, keep: *keep })
        }
        Cube::Job(command) => job(command),
        Cube::Clean(args) => clean(&cube_dir(&args.cube)?, args),
    }
}

/// This program, for the check.
pub const PROGRAM: Program = Program { flags_of: &flags_of, check_parameters: &check_parameters };

fn flags_of(task: &str) -> Option<TaskFlags> {
    let flags = cli::flags_of(task)?;
    let names = |only_required: bool| {
        let flags = flags.iter().filter(|flag| flag.required || !only_required);
        flags.map(|flag| flag.name.clone()).collect()
    };
    Some(TaskFlags { all: names(false), required: names(true) })
}

fn check_parameters(file: &Path) -> std::result::Result<(), Vec<Problem>> {
    Parameters::read(file, &[]).map(drop).map_err(|error| match error {
        Error::ParametersFile { problems, .. } => problems,
        Error::Io { action, source, .. } => vec![Problem::of_file(format!("cannot {action}: {source}"))],
        other => vec![Problem::of_file(other.to_string())],
    })
}

fn cube_dir(args: &CubeArgs) -> Result<CubeDir> {
    CubeDir::new(&args.mlcube, args.workspace.as_deref())
}

fn check(mlcube: &Path) -> Result<()> {
    let report = check::check(&root_of(mlcube)?, &PROGRAM);
    let (files, tasks) = (report.files.len(), report.tasks.join(", "));
    sound(mlcube, if report.faults.is_empty() { Ok(()) } else { Err(report.faults) })?;
    console::print(&text::lines([format!("{}: {files} files are right, tasks {tasks}", mlcube.display())]))
}

/// The value that was read. Faults are printed, a line each.
fn sound<T>(mlcube: &Path, read: std::result::Result<T, Vec<CubeFault>>) -> Result<T> {
    let faults = match read {
        Ok(value) => return Ok(value),
        Err(faults) => faults,
    };
    console::print(&first(&faults, "fault"))?;
    Err(CubeError::Faults { path: mlcube.into(), faults: faults.len() }.into())
}

/// A line for each of the first `items`, and one that counts the rest.
fn first<T: std::fmt::Display>(items: &[T], name: &str) -> String {
    let rest = items.len().saturating_sub(MOST_SHOWN);
    let rest = (rest > 0).then(|| format!("and {rest} more {name}{}\n", if rest == 1 { "" } else { "s" }));
    text::lines(items.iter().take(MOST_SHOWN)) + &rest.unwrap_or_default()
}

fn configure(cube: &CubeDir, platform: &Path, dry_run: bool) -> Result<()> {
    let mut runner = sound(&cube.root, check::runner(&cube.file(&PLATFORM, platform)?, cube, &PROGRAM))?;
    print(runner::configure(&mut *runner, &cube.build, check::is_ours(cube, &PROGRAM), dry_run)?)
}

/// The flags of `mnist cube run`.
struct How {
    dry_run: bool,
    attach: bool,
    keep: bool,
}

fn run_task(cube: &CubeDir, platform: &Path, task: &Path, how: How) -> Result<()> {
    let (platform, task) = (cube.file(&PLATFORM, platform)?, absolute(&cube.file(&TASK, task)?)?);
    let mut runner = sound(&cube.root, check::runner(&platform, cube, &PROGRAM))?;
    let invocation = sound(&cube.root, check::invocation(cube, &task, &PROGRAM))?;
    if how.keep {
        runner.keep();
    }
    if how.attach {
        return runner::attach(&mut *runner, &invocation);
    }
    console::print(&runner::run(&mut *runner, &cube.build, &invocation, how.dry_run)?.unwrap_or_default())
}

fn job(command: &JobCommand) -> Result<()> {
    let print = |json: serde_json::Result<String>| {
        let json = json.unwrap_or_else(|error| unreachable!("plain values become JSON: {error}"));
        console::print(&text::lines([json]))
    };
    match command {
        JobCommand::Start { directory, about, arguments } => {
            let about: About = serde_json::from_str(about).map_err(|error| Error::Argument {
                flag: "about",
                given: about.into(),
                expected: "what the task is, in JSON",
                found: "something else",
                next: Some(error.to_string()),
            })?;
            DetachedTask::at(directory).start(&about, arguments)
        }
        JobCommand::Supervise { directory, arguments } => DetachedTask::at(directory).supervise(arguments),
        JobCommand::Follow { directory } => DetachedTask::at(directory).follow(),
        JobCommand::Stop { directory, signal } => DetachedTask::at(directory).stop(*signal),
        JobCommand::State { directory } => print(serde_json::to_string(&DetachedTask::at(directory).state()?)),
        JobCommand::Free { directory } => DetachedTask::at(directory).free(),
        JobCommand::List { directory } => print(serde_json::to_string(&job::list(directory)?)),
    }
}

/// Prints the command of a dry run.
fn print(command: Option<HostCommand>) -> Result<()> {
    console::print(&text::lines(command))
}

/// Prints what it would remove and what stays, and asks before it removes anything.
fn clean(cube: &CubeDir, args: &CleanArgs) -> Result<()> {
    let configurations = sound(&cube.root, check::configurations(cube, &PROGRAM))?;
    let cleaning = clean::look(&configurations, &cube.workspace, args.data, args.dry_run)?;
    let kept: Vec<String> = cleaning.kept.iter().map(|(path, why)| format!("keep {}: {why}", path.display())).collect();
    console::print(&text::lines(cleaning.removed.iter().map(|path| format!("remove {}", path.display()))))?;
    console::print(&first(&kept, "kept file"))?;
    if cleaning.removed.is_empty() {
        info!("{}: no outputs of earlier runs", cube.workspace.display());
    } else if !args.dry_run {
        let somebody_is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !args.yes && !somebody_is_there {
            return Err(CubeError::Unconfirmed.into());
        }
        if args.yes || console::confirm("remove?")? {
            cleaning.carry_out()?;
        }
    }
    Ok(())
}
