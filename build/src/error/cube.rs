//! The errors of the runner: the cube's files, the programs of this machine, images and tasks.

use std::io;
use std::path::{Path, PathBuf};

use super::signal_name;
use crate::text::{counted, one_of, suggestion};

/// The configuration of a cube on another machine, whose command has no `--attach`.
const CONFIGURE: &str = "configure";
const CONFIGURE_AGAIN: &str = "once it has ended there, give the same command again";

/// One variant per cause, as in [`Error`](super::Error).
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message explains each field")]
pub enum CubeError {
    /// The cube's files have faults; they are printed one by one.
    #[error("{}: {} in the cube's files", path.display(), counted(*faults, "fault"))]
    Faults { path: PathBuf, faults: usize },
    /// Arguments that change the cube's file have faults; they are printed one by one.
    #[error("{} in the arguments", counted(*faults, "fault"))]
    WrongArguments { faults: usize },
    /// The same argument twice.
    #[error("{name}=PATH: expected this parameter once, found it twice")]
    GivenTwice { name: String },
    /// A change of a section that does not count.
    #[error("{what}: expected --platform={} for this change, found the platform file {}", one_of(sections), platform.display())]
    Unread { what: String, sections: Vec<&'static str>, platform: PathBuf },
    /// A flag for other platforms.
    #[error("--{flag}: expected a platform file of {}, found {found}", one_of(platforms))]
    NotOfPlatform { flag: &'static str, platforms: Vec<&'static str>, found: String },
    /// A task that would overwrite one of its inputs.
    #[error("task {task}: {input}: {problem}")]
    Overwritten { task: String, input: String, problem: String },
    /// An error, with the next step by what else is known.
    #[error("{problem}")]
    Advised { problem: Box<CubeError>, next: String },
    /// Nobody was there to ask.
    #[error("nothing was removed: expected --yes, since there is no terminal to ask on")]
    Unconfirmed,
    /// A path that no runner can hand to a container.
    #[error("{}: cannot be mounted in a container: it {problem}", path.display())]
    NotMountable { path: PathBuf, problem: &'static str },
    /// An image of another program under the name of ours.
    #[error("{image}: expected this program's image, which has the label {label}, found one {found}")]
    ForeignImage {
        image: String,
        label: String,
        /// What tells about it, after "one".
        found: String,
        next: &'static str,
    },

    /// Another program's cube, or a task of it, and a platform that has only this program.
    #[error("native: {}", foreign(task.as_deref(), cube))]
    ForeignTask { cube: String, task: Option<String> },
    /// Something for cubes of configuration 2.0 was given to a cube with `tasks/` and `run/`.
    #[error("{what}: expected a cube of configuration 2.0, found one with tasks/ and run/")]
    NotOneFileCube { what: String },

    /// A program of the host that is not there.
    #[error("{program}: expected this program in PATH, found none")]
    NoProgram { program: String },
    /// The Docker engine does not answer, or not to this user.
    #[error("docker: the engine does not answer: {problem}")]
    DockerEngine { problem: String },
    /// Podman does not work.
    #[error("podman: does not work: {problem}")]
    Podman { problem: String },
    /// Another machine cannot be reached, or does not let this user in.
    #[error("{host}: cannot connect: {problem}")]
    Connection { host: String, problem: String },
    /// A shell on another machine that writes into every answer.
    #[error("{host}: expected only the output of commands, found {found:?} of its shell")]
    NoisyShell { host: String, found: String },
    /// A Job that was started for other files.
    #[error("job {job}: expected the inputs and outputs of this run configuration, found others")]
    OtherFiles { job: String },
    /// A command on another machine failed.
    #[error("{host}: cannot {action}: {problem}")]
    Far {
        host: String,
        action: &'static str,
        problem: String,
        /// As this program says it over there.
        next: Option<String>,
    },
    /// Files did not arrive, there or here.
    #[error("{host}: cannot {action}: {problem}")]
    Transfer { host: String, action: String, problem: String },
    /// This program does not run over there.
    #[error("{host}: cannot run this program there: {problem}")]
    OtherMachine { host: String, problem: String },
    /// The connection to a task that runs.
    #[error("{host}: lost the connection; task {task} {then}")]
    Lost { host: String, task: String, then: &'static str },
    /// A signal arrived while outputs were brought.
    #[error("stopped by {} while the outputs of task {task} were brought; they wait on {host}", signal_name(*signal))]
    NotBrought { host: String, task: String, signal: i32 },
    /// Outputs that were brought and could not be put in place.
    #[error(
        "{}: {problem}, so {} is as it was, and all that the task wrote there is in {}: compare them, and keep one",
        path.display(), target.display(), beside.display()
    )]
    Conflict { path: PathBuf, problem: &'static str, target: PathBuf, beside: PathBuf },
    /// A task that was lost, and is not there any more.
    #[error(
        "{host}: task {task} ended there without an exit code: it or its supervisor was killed, or the machine went down"
    )]
    Killed { host: String, task: String },
    /// Another task is there.
    #[error("{host}: task {task} runs there already, in {directory}")]
    Running { host: String, task: String, directory: String },
    /// A job where another one is.
    #[error("{}: expected no task, found {found}", directory.display())]
    Busy { directory: PathBuf, found: String },
    /// What is in the place of a job on another machine is none.
    #[error("{host}: expected a task or nothing in {directory}, found a file about.json that names no task")]
    UnknownJob { host: String, directory: String },
    /// A job whose supervisor ended at once.
    #[error("{}: the process that runs the task ended at once", directory.display())]
    NoSupervisor { directory: PathBuf },
    /// A job whose end could not be told from its being killed.
    #[error("{}: expected a file system with locks, found one without", directory.display())]
    NoLocks { directory: PathBuf },
    /// Nothing runs that could be taken up.
    #[error("--attach: expected a task that runs on another machine, found none")]
    NothingToAttach,
    /// Files that were sent as one stream and did not arrive whole.
    #[error("the copy is not whole: found {found}")]
    Stream { found: String },
    /// A pod for whose files nobody came.
    #[error("{}: expected it within {seconds} s, found nothing: who started this job is gone", path.display())]
    NobodyCame { path: PathBuf, seconds: u64 },
    /// A container that may not end what runs beside it.
    #[error("cube job signal: expected a container beside a task, found another place")]
    NoHelper,
    /// A pod that had kept its outputs for a while.
    #[error("{pod}: expected the outputs of its task, found that the pod has ended: nobody fetched them in time")]
    OutputsGone { pod: String },
    /// A pod that can neither see nor get files.
    #[error(
        "kubernetes: expected `pvc`, a claim, or `copier`, an image of this program, in the platform file; found neither"
    )]
    NoCopier,
    /// A path on a claim where there are no claims.
    #[error("{name}: expected a path, since only Kubernetes has claims, found one on the claim {claim}")]
    NoClaims { name: String, claim: String },
    /// Slurm does not work.
    #[error("srun: does not work: {problem}")]
    Slurm { problem: String },
    /// `kubectl` fails.
    #[error("kubectl: {problem}")]
    Kubernetes { problem: String },
    /// A pod that does not start, or whose result is lost.
    #[error("task {task}: its pod did not run to its end: {problem}")]
    Pod { task: String, problem: String },
    /// A path that a pod cannot have.
    #[error("{name}: expected {problem}, found {}", path.display())]
    Claim { name: String, problem: String, path: PathBuf, next: &'static str },
    /// A platform that is read and not run.
    #[error("mlcube_gcp: expected a platform that this program runs, found one that makes a virtual machine")]
    Gcp,
    /// Singularity does not work.
    #[error("singularity: does not work: {problem}")]
    Singularity { problem: String },
    /// A Singularity that only root can build with.
    #[error("{found}: expected 3.5 or newer, with which others than root can build images (--fakeroot)")]
    OldSingularity { found: String },
    /// No image, and nothing to build it from.
    #[error("{program} image {image}: not there, and {} has no Dockerfile to build it from", build.display())]
    NoDockerImage { program: &'static str, image: String, build: PathBuf },
    /// The same for Singularity.
    #[error("{}: not there, and {} has no {recipe} to build it from", image.display(), build.display())]
    NoSingularityImage { image: PathBuf, build: PathBuf, recipe: String },
    /// An image that its registry did not give.
    #[error("{image}: the image could not be pulled; see the output above")]
    ImagePull { image: String, recipe: PathBuf, is_there: bool },
    /// No image to look at.
    #[error("{image}: expected an image, found none")]
    NoImage { image: String },
    /// The image's directory cannot be made or written.
    #[error("{}: cannot write the image there: {source}", image.display())]
    ImageDirectory { image: PathBuf, source: io::Error },
    /// The build failed; its output explains why.
    #[error("{image}: the image could not be built; see the output above")]
    ImageBuild { image: String },
    /// An input of a task that is not there.
    #[error("{name}: expected a {expected} {}, found {}", path.display(), found_at(path))]
    CubeInput { name: String, path: PathBuf, expected: &'static str },
    /// A signal arrived, and the task has said so.
    #[error("stopped")]
    Told { signal: i32 },
    /// The task failed in its container; its output explains why.
    #[error("task {task}: {status}")]
    Task { task: String, status: std::process::ExitStatus },
}

impl CubeError {
    /// The next step.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            CubeError::NoProgram { program } => Some(match program.as_str() {
                "docker" => "install Docker, or give another platform, such as Singularity".into(),
                "srun" => "call it where Slurm's commands are, such as the cluster's login node".into(),
                "ssh" => "install OpenSSH's client".into(),
                "kubectl" => "install Kubernetes' client and give it a cluster: `kubectl get nodes` must answer".into(),
                "podman" => "install Podman, or give another platform, such as Docker".into(),
                "singularity" | "apptainer" => {
                    "install Apptainer or SingularityCE (on a cluster perhaps `module load apptainer`), or give another \
                     platform, such as Docker"
                        .into()
                }
                _ => "install it, or give another platform, such as Docker".into(),
            }),
            CubeError::DockerEngine { problem } | CubeError::Podman { problem } if problem.contains("sudo: a password") => Some(
                "call it on a terminal, where sudo can ask for it, or let sudoers give this user that program without one: \
                 NOPASSWD:SETENV, so that it sees the proxies"
                    .into(),
            ),
            CubeError::DockerEngine { problem } if problem.contains("permission denied") => Some(
                "this user may not speak to the engine: `sudo usermod -aG docker $USER` and a new login change that; \
                 without root's help, Singularity needs no engine"
                    .into(),
            ),
            CubeError::DockerEngine { .. } => {
                Some("start it (`sudo systemctl start docker`, or Docker Desktop), or set DOCKER_HOST to where it is".into())
            }
            CubeError::Podman { .. } => Some("see what `podman info` says".into()),
            CubeError::OldSingularity { .. } => Some(
                "ask for a newer version, build the image as root, or build it on another machine and copy the file".into(),
            ),
            CubeError::NoDockerImage { program, image, .. } => {
                Some(format!("get it with `{program} pull {image}`, or give the cube with its build directory as --mlcube"))
            }
            CubeError::NoSingularityImage { .. } => {
                Some("copy the image there, or give the cube with its build directory as --mlcube".into())
            }
            CubeError::ImageDirectory { .. } => Some(
                "give a platform file whose image lies where this user can write; a relative path is below the workspace"
                    .into(),
            ),
            CubeError::Unconfirmed => Some("look at the list, then run it again with --yes".into()),
            CubeError::NotMountable { .. } => {
                Some("give a path with another name".into())
            }
            CubeError::ForeignImage { next, .. } => Some((*next).into()),
            CubeError::ForeignTask { .. } => Some("give a platform with containers, such as Docker".into()),
            CubeError::NotOneFileCube { .. } => {
                Some("give the file of such a cube, as in --mlcube=mlcube-2.0.yaml".into())
            }
            CubeError::ImagePull { recipe, is_there, .. } => Some(pull_hint(&recipe.display(), *is_there)),
            CubeError::NoImage { .. } => Some("make it with `mnist cube configure`, with the same flags".into()),
            CubeError::Advised { next, .. } => Some(next.clone()),
            CubeError::Overwritten { .. } => Some("keep inputs and outputs apart: name another path for one of them".into()),
            CubeError::Unread { platform, .. } => {
                Some(format!("give the platform by its name, or write the value into {}", platform.display()))
            }
            _ => self.far_hint(),
        }
    }

    /// For clusters, clouds and other machines.
    fn far_hint(&self) -> Option<String> {
        match self {
            CubeError::Slurm { .. } => Some("see what `sinfo` says".into()),
            CubeError::Kubernetes { problem } => Some(kubernetes_hint(problem).into()),
            CubeError::Pod { problem, .. } => pod_hint(problem).map(String::from),
            CubeError::Claim { next, .. } => Some(next.to_string()),
            CubeError::NoCopier => {
                Some("the claim holds the workspace; without one, a container of this program copies inputs and outputs".into())
            }
            CubeError::OutputsGone { .. } => {
                Some("run the task again; `fetch_minutes` in the platform file says how long a pod keeps its outputs".into())
            }
            CubeError::NoLocks { .. } => {
                Some("let mlcube/cubes in the home directory be a link to a directory on another file system".into())
            }
            CubeError::NoClaims { .. } => Some("give a Kubernetes platform file, or another run configuration".into()),
            CubeError::Gcp => Some(
                "make the machine with `gcloud compute instances create`, let `gcloud compute config-ssh` name it, and give \
                 that name as `host` in platforms/ssh.yaml"
                    .into(),
            ),
            CubeError::Connection { host, problem } => Some(connection_hint(problem).replace("HOST", host)),
            CubeError::Transfer { action, problem, .. } if is_full(problem) && action.starts_with("bring") => {
                Some("free some space on the disk of the outputs, here; they wait there".into())
            }
            CubeError::Far { problem, .. } | CubeError::Transfer { problem, .. } if is_full(problem) => {
                Some("free some space on that disk over there".into())
            }
            CubeError::Far { next, .. } => next.clone(),
            CubeError::Busy { .. } => {
                Some("take it up or fetch its outputs with the command that started it and --attach".into())
            }
            CubeError::UnknownJob { .. } => Some(
                "see with `ps` over there whether a task of this cube runs; if none does, move that directory away".into(),
            ),
            CubeError::NoisyShell { .. } => Some(
                "let its startup file, such as ~/.bashrc there, print only to a terminal: begin it with `[ -t 1 ] || return`"
                    .into(),
            ),
            CubeError::OtherFiles { .. } => {
                Some("take it up with the run configuration that it was started with".into())
            }
            CubeError::OtherMachine { .. } => Some(
                "build mnist there, or bring a program that runs there, and name it in the platform file as `program`; the \
                 one of the release archive runs on any Linux on x86-64 since 2014"
                    .into(),
            ),
            CubeError::Running { task, .. } if task == CONFIGURE => Some(CONFIGURE_AGAIN.into()),
            CubeError::Running { .. } => {
                Some("take it up with its own command and --attach; Ctrl-C then stops it".into())
            }
            CubeError::Lost { .. } | CubeError::NotBrought { .. } => self.attach_hint("--attach"),
            _ => None,
        }
    }

    /// How a task that goes on elsewhere, or has left its outputs there, is taken up: by the same command with `flags`. None
    /// of another error.
    pub fn attach_hint(&self, flags: &str) -> Option<String> {
        match self {
            CubeError::Lost { task, .. } if task == CONFIGURE => Some(CONFIGURE_AGAIN.into()),
            CubeError::Lost { .. } => {
                Some(format!("take it up again with the same command and {flags}; Ctrl-C then stops it"))
            }
            CubeError::NotBrought { task, .. } if task == CONFIGURE => Some(CONFIGURE_AGAIN.into()),
            CubeError::NotBrought { .. } => Some(format!("bring them with the same command and {flags}")),
            _ => None,
        }
    }

    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // 128 and more: ended by a signal.
            CubeError::Task { status, .. } => status.code().map_or(1, |code| code as u8),
            CubeError::Told { signal } | CubeError::NotBrought { signal, .. } => 128 + *signal as u8,
            CubeError::Unconfirmed
            | CubeError::WrongArguments { .. }
            | CubeError::GivenTwice { .. }
            | CubeError::Unread { .. }
            | CubeError::NotOfPlatform { .. }
            | CubeError::NotOneFileCube { .. } => 2,
            CubeError::Advised { problem, .. } => problem.exit_code(),
            _ => 1,
        }
    }
}

