//! `mnist train`: its files, equal bytes for equal runs, and every input that it refuses.

use std::fs;
use std::io::{BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{self, Sandbox, end, lines_until, real_mnist};
use mnist::data::dataset::{Dataset, Images};
use mnist::data::idx;
use mnist::engine::{EngineInfo, EpochTotals, Network, Report, Trainer, TrainingState, choice};
use mnist::error::{Error, Result};
use mnist::files::lock;
use mnist::model::file::Unfinished;
use mnist::output::artifacts;
use mnist::output::event::Listeners;
use mnist::output::machine::processor;
use mnist::output::unfinished::UnfinishedDirectory;
use mnist::parameters::Parameters;
use mnist::simd::{InstructionSet, Precision};
use mnist::task::train::carry_out;
use mnist::task::train::plan::{Begin, Plan};
use mnist::training::course::Course;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

// ---- the files of a run

/// The files of MODEL_DIR, sorted.
fn artifact_names() -> Vec<&'static str> {
    let mut names: Vec<_> = artifacts::names().collect();
    names.sort();
    names
}

#[test]
fn a_run_leaves_logs_model_metrics_and_parameters_and_nothing_else() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--train_epochs 3").done();
    assert_eq!(sandbox.files("logs"), ["mlcube_mnist_train.log", "mllog_train.log", "test", "train"]);
    for split in ["logs/train", "logs/test"] {
        assert_eq!(sandbox.files(split), ["events.out.tfevents."]);
    }
    let model_files = ["metrics.json", "model.onnx", "model.safetensors", "parameters.yaml", "report.html"];
    assert_eq!(sandbox.files("model"), model_files);
    // The list of artifacts says the same.
    assert_eq!(artifact_names(), model_files);
    assert!(ended.stdout.starts_with("test accuracy  "), "{}", ended.stdout);

    let metrics = sandbox.metrics("model");
    assert_eq!(metrics["epochs"].as_array().unwrap().len(), 3);
    for key in ["loss", "accuracy", "seconds", "test_loss", "test_accuracy"] {
        assert!(metrics["epochs"][2][key].is_number(), "{key}");
    }
    assert!(metrics["epochs"][2]["loss"].as_f64() < metrics["epochs"][0]["loss"].as_f64());
    let images: u64 = metrics["test"]["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(images, 100);
    assert_eq!((&metrics["engine"], &metrics["device"]), (&"fused".into(), &"cpu".into()));
    assert_eq!(metrics["instruction_set"], InstructionSet::available()[0].name());
    assert_eq!(metrics["data"]["source"], "unknown");
    for file in metrics["data"]["files"].as_array().unwrap() {
        let bytes = fs::read(sandbox.path("data").join(file["name"].as_str().unwrap())).unwrap();
        let digest = mnist::sha256::of(bytes);
        assert_eq!(file["sha256"], digest);
    }
    assert_eq!(metrics["program_version"], env!("CARGO_PKG_VERSION"));
    assert!(metrics.get("splits").is_none(), "data has the numbers of images");

    let log = sandbox.read("logs/mlcube_mnist_train.log");
    assert!(log.contains(" INFO epoch 3/3: loss "), "{log}");
    assert!(log.contains(" INFO parameter hidden_layers: 16"), "{log}");
    assert!(
        log.contains(&format!("engine: fused on cpu (own kernels, {})", InstructionSet::available()[0].name())),
        "{log}"
    );
}

/// The time of a field such as `2024-02-29T23:59:59Z`, in seconds since 1970, by GNU date.
#[track_caller]
fn seconds_of(field: &Value) -> u64 {
    let ended = end(Command::new("date").args(["-u", "+%s", "-d", field.as_str().unwrap()])).done();
    ended.stdout.trim().parse().unwrap()
}

#[test]
fn the_metrics_hold_what_a_later_comparison_needs() {
    let sandbox = Sandbox::with_data();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    sandbox.train("--train_epochs=6 --learning_rate=0.05 --validation=0.1 --keep=best --seed=7").done();
    let metrics = sandbox.metrics("model");
    let (began, finished) = (seconds_of(&metrics["began"]), seconds_of(&metrics["finished"]));
    assert!(before <= began && began <= finished && finished <= now(), "{began} {finished}");
    assert_eq!((&metrics["host"], &metrics["processor"]), (&json!(lock::host()), &json!(processor())));
    let images = |split: &str| metrics["data"][format!("{split}_images")].as_u64().unwrap();
    assert_eq!(["train", "validation", "test"].map(images), [270, 30, 100]);
    assert_eq!(metrics["unfinished"], Value::Null);
    // As they were asked for: the outcome for this machine stands beside them.
    let parameters = &metrics["parameters"];
    assert_eq!((&parameters["seed"], &parameters["keep"]), (&json!(7), &json!("best")));
    assert_eq!((&parameters["threads"], &parameters["device"]), (&json!(0), &json!("auto")));
    assert!(metrics["threads"].as_u64() > Some(0) && metrics["device"] == "cpu");
    let epochs = metrics["epochs"].as_array().unwrap();
    let loss = |epoch: &Value| epoch["validation_loss"].as_f64().unwrap();
    let best = epochs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!((&metrics["best_epoch"], &metrics["kept_epoch"]), (&best["epoch"], &best["epoch"]));
    assert_eq!(metrics["validation"]["accuracy"], best["validation_accuracy"]);

    sandbox.train("--train_epochs=2 --validation=0.1").done();
    let metrics = sandbox.metrics("model");
    assert_eq!(metrics["kept_epoch"], 2);

    // The test images are enough for an evaluation.
    let files = metrics["data"]["files"].clone();
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"] {
        fs::remove_file(sandbox.path("data").join(name)).unwrap();
    }
    sandbox.run("evaluate --data_dir=data --log_dir=logs --model_dir=model").done();
    let evaluated = sandbox.metrics("logs");
    assert_eq!(evaluated["test"], metrics["test"]);
    let metrics = evaluated;
    assert_eq!((&metrics["data"]["test_images"], &metrics["unfinished"]), (&json!(100), &Value::Null));
    assert_eq!(metrics["data"]["files"], json!([files[2], files[3]]));
    assert!(metrics["data"].get("train_images").is_none());
    assert!(metrics["began"].is_string() && metrics["processor"].is_string());
    assert!(metrics.get("parameters").is_none() && metrics.get("kept_epoch").is_none());
}

