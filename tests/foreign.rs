//! What others left under the names that the program gives its own files: it is never followed, written or removed, and a
//! directory that changes hands under a training is noticed.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::cube::Cube;
use crate::common::{Sandbox, TRAIN, fifo, lines_until, traced};
use mnist::files::lock;
use mnist::files::set::JOURNAL;
use mnist::model::file as model_file;

const EVALUATE: &str = "evaluate --data_dir=data --log_dir=logs2 --model_dir=model";
const PREDICT: &str = "predict --model_dir=model data/train-images-idx3-ubyte";

/// A sandbox with a model and a file of the user's.
fn trained() -> Sandbox {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    sandbox.write("model/notes.txt", "mine");
    sandbox
}

/// The names in MODEL_DIR, with what the files hold.
fn model_dir(sandbox: &Sandbox) -> Vec<(String, Option<Vec<u8>>)> {
    sandbox
        .files("model")
        .into_iter()
        .map(|name| (name.clone(), fs::read(sandbox.path("model").join(name)).ok()))
        .collect()
}

/// Waits until `path` is there.
#[track_caller]
fn wait_for(path: &Path) {
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

// ---- the lock

/// Puts something of the user's in the place of the lock file of `directory`. Returns what an error says of it.
fn in_place_of_the_lock(kind: &str, directory: &Path, users: &Path) -> String {
    let lock = directory.join(lock::NAME);
    let found = match kind {
        "link" | "dangling link" => {
            let target = if kind == "link" { users.to_path_buf() } else { users.with_extension("gone") };
            symlink(target, &lock).unwrap();
            "a link"
        }
        "hard link" => {
            fs::hard_link(users, &lock).unwrap();
            "one with 2 names"
        }
        "pipe" => {
            fifo(&lock);
            "a pipe"
        }
        _ => {
            fs::create_dir(&lock).unwrap();
            "a directory"
        }
    };
    format!("{}: expected a file of this program with one name, found {found}\nhint: move it elsewhere", lock::NAME)
}

const KINDS: [&str; 5] = ["link", "dangling link", "hard link", "pipe", "directory"];

#[test]
fn nothing_is_locked_through_a_link() {
    for kind in KINDS {
        let sandbox = Sandbox::with_data();
        sandbox.write("users.txt", "mine");
        fs::create_dir(sandbox.path("model")).unwrap();
        let expected = in_place_of_the_lock(kind, &sandbox.path("model"), &sandbox.path("users.txt"));
        let ended = sandbox.train("");
        assert_eq!(ended.code, Some(1), "{kind}: {ended:#?}");
        assert!(ended.stderr.contains(&format!("error: model/{expected}")), "{kind}: {ended:#?}");
        assert_eq!(sandbox.read("users.txt"), "mine", "{kind}");
        assert!(!sandbox.path("users.gone").exists(), "{kind}");
        assert!(sandbox.path("model").join(lock::NAME).symlink_metadata().is_ok(), "{kind}");
    }
}

#[test]
fn a_cleaning_locks_nothing_through_a_link_and_a_dry_run_locks_nothing_at_all() {
    for (kind, flag) in KINDS.iter().flat_map(|kind| [(kind, "--dry_run"), (kind, "--yes")]) {
        let cube = Cube::new();
        cube.write("workspace/model/model.safetensors", r#"{"__metadata__":{"mnist":"damaged"}}"#);
        cube.sandbox.write("users.txt", "mine");
        let directory = cube.sandbox.path("the cube/workspace/model");
        let expected = in_place_of_the_lock(kind, &directory, &cube.sandbox.path("users.txt"));
        let ended = cube.run(&format!("clean {flag}"));
        assert_eq!(ended.code, Some(1), "{kind}: {ended:#?}");
        assert!(ended.stderr.contains(&expected), "{kind}: {ended:#?}");
        assert_eq!(cube.sandbox.read("users.txt"), "mine", "{kind}");
        assert!(!cube.sandbox.path("users.gone").exists() && directory.join("model.safetensors").exists(), "{kind}");
    }
    let cube = Cube::new();
    cube.write("workspace/model/model.safetensors", r#"{"__metadata__":{"mnist":"damaged"}}"#);
    cube.write(&format!("workspace/model/{}", lock::NAME), "process 1 on elsewhere");
    let ended = cube.run("clean --dry_run").done();
    assert!(ended.stdout.contains(lock::NAME), "{ended:#?}");
    let left = cube.sandbox.read(&format!("the cube/workspace/model/{}", lock::NAME));
    assert_eq!(left, "process 1 on elsewhere");
    cube.run("clean --yes").done();
    assert!(!cube.sandbox.path("the cube/workspace/model").exists());
}

#[test]
fn a_training_is_refused_while_a_cleaning_asks() {
    let cube = Cube::new();
    mnist::data::synthetic::write(&cube.sandbox.path("the cube/workspace/data"), 300, 100).unwrap();
    cube.write("workspace/model/model.safetensors", r#"{"__metadata__":{"mnist":"damaged"}}"#);
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("{} cube clean", env!("CARGO_BIN_EXE_mnist")), "/dev/null"]);
    command.current_dir(cube.sandbox.path("the cube")).stdin(Stdio::piped()).stdout(Stdio::null());
    let Ok(mut asking) = command.spawn() else {
        return crate::common::skipped("no program script, which is a terminal for others");
    };
    wait_for(&cube.sandbox.path("the cube/workspace/model").join(lock::NAME));
    let ended = cube.run("run --platform=platforms/native.yaml --task=run/train.yaml");
    std::io::Write::write_all(&mut asking.stdin.take().unwrap(), b"y\n").unwrap();
    assert!(asking.wait().unwrap().success());
    assert!(ended.stderr.contains("is writing there"), "{ended:#?}");
    assert!(!cube.sandbox.path("the cube/workspace/model").exists());
}

#[test]
fn a_training_whose_directory_was_replaced_writes_nothing_over_what_is_there_now() {
    for shared in [false, true] {
        let sandbox = Sandbox::with_data();
        let mut command = sandbox.program();
        command.args(["train", "--data_dir=data", "--parameters_file=parameters.yaml", "--train_epochs=100000"]);
        command.args(["--model_dir=model", if shared { "--log_dir=model" } else { "--log_dir=logs" }]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut stderr = lines_until(&mut messages, "epoch 2/100000: ");
        fs::rename(sandbox.path("model"), sandbox.path("moved")).unwrap();
        fs::create_dir(sandbox.path("other")).unwrap();
        symlink("other", sandbox.path("model")).unwrap();
        sandbox.write(&format!("other/{}", lock::NAME), "process 1 on elsewhere");
        sandbox.write("other/metrics.json", "theirs");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        messages.read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
        let error = "error: model/.mnist-lock: expected the lock of this process, found that of another";
        assert!(stderr.contains(error), "{stderr}");
        assert_eq!(sandbox.read("other/metrics.json"), "theirs");
        assert_eq!(sandbox.read(&format!("other/{}", lock::NAME)), "process 1 on elsewhere");
        assert!(!sandbox.path("other/model.safetensors").exists());
        let kept = fs::read(sandbox.path("other/model.safetensors.kept")).unwrap();
        assert!(model_file::decode(&kept).is_ok(), "{stderr}");
    }
}

// ---- the journal

#[test]
fn a_foreign_journal_costs_no_file_in_any_directory() {
    let journals = [
        r#"{"rename":[],"remove":["notes.txt"]}"#,
        r#"{"rename":[[".notes.txt.abc123.mnist-part","notes.txt"]],"remove":[]}"#,
        r#"{"rename":[[".model.safetensors.abc123.mnist-part","notes.txt"]],"remove":[]}"#,
        r#"{"rename":[[".mine.mnist-part","model.safetensors"]],"remove":[]}"#,
    ];
    let sandbox = trained();
    for journal in journals {
        let kept = model_dir(&sandbox);
        let commands = [
            EVALUATE,
            PREDICT,
            "download --synthetic --data_dir=model --log_dir=logs2",
            "evaluate --data_dir=data --log_dir=model/. --model_dir=model",
            TRAIN,
        ];
        for command in commands {
            sandbox.write(&format!("model/{JOURNAL}"), journal);
            for temporary in [".notes.txt.abc123", ".model.safetensors.abc123", ".mine"] {
                sandbox.write(&format!("model/{temporary}.mnist-part"), "not a model");
            }
            let ended = sandbox.run(command);
            assert_eq!(sandbox.read("model/notes.txt"), "mine", "{journal} {command}: {ended:#?}");
            for (name, contents) in kept.iter().filter(|_| !command.starts_with("train")) {
                let found = fs::read(sandbox.path("model").join(name)).ok();
                assert!(found == *contents, "{name}: {journal} {command}: {ended:#?}");
            }
        }
        assert!(!sandbox.path("model").join(JOURNAL).exists(), "the training wrote its own");
    }
}

#[test]
fn tasks_that_read_a_model_write_nothing_beside_it() {
    let sandbox = trained();
    // As a training that was killed after it wrote the journal.
    fs::rename(sandbox.path("model/model.safetensors"), sandbox.path("model/.model.safetensors.abc123.mnist-part"))
        .unwrap();
    let journal =
        r#"{"rename":[[".model.safetensors.abc123.mnist-part","model.safetensors"]],"remove":["model.onnx"]}"#;
    sandbox.write(&format!("model/{JOURNAL}"), journal);
    sandbox.write("users.txt", "mine");
    symlink(sandbox.path("users.txt"), sandbox.path("model").join(lock::NAME)).unwrap();
    let before = model_dir(&sandbox);
    for command in [EVALUATE, PREDICT] {
        let ended = sandbox.run(command);
        assert!(!ended.stderr.contains("has no model") && !ended.stderr.contains("another model"), "{ended:#?}");
        assert!(model_dir(&sandbox) == before, "{command}: {ended:#?}");
        assert_eq!(sandbox.read("users.txt"), "mine");
    }
    assert!(sandbox.path("logs2/metrics.json").exists());
    fs::remove_file(sandbox.path("model").join(lock::NAME)).unwrap();
    sandbox.train("").done();
    assert!(sandbox.files("model").iter().all(|name| !name.starts_with('.')), "{:?}", sandbox.files("model"));
}

#[test]
fn tasks_that_read_a_model_open_it_once() {
    let sandbox = trained();
    for command in [EVALUATE, PREDICT] {
        let trace = sandbox.path("trace");
        let options = ["-e", "trace=openat", "-o", trace.to_str().unwrap()];
        let Some(mut command) = traced(&sandbox, &options, command) else { return };
        command.output().unwrap();
        let trace = fs::read_to_string(&trace).unwrap();
        let opened: Vec<_> = trace.lines().filter(|line| line.contains("model.safetensors\"")).collect();
        assert_eq!(opened.len(), 1, "{opened:#?}");
    }
}

// ---- logs

#[test]
fn a_training_that_fails_before_its_first_step_leaves_no_events() {
    let sandbox = Sandbox::with_data();
    let flags = "--data_dir=data --log_dir=logs --model_dir=model";
    sandbox.write("wrong.yaml", "optimiser: adam\n");
    for wrong in ["--parameters_file=wrong.yaml", "--parameters_file=none.yaml"] {
        assert_eq!(sandbox.run(&format!("train {flags} {wrong}")).code, Some(1));
    }
    assert_eq!(sandbox.train("--data_dir=none").code, Some(2), "given twice");
    assert_eq!(sandbox.files("logs"), ["mlcube_mnist_train.log", "mllog_train.log"]);
}

#[test]
fn a_training_replaces_no_file_that_no_training_wrote() {
    let sandbox = Sandbox::with_data();
    let train = |flags: &str| sandbox.run(&format!("train --data_dir=data --log_dir=logs --train_epochs=1 {flags}"));
    let mine = "# mine\ntrain_epochs: 1 # as before\n";
    fs::create_dir(sandbox.path("mine")).unwrap();
    sandbox.write("mine/parameters.yaml", mine);
    let of = |name: &str| {
        format!(
            "mine/{name}: expected a new file or an earlier one of this program, found another file\n\
             hint: choose another name or directory"
        )
    };
    train("--parameters_file=mine/parameters.yaml --model_dir=mine").failed_with(&of("parameters.yaml"));
    assert_eq!((sandbox.read("mine/parameters.yaml"), sandbox.files("mine").len()), (mine.into(), 1));
    fs::rename(sandbox.path("mine/parameters.yaml"), sandbox.path("mine/my.yaml")).unwrap();
    for name in ["model.onnx", "model.safetensors", "metrics.json"] {
        sandbox.write(&format!("mine/{name}"), "mine");
        train("--parameters_file=mine/my.yaml --model_dir=mine").failed_with(&of(name));
        assert_eq!(sandbox.read(&format!("mine/{name}")), "mine");
        fs::remove_file(sandbox.path(format!("mine/{name}"))).unwrap();
    }
    // What cannot be read may be anybody's.
    symlink("nowhere", sandbox.path("mine/metrics.json")).unwrap();
    train("--parameters_file=mine/my.yaml --model_dir=mine").failed_with(&of("metrics.json"));
    fs::remove_file(sandbox.path("mine/metrics.json")).unwrap();
    fifo(&sandbox.path("mine/model.onnx"));
    train("--parameters_file=mine/my.yaml --model_dir=mine").failed_with(&of("model.onnx"));
    fs::remove_file(sandbox.path("mine/model.onnx")).unwrap();
    train("--parameters_file=mine/my.yaml --model_dir=mine").done();
    // A set that waits for its names takes none from a user.
    for name in ["report.html", "parameters.yaml"] {
        let written = fs::read(sandbox.path("mine").join(name)).unwrap();
        let part = format!(".{name}.a1b2c3.mnist-part");
        sandbox.write(&format!("mine/{part}"), &written);
        sandbox.write(&format!("mine/{JOURNAL}"), format!(r#"{{"rename":[["{part}","{name}"]],"remove":[]}}"#));
        sandbox.write(&format!("mine/{name}"), "mine");
        train("--parameters_file=mine/my.yaml --model_dir=mine").failed_with(&of(name));
        assert_eq!(sandbox.read(&format!("mine/{name}")), "mine");
        fs::remove_file(sandbox.path("mine").join(name)).unwrap();
        train("--parameters_file=mine/my.yaml --model_dir=mine").done();
    }
    // Those of an earlier training are replaced, also where they are an input.
    train("--parameters_file=mine/parameters.yaml --model_dir=mine").done();
    assert_eq!(sandbox.read("mine/my.yaml"), mine);
    // Logs may lie beside a user's files, but their own metrics are no user's.
    let evaluate = || sandbox.run("evaluate --data_dir=data --model_dir=mine --log_dir=scores");
    evaluate().done();
    evaluate().done();
    sandbox.write("scores/metrics.json", "mine");
    evaluate().failed_with(&of("metrics.json").replace("mine/", "scores/"));
    assert_eq!(sandbox.read("scores/metrics.json"), "mine");
}

#[test]
fn a_file_that_came_during_a_training_stays_and_so_does_the_result() {
    let sandbox = Sandbox::with_data();
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=data", "--parameters_file=parameters.yaml", "--train_epochs=100000"]);
    command.args(["--model_dir=model", "--log_dir=logs"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = lines_until(&mut messages, "epoch 2/100000: ");
    sandbox.write("model/parameters.yaml", "mine");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    messages.read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    let error =
        "error: model/parameters.yaml: expected a new file or an earlier one of this program, found another file";
    assert!(stderr.contains(error), "{stderr}");
    assert!(
        stderr.contains(
            "hint: move that file elsewhere, then the kept ones into its directory, without the ending `.kept`"
        ),
        "{stderr}"
    );
    assert_eq!(sandbox.read("model/parameters.yaml"), "mine");
    let kept = fs::read(sandbox.path("model/model.safetensors.kept")).unwrap();
    assert!(model_file::decode(&kept).is_ok(), "{stderr}");
}
