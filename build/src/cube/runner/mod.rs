//! Where a task runs. Each platform is one file here: the schema of its platform file, and the steps of a run.
//!
//! A new platform is a file here that implements [`Runner`], a row of [`super::platform::PLATFORMS`], and a file in
//! `platforms/`.

use std::fmt::Debug;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_yaml::Value;
use tracing::{info, warn};

use super::command::HostCommand;
use super::directory::CubeDir;
use super::invocation::Invocation;
use super::schema::{self, Schema};
use crate::error::{CubeError, Error, Result};
use crate::files::lock;
use crate::sha256;
use crate::text::lines;

pub mod docker;
pub mod gcp;
#[cfg(unix)]
pub mod kubernetes;
pub mod native;
#[cfg(unix)]
mod place;
pub mod singularity;
pub mod slurm;
#[cfg(unix)]
pub mod ssh;

/// A kind of platform file.
pub struct Platform {
    /// Its fields.
    pub schema: Schema,
    /// Makes the runner of a cube from a file that follows the schema; the last is that of the platform file which this one
    /// names, if it is used on this machine.
    pub runner: MakeRunner,
}

/// See [`Platform::runner`].
type MakeRunner = fn(&Value, &CubeDir, Option<Box<dyn Runner>>) -> Box<dyn Runner>;

/// A place where a task runs. [`configure`] and [`run`] call the methods in the order in which they stand here.
pub trait Runner: Debug {
    /// Finds the programs that the platform needs, and learns from them what the commands depend on. A dry run leaves
    /// this out; its commands are those for a usual installation.
    ///
    /// # Errors
    /// A program is missing or does not work.
    fn find(&mut self) -> Result<()> {
        Ok(())
    }

    /// The image that the task runs in, for platforms with images.
    fn image(&self) -> Option<&dyn Image> {
        None
    }

    /// Whether the task reads and writes this path on this machine, or has it copied to and from there.
    fn is_here(&self, _: &Path) -> bool {
        true
    }

    /// Whether a parameter may be on a claim of Kubernetes.
    fn has_claims(&self) -> bool {
        false
    }

    /// Copies the inputs to where the task runs. There is nothing to copy if the task sees this machine's files.
    ///
    /// # Errors
    /// An input cannot be copied.
    fn stage_in(&self, _: &Invocation) -> Result<()> {
        Ok(())
    }

    /// The command that runs the task to its end.
    ///
    /// # Errors
    /// The command cannot be composed.
    fn command(&self, invocation: &Invocation) -> Result<HostCommand>;

    /// What a dry run prints: the command as one types it, or what it would be given.
    ///
    /// # Errors
    /// The command cannot be composed.
    fn dry_run(&self, invocation: &Invocation) -> Result<String> {
        Ok(lines([self.command(invocation)?]))
    }

    /// Leaves what was made in a cluster there, even after a success.
    fn keep(&mut self) {}

    /// Runs the task to its end.
    ///
    /// # Errors
    /// It cannot be started, the way to it is lost, or a signal arrived.
    fn run(&self, invocation: &Invocation) -> Result<ExitStatus> {
        self.command(invocation)?.run()
    }

    /// Takes up a task that an earlier process began and lost.
    ///
    /// # Errors
    /// There is none, or see [`run`](Self::run).
    fn attach(&self, _: &Invocation) -> Result<ExitStatus> {
        Err(CubeError::NothingToAttach.into())
    }

    /// Ends a task whose command was interrupted and may not have ended it.
    ///
    /// # Errors
    /// A program cannot be started.
    fn stop(&self, _: &Invocation) -> Result<()> {
        Ok(())
    }

    /// Copies the outputs back, those of a failed task too: its logs say why it failed.
    ///
    /// # Errors
    /// An output cannot be copied, or once all are here, one that has changed here meanwhile cannot be put in place.
    fn collect(&self, _: &Invocation) -> Result<()> {
        Ok(())
    }
}

/// The label of this program's images, which the files in `build/` give them, and its value.
pub const LABEL: (&str, &str) = ("mlcube.mnist.program", "native");

/// What there is under the name of an image.
#[derive(Debug, PartialEq, Eq)]
pub enum ImageFound {
    /// No image.
    Nothing,
    /// An image with [`LABEL`].
    Ours,
    /// Another program's image, and what tells about it.
    Foreign(String),
    /// An image whose labels cannot be read, and why.
    Unreadable(String),
}

/// The image of a platform.
pub trait Image {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Looks for it.
    ///
    /// # Errors
    /// A program cannot be started.
    fn found(&self) -> Result<ImageFound>;

    /// What to do where another program's image has its name.
    fn instead_of_foreign(&self) -> &'static str;

    /// Whether it exists and is newer than everything in the directory `build`. False where the builder finds that out
    /// by itself.
    fn is_up_to_date(&self, _build: &Path) -> bool {
        false
    }

