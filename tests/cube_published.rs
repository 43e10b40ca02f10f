//! `mnist cube` beside the published runner 0.0.9, with cubes of the shapes of MLCommons' examples: both call docker and
//! singularity with the same mounts and the same command line in the container. Scripts stand in for both programs.
//!
//! The published runner is found by MNIST_TEST_MLCUBE_009, the directory of the program `mlcube`.
//!
//! What differs, on purpose:
//! - `mnist cube` has `--rm`, a name, the user, the network of the host, and variables that name the cube, the task and the
//!   host's paths; its mounts are `--mount`, and inputs read-only.
//! - An entrypoint of one word gets its arguments in Docker too, as the published documentation says.
//! - Values are words: no shell reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_yaml::Value;

use crate::common::cube::OneFileCube;
use crate::common::skipped;

const HELLO: &str = "name: hello_world
description: Greets people
platform: {accelerator_count: 0}
docker: {image: 'somebody/hello_world:0.0.1'}
tasks:
  hello:
    parameters:
      inputs: {name: {type: file, default: names/alice.txt}}
      outputs: {chat: {type: file, default: chats/chat.txt}}
  bye:
    parameters:
      inputs: {name: {type: file, default: names/alice.txt}}
      outputs: {chat: {type: file, default: chats/chat.txt}}
";

const MATMUL: &str = "name: matmul
docker:
  image: somebody/matmul:0.0.1
  build_strategy: auto
singularity:
  image: matmul.sif
tasks:
  matmul:
    parameters:
      inputs:
        parameters_file: {type: file, default: shapes.yaml}
      outputs:
        output_file: {type: file, default: matmul.txt}
";

/// It has the name of this program's cube.
const DIGITS: &str = "name: mnist
docker: {image: 'somebody/mnist:0.0.1'}
singularity: {image: mnist-0.0.1.sif, build_file: 'docker://somebody/mnist:0.0.1', run_args: '-C --net'}
tasks:
  download:
    parameters:
      outputs: {data_dir: {type: directory, default: data}, log_dir: {type: directory, default: logs}}
      inputs: {data_config: {type: file, default: data.yaml}}
  train:
    parameters:
      inputs: {data_dir: {type: directory, default: data}, train_config: {type: file, default: train.yaml}}
      outputs: {log_dir: {type: directory, default: logs}, model_dir: {type: directory, default: model}}
";

const DENOISE: &str = "name: emdenoise
version: 0.2.0
docker: {image: 'somebody/emdenoise:0.0.1', env_args: {MODE: fast, LEVEL: 3}, cpu_args: '--shm-size=1g -e A=b'}
tasks:
  download:
    parameters:
      outputs: {raw_data_dir: {type: directory, default: raw_data}, log_dir: {type: directory, default: logs}}
  preprocess:
    parameters:
      inputs: {raw_data_dir: {type: directory, default: raw_data}}
      outputs: {data_dir: {type: directory, default: data}, log_dir: {type: directory, default: logs}}
  train:
    parameters:
      inputs:
        data_dir: {type: directory, default: data}
        parameters_file: {type: file, default: parameters/default.parameters.yaml}
      outputs: {model_dir: model/, output_dir: output/, log_dir: logs/}
";

const HOUSING: &str = "name: Somebody's Boston Housing
docker:
  image: somebody/housing:0.0.1
  build_context: ../project
  build_file: Dockerfile
tasks:
  download_data:
    entrypoint: python 01_download.py
    parameters:
      inputs: {parameters_file: {type: file, default: parameters.yaml}}
      outputs: {data_dir: data/}
  preprocess_data:
    entrypoint: python 02_preprocess.py --verbose
    parameters:
      inputs: {input_file: data/raw_dataset.txt}
      outputs: {output_file: {type: file, default: data/processed.csv}}
  train:
    entrypoint: python 03_train.py
    parameters:
      inputs: {dataset_file_path: data/processed.csv, parameters_file: parameters.yaml}
";

