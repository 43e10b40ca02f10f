//! `mnist cube check` finds nothing in our own cube, and prints each kind of fault on one line, with file and line.

use std::fs;

use mnist::cube::directory::CubeDir;

use crate::common::cube::files;
use crate::common::{self, Ended, Sandbox, end, root};

/// A copy of our cube's files.
fn copy() -> Sandbox {
    let sandbox = Sandbox::new();
    for file in files() {
        fs::create_dir_all(sandbox.path(&file).parent().unwrap()).unwrap();
        fs::copy(root().join(&file), sandbox.path(&file)).unwrap();
    }
    sandbox
}

/// Checks a copy of our cube in which `from` is `to` in `file`.
#[track_caller]
fn check_with(file: &str, from: &str, to: &str) -> Ended {
    let sandbox = copy();
    let text = sandbox.read(file);
    assert!(text.contains(from), "{file} has no {from:?}");
    sandbox.write(file, text.replacen(from, to, 1));
    sandbox.run("cube check")
}

#[track_caller]
fn finds(file: &str, from: &str, to: &str, faults: &[&str]) {
    let ended = check_with(file, from, to);
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), faults, "{ended:#?}");
    let plural = if faults.len() == 1 { "fault" } else { "faults" };
    ended.failed_with(&format!(".: {} {plural} in the cube's files", faults.len()));
}

#[test]
fn our_cube_is_right() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.program();
    let ended = end(command.args(["cube", "check", "--mlcube"]).arg(root())).done();
    assert!(ended.stdout.ends_with(" files are right, tasks download, evaluate, train\n"), "{}", ended.stdout);
    let ended = copy().run("cube check --mlcube=mlcube.yaml").done();
    let count = files().len();
    assert_eq!(ended.stdout, format!("mlcube.yaml: {count} files are right, tasks download, evaluate, train\n"));
}

#[test]
fn our_files_are_those_of_mlcubes_documentation() {
    let yaml = |file: &str| -> serde_json::Value {
        serde_yaml::from_str(&fs::read_to_string(root().join(file)).unwrap()).unwrap()
    };
    let directory = |name: &str| serde_json::json!({ "name": name, "type": "directory" });
    assert_eq!(
        yaml("mlcube.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_root", "name": "mnist",
            "author": "MLPerf Best Practices Working Group", "version": "0.1.0", "mlcube_spec_version": "0.1.0",
            "tasks": ["tasks/download.yaml", "tasks/train.yaml", "tasks/evaluate.yaml"],
        })
    );
    assert_eq!(
        yaml("tasks/download.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_task", "inputs": [],
            "outputs": [directory("data_dir"), directory("log_dir")],
        })
    );
    assert_eq!(
        yaml("tasks/train.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_task",
            "inputs": [directory("data_dir"), { "name": "parameters_file", "type": "file" }],
            "outputs": [directory("log_dir"), directory("model_dir")],
        })
    );
    assert_eq!(
        yaml("run/download.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_invoke", "task_name": "download", "input_binding": {},
            "output_binding": { "data_dir": "$WORKSPACE/data", "log_dir": "$WORKSPACE/download_logs" },
        })
    );
    assert_eq!(
        yaml("run/train.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_invoke", "task_name": "train",
            "input_binding": {
                "data_dir": "$WORKSPACE/data",
                "parameters_file": "$WORKSPACE/parameters/default.parameters.yaml",
            },
            "output_binding": { "log_dir": "$WORKSPACE/train_logs", "model_dir": "$WORKSPACE/model" },
        })
    );
    assert_eq!(
        yaml("platforms/docker.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_docker", "image": "mlcommons/mlcube:mnist",
            "docker_runtime": "docker",
        })
    );
    assert_eq!(
        yaml("platforms/singularity.yaml"),
        serde_json::json!({
            "schema_version": "1.0.0", "schema_type": "mlcube_singularity",
            "image": "/opt/singularity/mlcommons_mlcube_mnist-0.01.simg",
        })
    );
    assert_eq!(
        yaml("workspace/parameters/default.parameters.yaml"),
        serde_json::json!({ "optimizer": "adam", "train_epochs": 5, "batch_size": 32 })
    );
}

