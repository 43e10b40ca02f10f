//! The command line: spellings, wrong arguments, exit codes, streams; `evaluate` and `demo` as a user calls them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{self, Sandbox, TRAIN, end};
use mnist::output::artifacts;
use mnist::parameters::Parameters;
use mnist::task::demo::DEFAULT_PARAMETERS;
use mnist::workspace;

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
    let expected = "the following required arguments were not provided:\n  --out <FILE>\n";
    wrong_arguments("augment --data_dir=data", expected);
    wrong_arguments(
        &format!("{TRAIN} --batchsize=3"),
        "unexpected argument '--batchsize' found\n\n  tip: a similar argument exists: '--batch_size'\n",
    );
    for (arguments, flag, commands) in [
        ("demo --synthetic", "--synthetic", "mnist download"),
        ("demo --log-dir=logs", "--log_dir", "mnist download and mnist train and mnist evaluate"),
    ] {
        let typed = flag.replace('_', "-");
        let tip = format!("{flag} is a flag of {commands}");
        wrong_arguments(arguments, &format!("unexpected argument '{typed}' found\n\n  tip: {tip}\n"));
    }
    for widths in ["--hidden-layers 64 32 16", "--train_epochs 32 --hidden_layers 64 32 16", "--hidden_layers=64 32 16"]
    {
        wrong_arguments(
            &format!("{TRAIN} {widths}"),
            "unexpected argument '32' found\n\n  tip: widths are separated by commas: --hidden_layers=64,32,16\n",
        );
    }
    wrong_arguments("train -- --resume", "unexpected argument '--resume' found\n\nUsage: mnist train");
    wrong_arguments(
        "--data_dir=data train",
        "unexpected argument '--data_dir' found\n\n  tip: 'train --data_dir' exists\n",
    );
}

#[test]
fn a_parameter_out_of_range_is_refused_before_anything_is_done() {
    let expected =
        "invalid value '0' for '--batch_size <NUMBER>': expected a whole number from 1 to 1000000, found 0\n";
    wrong_arguments(&format!("{TRAIN} --batch_size=0"), expected);
    let expected = "invalid value 'lion' for '--optimizer <NAME>': expected adam, adamw, sgd, rmsprop or adagrad, \
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

#[test]
fn a_mirror_of_the_environment_is_named_and_only_matters_where_it_is_asked() {
    let sandbox = Sandbox::new();
    let download = |more: &str| {
        let mut command = sandbox.program();
        command.args("download --data_dir=data --log_dir=logs".split(' ')).args(more.split_whitespace());
        end(command.env("MNIST_MIRROR", "/no/such/place"))
    };
    let ended = download("");
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    let expected = "error: mirror MNIST_MIRROR=/no/such/place: expected a URL with http:// or https://, or a directory, \
                    found a path that cannot be opened: No such file or directory (os error 2)\n";
    assert_eq!(ended.stderr, expected);
    let drawing = "warning: drawing synthetic digits: a stand-in for trying things out, not MNIST\n";
    assert_eq!(download("--synthetic").done().stderr, drawing);
    assert_eq!(download("--synthetic").done().stderr, "");
}

#[test]
fn a_download_with_everything_there_asks_no_mirror_and_refuses_to_draw() {
    let Some(data) = common::real_mnist() else { return };
    let sandbox = Sandbox::new();
    let mut command = sandbox.program();
    command.args(["download", "--log_dir=logs", "--data_dir=data", "--mirror"]).arg(data);
    end(&mut command).done();
    let mut command = sandbox.program();
    command.args(["download", "--log_dir=logs", "--data_dir=data"]).env("MNIST_MIRROR", "/no/such/place");
    end(&mut command).done();
    let ended = sandbox.run("download --log_dir=logs --data_dir=data --synthetic");
    assert!(!ended.stderr.contains("drawing"), "{}", ended.stderr);
    ended.failed_with(
        "data: holds MNIST itself (train-images-idx3-ubyte), which the synthetic stand-in does not replace\n\
         hint: give the stand-in another directory with --data_dir=DIR",
    );
}

#[test]
fn mirrors_are_asked_in_the_order_in_which_they_are_named_by_flag_or_else_by_the_environment() {
    let sandbox = Sandbox::new();
    let server = common::server::Server::start();
    let download = |flags: &[String]| {
        let mut command = sandbox.program();
        command.args(["download", "--data_dir=data", "--log_dir=logs"]).args(flags);
        // Port 9 of this machine is a proxy that nobody runs: the known mirrors cannot be reached, on any machine.
        command.env("MNIST_MIRROR", server.url("/environment")).env("https_proxy", "http://127.0.0.1:9");
        let ended = end(&mut command);
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        let asked = server.url("");
        let lines = ended.stderr.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(&asked));
        lines.map(String::from).collect::<Vec<_>>()
    };
    let flags = ["/first", "/second"].map(|path| format!("--mirror={}", server.url(path)));
    assert_eq!(download(&flags), ["/first: 404 Not Found", "/second: 404 Not Found"]);
    assert_eq!(download(&[]), ["/environment: 404 Not Found"]);
    let mut asked: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    asked.sort();
    assert_eq!(asked.len(), 12);
    assert_eq!(asked[0], "/environment/t10k-images-idx3-ubyte.gz");
}