    /// Whether a run builds it although it exists.
    fn is_built_each_time(&self) -> bool {
        false
    }

    /// What tells it from any other: the image's id in Docker, the SHA-256 of a file. None if there is no image.
    ///
    /// # Errors
    /// It cannot be read.
    fn hash(&self) -> Result<Option<String>>;

    /// The command that builds it from the directory `build`.
    ///
    /// # Errors
    /// `build` lacks a file, or this user cannot build images.
    fn build_command(&self, build: &Path) -> Result<HostCommand>;

    /// Builds it from the directory `build`. Whether the cube is this program's decides what may be replaced.
    ///
    /// # Errors
    /// See [`Image::build_command`]; the builder fails, or a signal arrived.
    fn build(&self, build: &Path, _is_ours: bool) -> Result<()> {
        let status = self.build_command(build)?.run()?;
        if status.success() { Ok(()) } else { Err(CubeError::ImageBuild { image: self.name() }.into()) }
    }
}

/// Builds the runner's image from the directory `build` of a cube, which may be this program's. A dry run only returns the
/// command.
///
/// # Errors
/// See [`Runner::find`] and [`Image::build`].
pub fn configure(runner: &mut dyn Runner, build: &Path, is_ours: bool, dry_run: bool) -> Result<Option<HostCommand>> {
    if !dry_run {
        runner.find()?;
    }
    match runner.image() {
        None => info!("nothing to build: this platform takes no image from here"),
        Some(image) if image.is_up_to_date(build) => {
            if !dry_run {
                refuse_foreign(image, is_ours)?;
            }
            info!("{}: up to date", image.name());
        }
        Some(image) if dry_run => return image.build_command(build).map(Some),
        Some(image) => image.build(build, is_ours)?,
    }
    Ok(None)
}

/// Runs a task, after building the image from `build` if there is none. A dry run only returns what it prints.
///
/// # Errors
/// An input is missing; one of the steps fails; the task fails; or a signal arrived.
pub fn run(runner: &mut dyn Runner, build: &Path, invocation: &Invocation, dry_run: bool) -> Result<Option<String>> {
    refuse_claims(runner, invocation)?;
    if dry_run {
        return runner.dry_run(invocation).map(Some);
    }
    invocation.check_inputs(&|path| runner.is_here(path))?;
    runner.find()?;
    let is_ours = invocation.is_ours;
    if let Some(image) = runner.image() {
        let found = refuse_foreign(image, is_ours)?;
        if found == ImageFound::Nothing {
            info!("{}: getting the image, since there is none yet", image.name());
        }
        if found == ImageFound::Nothing || image.is_built_each_time() {
            image.build(build, is_ours)?;
        }
    }
    invocation.make_outputs(&|path| runner.is_here(path))?;
    runner.stage_in(invocation)?;
    let ended = runner.run(invocation);
    finish(runner, invocation, ended).map(|()| None)
}

/// Takes up the task that an earlier process began and lost.
///
/// # Errors
/// See [`Runner::find`] and [`Runner::attach`]; the task fails.
pub fn attach(runner: &mut dyn Runner, invocation: &Invocation) -> Result<()> {
    refuse_claims(runner, invocation)?;
    runner.find()?;
    invocation.make_outputs(&|path| runner.is_here(path))?;
    let ended = runner.attach(invocation);
    finish(runner, invocation, ended)
}

/// Checks that the platform has claims, if a parameter is on one.
fn refuse_claims(runner: &dyn Runner, invocation: &Invocation) -> Result<()> {
    match invocation.bindings.iter().find_map(|binding| Some((&binding.name, binding.claim.as_ref()?))) {
        Some((name, claim)) if !runner.has_claims() => {
            Err(CubeError::NoClaims { name: name.clone(), claim: claim.clone() }.into())
        }
        _ => Ok(()),
    }
}

/// What comes after the task, however it `ended`.
fn finish(runner: &dyn Runner, invocation: &Invocation, ended: Result<ExitStatus>) -> Result<()> {
    let failure = match ended {
        Ok(status) if status.success() => return runner.collect(invocation),
        Ok(status) => CubeError::Task { task: invocation.task.clone(), status }.into(),
        Err(error @ (Error::Interrupted { .. } | Error::Io { .. })) => {
            runner.stop(invocation)?;
            error
        }
        Err(error @ Error::Cube(CubeError::Killed { .. })) => error,
        // It was not started, or it goes on where it is.
        Err(error) => return Err(error),
    };
    after_failure(runner.collect(invocation))?;
    Err(failure)
}

/// How the outputs of a task that has failed were collected. A conflict is only a warning then: the failure says more.
fn after_failure(collected: Result<()>) -> Result<()> {
    match collected {
        Err(Error::Cube(conflict @ CubeError::Conflict { .. })) => {
            warn!("{conflict}");
            Ok(())
        }
        other => other,
    }
}

