//! Another machine, reached by ssh. The cube and its inputs are sent there, this program runs the task there on a platform
//! of its own, and the outputs are brought back.
//!
//! ```text
//! there, below the home directory:   mlcube/cubes/NAME-ID/bin/mnist-HASH     this program
//!                                                         cube/              the cube, with inputs and outputs
//!                                                         job/               the task that runs: cube/job.rs
//! ```
//!
//! A task does not depend on the connection: it is a job of its own, whose output is followed.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_yaml::Value;
use tracing::{info, warn};

mod by_tar;
mod connection;
mod single;
mod transfer;

use self::connection::{Address, Connection, Held, LOST};
use self::transfer::{FileTransfer, Sent};
use super::super::command::HostCommand;
use super::super::directory::{CubeDir, absolute};
use super::super::invocation::{Binding, Invocation};
use super::super::job::{About, ChangedOutput, Stage, State};
use super::super::listing::{FileChanges, is_inside};
use super::super::schema::{Expected, Schema, optional, required};
use super::place::{Brought, Output};
use super::{Image, ImageFound, Platform, Runner, text};
use crate::error::{CubeError, Error, Result};
use crate::files::lock;
use crate::text::lines;
use crate::{host_paths, interrupt, sha256};

/// `mlcube_ssh` of MLCube's documentation. `program` and `lost_connection` are ours.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_ssh",
        fields: &[
            required("host", Expected::Host),
            optional(
                "authentication",
                Expected::Record(&[
                    optional("user", Expected::Host),
                    // The published runner reads the first, its documentation says the second.
                    optional("identify_file", Expected::Text),
                    optional("identity_file", Expected::Text),
                ]),
            ),
            required("platform", Expected::Text),
            optional("interpreter", Expected::Any),
            optional("program", Expected::Text),
            optional("lost_connection", Expected::OneOf(&["continue", "stop"])),
        ],
    },
    runner: |file, cube, _| Box::new(Ssh::read(file, cube)),
};

/// What makes a cube, besides the workspace.
const CUBE: [&str; 6] = ["mlcube.yaml", "mlcube-2.0.yaml", "tasks", "run", "platforms", "build"];

/// The time that this program there has to say which it is.
const ANSWER: Duration = Duration::from_secs(30);

/// Another machine, and what runs there.
#[derive(Debug)]
pub struct Ssh {
    address: Address,
    /// The platform file that is used there.
    platform: String,
    /// A program there that is used instead of this one.
    program: Option<String>,
    /// Whether a task ends some time after its connection is lost.
    ends_alone: bool,
    has_interpreter: bool,
    cube: CubeDir,
    far: Option<Far>,
    /// Keeps the place there from others until the task has started.
    held: RefCell<Option<Held>>,
}

/// The other machine, once it was found.
#[derive(Debug)]
struct Far {
    connection: Connection,
    /// The directory of this cube there.
    base: String,
    /// This program there.
    program: String,
    /// This program's bytes, if it is not there yet.
    missing: RefCell<Option<Vec<u8>>>,
    /// Whether both machines have rsync.
    has_rsync: bool,
}

impl Ssh {
    fn read(file: &Value, cube: &CubeDir) -> Self {
        let authentication = file.get("authentication").unwrap_or(&Value::Null);
        let given = |value: &Value, field: &str| Some(text(value, field)).filter(|text| !text.is_empty());
        let key = given(authentication, "identify_file").or_else(|| given(authentication, "identity_file"));
        Self {
            address: Address {
                host: text(file, "host"),
                user: given(authentication, "user"),
                key: key.map(PathBuf::from),
            },
            platform: text(file, "platform"),
            program: given(file, "program"),
            ends_alone: text(file, "lost_connection") == "stop",
            has_interpreter: file.get("interpreter").is_some_and(|value| !value.is_null()),
            cube: cube.clone(),
            far: None,
            held: RefCell::new(None),
        }
    }

    fn far(&self) -> Result<&Far> {
        let problem = || "not connected".to_string();
        self.far.as_ref().ok_or_else(|| CubeError::Connection { host: self.address.shown(), problem: problem() }.into())
    }

