//! Snapshots and `train --resume`: a training that is killed or stopped, and goes on, ends with the bytes of one that was
//! never disturbed.

use std::fs;
use std::io::{BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mnist::rng::{Purpose, Stream};
use mnist::simd::InstructionSet;
use mnist::training::snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Ended, Sandbox, end, lines_until, skipped};

/// All that a snapshot must hold: dropout, a schedule, an average, the best model, early stopping that never comes.
const PARAMETERS: &str = "train_epochs: 30\nbatch_size: 16\nhidden_layers: [24, 16]\ndropout: 0.3\nschedule: cosine\n\
                          warmup: 2\nema: 0.98\nvalidation: 0.2\nkeep: best\nearly_stopping: 25\nsnapshots: 2\n";

/// A sandbox with these parameters, and the model of an undisturbed training in `undisturbed`.
fn undisturbed(flags: &str) -> (Sandbox, Vec<u8>, Duration) {
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", PARAMETERS);
    let begin = Instant::now();
    sandbox.train(flags).done();
    let time = begin.elapsed();
    let model = sandbox.model();
    fs::rename(sandbox.path("model"), sandbox.path("undisturbed")).unwrap();
    (sandbox, model, time)
}

fn start(sandbox: &Sandbox, flags: &str) -> Child {
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model"]);
    command.args(["--parameters_file=parameters.yaml", "--resume"]).args(flags.split_whitespace());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How often each training is killed.
fn kills() -> u32 {
    std::env::var("MNIST_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3)
}

/// Kills trainings with these flags at random moments, and holds the end against an undisturbed one.
#[track_caller]
fn survives_kills(flags: &str) {
    let (sandbox, expected, time) = undisturbed(flags);
    let mut stream = Stream::new(kills().into(), Purpose::Order, 7);
    for nth in 0..kills() {
        let mut child = start(&sandbox, &format!("{flags} --threads={}", 1 + nth % 2));
        std::thread::sleep(time.mul_f64(f64::from(stream.below(1000)) / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    sandbox.train(&format!("{flags} --resume")).done();
    assert!(sandbox.model() == expected, "{flags}: another model");
    let mut left = sandbox.files("model/snapshots");
    left.retain(|name| !name.starts_with("epoch-"));
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_training_that_is_killed_and_goes_on_ends_with_the_same_bytes() {
    for optimizer in ["adam", "sgd --momentum=0.9 --nesterov=true", "rmsprop --momentum=0.5", "adagrad"] {
        survives_kills(&format!("--optimizer={optimizer}"));
    }
    survives_kills("--optimizer=adamw --weight_decay=0.01 --ensemble=2 --augment=both");
}

#[cfg(feature = "burn")]
#[test]
fn burn_goes_on_with_the_same_bytes_too() {
    for optimizer in ["adam", "sgd --momentum=0.9", "rmsprop --momentum=0.5", "adagrad", "adamw --weight_decay=0.01"] {
        survives_kills(&format!("--engine=burn --optimizer={optimizer} --train_epochs=6"));
    }
}

/// Waits until `child` has trained three epochs, does `work`, and sends SIGTERM. Returns its messages.
fn terminated_after_epoch_3(child: &mut Child, work: impl FnOnce()) -> String {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = lines_until(&mut stderr, "epoch 3/30");
    work();
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    stderr.read_to_string(&mut lines).unwrap();
    lines
}

#[test]
fn a_signal_leaves_a_snapshot_of_the_last_whole_epoch_to_go_on_from() {
    let (sandbox, expected, _) = undisturbed("--snapshots=1000");
    let mut child = start(&sandbox, "--snapshots=1000");
    let lines = terminated_after_epoch_3(&mut child, || {});
    assert_eq!(child.wait().unwrap().code(), Some(143), "{lines}");
    assert_eq!(sandbox.files("model/snapshots").len(), 1);
    assert!(mnist::model::file::is_unfinished(&sandbox.path("model")));
    let ended = sandbox.train("--snapshots=1000 --resume").done();
    assert!(ended.stderr.contains("safetensors: training goes on after epoch "), "{ended:#?}");
    assert!(sandbox.model() == expected);
    assert!(
        !sandbox.read("model/report.html").contains("byte for byte"),
        "another machine may have trained the first epochs"
    );
    assert!(!mnist::model::file::is_unfinished(&sandbox.path("model")));
}

#[test]
fn the_newest_sound_snapshot_is_taken_and_faults_are_named() {
    let (sandbox, expected, _) = undisturbed("");
    let ended = sandbox.train("--resume").done();
    assert!(ended.stderr.contains("warning: model: has no snapshot: training begins anew\n"), "{ended:#?}");
    let names = ["epoch-026.safetensors", "epoch-028.safetensors", "epoch-030.safetensors"];
    assert_eq!(sandbox.files("model/snapshots"), names);

    // A cut one is passed over.
    let newest = sandbox.path("model/snapshots/epoch-030.safetensors");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 1]).unwrap();
    let ended = sandbox.train("--resume").done();
    assert!(ended.stderr.contains("epoch-030.safetensors: is not a safetensors file: "), "{ended:#?}");
    assert!(ended.stderr.contains("epoch-028.safetensors: training goes on after epoch 28 of 30\n"), "{ended:#?}");
    assert!(sandbox.model() == expected);
    let left = [&names[..], &["epoch-030.safetensors.damaged"]].concat();
    assert_eq!(sandbox.files("model/snapshots"), left);
    let ended = sandbox.train("--resume").done();
    assert!(!ended.stderr.contains("is not a safetensors file"), "{ended:#?}");
    assert!(ended.stderr.contains("epoch-030.safetensors: training was finished already, after epoch 30 of 30\n"));

    let refused = |flags: &str, message: &str| {
        let ended = sandbox.train(&format!("--resume {flags}"));
        assert!(ended.code == Some(1) && ended.stderr.contains(message), "{flags}: {ended:#?}");
        assert!(sandbox.model() == expected);
    };
    refused("--batch_size=8", "is of a training with other parameters: batch_size: expected 16, found 8");
    refused("--hidden_layers=8", "hidden_layers: expected [24,16], found [8]");
    refused("--train_epochs=4", "train_epochs: expected at least 30, found 4");
    let ended = sandbox.train("");
    let warning = "warning: model: holds snapshots of an earlier training; they are kept, ";
    assert!(ended.stderr.contains(&format!("{warning}but for those of the same epochs: these are replaced\n")));
    let ended = sandbox.train("--snapshots=0").done();
    let warning = format!("{warning}and --resume with the same parameters goes on from the newest\n");
    assert!(ended.stderr.contains(&warning), "{ended:#?}");
    mnist::data::synthetic::write(&sandbox.path("data"), 299, 100).unwrap();
    refused("", "is of a training on other data: ");
}

#[test]
fn a_training_whose_clock_was_ahead_does_not_stay_the_newest() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--snapshots=1 --train_epochs=2").done();
    let path = sandbox.path("model/snapshots/epoch-002.safetensors");
    let mut ahead = snapshot::decode(&fs::read(&path).unwrap()).unwrap();
    ahead.run.begin *= 2;
    fs::write(&path, snapshot::encode(&ahead)).unwrap();
    sandbox.train("--snapshots=1 --train_epochs=1 --seed=7").done();
    let ended = sandbox.train("--snapshots=1 --train_epochs=1 --seed=7 --resume").done();
    assert!(
        ended.stderr.contains("epoch-001.safetensors: training was finished already, after epoch 1 of 1\n"),
        "{ended:#?}"
    );
}

#[test]
fn a_stop_before_the_model_of_a_snapshot_is_evaluated_says_that_the_snapshot_stays() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--snapshots=1 --train_epochs=2").done();
    fs::remove_file(sandbox.path("model/model.safetensors")).unwrap();
    let ended = sandbox.train("--train_epochs=2 --resume --max_seconds=0.000001");
    let warning = "no model is written: that of the snapshot is not evaluated yet, which stays for the next --resume\n";
    assert!(ended.code == Some(1) && ended.stderr.contains(warning), "{ended:#?}");
    sandbox.train("--train_epochs=2 --resume").done();
    assert!(sandbox.path("model/model.safetensors").exists());
}

#[test]
fn more_epochs_go_on_where_fewer_ended() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=6").done();
    let six = sandbox.model();
    fs::remove_dir_all(sandbox.path("model")).unwrap();
    sandbox.train("--train_epochs=3 --snapshots=1").done();
    sandbox.train("--train_epochs=6 --snapshots=1 --resume").done();
    assert!(sandbox.model() == six);
    let ended = sandbox.train("--train_epochs=6 --snapshots=1 --resume").done();
    assert!(ended.stderr.contains("finished already, after epoch 6 of 6") && sandbox.model() == six, "{ended:#?}");
}

#[test]
fn more_epochs_that_change_the_learning_rates_are_named() {
    let sandbox = Sandbox::with_data();
    let warning = "warning: train_epochs: 6 instead of 3 changes the learning rates from here on: the model will differ from \
                   that of an undisturbed training of 6 epochs\n";
    for (flags, warned) in [("--warmup=1", false), ("--warmup=0.5", true), ("--schedule=step", true)] {
        sandbox.train(&format!("{flags} --train_epochs=3 --snapshots=1")).done();
        let ended = sandbox.train(&format!("{flags} --train_epochs=6 --snapshots=1 --resume")).done();
        assert_eq!(ended.stderr.contains(warning), warned, "{flags}: {ended:#?}");
        fs::remove_dir_all(sandbox.path("model")).unwrap();
    }
}

#[test]
fn a_training_that_goes_on_began_with_the_same_model_or_says_so() {
    let sandbox = Sandbox::with_data();
    for (seed, name) in [(1, "first"), (2, "other")] {
        sandbox.train(&format!("--seed={seed}")).done();
        fs::rename(sandbox.path("model"), sandbox.path(name)).unwrap();
    }
    let init = || sandbox.metrics("model")["init"].clone();
    sandbox.train("--init=first --train_epochs=4").done();
    let (undisturbed, began_with) = (sandbox.model(), init());
    sandbox.train("--init=first --train_epochs=2 --snapshots=1").done();
    fs::rename(sandbox.path("first"), sandbox.path("moved")).unwrap();
    for (epochs, flags) in [(3, ""), (4, "--init=moved")] {
        sandbox.train(&format!("--train_epochs={epochs} --snapshots=1 --resume {flags}")).done();
        assert_eq!(init(), began_with);
    }
    assert!(sandbox.model() == undisturbed);
    let refused = |flags: &str, message: &str| {
        let ended = sandbox.train(&format!("--train_epochs=4 --snapshots=1 --resume {flags}"));
        assert!(ended.code == Some(1) && ended.stderr.contains(message), "{flags}: {ended:#?}");
    };
    refused("--init=other", "is of a training with another --init: expected first/model.safetensors with the SHA-256 ");
    refused("--init=other", "..., found other/model.safetensors with the SHA-256 ");
    refused(
        "--init=other",
        "\nhint: give --init=first/model.safetensors, or leave it out, or train without --resume\n",
    );
    refused("--init=nowhere", "nowhere: has no model: ");
    fs::remove_dir_all(sandbox.path("model")).unwrap();
    sandbox.train("--train_epochs=4 --snapshots=1").done();
    refused("--init=other", "another --init: expected none, found other/model.safetensors with the SHA-256 ");
}

#[test]
fn another_instruction_set_is_named() {
    let sandbox = Sandbox::with_data();
    let train = |set: &str, flags: &str| {
        let mut command = sandbox.program();
        command.args(["train", "--data_dir=data", "--log_dir=logs", "--model_dir=model", "--snapshots=1"]);
        command.args(["--parameters_file=parameters.yaml"]).args(flags.split_whitespace());
        end(command.env("MNIST_INSTRUCTION_SET", set)).done()
    };
    let available: Vec<_> = InstructionSet::available().iter().map(|set| set.name()).collect();
    let (fastest, portable) = (available[0], available[available.len() - 1]);
    train(portable, "");
    let warned = |ended: &Ended| ended.stderr.contains("warning: the instruction set is ");
    let same = train(portable, "--resume --train_epochs=2");
    assert!(!warned(&same), "{same:#?}");
    if available.len() == 1 {
        return skipped("this processor has only the portable instruction set");
    }
    let other = train(fastest, "--resume --train_epochs=3");
    let message = format!(
        "warning: the instruction set is {fastest}, before it was {portable}: the model will differ a little from that of an \
         undisturbed training\n"
    );
    assert!(other.stderr.contains(&message), "{other:#?}");
}

#[test]
fn the_last_state_is_there_even_if_the_files_cannot_be_written() {
    let (sandbox, expected, _) = undisturbed("--snapshots=1000");
    let mut child = start(&sandbox, "--snapshots=1000");
    let block = || fs::create_dir(sandbox.path("model/metrics.json")).unwrap();
    let lines = terminated_after_epoch_3(&mut child, block);
    assert_eq!(child.wait().unwrap().code(), Some(143), "{lines}");
    assert_eq!(sandbox.files("model/snapshots").len(), 1, "{lines}");
    assert!(lines.contains("is in a snapshot: to write the files, train again with --resume\n"), "{lines}");
    fs::remove_dir(sandbox.path("model/metrics.json")).unwrap();
    sandbox.train("--snapshots=1000 --resume").done();
    assert!(sandbox.model() == expected);
}

#[test]
fn a_job_that_begins_with_the_model_in_its_own_directory_can_be_called_again() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=1 --seed=5").done();
    let job = "--train_epochs=3 --snapshots=1 --resume --init=model";
    sandbox.train(job).done();
    let first = sandbox.model();
    let report = sandbox.read("model/report.html");
    assert!(!report.contains("byte for byte") && report.contains("It began with a model that this one has replaced"));
    for directory in ["model", "model/../model"] {
        sandbox.train(&format!("--train_epochs=3 --snapshots=1 --resume --init={directory}")).done();
        assert!(sandbox.model() == first);
    }
    fs::remove_file(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.train(job).done();
    assert!(sandbox.model() == first);
}

#[test]
fn a_target_that_an_earlier_epoch_reached_is_named() {
    let sandbox = Sandbox::with_data();
    // A training whose first epoch is better than its second.
    let accuracies = |seed: u32| {
        let _ = fs::remove_dir_all(sandbox.path("model"));
        sandbox.train(&format!("--train_epochs=2 --snapshots=1 --learning_rate=0.3 --seed={seed}")).done();
        let epochs = sandbox.metrics("model")["epochs"].clone();
        [0, 1].map(|epoch| epochs[epoch]["test_accuracy"].as_f64().unwrap())
    };
    let mut seeds = (1..50).map(|seed| (seed, accuracies(seed)));
    let (seed, [first, last]) = seeds.find(|(_, [first, last])| first > last).unwrap();
    let warned = |epochs: u32, target: f64| {
        let again = format!("--train_epochs={epochs} --learning_rate=0.3 --seed={seed} --resume");
        let ended = sandbox.train(&format!("{again} --target_accuracy={target}"));
        let warning = "warning: target_accuracy: epoch 1 reached it already, where an undisturbed training ends";
        ended.stderr.contains(warning)
    };
    // Not where no epoch follows, or where the last one reached it too and so ends the training.
    assert!(!warned(2, first) && !warned(3, last) && warned(3, first));
}

#[test]
fn a_file_with_the_name_of_a_damaged_snapshot_stays() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=2 --snapshots=1").done();
    sandbox.write("model/snapshots/epoch-002.safetensors", "cut");
    sandbox.write("model/snapshots/epoch-002.safetensors.damaged", "mine");
    sandbox.train("--train_epochs=2 --resume").done();
    assert_eq!(sandbox.read("model/snapshots/epoch-002.safetensors.damaged"), "mine");
}
