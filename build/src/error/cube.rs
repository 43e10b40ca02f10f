//! The errors of the runner: the cube's files, the programs of this machine, images and tasks.

use std::io;
use std::path::PathBuf;

/// One variant per cause, as in [`Error`](super::Error).
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message explains each field")]
pub enum CubeError {
    /// The cube's files have faults; they are printed one by one.
    #[error("{}: {faults} {} in the cube's files", path.display(), if *faults == 1 { "fault" } else { "faults" })]
    Faults { path: PathBuf, faults: usize },
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

    /// A program of the host that is not there.
    #[error("{program}: expected this program in PATH, found none")]
    NoProgram { program: String },
    /// The Docker engine does not answer, or not to this user.
    #[error("docker: the engine does not answer: {problem}")]
    DockerEngine { problem: String },
    /// Podman does not work.
    #[error("podman: does not work: {problem}")]
    Podman { problem: String },
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
    #[error("{}: not there, and {} has no Singularity.recipe to build it from", image.display(), build.display())]
    NoSingularityImage { image: PathBuf, build: PathBuf },
    /// The image's directory cannot be made or written.
    #[error("{}: cannot write the image there: {source}", image.display())]
    ImageDirectory { image: PathBuf, source: io::Error },
    /// The build failed; its output explains why.
    #[error("{image}: the image could not be built; see the output above")]
    ImageBuild { image: String },
    /// An input of a task that is not there.
    #[error("{name}: expected a {expected} {}, found none", path.display())]
    CubeInput { name: String, path: PathBuf, expected: &'static str },
    /// The task failed in its container; its output explains why.
    #[error("task {task}: {status}")]
    Task { task: String, status: std::process::ExitStatus },
}

impl CubeError {
    /// The next step.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            CubeError::NoProgram { program } => Some(match program.as_str() {
                "docker" => "install Docker, or give another platform file, such as platforms/singularity.yaml".into(),
                "podman" => "install Podman, or give another platform file, such as platforms/docker.yaml".into(),
                "singularity" | "apptainer" => {
                    "install Apptainer or SingularityCE (on a cluster perhaps `module load apptainer`), or give another \
                     platform file, such as platforms/docker.yaml"
                        .into()
                }
                _ => "install it, or give another platform file, such as platforms/docker.yaml".into(),
            }),
            CubeError::DockerEngine { problem } if problem.contains("permission denied") => Some(
                "this user may not speak to the engine: `sudo usermod -aG docker $USER` and a new login change that; \
                 without root's help, platforms/singularity.yaml needs no engine"
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
                "give a platform file whose image lies where this user can write; a relative path, as in \
                 platforms/mlcube-0.0.3/singularity.yaml, is below the workspace"
                    .into(),
            ),
            CubeError::Unconfirmed => Some("look at the list, then run it again with --yes".into()),
            CubeError::NotMountable { .. } => {
                Some("give a path with another name, or platforms/native.yaml, which mounts nothing".into())
            }
            CubeError::ForeignImage { next, .. } => Some((*next).into()),
            CubeError::CubeInput { .. } => Some("run the task that makes it first, as download before train".into()),
            _ => None,
        }
    }

    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // 128 and more: ended by a signal.
            CubeError::Task { status, .. } => status.code().map_or(1, |code| code as u8),
            CubeError::Unconfirmed => 2,
            _ => 1,
        }
    }
}