    /// The directory of this cube, below the home directory there: another cube of the same name has another one.
    fn base(&self) -> Result<String> {
        let root = absolute(&self.cube.root)?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let id = format!("{}:{}:{}", lock::host(), root.display(), self.cube.workspace.display());
        Ok(format!("mlcube/cubes/{plain}-{}", &sha256::of(id.as_bytes())[..8]))
    }

    /// The workspace there.
    fn far_workspace(&self) -> Result<String> {
        Ok(format!("{}/cube/workspace", self.far()?.base))
    }

    /// Where a path of the workspace is there, below the workspace; none of another path, which is that machine's own.
    fn in_workspace<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(&self.cube.workspace).ok().filter(|below| is_inside(below))
    }

    /// What is sent below the workspace: inputs, or outputs, which the task is to find as they are here.
    fn moved(&self, invocation: &Invocation, is_input: bool) -> Vec<PathBuf> {
        let bindings = invocation.bindings.iter().filter(|binding| binding.is_input == is_input);
        bindings.filter_map(|binding| self.in_workspace(&binding.path)).map(Path::to_path_buf).collect()
    }

    /// `arguments` of this program there, in the directory of the cube.
    fn words(&self, base: &str, program: &str, arguments: &[impl AsRef<str>]) -> Vec<String> {
        let workspace = (&*format!("{base}/cube/workspace"), &*self.cube.workspace.display().to_string());
        let environment = format!("{}={}", host_paths::VARIABLE, host_paths::value([workspace]));
        let start = ["sh", "-c", "mkdir -p \"$1\" && cd \"$1\" && shift && exec \"$@\"", "sh"].map(String::from);
        let start = start.into_iter().chain([format!("{base}/cube"), "env".into(), environment, program.into()]);
        start.chain(arguments.iter().map(|argument| argument.as_ref().to_string())).collect()
    }

    /// Runs this program there to its end, with `input` as standard input.
    fn ask(&self, action: &'static str, arguments: &[&str], input: Stdio) -> Result<String> {
        let far = self.far()?;
        far.connection.succeed(action, &self.words(&far.base, &far.program, arguments), input)
    }

    fn transfer(&self) -> Result<FileTransfer<'_>> {
        let far = self.far()?;
        Ok(FileTransfer { connection: &far.connection, program: &far.program, has_rsync: far.has_rsync })
    }

    /// Sends this program, unless it is there.
    fn send_program(&self) -> Result<()> {
        let far = self.far()?;
        if let Some(program) = &*far.missing.borrow() {
            info!("{}: sending this program", self.address.shown());
            far.connection.write_file("write this program", &far.program, "700", program)?;
        }
        far.missing.take(); // it is there now
        let version = far.connection.command(&[&*far.program, "--version"]).within(ANSWER).complete(Stdio::null())?;
        if version.success {
            return Ok(());
        }
        far.connection.output(&["true"])?; // where the connection is lost, that is why
        let problem = connection::problem(&version.stderr);
        Err(CubeError::OtherMachine { host: self.address.shown(), problem }.into())
    }

    /// Sends what is new of the cube, once no task runs there and the outputs of the last one are here.
    fn send_cube(&self) -> Result<()> {
        self.send_program()?;
        let far = self.far()?;
        let hold = self.words(&far.base, &far.program, &["cube", "job", "hold", "../job"]);
        self.held.replace(Some(far.connection.hold("send files", &hold)?));
        let State { stage, about, changes } = self.state()?;
        match (stage, about) {
            (Stage::Free, _) => {}
            (Stage::Running, about) | (_, about @ None) => return Err(self.other_job(about)?),
            (_, Some(about)) => {
                info!("{}: task {} has ended there; first its outputs are brought", self.address.shown(), about.task);
                // A task of an earlier command, which has failed.
                self.bring(&about, &changes)?.iter().for_each(|conflict| warn!("{conflict}"));
            }
        }
        let names = self.parts();
        let to = format!("{}/cube", self.far()?.base);
        let sent = Sent {
            from: &absolute(&self.cube.root)?,
            names: &names,
            without: &["build/target"],
            to: &to,
            follows_links: true,
        };
        self.transfer()?.send("the cube", &sent)
    }

    /// What makes this cube, besides the workspace.
    fn parts(&self) -> Vec<PathBuf> {
        CUBE.map(PathBuf::from).into_iter().filter(|name| self.cube.root.join(name).exists()).collect()
    }

    /// What is in the place of a job there, for somebody whose job it is not.
    fn other_job(&self, about: Option<About>) -> Result<Error> {
        let (host, directory) = (self.address.shown(), format!("{}/job", self.far()?.base));
        Ok(match about {
            Some(About { task, .. }) => CubeError::Running { host, task, directory },
            None => CubeError::UnknownJob { host, directory },
        }
        .into())
    }

    /// The state of the job there.
    fn state(&self) -> Result<State> {
        let json = self.ask("look for a task", &["cube", "job", "state", "../job"], Stdio::null())?;
        let wrong = |error: serde_json::Error| CubeError::Transfer {
            host: self.address.shown(),
            action: "read the state of a task".into(),
            problem: error.to_string(),
        };
        let state: State = serde_json::from_str(&json).map_err(wrong)?;
        let is_safe =
            state.about.as_ref().is_none_or(About::is_safe) && state.changes.iter().all(FileChanges::are_safe);
        if !is_safe {
            let problem = "expected outputs below the workspace, found others".into();
            let (host, action) = (self.address.shown(), "read the state of a task".into());
            return Err(CubeError::Transfer { host, action, problem }.into());
        }
        Ok(state)
    }

    fn lost(&self, task: &str, then: &'static str) -> Error {
        CubeError::Lost { host: self.address.shown(), task: task.into(), then }.into()
    }

    /// `error`, or where the connection is lost, what becomes of the task.
    fn or_lost(&self, error: Error, task: &str, then: &'static str) -> Error {
        if matches!(error, Error::Cube(CubeError::Connection { .. })) { self.lost(task, then) } else { error }
    }

    /// Starts a job there and follows it to its end.
    fn run_job(&self, about: &About, arguments: &[String]) -> Result<ExitStatus> {
        let json =
            serde_json::to_string(about).unwrap_or_else(|error| unreachable!("plain values become JSON: {error}"));
        let start = ["cube", "job", "start", "../job", &json, "--"];
        let arguments: Vec<&str> = start.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        self.ask("start the task", &arguments, Stdio::null())
            .map_err(|error| self.or_lost(error, &about.task, "may have been started there"))?;
        self.held.take();
        self.follow(&about.task)
    }

    fn follow(&self, task: &str) -> Result<ExitStatus> {
        let far = self.far()?;
        let words = self.words(&far.base, &far.program, &["cube", "job", "follow", "../job"]);
        let command = far.connection.command(&words);
        let then = if self.ends_alone { "is stopped there in a minute" } else { "goes on there" };
        // One that was ended by a signal which did not come from here says nothing of the task.
        if matches!(command.run_with_signs_of_life()?.code(), None | Some(LOST)) {
            return Err(self.lost(task, then));
        }
        match self.state().map_err(|error| self.or_lost(error, task, then))?.stage {
            Stage::Ended(code) => Ok(exit_status(code)),
            Stage::Running => Err(self.lost(task, then)),
            _ => Err(CubeError::Killed { host: self.address.shown(), task: task.into() }.into()),
        }
    }

    /// Brings what a job has changed in its outputs here, and frees its place. Returns what could not be put in place.
    fn bring(&self, about: &About, changes: &[FileChanges]) -> Result<Option<CubeError>> {
        let (outputs, workspace) = (about.changed(changes), &self.cube.workspace);
        let written: Vec<PathBuf> = outputs.iter().flat_map(ChangedOutput::written).collect();
        let mut brought = Brought::begin(workspace)?;
        self.transfer()?.fetch(&self.far_workspace()?, &written, brought.root())?;
        for ChangedOutput { directory, path, changes } in outputs {
            let output = Output { directory: &workspace.join(directory), path: &workspace.join(path) };
            changes.warn_of_left_out(output.directory);
            brought.place(directory, output, changes)?;
        }
        let conflict = brought.end();
        self.ask("free the place of the task", &["cube", "job", "free", "../job"], Stdio::null()).map(|_| conflict)
    }

    fn about(&self, invocation: &Invocation) -> About {
        let outputs = invocation.bindings.iter().filter(|binding| !binding.is_input);
        let output = |Binding { name, path, is_file, .. }: &Binding| {
            Some((name.clone(), self.in_workspace(path)?.to_path_buf(), *is_file))
        };
        About {
            task: invocation.task.clone(),
            outputs: outputs.filter_map(output).collect(),
            ends_alone: self.ends_alone,
        }
    }

    /// The run configuration that means `invocation` there.
    fn run_file(&self, invocation: &Invocation) -> String {
        invocation.as_configuration(&|path| match self.in_workspace(path) {
            Some(below) => format!("$WORKSPACE/{}", below.display()),
            None => path.display().to_string(),
        })
    }

    /// What this program is told there, to configure the cube.
    fn configure_arguments(&self) -> Vec<String> {
        ["cube", "configure", "--mlcube=.", &format!("--platform={}", self.platform)].map(String::from).into()
    }

    /// What it is told to run the task of the run configuration there.
    fn run_arguments(&self) -> Vec<String> {
        let platform = format!("--platform={}", self.platform);
        ["cube", "run", "--mlcube=.", &platform, "--task=../run.yaml"].map(String::from).into()
    }

    /// The command of a dry run, which knows nothing of the other machine.
    fn unconnected(&self, arguments: &[String]) -> Result<HostCommand> {
        let program = self.program.as_deref().unwrap_or("mnist");
        Ok(self.address.command(&self.words(&self.base()?, program, arguments)))
    }
}