// ---- help and streams

#[test]
fn help_goes_to_stdout_and_tells_the_exit_codes() {
    let sandbox = Sandbox::new();
    for arguments in ["", "train", "download", "evaluate", "augment", "demo", "cube", "cube check"] {
        let ended = sandbox.run(&format!("{arguments} --help")).done();
        let help = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let codes =
            "Exit codes: 0 done; 1 failed; 2 wrong arguments; 129, 130 and 143 after SIGHUP, SIGINT and SIGTERM.";
        assert!(help.contains(codes), "{arguments}: {help}");
        assert_eq!(ended.stderr, "");
    }
    let version = concat!("mnist ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(sandbox.run("-V").done().stdout, version);
    let long = sandbox.run("--version").done().stdout;
    assert!(long.starts_with(&format!("{version}features: ")) && long.contains("\ninstruction set: "), "{long}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let sandbox = Sandbox::new();
    for arguments in ["--version", "--help", "train --help", "schema parameters"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = sandbox.program();
        let output = command.args(arguments.split(' ')).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.starts_with("error: stdout: cannot write: "), "{arguments}: {error}");
        assert_eq!(output.status.code(), Some(1), "{arguments}");
    }
    // Nor does it hide how the work ended.
    let sandbox = Sandbox::with_data();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox.program();
    let output = command.args(TRAIN.split(' ')).arg("--target_accuracy=0.9999").stdout(full).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    for expected in ["error: stdout: cannot write: ", "error: target_accuracy: expected a test accuracy of "] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn results_go_to_stdout_and_messages_to_stderr_without_colour() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("").done();
    let names: Vec<&str> = ended.stdout.lines().map(|line| line.split("  ").next().unwrap().trim()).collect();
    let mut expected = vec!["test accuracy", "test loss", "data", "epochs"];
    expected.extend(artifacts::ALL.iter().map(|artifact| artifact.name));
    expected.push("logs");
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
fn a_closed_pipe_is_no_failure() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    for arguments in ["evaluate --data_dir=data --log_dir=logs --model_dir=model", "train --help"] {
        let mut command = sandbox.program();
        command.args(arguments.split(' '));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_log_directory_that_cannot_be_made_is_named() {
    let sandbox = Sandbox::with_data();
    sandbox.write("logs", "");
    sandbox.train("").failed_with("logs: cannot create the directory: expected a directory, found a file");
}

// ---- evaluate

#[test]
fn evaluate_scores_the_model_of_train() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 5").done();
    let ended = sandbox.run("evaluate --data_dir=data --log_dir=evaluate_logs --model_dir=model").done();
    assert_eq!(sandbox.files("evaluate_logs"), ["metrics.json", "mlcube_mnist_evaluate.log", "mllog_evaluate.log"]);
    let (trained, evaluated) = (sandbox.metrics("model"), sandbox.metrics("evaluate_logs"));
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
        "model: has no model: expected a file model.safetensors\nhint: train one first with `mnist train --model_dir=model`",
    );
    sandbox.train("").done();
    let good = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.write("model/model.safetensors", &good[..good.len() / 2]);
    sandbox.run(evaluate).failed_with(
        "model/model.safetensors: is not a safetensors file: incomplete metadata, file not fully covered\n\
             hint: bring the right file back, or move this one away and train with `mnist train --model_dir=model`",
    );
}

// ---- the workspace

#[test]
fn without_flags_the_tasks_work_in_the_workspace() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run("download --synthetic").done();
    let places = "in ./workspace: data, download_logs\n";
    assert!(ended.stderr.starts_with(places), "{}", ended.stderr);
    let ended = sandbox.run("train --train_epochs=1 --hidden_layers=32 --batch_size=128").done();
    let places = "in ./workspace: data, train_logs, model, parameters/default.parameters.yaml\n\
                  workspace/parameters/default.parameters.yaml: not there, so defaults are used\n";
    assert!(ended.stderr.starts_with(places), "{}", ended.stderr);
    assert!(sandbox.read("workspace/model/parameters.yaml").contains("dropout: 0.2\n"));
    sandbox.run("evaluate").done();
    sandbox.run("augment --augment=both --out=x.png --count=1").done();
    let ended = sandbox.run("predict x.png --model_dir=workspace/model").done();
    assert!(!ended.stderr.contains("in ./workspace"), "{}", ended.stderr);
    assert_eq!(sandbox.run("predict x.png").done().stdout, ended.stdout);
    let places = ["data", "download_logs", "evaluate_logs", "model", "train_logs"];
    assert_eq!(sandbox.files("workspace"), places);

    // A file that is there counts, comments alone too.
    fs::create_dir(sandbox.path("workspace/parameters")).unwrap();
    sandbox.write("workspace/parameters/default.parameters.yaml", "# all defaults\n");
    let flags = "--train_epochs=1 --hidden_layers=32 --batch_size=128";
    let before = fs::read(sandbox.path("workspace/model/model.safetensors")).unwrap();
    let ended = sandbox.run(&format!("train {flags}")).done();
    assert!(!ended.stderr.contains("not there"), "{}", ended.stderr);
    assert!(fs::read(sandbox.path("workspace/model/model.safetensors")).unwrap() == before);
}

