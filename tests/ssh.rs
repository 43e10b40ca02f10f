//! `mnist cube` with a platform on another machine: a real OpenSSH server on loopback, whose wire can be cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cube::Cube;
use crate::common::sshd::Sshd;
use crate::common::{Ended, end, skipped};

mod by_tar;
mod full_disk;
mod job;
mod killed;
mod outputs;
mod single;

const PLATFORM: &str =
    "schema_version: 1.0.0\nschema_type: mlcube_ssh\nhost: far\nauthentication: {}\nplatform: native.yaml\n";
const TRAIN: &str = "run --platform=ssh --task=train";

/// A cube with data, and a machine to run it on.
struct Far {
    cube: Cube,
    sshd: Sshd,
}

impl Far {
    fn new() -> Option<Self> {
        Self::with("")
    }

    /// With `environment` for the sessions there.
    fn with(environment: &str) -> Option<Self> {
        let cube = Cube::new();
        mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
        cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
        cube.write("platforms/ssh.yaml", PLATFORM);
        let sshd = Sshd::start(&cube.sandbox, environment)?;
        Some(Self { cube, sshd })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.cube.command(line);
        command.env("PATH", self.sshd.path());
        command
    }

    fn run(&self, line: &str) -> Ended {
        end(&mut self.command(line))
    }

    /// Makes the next training one of a single epoch.
    fn short_training(&self) {
        self.cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
    }

    fn long_training(&self) -> Child {
        self.long(TRAIN, 100)
    }

    /// Starts a training of many epochs in so many seconds, and waits for the first.
    fn long(&self, line: &str, seconds: u32) -> Child {
        let parameters = format!("train_epochs: 100000\nhidden_layers: [16]\nmax_seconds: {seconds}\n");
        self.cube.write("workspace/parameters/default.parameters.yaml", parameters);
        let log = fs::File::create(self.cube.sandbox.path("stderr")).unwrap();
        let child = self.command(line).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.waits_for("stderr", "epoch 2/");
        child
    }