#[test]
fn the_metrics_of_an_unfinished_training_say_why_it_ended() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=100000 --max_seconds=0.3").done();
    let metrics = sandbox.metrics("model");
    let unfinished = &metrics["unfinished"];
    assert_eq!((&unfinished["epochs"], &unfinished["of"]), (&metrics["kept_epoch"], &json!(100_000)));
    assert!(unfinished["reason"].as_str().unwrap().contains("max_seconds"), "{unfinished}");
    sandbox.run("evaluate --data_dir=data --log_dir=logs --model_dir=model").done();
    let evaluated = sandbox.metrics("logs");
    assert_eq!(evaluated["unfinished"], json!({ "epochs": metrics["kept_epoch"], "of": 100_000 }));
}

#[test]
fn the_environment_chooses_the_instruction_set_among_those_there_are() {
    let sandbox = Sandbox::with_data();
    let train = |set: &str, precision: &str| {
        let mut command = sandbox.program();
        let flags = "--data_dir=data --log_dir=logs --model_dir=model --parameters_file=parameters.yaml --threads=2";
        let precision = format!("--precision={precision}");
        end(command.arg("train").args(flags.split(' ')).arg(precision).env("MNIST_INSTRUCTION_SET", set))
    };
    let names = |sets: Vec<InstructionSet>| -> Vec<&str> { sets.iter().map(|set| set.name()).collect() };
    let (float32, bf16) = (names(InstructionSet::available()), names(InstructionSet::available_for(Precision::Bf16)));
    for name in &bf16 {
        let ended = train(name, "bf16").done();
        let is_slow = ended.stderr.contains("has no products of bf16 numbers: --precision=float32 is faster");
        assert_eq!(is_slow, float32.contains(name), "{ended:#?}");
        assert_eq!(sandbox.metrics("model")["instruction_set"], *name);
        // Those for bf16 alone are kinds of the fastest.
        let expected = if float32.contains(name) { name } else { float32[0] };
        let ended = train(name, "float32").done();
        assert!(!ended.stderr.contains("bf16"), "{ended:#?}");
        assert_eq!(sandbox.metrics("model")["instruction_set"], expected);
    }
    train("", "bf16").done();
    assert_eq!(sandbox.metrics("model")["instruction_set"], bf16[0]);
    let refused = train("mmx", "float32");
    let expected = format!(
        "error: the environment variable MNIST_INSTRUCTION_SET: expected one of {}, which this processor has, found mmx\n\
         hint: unset it, and the fastest is taken\n",
        bf16.join(", ")
    );
    assert!(refused.stderr.ends_with(&expected), "{refused:#?}");
    assert_eq!(refused.code, Some(2));
}

#[test]
fn products_of_bf16_numbers_are_those_of_the_fused_engine_on_the_processor() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--precision=bf16 --device=cpu --engine=fused").done();
    assert_eq!(sandbox.metrics("model")["parameters"]["precision"], "bf16");
    let refused = sandbox.train("--precision=bf16 --device=cpu --engine=burn");
    let expected = "error: precision: expected float32 for engine burn on device cpu, found bf16\n\
                    hint: set engine to auto and device to cpu, or precision to float32\n";
    assert!(refused.stderr.ends_with(expected), "{refused:#?}");
    assert_eq!(refused.code, Some(1));
}

#[cfg(feature = "burn")]
#[test]
fn the_burn_engine_is_there_when_asked_for() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--engine burn").done();
    let metrics = sandbox.metrics("model");
    assert_eq!(metrics["engine"], "burn");
}

#[test]
fn the_parameters_left_repeat_the_run() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--optimizer=SGD --momentum 0.9 --nesterov=true --hidden-layers 8,4 --dropout 0.1").done();
    let first = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    let parameters = sandbox.read("model/parameters.yaml");
    assert!(parameters.starts_with("optimizer: sgd\ntrain_epochs: 1\nbatch_size: 32\nlearning_rate: 0.01\n"));
    fs::copy(sandbox.path("model/parameters.yaml"), sandbox.path("parameters.yaml")).unwrap();
    sandbox.train("").done();
    assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), first);
    assert_eq!(sandbox.read("model/parameters.yaml"), parameters);
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_threads_and_another_seed_others() {
    let sandbox = Sandbox::with_data();
    let model = |flags: &str| {
        sandbox.train(flags).done();
        fs::read(sandbox.path("model/model.safetensors")).unwrap()
    };
    // With augmentation and some epochs, the images of the next are made while this one trains.
    // A small network is measured with fewer threads, and goes on with other ones.
    for flags in ["", "--augment=both --train_epochs=3", "--hidden_layers=32 --batch_size=1 --train_epochs=12"] {
        let first = model(&format!("{flags} --threads 1"));
        assert_eq!(model(&format!("{flags} --threads 1")), first);
        for threads in [0, 2, 3, 8] {
            assert!(model(&format!("{flags} --threads {threads}")) == first, "{flags}: {threads} threads");
        }
        assert!(model(&format!("{flags} --seed 43")) != first, "{flags}");
    }
}

