//! Other people's programs read what we write: PyTorch and onnxruntime the model, Chromium the report, TensorBoard and
//! mlperf-logging the logs.

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{self, Sandbox, end, lines_until, python_with, real_mnist, skipped};
use mnist::data::dataset::Dataset;
use mnist::model::file as weights;
use serde_json::{Value, json};

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// A trained network with images and its answers to them, as files for the scripts.
struct Case {
    sandbox: Sandbox,
    pixels: Vec<u8>,
    logits: Vec<f32>,
}

impl Case {
    /// On the real MNIST with all of its test images where it is at hand, else on 100 drawn ones.
    fn new(flags: &str) -> Self {
        let sandbox = Sandbox::with_data();
        let data = real_mnist().unwrap_or_else(|| sandbox.path("data"));
        sandbox
            .run(&format!(
                "train --data_dir={} --log_dir=logs --model_dir=model --parameters_file=parameters.yaml {flags}",
                data.display()
            ))
            .done();
        let pixels = Dataset::load(&data).unwrap().test.pixels;
        let model = weights::load(&sandbox.path("model")).unwrap();
        let logits = common::logits(&model, &pixels);
        sandbox.write("images", &pixels);
        let case = Self { sandbox, pixels, logits };
        case.write_logits(&case.logits);
        case
    }

    fn write_logits(&self, logits: &[f32]) {
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        self.sandbox.write("logits", bytes);
    }

    /// Has `script` compare the answers of `model`, and object where they are others.
    fn holds_against(&self, python: &mut Command, script_name: &str, model: &str) {
        python.arg(script(script_name)).args([model, "images", "logits"].map(|name| self.sandbox.path(name)));
        let ended = end(python).done();
        println!("{}", ended.stdout.trim());
        assert!(ended.stdout.contains(&format!(" over {} images", self.pixels.len() / 784)), "{ended:#?}");
        let mut off = self.logits.clone();
        off[7] += 1e-3;
        self.write_logits(&off);
        assert_eq!(end(python).code, Some(1));
    }
}

#[test]
fn pytorch_loads_the_model_and_gives_the_same_logits() {
    let Some(mut python) = python_with(&["torch", "safetensors", "numpy"]) else { return };
    Case::new("--hidden_layers 24,16").holds_against(&mut python, "load_in_pytorch.py", "model/model.safetensors");
}

#[test]
fn onnxruntime_runs_the_model_and_gives_the_same_logits() {
    for flags in
        ["--hidden_layers=128", "--hidden_layers=24,16", "--hidden_layers=[]", "--hidden_layers=16 --ensemble=3"]
    {
        let Some(mut python) = python_with(&["onnxruntime", "numpy"]) else { return };
        Case::new(flags).holds_against(&mut python, "run_onnx.py", "model/model.onnx");
    }
}

/// What TensorBoard's own reader reads from `logs`: for each run the points of each name.
#[track_caller]
fn read_by_tensorboard(sandbox: &Sandbox) -> Option<Value> {
    let mut python = python_with(&["tensorboard"])?;
    let ended = end(python.arg(script("read_tfevents.py")).arg(sandbox.path("logs"))).done();
    Some(serde_json::from_str(&ended.stdout).unwrap())
}

/// Holds the runs that TensorBoard shows against metrics.json: training and `split`, both with the same names of values.
#[track_caller]
fn shows_the_run(runs: &Value, sandbox: &Sandbox, epochs: usize, split: &str) {
    let metrics = sandbox.metrics("model");
    let curves = [
        ("train", "epoch_loss", "loss".to_string()),
        ("train", "epoch_accuracy", "accuracy".into()),
        ("train", "epoch_learning_rate", "learning_rate".into()),
        ("train", "images_per_second", "images_per_second".into()),
        (split, "epoch_loss", format!("{split}_loss")),
        (split, "epoch_accuracy", format!("{split}_accuracy")),
    ];
    for (run, tag, key) in curves {
        let points = runs[run][tag].as_array().unwrap_or_else(|| panic!("no {tag} of {run} in {runs}"));
        assert_eq!(points.len(), epochs, "{run} {tag}: {points:?}");
        for (index, point) in points.iter().enumerate() {
            let expected = metrics["epochs"][index][&key].as_f64().unwrap();
            assert_eq!(point[0], index + 1);
            assert!((point[1].as_f64().unwrap() / expected - 1.0).abs() < 1e-6, "{tag}: {point}, not {expected}");
        }
    }
}

#[test]
fn tensorboards_own_reader_reads_every_epoch() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 3 --learning_rate 0.002 --schedule=linear").done();
    let Some(runs) = read_by_tensorboard(&sandbox) else { return };
    shows_the_run(&runs, &sandbox, 3, "test");
    assert_eq!(runs.as_object().unwrap().len(), 2, "{runs}");
}