    #[track_caller]
    fn waits_for(&self, file: &str, text: &str) {
        let begin = Instant::now();
        let read = || fs::read_to_string(self.cube.sandbox.path(file)).unwrap_or_default();
        while !read().contains(text) {
            assert!(begin.elapsed() < Duration::from_secs(60), "no {text} in {}", read());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The directory of the cube on the other machine.
    fn base(&self) -> PathBuf {
        let cubes: Vec<_> = fs::read_dir(self.cube.sandbox.path("far home/mlcube/cubes")).unwrap().collect();
        assert_eq!(cubes.len(), 1);
        cubes.into_iter().next().unwrap().unwrap().path()
    }

    /// Ends the task that runs there, as one ends by itself.
    fn end_there(&self) {
        let base = self.base();
        let pids = end(Command::new("pgrep").args(["-f", &format!("{}.* train ", base.display())]));
        for pid in pids.stdout.lines() {
            let _ = Command::new("kill").args(["-INT", pid]).status(); // one may have ended with another
        }
        let begin = Instant::now();
        while !base.join("job/code").exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The files in an output directory, without hidden ones.
    fn outputs(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        contents(Path::new(&self.cube.workspace(name)))
    }
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let named = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()));
    named.filter(|(name, _)| !name.starts_with('.')).collect()
}

/// Ends the children of a test that fails.
fn ended(mut child: Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_task_on_another_machine_gives_the_same_model() {
    let Some(far) = Far::new() else { return };
    far.cube.run("run --platform=native --task=train").done();
    let expected = far.outputs("model")["model.safetensors"].clone();
    for (with_rsync, workspace) in [(true, "first"), (false, "second")] {
        if !with_rsync {
            far.sshd.program("rsync", "exit 1");
        }
        fs::remove_dir_all(far.cube.workspace("model")).unwrap();
        fs::remove_dir_all(far.cube.workspace("train_logs")).unwrap();
        let _ = fs::remove_dir_all(far.cube.workspace("evaluate_logs")); // of the first round
        let _ = fs::remove_dir_all(far.cube.sandbox.path("far home/mlcube"));
        let configured = far.run("configure --platform=ssh").done();
        assert!(configured.stderr.contains("far: sending this program\n"), "{workspace}: {configured:#?}");
        let ended = far.run(TRAIN).done();
        assert_eq!(far.outputs("model")["model.safetensors"], expected, "{workspace}");
        assert_eq!(far.outputs("model").len(), 5, "{:?}", far.outputs("model").keys());
        assert!(Path::new(&far.cube.workspace("train_logs/train")).is_dir());
        // Its results and its log, with the names of this machine.
        assert!(ended.stderr.contains("epoch 1/1: "), "{ended:#?}");
        let model = far.cube.workspace("model/model.safetensors");
        assert!(ended.stdout.contains(&model), "{ended:#?}");
        assert!(!ended.stdout.contains("far home"), "{ended:#?}");
        // Inputs stay there, nothing waits there, and nothing is left here.
        let names: Vec<String> = far.cube.sandbox.files("the cube/workspace");
        assert_eq!(names, ["data", "model", "parameters", "train_logs"]);
        assert!(!far.base().join("job/about.json").exists());
        far.run("run --platform=ssh --task=evaluate").done();
        assert!(far.outputs("evaluate_logs").contains_key("metrics.json"));
    }
}

#[test]
fn a_path_beside_the_workspace_is_that_machines_own() {
    let Some(far) = Far::new() else { return };
    let text = far.cube.sandbox.read("the cube/run/train.yaml");
    far.cube.write("run/train.yaml", text.replace("$WORKSPACE/data", "$WORKSPACE/../beside"));
    fs::rename(far.cube.workspace("data"), far.cube.sandbox.path("the cube/beside")).unwrap();
    far.run(TRAIN).done();
    assert!(far.outputs("model").contains_key("model.safetensors"));
    let beside: Vec<_> = ["cube/beside", "beside", "cube/workspace/beside"].map(|name| far.base().join(name)).into();
    assert!(beside.iter().all(|path| !path.exists()), "it was sent");
}

#[test]
fn only_what_has_changed_is_sent() {
    for with_rsync in [true, false] {
        let Some(far) = Far::new() else { return };
        if !with_rsync {
            far.sshd.program("rsync", "exit 1");
        }
        far.cube.write("run/old.yaml", fs::read(far.cube.sandbox.path("the cube/run/train.yaml")).unwrap());
        far.run(TRAIN).done();
        assert!(far.base().join("cube/run/old.yaml").exists());
        let first = far.outputs("model");
        fs::remove_file(far.cube.sandbox.path("the cube/run/old.yaml")).unwrap();
        far.cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 2\nhidden_layers: [16]\n");
        let before = far.sshd.wire.bytes();
        let ended = far.run(TRAIN).done();
        assert!(with_rsync || ended.stderr.contains("far: the inputs: 1 file sent, 4 there\n"), "{ended:#?}");
        let sent = far.sshd.wire.bytes() - before;
        println!("a second run after a change of one parameter: {sent} bytes, rsync {with_rsync}");
        assert!(sent < 400_000, "{sent} bytes"); // the model that comes back has 140 kB
        assert_ne!(far.outputs("model")["model.safetensors"], first["model.safetensors"]);
        assert!(!far.base().join("cube/run/old.yaml").exists());
    }
}

#[test]
fn the_files_of_an_earlier_run_go_and_those_of_the_user_stay() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(ended(child), Some(130), "{}", far.cube.sandbox.read("stderr"));
    // The far task was told, and what it had is here.
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("far: stopping task train\n"), "{stderr}");
    assert!(stderr.ends_with("error: stopped by SIGINT\n"), "{stderr}");
    assert!(far.outputs("model").contains_key("model.safetensors"), "{stderr}");
    far.cube.write("workspace/model/notes.txt", "mine");
    far.short_training();
    far.run(TRAIN).done();
    // A second one that is ended has a directory of its own, which the next whole run removes.
    let child = far.long_training();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(ended(child), Some(130));
    let unfinished = Path::new(&far.cube.workspace("model/unfinished")).to_path_buf();
    assert!(contents(&unfinished).contains_key("model.safetensors"), "{}", far.cube.sandbox.read("stderr"));
    far.short_training();
    far.run(TRAIN).done();
    assert!(!unfinished.exists(), "{:?}", contents(&unfinished).keys());
    assert_eq!(far.outputs("model")["notes.txt"], b"mine");
    assert_eq!(contents(&far.base().join("cube/workspace/model"))["model.onnx"], far.outputs("model")["model.onnx"]);
}