#[test]
fn faults_of_the_schemas_are_found() {
    finds("mlcube.yaml", "name: mnist\n", "", &["mlcube.yaml: name: expected a value, found none"]);
    finds(
        "mlcube.yaml",
        "version: 0.1.0",
        "version: 1",
        &["mlcube.yaml:7: version: expected a version such as 0.1.0, found 1"],
    );
    finds(
        "mlcube.yaml",
        "schema_version: 1.0.0",
        "schema_version: 2.0.0",
        &["mlcube.yaml:2: schema_version: expected 1.0.0, found \"2.0.0\""],
    );
    finds(
        "tasks/train.yaml",
        "mlcube_task",
        "mlcube_tusk",
        &[
            "run/train.yaml:4: task_name: expected download or evaluate, found \"train\"",
            "tasks/train.yaml:3: schema_type: expected mlcube_task, found \"mlcube_tusk\"",
        ][1..],
    );
    finds(
        "tasks/train.yaml",
        "type: file",
        "type: files",
        &["tasks/train.yaml:9: inputs[1].type: expected directory or file, found \"files\""],
    );
    finds(
        "platforms/docker.yaml",
        "docker_runtime: docker",
        "docker_runtime: lxc",
        &["platforms/docker.yaml:5: docker_runtime: expected docker, nvidia-docker or podman, found \"lxc\""],
    );
    finds(
        "platforms/singularity.yaml",
        "image:",
        "imag:",
        &[
            "platforms/singularity.yaml: image: expected a value, found none",
            "platforms/singularity.yaml:4: imag: unknown key: did you mean image?",
        ],
    );
    finds(
        "platforms/mlcube-0.0.3/docker.yaml",
        "mlcube_platform",
        "mlcube_root",
        &["platforms/mlcube-0.0.3/docker.yaml:3: schema_type: expected mlcube_docker, mlcube_singularity, \
           mlcube_native, mlcube_slurm, mlcube_gcp, mlcube_ssh, mlcube_k8s or mlcube_platform, found \"mlcube_root\""],
    );
    finds(
        "platforms/mlcube-0.0.3/docker.yaml",
        "image: mlcommons/mlcube:mnist",
        "image: 3",
        &[
            "platforms/mlcube-0.0.3/docker.yaml:9: container.image: expected the name of an image, such as mlcommons/mlcube:mnist, found 3",
        ],
    );
}

#[test]
fn faults_of_tasks_and_bindings_are_found() {
    finds(
        "mlcube.yaml",
        "tasks/evaluate.yaml",
        "tasks/predict.yaml",
        &["mlcube.yaml:13: expected a file tasks/predict.yaml, found none"],
    );
    finds(
        "mlcube.yaml",
        "  - tasks/train.yaml",
        "  - tasks/train.yaml\n  - tasks/train.yaml",
        &["mlcube.yaml:13: expected each task once, found train again"],
    );
    finds(
        "run/train.yaml",
        "task_name: train",
        "task_name: trian",
        &["run/train.yaml:4: task_name: expected download, evaluate or train, found \"trian\""],
    );
    finds(
        "run/train.yaml",
        "  log_dir: $WORKSPACE/train_logs\n",
        "",
        &["run/train.yaml:9: output_binding: expected a value for log_dir of task train, found none"],
    );
    finds(
        "run/train.yaml",
        "  log_dir:",
        "  logs:",
        &[
            "run/train.yaml:9: output_binding: expected a value for log_dir of task train, found none",
            "run/train.yaml:10: output_binding.logs: expected log_dir or model_dir of task train, found logs",
        ],
    );
    finds(
        "run/download.yaml",
        "input_binding: {}",
        "input_binding: { data_dir: x }",
        &["run/download.yaml:6: input_binding.data_dir: expected no parameter of task download, found data_dir"],
    );
    finds(
        "run/train.yaml",
        "default.parameters.yaml",
        "other.yaml",
        &[
            "run/train.yaml:8: input_binding.parameters_file: expected a file workspace/parameters/other.yaml, found none: \
             known are 8gpu.parameters.yaml, accurate.parameters.yaml, best.parameters.yaml, default.parameters.yaml, \
             fast.parameters.yaml, gpu.parameters.yaml, sgd.parameters.yaml",
        ],
    );
    finds(
        "mlcube-2.0.yaml",
        "        log_dir: train_logs/\n",
        "",
        &["mlcube-2.0.yaml:32: tasks.train.parameters.outputs: expected log_dir, found nothing"],
    );
}

