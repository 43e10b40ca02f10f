//! `mnist cube` with the cubes of other programs: directories of the shape of MLCommons' examples.

use std::fs;

use crate::common::cube::{Cube, DOCKER, SINGULARITY};
use crate::common::{Ended, end};

/// A cube that greets, with an input file and an output directory, and one task that has no input.
fn hello() -> Cube {
    let cube = Cube::new().with("docker", DOCKER);
    for directory in ["tasks", "run", "platforms", "workspace"] {
        fs::remove_dir_all(cube.sandbox.path("the cube").join(directory)).unwrap();
    }
    fs::remove_file(cube.sandbox.path("the cube/mlcube-2.0.yaml")).unwrap();
    let root = "schema_version: 1.0.0\nschema_type: mlcube_root\nname: hello_world\nauthor: Somebody\nversion: 0.1.0\n\
                mlcube_spec_version: 0.1.0\ntasks:\n  - tasks/hello.yaml\n  - tasks/bye.yaml\n";
    cube.write("mlcube.yaml", root);
    let task = "schema_version: 1.0.0\nschema_type: mlcube_task\n";
    cube.write(
        "tasks/hello.yaml",
        format!("{task}inputs:\n  - name: name\n    type: file\noutputs:\n  - name: chat\n    type: directory\n"),
    );
    cube.write("tasks/bye.yaml", format!("{task}inputs: []\noutputs:\n  - name: chat\n    type: directory\n"));
    let run = "schema_version: 1.0.0\nschema_type: mlcube_invoke\n";
    let bound = "output_binding:\n  chat: $WORKSPACE/chat\n";
    cube.write(
        "run/alice.yaml",
        format!("{run}task_name: hello\ninput_binding:\n  name: $WORKSPACE/names/alice.txt\n{bound}"),
    );
    cube.write("run/bye.yaml", format!("{run}task_name: bye\ninput_binding: {{}}\n{bound}"));
    let platform =
        "schema_version: 1.0.0\nschema_type: mlcube_docker\nimage: mlperf/mlcube:hello_world\ndocker_runtime: docker\n";
    cube.write("platforms/docker.yaml", platform);
    cube.write("workspace/names/alice.txt", "Alice");
    cube.write("workspace/parameters/theirs.yaml", "of: another program");
    cube
}

#[test]
fn a_cube_of_another_program_is_right_and_runs() {
    let cube = hello();
    let ended = cube.run("check").done();
    assert_eq!(ended.stdout, ".: 6 files are right, tasks bye, hello\n");
    cube.run("configure --platform=docker").done();
    // Its image has no label of ours.
    cube.sandbox.write("image", r#"{"Entrypoint":["python3","-m","hello"],"Labels":null}"#);
    cube.run("run --platform=docker --task=alice").done();
    let run = cube.wrote("run");
    let mount = |name: &str, n: usize, more: &str| {
        format!("--mount=type=bind,source={},target=/mlcube_io{n}{more}", cube.workspace(name))
    };
    assert!(run.contains(&"--env=MLCUBE_NAME=hello_world".into()), "{run:#?}");
    let end = [
        &mount("names", 0, ",readonly"),
        &mount("chat", 1, ""),
        "mlperf/mlcube:hello_world",
        "hello",
        "--name=/mlcube_io0/alice.txt",
        "--chat=/mlcube_io1",
    ];
    assert_eq!(run[run.len() - end.len()..], end);
}

#[test]
fn it_gets_no_variable_of_this_program() {
    let cube = hello().with("singularity", SINGULARITY);
    cube.sandbox.write("image", "null");
    let singularity = "schema_version: 1.0.0\nschema_type: mlcube_singularity\nimage: hello.sif\n";
    cube.write("platforms/singularity.yaml", singularity);
    cube.write("workspace/hello.sif", "image");
    cube.sandbox.write("labels", "{}");
    let mirror = cube.sandbox.path("").display().to_string();
    for given in [&*mirror, "https://mirror.example/mnist", "\u{1}"] {
        for platform in ["docker", "singularity"] {
            let line = format!("run --platform={platform} --task=alice");
            end(cube.command(&line).env("MNIST_MIRROR", given)).done();
            let run = cube.wrote("run");
            let of_ours = ["MNIST_", "mlcube_mirror"];
            assert!(!run.iter().any(|word| of_ours.iter().any(|name| word.contains(name))), "{run:#?}");
        }
    }
}

#[test]
fn its_own_mistakes_are_found() {
    let cube = hello();
    let text = cube.sandbox.read("the cube/run/alice.yaml");
    cube.write("run/alice.yaml", text.replace("  name: ", "  nmae: "));
    let Ended { stdout, code, .. } = cube.run("run --platform=docker --task=alice");
    assert_eq!(code, Some(1));
    assert!(
        stdout.contains("run/alice.yaml:5: input_binding.nmae: expected name of task hello, found nmae"),
        "{stdout}"
    );
    cube.write("run/alice.yaml", text.replace("alice.txt", "nobody.txt"));
    let ended = cube.run("run --platform=docker --task=alice");
    assert!(ended.stdout.contains("nobody.txt, found none"), "{ended:#?}");
}

#[test]
fn this_program_alone_does_not_run_it() {
    let cube = hello();
    let file = "schema_version: 1.0.0\nschema_type:";
    cube.write("platforms/native.yaml", format!("{file} mlcube_native\n"));
    cube.write("platforms/a-node.yaml", format!("{file} mlcube_slurm\nplatform: native.yaml\n"));
    cube.write("platforms/far.yaml", format!("{file} mlcube_ssh\nhost: far\nplatform: a-node\n"));
    let next = "hint: give a platform with containers, such as Docker";
    cube.run("run --platform=native --task=alice")
        .failed_with(&format!("native: expected a task of this program, found hello of the cube hello_world\n{next}"));
    for platform in ["native", "a-node", "far", "native --dry_run"] {
        cube.run(&format!("configure --platform={platform}"))
            .failed_with(&format!("native: expected a cube of this program, found hello_world\n{next}"));
    }
    let recommends = |platform: &str| {
        let ended = cube.run("describe").done();
        assert_eq!(ended.stdout.matches(&format!(" --platform={platform}\n")).count(), 3, "{ended:#?}");
    };
    recommends("docker");
    let docker = cube.sandbox.path("the cube/platforms/docker.yaml");
    fs::rename(&docker, docker.with_file_name("other.yaml")).unwrap();
    recommends("other");
    assert!(cube.run("configure").stderr.contains("tip: --platform: known are other\n"));
    fs::remove_file(docker.with_file_name("other.yaml")).unwrap();
    recommends("FILE");
}
