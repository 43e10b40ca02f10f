//! `docker: sudo docker`: the caller can send no signal to what root runs.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::cube::{OneFileCube, SUDO};
use crate::cube_2::hello;

/// A runner whose task runs in a container that sudo has started. The container ends by `docker kill`, which is written down.
fn running(sudo: &str) -> (OneFileCube, Child) {
    let cube = hello();
    cube.program(
        "docker",
        r#"case "$1 $2" in
version*) echo 28 ;;
info*) echo [] ;;
"image inspect") echo null ;;
kill*) printf '%s\n' "$@" >"$HERE/kill"; kill "$(cat "$HERE/pid")" ;;
run*) echo $$ >"$HERE/pid"; exec sleep 60 ;;
esac"#,
    );
    cube.program("sudo", sudo);
    let mut command = cube.sandbox.program();
    command.args(["cube", "run", "--platform=docker", "--task=hello", "-Pdocker.docker=sudo docker"]);
    let path = format!("{}:/usr/bin:/bin", cube.sandbox.path("bin").display());
    let child = command.env("PATH", path).current_dir(cube.sandbox.path("cube")).spawn().unwrap();
    wait_for(&cube, "pid");
    (cube, child)
}

/// Waits for what a program writes into the file `name`.
fn wait_for(cube: &OneFileCube, name: &str) {
    let begin = Instant::now();
    while fs::read(cube.sandbox.path(name)).unwrap_or_default().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing wrote {name}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn expect_killed(cube: &OneFileCube) {
    wait_for(cube, "kill");
    let killed = cube.sandbox.read("kill");
    let words: Vec<&str> = killed.lines().collect();
    assert!(matches!(words[..], ["kill", name, "--signal=15"] if name.starts_with("mlcube_hello_")), "{killed}");
}

#[test]
fn a_signal_reaches_a_container_that_sudo_started() {
    let (cube, mut child) = running(SUDO);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    expect_killed(&cube);
}

#[test]
fn a_container_that_sudo_started_ends_with_its_runner() {
    let (cube, mut child) = running(SUDO);
    child.kill().unwrap();
    child.wait().unwrap();
    expect_killed(&cube);
}

#[test]
fn a_sudo_that_cannot_ask_for_its_password_is_named() {
    let cube = hello();
    cube.program("sudo", "echo 'sudo: a password is required' >&2; exit 1");
    let mut command = cube.sandbox.program();
    command.args(["cube", "run", "--platform=docker", "--task=hello", "-Pdocker.docker=sudo docker"]);
    cube.in_place(&mut command).failed_with(
        "docker: the engine does not answer: sudo: a password is required\n\
         hint: call it on a terminal, where sudo can ask for it, or let sudoers give this user that program without one: \
         NOPASSWD:SETENV, so that it sees the proxies",
    );
}

#[test]
fn a_docker_that_does_not_answer_keeps_no_runner() {
    let hangs = SUDO.replace("kept=\n", "kept=\ncase $2 in kill) sleep 60 ;; esac\n");
    let (_, mut child) = running(&hangs);
    let begin = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
}
