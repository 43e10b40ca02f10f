//! `mnist cube run` in a Kubernetes cluster. A script stands in for `kubectl`, but for the last test: that one takes the
//! cluster and the claim of `.ci/kubernetes-up`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cube::Cube;
use crate::common::{Ended, end, skipped, valid_kubernetes_documents};

mod copies;

const PLATFORM: &str = "schema_version: 1.0.0\nschema_type: mlcube_k8s\nimage: r.example/mnist:1\npvc: shelf\n";
pub const TRAIN: &str = "run --platform=kubernetes --task=train";

/// Answers with the files `claim`, `pods`, `events`, `jobs` and `job`; writes down what it is given. The directory `pod` is
/// that of the containers which copy: they wait while there is a file `waits` and nothing was sent. The task is `logs`.
const KUBECTL: &str = r#"echo "$*" >>"$HERE/calls"
case "$*" in
*"get persistentvolumeclaim"*) cat "$HERE/claim" ;;
*"create --filename=-"*) cat >"$HERE/manifest" ;;
*"get pods"*) if [ -e "$HERE/waits" ] && [ ! -e "$HERE/pod/.sent" ]; then cat "$HERE/waits"; else cat "$HERE/pods"; fi ;;
*"get events"*) cat "$HERE/events" ;;
*"get jobs"*) cat "$HERE/jobs" ;;
*"get job"*) cat "$HERE/job" ;;
*logs*) . "$HERE/task" ;;
*"cube job signal"*) . "$HERE/signalled" ;;
exec*) 
    while [ "$1" != mnist ]; do shift; done; shift
    for word; do shift; set -- "$@" "$(printf %s "$word" | sed "s|/mlcube/copied|$HERE/pod|")"; done
    case "$*" in *"job pack"*) . "$HERE/before" ;; esac
    "$MNIST" "$@" ;;
esac"#;

const WAITS: &str = r#"{"items":[{"metadata":{"name":"p"},"status":{"phase":"Pending"}}]}"#;