#[test]
fn tensorboard_shows_validation_beside_training_and_the_test_at_the_end() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 3 --validation=0.1").done();
    let Some(runs) = read_by_tensorboard(&sandbox) else { return };
    shows_the_run(&runs, &sandbox, 3, "validation");
    let metrics = sandbox.metrics("model");
    let [point] = &runs["test"]["epoch_accuracy"].as_array().unwrap()[..] else { panic!("{runs}") };
    assert_eq!(point[0], 3);
    assert!((point[1].as_f64().unwrap() - metrics["test"]["accuracy"].as_f64().unwrap()).abs() < 1e-6, "{runs}");
}

#[test]
fn tensorboard_does_not_mix_the_runs_of_one_directory() {
    let sandbox = Sandbox::with_data();
    // Files are read in the order of their names, which begin with seconds.
    let later = || std::thread::sleep(Duration::from_millis(1100));
    sandbox.train("--train_epochs 5 --seed 1 --validation=0.1").done();
    later();
    sandbox.train("--train_epochs 3 --seed 2").done();
    let Some(runs) = read_by_tensorboard(&sandbox) else { return };
    shows_the_run(&runs, &sandbox, 3, "test");
    // The earlier run had a split that this one has not.
    assert_eq!(runs["validation"], json!({ "epoch_loss": [], "epoch_accuracy": [] }));
    later();
    sandbox.train("--train_epochs 2 --seed 1 --validation=0.1").done();
    let runs = read_by_tensorboard(&sandbox).unwrap();
    shows_the_run(&runs, &sandbox, 2, "validation");
    assert_eq!(runs["test"]["epoch_loss"].as_array().unwrap().len(), 1, "{runs}");
}

#[test]
fn tensorboard_shows_a_training_that_goes_on_as_one() {
    let sandbox = Sandbox::with_data();
    let later = || std::thread::sleep(Duration::from_millis(1100));
    sandbox.train("--train_epochs 4 --snapshots=1 --validation=0.1").done();
    // As if it had been killed in epoch 3, after it had shown two more epochs than the newest snapshot has.
    for epoch in [3, 4] {
        std::fs::remove_file(sandbox.path(format!("model/snapshots/epoch-{epoch:03}.safetensors"))).unwrap();
    }
    later();
    sandbox.train("--train_epochs 6 --snapshots=1 --validation=0.1 --resume").done();
    let Some(runs) = read_by_tensorboard(&sandbox) else { return };
    shows_the_run(&runs, &sandbox, 6, "validation");
    let steps = |run: &str| runs[run]["epoch_loss"].as_array().unwrap().iter().map(|point| point[0].clone());
    assert_eq!(steps("test").collect::<Vec<_>>(), [json!(6)], "{runs}");
    // Nothing is left to train: what is shown stays.
    later();
    sandbox.train("--train_epochs 6 --snapshots=1 --validation=0.1 --resume").done();
    assert_eq!(read_by_tensorboard(&sandbox).unwrap(), runs);
}

#[test]
fn tensorboard_shows_epochs_while_others_are_trained() {
    let sandbox = Sandbox::with_data();
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model", "--train_epochs=100000"]);
    let mut training = command.arg("--parameters_file=parameters.yaml").stderr(Stdio::piped()).spawn().unwrap();
    lines_until(&mut BufReader::new(training.stderr.as_mut().unwrap()), "epoch 3/100000: ");
    let runs = read_by_tensorboard(&sandbox);
    training.kill().unwrap();
    training.wait().unwrap();
    let Some(runs) = runs else { return };
    for run in ["train", "test"] {
        assert!(runs[run]["epoch_loss"].as_array().unwrap().len() > 1, "{runs}");
    }
}

fn has_chromium() -> bool {
    let found = Path::new("/usr/bin/chromedriver").exists();
    if !found {
        skipped("no Chromium with its driver; Debian's packages chromium and chromium-driver have them");
    }
    found
}

#[test]
fn axe_core_finds_nothing_in_the_report() {
    let Some(mut python) = python_with(&["selenium"]) else { return };
    let Some(axe) = std::env::var_os("MNIST_TEST_AXE") else {
        return skipped(
            "MNIST_TEST_AXE does not name the file axe.min.js of npm's axe-core; see tests/python/README.md",
        );
    };
    if !has_chromium() {
        return;
    }
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=3 --validation=100 --keep=best --augment=affine").done();
    python.arg(script("check_access.py")).arg(sandbox.path("model/report.html")).arg(axe);
    let ended = end(&mut python).done();
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(found["violations"], json!([]));
    // On each of two screens in each of two colour schemes, so that nothing was hidden from it.
    let contrasts: Vec<usize> = serde_json::from_value(found["contrasts"].clone()).unwrap();
    assert!(contrasts.len() == 4 && contrasts.iter().all(|contrasts| *contrasts > 200), "{contrasts:?}");

    // Faint text is no longer dark enough on white, and no longer light enough on black.
    let report = sandbox.read("model/report.html");
    for (mark, scheme) in [("--faint: #5b6270", "light"), ("--faint: #a4acb9", "dark")] {
        assert!(report.contains(mark));
        sandbox.write("model/report.html", report.replace(mark, "--faint: #7c7c7c"));
        let found: Value = serde_json::from_str(&end(&mut python).done().stdout).unwrap();
        let found = found["violations"].as_array().unwrap();
        assert!(found.iter().any(|violation| violation[1] == scheme && violation[2] == "color-contrast"), "{found:?}");
    }
}

