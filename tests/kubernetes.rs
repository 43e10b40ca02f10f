//! `mnist cube run` in a Kubernetes cluster. A script stands in for `kubectl`, but for the last test: that one takes the
//! cluster and the claim of `.ci/kubernetes-up`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cube::Cube;
use crate::common::{Ended, end, skipped, valid_kubernetes_documents};

const PLATFORM: &str = "schema_version: 1.0.0\nschema_type: mlcube_k8s\nimage: r.example/mnist:1\npvc: shelf\n";
const TRAIN: &str = "run --platform=kubernetes --task=train";

/// Answers with the files `claim`, `pods`, `events` and `job`; writes down what it is given.
const KUBECTL: &str = r#"echo "$*" >>"$HERE/calls"
case "$*" in
*"get persistentvolumeclaim"*) cat "$HERE/claim" ;;
*"create --filename=-"*) cat >"$HERE/manifest" ;;
*"get pods"*) cat "$HERE/pods" ;;
*"get events"*) cat "$HERE/events" ;;
*"get job"*) cat "$HERE/job" ;;
*logs*) echo "epoch 1/1: loss 0.5" ;;
esac"#;

const WAITS: &str = r#"{"items":[{"metadata":{"name":"p"},"status":{"phase":"Pending"}}]}"#;