#[test]
fn the_workspace_is_that_of_the_run_configurations() {
    for (file, places) in [
        ("run/download.yaml", &[("data_dir", workspace::DATA), ("log_dir", workspace::DOWNLOAD_LOGS)][..]),
        (
            "run/train.yaml",
            &[
                ("data_dir", workspace::DATA),
                ("log_dir", workspace::TRAIN_LOGS),
                ("model_dir", workspace::MODEL),
                ("parameters_file", workspace::PARAMETERS),
            ],
        ),
        (
            "run/evaluate.yaml",
            &[("data_dir", workspace::DATA), ("log_dir", workspace::EVALUATE_LOGS), ("model_dir", workspace::MODEL)],
        ),
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        for (flag, place) in places {
            let line = format!("  {flag}: {}\n", place.replace("workspace/", "$WORKSPACE/"));
            assert!(text.contains(&line), "{file} has no {line}");
        }
    }
}

// ---- help

#[test]
fn shells_complete_commands_and_flags() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = sandbox.run(&format!("completions {shell}")).done().stdout;
        for word in ["download", "data_dir", "train_epochs", "platform"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    // Bash itself takes the script, and completes with it.
    sandbox.write("mnist.bash", sandbox.run("completions bash").stdout);
    let ask =
        "source ./mnist.bash; COMP_WORDS=(mnist tr); COMP_CWORD=1; _mnist mnist tr mnist; echo \"${COMPREPLY[@]}\"";
    let answer = end(Command::new("bash").current_dir(sandbox.path("")).args(["-c", ask]));
    assert_eq!((&*answer.stdout, answer.code), ("train\n", Some(0)), "{}", answer.stderr);
}

#[test]
fn every_command_has_a_manual_page() {
    let sandbox = Sandbox::new();
    let written = sandbox.run("man pages").done().stdout;
    let names: Vec<&str> = written.lines().filter_map(|line| line.strip_prefix("pages/")).collect();
    assert_eq!(names.len(), sandbox.files("pages").len());
    for name in ["mnist.1", "mnist-train.1", "mnist-cube-run.1"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(sandbox.read("pages/mnist-train.1").contains("train_epochs"));
}

// ---- demo

/// The demo cannot include the cube's file: a build in a container has `build/` alone.
#[test]
fn the_demos_parameters_are_those_of_the_cube_and_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workspace/parameters/default.parameters.yaml");
    assert_eq!(fs::read_to_string(&path).unwrap(), DEFAULT_PARAMETERS);
    assert_eq!(Parameters::read(&path, &[]).unwrap(), Parameters::default());
}

#[test]
fn the_demo_without_a_network_draws_synthetic_digits_and_a_second_call_reuses_them() {
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
    for place in ["workspace/data\n", "workspace/model/model.safetensors\n", "workspace/*_logs\n"] {
        assert!(first.stdout.contains(place), "{place} in {}", first.stdout);
    }
    let model = || fs::metadata(sandbox.path("workspace/model/model.safetensors")).unwrap().modified().unwrap();
    let trained = model();
    let second = demo().done();
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(model(), trained);
    assert!(!second.stderr.contains("warning: no mirror"), "{}", second.stderr);
    let way = format!(
        "workspace/data: there already: SYNTHETIC digits (a stand-in, not MNIST)\nto have MNIST itself: `{} download`, then \
         the demo once more\n",
        env!("CARGO_BIN_EXE_mnist")
    );
    assert!(second.stderr.starts_with(&way), "{}", second.stderr);

    // A model that began with another one is not what the demo trains.
    let bytes = || fs::read(sandbox.path("workspace/model/model.safetensors")).unwrap();
    let expected = bytes();
    let flags = "--data_dir=workspace/data --log_dir=logs --model_dir=workspace/model --init=workspace/model";
    let parameters = "--parameters_file=workspace/parameters/default.parameters.yaml";
    sandbox.run(&format!("train {flags} {parameters}")).done();
    assert!(bytes() != expected);
    demo().done();
    assert!(bytes() == expected);

    // A mirror that is named is asked, which this time does not help either.
    let empty = tempfile::tempdir().unwrap();
    for by_flag in [true, false] {
        let mut command = sandbox.program();
        command.arg("demo").env("https_proxy", "http://127.0.0.1:9");
        match by_flag {
            true => command.arg("--mirror").arg(empty.path()),
            false => command.env("MNIST_MIRROR", empty.path()),
        };
        let ended = end(&mut command).done();
        let answer = format!("warning: {}: the file is not there, neither plain nor gzipped\n", empty.path().display());
        assert!(ended.stderr.contains(&answer) && ended.stderr.contains(plain), "{}", ended.stderr);
        assert!(!ended.stderr.contains("drawing"), "{}", ended.stderr);
    }

    // Other parameters: trained again, on the same data.
    sandbox
        .write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\nhidden_layers: []\nbatch_size: 256\n");
    demo().done();
    assert_ne!(model(), trained);
}

