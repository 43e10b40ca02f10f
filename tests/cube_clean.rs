//! `mnist cube clean` removes what the program wrote, and nothing else.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use mnist::files::AtomicFile;

use crate::common::cube::Cube;
use crate::common::{Ended, end, skipped};

/// The files of a training run and of an evaluation, in the workspace.
const OURS: [&str; 14] = [
    "model/metrics.json",
    "model/model.onnx",
    "model/model.safetensors",
    "model/parameters.yaml",
    "model/report.html",
    "model/snapshots/epoch-003.safetensors",
    "model/unfinished/metrics.json",
    "model/unfinished/model.safetensors",
    "evaluate_logs/metrics.json",
    "train_logs/test/events.out.tfevents.1.host.2.0.mnist",
    "train_logs/train/events.out.tfevents.1.host.2.0.mnist",
    "train_logs/train/events.out.tfevents.3.host.4.0.mnist",
    "train_logs/mlcube_mnist_train.log",
    "train_logs/mllog_train.log",
];

/// A cube after a training run.
fn trained() -> Cube {
    let cube = Cube::new();
    for file in OURS {
        // By this a file is known as one that a training wrote.
        let origin = format!("model_sha256: {}", "0".repeat(64));
        let model = r#"{"__metadata__":{"mnist":"ours"}}"#;
        cube.write(&format!("workspace/{file}"), if file.ends_with("model.safetensors") { model } else { &origin });
    }
    cube
}

impl Cube {
    fn has(&self, name: &str) -> bool {
        Path::new(&self.workspace(name)).symlink_metadata().is_ok()
    }

    /// A run configuration like `run/train.yaml`, with `from` replaced.
    fn configuration(&self, name: &str, replaced: &[(&str, &str)]) {
        let text = self.sandbox.read("the cube/run/train.yaml");
        let text = replaced.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        self.write(&format!("run/{name}.yaml"), text);
    }

    /// The lines that begin with `verb`, without it and without the workspace.
    fn listed(&self, ended: &Ended, verb: &str) -> Vec<String> {
        let begin = format!("{verb} {}/", self.workspace("").trim_end_matches('/'));
        ended.stdout.lines().filter_map(|line| line.strip_prefix(&begin)).map(String::from).collect()
    }
}

#[test]
fn what_the_program_wrote_goes_and_everything_else_stays_and_is_named() {
    let cube = trained();
    for file in
        ["model/notes.txt", "model/.model.safetensors.a1b2c3.mnist-part", "model/.other.a1b2c3.part", "notes.txt"]
    {
        cube.write(&format!("workspace/{file}"), "");
    }
    cube.write("workspace/train_logs/backup/model.safetensors", "mine");
    cube.write("workspace/model/snapshots/mine.safetensors", "mine");
    cube.write("workspace/train_logs/test/thesis.txt", "mine");
    let listed = cube.run("clean --dry_run").done();
    let mut gone: Vec<_> = OURS.iter().map(|file| file.to_string()).collect();
    gone.extend(
        ["model/.model.safetensors.a1b2c3.mnist-part", "model/unfinished", "train_logs/train", "data", "evaluate_logs"]
            .map(String::from),
    );
    gone.sort();
    let mut removed = cube.listed(&listed, "remove");
    removed.sort();
    assert_eq!(removed, gone);
    let kept = cube.listed(&listed, "keep");
    let reason = |file: &str| format!("{file}: not written by this program");
    assert_eq!(
        kept,
        [
            "model/.other.a1b2c3.part",
            "model/notes.txt",
            "model/snapshots/mine.safetensors",
            "train_logs/backup",
            "train_logs/test/thesis.txt",
        ]
        .map(reason)
    );
    assert!(OURS.iter().all(|file| cube.has(file)));

    cube.run("clean --yes --mlcube=.").done();
    assert!(!gone.iter().any(|file| cube.has(file)));
    assert!(["model/notes.txt", "notes.txt", "train_logs/backup/model.safetensors"].iter().all(|file| cube.has(file)));
    assert_eq!(cube.sandbox.files("the cube/workspace"), ["model", "notes.txt", "parameters", "train_logs"]);
    let ended = cube.run("clean --yes").done();
    assert!(ended.stderr.ends_with(": no outputs of earlier runs\n"), "{ended:#?}");
}

