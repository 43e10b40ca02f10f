//! Kills `train` and `download` at every system call that changes a directory or syncs a file, fills the disk at every
//! write, takes away what some file systems lack, and looks at what is left. The calls are reached with strace.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{Ended, Sandbox, end, real_mnist, traced};
use mnist::files::lock;
use mnist::files::set::JOURNAL;
use mnist::output::artifacts;
use mnist::sha256;
use serde_json::Value;

/// The system calls between which a directory may hold something unfinished.
const POINTS: [&str; 6] = ["rename", "unlink", "fsync", "mkdir", "flock", "openat"];

const TRAIN: &str =
    "train --data_dir=data --log_dir=logs --model_dir=model --parameters_file=parameters.yaml --threads=1";

/// How often the program makes the system call `name`.
fn calls(sandbox: &Sandbox, name: &str, arguments: &str) -> Option<usize> {
    let list = sandbox.path("trace");
    let filter = format!("trace={name}");
    let options = ["-e", &filter, "-o", list.to_str().unwrap()];
    end(&mut traced(sandbox, &options, arguments)?).done();
    let count = fs::read_to_string(&list).unwrap().lines().filter(|line| line.contains(&format!("{name}("))).count();
    fs::remove_file(list).unwrap();
    Some(count)
}

/// The hash of the model in `directory`, whose other files must name it.
#[track_caller]
fn whole_set(directory: &Path) -> String {
    let model = sha256::of(fs::read(directory.join("model.safetensors")).unwrap());
    for name in artifacts::names().skip(1) {
        if let Ok(bytes) = fs::read(directory.join(name)) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("model_sha256") && text.contains(&model), "{name} is not of the model beside it");
        }
    }
    model
}

