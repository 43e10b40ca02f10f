//! `mnist cube` checks and describes the cube, builds its image, runs tasks on a platform, and removes the outputs.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::time::Duration;

use tracing::{info, warn};

use crate::cli::{self, CleanArgs, ConfigurationArgs, Cube, CubeArgs, JobCommand};
use crate::cube::check::{self, CubeDescription, CubeFault, Program};
use crate::cube::clean;
use crate::cube::configuration::{Changes, Configuration, Override, Section, TaskArgument, printed};
use crate::cube::directory::{CubeDir, PLATFORM, PLATFORM_OR_SECTION, TASK, absolute, listed};
use crate::cube::invocation::Invocation;
use crate::cube::job::{About, DetachedTask};
use crate::cube::listing;
use crate::cube::overwriting::{Overwritten, laid_over, overwritten};
use crate::cube::platform;
use crate::cube::runner::{self, Runner};
use crate::cube::stream::{self, Packed};
#[cfg(unix)]
use crate::cube::{guard, in_pod};
use crate::error::{CubeError, Error, Result};
use crate::output::console;
use crate::parameters::Parameters;
use crate::text::{self, Problem};

mod inputs;

/// The most faults, and the most files that stay, that are shown.
const MOST_SHOWN: usize = 50;

/// Runs one of the commands.
///
/// # Errors
/// The cube has faults, a program of the host is missing or fails, or the task does.
pub fn run(args: &Cube) -> Result<()> {
    match args {
        Cube::Check { mlcube } => check(mlcube),
        Cube::Configure { cube, platform, dry_run } => configure(cube, platform, *dry_run),
        Cube::Run { cube, platform, task, dry_run, attach, keep, parameters } => {
            let how = How { dry_run: *dry_run, attach: *attach, keep: *keep };
            run_tasks(PlatformOfCube::new(cube, platform, parameters)?, task, &how)
        }
        Cube::Describe { cube } => describe(&cube_dir(cube)?),
        Cube::ShowConfig { cube, platform, resolve, parameters } => show_config(cube, platform, parameters, *resolve),
        Cube::Inspect { cube, platform } => inspect(PlatformOfCube::new(cube, platform, &[])?, platform),
        Cube::Job(command) => job(command),
        Cube::Clean(args) => clean(&cube_dir(&args.cube)?, args),
    }
}

/// This program, for the check.
pub const PROGRAM: Program = Program { flags_of: &cli::flags_of, check_parameters: &check_parameters };

fn check_parameters(file: &Path) -> std::result::Result<(), Vec<Problem>> {
    Parameters::read(file, &[]).map(drop).map_err(|error| match error {
        Error::ParametersFile { problems, .. } => problems,
        Error::NoParameters { source, .. } => vec![Problem::of_file(format!("cannot read: {source}"))],
        Error::Io { action, source, .. } => vec![Problem::of_file(format!("cannot {action}: {source}"))],
        other => vec![Problem::of_file(other.to_string())],
    })
}

fn cube_dir(args: &CubeArgs) -> Result<CubeDir> {
    CubeDir::new(&args.mlcube, args.workspace.as_deref())
}

fn check(mlcube: &Path) -> Result<()> {
    let report = check::check(&CubeDir::new(mlcube, None)?, &PROGRAM);
    let (files, tasks) = (report.files.len(), report.tasks.join(", "));
    let files = format!("{} {}", text::counted(files, "file"), if files == 1 { "is" } else { "are" });
    sound(mlcube, if report.faults.is_empty() { Ok(()) } else { Err(report.faults) })?;
    console::print(&text::lines([format!("{}: {files} right, tasks {tasks}", mlcube.display())]))
}

