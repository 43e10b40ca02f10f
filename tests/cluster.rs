//! The files for clusters, checked without a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_yaml::Value;

use crate::common::{Ended, Sandbox, end, valid_kubernetes_documents};
use crate::kubernetes::{TRAIN, copying_cluster};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name)
}

/// The Slurm script as Slurm would run it, in a cube, with this `singularity`.
fn script(sandbox: &Sandbox, nth: Option<&str>, parameters: &[&str], singularity: &str) -> Command {
    let bin = sandbox.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let scontrol = format!("echo \"$@\" >> {}", sandbox.path("scontrol").display());
    let srun = "[[ $1 == --cpus-per-task=3 ]] || exit 9; shift; exec \"$@\"";
    for (name, script) in [("srun", srun), ("singularity", singularity), ("scontrol", &scontrol)] {
        fs::write(bin.join(name), format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("bash");
    command.arg(file("slurm.sbatch")).args(parameters).current_dir(sandbox.path("the cube"));
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env_remove("WORKSPACE").env_remove("IMAGE");
    command.env("SLURM_JOB_ID", "77").env("SLURM_CPUS_PER_TASK", "3");
    command.env_remove("SLURM_ARRAY_TASK_ID").envs(nth.map(|nth| ("SLURM_ARRAY_TASK_ID", nth)));
    command
}

/// Runs the script with a `singularity` that prints its arguments.
fn sbatch(sandbox: &Sandbox, nth: Option<&str>, parameters: &[&str]) -> Ended {
    end(&mut script(sandbox, nth, parameters, "printf '%s\\n' \"$@\""))
}

/// A `singularity` that runs the program with the directories of the host in place of those in the container, and leaves
/// its process id in the file `pid`.
fn without_container(sandbox: &Sandbox) -> String {
    let (pid, program) = (sandbox.path("pid"), env!("CARGO_BIN_EXE_mnist"));
    format!(
        "echo $$ > {}; binds=(); arguments=(); shift\n\
         while [[ $1 == --bind ]]; do binds+=(\"$2\"); shift 2; done; shift\n\
         for argument in \"$@\"; do\n\
           for bind in \"${{binds[@]}}\"; do\n\
             IFS=: read -r host inside mode <<< \"$bind\"; argument=${{argument/=$inside/=$host}}\n\
           done\n\
           arguments+=(\"$argument\")\n\
         done\n\
         exec {program} \"${{arguments[@]}}\"",
        pid.display()
    )
}

/// A training that takes some seconds.
const LONG: &str = "train_epochs: 60\nbatch_size: 4\nhidden_layers: [64]\n";

/// Starts `command`, and sends SIGTERM to the process in the file `pid` once `snapshots` holds one. Returns the exit code.
fn stopped(sandbox: &Sandbox, mut command: Command, snapshots: &Path) -> Option<i32> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_snapshot = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("epoch-")))
    };
    while !fs::read_dir(snapshots).is_ok_and(|mut entries| entries.any(is_snapshot)) {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a snapshot");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = sandbox.read("pid").trim().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    child.wait().unwrap().code()
}

/// The model of [`LONG`] trained without a stop.
fn undisturbed(sandbox: &Sandbox) -> Vec<u8> {
    sandbox.write("parameters.yaml", LONG);
    sandbox.train("").done();
    fs::read(sandbox.path("model/model.safetensors")).unwrap()
}

#[test]
fn a_slurm_job_that_is_stopped_queues_again_and_goes_on() {
    let sandbox = Sandbox::with_data();
    let expected = undisturbed(&sandbox);
    fs::create_dir_all(sandbox.path("the cube/workspace/parameters")).unwrap();
    fs::rename(sandbox.path("data"), sandbox.path("the cube/workspace/data")).unwrap();
    sandbox.write("the cube/workspace/parameters/long.yaml", LONG);
    let job = || script(&sandbox, None, &["workspace/parameters/long.yaml"], &without_container(&sandbox));
    let model = sandbox.path("the cube/workspace/long/model");
    assert_eq!(stopped(&sandbox, job(), &model.join("snapshots")), Some(143));
    assert_eq!(sandbox.read("scontrol"), "requeue 77\n");
    assert!(mnist::model::file::is_unfinished(&model));
    let ended = end(&mut job()).done();
    assert!(ended.stderr.contains("training goes on after epoch"), "{ended:#?}");
    assert!(fs::read(model.join("model.safetensors")).unwrap() == expected);
    assert_eq!(sandbox.read("scontrol"), "requeue 77\n");
}

#[test]
fn a_pod_that_is_evicted_is_replaced_by_one_that_goes_on() {
    let sandbox = Sandbox::with_data();
    let expected = undisturbed(&sandbox);
    let text = fs::read_to_string(file("kubernetes.yaml")).unwrap();
    let job = text.split("\n---\n").map(|document| serde_yaml::from_str::<Value>(document).unwrap());
    let job = job.into_iter().find(|document| document["kind"] == "Job").unwrap();
    let arguments = job["spec"]["template"]["spec"]["containers"][0]["args"].as_sequence().unwrap().clone();
    let here = sandbox.path("").display().to_string();
    let pod = || {
        let arguments = arguments.iter().map(|argument| {
            let argument = argument.as_str().unwrap().replace("$(JOB_COMPLETION_INDEX)", "0");
            let parameters = argument.replace("=/parameters/0.yaml", &format!("={here}/parameters.yaml"));
            parameters.replace("=/data", &format!("={here}/data")).replace("=/models/0", &format!("={here}/pod"))
        });
        let mut command = Command::new("bash");
        let script = format!("echo $$ > {here}/pid; exec \"$@\"");
        command.args(["-c", &script, "pod", env!("CARGO_BIN_EXE_mnist")]).args(arguments);
        command
    };
    assert_eq!(stopped(&sandbox, pod(), &sandbox.path("pod/model/snapshots")), Some(143));
    end(&mut pod()).done();
    assert!(fs::read(sandbox.path("pod/model/model.safetensors")).unwrap() == expected);
}