#[test]
fn chromium_opens_the_report_and_reads_what_is_drawn() {
    let Some(mut python) = python_with(&["selenium"]) else { return };
    if !has_chromium() {
        return;
    }
    let real = real_mnist().is_some();
    let case = Case::new("--hidden_layers=64 --train_epochs=5 --ensemble=2");
    // The first ten, which are drawn, are digits that the network knows.
    let argmax = |index: usize| mnist::score::argmax(&case.logits[index * 10..][..10]);
    let sure = |index: &usize| {
        let row = &case.logits[index * 10..][..10];
        mnist::score::softmax(row)[argmax(*index)] > 0.99
    };
    let images = case.pixels.len() / 784;
    let chosen: Vec<usize> = match real {
        true => {
            (0..10).map(|digit| (0..images).find(|i| argmax(*i) == digit && sure(i)).unwrap()).chain(0..90).collect()
        }
        false => (0..images).collect(),
    };
    let pixels: Vec<u8> = chosen.iter().flat_map(|index| case.pixels[index * 784..][..784].to_vec()).collect();
    case.sandbox.write("chosen", &pixels);
    python.arg(script("open_report.py")).arg(case.sandbox.path("model/report.html")).arg(case.sandbox.path("chosen"));
    if let Some(shots) = std::env::var_os("MNIST_TEST_SHOTS") {
        python.arg(shots);
    }
    let ended = end(&mut python).done();
    let seen: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&seen["console"], &seen["requests"], &seen["overflow"]), (&json!([]), &json!([]), &json!([0, 0])));
    assert_eq!(seen["broken"], json!([]), "words broken on a phone");
    let probabilities: Vec<Vec<f64>> = serde_json::from_value(seen["probabilities"].clone()).unwrap();
    assert_eq!(probabilities.len(), chosen.len());
    for (row, index) in probabilities.iter().zip(&chosen) {
        let expected = mnist::score::softmax(&case.logits[index * 10..][..10]);
        for (found, expected) in row.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "image {index}: {found}, not {expected}");
        }
    }
    let answers: Vec<String> = serde_json::from_value(seen["answers"].clone()).unwrap();
    assert!(answers.iter().all(|answer| answer.starts_with("This is a ")), "{answers:?}");
    // A small drawing is no other digit, since its pen is as small.
    assert_eq!(seen["small"], seen["answers"]);
    // The pad asks to draw and is black; drawn on; with a sample; with the drawing again; and as at first.
    let pad: Vec<(bool, u32)> = serde_json::from_value(seen["pad"].clone()).unwrap();
    let [empty, drawn, sample, again, undone] = pad[..] else { panic!("{pad:?}") };
    assert_eq!((empty, undone), ((true, 0), (true, 0)), "{pad:?}");
    assert!(!drawn.0 && drawn.1 > 500 && !sample.0 && sample.1 > 0 && sample != drawn && again == drawn, "{pad:?}");
    let values = &seen["values"];
    assert!(values[0].as_str().is_some_and(|shown| shown.starts_with("epoch 3: training ")), "{values}");
    // Whoever is trained on 300 drawn digits may err.
    if real {
        let right = (0..10).filter(|digit| answers[*digit].starts_with(&format!("This is a {digit},"))).count();
        assert!(right >= 9, "{answers:?}");
    }
    assert!(seen["sample"].as_str().unwrap().starts_with("This is a "));
}

#[test]
fn mlperfs_own_parser_reads_the_logs_of_every_task() {
    let Some(mut python) = python_with(&["mlperf_logging"]) else { return };
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 2 --validation=0.1 --schedule=cosine").done();
    sandbox.run("evaluate --data_dir=data --log_dir=logs --model_dir=model").done();
    sandbox.run("download --data_dir=drawn --log_dir=logs --synthetic").done();
    let logs = ["train", "evaluate", "download"].map(|task| sandbox.path(format!("logs/mllog_{task}.log")));
    let ended = end(python.arg(script("read_mllog.py")).args(&logs)).done();
    let keys: Vec<Vec<String>> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let position = |key: &str| keys[0].iter().position(|other| other == key).unwrap_or_else(|| panic!("no {key}"));
    let order = [
        "init_start",
        "init_stop",
        "run_start",
        "epoch_start",
        "epoch_stop",
        "eval_start",
        "eval_accuracy",
        "eval_stop",
        "run_stop",
    ];
    assert!(order.map(position).is_sorted(), "{:?}", keys[0]);
    for key in ["seed", "global_batch_size", "opt_name", "opt_base_learning_rate", "train_samples", "eval_samples"] {
        assert!(position(key) < position("run_start"), "{key}");
    }
    assert_eq!(keys[0].iter().filter(|key| *key == "epoch_start").count(), 2);
    for keys in &keys {
        assert_eq!(keys.last().unwrap(), "run_stop");
    }

    sandbox.write("logs/mllog_train.log", ":::MLLOG {\"namespace\": \"\"}\n");
    assert_ne!(end(&mut python).code, Some(0));
}
