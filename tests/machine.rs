//! Poor machines: no more threads, no more memory, files of limited size; and signals in the middle of long work.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mnist::data::synthetic;
use mnist::model::MlpShape;
use mnist::model::file::{self, Model};
use mnist::simd::InstructionSet;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::server::Server;
use crate::common::{Ended, Sandbox, TRAIN, end, traced};

/// What the program says where it starts no more threads.
const REFUSED: &str = "warning: the system starts no more threads (";

// ---- threads

/// Runs the program under strace, which refuses new threads to each of its threads: those that `refused` numbers, from 1
/// on; `3+` is the third and all later ones. None without strace.
fn without_threads(sandbox: &Sandbox, refused: &str, arguments: &str) -> Option<Ended> {
    let inject = format!("inject=clone,clone3:error=EAGAIN:when={refused}");
    let mut command = traced(sandbox, &["-e", "trace=clone,clone3", "-e", &inject], arguments)?;
    Some(end(command.env("https_proxy", "http://127.0.0.1:9"))) // which leads no test to the internet
}

#[test]
fn training_goes_on_with_the_threads_there_are_and_gives_the_same_bytes() {
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", "train_epochs: 2\nhidden_layers: [256, 64]\n");
    sandbox.train("--threads=4").done();
    let model = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    // One thread watches for signals, three help to load the data and three to list its pixels. The team takes the eighth
    // to the tenth; later ones train and evaluate.
    let refusals = ["1+", "3", "9", "10", "12", "20+"].into_iter().zip(["1", "4", "2", "3", "4", "4"]);
    for (refused, threads) in refusals {
        let Some(ended) = without_threads(&sandbox, refused, &format!("{TRAIN} --threads=4")) else { return };
        let ended = ended.done();
        assert_eq!(ended.stderr.matches(REFUSED).count(), 1, "{refused}: {ended:#?}");
        assert!(ended.stderr.contains(&format!("), {threads} thread")), "{refused}: {ended:#?}");
        assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), model, "{refused}");
    }
    // A training with one thread misses none.
    let ended = without_threads(&sandbox, "1+", &format!("{TRAIN} --threads=1")).unwrap().done();
    assert!(!ended.stderr.contains("warning") && ended.stderr.contains("1 thread\n"), "{ended:#?}");
    assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), model);
}

#[test]
fn every_task_goes_on_without_threads() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    for task in [
        "evaluate --data_dir=data --log_dir=logs --model_dir=model",
        "download --synthetic --data_dir=drawn --log_dir=logs",
        "devices",
    ] {
        let Some(ended) = without_threads(&sandbox, "1+", task) else { return };
        ended.done();
    }
    let ended = without_threads(&sandbox, "1+", "predict --model_dir=model none.png").unwrap();
    assert!(ended.stderr.ends_with("error: 1 of 1 images could not be read\n"), "{ended:#?}");
    // The mirror answers nothing that helps; what matters is that it is asked.
    let server = Server::start();
    let mirror = format!("download --data_dir=fetched --log_dir=logs --mirror={}", server.url("/"));
    let ended = without_threads(&sandbox, "1+", &mirror).unwrap();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("404 Not Found") && !ended.stderr.contains("panicked"), "{ended:#?}");
}

// ---- signals