/// What another program's `task` is, or its `cube` alone, where only this program's are run.
fn foreign(task: Option<&str>, cube: &str) -> String {
    match task {
        Some(task) => format!("expected a task of this program, found {task} of the cube {cube}"),
        None => format!("expected a cube of this program, found {cube}"),
    }
}

/// What is at `path`, where something else was expected: `none` if nothing is.
pub fn found_at(path: &Path) -> &'static str {
    match (path.metadata(), path.symlink_metadata()) {
        (Ok(found), _) if found.is_dir() => "a directory",
        (Ok(found), _) if found.is_file() => "a file",
        (Ok(_), _) => "something else",
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => "one that this user may not see",
        (Err(_), Ok(_)) => "a link to nothing",
        (Err(_), Err(_)) => "none",
    }
}

/// The next step where there is no YAML file `path`: the files that its directory has.
pub fn beside(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = directory.read_dir().ok()?.flatten();
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.to_string());
    let mut names: Vec<String> = entries.filter_map(name).filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let suggested =
        || suggestion(&path.file_name().unwrap_or_default().to_string_lossy(), names.iter().copied(), &names);
    (!names.is_empty()).then(suggested)
}

/// Whether a disk is full, by what a program says that wrote there.
fn is_full(problem: &str) -> bool {
    ["No space left", "Disk quota exceeded", "the disk may be full"].iter().any(|words| problem.contains(words))
}

