//! `MODEL_DIR/unfinished`: it takes an unfinished model where a finished one stands, and never a model that is not marked so.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use mnist::files::lock::DirectoryLock;
use mnist::model::file as model_file;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Sandbox, TRAIN, fifo, lines_until};

const LIMITED: &str = "--train_epochs=100000 --max_seconds=0.8";

/// A sandbox with a finished model in `model`.
fn finished() -> Sandbox {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    sandbox
}

/// Trains with another MODEL_DIR.
fn train_in(sandbox: &Sandbox, model_dir: &str, flags: &str) {
    let train = "train --data_dir=data --log_dir=logs --parameters_file=parameters.yaml";
    sandbox.run(&format!("{train} --model_dir={model_dir} {flags}")).done();
}

/// Whatever is below `directory`: paths and contents.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        let name = format!("{kind:?} {}", path.display());
        all.push((name, if kind.is_file() { fs::read(&path).unwrap() } else { vec![] }));
        if kind.is_dir() {
            all.extend(contents(&path));
        }
    }
    all.sort();
    all
}

/// Expects that a training, and one that would be unfinished, are refused and change nothing.
#[track_caller]
fn is_refused(sandbox: &Sandbox, found: &str) {
    let before = contents(&sandbox.path("model"));
    for flags in ["", LIMITED] {
        sandbox.train(flags).failed_with(&format!(
            "model/unfinished: expected the directory of an unfinished training, found {found}\n\
             hint: move it elsewhere, or choose another directory"
        ));
        assert!(contents(&sandbox.path("model")) == before, "{flags}");
    }
}

#[test]
fn a_finished_model_there_is_neither_replaced_nor_removed() {
    let sandbox = finished();
    sandbox.train(LIMITED).done();
    // It is trained to its end where it is.
    train_in(&sandbox, "model/unfinished", "--init=model/unfinished");
    assert!(!model_file::is_unfinished(&sandbox.path("model/unfinished")));
    is_refused(&sandbox, "one with a model that is not marked as unfinished");
    fs::rename(sandbox.path("model/unfinished"), sandbox.path("elsewhere")).unwrap();
    sandbox.train("").done();
}

#[test]
fn whatever_else_is_there_is_refused_before_training() {
    let sandbox = finished();
    let path = sandbox.path("model/unfinished");
    fs::write(&path, "a note").unwrap();
    is_refused(&sandbox, "a file");
    fs::remove_file(&path).unwrap();
    fifo(&path);
    is_refused(&sandbox, "a pipe");
    fs::remove_file(&path).unwrap();
    train_in(&sandbox, "other", LIMITED);
    for target in ["nowhere", ".", "../other"] {
        symlink(target, &path).unwrap();
        is_refused(&sandbox, "a link");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn nobody_else_writes_there_meanwhile() {
    let sandbox = finished();
    sandbox.train(LIMITED).done();
    let before = contents(&sandbox.path("model"));
    let lock = DirectoryLock::take(&sandbox.path("model/unfinished")).unwrap();
    let process = format!("process {} on {}", std::process::id(), mnist::files::lock::host());
    sandbox.train("").failed_with(&format!(
        "model/unfinished: {process} is writing there\nhint: wait until it has ended, or choose other directories"
    ));
    drop(lock);
    assert!(contents(&sandbox.path("model")) == before);
}

#[test]
fn files_of_the_user_stay_there() {
    let sandbox = finished();
    sandbox.train(LIMITED).done();
    sandbox.write("model/unfinished/notes.txt", "mine");
    sandbox.train("").done();
    assert_eq!(sandbox.files("model/unfinished"), ["notes.txt"]);
    sandbox.write("model/unfinished/metrics.json", "mine too");
    sandbox.train("").failed_with(
        "model/unfinished/metrics.json: expected a new file or an earlier one of this program, found another file\n\
         hint: choose another name or directory",
    );
    assert_eq!(sandbox.files("model/unfinished"), ["metrics.json", "notes.txt"]);
}

#[test]
fn where_only_an_unfinished_model_is_the_message_names_it() {
    let sandbox = finished();
    sandbox.train(LIMITED).done();
    fs::remove_file(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.run("evaluate --data_dir=data --log_dir=logs2 --model_dir=model").failed_with(
        "model: has no model: expected a file model.safetensors\nhint: give model/unfinished, which has one",
    );
}

#[test]
fn a_model_of_another_program_is_not_replaced() {
    let sandbox = Sandbox::with_data();
    fs::create_dir(sandbox.path("model")).unwrap();
    let tensor = mnist_free_safetensors();
    sandbox.write("model/model.safetensors", &tensor);
    sandbox.train("").failed_with(
        "model/model.safetensors: expected a new file or an earlier one of this program, found another file\n\
         hint: choose another name or directory",
    );
    assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), tensor);
    assert_eq!(sandbox.files("model"), ["model.safetensors"]);
    sandbox.write("model/model.safetensors", "");
    sandbox.train("").done();
    // A damaged one of this program is.
    let model = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.write("model/model.safetensors", &model[..model.len() - 1]);
    sandbox.train("").done();
}

/// A safetensors file as other programs write it: one float, and their metadata.
fn mnist_free_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

#[test]
fn a_model_whose_directory_is_gone_is_kept_beside_the_logs() {
    let sandbox = Sandbox::with_data();
    let mut command = sandbox.program();
    let mut child = command.args(TRAIN.split(' ')).arg("--train_epochs=100000").stderr(Stdio::piped()).spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    lines_until(&mut messages, "epoch 2/100000: ");
    fs::rename(sandbox.path("model"), sandbox.path("elsewhere")).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut said = String::new();
    messages.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{said}");
    let kept = "logs/model.safetensors.kept";
    let message = format!(
        "model/model.safetensors: cannot write: No such file or directory (os error 2); the new contents are kept as {kept}, logs/metrics.json.kept, "
    );
    assert!(said.contains(&message), "{said}");
    fs::create_dir(sandbox.path("model")).unwrap();
    fs::rename(sandbox.path(kept), sandbox.path("model/model.safetensors")).unwrap();
    assert!(model_file::load(&sandbox.path("model")).unwrap().unfinished.is_some());
}
