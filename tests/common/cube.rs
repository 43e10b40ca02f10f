//! A copy of our cube, and scripts in place of docker and singularity.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{Ended, Sandbox, end};

/// The YAML files of our cube, from its root.
pub fn files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec!["mlcube.yaml".to_owned(), "mlcube-2.0.yaml".to_owned()];
    let mut directories: Vec<_> =
        ["tasks", "run", "platforms", "workspace/parameters"].map(|directory| root.join(directory)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// A docker that writes its arguments down, one a line. It has the image once there is a file `image`, with its settings.
pub const DOCKER: &str = r#"case "$1 $2" in
version*) echo 28.2.2 ;;
info*) echo '["name=seccomp"]' ;;
"image inspect") cat "$HERE/image" ;;
build*) printf '%s\n' "$@" >"$HERE/build"; touch "$HERE/image" ;;
rm*) printf '%s\n' "$@" >"$HERE/removed" ;;
run*) printf '%s\n' "$@" >"$HERE/run"; env >"$HERE/environment" ;;
esac"#;

pub const SINGULARITY: &str = r#"case "$1" in
--version) echo singularity version 3.8.7 ;;
inspect) cat "$HERE/labels" ;;
build) printf '%s\n' "$PWD" "$@" >"$HERE/build"; while [ $# -gt 2 ]; do shift; done; echo image >"$1" ;;
run) printf '%s\n' "$@" >"$HERE/run"; env >"$HERE/environment" ;;
esac"#;

/// A sudo that asks for a password once, forgets the environment, and runs the rest in a session of its own, where no signal of
/// the caller's arrives.
pub const SUDO: &str = r#"case "$1" in --validate) touch "$HERE/validated"; exit ;; esac
[ "$1" = --non-interactive ] && [ -e "$HERE/validated" ] || { echo 'sudo: a password is required' >&2; exit 1; }
shift
kept=
case "$1" in --preserve-env=*) kept=,${1#*=},; shift ;; esac
case $kept in *,https_proxy,*) ;; *) unset https_proxy ;; esac
exec setsid --wait "$@""#;

/// A cube in a directory whose name has a space, with programs of its own in PATH.
pub struct Cube {
    pub sandbox: Sandbox,
}

impl Cube {
    /// Our own cube's files.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let cube = Self { sandbox };
        for file in files() {
            cube.write(&file, fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap());
        }
        cube.write("build/Dockerfile", "");
        cube.write("build/Singularity.recipe", "");
        fs::create_dir_all(cube.sandbox.path("bin")).unwrap();
        fs::create_dir_all(cube.sandbox.path("the cube/workspace/data")).unwrap();
        cube
    }

    /// With an image that was built before.
    pub fn has_image(&self) {
        self.sandbox.write("image", r#"{"Labels":{"mlcube.mnist.program":"native"}}"#);
    }

    /// With `script` as `program`.
    pub fn with(self, program: &str, script: &str) -> Self {
        let file = self.sandbox.path("bin").join(program);
        let here = self.sandbox.path("");
        fs::write(&file, format!("#!/bin/sh\nHERE='{}'\n{script}\n", here.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub fn write(&self, file: &str, contents: impl AsRef<[u8]>) {
        let path = self.sandbox.path("the cube").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// `mnist cube ARGUMENTS`, split at spaces, in the cube.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = self.sandbox.program();
        let path = format!("{}:/usr/bin:/bin", self.sandbox.path("bin").display());
        command.arg("cube").args(arguments.split_whitespace()).env("PATH", path);
        command.current_dir(self.sandbox.path("the cube"));
        command
    }

    pub fn run(&self, arguments: &str) -> Ended {
        end(&mut self.command(arguments))
    }

    /// The lines that a program wrote into the file `name`.
    pub fn wrote(&self, name: &str) -> Vec<String> {
        self.sandbox.read(name).lines().map(String::from).collect()
    }

    /// The absolute path of something in the workspace.
    pub fn workspace(&self, name: &str) -> String {
        self.sandbox.path("the cube/workspace").join(name).display().to_string()
    }
}

/// A docker that appends its arguments to `calls`, one a line, with `END` after each call that does something. It has the
/// image once there is a file `image`.
pub const RECORDING_DOCKER: &str = r#"case "$1 $2" in
version*) echo 28.2.2; exit ;;
info*) echo '["name=seccomp"]'; exit ;;
"image inspect"|inspect*) case "$*" in *.Id*) echo sha256:0f0f ;; *) cat "$HERE/image" ;; esac; exit ;;
esac
printf '%s\n' "$@" END >>"$HERE/calls"
case "$1" in pull|build) echo null >"$HERE/image" ;; run) [ ! -e "$HERE/fails" ] || exit "$(cat "$HERE/fails")" ;; esac"#;

/// The same for singularity, which makes an image.
pub const RECORDING_SINGULARITY: &str = r#"case "$1" in
--version) echo singularity version 3.8.7; exit ;;
inspect) echo '{}'; exit ;;
esac
printf '%s\n' "$@" END >>"$HERE/calls"
if [ "$1" = build ]; then while [ $# -gt 2 ]; do shift; done; echo image >"$1"; fi"#;

/// A cube of one file, in the directory `cube`, with recording programs in PATH.
pub struct OneFileCube {
    pub sandbox: Sandbox,
}

impl OneFileCube {
    /// With `yaml` as mlcube.yaml, and `files` in its workspace.
    pub fn new(yaml: &str, files: &[&str]) -> Self {
        let cube = Self { sandbox: Sandbox::new() };
        cube.program("docker", RECORDING_DOCKER);
        cube.program("singularity", RECORDING_SINGULARITY);
        cube.write("mlcube.yaml", yaml);
        fs::create_dir_all(cube.sandbox.path("cube/workspace")).unwrap();
        for file in files {
            cube.write(&format!("workspace/{file}"), "");
        }
        cube
    }

    /// With `script` as `program`.
    pub fn program(&self, program: &str, script: &str) {
        let file = self.sandbox.path("bin").join(program);
        fs::create_dir_all(self.sandbox.path("bin")).unwrap();
        fs::write(&file, format!("#!/bin/sh\nHERE='{}'\n{script}\n", self.sandbox.path("").display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn write(&self, file: &str, contents: impl AsRef<[u8]>) {
        let path = self.sandbox.path("cube").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// `command` in the cube's directory, with the recording programs.
    pub fn in_place(&self, command: &mut Command) -> Ended {
        let path = format!("{}:/usr/bin:/bin", self.sandbox.path("bin").display());
        command.env("PATH", path).env("MLCUBE_SYSTEM_SETTINGS", self.sandbox.path("settings.yaml"));
        end(command.current_dir(self.sandbox.path("cube")))
    }

    /// `mnist cube ARGUMENTS`, split at spaces.
    pub fn run(&self, arguments: &str) -> Ended {
        let mut command = self.sandbox.program();
        self.in_place(command.arg("cube").args(arguments.split_whitespace()))
    }

    /// The calls of the recording programs so far, which are forgotten.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.sandbox.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.sandbox.path("calls"));
        let calls = text.split_terminator("END\n");
        calls.map(|call| call.lines().map(String::from).collect()).collect()
    }

    /// The absolute path of something in the workspace.
    pub fn workspace(&self, name: &str) -> String {
        self.sandbox.path("cube/workspace").join(name).display().to_string()
    }
}
