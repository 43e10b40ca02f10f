//! Containers of Docker.

use std::ffi::OsString;
use std::path::Path;

use serde_yaml::Value;

use super::super::command::HostCommand;
use super::super::invocation::Invocation;
use super::super::mount::{self, Mount, csv_quoted};
use super::super::schema::{Expected, Schema, required};
use super::{Image, ImageFound, LABEL, Platform, Runner, last_line, text, with_label};
use crate::data::download::environment;
use crate::error::{Error, Result};
use crate::files::is_root;

/// `mlcube_docker` of MLCube's documentation.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_docker",
        fields: &[
            required("image", Expected::Image),
            required("docker_runtime", Expected::OneOf(&["docker", "nvidia-docker"])),
        ],
    },
    runner: |file, _| Box::new(Docker::read(file)),
};

/// The Docker engine, and an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Docker {
    image: String,
    /// The argument of `docker run` that gives the container a GPU or another runtime.
    runtime: Option<String>,
    /// Whether the engine runs without root's rights, so that root in a container is the caller.
    rootless: bool,
}

impl Docker {
    /// Containers of `image`, with `runtime` as an argument of `docker run`.
    pub fn new(image: String, runtime: Option<String>) -> Self {
        Self { image, runtime, rootless: false }
    }

    fn read(file: &Value) -> Self {
        // Since Docker 19.03 a flag does the work of the command nvidia-docker.
        let gpus = text(file, "docker_runtime") == "nvidia-docker";
        Self::new(text(file, "image"), gpus.then(|| "--gpus=all".into()))
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
        let version = docker().args(["version", "--format={{.Server.Version}}"]).output()?;
        if !version.success {
            return Err(Error::DockerEngine { problem: last_line(&version.stderr) });
        }
        let options = docker().args(["info", "--format={{json .SecurityOptions}}"]).output()?;
        self.rootless = options.stdout.contains("name=rootless");
        Ok(())
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }

    fn command(&self, invocation: &Invocation) -> Result<HostCommand> {
        let (mounts, arguments) = mount::in_container(invocation)?;
        let mirror = mount::mirror()?;
        // With the host's network the container reaches proxies and mirrors of this machine.
        let mut command = docker().args(["run", "--rm", "--network=host"]);
        command = command.arg(format!("--name={}", container(invocation)));
        command = command.args(self.user()).args(self.runtime.as_deref());
        // Only the names: docker takes the values from its own environment. The list of processes shows no password.
        command = command.args(passed_on().map(|name| format!("--env={name}")));
        if let Some(mirror) = &mirror {
            command = command.arg(format!("--env={}={}", environment::MIRROR, mirror.container));
        }
        command = command.args(mounts.iter().chain(&mirror).map(|mount| format!("--mount={}", csv(mount))));
        Ok(command.arg(&self.image).args(arguments))
    }

    fn stop(&self, invocation: &Invocation) -> Result<()> {
        // The client may have ended without ending the container.
        docker().args(["rm", "--force", &container(invocation)]).output().map(drop)
    }
}

impl Image for Docker {
    fn name(&self) -> String {
        self.image.clone()
    }

    fn found(&self) -> Result<ImageFound> {
        let output = docker().args(["image", "inspect", "--format={{json .Config}}", &self.image]).output()?;
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

    fn build_command(&self, build: &Path) -> Result<HostCommand> {
        let file = build.join("Dockerfile");
        if !file.is_file() {
            return Err(Error::NoDockerImage { image: self.image.clone(), build: build.into() });
        }
        let proxies = environment::proxies_set().map(|name| format!("--build-arg={name}"));
        let mut file_flag = OsString::from("--file=");
        file_flag.push(file);
        let command = docker().arg("build").args(proxies).arg(format!("--tag={}", self.image));
        Ok(command.arg(file_flag).arg(build))
    }
}

fn docker() -> HostCommand {
    HostCommand::new("docker")
}

/// The container's name, which no other process uses.
fn container(invocation: &Invocation) -> String {
    format!("mlcube_{}_{}", invocation.task, std::process::id())
}

/// The variables that a task in a container gets too, if they are set: the proxies and the mirror.
fn passed_on() -> impl Iterator<Item = String> {
    let mirror = std::env::var_os(environment::MIRROR).map(|_| environment::MIRROR.to_string());
    environment::proxies_set().chain(mirror)
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
    fn nvidia_docker_is_a_flag() {
        let read = |runtime: &str| {
            Docker::read(&serde_yaml::from_str(&format!("image: a/b:c\ndocker_runtime: {runtime}")).unwrap())
        };
        assert_eq!(read("docker"), Docker::new("a/b:c".into(), None));
        assert_eq!(read("nvidia-docker"), Docker::new("a/b:c".into(), Some("--gpus=all".into())));
    }

    #[test]
    fn a_path_may_hold_colons_commas_and_quotes() {
        let mount = |host: &str, read_only| csv(&Mount { host: host.into(), container: "/c".into(), read_only });
        assert_eq!(mount("/a b:c", true), "type=bind,source=/a b:c,target=/c,readonly");
        assert_eq!(mount("/a,b\"c", false), "type=bind,\"source=/a,b\"\"c\",target=/c");
    }
}
