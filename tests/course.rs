//! How long `train` goes on and which model it keeps: validation split, early stopping, targets, time limits, averages, warm
//! starts; what an unfinished training leaves.

use std::fs;

use mnist::data::synthetic;
use mnist::model::file::{self as model_file, Unfinished};
use mnist::sha256;
use serde_json::{Value, json};

use crate::common::{Sandbox, end};

/// The losses of each epoch on `split`.
fn losses(metrics: &Value, split: &str) -> Vec<f64> {
    let epochs = metrics["epochs"].as_array().unwrap().iter();
    epochs.map(|epoch| epoch[format!("{split}_loss")].as_f64().unwrap()).collect()
}

#[test]
fn with_a_validation_split_the_test_set_is_scored_once_at_the_end() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--train_epochs=3 --validation=0.2").done();
    let metrics = sandbox.metrics("model");
    assert_eq!(losses(&metrics, "validation").len(), 3);
    assert!(metrics["epochs"].as_array().unwrap().iter().all(|epoch| epoch.get("test_loss").is_none()));
    let images = |split: &str| metrics["data"][format!("{split}_images")].as_u64().unwrap();
    assert_eq!(["train", "validation", "test"].map(images), [240, 60, 100]);
    assert_eq!(metrics["validation"]["images"], 60);
    assert_eq!(metrics["test"]["images"], 100);
    // So few images calibrate nothing.
    assert_eq!(metrics["epochs"][2]["validation_accuracy"], metrics["validation"]["accuracy"]);
    assert_eq!(metrics["validation"]["loss"].as_f64(), Some(losses(&metrics, "validation")[2]));

    let log = sandbox.read("logs/mllog_train.log");
    let scored = log.lines().filter(|line| line.contains("\"eval_accuracy\""));
    let of_epochs: Vec<bool> = scored.map(|line| line.contains("\"epoch_num\"")).collect();
    assert_eq!(of_epochs, [true, true, true, false]);
    assert!(ended.stderr.contains(", validation loss ") && !ended.stderr.contains("test loss"), "{ended:#?}");
    assert!(ended.stdout.starts_with("validation accuracy") && ended.stdout.contains("test accuracy"), "{ended:#?}");

    // A number of images is as good as a share.
    let by_share = sandbox.model();
    sandbox.train("--train_epochs=3 --validation=60").done();
    assert!(sandbox.model() == by_share);
}

#[test]
fn the_best_model_is_that_of_the_epoch_with_the_lowest_validation_loss() {
    let sandbox = Sandbox::with_data();
    let parameters = "--validation=0.3 --learning_rate=0.03 --dropout=0";
    sandbox.train(&format!("{parameters} --train_epochs=12 --keep=best")).done();
    let metrics = sandbox.metrics("model");
    let losses = losses(&metrics, "validation");
    let best = 1 + losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert!(best < 12, "the case is no test: {losses:?}");
    assert_eq!(metrics["validation"]["loss"].as_f64(), Some(losses[best - 1]));
    assert_eq!(metrics["validation"]["accuracy"], metrics["epochs"][best - 1]["validation_accuracy"]);
    let kept = sandbox.model();
    sandbox.train(&format!("{parameters} --train_epochs={best}")).done();
    assert!(sandbox.model() == kept, "epoch {best}");
}

#[test]
fn training_ends_early_without_improvement() {
    let sandbox = Sandbox::with_data();
    let parameters = "--validation=0.3 --learning_rate=0.03 --dropout=0 --train_epochs=40";
    let ended = sandbox.train(&format!("{parameters} --early_stopping=3 --min_delta=0.01")).done();
    let losses = losses(&sandbox.metrics("model"), "validation");
    let (mut best, mut waited) = (f64::INFINITY, vec![]);
    for loss in &losses {
        waited.push(if *loss < best - 0.01 { 0 } else { waited.last().unwrap_or(&0) + 1 });
        best = if waited.last() == Some(&0) { *loss } else { best };
    }
    assert_eq!(waited.iter().position(|waited| *waited == 3), Some(losses.len() - 1), "{losses:?}");
    let message = "validation loss not lower by more than min_delta 0.01 for 3 epochs: training ends";
    assert!(losses.len() < 40 && ended.stderr.contains(message), "{ended:#?}");
    assert_eq!(model_file::load(&sandbox.path("model")).unwrap().unfinished, None);
}

