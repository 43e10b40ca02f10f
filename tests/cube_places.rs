//! Where `mnist cube run` finds its files, inputs and outputs, and what it says of those that are not right.

use std::fs;
use std::path::Path;

use crate::common::cube::{Cube, DOCKER};
use crate::common::end;

const TRAIN: &str = "run --mlcube=. --platform=platforms/docker.yaml --task=run/train.yaml";

/// The command of a hint that runs `task` of `cube`.
fn typed(cube: &Cube, task: &str, flags: &str) -> String {
    let program = env!("CARGO_BIN_EXE_mnist");
    format!("`{program} cube run --task={task} --mlcube='{}' {flags}`", cube.sandbox.path("the cube").display())
}

#[test]
fn a_missing_input_is_named_before_anything_starts() {
    let cube = Cube::new().with("docker", DOCKER);
    fs::remove_dir(cube.workspace("data")).unwrap();
    cube.run(TRAIN).failed_with(&format!(
        "data_dir: expected a directory {}, found none\nhint: run the task download first, which makes it: {}",
        cube.workspace("data"),
        typed(&cube, "download", "--platform=platforms/docker.yaml")
    ));
    assert!(!Path::new(&cube.workspace("model")).exists());
    // No task makes a mistyped path.
    let text = cube.sandbox.read("the cube/run/train.yaml");
    cube.write("run/train.yaml", text.replace("$WORKSPACE/data", "$WORKSPACE/daat"));
    cube.run(TRAIN).failed_with(&format!(
        "data_dir: expected a directory {}, found none\nhint: name the right path in the run configuration",
        cube.workspace("daat")
    ));
    cube.write("workspace/daat", "");
    let ended = cube.run(TRAIN);
    assert!(ended.stderr.contains("/daat, found a file\n"), "{ended:#?}");
    // A fault of another file keeps nobody from the rest.
    cube.write("run/other.yaml", "a: 1\n");
    assert_eq!(cube.run(TRAIN).stderr, ended.stderr);
}

#[test]
fn a_new_workspace_is_told_what_it_lacks() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let nowhere = cube.sandbox.path("nope");
    let nowhere = nowhere.display();
    let run = || cube.run(&format!("run --platform=docker --task=train --workspace={nowhere}"));
    run().failed_with(&format!(
        "data_dir: expected a directory {nowhere}/data, found none\nhint: the workspace {nowhere} is not there: see \
         --workspace, or run the task download, which makes data_dir: {}, then copy {} to \
         {nowhere}/parameters/default.parameters.yaml",
        typed(&cube, "download", &format!("--platform=docker --workspace={nowhere}")),
        cube.workspace("parameters/default.parameters.yaml"),
    ));
    assert!(!cube.sandbox.path("nope").exists());
    fs::create_dir_all(cube.sandbox.path("nope/data")).unwrap();
    fs::create_dir(cube.sandbox.path("nope/parameters")).unwrap();
    let name = "parameters/default.parameters.yaml";
    run().failed_with(&format!(
        "parameters_file: expected a file {nowhere}/{name}, found none\nhint: copy {} there, which comes with the cube",
        cube.workspace(name)
    ));
    cube.sandbox.write(&format!("nope/{name}"), "batch_size: 0\n");
    let ended = run();
    assert!(ended.stdout.contains("nope/parameters/default.parameters.yaml:1: batch_size: "), "{ended:#?}");
    cube.sandbox.write(&format!("nope/{name}"), "");
    run().done();
    cube.sandbox.write("file", "");
    let ended = cube.run("run --platform=docker --task=download --workspace=../file");
    assert_eq!(ended.stderr, "error: --workspace=../file: expected a directory, found something else\n");
}

