//! Containers of Docker, and of Podman, which takes the same commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use tracing::warn;

use super::super::command::{HostCommand, PATIENCE};
use super::super::invocation::Invocation;
use super::super::mount::{self, Mount, csv_quoted};
use super::super::schema::{Expected, Field, Gpus, Schema, arguments, optional, required};
use super::{Image, ImageFound, LABEL, Platform, Runner, last_line, own_name, refuse_foreign, text, with_label};
use crate::data::download::environment;
use crate::error::{CubeError, Result};
use crate::files::is_root;

/// `mlcube_docker` of MLCube's documentation. `podman` and `gpus` are ours.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_docker",
        fields: &[
            required("image", Expected::Image),
            required("docker_runtime", Expected::OneOf(&["docker", "nvidia-docker", "podman"])),
            optional("gpus", Expected::Gpus),
        ],
    },
    runner: |file, _, _| Box::new(Docker::read(file)),
};

/// The keys of the section `docker` of configuration 2.0: those of `mlcube-docker` 0.0.9, which refuses any others.
pub const SECTION: &[Field] = &[
    required("image", Expected::Image),
    optional("runner", Expected::Text),
    optional("docker", Expected::OneOf(&["docker", "podman", "sudo docker", "sudo podman"])),
    optional("env_args", Expected::Arguments),
    optional("gpu_args", Expected::Arguments),
    optional("cpu_args", Expected::Arguments),
    optional("build_args", Expected::Arguments),
    optional("build_context", Expected::Text),
    optional("build_file", Expected::Text),
    optional("build_strategy", Expected::OneOf(&["pull", "auto", "always"])),
    optional("--network", Expected::Scalar),
    optional("--security-opt", Expected::Scalar),
    optional("--gpus", Expected::Scalar),
    optional("--memory", Expected::Scalar),
    optional("--cpuset-cpus", Expected::Scalar),
];

/// Their values where the section does not say.
pub const DEFAULTS: &str = "{runner: docker, docker: docker, env_args: {}, gpu_args: '', cpu_args: '', build_args: {}, \
                            build_context: ., build_file: Dockerfile, build_strategy: pull, --network: null, \
                            --security-opt: null, --gpus: null, --memory: null, --cpuset-cpus: null}";

/// What Docker and Podman say of a container that is gone, or about to go.
const IS_GONE: [&str; 3] = ["No such container", "no such container", "already in progress"];

/// The flag by which `sudo` fails where it needs a password: in the background it would wait for one for ever.
const NO_QUESTION: &str = "--non-interactive";

/// A program with the command line of `docker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The Docker engine's.
    Docker,
    /// Podman, which needs no engine.
    Podman,
}

impl Engine {
    fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The arguments of `run` that give a container these GPUs.
    fn gpus(self, gpus: &Gpus) -> Vec<String> {
        match (self, gpus) {
            (Self::Docker, Gpus::All) => vec!["--gpus=all".into()],
            (Self::Docker, Gpus::Number(number)) => vec![format!("--gpus={number}")],
            // The flag is a CSV record, in which the commas of a list need quotes.
            (Self::Docker, Gpus::Devices(devices)) => vec![format!("--gpus=\"device={}\"", devices.join(","))],
            (Self::Podman, gpus) => {
                let devices = match gpus {
                    Gpus::All => vec!["all".to_string()],
                    Gpus::Number(number) => (0..*number).map(|nth| nth.to_string()).collect(),
                    Gpus::Devices(devices) => devices.clone(),
                };
                devices.iter().map(|device| format!("--device=nvidia.com/gpu={device}")).collect()
            }
        }
    }
}

/// Docker or Podman, and an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Docker {
    engine: Engine,
    image: String,
    /// The arguments of `run` that give the container GPUs or another runtime.
    runtime: Vec<String>,
    /// Whether the engine runs without root's rights, so that root in a container is the caller.
    rootless: bool,
    /// Whether `sudo` starts the program.
    sudo: bool,
    /// Whether `sudo` lets variables of the environment through.
    sudo_keeps: bool,
    /// Where the image comes from, if not from the cube's directory `build`.
    source: Option<DockerSource>,
}