/// A cluster in which the claim is there, and in which a task ended with `code`.
fn cluster(code: i32) -> Cube {
    let cube = Cube::new().with("kubectl", KUBECTL);
    cube.write("platforms/kubernetes.yaml", PLATFORM);
    let state = format!(r#""containerStatuses":[{{"state":{{"terminated":{{"exitCode":{code}}}}}}}]"#);
    let pods = format!(r#"{{"items":[{{"metadata":{{"name":"p"}},"status":{{"phase":"Failed",{state}}}}}]}}"#);
    let job = r#"{"metadata":{"uid":"u-1"},"status":{"conditions":[{"type":"Failed","status":"True"}]}}"#;
    for (name, text) in [("claim", "shelf"), ("pods", &pods), ("events", r#"{"items":[]}"#), ("job", job)] {
        cube.sandbox.write(name, text);
    }
    cube
}

fn called(cube: &Cube, with: &str) -> Option<String> {
    cube.wrote("calls").into_iter().find(|call| call.contains(with))
}

#[test]
fn a_task_is_a_job_whose_log_is_shown_and_which_goes_after_a_success() {
    let cube = cluster(0);
    let ended = cube.run(TRAIN).done();
    assert!(ended.stdout.contains("epoch 1/1: loss 0.5"), "{ended:#?}");
    let manifest = cube.sandbox.read("manifest");
    for text in ["- --data_dir=/mlcube/inputs/data\n", "- --model_dir=/mlcube/outputs/model\n", "claimName: shelf\n"] {
        assert!(manifest.contains(text), "no {text} in {manifest}");
    }
    assert!(manifest.contains("parameters_file.yaml: |\n    optimizer: \"adam\"\n"), "{manifest}");
    assert!(called(&cube, "patch configmap").is_some_and(|patch| patch.contains(r#""uid":"u-1""#)));
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
    assert!(ended.stderr.contains("outputs are on the claim shelf: train_logs, model\n"), "{ended:#?}");
    fs::remove_file(cube.sandbox.path("calls")).unwrap();
    cube.run(&format!("{TRAIN} --keep")).done();
    assert_eq!(called(&cube, "delete"), None);
}

#[test]
fn the_exit_code_is_that_of_the_task_and_the_job_of_a_failed_one_stays() {
    let cube = cluster(3);
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert!(ended.stderr.contains("stays for a day; remove it with `kubectl delete job mlcube-train-"), "{ended:#?}");
    assert_eq!(called(&cube, "delete"), None);
}

#[test]
fn the_context_and_the_namespace_are_those_of_the_platform_file() {
    let cube = cluster(0);
    cube.write("platforms/kubernetes.yaml", format!("{PLATFORM}context: lab@east\nnamespace: team\n"));
    cube.run(TRAIN).done();
    let calls = cube.wrote("calls");
    assert!(calls.iter().all(|call| call.starts_with("--context=lab@east --namespace=team ")), "{calls:#?}");
}

/// A run that ends with `expected` in its errors, and leaves no job there.
fn fails(cube: &Cube, expected: &str) -> Ended {
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains(expected), "no {expected} in {ended:#?}");
    let created = called(cube, "create").is_some();
    assert_eq!(called(cube, "delete job/").is_some(), created, "{:#?}", cube.wrote("calls"));
    ended
}

#[test]
fn a_pod_that_does_not_start_says_why_and_its_job_goes() {
    let cube = cluster(0);
    let waiting = r#"{"reason":"ImagePullBackOff","message":"Back-off pulling image"}"#;
    let status = format!(r#"{{"phase":"Pending","containerStatuses":[{{"state":{{"waiting":{waiting}}}}}]}}"#);
    cube.sandbox.write("pods", format!(r#"{{"items":[{{"metadata":{{"name":"p"}},"status":{status}}}]}}"#));
    let ended = fails(&cube, "its pod did not run to its end: ImagePullBackOff: Back-off pulling image");
    assert!(ended.stderr.contains("push the image to a registry that the nodes reach"), "{ended:#?}");

    cube.sandbox.write("pods", r#"{"items":[]}"#);
    cube.sandbox.write("events", r#"{"items":[{"message":"pods is forbidden: exceeded quota: q"}]}"#);
    fails(&cube, "exceeded quota: q");

    cube.sandbox.write("pods", WAITS);
    cube.write("platforms/kubernetes.yaml", format!("{PLATFORM}start_minutes: 0\n"));
    fails(&cube, "it did not start within 0 minutes");
}

#[test]
fn a_pod_that_is_lost_is_an_error() {
    let cube = cluster(0);
    cube.sandbox.write(
        "pods",
        r#"{"items":[{"metadata":{"name":"p"},"status":{"phase":"Failed","reason":"Evicted","message":"low on memory"}}]}"#,
    );
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("its pod did not run to its end: Evicted: low on memory"), "{ended:#?}");
}

#[test]
fn nothing_is_made_in_a_cluster_that_cannot_run_the_task() {
    let cube = cluster(0);
    cube.write("run/train.yaml", fs::read_to_string("run/train.yaml").unwrap().replace("$WORKSPACE/data", "/datasets"));
    fails(&cube, "data_dir: expected a path below the workspace ");
    let refused = "echo 'persistentvolumeclaims \"shelf\" not found' >&2; exit 1";
    let cube = cluster(0).with("kubectl", &format!("echo \"$*\" >>\"$HERE/calls\"; {refused}"));
    let ended = fails(&cube, "error: kubectl: persistentvolumeclaims \"shelf\" not found");
    assert!(ended.stderr.contains("hint: make the claim"), "{ended:#?}");
    let mut command = cube.command(TRAIN);
    command.env("PATH", cube.sandbox.path("nowhere"));
    let ended = end(&mut command);
    assert!(ended.stderr.contains("kubectl: expected this program in PATH, found none"), "{ended:#?}");
}

#[test]
fn a_signal_while_the_pod_waits_takes_the_job_away() {
    let cube = cluster(0);
    cube.sandbox.write("pods", WAITS);
    // Slower than a program may be that does not hear signals.
    let cube = cube.with("kubectl", &format!("{KUBECTL}\nsleep 1"));
    let log = fs::File::create(cube.sandbox.path("stderr")).unwrap();
    let mut child = cube.command(TRAIN).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.path("manifest").exists() || called(&cube, "get pods").is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", cube.sandbox.read("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", cube.sandbox.read("stderr"));
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
}

#[test]
fn a_dry_run_prints_a_manifest_that_is_valid_by_kubernetes_own_schemas() {
    let cube = cluster(0);
    let more = "gpus: 2\nnode_selector: {disk: ssd}\nimage_pull_secret: s\nservice_account: a\nqueue: q\nenv: {A: b}\n";
    cube.write("platforms/kubernetes.yaml", format!("{PLATFORM}{more}"));
    let printed = cube.run(&format!("{TRAIN} --dry_run")).done().stdout;
    assert!(!cube.sandbox.path("calls").exists());
    cube.sandbox.write("printed.yaml", &printed);
    let Some(documents) = valid_kubernetes_documents(&cube.sandbox.path("printed.yaml")) else { return };
    assert_eq!(documents, "2\n");
}

/// The directory of the claim `mnist`, and a cube for a cluster that has this program's image.
fn real() -> Option<(PathBuf, Cube)> {
    let Some(claim) = std::env::var_os("MNIST_TEST_CLAIM") else {
        skipped("MNIST_TEST_CLAIM names no directory of a claim");
        return None;
    };
    let cube = Cube::new();
    let platform = "image: mlcommons/mlcube:mnist\npvc: mnist\ncpu: 100m\nmemory: 256Mi\n";
    cube.write("platforms/kubernetes.yaml", PLATFORM.replace("image: r.example/mnist:1\npvc: shelf\n", platform));
    Some((claim.into(), cube))
}

#[test]
fn a_real_cluster_trains_and_says_what_is_wrong() {
    let Some((claim, cube)) = real() else { return };
    let run = |arguments: &str| {
        let mut command = cube.command(arguments);
        end(command.env("PATH", std::env::var_os("PATH").unwrap()))
    };
    for directory in ["data", "model", "train_logs"] {
        let _ = fs::remove_dir_all(claim.join(directory)); // there may be none
    }
    let ended = run(TRAIN);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("expected the directory with the data, found none"), "{ended:#?}");

    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
    for data in [claim.join("data"), PathBuf::from(cube.workspace("data"))] {
        fs::create_dir_all(&data).unwrap();
        mnist::data::synthetic::write(&data, 300, 100).unwrap();
    }
    let ended = run(TRAIN).done();
    assert!(ended.stdout.contains("epoch 1/1: ") && ended.stdout.contains("test accuracy"), "{ended:#?}");
    cube.run("run --platform=native --task=train").done();
    let here = fs::read(Path::new(&cube.workspace("model/model.safetensors"))).unwrap();
    assert!(fs::read(claim.join("model/model.safetensors")).unwrap() == here, "the cluster's model is another");
}
