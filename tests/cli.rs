//! The command line: spellings, wrong arguments, exit codes, streams; `evaluate` and `demo` as a user calls them.

mod common;

use std::fs;
use std::process::Stdio;

use common::{Sandbox, end};
use serde_json::Value;

// ---- wrong arguments: exit code 2, nothing done

#[track_caller]
fn wrong_arguments(arguments: &str, expected: &str) {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.run(arguments);
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.starts_with(&format!("error: {expected}")), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    assert_eq!(sandbox.files("."), ["data", "parameters.yaml"]);
}

const TRAIN: &str = "train --data_dir=data --log_dir=logs --model_dir=model --parameters_file=parameters.yaml";

#[test]
fn an_unknown_task_is_named_with_the_nearest_one() {
    wrong_arguments("trian", "unrecognized subcommand 'trian'\n\n  tip: a similar subcommand exists: 'train'\n");
}

#[test]
fn a_flag_given_twice_is_refused_in_either_spelling() {
    let expected = "the argument '--data_dir <DIR>' cannot be used multiple times\n";
    wrong_arguments(&format!("{TRAIN} --data_dir=other"), expected);
    wrong_arguments(&format!("{TRAIN} --data-dir other"), expected);
}

#[test]
fn a_missing_or_unknown_flag_is_named() {
    let expected = "the following required arguments were not provided:\n  --log_dir <DIR>\n";
    wrong_arguments("download --data_dir=data", expected);
    wrong_arguments(
        &format!("{TRAIN} --batchsize=3"),
        "unexpected argument '--batchsize' found\n\n  tip: a similar argument exists: '--batch-size'\n",
    );
}

#[test]
fn a_parameter_out_of_range_is_refused_before_anything_is_done() {
    let expected = "invalid value '0' for '--batch_size <VALUE>': expected a whole number from 1 to 1000000, found 0\n";
    wrong_arguments(&format!("{TRAIN} --batch_size=0"), expected);
    let expected = "invalid value 'lion' for '--optimizer <VALUE>': expected adam, adamw, sgd, rmsprop or adagrad, \
                    found the text \"lion\"\n";
    wrong_arguments(&format!("{TRAIN} --optimizer lion"), expected);
}

#[test]
fn a_mirror_that_is_none_is_refused() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run("download --data_dir=data --log_dir=logs --mirror=ftp://host/mnist");
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    let expected = "error: mirror ftp://host/mnist: expected a URL with http:// or https://, or a directory, found a URL \
                    with ftp://\n";
    assert_eq!(ended.stderr, expected);
}

// ---- help and streams

#[test]
fn help_goes_to_stdout_and_tells_the_exit_codes() {
    let sandbox = Sandbox::new();
    for arguments in ["--help", "train --help", "download --help", "evaluate --help", "demo --help"] {
        let ended = sandbox.run(arguments).done();
        assert!(ended.stdout.contains("Exit codes: 0 done; 1 failed; 2 wrong arguments; 130 and 143 after SIGINT"));
        assert_eq!(ended.stderr, "");
    }
    assert_eq!(sandbox.run("--version").done().stdout, concat!("mnist ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn results_go_to_stdout_and_messages_to_stderr_without_colour() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("").done();
    let names: Vec<&str> = ended.stdout.lines().map(|line| line.split("  ").next().unwrap().trim()).collect();
    let expected = ["test accuracy", "test loss", "data", "epochs", "model", "metrics", "parameters", "logs"];
    assert_eq!(names, expected);
    assert!(
        ended
            .stderr
            .starts_with("data: unknown (neither MNIST nor the synthetic digits), 300 training and 100 test images\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("\nepoch 1/1: loss "), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\x1b') && !ended.stdout.contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let mut command = sandbox.program();
    command.args(["evaluate", "--data_dir=data", "--log_dir=logs", "--model_dir=model"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_log_directory_that_cannot_be_made_is_named() {
    let sandbox = Sandbox::with_data();
    sandbox.write("logs", "");
    sandbox.train("").failed_with("logs: cannot create the directory: File exists (os error 17)");
}

// ---- evaluate

#[test]
fn evaluate_scores_what_train_left() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 5").done();
    let ended = sandbox.run("evaluate --data_dir=data --log_dir=evaluate_logs --model_dir=model").done();
    assert_eq!(sandbox.files("evaluate_logs"), ["metrics.json", "mlcube_mnist_evaluate.log", "mllog_evaluate.log"]);
    let metrics = |path: &str| -> Value { serde_json::from_str(&sandbox.read(path)).unwrap() };
    let (trained, evaluated) = (metrics("model/metrics.json"), metrics("evaluate_logs/metrics.json"));
    assert_eq!(trained["test"], evaluated["test"]);
    assert_eq!(trained["classes"], evaluated["classes"]);
    let accuracy = format!("accuracy       {:.2} %\n", 100.0 * trained["test"]["accuracy"].as_f64().unwrap());
    assert!(ended.stdout.starts_with(&accuracy), "{}", ended.stdout);
    assert!(ended.stdout.contains("digit  images  precision     recall\n"));
}

#[test]
fn a_model_that_is_missing_or_damaged_is_refused() {
    let sandbox = Sandbox::with_data();
    let evaluate = "evaluate --data_dir=data --log_dir=logs --model_dir=model";
    fs::create_dir(sandbox.path("model")).unwrap();
    sandbox.run(evaluate).failed_with(
        "model: has no model: expected a file model.safetensors\nhint: train one first with `mnist train`",
    );
    sandbox.train("").done();
    let good = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.write("model/model.safetensors", &good[..good.len() / 2]);
    sandbox
        .run(evaluate)
        .failed_with("model/model.safetensors: is not a safetensors file: incomplete metadata, file not fully covered");
}

// ---- demo

#[test]
fn the_demo_without_a_network_draws_its_own_digits_and_a_second_call_uses_what_is_there() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("workspace/parameters")).unwrap();
    sandbox.write(
        "workspace/parameters/default.parameters.yaml",
        "train_epochs: 1\nhidden_layers: [32]\nbatch_size: 128\n",
    );
    // Port 9 of this machine is a proxy that nobody runs: no mirror can be reached, on any machine.
    let demo = || end(sandbox.program().arg("demo").env("https_proxy", "http://127.0.0.1:9"));
    let first = demo().done();
    let plain = "warning: no mirror could be reached: training on SYNTHETIC digits instead, which is not MNIST\n";
    assert!(first.stderr.contains(plain), "{}", first.stderr);
    assert!(first.stdout.contains("test data      SYNTHETIC digits (a stand-in, not MNIST)\n"), "{}", first.stdout);
    for place in ["workspace/data\n", "workspace/model/model.safetensors\n", "workspace/train_logs, "] {
        assert!(first.stdout.contains(place), "{place} in {}", first.stdout);
    }
    let model = || fs::metadata(sandbox.path("workspace/model/model.safetensors")).unwrap().modified().unwrap();
    let trained = model();
    let second = demo().done();
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(model(), trained);
    assert!(!second.stderr.contains("warning: no mirror"), "{}", second.stderr);

    // Other parameters: trained again, on the same data.
    sandbox
        .write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: []\nbatch_size: 256\n");
    demo().done();
    assert_ne!(model(), trained);
}

#[test]
fn the_demo_takes_mnist_from_a_mirror() {
    let Some(mirror) = common::real_mnist() else { return };
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("workspace/parameters")).unwrap();
    sandbox.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\n");
    let ended = end(sandbox.program().arg("demo").env("MNIST_MIRROR", mirror)).done();
    assert!(ended.stdout.contains("test data      MNIST\n"), "{ended:#?}");
}
