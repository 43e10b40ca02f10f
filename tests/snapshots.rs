//! Snapshots on disks that are slow, full or fail, and kills while they are written. The system calls are reached with
//! strace, which counts those of each thread by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;

use mnist::model::file as model_file;

use crate::common::{Ended, Sandbox, end, tmpfs, traced};

/// The snapshots' thread makes more calls than the main thread had made when it began.
const EPOCHS: &str = "--train_epochs=8 --snapshots=1";
const TRAIN: &str =
    "train --data_dir=data --log_dir=logs --model_dir=model --parameters_file=parameters.yaml --threads=1";
/// As many calls of a kind are tried, of all that there are.
const TRIED: usize = 10;

fn train(sandbox: &Sandbox, options: &[&str], flags: &str) -> Option<Ended> {
    Some(end(&mut traced(sandbox, options, &format!("{TRAIN} {flags}"))?))
}

/// How often the busiest thread makes the system call `name`.
fn calls(sandbox: &Sandbox, name: &str, flags: &str) -> Option<usize> {
    let list = sandbox.path("trace");
    let filter = format!("trace={name}");
    train(sandbox, &["-e", &filter, "-o", list.to_str().unwrap()], flags)?.done();
    let mut of_thread: BTreeMap<String, usize> = BTreeMap::new();
    for line in fs::read_to_string(&list).unwrap().lines().filter(|line| line.contains(&format!("{name}("))) {
        *of_thread.entry(line.split(' ').next().unwrap().into()).or_default() += 1;
    }
    of_thread.into_values().max()
}

/// A sandbox, and the model of an undisturbed training.
fn undisturbed() -> (Sandbox, Vec<u8>) {
    let sandbox = Sandbox::with_data();
    sandbox.train(EPOCHS).done();
    let model = sandbox.model();
    (sandbox, model)
}

fn reset(sandbox: &Sandbox) {
    for directory in ["model", "logs"] {
        let _ = fs::remove_dir_all(sandbox.path(directory));
    }
}

/// Expects that the next training goes on to the same bytes and leaves no traces of the attempt.
#[track_caller]
fn goes_on(sandbox: &Sandbox, expected: &[u8], attempt: &str) {
    let ended = sandbox.train(&format!("{EPOCHS} --resume")).done();
    assert!(sandbox.model() == expected, "{attempt}: another model");
    assert!(!ended.stderr.contains("passed over"), "{attempt}: {ended:#?}");
    let left: Vec<_> =
        sandbox.files("model/snapshots").into_iter().filter(|name| !name.starts_with("epoch-")).collect();
    assert_eq!(left, [""; 0], "{attempt}");
}