impl Runner for Ssh {
    fn find(&mut self) -> Result<()> {
        if self.has_interpreter {
            info!("`interpreter` is ignored: this program needs none");
        }
        let connection = Connection::open(&self.address)?;
        let base = format!("{}/{}", connection.machine.home, self.base()?);
        let (program, missing) = match &self.program {
            Some(program) => (program.clone(), None),
            None => {
                connection.check_same_machine()?;
                let here = std::env::current_exe().map_err(Error::io("find", "this program"))?;
                let bytes = fs::read(&here).map_err(Error::io("read", &here))?;
                let program = format!("{base}/bin/mnist-{}", &sha256::of(&bytes)[..16]);
                let is_there = connection.has_program(&program, bytes.len())?;
                (program, (!is_there).then_some(bytes))
            }
        };
        let here = HostCommand::new("rsync").arg("--version").output().is_ok_and(|rsync| rsync.success);
        let has_rsync = here && connection.machine.has_rsync;
        self.far = Some(Far { connection, base, program, missing: RefCell::new(missing), has_rsync });
        Ok(())
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }

    fn is_here(&self, path: &Path) -> bool {
        self.in_workspace(path).is_some()
    }

    fn stage_in(&self, invocation: &Invocation) -> Result<()> {
        self.send_cube()?;
        let workspace = &self.cube.workspace;
        let (to, transfer) = (self.far_workspace()?, self.transfer()?);
        for (what, is_input) in [("the inputs", true), ("what the outputs hold", false)] {
            let (names, missing): (Vec<_>, Vec<_>) =
                self.moved(invocation, is_input).into_iter().partition(|name| workspace.join(name).exists());
            transfer.remove(&to, &missing)?;
            // The task finds links in its outputs as links.
            let sent = Sent { from: workspace, names: &names, without: &[], to: &to, follows_links: is_input };
            transfer.send(what, &sent)?;
        }
        let (far, run) = (self.far()?, self.run_file(invocation));
        let to = format!("{}/run.yaml", far.base);
        far.connection.write_file("write the run configuration", &to, "600", run.as_bytes())
    }

