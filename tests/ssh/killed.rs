//! Processes of a run that are killed, here and there.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Far, TRAIN, ended};
use crate::common::end;

const KILLED: &str = "error: far: task train ended there without an exit code: it or its supervisor was killed, or the machine \
                      went down\n";

/// The processes whose command lines match a pattern.
fn processes(pattern: &str) -> Vec<String> {
    end(Command::new("pgrep").args(["-f", pattern])).stdout.lines().map(String::from).collect()
}

/// Kills them.
#[track_caller]
fn kill(pattern: &str) {
    let found = processes(pattern);
    assert!(!found.is_empty(), "{pattern}");
    for pid in found {
        let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status(); // it may have ended with another
    }
}

/// Kills those of this program there whose arguments have `words` in them.
#[track_caller]
fn kill_there(far: &Far, words: &str) {
    kill(&format!("^{}.* {words} ", far.base().display()));
}

#[test]
fn an_ssh_that_is_killed_here_does_not_end_the_task() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    kill(&format!("ssh -F {}.* job follow ", far.cube.sandbox.path("ssh/config").display()));
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("error: far: lost the connection; task train goes on there\n"), "{stderr}");
    assert!(!stderr.contains("stopping task"), "{stderr}");
    assert!(!far.base().join("job/code").exists());
    // Nor does one that is killed there.
    let log = fs::File::create(far.cube.sandbox.path("stderr")).unwrap();
    let child = far.command(&format!("{TRAIN} --attach")).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    far.waits_for("stderr", "epoch 2/");
    kill_there(&far, "job follow");
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("error: far: lost the connection; task train goes on there\n"), "{stderr}");
    far.end_there();
}

#[test]
fn a_task_that_is_killed_there_is_named() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    kill_there(&far, "(supervise|train|run)");
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.ends_with(KILLED), "{stderr}");
    far.short_training();
    far.run(TRAIN).done();
}

#[test]
fn a_task_whose_supervisor_is_killed_is_not_taken_for_one_that_has_ended() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    kill_there(&far, "job supervise");
    thread::sleep(Duration::from_secs(1));
    let second = far.run(TRAIN);
    assert!(second.stderr.contains("error: far: task train runs there already, in "), "{second:#?}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(ended(child), Some(130), "{}", far.cube.sandbox.read("stderr"));
    let left = processes(&format!("^{}.* train ", far.base().display()));
    assert!(left.is_empty(), "{left:?} of a task that was stopped");
    assert!(far.outputs("model").contains_key("model.safetensors"));
}

#[test]
fn a_task_whose_supervisor_is_killed_is_waited_for_and_its_outputs_are_brought() {
    let Some(far) = Far::new() else { return };
    let child = far.long(TRAIN, 6);
    kill_there(&far, "job supervise");
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("max_seconds") && !stderr.contains("stopping task"), "{stderr}");
    assert!(stderr.ends_with(KILLED), "{stderr}");
    assert!(far.outputs("model").contains_key("model.safetensors"), "{stderr}");
    far.short_training();
    far.run(TRAIN).done();
}

#[test]
fn what_a_killed_task_leaves_running_keeps_its_place() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    // Guards first: they would end what their task has started.
    for name in ["job guard", "cube run"] {
        kill_there(&far, name);
    }
    let second = far.run(TRAIN);
    assert!(second.stderr.contains("error: far: task train runs there already, in "), "{second:#?}");
    kill(&format!("^{}[^ ]* train ", far.base().display()));
    ended(child);
    far.short_training();
    far.run(TRAIN).done();
}
