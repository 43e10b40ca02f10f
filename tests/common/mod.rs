//! Shared by all tests: a directory for each test, a small data set, the program with a known environment.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mnist::data::synthetic;
use mnist::engine;
use mnist::model::file::Model;
use mnist::output::tensorboard;
use serde_json::Value;

pub mod cube;
pub mod server;
pub mod sshd;
pub mod terminal;

/// A directory for one test.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The network of these tests: small, so that an epoch takes milliseconds.
pub const PARAMETERS: &str = "optimizer: adam\ntrain_epochs: 1\nbatch_size: 32\nhidden_layers: [16]\n";

/// A training in a [`Sandbox::with_data`], with the flags of MLCube's documentation.
pub const TRAIN: &str = "train --data_dir=data --log_dir=logs --model_dir=model --parameters_file=parameters.yaml";

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Sandbox {
    /// An empty directory.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A directory with 300 training and 100 test digits in `data` and a `parameters.yaml`.
    pub fn with_data() -> Self {
        let sandbox = Self::new();
        fs::create_dir(sandbox.path("data")).unwrap();
        synthetic::write(&sandbox.path("data"), 300, 100).unwrap();
        sandbox.write("parameters.yaml", PARAMETERS);
        sandbox
    }

    /// The path of `name` in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// The text of a file in it.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The `metrics.json` in `directory`.
    #[track_caller]
    pub fn metrics(&self, directory: &str) -> Value {
        serde_json::from_str(&self.read(&format!("{directory}/metrics.json"))).unwrap()
    }

    /// The bytes of the model in MODEL_DIR.
    #[track_caller]
    pub fn model(&self) -> Vec<u8> {
        fs::read(self.path("model/model.safetensors")).unwrap()
    }

    /// The program, set to run in it, without the proxies and mirrors of this environment.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mnist"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.env_remove("MNIST_MIRROR").env_remove("CARGO");
        command
    }

    /// Runs the program with `arguments`, split at spaces.
    pub fn run(&self, arguments: &str) -> Ended {
        end(self.program().args(arguments.split_whitespace()))
    }

    /// Trains by [`TRAIN`], with `more` flags.
    pub fn train(&self, more: &str) -> Ended {
        self.run(&format!("{TRAIN} {more}"))
    }

    /// The names of all files below `directory`, with hidden ones, sorted. Of event files only the common beginning.
    pub fn files(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = match fs::read_dir(self.path(directory)) {
            Ok(entries) => entries.map(|entry| stable(entry.unwrap().file_name().into_string().unwrap())).collect(),
            Err(_) => vec![],
        };
        names.sort();
        names
    }
}

/// The name of a file without time, host and process.
fn stable(name: String) -> String {
    if name.starts_with(tensorboard::PREFIX) { tensorboard::PREFIX.into() } else { name }
}

/// Copies the program of this build. By a process of its own: if this one wrote the copy, a test beside that starts a program
/// would pass it on open, and nobody could run it ("Text file busy").
pub fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_mnist")).arg(to).status().unwrap().success());
}

/// Runs `command` to its end.
pub fn end(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Expects success.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Expects exit code 1 and this error, to the letter, the hint included.
    #[track_caller]
    pub fn failed_with(&self, message: &str) {
        let (_, error) = self.stderr.split_once("error: ").unwrap_or_else(|| panic!("no error in {self:#?}"));
        assert_eq!((error.trim_end(), self.code), (message, Some(1)));
    }
}