#[test]
fn what_a_training_would_not_replace_stays() {
    let cube = trained();
    let mine: Vec<_> = OURS.into_iter().filter(|file| Path::new(file).parent() == Some(Path::new("model"))).collect();
    for file in &mine {
        cube.write(&format!("workspace/{file}"), "mine");
    }
    let listed = cube.run("clean --dry_run").done();
    let reasons: Vec<_> = mine.iter().map(|file| format!("{file}: not written by this program")).collect();
    assert_eq!(cube.listed(&listed, "keep"), reasons);
    cube.run("clean --yes").done();
    assert!(mine.iter().all(|file| cube.has(file)) && !cube.has("model/unfinished/model.safetensors"));
}

#[test]
fn nothing_goes_while_a_configuration_has_a_fault() {
    let cube = trained();
    cube.write("workspace/model/sgd.parameters.yaml", "epochs: 1\n");
    cube.configuration("exp", &[("task_name: train", "task_name: trian"), ("parameters/default", "model/sgd")]);
    let ended = cube.run("clean --yes");
    assert!(ended.stdout.starts_with("run/exp.yaml:4: task_name: expected "), "{ended:#?}");
    ended.failed_with(".: 1 fault in the cube's files");
    assert!(OURS.iter().all(|file| cube.has(file)) && cube.has("model/sgd.parameters.yaml"));
    // One that cannot be read as text is a fault too, and one whose name is no text.
    fs::remove_file(cube.sandbox.path("the cube/run/exp.yaml")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"exp\xff.yaml");
    fs::write(cube.sandbox.path("the cube/run").join(name), "task_name: trian\n").unwrap();
    assert_eq!(cube.run("clean --yes").code, Some(1));
    assert!(OURS.iter().all(|file| cube.has(file)));
}

#[test]
fn what_a_running_process_writes_stays() {
    let cube = Cube::new();
    let left = cube.workspace("data/.train-labels-idx1-ubyte.aB3xYz.mnist-part");
    fs::write(&left, "left by a process that was killed").unwrap();
    let writing = AtomicFile::create(cube.workspace("data/t10k-labels-idx1-ubyte")).unwrap();
    let ended = cube.run("clean --yes").done();
    assert!(writing.temporary().exists() && !Path::new(&left).exists(), "{ended:#?}");
    assert!(ended.stdout.contains("mnist-part: a running process writes it\n"), "{ended:#?}");
}

#[test]
fn an_input_of_a_configuration_stays_however_its_path_is_written() {
    let cube = trained();
    cube.write("workspace/model/parameters.yaml", "epochs: 1\n");
    cube.configuration("again", &[("parameters/default.parameters.yaml", "train_logs/../model/parameters.yaml")]);
    cube.write("workspace/parameters/x.yaml", "epochs: 1\n");
    cube.write("workspace/parameters/parameters.yaml", "epochs: 1\n"); // no task writes this name there
    cube.configuration("b", &[("parameters/default", "model/../parameters/default"), ("train_logs", "parameters")]);
    // An absolute path, by a link.
    cube.write("workspace/evaluate_logs/mllog_train.log", "epochs: 2\n");
    symlink(cube.workspace("evaluate_logs/mllog_train.log"), cube.sandbox.path("link.yaml")).unwrap();
    let link = cube.sandbox.path("link.yaml").display().to_string();
    cube.configuration("linked", &[("$WORKSPACE/parameters/default.parameters.yaml", &link)]);
    let ended = cube.run("clean --yes").done();
    let kept = cube.listed(&ended, "keep");
    for input in ["model/parameters.yaml", "evaluate_logs/mllog_train.log", "parameters/default.parameters.yaml"] {
        assert!(kept.contains(&format!("{input}: an input of the cube")), "{input} in {kept:#?}");
        assert!(cube.has(input), "{input}");
    }
    assert!(
        cube.has("parameters/x.yaml") && cube.has("parameters/parameters.yaml") && !cube.has("model/model.safetensors")
    );
}