#[test]
fn a_parameter_that_the_program_has_no_flag_for_is_found() {
    let sandbox = copy();
    for file in ["tasks/download.yaml", "run/download.yaml", "mlcube-2.0.yaml"] {
        sandbox.write(file, sandbox.read(file).replacen("data_dir", "data_path", 1));
    }
    assert_eq!(
        sandbox.run("cube check").stdout,
        "tasks/download.yaml: expected a parameter data_dir, since `mnist download` requires it, found none\n\
         tasks/download.yaml:7: outputs[0].name: expected a flag of `mnist download` (data_dir, log_dir, mirror or \
         synthetic), found data_path\n"
    );
    let sandbox = copy();
    fs::rename(sandbox.path("tasks/evaluate.yaml"), sandbox.path("tasks/score.yaml")).unwrap();
    for file in ["mlcube.yaml", "run/evaluate.yaml", "mlcube-2.0.yaml"] {
        sandbox.write(file, sandbox.read(file).replace("evaluate", "score"));
    }
    assert_eq!(
        sandbox.run("cube check").stdout,
        "tasks/score.yaml: expected a task that the program has, found score\n"
    );
}

#[test]
fn a_required_flag_without_a_parameter_is_found() {
    let sandbox = copy();
    sandbox.write(
        "tasks/train.yaml",
        sandbox.read("tasks/train.yaml").replace("  - name: model_dir\n    type: directory\n", ""),
    );
    sandbox.write("run/train.yaml", sandbox.read("run/train.yaml").replace("  model_dir: $WORKSPACE/model\n", ""));
    for other in files().iter().filter(|file| file.starts_with("run/train-")) {
        fs::remove_file(sandbox.path(other)).unwrap();
    }
    let configuration = sandbox.read("mlcube-2.0.yaml").replacen("        model_dir: model/\n", "", 1);
    sandbox.write("mlcube-2.0.yaml", configuration);
    assert_eq!(
        sandbox.run("cube check").stdout,
        "tasks/train.yaml: expected a parameter model_dir, since `mnist train` requires it, found none\n"
    );
}

#[test]
fn parameters_of_another_type_or_listed_twice_are_found() {
    finds(
        "tasks/train.yaml",
        "type: file",
        "type: directory",
        &[
            "mlcube-2.0.yaml:31: tasks.train.parameters.inputs.parameters_file: expected a path that ends in a slash, \
             found file",
            "tasks/train.yaml:9: inputs[1].type: expected file for parameters_file, found directory",
        ],
    );
    finds(
        "tasks/download.yaml",
        "  - name: log_dir\n    type: directory",
        "  - name: log_dir\n    type: directory\n  - name: log_dir\n    type: directory",
        &["tasks/download.yaml:11: outputs[2].name: expected each parameter once, found log_dir again"],
    );
}