/// The logits (N,K) of `model` for `pixels` (N,D), by the engine that the program takes.
pub fn logits(model: &Model, pixels: &[u8]) -> Vec<f32> {
    let mut engine = engine::choice::network(&model.shape, &model.parameters).unwrap();
    engine.logits(pixels).unwrap()
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// The directory of the real MNIST, if the environment variable MNIST_TEST_DATA names one.
pub fn real_mnist() -> Option<PathBuf> {
    let found = std::env::var_os("MNIST_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        skipped("no real MNIST; set MNIST_TEST_DATA to a directory with its four files");
    }
    found
}

/// Makes a pipe with a name, to which nobody writes.
pub fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// `bytes`, gzipped.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// A small file system, mounted until this is dropped.
pub struct Mount(PathBuf);

/// Mounts a tmpfs at `path` with `options`; none if this user may not mount.
pub fn tmpfs(path: &Path, options: &str) -> Option<Mount> {
    fs::create_dir(path).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
    if mount.is_ok_and(|output| output.status.success()) {
        return Some(Mount(path.to_path_buf()));
    }
    skipped(&format!("this user may not mount a file system ({options})"));
    None
}

impl Mount {
    /// Makes the file system read-only.
    pub fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A GPU, or a software renderer such as that of Debian's package mesa-vulkan-drivers.
#[cfg(feature = "gpu")]
pub fn any_adapter() -> Option<mnist::engine::adapter::Adapter> {
    let found = mnist::engine::adapter::list().into_iter().next();
    if found.is_none() {
        skipped("no GPU and no software Vulkan; install mesa-vulkan-drivers");
    }
    found
}

/// So many GPUs of one kind: a software renderer, opened several times.
#[cfg(feature = "gpu")]
pub fn several_adapters(number: usize) -> Option<Vec<mnist::engine::adapter::Adapter>> {
    use mnist::engine::adapter;
    use mnist::engine::choice::{AdapterChoice, GpuCount};
    let Some(software) = adapter::list().into_iter().find(|adapter| adapter.number.is_none()) else {
        skipped("no software Vulkan; install mesa-vulkan-drivers");
        return None;
    };
    Some(adapter::choose(&AdapterChoice::Named(software.name), GpuCount::Number(number)).unwrap())
}

/// The lines on the standard error of a program, until one that has `sign` in it.
#[track_caller]
pub fn lines_until(stderr: &mut impl BufRead, sign: &str) -> String {
    let mut lines = String::new();
    while !lines.contains(sign) {
        assert!(stderr.read_line(&mut lines).unwrap() > 0, "the program ended before it said {sign}: {lines}");
    }
    lines
}

/// strace in front of the program, with these options; none where it cannot trace.
pub fn traced(sandbox: &Sandbox, options: &[&str], arguments: &str) -> Option<Command> {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|out| out.status.success());
    if !works {
        skipped("strace is not installed or may not trace");
        return None;
    }
    let program = sandbox.program();
    let mut command = Command::new("strace");
    command.current_dir(program.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["-f", "-qqq", "-o", "/dev/null"]).args(options).arg(program.get_program());
    command.args(arguments.split_whitespace());
    Some(command)
}

/// Prints that a test checked nothing, and why. The test runner does not capture this.
pub fn skipped(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A Python that can import `modules`: `MNIST_TEST_PYTHON`, or `python3` on the PATH.
pub fn python_with(modules: &[&str]) -> Option<Command> {
    let python = std::env::var_os("MNIST_TEST_PYTHON").unwrap_or("python3".into());
    let import = format!("import {}", modules.join(", "));
    let found = Command::new(&python).args(["-W", "ignore", "-c", &import]).output();
    if found.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new(python);
        command.args(["-W", "ignore"]);
        return Some(command);
    }
    skipped(&format!("no Python with {}; see tests/python/README.md", modules.join(", ")));
    None
}

/// Checks manifests by Kubernetes' own schemas; returns the number of documents as a line. None without the Python package.
pub fn valid_kubernetes_documents(file: &Path) -> Option<String> {
    let mut python = python_with(&["kubernetes_validate", "yaml"])?;
    let script = "import sys, yaml, kubernetes_validate as k\n\
                  documents = list(yaml.safe_load_all(open(sys.argv[1])))\n\
                  for document in documents: k.validate(document, k.latest_version(), strict=True)\n\
                  print(len(documents))";
    Some(end(python.arg("-c").arg(script).arg(file)).done().stdout)
}