const FEDERATED: &str = "name: Somebody's federation
docker: {image: 'somebody/fl:0.0.1', gpu_args: '--gpus all'}
platform: {accelerator_count: 1}
tasks:
  train:
    parameters:
      inputs: {data_dir: data/, checkpoint: {type: file, default: 'null'}, model_in: {type: directory, default: model}}
      outputs: {metrics: {type: file, default: metrics/train.json}, model_dir: {type: directory, default: model}}
  sanity_check:
    parameters:
      inputs: {data_dir: data/}
  idle:
";

const NAMED: &str = "name: named
registry: registry.example:5000
data: {home: '${workspace}/data', set: small}
docker:
  image: ${registry}/${name}:${version}
  --network: none
version: '1.5'
singularity:
  image: ${name}-${version}.sif
  image_dir: ${runtime.root}/images
  build_args: ''
tasks:
  score:
    parameters:
      inputs:
        data_dir: {type: directory, default: '${data.home}/${data.set}', opts: ro}
        cache_dir: {type: directory, default: cache, opts: rw}
        table: ${data.home}/table.csv
        absolute: {type: directory, default: /usr/share}
      outputs:
        result: {type: directory, default: out/result}
        inner: {default: '${runtime.workspace}/out/inner/'}
";

/// The cubes, each with the files of its workspace and its tasks.
const CUBES: [(&str, &str, &[&str], &str); 7] = [
    ("hello", HELLO, &["names/alice.txt", "names/bob.txt"], "hello,bye"),
    ("matmul", MATMUL, &["shapes.yaml"], "matmul"),
    ("digits", DIGITS, &["data.yaml", "train.yaml"], "download,train"),
    ("denoise", DENOISE, &["parameters/default.parameters.yaml"], "download,preprocess,train"),
    (
        "housing",
        HOUSING,
        &["parameters.yaml", "data/raw_dataset.txt", "data/processed.csv"],
        "download_data,preprocess_data,train",
    ),
    ("federated", FEDERATED, &["data/x"], "train,sanity_check,idle"),
    ("named", NAMED, &["data/small/x", "data/table.csv", "cache/x"], "score"),
];

/// The published program, if there is one.
fn published() -> Option<PathBuf> {
    let found = std::env::var_os("MNIST_TEST_MLCUBE_009").map(|directory| PathBuf::from(directory).join("mlcube"));
    if found.as_ref().is_none_or(|program| !program.is_file()) {
        skipped("no published runner; set MNIST_TEST_MLCUBE_009 to the directory with mlcube 0.0.9");
        return None;
    }
    found
}

fn cube(yaml: &str, files: &[&str]) -> OneFileCube {
    let cube = OneFileCube::new(yaml, files);
    fs::create_dir(cube.sandbox.path("project")).unwrap();
    cube.write("../project/Dockerfile", "");
    cube.write("Singularity.recipe", "");
    cube.sandbox.write("image", "null");
    cube
}

/// What a task gets.
#[derive(Debug, PartialEq)]
struct Started {
    /// Host and container paths.
    mounts: BTreeMap<String, String>,
    /// The words after the image, after those of an entrypoint.
    words: Vec<String>,
    /// Arguments before the image that are no mounts.
    arguments: Vec<String>,
}

fn started(call: &[String], image: &str) -> Started {
    let at = call.iter().position(|word| word == image).unwrap_or_else(|| panic!("no {image} in {call:#?}"));
    let (mut mounts, mut arguments, mut entrypoint) = (BTreeMap::new(), vec![], vec![]);
    let mut words = call[..at].iter();
    while let Some(word) = words.next() {
        if word == "--volume" || word == "--bind" {
            let mut parts = words.next().unwrap().split(':');
            mounts.insert(parts.next().unwrap().into(), parts.next().unwrap().into());
        } else if let Some(mount) = word.strip_prefix("--mount=type=bind,source=") {
            let (source, target) = mount.split_once(",target=").unwrap();
            mounts.insert(source.into(), target.trim_end_matches(",readonly").into());
        } else if let Some(program) = word.strip_prefix("--entrypoint=") {
            entrypoint.push(program.to_string());
        } else {
            arguments.push(word.clone());
        }
    }
    entrypoint.extend_from_slice(&call[at + 1..]);
    Started { mounts, words: entrypoint, arguments }
}