#[test]
fn a_short_last_batch_a_batch_of_one_and_a_batch_of_all_are_trained() {
    let sandbox = Sandbox::with_data();
    for batch_size in [1, 7, 299, 300, 1_000_000] {
        sandbox.train(&format!("--batch_size {batch_size}")).done();
    }
}

#[test]
fn any_hidden_layers_are_trained() {
    let sandbox = Sandbox::with_data();
    for layers in ["[]", "1", "64,32,16"] {
        sandbox.train(&format!("--hidden_layers={layers}")).done();
        sandbox.run("evaluate --data_dir=data --log_dir=logs --model_dir=model").done();
    }
}

#[test]
fn gzipped_files_and_torchvisions_directory_are_read() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let first = fs::read(sandbox.path("model/model.safetensors")).unwrap();

    fs::create_dir_all(sandbox.path("other/MNIST/raw")).unwrap();
    for name in sandbox.files("data") {
        let zipped = common::gzip(&fs::read(sandbox.path("data").join(&name)).unwrap());
        sandbox.write(&format!("other/MNIST/raw/{name}.gz"), zipped);
    }
    fs::rename(sandbox.path("other"), sandbox.path("data2")).unwrap();
    let flags = "--data_dir=data2 --log_dir=logs --model_dir=model2 --parameters_file=parameters.yaml";
    sandbox.run(&format!("train {flags}")).done();
    assert_eq!(fs::read(sandbox.path("model2/model.safetensors")).unwrap(), first);
}

#[test]
fn the_synthetic_set_is_never_passed_off_as_mnist() {
    let sandbox = Sandbox::new();
    sandbox.write("parameters.yaml", "train_epochs: 1\nhidden_layers: []\nbatch_size: 256\n");
    sandbox.run("download --synthetic --data_dir=data --log_dir=logs").done();
    let ended = sandbox.train("").done();
    assert!(ended.stdout.contains("SYNTHETIC digits (a stand-in, not MNIST)"), "{}", ended.stdout);
    let metrics = sandbox.metrics("model");
    assert_eq!((&metrics["trained_on"], &metrics["data"]["source"]), (&"synthetic".into(), &"synthetic".into()));
    assert!(sandbox.read("logs/mlcube_mnist_train.log").contains("SYNTHETIC"));
    assert!(sandbox.read("model/report.html").contains("<strong>SYNTHETIC</strong>"));
    assert!(sandbox.read("logs/mllog_train.log").contains(r#""key": "data_source", "value": "synthetic""#));
    let header = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&header[..1000]).contains(r#"\"data\":\"synthetic\""#));
}

/// The digits must be hard enough: the default network learns nearly all of them, a linear one clearly fewer.
#[test]
fn a_network_learns_more_of_the_synthetic_digits_than_a_linear_classifier() {
    let sandbox = Sandbox::new();
    sandbox.run("download --synthetic --data_dir=data --log_dir=logs").done();
    let accuracy = |parameters: &str| {
        sandbox.write("parameters.yaml", parameters);
        sandbox.train("").done();
        let metrics = sandbox.metrics("model");
        metrics["test"]["accuracy"].as_f64().unwrap()
    };
    let (network, linear) = (accuracy("train_epochs: 5\n"), accuracy("train_epochs: 5\nhidden_layers: []\n"));
    assert!((0.96..0.995).contains(&network), "{network}");
    assert!((0.80..0.94).contains(&linear), "{linear}");
}

#[test]
fn a_path_with_spaces_and_other_letters_works() {
    let sandbox = Sandbox::with_data();
    fs::rename(sandbox.path("data"), sandbox.path("meine Daten äöü 数字")).unwrap();
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=meine Daten äöü 数字", "--log_dir=die logs", "--model_dir", "das modell ß"]);
    end(command.arg("--parameters_file=parameters.yaml")).done();
    assert_eq!(sandbox.files("das modell ß"), artifact_names());
}

#[test]
fn the_default_network_learns_the_real_mnist() {
    let Some(data) = real_mnist() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("parameters.yaml", "optimizer: \"adam\"\ntrain_epochs: 5\nbatch_size: 32\n");
    let mut command = sandbox.program();
    command.arg("train").arg("--data_dir").arg(data);
    end(command.args(["--log_dir=logs", "--model_dir=model", "--parameters_file=parameters.yaml"])).done();
    let metrics = sandbox.metrics("model");
    assert_eq!(metrics["data"]["source"], "mnist");
    let accuracy = metrics["test"]["accuracy"].as_f64().unwrap();
    assert!((0.974..0.99).contains(&accuracy), "{accuracy}");
}

// ---- how a run is stopped

/// Starts a training that would take for ever, and sends it the signal `times` times once it has begun.
#[track_caller]
fn stops(signal: Signal, name: &str, code: i32, times: u32) {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let model = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model", "--train_epochs=100000"]);
    let mut child = command.arg("--parameters_file=parameters.yaml").stderr(Stdio::piped()).spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = lines_until(&mut messages, "epoch 2/100000: ");
    let sent = Instant::now();
    for _ in 0..times {
        kill_process(Pid::from_child(&child), signal).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    messages.read_to_string(&mut stderr).unwrap();
    let status = child.wait().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert!(stderr.ends_with(&format!("error: stopped by {name}\n")), "{stderr}");
    assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), model);
    let mut names = artifact_names();
    assert_eq!(sandbox.files("model/unfinished"), names);
    names.push("unfinished");
    assert_eq!(sandbox.files("model"), names);
    assert!(stderr.contains("warning: model/unfinished: holds a model that is unfinished, after "), "{stderr}");
    assert!(stderr.contains("\nto begin with this model, train again with --init=model/unfinished\n"), "{stderr}");
    assert!(stderr.contains("warning: model: still holds the finished model of before\n"), "{stderr}");
    assert_eq!(sandbox.files("logs"), ["mlcube_mnist_train.log", "mllog_train.log", "test", "train"]);
    assert_eq!(sandbox.files("logs/train"), ["events.out.tfevents.", "events.out.tfevents."]);
    assert!(sandbox.read("logs/mllog_train.log").ends_with("\"status\": \"aborted\"}}\n"));
}

#[test]
fn a_signal_ends_the_run_with_its_exit_code_and_leaves_the_old_model_and_whole_logs() {
    for (signal, name, code) in
        [(Signal::HUP, "SIGHUP", 129), (Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)]
    {
        if signal == Signal::HUP && hang_up_is_ignored() {
            common::skipped("these tests run under nohup, which the program respects");
            continue;
        }
        stops(signal, name, code, 1);
    }
}

/// Whether this process, and so every program it starts, ignores SIGHUP, which is signal 1.
fn hang_up_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn a_signal_that_comes_twice_at_once_counts_once() {
    stops(Signal::TERM, "SIGTERM", 143, 2);
}

#[test]
fn a_run_started_by_nohup_outlives_its_terminal() {
    let sandbox = Sandbox::with_data();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_mnist")).current_dir(sandbox.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model", "--train_epochs=100000"]);
    let mut child = command.arg("--parameters_file=parameters.yaml").spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    lines_until(&mut messages, "epoch 2/100000: ");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_loss_that_becomes_infinite_or_nan_is_an_error_and_writes_no_model() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--optimizer sgd --learning_rate 1000 --train_epochs 50 --hidden_layers 64,64");
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("error: training diverged: the loss of epoch "), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("hint: try a smaller learning_rate\n"), "{}", ended.stderr);
    assert!(sandbox.files("model").is_empty());
}