/// By what `kubectl` says.
fn kubernetes_hint(problem: &str) -> &'static str {
    let says = |text: &str| problem.contains(text);
    if says("persistentvolumeclaims") && says("not found") {
        "make the claim, or name yours as `pvc` in the platform file: `kubectl get pvc` lists them"
    } else if says("forbidden") || says("Unauthorized") {
        "ask for that right, or see `context` and `namespace` in the platform file"
    } else if says("refused") || says("context") || says("no such host") || says("timeout") || says("Unable to connect")
    {
        "see whether `kubectl get nodes` works, and `context` in the platform file"
    } else {
        "see whether the same works with `kubectl` by hand"
    }
}

/// By why a pod does not run.
fn pod_hint(problem: &str) -> Option<&'static str> {
    let says = |text: &str| problem.contains(text);
    if says("ImagePull") || says("InvalidImageName") {
        Some("push the image to a registry that the nodes reach, and name it as `image` in the platform file")
    } else if says("nonroot") || says("non-root") {
        Some("the pod never runs as root: give the image a user")
    } else if says("quota") {
        Some("see `cpu`, `memory` and `gpus` in the platform file, and `kubectl describe quota`")
    } else if says("Unschedulable") {
        Some("see `cpu`, `memory`, `gpus`, `node_selector` and `pvc` in the platform file")
    } else {
        None
    }
}