/// Starts the program, waits until it says `sign` and has begun the work after it, and sends SIGTERM. Expects its end
/// within a second, and half a second more for a busy machine.
#[track_caller]
fn ends_in_time(sandbox: &Sandbox, arguments: &str, sign: &str, log: &str) {
    let mut command = sandbox.program();
    let slowest = InstructionSet::available().pop().unwrap();
    command.args(arguments.split_whitespace()).env("MNIST_INSTRUCTION_SET", slowest.name());
    command.stderr(fs::File::create(sandbox.path("stderr")).unwrap());
    let mut child = command.spawn().unwrap();
    while !sandbox.read("stderr").contains(sign) {
        assert!(child.try_wait().unwrap().is_none(), "{}", sandbox.read("stderr"));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let sent = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    let (stderr, took) = (sandbox.read("stderr"), sent.elapsed());
    assert_eq!(status.code(), Some(143), "{stderr}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    // It ended by itself: its logs are whole.
    assert!(sandbox.read(log).ends_with("\"status\": \"aborted\"}}\n"), "{stderr}");
}

/// A network whose step and whose evaluation take seconds.
#[test]
fn a_signal_ends_a_step_and_an_evaluation_that_take_long() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    synthetic::write(&sandbox.path("data"), 600, 6000).unwrap();
    sandbox.write("parameters.yaml", "train_epochs: 1\nbatch_size: 600\nhidden_layers: [2048, 2048, 2048, 2048]\n");
    ends_in_time(&sandbox, TRAIN, "engine: ", "logs/mllog_train.log");
    // So does the end of the time for the training.
    let begin = Instant::now();
    let mut command = sandbox.program();
    command.args(TRAIN.split(' ')).args(["--max_seconds=0.7", "--threads=1", "--train_epochs=2"]);
    let slowest = InstructionSet::available().pop().unwrap();
    let ended = end(command.env("MNIST_INSTRUCTION_SET", slowest.name()));
    assert!(ended.stderr.contains("error: stopped after 0.7 s, as max_seconds says\n"), "{ended:#?}");
    assert!(ended.code == Some(1) && begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    let shape = MlpShape::new(784, &[2048; 4], 10);
    let model = Model { parameters: shape.initial_parameters(1), shape, data: "unknown".into(), unfinished: None };
    fs::create_dir_all(sandbox.path("model")).unwrap();
    sandbox.write("model/model.safetensors", file::encode(&model));
    let evaluate = "evaluate --data_dir=data --log_dir=logs --model_dir=model";
    ends_in_time(&sandbox, evaluate, "data: ", "logs/mllog_evaluate.log");
}

#[test]
fn a_signal_ends_the_drawing_of_digits() {
    let sandbox = Sandbox::new();
    let download = "download --synthetic --data_dir=data --log_dir=logs";
    ends_in_time(&sandbox, download, "drawing synthetic digits", "logs/mllog_download.log");
    assert_eq!(sandbox.files("data"), [""; 0]);
}

// ---- memory and the size of files

/// Runs the program in a shell that has set `limit`, as in `ulimit -v 100000`.
fn limited(sandbox: &Sandbox, limit: &str, arguments: &str) -> Ended {
    let program = sandbox.program();
    let mut command = Command::new("sh");
    let script = format!("{limit} && exec {} {arguments}", program.get_program().display());
    // A backtrace takes memory too.
    command.args(["-c", &script]).current_dir(sandbox.path("")).env_remove("RUST_BACKTRACE");
    end(command.stdin(Stdio::null()))
}

#[test]
fn too_little_memory_is_an_error_that_names_what_it_is_for() {
    let sandbox = Sandbox::with_data();
    let wide = format!("{TRAIN} --hidden_layers=4096,4096,4096,4096");
    let ended = limited(&sandbox, "ulimit -v 500000", &wide);
    assert!(ended.stderr.contains("error: training: expected 1.1 GB of memory, found "), "{ended:#?}");
    assert!(ended.stderr.contains("\nhint: take fewer hidden units"), "{ended:#?}");
    assert_eq!(ended.code, Some(1));
    assert!(!sandbox.path("model/model.safetensors").exists());
    // Without moments, the files take more than the training.
    let ended = limited(&sandbox, "ulimit -v 450000", &format!("{TRAIN} --hidden_layers=4096,4096 --optimizer=sgd"));
    assert!(ended.stderr.contains("error: the files of the model: expected 409 MB of memory, found "), "{ended:#?}");
    assert!(ended.stderr.contains("\nhint: take fewer hidden units, or give"), "{ended:#?}");

    sandbox.train("").done();
    // Below that the system cannot load the program with its libraries.
    let least = fs::metadata(sandbox.program().get_program()).unwrap().len() / 1_000_000 + 5;
    for megabytes in (least..150).step_by(10) {
        for task in [
            "evaluate --data_dir=data --log_dir=logs --model_dir=model",
            "predict --model_dir=model none.png",
            "download --synthetic --data_dir=drawn --log_dir=logs",
            &format!("{TRAIN} --hidden_layers=1024,1024"),
        ] {
            let ended = limited(&sandbox, &format!("ulimit -v {megabytes}000"), task);
            let said = ["error: ", "memory allocation of "].iter().any(|text| ended.stderr.contains(text));
            let failed = ended.code == Some(1) && said && !ended.stderr.contains("panicked");
            assert!(failed || ended.code == Some(0), "{megabytes} MB, {task}: {ended:#?}");
        }
    }
}

#[test]
fn too_little_memory_for_images_is_no_matter_of_the_network() {
    let sandbox = Sandbox::with_data();
    for (name, magic, sides, length) in
        [("train-images-idx3-ubyte", 0x803, &[28, 28][..], 784), ("train-labels-idx1-ubyte", 0x801, &[], 1)]
    {
        let numbers = [&[magic, 600_000], sides].concat();
        let header: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
        sandbox.write(&format!("data/{name}"), &header);
        let file = fs::File::options().write(true).open(sandbox.path("data").join(name)).unwrap();
        file.set_len(header.len() as u64 + 600_000 * length).unwrap(); // holes
    }
    let ended = limited(&sandbox, "ulimit -v 300000", TRAIN);
    assert!(ended.stderr.contains("train-images-idx3-ubyte: expected 471 MB of memory, found "), "{ended:#?}");
    assert!(ended.stderr.contains("\nhint: give the program more memory; the limit may be "), "{ended:#?}");
}

#[test]
fn training_says_how_much_memory_it_takes() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--hidden_layers=1024,1024 --optimizer=adam").done();
    // (784 + 1024) x 1024 weights, the files that are made from them, one in base64, and 26 MB for program and report.
    assert!(ended.stderr.contains("\nmemory: about 74 MB\n"), "{ended:#?}");
    let ended = sandbox.train("--hidden_layers=1024,1024 --optimizer=adam --snapshots=1").done();
    // With two moments, and three snapshots.
    assert!(ended.stderr.contains("\nmemory: about 124 MB\n"), "{ended:#?}");
}

#[test]
fn a_training_whose_time_on_the_processor_is_over_leaves_its_model() {
    let sandbox = Sandbox::with_data();
    let ended = limited(&sandbox, "ulimit -S -t 1", &format!("{TRAIN} --train_epochs=100000"));
    assert_eq!(ended.code, Some(128 + Signal::XCPU.as_raw()), "{ended:#?}");
    assert!(ended.stderr.ends_with("error: stopped by SIGXCPU\n"), "{ended:#?}");
    assert!(file::is_unfinished(&sandbox.path("model")), "{ended:#?}");
}

#[test]
fn a_file_that_may_not_grow_is_an_error_like_a_full_disk() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let model = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    let ended = limited(&sandbox, "ulimit -f 100", &format!("{TRAIN} --hidden_layers=512"));
    let reason = "model/model.safetensors: cannot write: File too large (os error 27)\n\
                  hint: files may not grow beyond `ulimit -f`: raise it, or choose another file system";
    ended.failed_with(reason);
    assert_eq!(fs::read(sandbox.path("model/model.safetensors")).unwrap(), model);
}