// ---- data that is refused

const DAMAGED: &str = "bring the file again, or run `mnist download`, which keeps other files under another name";
const OTHER_SET: &str = "the file seems to be of another data set: leave it there, and give MNIST a directory of its own \
                         with --data_dir=DIR; `mnist download` brings it. Data of your own needs images of 28 x 28 pixels and for \
                         each a label from 0 to 9";

/// Spoils one data file by `spoil` and expects this error about it.
#[track_caller]
fn refuses_data(name: &str, spoil: impl FnOnce(Vec<u8>) -> Vec<u8>, expected: &str) {
    refuses(name, spoil, expected, DAMAGED);
}

#[track_caller]
fn refuses(name: &str, spoil: impl FnOnce(Vec<u8>) -> Vec<u8>, expected: &str, hint: &str) {
    let sandbox = Sandbox::with_data();
    let path = format!("data/{name}");
    let good = fs::read(sandbox.path(&path)).unwrap();
    sandbox.write(&path, spoil(good));
    sandbox.train("").failed_with(&format!("{path}: {expected}\nhint: {hint}"));
    assert!(sandbox.files("model").is_empty());
    assert!(sandbox.read("logs/mlcube_mnist_train.log").contains(&format!("ERROR {path}: {expected}")));
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

#[test]
fn an_empty_file_is_refused() {
    refuses_data(TRAIN_IMAGES, |_| vec![], "expected an IDX file of at least 16 bytes, found 0");
}

#[test]
fn a_truncated_file_is_refused() {
    let expected = "is truncated: expected 235216 bytes for 300 images, found 235215";
    refuses_data(TRAIN_IMAGES, |file| file[..file.len() - 1].to_vec(), expected);
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let expected = "is too long: expected 108 bytes for 100 labels, found more";
    refuses_data(TEST_LABELS, |file| [file, vec![0]].concat(), expected);
}

#[test]
fn a_wrong_magic_number_is_refused() {
    let expected = "expected the magic number 0x00000803 of IDX images, found 0x00000801 (labels)";
    refuses_data(TRAIN_IMAGES, |_| idx::encode_labels(&[1; 300]), expected);
}

#[test]
fn wrong_dimensions_are_refused() {
    let expected = "expected images of 28 x 28 pixels, found 32 x 32";
    refuses(TRAIN_IMAGES, |_| idx::encode_images(&[1; 32 * 32], 32, 32), expected, OTHER_SET);
}

#[test]
fn a_count_that_would_take_all_memory_is_refused_before_memory_is_taken() {
    let expected = "expected 1 to 6000000 images, found 4294967295";
    refuses_data(
        TRAIN_IMAGES,
        |mut file| {
            file[4..8].fill(0xff);
            file
        },
        expected,
    );
}

#[test]
fn a_label_above_9_is_refused() {
    refuses(
        TEST_LABELS,
        |mut file| {
            file[8 + 41] = 10;
            file
        },
        "expected labels from 0 to 9, found 10 at label 41",
        OTHER_SET,
    );
}

#[test]
fn an_html_page_is_refused() {
    let expected = "expected the magic number 0x00000801 of IDX labels, found 0x3c68746d (an HTML page?)";
    refuses_data(TEST_LABELS, |_| b"<html><body>Log in to the network</body></html>".to_vec(), expected);
}

#[test]
fn counts_that_differ_are_refused() {
    let sandbox = Sandbox::with_data();
    sandbox.write("data/train-labels-idx1-ubyte", idx::encode_labels(&[1; 299]));
    sandbox.train("").failed_with(&format!(
        "data/train-images-idx3-ubyte: has 300 images, but data/train-labels-idx1-ubyte has 299 labels: expected \
         equal numbers\nhint: {OTHER_SET}"
    ));
}

#[test]
fn a_gzip_file_that_is_cut_or_corrupt_is_refused() {
    let whole = common::gzip(&idx::encode_labels(&[1; 100]));
    let padded = [&whole[..], &[0; 512]].concat();
    let mut corrupt = whole.clone();
    let crc = corrupt.len() - 8;
    corrupt[crc] ^= 1;
    for (contents, problem) in [
        (&whole[..whole.len() - 12], "incomplete deflate stream"),
        (&corrupt, "corrupt gzip stream does not have a matching checksum"),
        (&padded, "bytes follow the compressed data that are not gzip"),
    ] {
        let sandbox = Sandbox::with_data();
        fs::remove_file(sandbox.path("data").join(TEST_LABELS)).unwrap();
        sandbox.write("data/t10k-labels-idx1-ubyte.gz", contents);
        sandbox.train("").failed_with(&format!(
            "data/t10k-labels-idx1-ubyte.gz: cannot decompress: {problem}\n\
             hint: {DAMAGED}"
        ));
    }
}

#[test]
fn a_gzip_bomb_is_not_unpacked() {
    let sandbox = Sandbox::with_data();
    fs::remove_file(sandbox.path("data").join(TEST_LABELS)).unwrap();
    let bomb = common::gzip(&[idx::encode_labels(&[1; 100]), vec![0; 100_000_000]].concat());
    sandbox.write("data/t10k-labels-idx1-ubyte.gz", bomb);
    sandbox.train("").failed_with(&format!(
        "data/t10k-labels-idx1-ubyte.gz: is too long: expected 108 bytes for 100 labels, found more\nhint: {DAMAGED}"
    ));
}

#[test]
fn a_missing_file_is_named_with_the_way_to_get_it() {
    let sandbox = Sandbox::with_data();
    fs::remove_file(sandbox.path("data").join(TEST_LABELS)).unwrap();
    sandbox.train("").failed_with(
        "data: t10k-labels-idx1-ubyte is missing (looked for it and for t10k-labels-idx1-ubyte.gz, under their \
         other names and in MNIST/raw too)\nhint: get the data with `mnist download --data_dir=data`",
    );
}

#[test]
fn a_missing_data_directory_is_named() {
    let sandbox = Sandbox::with_data();
    fs::remove_dir_all(sandbox.path("data")).unwrap();
    sandbox.train("").failed_with(
        "data: expected the directory with the data, found none\n\
         hint: get the data with `mnist download --data_dir=data`",
    );
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=my data", "--log_dir=logs", "--model_dir=model"]);
    end(command.arg("--parameters_file=parameters.yaml")).failed_with(
        "my data: expected the directory with the data, found none\n\
         hint: get the data with `mnist download --data_dir='my data'`",
    );
}

#[cfg(unix)]
#[test]
fn a_data_directory_that_may_not_be_searched_is_not_called_empty() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        common::skipped("root may search every directory");
        return;
    }
    let sandbox = Sandbox::with_data();
    fs::set_permissions(sandbox.path("data"), fs::Permissions::from_mode(0o400)).unwrap();
    let ended = sandbox.train("");
    fs::set_permissions(sandbox.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(ended.stderr.contains("data/train-images-idx3-ubyte: cannot read: Permission denied"), "{ended:#?}");
}