/// Runs `tasks` with `more` arguments by both runners, and compares what docker and singularity are called with.
#[track_caller]
fn alike(program: &PathBuf, cube: &OneFileCube, platform: &str, tasks: &str, more: &str, image: &str) {
    let line = format!("run --mlcube=. --platform={platform} --task={tasks} {more}");
    cube.run(&line).done();
    let ours = cube.calls();
    let mut command = Command::new(program);
    let ended = cube.in_place(command.args(line.split_whitespace())).done();
    let theirs = cube.calls();
    assert_eq!(theirs.len(), tasks.split(',').count(), "{ended:#?}");
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}\n{theirs:#?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours[0], theirs[0]);
        let (ours, theirs) = (started(ours, image), started(theirs, image));
        assert_eq!((&ours.mounts, &ours.words), (&theirs.mounts, &theirs.words));
        let theirs = theirs.arguments.iter().filter(|word| *word != "-e");
        let has = |word: &String| ours.arguments.iter().any(|ours| ours.trim_start_matches("--env=") == word);
        let missing: Vec<_> = theirs.filter(|word| !has(word)).collect();
        assert!(missing.is_empty(), "{missing:?} is not in {:?}", ours.arguments);
    }
}

#[test]
fn docker_gets_the_same_mounts_and_command_lines() {
    let Some(program) = published() else { return };
    for (_, yaml, files, tasks) in CUBES {
        let cube = cube(yaml, files);
        let image = serde_yaml::from_str::<Value>(yaml).unwrap()["docker"]["image"].as_str().unwrap().to_string();
        let image = if image.contains("${") { "registry.example:5000/named:1.5".into() } else { image };
        alike(&program, &cube, "docker", tasks, "", &image);
    }
}

#[test]
fn singularity_gets_the_same_mounts_and_command_lines() {
    let Some(program) = published() else { return };
    for (name, yaml, files, tasks) in CUBES {
        let cube = cube(yaml, files);
        let image = match name {
            "hello" => ".image/somebodyhelloworld001.sif",
            "matmul" => ".image/matmul.sif",
            "digits" => ".image/mnist-0.0.1.sif",
            "denoise" => ".image/somebodyemdenoise001.sif",
            "housing" => ".image/somebodyhousing001.sif",
            "federated" => ".image/somebodyfl001.sif",
            _ => "../images/named-1.5.sif",
        };
        cube.write(&format!("workspace/{image}"), "");
        let image = if name == "named" {
            cube.sandbox.path("cube/images/named-1.5.sif").display().to_string()
        } else {
            cube.workspace(image)
        };
        alike(&program, &cube, "singularity", tasks, "", &image);
    }
}

#[test]
fn the_command_line_changes_the_same() {
    let Some(program) = published() else { return };
    let hello = cube(HELLO, CUBES[0].2);
    // No h in -P: the published `run` takes it for -h.
    let bob = "-Ptasks.bye.parameters.inputs.name.default=names/bob.txt -Pdocker.image=me/greet:2";
    alike(&program, &hello, "docker", "hello,bye", bob, "me/greet:2");
    alike(&program, &hello, "docker", "hello", "name=names/bob.txt", "somebody/hello_world:0.0.1");
    alike(&program, &hello, "docker", "hello", "-Pdocker.--memory=2g", "somebody/hello_world:0.0.1");
    alike(&program, &hello, "docker", "hello", "-Prunner.cpu_args=--ipc=none", "somebody/hello_world:0.0.1");
    // The input comes from the cube's workspace into the other one.
    let other = hello.sandbox.path("other").display().to_string();
    alike(&program, &hello, "docker", "hello", &format!("--workspace={other}"), "somebody/hello_world:0.0.1");
    let federated = cube(FEDERATED, CUBES[5].2);
    let without = "-Pplatform.accelerator_count=0";
    alike(&program, &federated, "docker", "train", without, "somebody/fl:0.0.1");
    assert!(
        !federated.run(&format!("run --platform=docker --task=train --dry_run {without}")).stdout.contains("--gpus")
    );
}

