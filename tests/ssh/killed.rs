//! Processes of a run that are killed, here and there.

use std::fs;
use std::process::{Command, Stdio};

use super::{Far, TRAIN, ended};
use crate::common::end;

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
    kill(&format!("^{}.* job follow ", far.base().display()));
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("error: far: lost the connection; task train goes on there\n"), "{stderr}");
    far.end_there();
}