// ---- parameters that are refused

/// Expects this error about a parameters file with these contents; before any step, with nothing in MODEL_DIR.
#[track_caller]
fn refuses_parameters(contents: &str, expected: &str) {
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", contents);
    sandbox.train("").failed_with(&format!("parameters.yaml{expected}"));
    assert!(sandbox.files("model").is_empty());
}

#[test]
fn a_missing_parameters_file_is_named() {
    let sandbox = Sandbox::with_data();
    fs::remove_file(sandbox.path("parameters.yaml")).unwrap();
    sandbox.train("").failed_with("parameters.yaml: cannot read: No such file or directory (os error 2)");
}

#[test]
fn an_empty_parameters_file_is_all_defaults() {
    let sandbox = Sandbox::with_data();
    for text in ["", "# nothing\n"] {
        sandbox.write("parameters.yaml", text);
        sandbox.train("").done();
        let parameters = Parameters::read(&sandbox.path("model/parameters.yaml"), &[]).unwrap();
        assert_eq!(parameters, Parameters::default(), "{text:?}");
    }
}

#[test]
fn a_parameters_file_that_is_not_yaml_or_a_list_is_refused() {
    refuses_parameters("a: b: c\n", ":1: is not YAML: mapping values are not allowed in this context");
    refuses_parameters("- 1\n", ": expected keys with values such as `batch_size: 32`, found [1]");
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", b"# M\xfcller\n");
    sandbox
        .train("")
        .failed_with("parameters.yaml:1: expected UTF-8, found the byte 0xfc that is not part of it: save it as UTF-8");
}

#[test]
fn a_misspelt_key_is_named_with_the_nearest_one() {
    refuses_parameters("train_epochs: 5\nbatchsize: 32\n", ":2: unknown key batchsize: did you mean batch_size?");
}

#[test]
fn a_batch_size_that_is_none_is_refused() {
    for (value, found) in
        [("0", "0"), ("-1", "-1"), ("1e99", "1e99"), ("\"32\"", "the text \"32\""), (".nan", ".nan"), ("32.5", "32.5")]
    {
        let expected = format!(":1: batch_size: expected a whole number from 1 to 1000000, found {found}");
        refuses_parameters(&format!("batch_size: {value}\n"), &expected);
    }
}