#[test]
fn a_variable_that_no_runner_knows_is_found() {
    finds(
        "run/train.yaml",
        "data_dir: $WORKSPACE/data",
        "data_dir: $WORKSPCE/data",
        &[
            "run/train.yaml:7: input_binding.data_dir: expected a path without variables and without ~ at its beginning, or $WORKSPACE/..., found \"$WORKSPCE/data\"",
        ],
    );
}

#[test]
fn a_directory_without_its_files_is_found() {
    for (directory, fault) in [
        ("run", "run: expected a run configuration (*.yaml) of task download, found none\n"),
        ("platforms", "platforms: expected a platform file (*.yaml), found none\n"),
    ] {
        let sandbox = copy();
        fs::remove_dir_all(sandbox.path(directory)).unwrap();
        assert!(sandbox.run("cube check").stdout.starts_with(fault), "{directory}");
    }
    let sandbox = copy();
    fs::remove_file(sandbox.path("run/evaluate.yaml")).unwrap();
    assert_eq!(
        sandbox.run("cube check").stdout,
        "run: expected a run configuration (*.yaml) of task evaluate, found none\n"
    );
}

#[test]
fn faults_of_configuration_2_are_found() {
    let finds = |from, to, fault: &str| finds("mlcube-2.0.yaml", from, to, &[fault]);
    finds("name: mnist", "name: 3", "mlcube-2.0.yaml:2: name: expected a text, found 3");
    finds(
        "  gpu_args: --gpus=all",
        "  gpu_arg: --gpus=all",
        "mlcube-2.0.yaml:15: docker.gpu_arg: unknown key: did you mean gpu_args?",
    );
    finds(
        "data_dir: data/",
        "data_dir: data",
        "mlcube-2.0.yaml:25: tasks.download.parameters.outputs.data_dir: expected a path that ends in a slash, found no type",
    );
    finds(
        "{ type: file, default: parameters/default.parameters.yaml }",
        "{ type: file, default: parameters/other.yaml }",
        "mlcube-2.0.yaml:31: tasks.train.parameters.inputs.parameters_file: expected a file workspace/parameters/other.yaml, \
         found none: known are 8gpu.parameters.yaml, accurate.parameters.yaml, best.parameters.yaml, \
         default.parameters.yaml, fast.parameters.yaml, gpu.parameters.yaml, sgd.parameters.yaml",
    );
}