#[test]
fn mnist_goes_only_with_data_and_only_the_right_files() {
    let cube = trained();
    let data = cube.workspace("data");
    end(cube
        .sandbox
        .program()
        .args(["download", "--synthetic"])
        .arg(format!("--data_dir={data}"))
        .arg("--log_dir=logs"))
    .done();
    cube.write("workspace/data/notes.txt", "by hand");
    cube.write("workspace/data/t10k-labels-idx1-ubyte", "of another set");
    let ended = cube.run("clean --yes").done();
    let kept = cube.listed(&ended, "keep");
    assert!(kept.contains(&"data/train-images-idx3-ubyte: data, which --data removes".into()), "{kept:#?}");
    assert_eq!(cube.sandbox.files("the cube/workspace/data").len(), 5);
    cube.run("clean --yes --data").done();
    assert_eq!(cube.sandbox.files("the cube/workspace/data"), ["notes.txt", "t10k-labels-idx1-ubyte"]);
}

#[test]
fn links_and_what_lies_outside_the_workspace_stay() {
    let cube = trained();
    let elsewhere = cube.sandbox.path("elsewhere");
    fs::create_dir_all(elsewhere.join("logs")).unwrap();
    fs::write(elsewhere.join("logs/mllog_train.log"), "mine").unwrap();
    fs::write(elsewhere.join("model.onnx"), "mine").unwrap();
    cube.write("mllog_train.log", "mine");
    symlink(&elsewhere, cube.workspace("beyond")).unwrap();
    symlink(elsewhere.join("model.onnx"), cube.workspace("train_logs/mllog_download.log")).unwrap();
    let to = |name: &str, place: &str| cube.configuration(name, &[("$WORKSPACE/train_logs", place)]);
    to("beyond", "$WORKSPACE/beyond/logs");
    to("above", "$WORKSPACE/..");
    to("itself", "$WORKSPACE");
    cube.write("workspace/real_logs/mllog_train.log", "ours");
    symlink("real_logs", cube.workspace("linked_logs")).unwrap();
    to("linked", "$WORKSPACE/linked_logs");
    cube.run("clean --yes").done();
    assert!(elsewhere.join("logs/mllog_train.log").exists() && elsewhere.join("model.onnx").exists());
    assert!(cube.has("train_logs/mllog_download.log") && cube.has("beyond"));
    assert!(cube.sandbox.path("the cube/mllog_train.log").exists());
    assert!(!cube.has("model"));
    // A link still leads to a directory.
    assert!(cube.has("linked_logs") && cube.has("real_logs") && !cube.has("real_logs/mllog_train.log"));
}

#[test]
fn without_a_terminal_it_wants_yes() {
    let cube = trained();
    let ended = cube.run("clean");
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("error: nothing was removed: "), "{ended:#?}");
    assert!(ended.stderr.contains("hint: "), "{ended:#?}");
    assert!(!cube.listed(&ended, "remove").is_empty());
    assert!(OURS.iter().all(|file| cube.has(file)));
}

#[test]
fn on_a_terminal_it_asks() {
    let answered = |answer: &str| {
        let cube = trained();
        let program = format!("{} cube clean", env!("CARGO_BIN_EXE_mnist"));
        let line = format!("printf '{answer}' | script -qec '{program}' /dev/null");
        let output =
            Command::new("sh").arg("-c").arg(line).current_dir(cube.sandbox.path("the cube")).output().unwrap();
        (cube.has("model/model.safetensors"), String::from_utf8(output.stdout).unwrap())
    };
    if Command::new("script").arg("--version").output().is_err() {
        return skipped("no program script, which is a terminal for others");
    }
    for (answer, stays) in [("n\\n", true), ("\\n", true), ("y\\n", false), ("yes\\n", false)] {
        let (is_there, shown) = answered(answer);
        assert!(shown.contains("remove? [y/N] "), "{shown}");
        assert_eq!(is_there, stays, "{answer}: {shown}");
        assert_eq!(shown.contains("nothing was removed"), stays, "{answer}: {shown}");
    }
}