    fn command(&self, _: &Invocation) -> Result<HostCommand> {
        self.unconnected(&self.run_arguments())
    }

    /// Also says what would be sent and brought.
    fn dry_run(&self, invocation: &Invocation) -> Result<String> {
        let outputs: Vec<PathBuf> = self.about(invocation).outputs.into_iter().map(|(_, path, _)| path).collect();
        let moved = [true, false].map(|is_input| self.moved(invocation, is_input)).concat();
        let (host, sent, brought) = (self.address.shown(), shown(&moved), shown(&outputs));
        info!("{host}: would first get what is new of the cube and, of the workspace, of {sent}");
        info!("{host}: would then give what is new of {brought}");
        Ok(lines([self.command(invocation)?]))
    }

    fn run(&self, invocation: &Invocation) -> Result<ExitStatus> {
        info!("{}: running task {}", self.address.shown(), invocation.task);
        self.run_job(&self.about(invocation), &self.run_arguments())
    }

    fn attach(&self, invocation: &Invocation) -> Result<ExitStatus> {
        self.send_program()?; // a newer one can read what an older one began
        let State { stage, about, .. } = self.state()?;
        let about = match (stage, about) {
            (Stage::Free, _) => return Err(CubeError::NothingToAttach.into()),
            (_, Some(about)) if about.task == invocation.task => about,
            (_, about) => return Err(self.other_job(about)?),
        };
        if about.outputs != self.about(invocation).outputs {
            let outputs: Vec<PathBuf> = about.outputs.iter().map(|(_, path, _)| path.clone()).collect();
            let (host, task, outputs) = (self.address.shown(), &about.task, shown(&outputs));
            info!("{host}: task {task} was started with other outputs, which are brought: {outputs}");
        }
        self.follow(&about.task)
    }

