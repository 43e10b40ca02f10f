//! Inputs and outputs of a pod without a claim. Two containers of this program stand beside the task: `inputs` waits until
//! they are sent, and `outputs` keeps the task's files until they are fetched.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tracing::{info, warn};

use super::super::super::command::HostCommand;
use super::super::super::invocation::{Binding, Invocation};
use super::super::super::listing::FileChanges;
use super::super::super::mount::{self, Mount};
use super::super::super::stream::CHANGES;
use super::super::place::{Brought, Output};
use super::kubectl::{Kubectl, failed, problem};
use super::pod::{INPUTS, OUTPUTS};
use crate::error::{CubeError, Error, Result};

/// Where these containers have the files.
const HELD: &str = "/mlcube/copied";
/// The files that they wait for.
const SENT: &str = "/mlcube/copied/.sent";
const FETCHED: &str = "/mlcube/copied/.fetched";
/// The longest that a pod waits for inputs that nobody sends.
const INPUT_SECONDS: u64 = 300;

/// The longest that it may take to tell one of them so.
const MARKING: Duration = Duration::from_secs(20);

/// The parameters that are copied.
#[derive(Debug)]
pub struct Copies {
    mounts: Vec<Mount>,
    /// Each with its path in the task's container.
    parameters: Vec<(Binding, String)>,
}

impl Copies {
    /// For `invocation`, whose parameters are all copied; none if it has no parameter.
    ///
    /// # Errors
    /// A path cannot be handed to a container.
    pub fn of(invocation: &Invocation) -> Result<Option<Self>> {
        let (mounts, arguments) = mount::in_container(invocation)?;
        let flags = arguments.iter().skip(invocation.words().len());
        let paths = flags.map(|flag| flag.split_once('=').map_or("", |(_, path)| path).to_string());
        let parameters: Vec<_> = invocation.bindings.iter().cloned().zip(paths).collect();
        Ok((!parameters.is_empty()).then_some(Self { mounts, parameters }))
    }

    /// The path of a parameter in the task's container.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(binding, _)| binding.name == name).map(|(_, path)| path.as_str())
    }

    /// The variables of the task, which then prints the names that its files have here.
    pub fn environment(&self, invocation: &Invocation) -> Vec<(&'static str, String)> {
        mount::environment(invocation, &self.mounts)
    }

    /// The mounts of the task's container.
    pub fn mounts(&self) -> impl Iterator<Item = Json> {
        self.mounts.iter().map(|Mount { container, read_only, .. }| {
            json!({ "name": "copied", "mountPath": container, "subPath": &container[1..], "readOnly": read_only })
        })
    }

    /// The two containers and their commands: `outputs` waits so many minutes for whoever fetches them.
    pub fn helpers(fetch_minutes: u64) -> [(&'static str, Vec<String>); 2] {
        let wait = |file: &str, seconds: u64| {
            ["mnist", "cube", "job", "wait", file, &seconds.to_string()].map(String::from).to_vec()
        };
        [(INPUTS, wait(SENT, INPUT_SECONDS)), (OUTPUTS, wait(FETCHED, fetch_minutes.saturating_mul(60)))]
    }

    /// The mount that both have.
    pub fn mount() -> Json {
        json!({ "name": "copied", "mountPath": HELD })
    }

    /// What is sent, as `mnist cube job pack` takes it: the outputs as well, which the task is to find as they are here.
    fn sent(&self) -> Vec<String> {
        let directories = self.mounts.iter().map(|mount| format!("{}=", &mount.container[1..]));
        let files = self.parameters.iter().map(|(binding, path)| format!("{}={}", &path[1..], binding.path.display()));
        directories.chain(files).collect()
    }

    /// What is fetched: a directory for each output.
    fn fetched(&self) -> Vec<String> {
        let source = |(binding, path): &(Binding, String)| {
            let file = path.rsplit_once('/').filter(|_| binding.is_file).map(|(_, file)| format!("/{file}"));
            format!("{}{}={HELD}{path}", binding.name, file.unwrap_or_default())
        };
        self.outputs().map(source).collect()
    }

    fn outputs(&self) -> impl Iterator<Item = &(Binding, String)> {
        self.parameters.iter().filter(|(binding, _)| !binding.is_input)
    }

    /// Sends the inputs, and what the outputs hold, to a pod that waits for them. The task then starts.
    ///
    /// # Errors
    /// A file cannot be read, the pod is gone, or a signal arrived.
    pub fn send(&self, kubectl: &Kubectl, pod: &str) -> Result<()> {
        info!("{pod}: sending the files");
        let pack = this_program()?.args(["cube", "job", "pack", "--"]).args(self.sent());
        let unpack = kubectl.exec(pod, INPUTS, true, &["cube", "job", "unpack", HELD]);
        through(&pack, &unpack, pod, "send the files")?;
        done(kubectl, pod, INPUTS, SENT)
    }

    /// Brings what a task that has ended has changed in the outputs, all or nothing of it, and lets its pod go. Returns what
    /// could not be put in place.
    ///
    /// # Errors
    /// An output cannot be written, the pod is gone, or a signal arrived.
    pub fn fetch(&self, kubectl: &Kubectl, pod: &str, workspace: &Path) -> Result<Option<CubeError>> {
        info!("{pod}: bringing the outputs");
        let mut brought = Brought::begin(workspace)?;
        let sources = self.fetched();
        let since = format!("--since={SENT}");
        let words = ["cube", "job", "pack", &since, "--"].into_iter().chain(sources.iter().map(String::as_str));
        let pack = kubectl.exec(pod, OUTPUTS, false, &words.collect::<Vec<_>>());
        let unpack = this_program()?.args(["cube", "job", "unpack"]).arg(brought.root());
        through(&pack, &unpack, pod, "bring the outputs")?;
        let mut changes = changes(brought.root(), pod)?;
        for (binding, _) in self.outputs() {
            let of_it = changes.renamed(|path| path.strip_prefix(&binding.name).ok().map(Path::to_path_buf));
            changes.unnamed.clear(); // said once
            of_it.warn_of_left_out(binding.directory());
            let output = Output { directory: binding.directory(), path: &binding.path };
            brought.place(binding.name.as_ref(), output, &of_it)?;
        }
        let conflict = brought.end();
        if let Err(error) = done(kubectl, pod, OUTPUTS, FETCHED) {
            warn!("{pod}: {error}"); // it ends later, by itself
        }
        Ok(conflict)
    }
}