/// What there is under the name of `image`, which must be this program's where the cube `is_ours`. Where nothing tells whose it is, it is taken with a warning.
fn refuse_foreign(image: &dyn Image, is_ours: bool) -> Result<ImageFound> {
    let found = image.found()?;
    match found {
        ImageFound::Foreign(_) | ImageFound::Unreadable(_) if !is_ours => Ok(found),
        ImageFound::Foreign(found) => Err(CubeError::ForeignImage {
            image: image.name(),
            label: format!("{}={}", LABEL.0, LABEL.1),
            found,
            next: image.instead_of_foreign(),
        }
        .into()),
        ImageFound::Unreadable(ref problem) => {
            warn!("{}: cannot read its labels, so it may be another program's: {problem}", image.name());
            Ok(found)
        }
        _ => Ok(found),
    }
}

/// What a foreign image has in place of our label.
fn with_label(found: Option<&str>) -> String {
    found.map_or("without it".into(), |value| format!("with {}={value}", LABEL.0))
}

/// A name for what this process makes of `task` elsewhere, of the characters that Docker takes. No other process gives it, even
/// one with the same number in another container or on another machine.
fn own_name(task: &str) -> String {
    static WHEN: OnceLock<String> = OnceLock::new();
    let when = WHEN.get_or_init(|| {
        let seed = format!("{} {:?}", lock::host(), SystemTime::now());
        sha256::of(seed.as_bytes())[..8].into()
    });
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    format!("mlcube_{}_{}-{when}", task.chars().map(plain).collect::<String>(), std::process::id())
}

/// The last line that is not blank: the error after warnings.
fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no answer").trim().to_string()
}

/// The text of a field; empty if it is missing.
pub(super) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
}

/// The keys of a section of configuration 2.0 that are flags, with their values.
fn flags(section: &Value) -> impl Iterator<Item = String> {
    let given = section.as_mapping().into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.filter_map(|(name, value)| {
        let name = name.as_str().filter(|name| name.starts_with("--"))?;
        match value {
            Value::Bool(given) => given.then(|| name.to_string()),
            value => schema::scalar(value).map(|value| format!("{name}={value}")),
        }
    })
}

/// The text or number of a field, if it is there.
fn word(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(schema::word)
}

/// The same as a program's flag of that name.
fn flag(value: &Value, field: &str) -> Option<String> {
    word(value, field).map(|word| format!("--{field}={word}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Runs a shell script and writes down the steps, as a runner on another machine would take them.
    #[derive(Debug)]
    struct Recorder {
        script: &'static str,
        steps: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Recorder {
        fn step(&self, name: &'static str) -> Result<()> {
            self.steps.borrow_mut().push(name);
            Ok(())
        }
    }

    impl Runner for Recorder {
        fn find(&mut self) -> Result<()> {
            self.step("find")
        }
        fn stage_in(&self, _: &Invocation) -> Result<()> {
            self.step("stage in")
        }
        fn command(&self, _: &Invocation) -> Result<HostCommand> {
            self.step("command")?;
            Ok(HostCommand::new(self.script.split(' ').next().unwrap_or_default()).args(self.script.split(' ').skip(1)))
        }
        fn stop(&self, _: &Invocation) -> Result<()> {
            self.step("stop")
        }
        fn collect(&self, _: &Invocation) -> Result<()> {
            self.step("collect")
        }
    }

    fn steps(script: &'static str, dry_run: bool) -> (Vec<&'static str>, Result<Option<String>>) {
        let mut runner = Recorder { script, steps: Rc::default() };
        let invocation = Invocation::of("train", vec![]);
        let ended = run(&mut runner, Path::new("build"), &invocation, dry_run);
        (runner.steps.take(), ended)
    }

    #[test]
    fn the_steps_of_a_run_come_in_their_order() {
        let (taken, ended) = steps("true", false);
        assert_eq!(taken, ["find", "stage in", "command", "collect"]);
        assert!(ended.unwrap().is_none());
    }

    #[test]
    fn a_failed_task_is_collected_and_one_that_did_not_start_is_left_alone() {
        let (taken, ended) = steps("false", false);
        assert_eq!(taken, ["find", "stage in", "command", "collect"]);
        assert_eq!(ended.unwrap_err().to_string(), "task train: exit status: 1");
        let (taken, ended) = steps("no-such-program", false);
        assert_eq!(taken, ["find", "stage in", "command"]);
        assert!(ended.is_err());
    }

    #[test]
    fn a_dry_run_only_composes_the_command() {
        let (taken, ended) = steps("true --verbose", true);
        assert_eq!(taken, ["command"]);
        assert_eq!(ended.unwrap().unwrap(), "true --verbose\n");
    }
}