#[test]
fn the_exit_code_and_the_logs_of_a_failed_task_come_back() {
    let Some(far) = Far::new() else { return };
    // As the published runner's documentation has it, and with what a killed run left.
    far.cube.write("platforms/ssh.yaml", PLATFORM.replace("{}", "").replace("platform:", "interpreter:\nplatform:"));
    far.cube.write("workspace/.mlcube-brought-abc/.mnist-lock", "process 1 on elsewhere");
    far.cube.write("workspace/.mlcube-brought-abc/model_dir/model.onnx", "half of it");
    // These are a user's.
    far.cube.write("workspace/.mlcube-brought/model_dir/model.onnx", "mine");
    far.cube.write("workspace/.mlcube-brought-mine/model.onnx", "mine");
    fs::remove_file(far.cube.workspace("data/train-images-idx3-ubyte")).unwrap();
    let ended = far.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let missing = format!("error: {}: train-images-idx3-ubyte is missing", far.cube.workspace("data"));
    assert!(ended.stderr.contains(&missing), "{ended:#?}");
    assert!(ended.stderr.ends_with("error: task train: exit status: 1\n"), "{ended:#?}");
    let log = fs::read_to_string(far.cube.workspace("train_logs/mlcube_mnist_train.log")).unwrap();
    assert!(log.contains("is missing"), "{log}");
    let left = far.cube.sandbox.files("the cube/workspace");
    assert_eq!(left, [".mlcube-brought", ".mlcube-brought-mine", "data", "parameters", "train_logs"]);
    assert!(Path::new(&far.cube.workspace(".mlcube-brought/model_dir/model.onnx")).exists());
}

#[test]
fn a_task_whose_connection_is_lost_goes_on_and_is_taken_up() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    far.sshd.wire.cut();
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    let lost = "error: far: lost the connection; task train goes on there\nhint: take it up again with the same command and \
                --attach; Ctrl-C then stops it\n";
    assert!(stderr.ends_with(lost), "{stderr}");
    assert!(far.outputs("model").is_empty());
    // A second task has to wait.
    let busy = format!(
        "far: task train runs there already, in {}\nhint: take it up with its own command and --attach; Ctrl-C then \
         stops it",
        far.base().join("job").display()
    );
    far.run(TRAIN).failed_with(&busy);
    far.run("run --platform=ssh --task=evaluate --attach").failed_with(&busy);
    let log = fs::File::create(far.cube.sandbox.path("again")).unwrap();
    let child = far.command(&format!("{TRAIN} --attach")).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    far.waits_for("again", "epoch 2/"); // from the beginning
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(ended(child), Some(143), "{}", far.cube.sandbox.read("again"));
    assert!(far.outputs("model").contains_key("model.safetensors"));
    far.run(&format!("{TRAIN} --attach"))
        .failed_with("--attach: expected a task that runs on another machine, found none");
    let ended = far.cube.run("run --platform=native --task=train --attach");
    assert_eq!(ended.code, Some(2), "{ended:#?}");
}

