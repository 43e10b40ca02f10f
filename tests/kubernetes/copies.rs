//! Inputs and outputs of a pod without a claim: copied there and back.

use std::fs;
use std::path::Path;

use super::{TRAIN, called, copying_cluster, list_the_job, model};

#[test]
fn without_a_claim_inputs_and_outputs_are_copied() {
    let cube = copying_cluster();
    cube.run("run --platform=native --task=train").done();
    let expected = model(&cube);
    fs::remove_dir_all(cube.workspace("model")).unwrap();
    // A connection may break once.
    cube.sandbox.write("before", "[ -e \"$HERE/once\" ] || { touch \"$HERE/once\"; exit 1; }");
    let ended = cube.run(TRAIN).done();
    assert!(model(&cube) == expected, "another model");
    assert!(Path::new(&cube.workspace("train_logs/mlcube_mnist_train.log")).exists());
    // What the task prints has the names of this machine.
    let manifest = cube.sandbox.read("manifest");
    let names = format!(r#"/mlcube_io3":"{}""#, cube.workspace("model"));
    assert!(manifest.contains(&names), "no {names} in {manifest}");
    assert!(ended.stderr.contains("p: bringing the outputs\n"), "{ended:#?}");
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
    assert!(cube.sandbox.path("pod/.fetched").exists());
    let left = cube.sandbox.files("the cube/workspace");
    assert_eq!(left, ["data", "model", "parameters", "train_logs"]);
    assert_eq!(cube.sandbox.files("pod/mlcube_io1"), ["default.parameters.yaml"]);
}

#[test]
fn outputs_arrive_whole_or_not_at_all_and_wait_for_another_try() {
    let cube = copying_cluster();
    cube.run("run --platform=native --task=train").done();
    let old = model(&cube);
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 2\nhidden_layers: [16]\n");
    // More than the logs, less than all.
    cube.sandbox.write("before", "\"$MNIST\" \"$@\" | head -c 150000; exit 0");
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("error: p: cannot bring the outputs: the copy is not whole: found "), "{ended:#?}");
    assert!(
        ended
            .stderr
            .contains("p keeps the outputs for 60 minutes; the same command with --attach, for task train alone, "),
        "{ended:#?}"
    );
    assert!(model(&cube) == old, "half of it is here");
    assert_eq!(called(&cube, "delete"), None);
    assert!(!cube.sandbox.path("pod/.fetched").exists());
    // A second run must wait; one that takes up the first has what that one computed.
    let name = list_the_job(&cube);
    cube.sandbox.write("before", "");
    cube.run(TRAIN).failed_with(&format!(
        "kubernetes: task train runs there already, in job {name}\nhint: take it up with its own command and --attach; \
         Ctrl-C then stops it"
    ));
    cube.run(&format!("{TRAIN} --attach")).done();
    assert!(model(&cube) != old, "the new model was not brought");
    assert!(called(&cube, &format!("delete job/{name}")).is_some());
}

#[test]
fn outputs_that_nobody_fetched_in_time_are_named() {
    let cube = copying_cluster();
    let completed =
        "echo 'error: cannot exec into a container in a completed pod; current phase is Failed' >&2; exit 1";
    cube.sandbox.write("before", completed);
    cube.run(TRAIN).failed_with(
        "p: expected the outputs of its task, found that the pod has ended: nobody fetched them in time\nhint: run the task \
         again; `fetch_minutes` in the platform file says how long a pod keeps its outputs",
    );
    assert!(called(&cube, "label job mlcube-train-").is_some(), "nobody is to try that again");
}

#[test]
fn outputs_here_become_what_they_would_be_had_the_task_run_here() {
    let cube = copying_cluster();
    cube.run("run --platform=native --task=train").done();
    let old = model(&cube);
    for name in ["notes.txt", "report.html"] {
        cube.write(&format!("workspace/model/{name}"), "mine");
    }
    // The task writes files and removes two. Meanwhile somebody here writes one of the two anew.
    let (there, here) = ("\"$HERE/pod/mlcube_io3\"", format!("'{}'", cube.workspace("model")));
    cube.sandbox.write(
        "task",
        format!(
            "ls {there}; mkdir {there}/unfinished; echo half >{there}/unfinished/part; \
             touch {there}/run.sh; chmod 755 {there}/run.sh; rm {there}/model.onnx {there}/report.html; echo newer >{here}/report.html"
        ),
    );
    let ended = cube.run(TRAIN).done();
    let found = "metrics.json\nmodel.onnx\nmodel.safetensors\nnotes.txt\nparameters.yaml\nreport.html\n";
    assert_eq!(ended.stdout, found, "what the task finds");
    assert!(model(&cube) == old);
    let left = cube.sandbox.files("the cube/workspace/model");
    assert_eq!(
        left,
        ["metrics.json", "model.safetensors", "notes.txt", "parameters.yaml", "report.html", "run.sh", "unfinished"]
    );
    let mode = fs::metadata(cube.workspace("model/run.sh")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o755);
    assert_eq!(cube.sandbox.read("the cube/workspace/model/unfinished/part"), "half\n");
    assert_eq!(cube.sandbox.read("the cube/workspace/model/report.html"), "newer\n");
}

#[test]
fn an_output_that_has_changed_here_is_an_error_once_all_are_here() {
    let cube = copying_cluster();
    cube.run("run --platform=native --task=train").done();
    let here = cube.workspace("model");
    let task = "echo from there >\"$HERE/pod/mlcube_io3/model.safetensors\"; echo log >\"$HERE/pod/mlcube_io2/log\"";
    cube.sandbox.write("task", format!("{task}; echo newer >'{here}/model.safetensors'"));
    cube.run(&TRAIN.replace("train", "train,evaluate")).failed_with(&format!(
        "{here}/model.safetensors: has changed here since the task began, so {here} is as it was, and all that the task wrote \
         there is in {here}.brought: compare them, and keep one"
    ));
    assert_eq!(model(&cube), b"newer\n");
    assert_eq!(cube.sandbox.read("the cube/workspace/model.brought/model.safetensors"), "from there\n");
    assert_eq!(cube.sandbox.read("the cube/workspace/train_logs/log"), "log\n");
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
    assert_eq!(cube.wrote("calls").iter().filter(|call| call.contains("create ")).count(), 1, "a second task ran");
}
