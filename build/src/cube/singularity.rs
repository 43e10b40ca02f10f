//! Images and containers of Singularity, and of Apptainer, its later name.

use std::path::Path;

use super::command::HostCommand;
use super::mount::Mount;
use crate::error::{Error, Result};

/// The first version that builds as a plain user (`--fakeroot`).
const FAKEROOT: (u32, u32) = (3, 5);

/// The program, which answered.
#[derive(Debug)]
pub struct Singularity {
    program: &'static str,
    version: String,
}

impl Singularity {
    /// Asks the program for its version.
    ///
    /// # Errors
    /// There is neither `singularity` nor `apptainer`, or it does not work.
    pub fn find() -> Result<Self> {
        let ask = |program| HostCommand::new(program).arg("--version").ask().map(|answer| (program, answer));
        let first = ask("singularity");
        let (program, answer) = match (first, ask("apptainer")) {
            (Ok(found), _) | (Err(_), Ok(found)) => found,
            (Err(error), Err(_)) => return Err(error),
        };
        if !answer.good {
            return Err(Error::Singularity { problem: answer.stderr });
        }
        Ok(Self { program, version: answer.stdout })
    }

    /// The program as it is most often called, where none is asked.
    pub fn supposed() -> Self {
        Self { program: "singularity", version: String::new() }
    }

    /// Builds `image` from the recipe in `build`.
    ///
    /// # Errors
    /// This user cannot build with this version.
    pub fn build(&self, image: &Path, build: &Path) -> Result<HostCommand> {
        let command = HostCommand::new(self.program).arg("build").directory(build);
        let command = if is_root() {
            command
        } else if version(&self.version).is_some_and(|version| version < FAKEROOT) {
            return Err(Error::OldSingularity { found: self.version.clone() });
        } else {
            command.arg("--fakeroot")
        };
        Ok(command.arg(image).arg("Singularity.recipe"))
    }

    /// Runs the image's program with `arguments`.
    pub fn run(
        &self,
        image: &Path,
        nv: bool,
        mounts: &[Mount],
        mirror: Option<&Mount>,
        arguments: &[String],
    ) -> HostCommand {
        let mut command = HostCommand::new(self.program).arg("run").args(nv.then_some("--nv"));
        for mount in mounts.iter().chain(mirror) {
            command = command.args(bind(mount));
        }
        if let Some(mirror) = mirror {
            command = command.env("MNIST_MIRROR", &*mirror.container);
        }
        command.arg(image).args(arguments)
    }
}

fn is_root() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    false
}

/// Major and minor version of what `--version` prints; none of Apptainer, all of whose versions are newer than any that
/// matters.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().last().filter(|_| !text.starts_with("apptainer"))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A mount as `--bind` takes it in every version; a path with one of the marks between its parts needs `--mount`, which
/// Apptainer and SingularityCE have since 3.9.
fn bind(mount: &Mount) -> [String; 2] {
    let host = mount.host.display().to_string();
    let Mount { container, read_only, .. } = mount;
    if host.contains([':', ',']) {
        let read_only = if *read_only { ",ro" } else { "" };
        let host = host.replace('"', "\"\"");
        return ["--mount".into(), format!("type=bind,\"source={host}\",destination={container}{read_only}")];
    }
    ["--bind".into(), format!("{host}:{container}{}", if *read_only { ":ro" } else { "" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_each_name_are_read() {
        assert_eq!(version("singularity version 3.4.2-1.1.el7"), Some((3, 4)));
        assert_eq!(version("singularity-ce version 4.1.0-jammy"), Some((4, 1)));
        assert_eq!(version("2.6.1-dist"), Some((2, 6)));
        assert_eq!(version("apptainer version 1.4.5"), None);
    }

    #[test]
    fn a_path_may_hold_whatever_paths_hold() {
        let mount = |host: &str, read_only| bind(&Mount { host: host.into(), container: "/c".into(), read_only });
        assert_eq!(mount("/a b", true), ["--bind", "/a b:/c:ro"]);
        assert_eq!(mount("/a:b", false), ["--mount", "type=bind,\"source=/a:b\",destination=/c"]);
        assert_eq!(mount("/a,b\"c", true), ["--mount", "type=bind,\"source=/a,b\"\"c\",destination=/c,ro"]);
    }
}
