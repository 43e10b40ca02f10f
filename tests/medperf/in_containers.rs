//! MedPerf's tasks in containers: by the command lines of its client, and by the client itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::{CALLS, ContainerTask, Mounts, Trial, Volume};
use crate::common::{end, root, skipped};
use crate::containers::{IMAGE, alone, docker_works};

/// The tasks of MedPerf's containers, by the command lines of its client (`cli/medperf/containers/runners`). The image must
/// hold this program: `docker build -t mlcommons/mlcube:mnist --build-arg FEATURES= build/`.
#[test]
fn medperf_runs_its_tasks_in_docker() {
    let _alone = alone();
    if !docker_works() {
        return;
    }
    let mut command = Command::new("docker");
    if end(command.args(["run", "--rm", "--network", "none", IMAGE, "medperf", "--help"])).code != Some(0) {
        return skipped(&format!("{IMAGE} is missing, or was built before it had `mnist medperf`"));
    }
    all_tasks("--volume", |name, user, group| {
        let mut command = Command::new("docker");
        command.args(["run", "--name", &format!("medperf-{name}-{}", std::process::id()), "--rm"]);
        command.args(["-u", &format!("{user}:{group}")]);
        (command, ["--network", "none", IMAGE].map(OsString::from).to_vec())
    });
}

/// The same in Singularity, in the image that MNIST_TEST_SIF names. Whoever starts it is the user.
#[test]
fn medperf_runs_its_tasks_in_singularity() {
    let _alone = alone();
    let Some(image) = std::env::var_os("MNIST_TEST_SIF") else {
        return skipped("MNIST_TEST_SIF names no image for Singularity");
    };
    all_tasks("--bind", |_, user, _| {
        let mut command = Command::new("singularity");
        command.args(["run", "-eC"]).env("BENCH_UID", user.to_string());
        (command, ["--net".into(), "--network".into(), "none".into(), image.clone()].to_vec())
    });
}

/// Runs every task in a container. `engine` makes the beginning of the command for a task, a user and a group, and what lies
/// between the volumes, which `flag` gives, and the task's own command.
#[track_caller]
fn all_tasks(flag: &str, engine: impl Fn(&str, u32, u32) -> (Command, Vec<OsString>)) {
    let trial = Trial::new();
    let (user, group) = trial.user();
    trial.all_tasks(|task, name, mounts| {
        let temporary = tempfile::tempdir().unwrap();
        chown(temporary.path(), Some(user), Some(group)).unwrap();
        let (mut command, image) = engine(name, user, group);
        for volume in volumes(&trial, task, mounts, temporary.path()) {
            command.arg(flag).arg(volume);
        }
        end(command.args(image).args(task.run_args.command.split(' ')))
    });
}

/// The volumes of `task`, as the client gives them to an engine.
fn volumes(trial: &Trial, task: &ContainerTask, mounts: &Mounts, temporary: &Path) -> Vec<String> {
    let of = |volumes: &BTreeMap<String, Volume>, mode: &str| -> Vec<String> {
        let volume = |(key, volume): (&String, &Volume)| {
            format!("{}:{}:{mode}", trial.host(key, mounts).display(), volume.mount_path)
        };
        volumes.iter().map(volume).collect()
    };
    let temporary = vec![format!("{}:/tmp:rw", temporary.display())];
    [of(&task.input_volumes, "ro"), of(&task.output_volumes, "rw"), temporary].concat()
}

/// The same by the client itself: MNIST_TEST_MEDPERF is the command that starts it.
#[test]
fn medperfs_own_client_runs_its_tasks() {
    let _alone = alone();
    let Some(client) = std::env::var_os("MNIST_TEST_MEDPERF") else {
        return skipped("MNIST_TEST_MEDPERF names no client of MedPerf");
    };
    if !docker_works() {
        return;
    }
    let trial = Trial::new();
    let home = tempfile::tempdir().unwrap();
    trial.all_tasks(|_, name, mounts| {
        let (role, ..) = CALLS.iter().find(|(_, task, _)| *task == name).unwrap();
        let config = root().join("medperf").join(role).join("container_config.yaml");
        let (files, others): (Vec<_>, Vec<_>) = mounts.iter().partition(|(key, _)| *key == "additional_files");
        let mounted: Vec<_> =
            others.iter().map(|(key, path)| format!("{key}={}", trial.sandbox.path(path).display())).collect();
        let mut command = Command::new(&client);
        command.args(["container", "run_test", "--task", name, "--container"]).arg(config);
        command.args(["--mounts", &mounted.join(",")]).env("HOME", home.path());
        for (_, path) in files {
            command.arg("--additional_files_path").arg(trial.sandbox.path(path));
        }
        end(&mut command)
    });
}
