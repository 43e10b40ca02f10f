//! Other people's programs read what we write: PyTorch the model, mlperf-logging the log.

mod common;

use std::path::Path;

use common::{Sandbox, end, python_with};
use mnist::config::Parameters;
use mnist::config::keys::Draft;
use mnist::data::synthetic::{self, Split};
use mnist::engine::{self, TrainingState};
use mnist::output::weights;

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

#[test]
fn pytorch_loads_the_model_and_gives_the_same_logits() {
    let Some(mut python) = python_with(&["torch", "safetensors"]) else { return };
    let sandbox = Sandbox::with_data();
    sandbox.train("--hidden_layers 24,16 --train_epochs 3").done();
    let model = weights::load(&sandbox.path("model")).unwrap();
    let draft = Draft { hidden_layers: Some(vec![24, 16]), ..Draft::default() };
    let mut parameters = Parameters::defaults_with(draft);
    let mut engine = engine::build(&mut parameters, Default::default()).unwrap();
    engine.load_state(&TrainingState::new(&parameters.optimizer_settings(), model.parameters)).unwrap();
    let pixels = synthetic::draw(Split::Test, 100).images;
    let logits = engine.logits(&pixels).unwrap();
    let cases = |logits: &[f32]| {
        let images: Vec<&[u8]> = pixels.chunks(784).collect();
        let logits: Vec<&[f32]> = logits.chunks(10).collect();
        serde_json::json!({ "images": images, "logits": logits }).to_string()
    };
    sandbox.write("cases.json", cases(&logits));
    python
        .arg(script("load_in_pytorch.py"))
        .args([sandbox.path("model/model.safetensors"), sandbox.path("cases.json")]);
    let ended = end(&mut python).done();
    assert!(ended.stdout.contains(" over 100 images"), "{ended:#?}");

    // The script objects where the logits are others.
    let mut off = logits;
    off[7] += 1e-3;
    sandbox.write("cases.json", cases(&off));
    assert_eq!(end(&mut python).code, Some(1));
}

#[test]
fn mlperfs_own_parser_reads_the_logs_of_every_task() {
    let Some(mut python) = python_with(&["mlperf_logging"]) else { return };
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 2").done();
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