/// Where `recipe` is the file that an image would be built from.
fn pull_hint(recipe: &impl std::fmt::Display, is_there: bool) -> String {
    if is_there {
        return format!("build it from {recipe} with -Pdocker.build_strategy=auto");
    }
    format!(
        "see whether `image` is in its registry; nor is there {recipe} to build it from, where `build_context` and \
         `build_file` lead"
    )
}

/// By what `ssh` says. HOST stands for the machine.
fn connection_hint(problem: &str) -> &'static str {
    let says = |text: &str| problem.contains(text);
    if says("has changed") {
        "ask who runs that machine whether its key is new, before you change known_hosts"
    } else if says("Host key verification failed") {
        "connect once by hand with ssh, and look at the key before you accept it"
    } else if says("Permission denied") || says("Too many authentication failures") {
        "`ssh HOST true` must work without a password, or in a terminal: see `authentication` in the platform file, your \
         keys (ssh-copy-id brings one there) and ~/.ssh/config"
    } else if says("resolve hostname") || says("Name or service") {
        "see `host` in the platform file; it may be a name of ~/.ssh/config"
    } else {
        "see whether `ssh HOST true` works"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_goes_on_elsewhere_is_not_taken_up() {
        let hint = |task: &str| {
            CubeError::Lost { host: "far".into(), task: task.into(), then: "goes on there" }.hint().unwrap()
        };
        assert_eq!(hint("configure"), "once it has ended there, give the same command again");
        assert_eq!(hint("train"), "take it up again with the same command and --attach; Ctrl-C then stops it");
    }
}