/// A cluster in which the claim is there, and in which a task ended with `code`.
fn cluster(code: i32) -> Cube {
    let program = env!("CARGO_BIN_EXE_mnist");
    let cube = Cube::new().with("kubectl", &format!("MNIST={program}\n{KUBECTL}"));
    cube.write("platforms/kubernetes.yaml", PLATFORM);
    let state = format!(r#""containerStatuses":[{{"name":"task","state":{{"terminated":{{"exitCode":{code}}}}}}}]"#);
    let pods = format!(r#"{{"items":[{{"metadata":{{"name":"p"}},"status":{{"phase":"Failed",{state}}}}}]}}"#);
    let job = r#"{"metadata":{"uid":"u-1"},"status":{"conditions":[{"type":"Failed","status":"True"}]}}"#;
    let none = r#"{"items":[]}"#;
    let answers = [("claim", "shelf"), ("pods", &pods), ("events", none), ("jobs", none), ("job", job)];
    for (name, text) in answers.into_iter().chain([("task", "echo epoch 1/1: loss 0.5"), ("before", ""), ("calls", "")])
    {
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
    let directories = ["- --data_dir=/mlcube/inputs/shelf/data\n", "- --model_dir=/mlcube/outputs/shelf/model\n"];
    for text in directories.into_iter().chain(["claimName: shelf\n"]) {
        assert!(manifest.contains(text), "no {text} in {manifest}");
    }
    assert!(manifest.contains("parameters_file.yaml: |\n    optimizer: \"adam\"\n"), "{manifest}");
    assert!(called(&cube, "patch configmap").is_some_and(|patch| patch.contains(r#""uid":"u-1""#)));
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
    assert!(ended.stderr.contains("outputs on claims: shelf/train_logs, shelf/model\n"), "{ended:#?}");
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
    assert!(calls.iter().filter(|call| call.contains(" get ")).all(|call| call.contains(" --request-timeout=30s ")));
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
    let state = format!(r#"[{{"name":"task","state":{{"waiting":{waiting}}}}}]"#);
    let status = format!(r#"{{"phase":"Pending","containerStatuses":{state}}}"#);
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
    assert_eq!(called(&cube, "get jobs"), None, "the claim is the first question");
    let refused = format!("{KUBECTL}\ncase \"$*\" in *create*) echo 'jobs is forbidden' >&2; exit 1 ;; esac");
    fails(&cluster(0).with("kubectl", &refused), "error: kubectl: jobs is forbidden");
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

/// A cluster without a claim, whose pod waits for inputs and trains with them.
pub fn copying_cluster() -> Cube {
    let cube = cluster(0);
    cube.write("platforms/kubernetes.yaml", PLATFORM.replace("pvc: shelf\n", ""));
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
    let status = r#"{"phase":"Pending","initContainerStatuses":[{"name":"inputs","state":{"running":{}}}]}"#;
    cube.sandbox.write("waits", format!(r#"{{"items":[{{"metadata":{{"name":"p"}},"status":{status}}}]}}"#));
    let train = r#""$MNIST" train --data_dir="$HERE/pod/mlcube_io0" --log_dir="$HERE/pod/mlcube_io2" \
        --parameters_file="$HERE/pod/mlcube_io1/default.parameters.yaml" --model_dir="$HERE/pod/mlcube_io3""#;
    cube.sandbox.write("task", format!("[ -e \"$HERE/pod/.sent\" ] && {train} 2>&1"));
    cube
}

/// The Job that was made last, as the cluster lists it.
fn list_the_job(cube: &Cube) -> String {
    let manifest = cube.sandbox.read("manifest");
    let name = manifest.lines().find_map(|line| line.trim().strip_prefix("name: mlcube-train-")).unwrap();
    let name = format!("mlcube-train-{name}");
    let files = manifest.lines().find_map(|line| line.trim().strip_prefix("mlcube/files: ")).unwrap();
    let labels = format!(r#"{{"mlcube/task":"train","mlcube/files":"{}"}}"#, files.trim_matches('\''));
    let metadata = format!(r#""creationTimestamp":"2026-11-27T20:00:00Z","labels":{labels}"#);
    cube.sandbox.write("jobs", format!(r#"{{"items":[{{"metadata":{{"name":"{name}",{metadata}}},"status":{{}}}}]}}"#));
    name
}

fn model(cube: &Cube) -> Vec<u8> {
    fs::read(cube.workspace("model/model.safetensors")).unwrap()
}

#[test]
fn nothing_to_take_up_is_an_error() {
    let cube = cluster(0);
    cube.run(&format!("{TRAIN} --attach"))
        .failed_with("--attach: expected a task that runs on another machine, found none");
    assert!(called(&cube, "get jobs --selector=app.kubernetes.io/managed-by=mnist-cube,mlcube/workspace=").is_some());
}

#[test]
fn a_job_that_its_runner_lost_is_taken_up() {
    let cube = cluster(3);
    cube.run(&format!("{TRAIN} --dry_run")).done();
    let first = cube.run(TRAIN);
    assert_eq!(first.code, Some(3), "{first:#?}");
    assert!(called(&cube, "label job mlcube-train-").is_some_and(|call| call.ends_with("mlcube/seen=yes")));
    let name = list_the_job(&cube);
    let ended = cube.run(&format!("{TRAIN} --attach"));
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert!(ended.stderr.contains(&format!("taking up job {name}\n")), "{ended:#?}");
    assert!(ended.stdout.contains("epoch 1/1: loss 0.5"), "{ended:#?}");
    // Of two, the newer one.
    let jobs = cube.sandbox.read("jobs");
    let newer = jobs.replace(&name, "newer").replace("20:00:00", "20:00:01");
    let items = |list: &str| list.trim_start_matches(r#"{"items":["#).trim_end_matches("]}").to_string();
    cube.sandbox.write("jobs", format!(r#"{{"items":[{},{}]}}"#, items(&newer), items(&jobs)));
    let ended = cube.run(&format!("{TRAIN} --attach"));
    assert!(ended.stderr.contains("taking up job newer\n"), "{ended:#?}");
    cube.sandbox.write("jobs", &jobs);
    // Not by who would bring its outputs elsewhere.
    let text = cube.sandbox.read("the cube/run/train.yaml");
    cube.write("run/train.yaml", text.replace("$WORKSPACE/model", "$WORKSPACE/other"));
    cube.run(&format!("{TRAIN} --attach")).failed_with(&format!(
        "job {name}: expected the inputs and outputs of this run configuration, found others\nhint: take it up with the run \
         configuration that it was started with"
    ));
    // Another task has to wait.
    let ended = cube.run("run --platform=kubernetes --task=evaluate --attach");
    assert!(ended.stderr.contains(&format!("task train runs there already, in job {name}")), "{ended:#?}");
}

#[test]
fn a_job_that_is_made_at_the_same_time_as_another_gives_way() {
    let cube = cluster(0);
    let job = |name: &str, second: u32| {
        let metadata =
            format!(r#""creationTimestamp":"2026-11-27T20:00:0{second}Z","labels":{{"mlcube/task":"train"}}"#);
        format!(r#"{{"metadata":{{"name":"{name}",{metadata}}}}}"#)
    };
    let jobs = format!(r#"{{"items":[{},{}]}}"#, job("first", 0), job("'$name'", 1));
    let name = r#"name=$(sed -n 's/^  name: \(mlcube-train-.*\)/\1/p' "$HERE/manifest" | head -n1)"#;
    let then = format!("case \"$*\" in *create*) {name}; echo '{jobs}' >\"$HERE/jobs\" ;; esac");
    let cube = cube.with("kubectl", &format!("MNIST=none\n{KUBECTL}\n{then}"));
    let ended = fails(&cube, "task train runs there already, in job first");
    assert!(called(&cube, "logs").is_none(), "{ended:#?}");
}

#[test]
fn a_signal_ends_the_task_alone_and_brings_what_it_wrote() {
    let cube = copying_cluster();
    cube.sandbox.write("task", "echo epoch 1/9; touch \"$HERE/began\"; exec sleep 100");
    let wrote = "mkdir -p \"$HERE/pod/mlcube_io3\"; echo half >\"$HERE/pod/mlcube_io3/notes.txt\"";
    cube.sandbox.write("signalled", format!("{wrote}; echo 'echo stopped by SIGINT' >\"$HERE/task\""));
    let log = fs::File::create(cube.sandbox.path("stderr")).unwrap();
    let mut child = cube.command(TRAIN).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.path("began").exists() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", cube.sandbox.read("stderr"));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", cube.sandbox.read("stderr"));
    assert!(called(&cube, "--container=outputs -- mnist cube job signal 2").is_some(), "{:#?}", cube.wrote("calls"));
    assert_eq!(fs::read_to_string(cube.workspace("model/notes.txt")).unwrap(), "half\n");
    let stderr = cube.sandbox.read("stderr");
    assert!(stderr.contains("p: stopping task train\nstopped by SIGINT\n"), "{stderr}");
    assert!(called(&cube, "delete job/mlcube-train-").is_some());
}

#[test]
fn the_published_runners_files_are_read() {
    let cube = cluster(0);
    let published = "schema_type: mlcube_invoke\nschema_version: 1.0.0\n\ntask_name: evaluate\n\ninput_binding:\n  \
                     data_dir:\n    path: workspace/data\n    k8s:\n      pvc: mlcube-input\n  \
                     model_dir: {path: /model, k8s: {pvc: mlcube-input}}\n\noutput_binding:\n  \
                     log_dir:\n    path: logs\n    k8s:\n      pvc: mlcube-output\n";
    cube.write("run/kubernetes.yaml", published);
    let run = "run --platform=kubernetes --task=kubernetes";
    let ended = cube.run(run).done();
    let manifest = cube.sandbox.read("manifest");
    for text in [
        "--data_dir=/mlcube/inputs/mlcube-input/workspace/data\n",
        "--model_dir=/mlcube/inputs/mlcube-input/model\n",
        "--log_dir=/mlcube/outputs/mlcube-output/logs\n",
        "claimName: mlcube-input\n",
        "claimName: mlcube-output\n",
    ] {
        assert!(manifest.contains(text), "no {text} in {manifest}");
    }
    assert!(!manifest.contains("claimName: shelf"), "{manifest}");
    assert!(ended.stderr.contains("outputs on claims: mlcube-output/logs\n"), "{ended:#?}");
    cube.run("run --platform=native --task=kubernetes").failed_with(
        "data_dir: expected a path, since only Kubernetes has claims, found one on the claim mlcube-input\nhint: give a \
         Kubernetes platform file, or another run configuration",
    );
    cube.write("run/kubernetes.yaml", published.replace("workspace/data", "../data").replace("mlcube-output", "A b"));
    let found = cube.run(run).stdout;
    let path =
        "run/kubernetes.yaml:7: input_binding.data_dir: expected a path on the claim, without variables, ~ and ..";
    assert!(found.contains(path), "{found}");
    assert!(
        found.contains("output_binding.log_dir.k8s.pvc: expected the name of a claim, such as mnist, found \"A b\"")
    );

    for section in ["k8s", "runner"] {
        let settings = format!("{section}:\n  pvc: theirs\n  image: r.example/mnist:1\n  namespace: team\n");
        cube.write("platforms/settings.yaml", settings);
        fs::remove_file(cube.sandbox.path("calls")).unwrap();
        cube.run("run --platform=settings --task=train").done();
        assert!(cube.sandbox.read("manifest").contains("claimName: theirs\n"));
        assert!(cube.wrote("calls").iter().all(|call| call.starts_with("--namespace=team ")));
    }
    cube.write("platforms/settings.yaml", "runner: {image: r.example/mnist:1, gpus: 1}\n");
    let found = cube.run("run --platform=settings --task=train").stdout;
    assert!(found.contains("runner.pvc: expected a value, found none"), "{found}");
    assert!(found.contains("runner.gpus: unknown key"), "{found}");
}

#[test]
fn a_dry_run_prints_a_manifest_that_is_valid_by_kubernetes_own_schemas() {
    let cube = cluster(0);
    let more = "gpus: 2\nnode_selector: {disk: ssd}\nimage_pull_secret: s\nservice_account: a\nqueue: q\nenv: {A: b}\n";
    cube.write("platforms/kubernetes.yaml", format!("{PLATFORM}{more}"));
    let printed = cube.run(&format!("{TRAIN} --dry_run")).done().stdout;
    assert!(cube.wrote("calls").is_empty());
    cube.sandbox.write("printed.yaml", &printed);
    let Some(documents) = valid_kubernetes_documents(&cube.sandbox.path("printed.yaml")) else { return };
    assert_eq!(documents, "2\n");
    let text = format!("{PLATFORM}{more}copier: r.example/copier:1\nfetch_minutes: 5\n").replace("pvc: shelf\n", "");
    cube.write("platforms/kubernetes.yaml", text);
    let printed = cube.run(&format!("{TRAIN} --dry_run")).done().stdout;
    assert!(printed.contains("image: r.example/copier:1\n") && printed.contains("emptyDir: {}\n"), "{printed}");
    cube.sandbox.write("printed.yaml", &printed);
    assert_eq!(valid_kubernetes_documents(&cube.sandbox.path("printed.yaml")).as_deref(), Some("1\n"));
}

/// The directory of the claim `mnist`, and a cube for a cluster that has this program's image, or that of MNIST_TEST_IMAGE.
fn real() -> Option<(PathBuf, Cube)> {
    let Some(claim) = std::env::var_os("MNIST_TEST_CLAIM") else {
        skipped("MNIST_TEST_CLAIM names no directory of a claim");
        return None;
    };
    let cube = Cube::new();
    let image = std::env::var("MNIST_TEST_IMAGE").unwrap_or("mlcommons/mlcube:mnist".into());
    let platform = format!("image: {image}\npvc: mnist\ncpu: 100m\nmemory: 256Mi\n");
    cube.write("platforms/kubernetes.yaml", PLATFORM.replace("image: r.example/mnist:1\npvc: shelf\n", &platform));
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

#[test]
fn a_real_cluster_copies_and_goes_on_without_its_runner() {
    let Some((_, cube)) = real() else { return };
    let without = fs::read_to_string(cube.sandbox.path("the cube/platforms/kubernetes.yaml")).unwrap();
    cube.write("platforms/kubernetes.yaml", without.replace("pvc: mnist\n", ""));
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: [16]\n");
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    let command = |arguments: &str| {
        let mut command = cube.command(arguments);
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command
    };
    cube.run("run --platform=native --task=train").done();
    let here = model(&cube);
    fs::remove_dir_all(cube.workspace("model")).unwrap();
    let ended = end(&mut command(TRAIN)).done();
    assert!(model(&cube) == here, "the cluster's model is another");
    let shown = cube.workspace("model/model.safetensors");
    assert!(ended.stdout.contains(&shown), "no {shown} in {ended:#?}");
    // A failed task brings its logs.
    fs::rename(cube.workspace("data/t10k-images-idx3-ubyte"), cube.sandbox.path("images")).unwrap();
    let ended = end(&mut command(TRAIN));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let log = fs::read_to_string(cube.workspace("train_logs/mlcube_mnist_train.log")).unwrap();
    assert!(log.contains("t10k-images-idx3-ubyte is missing"), "{log}");
    fs::rename(cube.sandbox.path("images"), cube.workspace("data/t10k-images-idx3-ubyte")).unwrap();

    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 100000\nhidden_layers: [16]\n");
    fs::remove_dir_all(cube.workspace("model")).unwrap();
    let begin = |arguments: &str| {
        let output = || fs::File::options().create(true).append(true).open(cube.sandbox.path("output")).unwrap();
        fs::remove_file(cube.sandbox.path("output")).unwrap_or_default();
        let child = command(arguments).stdout(output()).stderr(output()).spawn().unwrap();
        let begin = Instant::now();
        while !cube.sandbox.read("output").contains("epoch 2/") {
            assert!(begin.elapsed() < Duration::from_secs(90), "{}", cube.sandbox.read("output"));
            thread::sleep(Duration::from_millis(50));
        }
        child
    };
    let mut child = begin(TRAIN);
    child.kill().unwrap();
    child.wait().unwrap();
    let second = end(&mut command(TRAIN));
    assert!(second.stderr.contains("error: kubernetes: task train runs there already, in job mlcube-"), "{second:#?}");
    let mut child = begin(&format!("{TRAIN} --attach"));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", cube.sandbox.read("output"));
    let unfinished = fs::read_to_string(cube.workspace("model/metrics.json"));
    assert!(unfinished.is_ok(), "{} {:?}", cube.sandbox.read("output"), cube.sandbox.files("the cube/workspace/model"));
    end(&mut command(&format!("{TRAIN} --attach")))
        .failed_with("--attach: expected a task that runs on another machine, found none");
}