#[test]
fn a_kill_at_any_call_leaves_whole_snapshots_to_go_on_from() {
    let (sandbox, expected) = undisturbed();
    for point in ["write", "fsync", "rename", "unlink"] {
        reset(&sandbox);
        let Some(count) = calls(&sandbox, point, EPOCHS) else { return };
        for nth in (count / TRIED..=count).step_by(count.div_ceil(TRIED)) {
            reset(&sandbox);
            let inject = format!("inject={point}:signal=KILL:when={}", nth.max(1));
            let mut command = traced(&sandbox, &["-e", &inject], &format!("{TRAIN} {EPOCHS}")).unwrap();
            let killed = command.output().unwrap().status;
            assert!(killed.signal() == Some(9) || killed.code() == Some(0), "{inject}: {killed}");
            goes_on(&sandbox, &expected, &inject);
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_call_leaves_whole_snapshots_to_go_on_from() {
    let (sandbox, expected) = undisturbed();
    for (point, error, also_after) in
        [("write", "ENOSPC", ""), ("write", "ENOSPC", "+"), ("fsync", "ENOSPC", ""), ("rename", "ENOSPC", "+")]
    {
        reset(&sandbox);
        let Some(count) = calls(&sandbox, point, EPOCHS) else { return };
        for nth in (count / TRIED..=count).step_by(count.div_ceil(TRIED)) {
            reset(&sandbox);
            let inject = format!("inject={point}:error={error}:when={}{also_after}", nth.max(1));
            let ended = train(&sandbox, &["-e", &inject], EPOCHS).unwrap();
            assert!(matches!(ended.code, Some(0 | 1)), "{inject}: {ended:#?}");
            goes_on(&sandbox, &expected, &inject);
        }
    }
}

#[test]
fn a_signal_while_the_disk_is_slow_leaves_a_model_and_a_snapshot_of_the_last_epoch() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=300 --snapshots=1").done();
    let expected = sandbox.model();
    reset(&sandbox);
    // The thread renames the eleventh snapshot and syncs its directory, while the twelfth waits, and the training with the
    // next. The main thread makes fewer of these calls.
    let options = ["-e", "inject=rename:signal=TERM:when=12", "-e", "inject=fsync:delay_enter=3000000:when=23"];
    let Some(ended) = train(&sandbox, &options, "--train_epochs=300 --snapshots=1") else { return };
    assert_eq!(ended.code, Some(143), "{ended:#?}");
    let unfinished = model_file::load(&sandbox.path("model")).unwrap().unfinished.unwrap();
    assert!(sandbox.read("logs/mllog_train.log").contains("aborted"));
    let newest = format!("epoch-{:03}.safetensors", unfinished.epochs);
    assert_eq!(sandbox.files("model/snapshots").last(), Some(&newest), "{ended:#?}");
    sandbox.train("--train_epochs=300 --snapshots=1 --resume").done();
    assert!(sandbox.model() == expected);
}

#[test]
fn every_snapshot_that_cannot_be_written_is_named_and_a_signal_is_still_the_end() {
    let sandbox = Sandbox::with_data();
    for epoch in [1, 2] {
        fs::create_dir_all(sandbox.path(format!("model/snapshots/epoch-00{epoch}.safetensors"))).unwrap();
    }
    let named = |ended: &Ended| {
        for epoch in [1, 2] {
            let message = format!("the training goes on without the snapshot after epoch {epoch}\n");
            assert!(ended.stderr.contains(&message), "{ended:#?}");
        }
    };
    let ended = sandbox.train("--train_epochs=3 --snapshots=1");
    named(&ended);
    assert!(ended.code == Some(1) && sandbox.path("model/model.safetensors").exists(), "{ended:#?}");
    let options = ["-e", "inject=rename:signal=TERM:when=12"];
    let Some(ended) = train(&sandbox, &options, "--train_epochs=100000 --snapshots=1") else { return };
    named(&ended);
    assert_eq!(ended.code, Some(143), "{ended:#?}");
    assert!(ended.stderr.contains("error: model/snapshots/epoch-001.safetensors: cannot write: "), "{ended:#?}");
}

#[test]
fn where_the_model_cannot_be_written_the_last_snapshot_still_is() {
    let sandbox = Sandbox::with_data();
    let options = ["-e", "inject=rename:error=EACCES:when=3+"];
    let Some(ended) = train(&sandbox, &options, "--train_epochs=3 --snapshots=1000") else { return };
    assert!(ended.code == Some(1) && ended.stderr.contains("the new contents are kept as "), "{ended:#?}");
    assert_eq!(sandbox.files("model/snapshots"), ["epoch-003.safetensors"]);
}

#[test]
fn an_old_snapshot_that_cannot_be_removed_is_named_and_no_new_one_is_lost() {
    let sandbox = Sandbox::with_data();
    // The thread has removed the two names of its trial, and the snapshots of two epochs.
    let options = ["-e", "inject=unlink:error=EACCES:when=5"];
    let Some(ended) = train(&sandbox, &options, "--train_epochs=7 --snapshots=1") else { return };
    let message = "epoch-003.safetensors: cannot remove: Permission denied (os error 13): this older snapshot stays\n";
    assert!(ended.stderr.contains(message), "{ended:#?}");
    assert!(!ended.stderr.contains("goes on without"), "{ended:#?}");
    assert_eq!(sandbox.files("model/snapshots").len(), 4);
}

#[test]
fn a_snapshot_that_does_not_fit_takes_no_space_from_the_model() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=1 --snapshots=1").done();
    let pages = fs::metadata(sandbox.path("model/snapshots/epoch-001.safetensors")).unwrap().len().div_ceil(4096);
    reset(&sandbox);
    let Some(_mount) = tmpfs(&sandbox.path("model"), &format!("size={}k", 4 * (pages + pages * 3 / 5))) else { return };
    // The second one fails, and its part of a file goes so much later. Meanwhile the training ends.
    let options = ["-e", "inject=unlink:delay_enter=300000"];
    let Some(ended) = train(&sandbox, &options, "--train_epochs=3 --snapshots=1") else { return };
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("the training goes on without the snapshot after epoch 2\n"), "{ended:#?}");
    assert!(sandbox.path("model/model.safetensors").exists(), "{ended:#?}");
}

#[test]
fn where_snapshots_have_filled_the_disk_the_message_says_how_to_come_to_the_model() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=2 --snapshots=1").done();
    let files = ["epoch-001.safetensors", "epoch-002.safetensors"];
    let bytes = files.map(|name| fs::metadata(sandbox.path("model/snapshots").join(name)).unwrap().len());
    let size = format!("size={}k", bytes.iter().map(|bytes| bytes.div_ceil(4096) * 4).sum::<u64>() + 24);
    reset(&sandbox);
    let Some(_mount) = tmpfs(&sandbox.path("model"), &size) else { return };
    let ended = sandbox.train("--train_epochs=4 --snapshots=1");
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let warning =
        "model/snapshots: takes space on that disk: move older snapshots elsewhere, then train again with --resume\n";
    assert!(ended.stderr.contains(warning), "{ended:#?}");
    fs::rename(sandbox.path("model/snapshots").join(files[0]), sandbox.path("elsewhere")).unwrap_or_else(|_| {
        fs::remove_file(sandbox.path("model/snapshots").join(files[0])).unwrap(); // on another file system
    });
    let ended = sandbox.train("--train_epochs=2 --resume");
    assert!(sandbox.path("model/model.safetensors").exists(), "{ended:#?}");
}
