//! What others left under the names that the program gives its own files: it is never followed, written or removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::cube::Cube;
use crate::common::{Sandbox, fifo};
use mnist::files::lock;

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
        cube.write("workspace/model/model.safetensors", "ours");
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
    cube.write("workspace/model/model.safetensors", "ours");
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
    cube.write("workspace/model/model.safetensors", "ours");
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