/// How a cube of configuration 2.0 gets its image.
#[derive(Debug, PartialEq, Eq)]
struct DockerSource {
    /// The directory that it is built from.
    context: PathBuf,
    /// The Dockerfile.
    file: PathBuf,
    arguments: Vec<String>,
    /// When it is built, and when it is pulled from a registry: `pull`, `auto` or `always`.
    strategy: String,
}

impl DockerSource {
    fn pulls(&self) -> bool {
        self.strategy == "pull" || !self.file.is_file()
    }
}

impl Docker {
    /// Containers of `image`, with `runtime` as arguments of `run`.
    pub fn new(engine: Engine, image: String, runtime: Vec<String>) -> Self {
        Self { engine, image, runtime, rootless: false, sudo: false, sudo_keeps: true, source: None }
    }

    /// The section `docker` of the configuration 2.0 of a cube in `root`, with all its keys.
    pub fn configured(section: &Value, root: &Path, has_gpus: bool) -> Self {
        let program = text(section, "docker");
        let engine = if program.ends_with("podman") { Engine::Podman } else { Engine::Docker };
        let words =
            |name: &str, flag: &str| section.get(name).and_then(|value| arguments(value, flag)).unwrap_or_default();
        let mut runtime = words(if has_gpus { "gpu_args" } else { "cpu_args" }, "");
        runtime.extend(super::flags(section));
        runtime.extend(words("env_args", "--env"));
        let context: PathBuf = root.join(text(section, "build_context")).components().collect();
        let source = DockerSource {
            file: context.join(text(section, "build_file")),
            context,
            arguments: words("build_args", "--build-arg"),
            strategy: text(section, "build_strategy"),
        };
        let sudo = program.starts_with("sudo ");
        Self { sudo, source: Some(source), ..Self::new(engine, text(section, "image"), runtime) }
    }

    fn program(&self) -> HostCommand {
        self.program_with([])
    }

    /// The program, which sees these variables of the environment even if `sudo` starts it.
    fn program_with(&self, variables: impl IntoIterator<Item = String>) -> HostCommand {
        let command = HostCommand::new(self.engine.program());
        if !self.sudo {
            return command;
        }
        let variables: Vec<String> = variables.into_iter().filter(|_| self.sudo_keeps).collect();
        let kept = (!variables.is_empty()).then(|| format!("--preserve-env={}", variables.join(",")));
        command.under(HostCommand::new("sudo").arg(NO_QUESTION).args(kept))
    }

    /// Has `sudo` ask for the password now, if it needs one, and finds out whether it lets variables through.
    fn authenticate(&mut self) -> Result<()> {
        if !self.sudo {
            return Ok(());
        }
        if self.program().arg("--version").output()?.stderr.contains("password") {
            HostCommand::new("sudo").arg("--validate").complete_in_foreground()?;
        }
        let variables: Vec<String> = environment::passed_on().collect();
        if variables.is_empty() {
            return Ok(());
        }
        let said = self.program_with(variables.clone()).arg("--version").output()?.stderr;
        if said.contains("not allowed to set") {
            self.sudo_keeps = false;
            warn!(
                "{}: kept from {} by sudo: SETENV in sudoers allows them",
                variables.join(", "),
                self.engine.program()
            );
        }
        Ok(())
    }

    fn read(file: &Value) -> Self {
        let runtime = text(file, "docker_runtime");
        let engine = if runtime == "podman" { Engine::Podman } else { Engine::Docker };
        // Since Docker 19.03 a flag does the work of the command nvidia-docker.
        let all = (runtime == "nvidia-docker").then_some(Gpus::All);
        let gpus = file.get("gpus").and_then(Gpus::read).or(all);
        Self::new(engine, text(file, "image"), gpus.map(|gpus| engine.gpus(&gpus)).unwrap_or_default())
    }

    /// The container's user: the caller, who then owns the outputs. Root stays root, since this program gives the files
    /// that it writes as root to the owner of their directory. The root of a rootless engine is the caller.
    fn user(&self) -> Option<String> {
        #[cfg(unix)]
        {
            let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
            (!self.rootless && !is_root()).then(|| format!("--user={}:{}", user.as_raw(), group.as_raw()))
        }
        #[cfg(not(unix))]
        None
    }
}

