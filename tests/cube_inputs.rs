//! Inputs that come with a cube of configuration 2.0, in runs in another workspace.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mnist::files::lock::DirectoryLock;

use crate::common::Ended;
use crate::common::cube::OneFileCube;

/// A task reads the directory `dd` and writes the directory `dd/o`.
const NESTED: &str = "name: nested
docker:
  image: somebody/nested:1
tasks:
  go:
    parameters:
      inputs: {in: dd/}
      outputs: {out: dd/o/}
";

const RUN: &str = "run --platform=docker --task=go --workspace=../other";

fn nested() -> OneFileCube {
    let cube = OneFileCube::new(NESTED, &["dd/key", "dd/bin/script", "dd/o/made"]);
    cube.sandbox.write("image", "null");
    cube
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn copies_keep_their_permissions_and_lack_what_tasks_make() {
    let cube = nested();
    let modes = [("dd", 0o750), ("dd/key", 0o600), ("dd/bin", 0o700), ("dd/bin/script", 0o755)];
    for (name, mode) in modes {
        set_mode(cube.workspace(name), mode);
    }
    let ended = cube.run(RUN).done();
    for (name, expected) in modes {
        assert_eq!(mode(cube.sandbox.path("other").join(name)), expected, "{name}");
    }
    assert!(!cube.sandbox.path("other/dd/o/made").exists());
    assert!(ended.stderr.contains("other/dd: copied from "), "{ended:#?}");
    assert_eq!(cube.sandbox.files("other"), ["dd"]);
    // A file, which is no less private.
    cube.write("mlcube.yaml", NESTED.replace("dd/}", "dd/key}").replace("dd/o/", "o/"));
    cube.run(&RUN.replace("other", "third")).done();
    assert_eq!(mode(cube.sandbox.path("third/dd/key")), 0o600);
    assert_eq!(cube.sandbox.files("third/dd"), ["key"]);
}

#[test]
fn a_workspace_in_an_input_is_refused() {
    let cube = nested();
    let ended = cube.run(&RUN.replace("../other", "workspace/dd/inner/x"));
    let expected =
        "dd/inner/x: expected a directory outside the inputs that come with the cube, found one in such an input";
    assert!(ended.stderr.contains(expected) && ended.code != Some(0), "{ended:#?}");
    assert!(!ended.stderr.contains("copied from"), "{ended:#?}");
    assert!(!cube.sandbox.path("cube/workspace/dd/inner").exists());
    assert!(cube.calls().is_empty());
}

#[test]
fn what_a_killed_copy_left_goes_with_the_next_run() {
    let cube = nested();
    let left = "other/.dd.mnist-part";
    let leave = || {
        fs::create_dir_all(cube.sandbox.path(left).join("copied/bin")).unwrap();
        cube.sandbox.write(&format!("{left}/copied/half"), "h");
        cube.sandbox.write(&format!("{left}/.mnist-lock"), "process 1 on elsewhere");
    };
    leave();
    cube.run(RUN).done();
    assert_eq!(cube.sandbox.files("other"), ["dd"]);
    assert!(!cube.sandbox.path("other/dd/half").exists());
    // Also if the input has come in another way since.
    leave();
    let ended = cube.run(RUN).done();
    assert!(ended.stderr.contains("removed, left by a process that was killed"), "{ended:#?}");
    assert_eq!(cube.sandbox.files("other"), ["dd"]);
    // That of a living process stays.
    leave();
    let lock = DirectoryLock::take(&cube.sandbox.path(left)).unwrap();
    cube.run(RUN).done();
    assert!(cube.sandbox.path(left).join("copied/half").exists());
    drop(lock);
}

#[test]
fn a_run_waits_for_the_copy_of_another() {
    let cube = nested();
    let left = cube.sandbox.path("other/.dd.mnist-part");
    fs::create_dir_all(&left).unwrap();
    let lock = DirectoryLock::take(&left).unwrap();
    let other = cube.sandbox.path("other/dd");
    thread::scope(|scope| {
        let run = scope.spawn(|| cube.run(RUN));
        thread::sleep(Duration::from_millis(300));
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("theirs"), "").unwrap();
        drop(lock);
        let ended = run.join().unwrap().done();
        assert!(!ended.stderr.contains("copied from"), "{ended:#?}");
    });
    assert!(other.join("theirs").exists() && !other.join("key").exists());
    assert!(!left.exists());
}

#[test]
fn runs_at_once_into_one_new_workspace_all_succeed() {
    let cube = nested();
    for nth in 0..200 {
        cube.write(&format!("workspace/dd/many/{nth}"), "x");
    }
    thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| cube.run(RUN))).collect();
        let ended: Vec<Ended> = runs.into_iter().map(|run| run.join().unwrap().done()).collect();
        assert_eq!(ended.iter().filter(|ended| ended.stderr.contains("copied from")).count(), 1, "{ended:#?}");
    });
    assert_eq!(cube.sandbox.files("other"), ["dd"]);
    assert_eq!(cube.sandbox.files("other/dd/many").len(), 200);
}

#[test]
fn a_name_that_is_not_utf_8_is_refused_where_a_value_uses_it() {
    let cube = nested();
    let odd = cube.sandbox.path(OsStr::from_bytes(b"w\xff"));
    let run = || {
        let mut command = cube.sandbox.program();
        command.args(["cube", "run", "--platform=docker", "--task=go", "--workspace"]).arg(&odd);
        cube.in_place(&mut command)
    };
    cube.write("mlcube.yaml", NESTED.replace("dd/}", "'${workspace}/dd/'}"));
    let ended = run();
    let fault = "tasks.go.parameters.inputs.in.default: expected directories with names in UTF-8, found \"";
    assert!(ended.stdout.contains(fault) && ended.code == Some(1), "{ended:#?}");
    cube.write("mlcube.yaml", NESTED);
    let ended = run();
    assert!(!ended.stdout.contains("expected directories"), "{ended:#?}");
}

#[test]
fn a_task_whose_name_is_no_text_is_a_fault() {
    let cube = nested();
    cube.write("mlcube.yaml", format!("{NESTED}  ? [a]\n  : {{}}\n"));
    let ended = cube.run("check");
    assert!(ended.stdout.contains("tasks: expected keys that are texts, found a list"), "{ended:#?}");
}