    fn stop(&self, invocation: &Invocation) -> Result<()> {
        let far = self.far()?;
        let signal = interrupt::received().unwrap_or(signal_hook::consts::SIGTERM).to_string();
        info!("{}: stopping task {}", self.address.shown(), invocation.task);
        let words = self.words(&far.base, &far.program, &["cube", "job", "stop", "../job", &signal]);
        let output = far.connection.output(&words)?;
        output.stderr.lines().for_each(|line| info!("{line}"));
        Ok(())
    }

    fn collect(&self, invocation: &Invocation) -> Result<()> {
        interrupt::acknowledge(); // what has arrived is put in place
        // Those of the job, which may have been started with others than this command names.
        let brought = self
            .state()
            .and_then(|State { about, changes, .. }| about.map_or(Ok(None), |about| self.bring(&about, &changes)));
        let task = &invocation.task;
        match brought.map_err(|error| self.or_lost(error, task, "has ended there, where its outputs wait")) {
            Ok(Some(conflict)) => Err(conflict.into()),
            Ok(None) => interrupt::check(),
            Err(Error::Interrupted { signal }) => {
                Err(CubeError::NotBrought { host: self.address.shown(), task: task.clone(), signal }.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl Image for Ssh {
    fn name(&self) -> String {
        format!("the cube on {}", self.address.shown())
    }

    /// Always: a run sends what is missing there, and builds the image there if there is none.
    fn found(&self) -> Result<ImageFound> {
        Ok(ImageFound::Ours)
    }

    fn instead_of_foreign(&self) -> &'static str {
        "give a platform file with another host"
    }

    fn hash(&self) -> Result<Option<String>> {
        Ok(None) // it is not here
    }

    fn build_command(&self, _: &Path) -> Result<HostCommand> {
        let (host, parts) = (self.address.shown(), shown(&self.parts()));
        info!("{host}: would first get this program and what is new of the cube: {parts}");
        self.unconnected(&self.configure_arguments())
    }

    fn build(&self, _: &Path, _: bool) -> Result<()> {
        self.send_cube()?;
        info!("{}: configuring the cube there for {}", self.address.shown(), self.platform);
        let about = About { task: "configure".into(), outputs: vec![], ends_alone: false };
        let ended = self.run_job(&about, &self.configure_arguments());
        let invocation = Invocation::of(&about.task, vec![]);
        super::finish(self, &invocation, ended)
    }
}

/// Paths in a message.
fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if paths.is_empty() { "nothing".into() } else { paths.join(", ") }
}

/// That of a process which ended with `code`.
fn exit_status(code: u8) -> ExitStatus {
    std::os::unix::process::ExitStatusExt::from_raw(i32::from(code) << 8)
}