#[test]
fn a_demo_that_is_ended_in_time_scores_its_own_model() {
    let sandbox = Sandbox::new();
    sandbox.run("download --synthetic").done();
    sandbox.run("demo --train_epochs=1 --hidden_layers=[] --batch_size=256").done();
    let ended = sandbox.run("demo --train_epochs=10000 --hidden_layers=[] --batch_size=256 --max_seconds=6").done();
    assert!(ended.stderr.contains("workspace/model: still holds the finished model of before"), "{ended:#?}");
    let trained = sandbox.metrics("workspace/model/unfinished")["model_sha256"].clone();
    assert_eq!(sandbox.metrics("workspace/evaluate_logs")["model_sha256"], trained);
    assert!(trained.is_string());
}

#[test]
fn the_demo_takes_the_parameters_of_train_and_names_the_next_command() {
    let sandbox = Sandbox::new();
    sandbox.run("download --synthetic").done();
    let demo = || sandbox.run("demo --train_epochs=2 --hidden_layers=[] --batch_size=256");
    for again in [false, true] {
        let ended = demo().done();
        assert_eq!(ended.stderr.contains("workspace/model: is trained on this data"), again, "{ended:#?}");
    }
    let next = |command: &mut std::process::Command| end(command).done().stdout.lines().last().unwrap().to_string();
    let flags = ["demo", "--train_epochs=2", "--hidden_layers=[]", "--batch_size=256"];
    let started = env!("CARGO_BIN_EXE_mnist");
    let longer = "train --train_epochs=4 --batch_size=256 --hidden_layers='[]'";
    assert_eq!(next(sandbox.program().args(flags)), format!("Next, train longer: {started} {longer}"));
    let by_cargo = next(sandbox.program().args(flags).env("CARGO", "cargo"));
    let profile = if cfg!(debug_assertions) { "" } else { "--release " };
    assert_eq!(by_cargo, format!("Next, train longer: cargo run {profile}-- {longer}"));
}

#[test]
fn the_demo_with_a_part_of_mnist_and_no_mirror_says_what_to_do() {
    let Some(mirror) = common::real_mnist() else { return };
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("workspace/data")).unwrap();
    let name = "t10k-labels-idx1-ubyte.gz";
    fs::copy(mirror.join(name), sandbox.path("workspace/data").join(name)).unwrap();
    let ended = end(sandbox.program().arg("demo").env("https_proxy", "http://127.0.0.1:9"));
    assert!(!ended.stderr.contains("SYNTHETIC"), "{}", ended.stderr);
    let error =
        "\nerror: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte: no mirror has them\n";
    assert!(ended.stderr.contains(error), "{}", ended.stderr);
    let hint = "\nhint: workspace/data holds a part of MNIST: put the rest there by hand, plain or gzipped, name a \
                mirror of your own with --mirror=URL_OR_DIRECTORY, or call `mnist demo` in another directory for \
                synthetic digits; behind a proxy, set https_proxy\n";
    assert!(ended.stderr.ends_with(hint), "{}", ended.stderr);
    assert_eq!(ended.code, Some(1));
}

#[test]
fn the_demo_replaces_synthetic_digits_by_mnist_from_a_mirror() {
    let Some(mirror) = common::real_mnist() else { return };
    let sandbox = Sandbox::new();
    sandbox.run("download --synthetic --data_dir=workspace/data --log_dir=logs").done();
    fs::create_dir_all(sandbox.path("workspace/parameters")).unwrap();
    sandbox.write("workspace/parameters/default.parameters.yaml", "train_epochs: 1\n");
    let ended = end(sandbox.program().arg("demo").env("MNIST_MIRROR", mirror)).done();
    assert!(ended.stdout.contains("test data      MNIST\n"), "{ended:#?}");
}