#[test]
fn images_are_made_the_same() {
    let Some(program) = published() else { return };
    let commands = |cube: &OneFileCube, platform: &str, more: &str| {
        let line = format!("configure --mlcube=. --platform={platform} {more}");
        cube.run(&line).done();
        let ours = cube.calls();
        let _ = fs::remove_dir_all(cube.sandbox.path("cube/workspace/.image"));
        cube.in_place(Command::new(&program).args(line.split_whitespace())).done();
        (ours.concat(), cube.calls().concat())
    };
    let housing = cube(HOUSING, CUBES[4].2);
    let (ours, theirs) = commands(&housing, "docker", "");
    assert_eq!(ours, theirs);
    assert_eq!(ours, ["pull", "somebody/housing:0.0.1"]);
    let (ours, theirs) = commands(&housing, "docker", "-Pdocker.build_strategy=auto -Pdocker.build_args={\"A\":\"1\"}");
    let project = housing.sandbox.path("project").display().to_string();
    assert_eq!(
        theirs,
        [
            "build",
            "--build-arg",
            "A=1",
            "-t",
            "somebody/housing:0.0.1",
            "-f",
            &format!("{project}/Dockerfile"),
            &project
        ]
    );
    let context = housing.sandbox.path("cube/../project").display().to_string();
    assert_eq!(
        ours,
        ["build", "--build-arg=A=1", "--tag=somebody/housing:0.0.1", &format!("--file={context}/Dockerfile"), &context]
    );
    for (yaml, recipe) in [(MATMUL, "Singularity.recipe"), (HELLO, "docker://somebody/hello_world:0.0.1")] {
        let (ours, theirs) = commands(&cube(yaml, &[]), "singularity", "");
        assert_eq!(theirs[..2], ["build", "--fakeroot"]);
        assert_eq!((ours.len(), &ours[..2], &ours[3]), (4, &theirs[..2], &theirs[3]));
        assert_eq!(ours[3], recipe);
        assert!(
            ours[2].contains(".sif.mnist-part/mlcube_image_") && theirs[2].ends_with(".sif"),
            "{ours:?} {theirs:?}"
        );
    }
}

#[test]
fn the_effective_configuration_is_the_same() {
    let Some(program) = published() else { return };
    for (name, yaml, files, _) in CUBES {
        let cube = cube(yaml, files);
        for flags in ["", "--resolve", "--resolve --platform=singularity", "-Pdocker.build_strategy=always -Pa.b=[1,2]"]
        {
            if name == "named" && !flags.contains("--resolve") {
                continue; // there the published one resolves some values too
            }
            let line = format!("show_config --mlcube=mlcube.yaml {flags}");
            let ours = cube.run(&line).done().stdout;
            let theirs = cube.in_place(Command::new(&program).args(line.split_whitespace())).done().stdout;
            let value = |text: &str| serde_yaml::from_str::<BTreeMap<String, Value>>(text).unwrap();
            let mut expected = value(&theirs);
            expected.retain(|name, value| name != "singularity" || !value.as_mapping().unwrap().is_empty());
            assert_eq!(value(&ours), expected, "{name} {flags}\n{ours}\n{theirs}");
        }
    }
}

#[test]
fn a_cube_is_described_in_the_same_words() {
    let Some(program) = published() else { return };
    for (_, yaml, files, _) in CUBES {
        let cube = cube(yaml, files);
        let ours = cube.run("describe").done().stdout;
        let theirs = cube.in_place(Command::new(&program).arg("describe")).done().stdout;
        let about = |text: &str| {
            let lines = text.split("Run this").next().unwrap().lines().filter(|line| !line.contains("system settings"));
            lines.map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(about(&ours), about(&theirs));
    }
}