#[test]
fn a_fault_is_one_line_whatever_the_file_says() {
    let ended = check_with("platforms/docker.yaml", "docker_runtime:", "\"a\\nb\": 1\ndocker_runtime:");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
    assert!(ended.stdout.contains("a\\nb: unknown key"), "{ended:#?}");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_a_fault_and_is_not_read() {
    let sandbox = copy();
    let made = std::process::Command::new("mkfifo").arg(sandbox.path("run/other.yaml")).status().unwrap();
    assert!(made.success());
    assert_eq!(sandbox.run("cube check").stdout, "run/other.yaml: expected a file, found something else\n");
}

#[test]
fn faults_of_the_parameters_file_are_found() {
    finds(
        "workspace/parameters/default.parameters.yaml",
        "batch_size: 32",
        "batchsize: 32",
        &["workspace/parameters/default.parameters.yaml:3: unknown key batchsize: did you mean batch_size?"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    finds(
        "run/train.yaml",
        "task_name: train",
        "task_name: train: x",
        &["run/train.yaml:4: is not YAML: mapping values are not allowed in this context"],
    );
    finds(
        "run/train.yaml",
        "schema_type: mlcube_invoke",
        "- schema_type",
        &["run/train.yaml:2: is not YAML: did not find expected '-' indicator"],
    );
    let sandbox = copy();
    fs::remove_file(sandbox.path("mlcube.yaml")).unwrap();
    fs::create_dir(sandbox.path("mlcube.yaml")).unwrap();
    let ended = sandbox.run("cube check");
    assert_eq!(ended.stdout, "mlcube.yaml: expected a file, found something else\n");
    ended.failed_with(".: 1 fault in the cube's files");
}

#[test]
fn what_follows_from_a_missing_task_is_no_fault() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "mlcube.yaml",
        fs::read_to_string(root().join("mlcube.yaml")).unwrap().replace("name: mnist", "name: other"),
    );
    for directory in ["run", "tasks", "platforms"] {
        fs::create_dir(sandbox.path(directory)).unwrap();
    }
    for file in ["run/train.yaml", "platforms/native.yaml"] {
        fs::copy(root().join(file), sandbox.path(file)).unwrap();
    }
    let missing =
        |nth: usize, name: &str| format!("mlcube.yaml:{nth}: expected a file tasks/{name}.yaml, found none\n");
    let all = missing(11, "download") + &missing(12, "train") + &missing(13, "evaluate");
    for command in ["check", "run --platform=native --task=train"] {
        let ended = sandbox.run(&format!("cube {command}"));
        assert_eq!((ended.stdout, ended.code), (all.clone(), Some(1)), "{command}");
    }
    let text = sandbox.read("mlcube.yaml");
    sandbox.write("mlcube.yaml", text[..text.find("tasks:").unwrap()].to_string() + "tasks: []\n");
    for command in ["check", "run --platform=native --task=train"] {
        let ended = sandbox.run(&format!("cube {command}"));
        let none = "mlcube.yaml:10: tasks: expected at least one file of a task, found none\n".to_string();
        assert_eq!((ended.stdout, ended.code), (none, Some(1)), "{command}");
    }
}

#[test]
fn all_faults_are_found_at_once() {
    let sandbox = copy();
    sandbox.write("run/train.yaml", "");
    sandbox.write("platforms/docker.yaml", "[]");
    sandbox.write("tasks/download.yaml", "\t");
    let ended = sandbox.run("cube check");
    assert!(ended.stdout.lines().count() >= 3, "{ended:#?}");
    for file in ["run/train.yaml", "platforms/docker.yaml", "tasks/download.yaml"] {
        assert!(ended.stdout.contains(&format!("{file}:")), "{file} in {ended:#?}");
    }
}

/// With the schema library that MLCube's documentation names. The schema of its singularity platform file is in the package
/// `mlcube-singularity`, which `mlcube` 0.0.3 does not ship.
#[test]
fn mlcubes_own_schema_library_accepts_our_files() {
    let Some(mut python) = common::python_with(&["mlspeclib", "mlcube"]) else { return };
    python.arg(root().join("tests/python/validate_mlspec.py"));
    let sandbox = copy();
    // It has none for most platforms, and podman.yaml has a runtime that it does not know.
    let is_ours = |file: &str| file.starts_with("platforms/") && !file.contains("docker") && !file.contains("0.0.3");
    let files: Vec<_> = files()
        .iter()
        .filter(|file| !file.contains("parameters") && *file != "mlcube-2.0.yaml" && !is_ours(file))
        .map(|file| sandbox.path(file))
        .collect();
    let ended = end(python.args(&files));
    assert_eq!(ended.stdout, format!("{} files are valid\n", files.len()), "{ended:#?}");
    assert_eq!(ended.code, Some(0));

    sandbox.write("tasks/train.yaml", sandbox.read("tasks/train.yaml").replace("outputs:", "output:"));
    let ended = end(&mut python);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("tasks/train.yaml: "), "{ended:#?}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_contents_of_a_file_make_it_panic(which in 0..files().len(), text in "([a-z_ :{}\\[\\]&*!\"'\n-]|\\PC){0,80}") {
        let sandbox = copy();
        sandbox.write(&files()[which], text);
        for file in ["mlcube.yaml", "mlcube-2.0.yaml"] {
            if let Ok(cube) = CubeDir::new(&sandbox.path(file), None) {
                let _ = mnist::cube::check::check(&cube, &mnist::task::cube::PROGRAM);
            }
        }
    }
}