#[test]
fn a_target_ends_the_training_that_reaches_it_and_fails_the_one_that_does_not() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--train_epochs=50 --learning_rate=0.01 --target_accuracy=0.6").done();
    assert!(ended.stderr.contains("target_accuracy 60.00 % is reached"), "{ended:#?}");
    let reached = sandbox.metrics("model");
    let epochs = reached["epochs"].as_array().unwrap().len();
    assert!(epochs < 50 && reached["test"]["accuracy"].as_f64() >= Some(0.6));
    assert_eq!(reached["target_reached"], true);

    let ended = sandbox.train("--train_epochs=1 --target_accuracy=0.999 --validation=0.2");
    assert_eq!(ended.code, Some(1));
    let message = "error: target_accuracy: expected a validation accuracy of 99.90 %, found ";
    assert!(ended.stderr.contains(message), "{ended:#?}");
    assert_eq!(sandbox.metrics("model")["epochs"].as_array().unwrap().len(), 1, "the files are written");
    assert_eq!(sandbox.metrics("model")["target_reached"], false);
    assert!(
        ended.stdout.starts_with("validation accuracy ") && ended.stdout.ends_with("logs           logs\n"),
        "{ended:#?}"
    );
    sandbox.train("").done();
    assert!(sandbox.metrics("model")["target_reached"].is_null());
}

/// Finds a training in which an epoch after the best one is the first to reach some accuracy. Returns its flags, that epoch
/// and the accuracy.
fn reached_after_the_best(sandbox: &Sandbox) -> (String, u64, f64) {
    for seed in 1..20 {
        let flags =
            format!("--validation=0.3 --learning_rate=0.03 --dropout=0 --keep=best --train_epochs=12 --seed={seed}");
        sandbox.train(&flags).done();
        let metrics = sandbox.metrics("model");
        let mut before = 0.0;
        for epoch in metrics["epochs"].as_array().unwrap() {
            let (epoch, accuracy) = (epoch["epoch"].as_u64().unwrap(), epoch["validation_accuracy"].as_f64().unwrap());
            if accuracy > before && Some(epoch) > metrics["best_epoch"].as_u64() {
                return (flags, epoch, accuracy);
            }
            before = accuracy.max(before);
        }
    }
    panic!("no seed makes a test");
}

#[test]
fn the_model_that_reaches_the_target_is_kept_and_the_best_one_remembered() {
    let sandbox = Sandbox::with_data();
    let (flags, epoch, accuracy) = reached_after_the_best(&sandbox);
    let (best, best_epoch) = (sandbox.model(), sandbox.metrics("model")["best_epoch"].clone());
    let target = format!("{flags} --snapshots=1 --target_accuracy={accuracy}");
    for flags in [target.clone(), format!("{target} --resume")] {
        let ended = sandbox.train(&flags).done();
        let metrics = sandbox.metrics("model");
        assert_eq!((metrics["kept_epoch"].as_u64(), &metrics["best_epoch"]), (Some(epoch), &best_epoch), "{flags}");
        assert_eq!(metrics["validation"]["accuracy"].as_f64(), Some(accuracy));
        assert!(ended.stderr.contains(" is reached: its model is kept\n"), "{ended:#?}");
    }
    assert!(sandbox.model() != best);
    sandbox.train(&format!("{flags} --resume")).done();
    assert!(sandbox.model() == best, "another model than without a target");
}

#[test]
fn a_training_that_diverges_leaves_the_model_of_the_epochs_before_and_its_snapshot() {
    let sandbox = Sandbox::with_data();
    // The rate grows until the decay of the weights multiplies them by a number below -1.
    let flags = "--optimizer=sgd --learning_rate=10 --warmup=29 --weight_decay=1 --train_epochs=30";
    let ended = sandbox.train(&format!("{flags} --validation=0.1 --keep=best --snapshots=1000"));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let left = model_file::load(&sandbox.path("model")).unwrap();
    let Some(Unfinished { epochs, of: 30 }) = left.unfinished else { panic!("{:?}", left.unfinished) };
    assert!(ended.stderr.contains(&format!("training diverged: the loss of epoch {} is ", epochs + 1)), "{ended:#?}");
    assert!(ended.stderr.contains("to begin with this model, train again with --init=model\n"), "{ended:#?}");
    assert!(!ended.stderr.contains("--resume"), "{ended:#?}");
    assert!(ended.stderr.ends_with("hint: try a smaller learning_rate\n"), "{ended:#?}");
    assert_eq!(sandbox.files("model/snapshots"), [format!("epoch-{epochs:03}.safetensors")]);
    let kept = sandbox.metrics("model")["kept_epoch"].as_u64().unwrap();
    assert!(0 < kept && kept <= epochs.into(), "{kept} of {epochs}");
    // It never takes another model's place.
    let before = sandbox.model();
    let ended = sandbox.train(&format!("{flags} --snapshots=0"));
    assert!(
        sandbox.model() == before && sandbox.files("model").contains(&"model.safetensors.kept".into()),
        "{ended:#?}"
    );
    assert!(
        ended.stderr.contains("model/model.safetensors: cannot replace: the new model is of a training that diverged")
    );
}