/// The value that was read. Faults are printed, a line each.
fn sound<T>(mlcube: &Path, read: std::result::Result<T, Vec<CubeFault>>) -> Result<T> {
    let faults = match read {
        Ok(value) => return Ok(value),
        Err(faults) => faults,
    };
    if let Err(error) = console::print(&first(&faults, "fault")) {
        console::report(&error);
    }
    let count = faults.len();
    Err(match faults.iter().all(|fault| fault.is_argument) {
        true => CubeError::WrongArguments { faults: count }.into(),
        false => CubeError::Faults { path: mlcube.into(), faults: count }.into(),
    })
}

/// A line for each of the first `items`, and one that counts the rest.
fn first<T: std::fmt::Display>(items: &[T], name: &str) -> String {
    let rest = items.len().saturating_sub(MOST_SHOWN);
    let rest = (rest > 0).then(|| format!("and {rest} more {name}{}\n", if rest == 1 { "" } else { "s" }));
    text::lines(items.iter().take(MOST_SHOWN)) + &rest.unwrap_or_default()
}

/// A cube on a platform.
struct PlatformOfCube {
    cube: CubeDir,
    /// Of a cube of configuration 2.0.
    configuration: Option<Configuration>,
    runner: Box<dyn Runner>,
    /// The `schema_type` of the platform file, or the name of the section.
    kind: String,
    /// Whether tasks run by this program alone there, which has no others than its own.
    is_native: bool,
    /// The flags after `--task` that run another task of the cube here, as a shell takes them.
    flags: String,
    /// Whether nothing is run, for which no input needs to be there.
    dry_run: bool,
}

impl PlatformOfCube {
    /// Reads what the platform depends on. `parameters` are those of tasks.
    fn new(args: &ConfigurationArgs, platform: &Path, parameters: &[TaskArgument]) -> Result<Self> {
        let cube = cube_dir(&args.place)?;
        let section = platform.to_str().and_then(Section::named).filter(|_| cube.configuration_2.is_some());
        let configuration = configuration(&cube, section, args, parameters)?;
        let ((runner, kind), is_native) = match (section, &configuration) {
            (Some(section), Some(configuration)) => {
                ((platform::configured(section, configuration, &cube), section.name().into()), false)
            }
            (_, configuration) => {
                let file = platform_file(&cube, configuration.as_ref(), platform)?;
                refuse_unread(&args.overrides, configuration.as_ref(), &file)?;
                (sound(&cube.shown(), check::runner(&file, &cube, &PROGRAM))?, check::is_native(&file, &PROGRAM))
            }
        };
        let flags = flags_for(&cube, platform, args, parameters);
        Ok(Self { cube, configuration, runner, kind, is_native, flags, dry_run: false })
    }

    /// What `--task` names: run configurations, or tasks of configuration 2.0. Nothing is wrong with any of them.
    fn tasks(&self, given: &Path) -> Result<Vec<PathBuf>> {
        let tasks = match &self.configuration {
            Some(_) => listed(&TASK, given)?,
            None => self.cube.files(&TASK, given)?.iter().map(|file| absolute(file)).collect::<Result<_>>()?,
        };
        for task in &tasks {
            let (name, bindings, is_ours) = match &self.configuration {
                Some(configuration) => {
                    let task = configuration.task(task)?;
                    (task.name.clone(), task.bindings(), configuration.is_ours)
                }
                None => {
                    let Invocation { task, bindings, is_ours, .. } = self.invocation(task)?;
                    (task, bindings, is_ours)
                }
            };
            if let Some(Overwritten { input, problem }) = overwritten(&bindings, is_ours).into_iter().next() {
                return Err(CubeError::Overwritten { task: name, input, problem }.into());
            }
            for (input, output) in laid_over(&bindings) {
                let directory = output.path.display();
                let (input, output) = (&input.name, &output.name);
                warn!(
                    "task {name}: may change its input {input}, since the output {output} is its directory, {directory}"
                );
            }
        }
        Ok(tasks)
    }

