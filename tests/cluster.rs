//! The files for clusters, checked without a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Ended, Sandbox, end, python_with};
use serde_yaml::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name)
}

/// Runs the Slurm script as Slurm would, in a cube, with a `srun` and a `singularity` that print their arguments.
fn sbatch(sandbox: &Sandbox, nth: Option<&str>, parameters: &[&str]) -> Ended {
    let bin = sandbox.path("bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in [("srun", "exec \"$@\""), ("singularity", "printf '%s\\n' \"$@\"")] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("bash");
    command.arg(file("slurm.sbatch")).args(parameters).current_dir(sandbox.path("the cube"));
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env_remove("WORKSPACE").env_remove("IMAGE");
    command.env_remove("SLURM_ARRAY_TASK_ID").envs(nth.map(|nth| ("SLURM_ARRAY_TASK_ID", nth)));
    end(&mut command)
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
             --parameters_file=/parameters/{name}.yaml\n--log_dir=/out/logs\n--model_dir=/out/model\n"
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
        assert!(flags.iter().any(|flag| flag.name == *name), "{task}: {name}");
    }
    for flag in flags.iter().filter(|flag| flag.required) {
        assert!(given.contains(&flag.name.as_str()), "{task}: {}", flag.name);
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
    let Some(mut python) = python_with(&["kubernetes_validate", "yaml"]) else { return };
    let script = "import sys, yaml, kubernetes_validate as k\n\
                  documents = list(yaml.safe_load_all(open(sys.argv[1])))\n\
                  for document in documents: k.validate(document, k.latest_version(), strict=True)\n\
                  print(len(documents))";
    assert_eq!(end(python.arg("-c").arg(script).arg(file("kubernetes.yaml"))).done().stdout, "3\n");
}