impl Runner for Docker {
    fn find(&mut self) -> Result<()> {
        self.authenticate()?;
        let ask = |arguments: [&str; 2]| self.program().args(arguments).output();
        match self.engine {
            Engine::Docker => {
                let version = ask(["version", "--format={{.Server.Version}}"])?;
                if !version.success {
                    return Err(CubeError::DockerEngine { problem: last_line(&version.stderr) }.into());
                }
                self.rootless = ask(["info", "--format={{json .SecurityOptions}}"])?.stdout.contains("name=rootless");
            }
            Engine::Podman => {
                let info = ask(["info", "--format={{.Host.Security.Rootless}}"])?;
                if !info.success {
                    return Err(CubeError::Podman { problem: last_line(&info.stderr) }.into());
                }
                self.rootless = info.stdout == "true";
            }
        }
        Ok(())
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }

    fn command(&self, invocation: &Invocation) -> Result<HostCommand> {
        let (mounts, arguments) = mount::in_container(invocation)?;
        let mirror = mount::mirror(invocation)?;
        // With the host's network the container reaches proxies and mirrors of this machine.
        let has_network = self.runtime.iter().any(|argument| argument.starts_with("--net"));
        // Docker takes the values from its own environment: the list of processes shows no password.
        let named = environment::proxies_set()
            .chain((mirror.is_none() && mount::has_mirror(invocation)).then(|| environment::MIRROR.to_string()));
        let named: Vec<String> = named.collect();
        let mut command = self.program_with(named.clone()).args(["run", "--rm"]);
        command = command.args((!has_network).then_some("--network=host"));
        command = command.arg(format!("--name={}", own_name(&invocation.task)));
        if self.engine == Engine::Podman {
            // Where SELinux is, as on Fedora, it keeps containers out of the directories of users.
            command = command.arg("--security-opt=label=disable");
        }
        command = command.args(self.user()).args(&self.runtime);
        let environment = mount::environment(invocation, &mounts);
        command = command.args(environment.iter().map(|(name, value)| format!("--env={name}={value}")));
        command = command.args(named.iter().map(|name| format!("--env={name}")));
        let mounted = mirror.as_ref().map(|mirror| format!("--env={}={}", environment::MIRROR, mirror.container));
        command = command.args(mounted);
        command = command.args(mounts.iter().chain(&mirror).map(|mount| format!("--mount={}", csv(mount))));
        command = match invocation.entrypoint.first() {
            Some(entrypoint) => {
                command.arg(format!("--entrypoint={entrypoint}")).arg(&self.image).args(arguments.into_iter().skip(1))
            }
            None => command.arg(&self.image).args(arguments),
        };
        // Root's process takes no signal of the caller.
        let messenger = self.sudo.then(|| self.program().args(["kill", &own_name(&invocation.task)]));
        Ok(messenger.into_iter().fold(command, HostCommand::signalled_by))
    }

    fn stop(&self, invocation: &Invocation) -> Result<()> {
        // The client may have ended without ending the container.
        let name = own_name(&invocation.task);
        let problem = match self.program().args(["rm", "--force", &name]).within(PATIENCE).output() {
            Ok(removed) if removed.success || IS_GONE.iter().any(|gone| removed.stderr.contains(gone)) => return Ok(()),
            Ok(removed) => last_line(&removed.stderr),
            Err(error) => error.to_string(),
        };
        let (sudo, program) = (if self.sudo { "sudo " } else { "" }, self.engine.program());
        warn!("container {name} may still run: {problem}; end it with `{sudo}{program} rm --force {name}`");
        Ok(())
    }
}

impl Image for Docker {
    fn name(&self) -> String {
        self.image.clone()
    }

    fn found(&self) -> Result<ImageFound> {
        let output = self.program().args(["image", "inspect", "--format={{json .Config}}", &self.image]).output()?;
        if !output.success {
            return Ok(ImageFound::Nothing);
        }
        let config: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let label = config["Labels"][LABEL.0].as_str();
        if label == Some(LABEL.1) {
            return Ok(ImageFound::Ours);
        }
        let words = ["Entrypoint", "Cmd"].map(|list| config[list].as_array().cloned().unwrap_or_default()).concat();
        let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
        let starts = if words.is_empty() { "nothing".into() } else { words.join(" ") };
        Ok(ImageFound::Foreign(format!("{}, which starts {starts}", with_label(label))))
    }