    /// Checks that the platform has the flag.
    fn expect_flag(&self, flag: &'static str) -> Result<()> {
        let platforms = platform::FLAGS.iter().find(|(name, _)| *name == flag).map_or(&[][..], |(_, kinds)| kinds);
        if platforms.contains(&&*self.kind) {
            return Ok(());
        }
        let platforms = platforms.iter().copied().filter(|kind| kind.starts_with("mlcube_")).collect();
        Err(CubeError::NotOfPlatform { flag, platforms, found: self.kind.clone() }.into())
    }

    fn invocation(&self, task: &Path) -> Result<Invocation> {
        match &self.configuration {
            Some(configuration) => configuration.invocation(task),
            None => sound(&self.cube.shown(), check::invocation(&self.cube, task, &PROGRAM, self.dry_run)),
        }
    }
}

/// The flags that make `mnist cube` do something on a platform of the cube, as a shell takes them.
fn flags_for(cube: &CubeDir, platform: &Path, args: &ConfigurationArgs, parameters: &[TaskArgument]) -> String {
    let changes = args.overrides.iter().map(Override::argument).chain(parameters.iter().map(TaskArgument::argument));
    let changes: String = changes.map(|change| format!(" {}", text::quoted(Path::new(&change)))).collect();
    format!("{}{changes}", flags_of_place(cube, platform))
}

/// The same without changes.
fn flags_of_place(cube: &CubeDir, platform: &Path) -> String {
    let [mlcube, platform, workspace] = [&*cube.given(), platform, &cube.workspace].map(text::quoted);
    let workspace =
        if cube.workspace == cube.own_workspace() { "".into() } else { format!(" --workspace={workspace}") };
    format!("--mlcube={mlcube} --platform={platform}{workspace}")
}

/// The platform file that the user named. A cube of one file has sections too.
fn platform_file(cube: &CubeDir, configuration: Option<&Configuration>, platform: &Path) -> Result<PathBuf> {
    match configuration {
        Some(configuration) => cube.file(&PLATFORM_OR_SECTION, platform, &configuration.platforms()),
        None => cube.file(&PLATFORM, platform, &[]),
    }
}

/// Checks that no change is one of a section that does not count beside the platform `file`.
fn refuse_unread(overrides: &[Override], configuration: Option<&Configuration>, file: &Path) -> Result<()> {
    let of_sections = [Section::Docker.name(), Section::Singularity.name(), "runner", "platform"];
    match (configuration, overrides.iter().find(|change| of_sections.contains(&&*change.path[0]))) {
        (Some(configuration), Some(change)) => {
            Err(CubeError::Unread { what: change.typed(), sections: configuration.sections(), platform: file.into() }
                .into())
        }
        _ => Ok(()),
    }
}

/// Checks that no parameter has two values.
fn refuse_twice(parameters: &[TaskArgument]) -> Result<()> {
    let mut given = BTreeSet::new();
    match parameters.iter().find(|parameter| !given.insert(&parameter.name)) {
        Some(TaskArgument { name, .. }) => Err(CubeError::GivenTwice { name: text::shortened(name) }.into()),
        None => Ok(()),
    }
}

/// The configuration of a cube of configuration 2.0. Another one has nothing that `args` and `parameters` could change.
fn configuration(
    cube: &CubeDir,
    section: Option<Section>,
    args: &ConfigurationArgs,
    parameters: &[TaskArgument],
) -> Result<Option<Configuration>> {
    let changes = Changes { overrides: &args.overrides, arguments: parameters };
    refuse_twice(parameters)?;
    if cube.configuration_2.is_some() {
        return sound(&cube.shown(), check::configuration(cube, section, &changes, &PROGRAM)).map(Some);
    }
    match changes.first() {
        Some(what) => Err(CubeError::NotOneFileCube { what }.into()),
        None => Ok(None),
    }
}