/// What the task has changed.
fn changes(brought: &Path, pod: &str) -> Result<FileChanges> {
    let path = brought.join(CHANGES);
    let json = fs::read(&path).map_err(Error::io("read", path))?;
    let changes: Option<FileChanges> = serde_json::from_slice(&json).ok();
    changes.filter(FileChanges::are_safe).ok_or_else(|| {
        let problem = "expected changes below the outputs, found something else".into();
        CubeError::Transfer { host: pod.into(), action: "bring the outputs".into(), problem }.into()
    })
}

/// Ends the task of a pod by a signal, and waits for that; `outputs` stays.
///
/// # Errors
/// The pod is gone.
pub fn end_task(kubectl: &Kubectl, pod: &str, signal: i32) -> Result<()> {
    let command = kubectl.exec(pod, OUTPUTS, false, &["cube", "job", "signal", &signal.to_string()]);
    let ended = command.complete(Stdio::null())?;
    if ended.success { Ok(()) } else { Err(failed(&ended)) }
}

/// Makes the file that a container waits for.
fn done(kubectl: &Kubectl, pod: &str, container: &str, file: &str) -> Result<()> {
    let mark = kubectl.exec(pod, container, false, &["cube", "job", "mark", file]).within(MARKING);
    let marked = mark.complete(Stdio::null())?;
    if marked.success { Ok(()) } else { Err(failed(&marked)) }
}

fn this_program() -> Result<HostCommand> {
    std::env::current_exe().map(HostCommand::new).map_err(Error::io("find", "this program"))
}

/// Sends what one command packs through the other.
fn through(pack: &HostCommand, unpack: &HostCommand, pod: &str, action: &str) -> Result<()> {
    let (packed, unpacked) = pack.pipe(Stdio::null(), unpack)?;
    if packed.success && unpacked.success {
        return Ok(());
    }
    // A sender that has lost its receiver says no more than that.
    let by_the_receiver = !unpacked.success && (packed.success || packed.stderr.contains("Broken pipe"));
    let stderr = if by_the_receiver { &unpacked.stderr } else { &packed.stderr };
    Err(CubeError::Transfer { host: pod.into(), action: action.into(), problem: problem(stderr) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_go_there_and_only_outputs_come_back() {
        let bindings = vec![
            Binding::of("data_dir", "/w s/data", false, true),
            Binding::of("parameters_file", "/w s/p/a.yaml", true, true),
            Binding::of("model_dir", "/w s/model", false, false),
            Binding::of("answer", "/w s/model/answer.txt", true, false),
        ];
        let copies = Copies::of(&Invocation::of("train", bindings)).unwrap().unwrap();
        assert_eq!(
            copies.sent(),
            [
                "mlcube_io0=",
                "mlcube_io1=",
                "mlcube_io2=",
                "mlcube_io0=/w s/data",
                "mlcube_io1/a.yaml=/w s/p/a.yaml",
                "mlcube_io2=/w s/model",
                "mlcube_io2/answer.txt=/w s/model/answer.txt",
            ]
        );
        assert_eq!(
            copies.fetched(),
            ["model_dir=/mlcube/copied/mlcube_io2", "answer/answer.txt=/mlcube/copied/mlcube_io2/answer.txt"]
        );
        assert_eq!(copies.path("parameters_file"), Some("/mlcube_io1/a.yaml"));
        let read_only: Vec<_> = copies.mounts().map(|mount| mount["readOnly"] == true).collect();
        assert_eq!(read_only, [true, true, false]);
    }
}