/// Ends the renames that the journal lists, as the program does, but on a copy.
fn as_the_next_command_sees_it(directory: &Path, copy: &Path) {
    let _ = fs::remove_dir_all(copy);
    copy_all(directory, copy);
    let Ok(journal) = fs::read(copy.join(JOURNAL)) else { return };
    let journal: Value = serde_json::from_slice(&journal).expect("a journal is written whole");
    for pair in journal["rename"].as_array().unwrap() {
        let [first, last] = [0, 1].map(|at| copy.join(pair[at].as_str().unwrap()));
        if first.exists() {
            fs::rename(first, last).unwrap();
        }
    }
    for name in journal["remove"].as_array().unwrap() {
        let _ = fs::remove_file(copy.join(name.as_str().unwrap()));
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A sandbox with a trained model, and what a training with another seed makes of it.
struct Training {
    sandbox: Sandbox,
    old: String,
    new: String,
}

impl Training {
    fn new() -> Self {
        let sandbox = Sandbox::with_data();
        sandbox.run(&format!("{TRAIN} --seed=2")).done();
        let new = whole_set(&sandbox.path("model"));
        sandbox.run(&format!("{TRAIN} --seed=1")).done();
        let old = whole_set(&sandbox.path("model"));
        copy_all(&sandbox.path("model"), &sandbox.path("before"));
        Self { sandbox, old, new }
    }

    /// The old model again, in a directory without traces of an attempt.
    fn reset(&self) {
        for directory in ["model", "logs"] {
            let _ = fs::remove_dir_all(self.sandbox.path(directory));
        }
        copy_all(&self.sandbox.path("before"), &self.sandbox.path("model"));
    }

    /// Holds what an attempt left against the promise: MODEL_DIR is the old set or the new one; the next command ends
    /// well; the next training gives the bytes of an undisturbed one and leaves no traces.
    #[track_caller]
    fn check(&self, attempt: &str) {
        let sandbox = &self.sandbox;
        as_the_next_command_sees_it(&sandbox.path("model"), &sandbox.path("copy"));
        let found = whole_set(&sandbox.path("copy"));
        assert!(found == self.old || found == self.new, "{attempt}: neither the old model nor the new one");
        let evaluated = sandbox.run("evaluate --data_dir=data --log_dir=logs2 --model_dir=model").done();
        assert!(!evaluated.stderr.contains("made from another model"), "{attempt}: {evaluated:#?}");
        let metrics = sandbox.metrics("logs2");
        assert_eq!(metrics["model_sha256"], found, "{attempt}");
        sandbox.run(&format!("{TRAIN} --seed=2")).done();
        assert_eq!(whole_set(&sandbox.path("model")), self.new, "{attempt}");
        let mut expected: Vec<_> = artifacts::names().collect();
        expected.sort();
        let left: Vec<_> = sandbox.files("model").into_iter().filter(|name| !name.contains(".kept")).collect();
        assert_eq!(left, expected, "{attempt}");
        let mut logs = sandbox.files("logs");
        logs.retain(|name| !name.contains(".kept"));
        assert_eq!(logs, ["mlcube_mnist_train.log", "mllog_train.log", "test", "train"], "{attempt}");
    }
}

#[test]
fn a_kill_at_any_point_of_a_training_leaves_the_old_set_or_the_new_one() {
    let training = Training::new();
    let train = format!("{TRAIN} --seed=2");
    for point in POINTS {
        training.reset();
        let Some(count) = calls(&training.sandbox, point, &train) else { return };
        // Files are opened hundreds of times before the first output.
        for nth in (1..=count).step_by(if point == "openat" { 7 } else { 1 }) {
            training.reset();
            let inject = format!("inject={point}:signal=KILL:when={nth}");
            let Some(mut command) = traced(&training.sandbox, &["-e", &inject], &train) else { return };
            let killed = command.output().unwrap().status;
            assert!(killed.signal() == Some(9) || killed.code() == Some(0), "{inject}: {killed}");
            training.check(&inject);
        }
    }
}

#[test]
fn a_disk_that_fills_up_or_fails_at_any_point_leaves_the_old_set_or_the_new_one() {
    let training = Training::new();
    let train = format!("{TRAIN} --seed=2");
    for (point, error, also_after) in [
        ("write", "ENOSPC", "+"),
        ("write", "ENOSPC", ""),
        ("fsync", "EIO", ""),
        ("rename", "ENOSPC", ""),
        ("rename", "EACCES", "+"),
    ] {
        training.reset();
        let Some(count) = calls(&training.sandbox, point, &train) else { return };
        for nth in 1..=count {
            training.reset();
            let inject = format!("inject={point}:error={error}:when={nth}{also_after}");
            let Some(mut command) = traced(&training.sandbox, &["-e", &inject], &train) else { return };
            let code = command.output().unwrap().status.code();
            assert!(matches!(code, Some(0 | 1)), "{inject}: {code:?}");
            training.check(&inject);
        }
    }
}

/// A training that is killed after a random time, as often as MNIST_TEST_KILLS says.
#[test]
fn a_kill_at_any_time_leaves_the_old_set_or_the_new_one() {
    let training = Training::new();
    for kill in 0..kills() {
        training.reset();
        let attempt = kill_within(&training.sandbox, &format!("{TRAIN} --seed=2"), kill, 80_000);
        training.check(&attempt);
    }
}

/// How many random kills to try.
fn kills() -> u64 {
    std::env::var("MNIST_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(15)
}

/// Kills the program after a time that `kill` chooses, below `most` microseconds. Returns a description.
fn kill_within(sandbox: &Sandbox, arguments: &str, kill: u64, most: u64) -> String {
    let mut command = sandbox.program();
    command.args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let microseconds = kill.wrapping_mul(6_364_136_223_846_793_005).rotate_left(20) % most;
    std::thread::sleep(Duration::from_micros(microseconds));
    child.kill().unwrap();
    child.wait().unwrap();
    format!("killed after {microseconds} us")
}

#[test]
fn a_kill_of_a_download_at_any_time_leaves_whole_files_and_the_next_one_ends_well() {
    let Some(mirror) = real_mnist() else { return };
    let sandbox = Sandbox::new();
    let download = format!("download --data_dir=data --log_dir=logs --mirror={}", mirror.display());
    let names =
        ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
    let reset = || {
        for directory in ["data", "logs"] {
            let _ = fs::remove_dir_all(sandbox.path(directory));
        }
    };
    let check = |attempt: &str| {
        for name in sandbox.files("data").iter().filter(|name| !name.starts_with('.')) {
            assert!(names.contains(&name.as_str()), "{attempt}: {name}");
        }
        let ended = sandbox.run(&download).done();
        assert!(!ended.stderr.contains("not the file that belongs here"), "{attempt}: {ended:#?}");
        assert_eq!(sandbox.files("data"), names, "{attempt}");
        assert_eq!(sandbox.files("logs"), ["mlcube_mnist_download.log", "mllog_download.log"], "{attempt}");
    };
    for point in ["rename", "unlink", "fsync", "mkdir"] {
        for nth in 1.. {
            reset();
            let inject = format!("inject={point}:signal=KILL:when={nth}");
            let Some(mut command) = traced(&sandbox, &["-e", &inject], &download) else { return };
            let ended = command.output().unwrap().status;
            check(&inject);
            if ended.code() == Some(0) {
                break; // there is no such call any more
            }
        }
    }
    for kill in 0..kills() {
        reset();
        let attempt = kill_within(&sandbox, &download, kill, 600_000);
        check(&attempt);
    }
}

// ---- file systems that lack something

/// Trains with every call of these kinds failing.
fn train_without(sandbox: &Sandbox, failures: &[&str]) -> Option<Ended> {
    let options: Vec<&str> = failures.iter().flat_map(|failure| ["-e", failure]).collect();
    Some(end(&mut traced(sandbox, &options, TRAIN)?))
}

const NO_RENAME: [&str; 3] =
    ["inject=rename:error=ENOSYS", "inject=fsync:error=EINVAL", "inject=flock:error=EOPNOTSUPP"];

#[test]
fn a_file_system_without_rename_sync_and_locks_gets_whole_files_in_place() {
    let sandbox = Sandbox::with_data();
    let Some(ended) = train_without(&sandbox, &NO_RENAME) else { return };
    let ended = ended.done();
    for expected in ["cannot rename files", "cannot sync", "has no locks"] {
        assert!(ended.stderr.contains(expected), "{ended:#?}");
    }
    whole_set(&sandbox.path("model"));
    assert!(artifacts::is_complete(&sandbox.path("model")));
    assert!(sandbox.read("logs/mllog_train.log").contains("success"));
    sandbox.run("evaluate --data_dir=data --log_dir=logs2 --model_dir=model").done();
}

#[test]
fn a_job_that_outlives_its_connection_needs_locks() {
    let sandbox = Sandbox::new();
    let about = r#"{"task":"t","outputs":[],"ends_alone":false}"#;
    let start = format!("cube job start job {about} -- devices");
    let Some(mut command) = traced(&sandbox, &["-e", "inject=flock:error=ENOLCK"], &start) else { return };
    end(&mut command).failed_with(
        "job: expected a file system with locks, found one without\nhint: let mlcube/cubes in the home directory be a link \
         to a directory on another file system",
    );
    assert!(sandbox.files("job").is_empty(), "{:?}", sandbox.files("job"));
    sandbox.run(&start).done();
}

#[test]
fn where_files_cannot_be_replaced_an_earlier_model_is_named_before_the_first_step() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    fs::remove_dir_all(sandbox.path("logs")).unwrap();
    let Some(ended) = train_without(&sandbox, &NO_RENAME) else { return };
    ended.failed_with(
        "model/model.safetensors: is there already, and this file system cannot replace files\n\
         hint: choose an empty directory, or one on another file system",
    );
    assert!(!ended.stderr.contains("epoch 1"), "{ended:#?}");
    whole_set(&sandbox.path("model"));
}

#[test]
fn a_model_that_cannot_get_its_name_is_kept_and_named() {
    let sandbox = Sandbox::with_data();
    // The first rename is that of the trial; the directory refuses all later ones.
    let Some(ended) = train_without(&sandbox, &["inject=rename:error=EACCES:when=3+"]) else { return };
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    // The log is kept too, and named before the model.
    let named = "error: model/.mnist-set: cannot write: Permission denied (os error 13); the new contents are kept as ";
    let (_, kept) = ended.stderr.split_once(named).unwrap_or_else(|| panic!("{ended:#?}"));
    let kept = kept.split([',', '\n']).next().unwrap();
    assert!(mnist::model::file::decode(&fs::read(sandbox.path(kept)).unwrap()).is_ok(), "{ended:#?}");
}

// ---- two at once

#[test]
fn a_second_training_is_refused_and_told_who_trains_there() {
    let sandbox = Sandbox::with_data();
    let mut first = sandbox.program();
    first.args(TRAIN.split_whitespace()).arg("--train_epochs=100000").stderr(Stdio::null());
    let mut first = first.spawn().unwrap();
    while !sandbox.path("model").join(lock::NAME).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let process = format!("process {} on ", first.id());
    for (log_dir, model_dir, place) in
        [("logs", "model2", "logs"), ("logs2", "model", "model"), ("logs3", "./model/", "./model/")]
    {
        let flags = "--data_dir=data --parameters_file=parameters.yaml";
        let ended = sandbox.run(&format!("train {flags} --log_dir={log_dir} --model_dir={model_dir}"));
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains(&format!("error: {place}: {process}")), "{ended:#?}");
        assert!(ended.stderr.contains("is writing there\nhint: wait until it has ended"), "{ended:#?}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    sandbox.run(TRAIN).done();
    assert!(!sandbox.path("model").join(lock::NAME).exists() && !sandbox.path("logs").join(lock::NAME).exists());
}

#[test]
fn logs_and_model_may_share_a_directory() {
    let sandbox = Sandbox::with_data();
    let flags = "--data_dir=data --parameters_file=parameters.yaml --model_dir=all --log_dir=./all";
    sandbox.run(&format!("train {flags}")).done();
    sandbox.run(&format!("train {flags}")).done();
    let model = whole_set(&sandbox.path("all"));
    let metrics = sandbox.read("all/metrics.json");
    sandbox.run("evaluate --data_dir=data --log_dir=all --model_dir=all").failed_with(
        "all: expected a directory for logs alone, found model.safetensors there\n\
         hint: choose another --log_dir: metrics.json of the evaluation would replace that of the training",
    );
    assert_eq!((whole_set(&sandbox.path("all")), sandbox.read("all/metrics.json")), (model, metrics));
}

#[test]
fn files_of_another_model_are_named() {
    let training = Training::new();
    let sandbox = &training.sandbox;
    sandbox.run(&format!("{TRAIN} --seed=2 --model_dir=other").replace("--model_dir=model", "")).done();
    fs::copy(sandbox.path("other/model.safetensors"), sandbox.path("model/model.safetensors")).unwrap();
    let warning = "warning: model: made from another model than the model.safetensors there: metrics.json, \
                   parameters.yaml, report.html, model.onnx\n";
    let ended = sandbox.run("evaluate --data_dir=data --log_dir=logs2 --model_dir=model").done();
    assert!(ended.stderr.contains(warning), "{ended:#?}");
    let evaluated = sandbox.metrics("logs2");
    assert_eq!(evaluated["model_sha256"], training.new);
    sandbox.write("digit.pgm", [b"P5 28 28 255 ".to_vec(), [[0u8; 28], [200; 28]].concat().repeat(14)].concat());
    let ended = sandbox.run("predict --model_dir=model digit.pgm");
    assert!(ended.stderr.contains(warning), "{ended:#?}");
}