#[test]
fn a_time_limit_leaves_an_unfinished_model_but_never_in_place_of_a_finished_one() {
    let sandbox = Sandbox::with_data();
    let limited = "--train_epochs=100000 --max_seconds=0.5";
    let ended = sandbox.train(limited).done();
    let left = model_file::load(&sandbox.path("model")).unwrap();
    let Some(Unfinished { epochs, of: 100_000 }) = left.unfinished else { panic!("{:?}", left.unfinished) };
    let reason = "stopped after 0.5 s, as max_seconds says";
    let message =
        format!("warning: model: holds a model that is unfinished, after {epochs} of 100000 epochs: {reason}\n");
    assert!(epochs > 0 && ended.stderr.contains(&message), "{ended:#?}");
    assert!(ended.stderr.contains("to begin with this model, train again with --init=model\n"), "{ended:#?}");
    assert!(!ended.stderr.contains("the test set was not scored"), "{ended:#?}");
    let log = sandbox.read("logs/mlcube_mnist_train.log");
    assert!(log.trim_end().ends_with(&format!(" train: unfinished: {reason}")), "{log}");
    let ended = sandbox.train(&format!("{limited} --validation=0.1 --snapshots=1000")).done();
    for next in ["to go on, train again with --resume\n", "`mnist evaluate` with --model_dir=model does it\n"] {
        assert!(ended.stderr.contains(next), "{ended:#?}");
    }
    fs::remove_dir_all(sandbox.path("model/snapshots")).unwrap();
    for task in ["evaluate --data_dir=data --log_dir=logs2", "predict data/train-images-idx3-ubyte"] {
        let ended = sandbox.run(&format!("{task} --model_dir=model"));
        assert!(ended.stderr.contains("warning: model: the model is unfinished, after "), "{ended:#?}");
    }

    // A finished one takes its place, and keeps it.
    sandbox.train("").done();
    let finished = sandbox.model();
    assert_eq!(model_file::load(&sandbox.path("model")).unwrap().unfinished, None);
    let ended = sandbox.train(limited).done();
    assert!(sandbox.model() == finished);
    assert!(model_file::load(&sandbox.path("model/unfinished")).unwrap().unfinished.is_some());
    assert!(ended.stderr.contains("warning: model: still holds the finished model of before"), "{ended:#?}");
    sandbox.train("").done();
    assert!(!sandbox.path("model/unfinished").exists() && sandbox.model() == finished);

    sandbox.train("--max_seconds=0.000001").failed_with(
        "stopped after 0.000001 s, as max_seconds says\nhint: give more max_seconds: by then no model was evaluated",
    );
    sandbox.train("--max_seconds=1e-320").failed_with(
        "stopped after 1e-320 s, as max_seconds says\nhint: give more max_seconds: by then no model was evaluated",
    );
    assert!(sandbox.model() == finished);
}