#[test]
fn values_that_are_hardly_values_are_refused_as_what_they_are() {
    let batch_size = ":1: batch_size: expected a whole number from 1 to 1000000, found ";
    refuses_parameters("batch_size: !foo 32\n", &format!("{batch_size}a value with a tag"));
    let seed = ":1: seed: expected a whole number from 0 to 18446744073709551615, found ";
    refuses_parameters("seed: 99999999999999999999999999\n", &format!("{seed}99999999999999999999999999"));
    refuses_parameters("seed: -99999999999999999999999999\n", &format!("{seed}-99999999999999999999999999"));
    let keys = ": expected keys with values such as `batch_size: 32`, found a value with a tag";
    refuses_parameters("!foo {batch_size: 32}\n", keys);
}

#[test]
fn flags_that_do_not_go_with_the_file_are_not_blamed_on_it() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--momentum 0.9");
    let expected = "error: with the parameters given as flags and in parameters.yaml: momentum: optimizer adam has none: remove it, or use \
                    optimizer sgd or rmsprop\n";
    assert!(ended.stderr.ends_with(expected), "{ended:#?}");
    assert_eq!(ended.code, Some(2));
    // The file alone is wrong too, but for another reason, which the flags have mended.
    sandbox.write("parameters.yaml", "momentum: 0.9\n");
    let ended = sandbox.train("--optimizer=sgd --momentum=0 --nesterov=true");
    let expected = "error: with the parameters given as flags and in parameters.yaml: nesterov: expected a momentum above 0 with it, \
         found 0\n";
    assert!(ended.stderr.ends_with(expected), "{ended:#?}");
    assert_eq!(ended.code, Some(2));
}

#[test]
fn a_flag_without_a_value_is_no_empty_list() {
    let ended = Sandbox::with_data().train("--hidden_layers=");
    assert!(ended.stderr.contains("expected a list of at most 32 widths"), "{ended:#?}");
    assert_eq!(ended.code, Some(2));
}

#[test]
fn a_missing_width_is_no_network_with_a_layer_less() {
    let sandbox = Sandbox::with_data();
    for value in ["1,,2", ",1", "1,"] {
        let ended = sandbox.train(&format!("--hidden_layers={value}"));
        assert!(ended.stderr.contains(&format!("found the text \"{value}\"")), "{ended:#?}");
        assert_eq!(ended.code, Some(2));
    }
}

#[test]
fn epochs_and_train_epochs_at_once_are_refused() {
    let expected = ":2: train_epochs and epochs mean the same: keep one";
    refuses_parameters("train_epochs: 5\nepochs: 5\n", expected);
}

#[test]
fn an_unknown_optimizer_is_refused_with_the_known_ones() {
    let expected = ":1: optimizer: expected adam, adamw, sgd, rmsprop or adagrad, found the text \"adamm\"";
    refuses_parameters("optimizer: adamm\n", expected);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let expected = ": momentum: optimizer adam has none: remove it, or use optimizer sgd or rmsprop";
    refuses_parameters("momentum: 0.9\n", expected);
    let expected = ": nesterov: optimizer rmsprop has none: remove it, or use optimizer sgd";
    refuses_parameters("optimizer: rmsprop\nmomentum: 0.5\nnesterov: true\n", expected);
    let expected = ": nesterov: expected a momentum above 0 with it, found 0";
    refuses_parameters("optimizer: sgd\nnesterov: true\n", expected);
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    let begin = Instant::now();
    let expected = ": its aliases unfold to more than 262144 bytes: write it without them";
    refuses_parameters(&bomb, expected);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());

    let inside = "hidden_layers: [&a [1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b], \
                  &d [*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d], &f [*e,*e,*e,*e,*e,*e,*e,*e]]\n";
    refuses_parameters(inside, expected);
}

#[test]
fn a_parameters_file_of_a_gigabyte_is_not_read() {
    let sandbox = Sandbox::with_data();
    fs::File::create(sandbox.path("parameters.yaml")).unwrap().set_len(1 << 30).unwrap();
    sandbox.train("").failed_with("parameters.yaml: is longer than 65536 bytes, too long for a parameters file");
}

// ---- places that cannot be written

#[test]
fn a_read_only_output_directory_is_named_before_the_first_step() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "ro") else { return };
    let flags = "--data_dir=data --log_dir=logs --parameters_file=parameters.yaml";
    sandbox.run(&format!("train {flags} --model_dir=full")).failed_with(
        "full: cannot write into the directory: Read-only file system (os error 30)\n\
         hint: choose a directory on a file system that can be written",
    );
    drop(mount);
}

#[test]
fn a_full_disk_is_an_error_and_the_old_model_stays() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "size=64k") else { return };
    let old = r#"{"__metadata__":{"mnist":"old"}}"#;
    sandbox.write("full/model.safetensors", old);
    let flags = "--data_dir=data --log_dir=logs --parameters_file=parameters.yaml";
    sandbox.run(&format!("train {flags} --model_dir=full --hidden_layers 128")).failed_with(
        "full/model.safetensors: cannot write: No space left on device (os error 28); the new contents are kept as \
         logs/model.safetensors.kept, logs/metrics.json.kept, logs/parameters.yaml.kept, logs/report.html.kept, \
         logs/model.onnx.kept\n\
         hint: free some space on that disk, or choose another directory",
    );
    assert_eq!(sandbox.files("full"), ["model.safetensors"]);
    assert_eq!(sandbox.read("full/model.safetensors"), old);
    drop(mount);
}