#[test]
fn the_slurm_script_trains_with_the_parameters_of_its_place_in_the_array() {
    end(Command::new("bash").arg("-n").arg(file("slurm.sbatch"))).done();
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("the cube/workspace/parameters")).unwrap();
    let parameters = ["workspace/parameters/a.yaml", "workspace/parameters/b c.yaml"];
    for name in parameters {
        sandbox.write(&format!("the cube/{name}"), "");
    }
    let cube = sandbox.path("the cube").canonicalize().unwrap();
    let here = cube.display();
    for (nth, name) in [(None, "a"), (Some("0"), "a"), (Some("1"), "b c")] {
        let ended = sbatch(&sandbox, nth, &parameters).done();
        let expected = format!(
            "run\n--bind\n{here}/workspace/data:/data:ro\n--bind\n{here}/workspace/parameters:/parameters:ro\n--bind\n\
             {here}/workspace/{name}:/out\n{here}/workspace/mlcommons_mlcube_mnist-0.01.simg\ntrain\n--data_dir=/data\n\
             --parameters_file=/parameters/{name}.yaml\n--log_dir=/out/logs\n--model_dir=/out/model\n--snapshots=1\n--resume\n"
        );
        assert_eq!(ended.stdout, expected);
        assert!(cube.join("workspace").join(name).is_dir());
        are_flags("train", ended.stdout.lines().skip_while(|line| *line != "train").skip(1));
    }
    let ended = sbatch(&sandbox, Some("2"), &parameters);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.starts_with("expected a parameters file for job 2 of the array, found 2 of them"),
        "{ended:#?}"
    );
}

/// Checks that the arguments are flags of `task` and that no required one is missing.
#[track_caller]
fn are_flags<'a>(task: &str, arguments: impl Iterator<Item = &'a str>) {
    let flags = mnist::cli::flags_of(task).unwrap();
    let given: Vec<&str> =
        arguments.map(|argument| argument.trim_start_matches("--").split('=').next().unwrap()).collect();
    for name in &given {
        assert!(flags.all.iter().any(|flag| flag == name), "{task}: {name}");
    }
    for flag in &flags.required {
        assert!(given.contains(&flag.as_str()), "{task}: {flag}");
    }
}

#[test]
fn the_kubernetes_manifest_has_our_flags_and_valid_parameters() {
    let text = fs::read_to_string(file("kubernetes.yaml")).unwrap();
    let documents: Vec<Value> = text.split("\n---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect();
    let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
    let job = of_kind("Job");
    let pod = &job["spec"]["template"]["spec"];
    for (containers, task) in [("initContainers", "download"), ("containers", "train")] {
        let arguments = pod[containers][0]["args"].as_sequence().unwrap();
        let arguments: Vec<&str> = arguments.iter().map(|argument| argument.as_str().unwrap()).collect();
        assert_eq!(arguments[0], task);
        // A name that no registry can have (RFC 2606): nobody pulls another program by mistake.
        let image = format!("registry.example/mnist:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(pod[containers][0]["image"].as_str(), Some(&*image));
        are_flags(task, arguments[1..].iter().copied());
    }
    let parameters = of_kind("ConfigMap")["data"].as_mapping().unwrap();
    assert_eq!(job["spec"]["completions"].as_u64(), Some(parameters.len() as u64));
    let sandbox = Sandbox::new();
    for (nth, (name, text)) in parameters.iter().enumerate() {
        assert_eq!(name.as_str().unwrap(), format!("{nth}.yaml"));
        sandbox.write("p.yaml", text.as_str().unwrap());
        mnist::parameters::Parameters::read(&sandbox.path("p.yaml"), &[]).unwrap();
    }
}

#[test]
fn the_kubernetes_manifest_is_valid_by_kubernetes_own_schemas() {
    let Some(documents) = valid_kubernetes_documents(&file("kubernetes.yaml")) else { return };
    assert_eq!(documents, "3\n");
}

#[test]
fn every_container_is_as_hardened_as_those_of_the_shipped_manifest() {
    let read = |text: &str| -> Vec<Value> {
        let documents = serde_yaml::Deserializer::from_str(text);
        documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect()
    };
    let pod = |documents: Vec<Value>| {
        let job = documents.into_iter().find(|document| document["kind"] == "Job").unwrap();
        let mut pod = job["spec"]["template"]["spec"].clone();
        let containers =
            ["initContainers", "containers"].map(|list| pod[list].as_sequence().cloned().unwrap_or_default());
        let pod_wide = pod["securityContext"].as_mapping_mut().unwrap();
        // Those are the caller's.
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            pod_wide.remove(id).unwrap();
        }
        let each: Vec<_> =
            containers.concat().into_iter().map(|container| container["securityContext"].clone()).collect();
        (pod["securityContext"].clone(), each)
    };
    let shipped = fs::read_to_string(file("kubernetes.yaml")).unwrap();
    let (pod_wide, each) = pod(read(&shipped));
    let made = copying_cluster().run(&format!("{TRAIN} --dry_run")).done().stdout;
    assert_eq!(pod(read(&made)), (pod_wide, vec![each[0].clone(); 3]));
    assert!(made.contains("automountServiceAccountToken: false\n"));
}