fn configure(args: &ConfigurationArgs, platform: &Path, dry_run: bool) -> Result<()> {
    let PlatformOfCube { cube, configuration, mut runner, is_native, .. } = PlatformOfCube::new(args, platform, &[])?;
    let foreign = match configuration {
        Some(configuration) => (!configuration.is_ours).then_some(configuration.name),
        None => check::foreign(&cube, &PROGRAM),
    };
    let is_ours = foreign.is_none();
    if let Some(cube) = foreign.filter(|_| is_native) {
        return Err(CubeError::ForeignTask { cube, task: None }.into());
    }
    console::print(&text::lines(runner::configure(&mut *runner, &cube.build, is_ours, dry_run)?))
}

/// The flags of `mnist cube run`.
struct How {
    dry_run: bool,
    attach: bool,
    keep: bool,
}

/// Runs the tasks one after the other. The first that fails is the last.
fn run_tasks(mut place: PlatformOfCube, given: &Path, how: &How) -> Result<()> {
    if how.keep {
        place.expect_flag("keep")?;
        place.runner.keep();
    }
    if how.attach {
        place.expect_flag("attach")?;
    }
    place.dry_run = how.dry_run;
    let tasks = place.tasks(given)?;
    if how.attach {
        let [task] = &*tasks else {
            let (expected, found) = ("one task, with --attach", "several");
            return Err(Error::Argument { flag: TASK.name, given: given.into(), expected, found, next: None });
        };
        let invocation = place.invocation(task)?;
        return runner::attach(&mut *place.runner, &invocation);
    }
    if how.dry_run {
        place.warn_of_missing(&tasks);
    }
    tasks.iter().enumerate().try_for_each(|(nth, task)| {
        run_task(&mut place, task, how).map_err(|error| match place.advised(error, task) {
            Error::Cube(problem) if tasks.len() > 1 => among_several(problem, given, nth),
            error => error,
        })
    })
}

/// The problem of the task `nth` of those that are `given`: one that goes on elsewhere is taken up alone.
fn among_several(problem: CubeError, given: &Path, nth: usize) -> Error {
    let given = given.to_string_lossy();
    let mut names = given.split(',').skip(nth);
    let flag = |names: &str| format!("--task={}", text::quoted(Path::new(names)));
    let Some(next) = problem.attach_hint(&format!("{} --attach", flag(names.next().unwrap_or_default()))) else {
        return problem.into();
    };
    let left = names.collect::<Vec<_>>().join(",");
    let left = if left.is_empty() { left } else { format!("; afterwards run those that are left, {}", flag(&left)) };
    CubeError::Advised { problem: Box::new(problem), next: next + &left }.into()
}

fn run_task(place: &mut PlatformOfCube, task: &Path, how: &How) -> Result<()> {
    if let Some(configuration) = place.configuration.as_ref().filter(|_| !how.dry_run) {
        configuration.bring_inputs(configuration.task(task)?, &place.cube)?;
    }
    let invocation = place.invocation(task)?;
    let printed = runner::run(&mut *place.runner, &place.cube.build, &invocation, how.dry_run)?;
    console::print(&printed.unwrap_or_default())
}

/// Says what the cube is, in the words of `mlcube describe`.
fn describe(cube: &CubeDir) -> Result<()> {
    let CubeDescription { name, version, tasks, runs, platforms, .. } =
        sound(&cube.shown(), check::description(cube, &PROGRAM))?;
    let mut lines = vec![
        "MLCube".to_string(),
        format!("  path = {}", cube.absolute_root().display()),
        format!("  name = {name}:{}", version.as_deref().unwrap_or("latest")),
        String::new(),
        format!("  workspace = {}", cube.workspace.display()),
        String::new(),
        "  Tasks:".into(),
    ];
    for (task, [inputs, outputs]) in &tasks {
        let list = |name: &str, all: &[String]| {
            let all: Vec<String> = all.iter().map(|name| format!("'{name}'")).collect();
            if all.is_empty() { String::new() } else { format!(", {name} = [{}]", all.join(", ")) }
        };
        lines.push(format!("    name = {task}{}{}", list("inputs", inputs), list("outputs", outputs)));
    }
    let program = cli::started_as();
    let platform = if platforms.iter().any(|name| name == "docker") {
        Some("docker")
    } else {
        platforms.first().map(|name| &**name)
    };
    let flags = flags_of_place(cube, Path::new(platform.unwrap_or("FILE")));
    let command = |command: &str| format!("    {program} cube {command} {flags}");
    lines.extend([String::new(), "Run this MLCube:".into(), "  Configure MLCube:".into(), command("configure")]);
    lines.push("  Run MLCube tasks:".into());
    lines.extend(runs.iter().map(|run| command(&format!("run --task={}", text::quoted(Path::new(run))))));
    console::print(&text::lines(lines))
}