    fn instead_of_foreign(&self) -> &'static str {
        "build this program's with `mnist cube configure`, which takes the name over, or give a platform file that names \
         another image"
    }

    fn is_built_each_time(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.strategy == "always")
    }

    fn hash(&self) -> Result<Option<String>> {
        let output = self.program().args(["image", "inspect", "--format={{.Id}}", &self.image]).output()?;
        let id = output.stdout.strip_prefix("sha256:").map(String::from).unwrap_or(output.stdout);
        Ok(output.success.then_some(id))
    }

    fn build(&self, build: &Path, is_ours: bool) -> Result<()> {
        let status = self.build_command(build)?.run()?;
        let image = || self.name();
        match &self.source {
            Some(source) if source.pulls() && status.success() => refuse_foreign(self, is_ours).map(drop),
            Some(source) if source.pulls() => {
                let (recipe, is_there) = (source.file.clone(), source.file.is_file());
                Err(CubeError::ImagePull { image: image(), recipe, is_there }.into())
            }
            _ if status.success() => Ok(()),
            _ => Err(CubeError::ImageBuild { image: image() }.into()),
        }
    }

    fn build_command(&self, build: &Path) -> Result<HostCommand> {
        let (file, build, arguments) = match &self.source {
            Some(source) if source.pulls() => {
                return Ok(self.program_with(environment::proxies_set()).args(["pull", &self.image]));
            }
            Some(source) => (source.file.clone(), &*source.context, &*source.arguments),
            None => (build.join("Dockerfile"), build, &[][..]),
        };
        if !file.is_file() {
            return Err(CubeError::NoDockerImage {
                program: self.engine.program(),
                image: self.image.clone(),
                build: build.into(),
            }
            .into());
        }
        let proxies: Vec<String> = environment::proxies_set().collect();
        let mut file_flag = OsString::from("--file=");
        file_flag.push(file);
        let passed = proxies.iter().map(|name| format!("--build-arg={name}"));
        let command = self.program_with(proxies.clone()).arg("build").args(passed).args(arguments);
        let command = command.arg(format!("--tag={}", self.image));
        Ok(command.arg(file_flag).arg(build))
    }
}

/// A mount as `--mount` takes it: a CSV record, in which a path may hold colons and commas.
fn csv(mount: &Mount) -> String {
    let source = format!("source={}", mount.host);
    let source = if source.contains([',', '"']) { csv_quoted(&source) } else { source };
    let read_only = if mount.read_only { ",readonly" } else { "" };
    format!("type=bind,{source},target={}{read_only}", mount.container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_flags() {
        let read = |more: &str| {
            let Docker { engine, runtime, .. } =
                Docker::read(&serde_yaml::from_str(&format!("image: a/b:c\ndocker_runtime: {more}")).unwrap());
            (engine, runtime.join(" "))
        };
        let docker = |flags: &str| (Engine::Docker, flags.to_string());
        assert_eq!(read("docker"), docker(""));
        assert_eq!(read("nvidia-docker"), docker("--gpus=all"));
        assert_eq!(read("nvidia-docker\ngpus: 2"), docker("--gpus=2"));
        assert_eq!(read("docker\ngpus: all"), docker("--gpus=all"));
        assert_eq!(read("docker\ngpus: device=0,2"), docker("--gpus=\"device=0,2\""));
        let podman = |flags: &str| (Engine::Podman, flags.to_string());
        assert_eq!(read("podman"), podman(""));
        assert_eq!(read("podman\ngpus: all"), podman("--device=nvidia.com/gpu=all"));
        assert_eq!(read("podman\ngpus: 2"), podman("--device=nvidia.com/gpu=0 --device=nvidia.com/gpu=1"));
        assert_eq!(read("podman\ngpus: device=3"), podman("--device=nvidia.com/gpu=3"));
    }

    #[test]
    fn a_path_may_hold_colons_commas_and_quotes() {
        let mount = |host: &str, read_only| csv(&Mount { host: host.into(), container: "/c".into(), read_only });
        assert_eq!(mount("/a b:c", true), "type=bind,source=/a b:c,target=/c,readonly");
        assert_eq!(mount("/a,b\"c", false), "type=bind,\"source=/a,b\"\"c\",target=/c");
    }
}