#[test]
fn the_average_of_the_weights_is_evaluated_and_kept() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=4").done();
    let last = sandbox.model();
    sandbox.train("--train_epochs=4 --ema=0.95").done();
    assert!(sandbox.model() != last);
    let trained = sandbox.metrics("model");
    sandbox.run("evaluate --data_dir=data --log_dir=logs2 --model_dir=model").done();
    let evaluated = sandbox.metrics("logs2");
    assert_eq!(evaluated["test"]["accuracy"], trained["test"]["accuracy"]);
    // The steps themselves are the same.
    let losses = |metrics: &Value| {
        metrics["epochs"].as_array().unwrap().iter().map(|epoch| epoch["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    sandbox.train("--train_epochs=4").done();
    assert_eq!(losses(&trained), losses(&sandbox.metrics("model")));
}

#[test]
fn a_training_may_begin_with_a_model() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=5").done();
    fs::rename(sandbox.path("model"), sandbox.path("first")).unwrap();
    let sha256 = sha256::of(fs::read(sandbox.path("first/model.safetensors")).unwrap());
    for init in ["--init=first", "--model_in=first", "--init=first/model.safetensors"] {
        sandbox.train(&format!("{init} --optimizer=sgd --learning_rate=1e-12")).done();
        let init = json!({ "path": "first/model.safetensors", "sha256": sha256 });
        assert_eq!(sandbox.metrics("model")["init"], init);
        let [first, next] = ["first", "model"].map(|name| model_file::load(&sandbox.path(name)).unwrap().parameters);
        let change = first.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(change < 1e-6, "{change}");
    }
    sandbox.train("--init=first --hidden_layers=8").failed_with(
        "first/model.safetensors: expected a model with layers [784, 8, 10], as the parameters say, found layers [784, 16, 10]\n\
         hint: set hidden_layers and ensemble to those of the model",
    );
    for (path, hint) in [
        ("nowhere", "name the directory of a trained model, or train one with `mnist train`"),
        ("parameters.yaml", "give the directory of a model, such as ."),
    ] {
        let ended = sandbox.train(&format!("--init={path}"));
        ended.failed_with(&format!("{path}: has no model: expected a file model.safetensors\nhint: {hint}"));
    }
    let inside = sandbox.path("first");
    let init = ["train", "--data_dir=../data", "--log_dir=l", "--model_dir=m", "--parameters_file=../parameters.yaml"];
    end(sandbox.program().current_dir(inside).args(init).arg("--init=model.safetensors")).done();
}

#[test]
fn an_average_that_cannot_move_is_named() {
    let sandbox = Sandbox::with_data();
    let message = "warning: ema: 0.9 changes nothing in ";
    for (epochs, named) in [("1", true), ("2", false)] {
        let ended = sandbox.train(&format!("--ema=0.9 --train_epochs={epochs}")).done();
        assert_eq!(ended.stderr.contains(message), named, "{ended:#?}");
    }
}

#[test]
fn a_model_that_is_no_good_is_named() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=10 --learning_rate=0.01").done();
    let ended = sandbox.train("--learning_rate=100").done();
    assert!(ended.stderr.contains("warning: the model is no better than chance: test accuracy "), "{ended:#?}");
    let message = "warning: the model is worse than the one in model, which had a test accuracy of ";
    assert!(ended.stderr.contains(message), "{ended:#?}");
    let ended = sandbox.train("--train_epochs=10 --learning_rate=0.01").done();
    assert!(!ended.stderr.contains("warning: the model"), "{ended:#?}");
    // Scores on other test images say nothing of it, nor does chance where all are of one class.
    synthetic::write(&sandbox.path("data"), 100, 1).unwrap();
    let ended = sandbox.train("--learning_rate=100").done();
    assert!(!ended.stderr.contains("warning: the model"), "{ended:#?}");
}

#[test]
fn the_parameters_of_a_run_give_its_bytes_again_and_leave_open_what_was_left_open() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--schedule=one_cycle --train_epochs=2 --validation=0.1 --keep=best --optimizer=sgd").done();
    let first = sandbox.model();
    let parameters = sandbox.read("model/parameters.yaml");
    for open in ["device: auto\n", "engine: auto\n", "threads: 0\n"] {
        assert!(parameters.contains(open), "{parameters}");
    }
    sandbox.write("parameters.yaml", parameters);
    sandbox.train("").done();
    assert!(sandbox.model() == first);
    // A constant schedule has no final rate that would stand in the way of another rate.
    sandbox.write("parameters.yaml", "train_epochs: 1\n");
    sandbox.train("").done();
    sandbox.write("parameters.yaml", sandbox.read("model/parameters.yaml"));
    sandbox.train("--learning_rate=0.1").done();
}

#[test]
fn parameters_that_do_not_go_together_are_refused() {
    let sandbox = Sandbox::with_data();
    for (flags, message) in [
        ("--keep=best", "keep: best needs a validation split, such as validation: 0.1"),
        ("--early_stopping=2", "early_stopping needs a validation split, such as validation: 0.1"),
        ("--min_delta=0.1", "min_delta: expected early_stopping above 0 with it, found 0"),
        ("--warmup=1", "warmup: expected fewer epochs than train_epochs, which is 1, found 1"),
        (
            "--final_learning_rate=0.1",
            "final_learning_rate: schedule constant has none: set schedule, to linear or cosine for example, or leave it \
             out",
        ),
        (
            "--schedule=exponential --final_learning_rate=0",
            "final_learning_rate: expected a number above 0 with schedule exponential, found 0",
        ),
    ] {
        let ended = sandbox.train(flags);
        assert_eq!(ended.code, Some(2), "{ended:#?}");
        assert!(
            ended.stderr.contains(&format!("with the parameters given as flags and in parameters.yaml: {message}\n")),
            "{ended:#?}"
        );
    }
    for flags in ["--validation=1.5", "--validation=-1", "--schedule=cosines", "--ema=1", "--target_accuracy=98"] {
        let ended = sandbox.train(flags);
        assert!(ended.code == Some(2) && ended.stderr.contains("expected"), "{ended:#?}");
    }
    sandbox.train("--validation=300").failed_with(
        "validation: 300 of the 300 training images leaves none to train on\n\
         hint: set validation to a smaller share, such as 0.1, or a smaller number of images",
    );
    assert_eq!(sandbox.files("model"), [""; 0]);
}
