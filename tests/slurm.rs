//! `mnist cube` on a node of a Slurm cluster: the one that SLURM_CONF names, as `.ci/slurm-up` makes it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cube::Cube;
use crate::common::{end, skipped};

const PLATFORM: &str = "schema_version: 1.0.0\nschema_type: mlcube_slurm\nplatform: native.yaml\n";
const TRAIN: &str = "run --platform=slurm --task=train";

/// A cube with data; none without a cluster.
fn cube() -> Option<Cube> {
    if std::env::var_os("SLURM_CONF").is_none() || Command::new("srun").arg("--version").output().is_err() {
        skipped("SLURM_CONF names no cluster");
        return None;
    }
    Some(cube_with_data())
}

fn cube_with_data() -> Cube {
    let cube = Cube::new();
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
    cube.write("platforms/slurm.yaml", PLATFORM);
    cube
}

#[test]
fn a_task_on_a_node_gives_the_same_model() {
    let Some(cube) = cube() else { return };
    cube.run("run --platform=native --task=train").done();
    let expected = fs::read(cube.workspace("model/model.safetensors")).unwrap();
    fs::remove_dir_all(cube.workspace("model")).unwrap();
    cube.write("platforms/slurm.yaml", format!("{PLATFORM}time: \"00:05:00\"\ncpus-per-task: 1\nmem: 500M\n"));
    cube.run("configure --platform=slurm").done();
    let ended = cube.run(TRAIN).done();
    assert!(ended.stderr.contains("epoch 1/1: ") && ended.stdout.contains("test accuracy"), "{ended:#?}");
    assert_eq!(fs::read(cube.workspace("model/model.safetensors")).unwrap(), expected);
}

#[test]
fn the_exit_code_is_that_of_the_task_on_the_node() {
    let Some(cube) = cube() else { return };
    fs::remove_file(cube.workspace("data/train-images-idx3-ubyte")).unwrap();
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("train-images-idx3-ubyte is missing"), "{ended:#?}");
    cube.write("platforms/slurm.yaml", format!("{PLATFORM}partition: no-such\n"));
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("srun: error: ") && ended.stderr.contains("partition"), "{ended:#?}");
}

/// Starts a long training, and waits for its second epoch.
fn long_training(cube: &Cube) -> Child {
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 100000\nhidden_layers: [16]\n");
    let log = fs::File::create(cube.sandbox.path("stderr")).unwrap();
    let child = cube.command(TRAIN).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.read("stderr").contains("epoch 2/") {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", cube.sandbox.read("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Waits until the cluster has no job of the runner.
fn wait_for_the_end(runner: &Child) {
    let begin = Instant::now();
    let name = format!("mlcube_train_{}-", runner.id());
    let jobs = || end(Command::new("squeue").args(["--noheader", "--format=%j"])).done().stdout;
    while jobs().contains(&name) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", jobs());
    }
}

#[test]
fn a_signal_ends_the_task_on_the_node_with_its_model() {
    let Some(cube) = cube() else { return };
    let mut child = long_training(&cube);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", cube.sandbox.read("stderr"));
    assert!(Path::new(&cube.workspace("model/model.safetensors")).exists(), "{}", cube.sandbox.read("stderr"));
    wait_for_the_end(&child);
}

#[test]
fn a_runner_that_is_killed_ends_the_task_on_the_node_with_its_model() {
    let Some(cube) = cube() else { return };
    let mut child = long_training(&cube);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_the_end(&child);
    assert!(Path::new(&cube.workspace("model/model.safetensors")).exists(), "{}", cube.sandbox.read("stderr"));
}

#[test]
fn a_machine_without_slurm_is_named() {
    let cube = cube_with_data();
    end(cube.command(TRAIN).env("PATH", cube.sandbox.path("bin"))).failed_with(
        "srun: expected this program in PATH, found none\nhint: call it where Slurm's commands are, such as the cluster's \
         login node",
    );
}

#[test]
fn the_flags_of_the_node_are_words() {
    let cube = cube_with_data();
    for (given, found) in [("--x", "\"--x\""), ("a b", "\"a b\""), ("[]", "a list"), ("\"\"", "\"\"")] {
        cube.write("platforms/slurm.yaml", format!("{PLATFORM}partition: {given}\n"));
        let ended = cube.run(TRAIN);
        let expected = format!("./platforms/slurm.yaml:4: partition: expected a word or a number, found {found}\n");
        assert_eq!(ended.stdout, expected, "{ended:#?}");
    }
    for (given, meant) in [("natvie.yaml", "native.yaml"), ("dokcer.yaml", "docker.yaml")] {
        cube.write("platforms/slurm.yaml", PLATFORM.replace("native.yaml", given));
        let ended = cube.run(TRAIN);
        let expected = format!(
            "./platforms/slurm.yaml:3: platform: expected the path of another platform file, from this one's directory on, \
             found \"{given}\", which is not there: did you mean {meant}?\n"
        );
        assert_eq!(ended.stdout, expected, "{ended:#?}");
    }
    for (given, expected) in
        [("slurm.yaml", "a platform file other than this one"), ("ssh.yaml", "a platform of one machine")]
    {
        cube.write("platforms/slurm.yaml", PLATFORM.replace("native.yaml", given));
        let ended = cube.run(TRAIN);
        let expected = format!("./platforms/slurm.yaml:3: platform: expected {expected}, found \"{given}\"\n");
        assert_eq!(ended.stdout, expected, "{ended:#?}");
    }
}

#[test]
fn google_cloud_is_read_and_leads_to_ssh() {
    let cube = cube_with_data();
    let file = "schema_version: 1.0.0\nschema_type: mlcube_gcp\ngcp: {project_id: p, zone: z, credentials: {file: f, scopes: []}}\n\
                instance: {name: i, machine_type: n1-standard-1, disk_size_gb: 100}\nplatform: ssh.yaml\n";
    cube.write("platforms/gcp.yaml", file);
    cube.run("run --platform=gcp --task=train").failed_with(
        "mlcube_gcp: expected a platform that this program runs, found one that makes a virtual machine\nhint: make the \
         machine with `gcloud compute instances create`, let `gcloud compute config-ssh` name it, and give that name as \
         `host` in platforms/ssh.yaml",
    );
}