fn show_config(args: &ConfigurationArgs, platform: &Path, parameters: &[TaskArgument], resolve: bool) -> Result<()> {
    let cube = cube_dir(&args.place)?;
    let section = platform.to_str().and_then(Section::named).ok_or_else(|| Error::Argument {
        flag: PLATFORM.name,
        given: platform.into(),
        expected: "docker or singularity",
        found: "another name",
        next: None,
    })?;
    let Some(configuration) = configuration(&cube, Some(section), args, parameters)? else {
        return Err(CubeError::NotOneFileCube { what: "show_config".into() }.into());
    };
    let effective = configuration.effective;
    console::print(&text::lines(printed(if resolve { effective.resolved } else { effective.written }).lines()))
}

/// Prints the hash of the image as `mlcube inspect` does.
fn inspect(mut place: PlatformOfCube, platform: &Path) -> Result<()> {
    place.runner.find()?;
    let image = place.runner.image().ok_or_else(|| Error::Argument {
        flag: "platform",
        given: platform.into(),
        expected: "a platform with an image on this machine, such as docker",
        found: "one without",
        next: None,
    })?;
    let hash = image.hash()?.ok_or_else(|| CubeError::NoImage { image: image.name() })?;
    console::print(&text::lines([serde_json::json!({ "hash": hash })]))
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
        JobCommand::State { directory } => print(serde_json::to_string(&DetachedTask::at(directory).outcome()?)),
        JobCommand::Hold { directory } => DetachedTask::at(directory).hold(),
        JobCommand::Free { directory } => DetachedTask::at(directory).free(),
        JobCommand::List { directory } => print(serde_json::to_string(&listing::tree(directory, &[])?)),
        JobCommand::Pack { since, sources } => {
            let sources: Vec<Packed> = sources.iter().filter_map(|source| Packed::parse(source)).collect();
            stream::pack(&sources, since.as_deref(), &mut io::stdout().lock())
        }
        JobCommand::Unpack { directory } => stream::unpack(&mut io::stdin().lock(), directory),
        #[cfg(unix)]
        JobCommand::Guard { group, messenger } => {
            guard::watch(*group, messenger);
            Ok(())
        }
        #[cfg(unix)]
        JobCommand::Wait { file, seconds } => in_pod::wait(file, Duration::from_secs(*seconds)),
        #[cfg(unix)]
        JobCommand::Mark { file } => in_pod::mark(file),
        #[cfg(unix)]
        JobCommand::Signal { signal } => in_pod::signal(*signal),
    }
}

/// Prints what it would remove and what stays, and asks before it removes anything.
fn clean(cube: &CubeDir, args: &CleanArgs) -> Result<()> {
    let configurations = sound(&cube.shown(), check::configurations(cube, &PROGRAM))?;
    if !configurations.invocations.is_empty() && !configurations.invocations.iter().any(|one| one.is_ours) {
        info!(
            "{}: another program's cube: clean removes only files of this program's tasks, so nothing here",
            cube.shown().display()
        );
        return Ok(());
    }
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
        } else {
            info!("nothing was removed");
        }
    }
    Ok(())
}