#[test]
fn a_task_that_would_overwrite_its_input_is_refused() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let text = cube.sandbox.read("the cube/run/train.yaml");
    let mine = text.replace("default.parameters", "parameters").replace("$WORKSPACE/model", "$WORKSPACE/parameters");
    cube.write("run/mine.yaml", &mine);
    cube.write("workspace/parameters/parameters.yaml", "# mine\ntrain_epochs: 1\n");
    let expected = format!(
        "expected a file that the task does not replace, as it does parameters.yaml in the output model_dir, found {}",
        cube.workspace("parameters/parameters.yaml")
    );
    for line in ["--task=mine", "--task=download,mine", "--task=mine --dry_run"] {
        for platform in ["docker", "native"] {
            cube.run(&format!("run --platform={platform} {line}")).failed_with(&format!(
                "task train: parameters_file: {expected}\nhint: keep inputs and outputs apart: name another path for one of \
                 them"
            ));
        }
    }
    assert!(!cube.sandbox.path("run").exists(), "nothing was started");
    let ended = cube.run("check");
    let expected = expected.replace(&cube.workspace(""), "workspace/");
    assert_eq!(ended.stdout, format!("run/mine.yaml:8: input_binding.parameters_file: {expected}\n"));
    // A data set that a task made is the input of another, and a directory may have several outputs.
    cube.write("run/mine.yaml", text.replace("$WORKSPACE/model", "$WORKSPACE/train_logs"));
    cube.run("check").done();
    cube.run("run --platform=docker --task=download,mine").done();
    let evaluate = cube.sandbox.read("the cube/run/evaluate.yaml");
    cube.write("run/mine.yaml", evaluate.replace("$WORKSPACE/evaluate_logs", "$WORKSPACE/model"));
    let ended = cube.run("check");
    let expected = "run/mine.yaml:8: input_binding.model_dir: expected another directory than that of the output log_dir, \
                    which gets a metrics.json too, found workspace/model\n";
    assert_eq!(ended.stdout, expected);
    fs::remove_file(cube.sandbox.path("the cube/run/mine.yaml")).unwrap();
    let text = cube.sandbox.read("the cube/mlcube-2.0.yaml");
    fs::remove_file(cube.sandbox.path("the cube/mlcube-2.0.yaml")).unwrap();
    cube.write("two.yaml", &text);
    let ended = cube.run("run --mlcube=two.yaml --platform=docker --task=train parameters_file=model/parameters.yaml");
    assert!(ended.stderr.contains("task train: parameters_file: expected a file that the task does not"), "{ended:#?}");
    cube.write("two.yaml", text.replace("parameters/default.parameters.yaml", "model/parameters.yaml"));
    cube.write("workspace/model/parameters.yaml", "");
    let ended = cube.run("check --mlcube=two.yaml");
    let fault =
        "two.yaml:31: tasks.train.parameters.inputs.parameters_file.default: expected a file that the task does not";
    assert!(ended.stdout.starts_with(fault), "{ended:#?}");
}

#[test]
fn a_name_alone_may_hold_points() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let platform = cube.sandbox.read("the cube/platforms/docker.yaml");
    cube.write("platforms/docker.v2.yaml", platform.replace("mlcube:mnist", "mlcube:second"));
    let run = cube.sandbox.read("the cube/run/download.yaml");
    cube.write("run/download.v2.yaml", run.replace("$WORKSPACE/data", "$WORKSPACE/second"));
    let ended = cube.run("run --platform=docker.v2 --task=download.v2 --dry_run").done();
    assert!(ended.stdout.contains("mlcube:second ") && ended.stdout.contains("/second,"), "{ended:#?}");
    // A name with another end is not cut.
    let ended = cube.run("run --platform=docker --task=train.v3 --dry_run");
    assert!(ended.stderr.contains("--task=train.v3: expected a run configuration"), "{ended:#?}");
    cube.write("platforms/node.yaml", "schema_version: 1.0.0\nschema_type: mlcube_slurm\nplatform: docker.v2\n");
    let ended = cube.run("run --platform=node --task=download --dry_run").done();
    assert!(ended.stdout.contains("mlcube:second "), "{ended:#?}");
}

#[test]
fn another_workspace_and_a_cube_elsewhere() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let other = cube.sandbox.path("other");
    fs::create_dir_all(other.join("parameters")).unwrap();
    fs::create_dir(other.join("data")).unwrap();
    fs::write(other.join("parameters/default.parameters.yaml"), "batch_size: 8\n").unwrap();
    let mut command = cube.command("run --platform=platforms/docker.yaml --task=run/train.yaml --workspace=other");
    end(command.arg("--mlcube=the cube/mlcube.yaml").current_dir(cube.sandbox.path(""))).done();
    let mount = format!("--mount=type=bind,source={},target=/mlcube_io3", other.join("model").display());
    assert!(cube.wrote("run").contains(&mount), "{:#?}", cube.wrote("run"));
}

#[test]
fn a_platform_file_that_names_no_other_is_a_fault() {
    let cube = Cube::new();
    let head = "schema_version: 1.0.0\nschema_type:";
    for (more, fault) in [
        ("", " platform: expected a value, found none"),
        ("platform:\n", "3: platform: expected a text, found nothing"),
        ("platform: 5\n", "3: platform: expected a text, found 5"),
        ("platform: true\n", "3: platform: expected a text, found true"),
        ("platform: {a: b}\n", "3: platform: expected a text, found keys with values"),
        ("platform: [native]\n", "3: platform: expected a text, found a list"),
    ] {
        cube.write("platforms/slurm.yaml", format!("{head} mlcube_slurm\n{more}"));
        cube.write("platforms/outer.yaml", format!("{head} mlcube_slurm\nplatform: slurm.yaml\n"));
        cube.write("platforms/ssh.yaml", format!("{head} mlcube_ssh\n{more}"));
        let run = "run --task=train --platform=";
        for (line, file) in [
            (format!("{run}slurm"), "slurm"),
            (format!("{run}slurm --dry_run"), "slurm"),
            (format!("{run}outer"), "slurm"),
            (format!("{run}ssh"), "ssh"),
            ("configure --platform=slurm".into(), "slurm"),
            ("inspect --platform=slurm".into(), "slurm"),
            ("inspect --platform=slurm --mlcube=mlcube-2.0.yaml".into(), "slurm"),
        ] {
            let ended = cube.run(&line);
            assert!(ended.stdout.contains(&format!("platforms/{file}.yaml:{fault}\n")), "{line}: {ended:#?}");
            assert_eq!(ended.code, Some(1), "{line}: {ended:#?}");
        }
    }
}
