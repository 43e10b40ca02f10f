//! Images and containers of Docker.

use std::path::Path;

use super::command::HostCommand;
use super::mount::Mount;
use super::passed_on;
use crate::error::{Error, Result};

/// The engine, which answered.
#[derive(Debug)]
pub struct Engine {
    rootless: bool,
}

impl Engine {
    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// There is no client, no engine, or no right to speak to it.
    pub fn find() -> Result<Self> {
        let answer = docker().args(["version", "--format={{.Server.Version}}"]).ask()?;
        if !answer.good {
            return Err(Error::DockerEngine { problem: last_line(&answer.stderr) });
        }
        let options = docker().args(["info", "--format={{json .SecurityOptions}}"]).ask()?;
        Ok(Self { rootless: options.stdout.contains("name=rootless") })
    }

    /// An engine as most are, where none is asked.
    pub fn supposed() -> Self {
        Self { rootless: false }
    }

    /// Whether it has the image.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn has(&self, image: &str) -> Result<bool> {
        Ok(docker().args(["image", "inspect", "--format={{.Id}}", image]).ask()?.good)
    }

    /// The container's user: the caller, whom the outputs then belong to. Root remains root: what this program writes as
    /// root it gives to the owner of the directory; and a rootless engine's root is the caller.
    fn user(&self) -> Option<String> {
        #[cfg(unix)]
        {
            let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
            (!self.rootless && !user.is_root()).then(|| format!("--user={}:{}", user.as_raw(), group.as_raw()))
        }
        #[cfg(not(unix))]
        None
    }

    /// Runs the image's program with `arguments`, in a container named `name` that is gone afterwards.
    pub fn run(
        &self,
        image: &str,
        runtime: Option<&str>,
        name: &str,
        mounts: &[Mount],
        mirror: Option<&Mount>,
        arguments: &[String],
    ) -> HostCommand {
        // The host's network, so that proxies and mirrors of this machine are there too.
        let mut command = docker().args(["run", "--rm", "--network=host"]).arg(format!("--name={name}"));
        command = command.args(self.user()).args(runtime);
        // Names alone: docker takes their values from its own environment, so that no password is seen among processes.
        command = command.args(passed_on().map(|name| format!("--env={name}")));
        if let Some(mirror) = mirror {
            command = command.arg(format!("--env=MNIST_MIRROR={}", mirror.container));
        }
        command = command.args(mounts.iter().chain(mirror).map(|mount| format!("--mount={}", csv(mount))));
        command.arg(image).args(arguments)
    }
}

/// Builds `image` from the Dockerfile in `build`, with `build` as its context.
pub fn build(image: &str, build: &Path) -> HostCommand {
    let proxies = passed_on().filter(|name| name.to_lowercase().ends_with("_proxy"));
    let mut command = docker().arg("build").args(proxies.map(|name| format!("--build-arg={name}")));
    command = command.arg(format!("--tag={image}"));
    let mut file = std::ffi::OsString::from("--file=");
    file.push(build.join("Dockerfile"));
    command.arg(file).arg(build)
}

/// Removes the container `name`, if it is still there.
pub fn remove(name: &str) -> HostCommand {
    docker().args(["rm", "--force", name])
}

fn docker() -> HostCommand {
    HostCommand::new("docker")
}

/// What went wrong, without the warnings before it.
fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no answer").trim().to_string()
}

/// A mount as `--mount` takes it: a record of comma-separated values, so that a path may hold colons and commas.
fn csv(mount: &Mount) -> String {
    let source = format!("source={}", mount.host.display());
    let source =
        if source.contains([',', '"', '\n']) { format!("\"{}\"", source.replace('"', "\"\"")) } else { source };
    let read_only = if mount.read_only { ",readonly" } else { "" };
    format!("type=bind,{source},target={}{read_only}", mount.container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_hold_whatever_paths_hold() {
        let mount = |host: &str, read_only| csv(&Mount { host: host.into(), container: "/c".into(), read_only });
        assert_eq!(mount("/a b:c", true), "type=bind,source=/a b:c,target=/c,readonly");
        assert_eq!(mount("/a,b\"c", false), "type=bind,\"source=/a,b\"\"c\",target=/c");
    }
}