#[test]
fn a_connection_cut_at_any_moment_loses_nothing() {
    let Some(far) = Far::new() else { return };
    let parameters = |epochs| {
        let text = format!("train_epochs: {epochs}\nhidden_layers: [16]\n");
        far.cube.write("workspace/parameters/default.parameters.yaml", text);
    };
    far.run(TRAIN).done();
    parameters(2);
    let before = far.sshd.wire.bytes();
    far.run(TRAIN).done();
    // Of a run such as those that follow.
    let whole = far.sshd.wire.bytes() - before;
    let mut old = far.outputs("model");
    let moments = 10;
    for moment in 0..moments {
        parameters(moment + 3);
        far.sshd.wire.cut_after(whole * moment / (moments + 1) + 1);
        let cut = far.run(TRAIN);
        far.sshd.wire.cut_after(u64::MAX / 2);
        assert_eq!(cut.code, Some(1), "{moment}: {cut:#?}");
        assert!(cut.stderr.contains("error: far: "), "{moment}: {cut:#?}");
        println!("{moment}: {}", cut.stderr.lines().find(|line| line.starts_with("error: ")).unwrap());
        assert_eq!(far.outputs("model"), old, "{moment}: the old files are whole");
        // Taken up, or begun again.
        let again = far.run(&format!("{TRAIN} --attach"));
        let again = if again.code == Some(0) { again } else { far.run(TRAIN) };
        again.done();
        let new = far.outputs("model");
        let epochs: serde_json::Value = serde_json::from_slice(&new["metrics.json"]).unwrap();
        assert_eq!(epochs["epochs"].as_array().unwrap().len() as u64, moment + 3, "{moment}");
        assert_eq!(new.len(), old.len(), "{moment}");
        assert_ne!(new["model.safetensors"], old["model.safetensors"], "{moment}");
        let hidden: Vec<String> = far.cube.sandbox.files("the cube/workspace");
        assert_eq!(hidden, ["data", "model", "parameters", "train_logs"], "{moment}");
        old = new;
    }
}

#[test]
fn a_task_that_is_to_end_with_its_connection_does() {
    let Some(far) = Far::with("MLCUBE_PATIENCE_SECONDS=8") else { return };
    far.cube.write("platforms/ssh.yaml", format!("{PLATFORM}lost_connection: stop\n"));
    let child = far.long_training();
    // As long as somebody listens, it goes on.
    thread::sleep(Duration::from_secs(12));
    assert!(!far.base().join("job/code").exists());
    far.sshd.wire.cut();
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("error: far: lost the connection; task train is stopped there in a minute\n"), "{stderr}");
    let begin = Instant::now();
    while !far.base().join("job/code").exists() {
        assert!(begin.elapsed() < Duration::from_secs(40), "it goes on");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read_to_string(far.base().join("job/code")).unwrap(), "143");
    // What it had then is there.
    let again = far.run(&format!("{TRAIN} --attach"));
    assert_eq!(again.code, Some(143), "{again:#?}");
    assert!(far.outputs("model").contains_key("model.safetensors"), "{again:#?}");
}

#[test]
fn a_cluster_behind_another_machine_gives_the_same_model() {
    let Some(cluster) =
        std::env::var_os("SLURM_CONF").filter(|_| Command::new("srun").arg("--version").output().is_ok())
    else {
        return skipped("SLURM_CONF names no cluster");
    };
    let Some(far) = Far::with(&format!("SLURM_CONF={}", Path::new(&cluster).display())) else { return };
    far.cube.run("run --platform=native --task=train").done();
    let expected = far.outputs("model")["model.safetensors"].clone();
    fs::remove_dir_all(far.cube.workspace("model")).unwrap();
    far.cube.write("platforms/ssh.yaml", PLATFORM.replace("native.yaml", "slurm.yaml"));
    let slurm = "schema_version: 1.0.0\nschema_type: mlcube_slurm\nplatform: native.yaml\ntime: \"00:05:00\"\n";
    far.cube.write("platforms/slurm.yaml", slurm);
    far.run("configure --platform=ssh").done();
    let run = far.run(TRAIN).done();
    assert!(run.stderr.contains("epoch 1/1: ") && run.stdout.contains("test accuracy"), "{run:#?}");
    assert_eq!(far.outputs("model")["model.safetensors"], expected);
    // A signal goes all the way, and the model of the last whole epoch comes back.
    let child = far.long_training();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(ended(child), Some(130), "{}", far.cube.sandbox.read("stderr"));
    let unfinished = Path::new(&far.cube.workspace("model/unfinished")).to_path_buf();
    assert!(contents(&unfinished).contains_key("model.safetensors"), "{}", far.cube.sandbox.read("stderr"));
    let jobs = || end(Command::new("squeue").args(["--noheader", "--format=%j"])).done().stdout;
    let begin = Instant::now();
    while jobs().contains("mlcube_train_") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", jobs());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn outputs_that_wait_there_are_brought_before_the_next_task() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    far.sshd.wire.cut();
    assert_eq!(ended(child), Some(1));
    // Its task ends while nobody listens.
    let pids = end(Command::new("pgrep").args(["-f", &format!("{}.* train ", far.base().display())])).stdout;
    for pid in pids.lines() {
        let _ = Command::new("kill").args(["-INT", pid]).status(); // one may have ended with another
    }
    let begin = Instant::now();
    while !far.base().join("job/code").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(far.outputs("model").is_empty());
    far.short_training();
    let ended = far.run("run --platform=ssh --task=download"); // no network: it fails, after that
    assert!(ended.stderr.contains("far: task train has ended there; first its outputs are brought\n"), "{ended:#?}");
    assert!(far.outputs("model").contains_key("model.safetensors"));
}