#[test]
fn a_disk_that_is_full_before_the_report_has_the_model() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "size=80k") else { return };
    // Files made from the model of an earlier run must not stand beside the new model.
    let old = format!("model_sha256: {}", "0".repeat(64));
    sandbox.write("full/report.html", &old);
    sandbox.write("full/model.onnx", &old);
    let flags = "--data_dir=data --log_dir=logs --parameters_file=parameters.yaml";
    sandbox.run(&format!("train {flags} --model_dir=full")).failed_with(
        "full/report.html: cannot write: No space left on device (os error 28)\n\
         hint: free some space on that disk, or choose another directory",
    );
    assert_eq!(sandbox.files("full"), ["metrics.json", "model.safetensors", "parameters.yaml"]);
    sandbox.run("evaluate --data_dir=data --log_dir=logs --model_dir=full").done();
    drop(mount);
}

#[test]
fn logs_that_are_lost_are_named_when_the_training_fails_too() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "size=20k") else { return };
    let missed = "--data_dir=data --parameters_file=parameters.yaml --model_dir=model --target_accuracy=1";
    let ended = sandbox.run(&format!("train {missed} --log_dir=full"));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("error: target_accuracy: expected a test accuracy of 100.00 %"), "{ended:#?}");
    assert!(ended.stderr.contains("error: full/"), "{ended:#?}");
    drop(mount);
    // Where no event fits, no file is left, however often it is tried.
    fs::remove_dir(sandbox.path("full")).unwrap();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "size=4k") else { return };
    fs::create_dir(sandbox.path("full/train")).unwrap();
    sandbox.write("full/filled", [0; 4096]);
    for _ in 0..2 {
        let ended = sandbox.run(&format!("train {missed} --log_dir=full"));
        assert!(ended.code == Some(1) && ended.stderr.contains("No space left on device"), "{ended:#?}");
    }
    assert_eq!(sandbox.files("full/train"), [""; 0]);
    drop(mount);
}

#[test]
fn the_report_and_the_logs_name_the_split() {
    let sandbox = Sandbox::with_data();
    sandbox
        .train("--train_epochs=4 --learning_rate=0.05 --validation=30 --keep=best --schedule=linear --warmup=1")
        .done();
    let report = sandbox.read("model/report.html");
    let metrics = sandbox.metrics("model");
    let percent = |split: &str| format!("{:.2} %", 100.0 * metrics[split]["accuracy"].as_f64().unwrap());
    let headline = format!("<h1>{} <span>of 100 test digits", percent("test").replace(' ', "\u{a0}"));
    let kept = format!("<th scope=\"row\">{} (kept)</th>", metrics["kept_epoch"]);
    let legend = "<span class=\"validation\">■╍ validation set</span>";
    // The kept epoch stands in the headline and in both charts too.
    let of = format!(" The model is that of epoch {} of 4. ", metrics["kept_epoch"]);
    let mark = format!("┊ epoch {}: best, kept</span>", metrics["kept_epoch"]);
    assert_eq!((report.matches(&of).count(), report.matches(&mark).count()), (1, 2), "{of} {mark}");
    for expected in
        [&headline, &kept, legend, "and validated on 30 in", "<polyline class=\"validation\"", "validation loss</th>"]
    {
        assert!(report.contains(expected), "{expected}");
    }
    assert_eq!(report.matches("(kept)").count(), 1);
    assert!(!report.contains("Unfinished") && !report.contains("validation image "));

    let log = sandbox.read("logs/mlcube_mnist_train.log");
    assert!(log.contains(" %, validation loss ") && log.contains(" validation accuracy "), "{log}");
    let test = format!(
        " INFO test loss {:.4}, test accuracy {}\n",
        metrics["test"]["loss"].as_f64().unwrap(),
        percent("test")
    );
    assert!(log.contains(&test), "{test} in {log}");

    let mllog = sandbox.read("logs/mllog_train.log");
    for line in [
        r#""key": "train_samples", "value": 270,"#,
        r#""key": "eval_samples", "value": 30,"#,
        r#""key": "test_samples", "value": 100,"#,
        r#""key": "opt_learning_rate_warmup_steps", "value": 9,"#,
        r#""key": "opt_learning_rate_decay_schedule", "value": "linear","#,
        r#""key": "opt_end_learning_rate", "value": 0.0,"#,
    ] {
        assert!(mllog.contains(line), "{line} in {mllog}");
    }
    let evaluations: Vec<&str> = mllog.lines().filter(|line| line.contains("\"eval_accuracy\"")).collect();
    let (last, epochs) = evaluations.split_last().unwrap();
    assert!(last.ends_with(r#""split": "test"}}"#) && !last.contains("epoch_num"), "{last}");
    assert_eq!(epochs.iter().filter(|line| line.ends_with(r#""split": "validation"}}"#)).count(), 4, "{epochs:?}");
}

#[test]
fn the_report_and_the_logs_of_an_unfinished_training_say_so() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=100000 --max_seconds=0.3 --validation=30").done();
    let report = sandbox.read("model/report.html");
    let metrics = sandbox.metrics("model");
    let accuracy = format!("{:.2}\u{a0}%", 100.0 * metrics["validation"]["accuracy"].as_f64().unwrap());
    let warning = format!("<strong>Unfinished</strong>, after {} of 100000 epochs: ", metrics["unfinished"]["epochs"]);
    let headline = format!("<h1>{accuracy} <span>of 30 validation digits");
    for expected in [&headline, &warning, "<title>Unfinished: ", "the test set was not evaluated"] {
        assert!(report.contains(expected), "{expected}");
    }
    for wrong in ["test digits", "test image ", "test images were", "test images of", "every test", "of the test set:"]
    {
        assert!(!report.contains(wrong), "{wrong}");
    }
    assert!(sandbox.read("logs/mllog_train.log").ends_with("\"status\": \"aborted\"}}\n"));
}

#[test]
fn a_directory_in_the_place_of_an_output_file_is_named_before_the_first_step() {
    let models = artifacts::names().map(|name| format!("model/{name}"));
    let logs = ["mlcube_mnist_train.log", "mllog_train.log"].map(|name| format!("logs/{name}"));
    for path in models.chain(logs) {
        let sandbox = Sandbox::with_data();
        fs::create_dir_all(sandbox.path(&path)).unwrap();
        let ended = sandbox.train("");
        ended.failed_with(&format!("{path}: cannot write: is a directory"));
        assert!(!ended.stderr.contains("epoch 1"), "{ended:#?}");
    }
}

#[test]
fn a_log_directory_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = common::tmpfs(&sandbox.path("full"), "ro") else { return };
    let flags = "--data_dir=data --log_dir=full --model_dir=model --parameters_file=parameters.yaml";
    let ended = sandbox.run(&format!("train {flags}"));
    assert!(ended.stderr.contains("full: cannot write into the directory: Read-only file system"), "{ended:#?}");
    assert_eq!(ended.code, Some(1));
    drop(mount);
}

#[cfg(unix)]
#[test]
fn files_written_by_root_belong_to_the_owner_of_the_directory() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        common::skipped("only root can give files away");
        return;
    }
    let sandbox = Sandbox::with_data();
    fs::create_dir(sandbox.path("theirs")).unwrap();
    chown(sandbox.path("theirs"), Some(12345), Some(54321)).unwrap();
    let flags = "--data_dir=data --log_dir=theirs/logs --model_dir=theirs/model --parameters_file=parameters.yaml";
    sandbox.run(&format!("train {flags}")).done();
    for name in ["logs", "logs/mllog_train.log", "model", "model/model.safetensors", "model/metrics.json"] {
        let metadata = sandbox.path("theirs").join(name).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12345, 54321), "{name}");
    }
}

