//! What a training shows that goes on with `train --resume`: its logs, its times and its files tell of all epochs.

use std::fs;

use crate::common::{Sandbox, end};
use serde_json::json;

/// Two epochs, and then three more. Returns what the second call prints.
fn two_and_three_more(sandbox: &Sandbox) -> String {
    sandbox.train("--train_epochs=2 --validation=0.1 --snapshots=1").done();
    fs::rename(sandbox.path("logs"), sandbox.path("first")).unwrap();
    sandbox.train("--train_epochs=5 --validation=0.1 --snapshots=1 --resume").done().stdout
}

#[test]
fn the_logs_hold_the_epochs_before_too() {
    let sandbox = Sandbox::with_data();
    two_and_three_more(&sandbox);
    let epochs = |logs: &str, of: u32| -> Vec<String> {
        let log = sandbox.read(&format!("{logs}/mlcube_mnist_train.log"));
        let lines = log.lines().filter_map(|line| line.split_once("INFO epoch "));
        lines.map(|(_, line)| line.replacen(&format!("/{of}:"), ":", 1)).collect()
    };
    let (first, all) = (epochs("first", 2), epochs("logs", 5));
    assert_eq!((first.len(), all.len()), (2, 5), "{all:?}");
    assert_eq!(all[..2], first);

    let results = |logs: &str, key: &str| -> Vec<(String, String)> {
        let log = sandbox.read(&format!("{logs}/mllog_train.log"));
        let lines = log.lines().filter_map(|line| line.split_once(&format!("\"key\": \"{key}\", \"value\": ")));
        let value = |text: &str| text.split(',').next().unwrap().to_string();
        let epoch = |text: &str| {
            text.split("\"epoch_num\": ").nth(1).map(|text| text.split([',', '}']).next().unwrap().to_string())
        };
        lines.filter_map(|(_, text)| Some((epoch(text)?, value(text)))).collect()
    };
    for key in ["train_loss", "eval_loss", "eval_accuracy"] {
        let (first, all) = (results("first", key), results("logs", key));
        assert_eq!(all.iter().map(|(epoch, _)| &**epoch).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"], "{key}");
        assert_eq!(all[..2], first);
    }
}

#[test]
fn times_of_this_run_and_of_all_are_told_apart() {
    let sandbox = Sandbox::with_data();
    let summary = two_and_three_more(&sandbox);
    let line = summary.lines().find(|line| line.starts_with("epochs ")).unwrap();
    assert!(line.contains(" 5 in ") && line.contains(" s, 3 of them now; this run ") && line.ends_with(" s"), "{line}");
    let metrics = sandbox.metrics("model");
    assert_eq!((&metrics["epochs_before"], metrics["epochs"].as_array().unwrap().len()), (&json!(2), 5));
    assert!(sandbox.read("model/report.html").contains(" s, without the 2 epochs of earlier runs</td>"));

    let fresh = sandbox.train("--train_epochs=2").done().stdout;
    let line = fresh.lines().find(|line| line.starts_with("epochs ")).unwrap();
    assert!(line.contains(" 2 in ") && line.ends_with(" s with everything"), "{line}");
    assert_eq!(sandbox.metrics("model")["epochs_before"], 0);
    assert!(!sandbox.read("model/report.html").contains("of earlier runs"));
}

#[test]
fn the_epoch_of_the_model_is_named_wherever_it_is_a_choice() {
    let sandbox = Sandbox::with_data();
    let kept = |flags: &str| sandbox.train(flags).done().stdout.lines().any(|line| line.starts_with("kept "));
    assert!(!kept("--train_epochs=2 --validation=0.1"));
    // In the last epoch too.
    assert!(kept("--train_epochs=1 --validation=0.1 --keep=best"));
}

#[test]
fn a_training_that_is_stopped_says_how_to_go_on() {
    let sandbox = Sandbox::with_data();
    let stopped = "--train_epochs=100000 --max_seconds=0.3";
    let ended = sandbox.train(&format!("{stopped} --snapshots=1000")).done();
    let hint = "\nto go on, train again with --resume\n";
    assert!(ended.stderr.contains(hint), "{ended:#?}");
    let ended = sandbox.train(stopped).done();
    let hint = "\nto begin with this model, train again with --init=model\n";
    assert!(ended.stderr.contains(hint), "{ended:#?}");
}

#[test]
fn in_a_cube_it_says_how_to_go_on_outside() {
    let sandbox = Sandbox::with_data();
    for (snapshots, hint) in [
        ("1000", "\nto go on, train outside the cube: mnist train --resume --model_dir=model\n"),
        ("0", "\nto begin with this model, train outside the cube: mnist train --init=model\n"),
    ] {
        let mut command = sandbox.program();
        command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model"]);
        command.args(["--parameters_file=parameters.yaml", "--train_epochs=100000", "--max_seconds=0.3"]);
        command.arg(format!("--snapshots={snapshots}")).env("MLCUBE_TASK_NAME", "train");
        let ended = end(&mut command).done();
        assert!(ended.stderr.contains(hint), "{ended:#?}");
    }
}