#[test]
fn what_keeps_one_out_is_named() {
    let Some(far) = Far::new() else { return };
    let with = |from: &str, to: &str| far.cube.write("platforms/ssh.yaml", PLATFORM.replace(from, to));
    with("host: far", "host: no-such-host.invalid");
    let ended = far.run(TRAIN);
    assert!(
        ended.stderr.contains("error: no-such-host.invalid: cannot connect: ssh: Could not resolve hostname"),
        "{ended:#?}"
    );
    assert!(ended.stderr.contains("hint: see `host` in the platform file"), "{ended:#?}");
    let key = far.cube.sandbox.path("ssh/host").display().to_string();
    with("{}", &format!("{{user: nobody-{}, identify_file: {key}}}", std::process::id()));
    let ended = far.run(TRAIN);
    assert!(ended.stderr.contains("Permission denied"), "{ended:#?}");
    assert!(ended.stderr.contains("@far true` must work"), "{ended:#?}");
    with("", "");
    far.sshd.knows("");
    let ended = far.run(TRAIN);
    assert!(ended.stderr.contains("far: cannot connect: Host key verification failed."), "{ended:#?}");
    assert!(ended.stderr.contains("hint: connect once by hand with ssh"), "{ended:#?}");
    far.sshd.knows(&far.cube.sandbox.read("ssh/user.pub"));
    let ended = far.run(TRAIN);
    assert!(ended.stderr.contains("Host key verification failed. The key of this host has changed"), "{ended:#?}");
    assert!(ended.stderr.contains("hint: ask who runs that machine"), "{ended:#?}");
    end(far.cube.command(TRAIN).env("PATH", far.cube.sandbox.path("bin")))
        .failed_with("ssh: expected this program in PATH, found none\nhint: install OpenSSH's client");
    assert!(far.outputs("model").is_empty() && !far.cube.sandbox.path("far home/mlcube").exists());
}

#[test]
fn a_machine_of_another_kind_is_named_and_may_have_its_own_program() {
    let Some(far) = Far::with("PATH=/nonexistent/first:/usr/bin:/bin") else { return };
    drop(far);
    let cube = crate::common::Sandbox::new();
    cube.write("uname", "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo riscv64\n");
    make_runnable(&cube.path("uname"));
    let Some(far) = Far::with(&format!("PATH={}:/usr/bin:/bin", cube.path("").display())) else { return };
    far.run(TRAIN).failed_with(
        "far: cannot run this program there: expected linux on x86_64, found linux on riscv64\nhint: build mnist there, or \
         bring a program that runs there, and name it in the platform file as `program`; the one of the release archive \
         runs on any Linux on x86-64 since 2014",
    );
    let program = env!("CARGO_BIN_EXE_mnist");
    far.cube.write(
        "platforms/ssh.yaml",
        format!("{PLATFORM}program: {program}\ninterpreter: {{type: system, python: python3}}\n"),
    );
    let ended = far.run(TRAIN).done();
    assert!(ended.stderr.contains("`interpreter` is ignored: this program needs none\n"), "{ended:#?}");
    assert!(!far.base().join("bin").exists());
}

#[test]
fn a_shell_there_that_prints_is_named() {
    let Some(far) = Far::new() else { return };
    far.sshd.program("ssh", "echo 'Welcome to far!'; exec /usr/bin/ssh -F \"$(dirname \"$0\")/../config\" \"$@\"");
    far.run(TRAIN).failed_with(
        "far: expected only the output of commands, found \"Welcome to far!\" of its shell\nhint: let its startup file, such \
         as ~/.bashrc there, print only to a terminal: begin it with `[ -t 1 ] || return`",
    );
}

fn make_runnable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