#[test]
fn a_file_in_the_place_of_an_output_directory_is_named() {
    let sandbox = Sandbox::with_data();
    sandbox.write("model", "");
    sandbox.train("").failed_with("model: cannot create the directory: expected a directory, found a file");
}

// ---- an engine that fails

/// An engine that fails in the epoch after `epochs`.
struct Failing {
    engine: Box<dyn Trainer>,
    epochs: usize,
    failure: fn() -> Error,
}

impl Network for Failing {
    fn info(&self) -> EngineInfo {
        self.engine.info()
    }
    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        self.engine.logits(pixels)
    }
}

impl Trainer for Failing {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        if self.epochs == 0 {
            return Err((self.failure)());
        }
        self.epochs -= 1;
        self.engine.train_epoch(order, progress)
    }
    fn state(&mut self) -> Result<TrainingState> {
        self.engine.state()
    }
    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        self.engine.load_state(state)
    }
    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        self.engine.set_images(train)
    }
}

#[test]
fn a_device_that_is_lost_and_a_lack_of_memory_leave_the_model_of_the_epochs_before() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=2").done();
    fs::rename(sandbox.path("model"), sandbox.path("finished")).unwrap();

    let train = |epochs, failure: fn() -> Error| {
        let mut parameters = Parameters::read(&sandbox.path("parameters.yaml"), &[]).unwrap();
        parameters.train_epochs = 5;
        let dataset = Dataset::load(&sandbox.path("data")).unwrap();
        let recipe = parameters.recipe(&dataset.train);
        let chosen = choice::choose(&recipe, &parameters.choice(), 5, &dataset.train).unwrap();
        let engine = choice::build(&recipe, &chosen.choice, dataset.train.clone()).unwrap();
        let model_dir = sandbox.path("model");
        fs::create_dir_all(&model_dir).unwrap();
        let trainer = Box::new(Failing { engine, epochs, failure });
        let (used, course, begin) = (parameters.clone(), Course::default(), Begin::now());
        let (augmenter, recorder) = (None, None);
        let unfinished = UnfinishedDirectory::of(&model_dir).unwrap();
        let plan = Plan {
            parameters,
            used,
            dataset,
            trainer,
            augmenter,
            course,
            recorder,
            model_dir,
            log_dir: sandbox.path("logs"),
            lock: None,
            unfinished,
            begin,
        };
        carry_out(plan, &mut Listeners(vec![]), &mut String::new()).unwrap_err()
    };
    let lost = || Error::Device { problem: "lost".into() };
    let full = || Error::Memory { purpose: "the distorted images".into(), expected: 2, found: 1 };
    for failure in [lost, full] {
        let same = |found: Error| assert_eq!(found.to_string(), failure().to_string());
        same(train(0, failure));
        assert_eq!(sandbox.files("model"), [""; 0]);
        same(train(2, failure));
        // The same weights, but marked as unfinished.
        let [left, whole] = ["model", "finished"].map(|name| mnist::model::file::load(&sandbox.path(name)).unwrap());
        assert_eq!((left.parameters, left.unfinished), (whole.parameters, Some(Unfinished { epochs: 2, of: 5 })));
        assert!(sandbox.read("model/parameters.yaml").contains("train_epochs: 5"));
        let metrics = sandbox.metrics("model");
        assert_eq!(metrics["epochs"].as_array().unwrap().len(), 2);
        fs::remove_dir_all(sandbox.path("model")).unwrap();
    }
}
