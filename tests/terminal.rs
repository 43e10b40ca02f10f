//! What a user sees on a terminal: the final screen of 40, 80 and 120 columns, resized, interrupted; dumb terminals; colours.

use std::fs;
use std::process::Command;

use crate::common::terminal::{Final, Terminal};
use crate::common::{Sandbox, TRAIN, end, real_mnist, skipped};

/// The characters of a bar.
const BAR: [char; 2] = ['█', '░'];

/// A training that takes some seconds at least, if nobody ends it.
fn training(sandbox: &Sandbox, epochs: u32) -> Command {
    let mut command = sandbox.program();
    command.args(TRAIN.split(' ')).arg("--threads=1").arg(format!("--train_epochs={epochs}"));
    command
}

impl Final {
    /// The lines that contain `text`.
    fn with(&self, text: &str) -> Vec<&String> {
        self.lines.iter().filter(|line| line.contains(text)).collect()
    }

    /// Expects the lines of `epochs`, each once and in order, and no bar.
    #[track_caller]
    fn has_epochs(&self, epochs: u32, of: &str) {
        let numbers: Vec<String> = (1..=epochs).map(|epoch| format!("{epoch}/{of}")).collect();
        let lines = self.lines.iter().filter_map(|line| line.trim_start_matches("epoch ").split([':', ',']).next());
        let found: Vec<&str> = lines.filter(|number| number.ends_with(&format!("/{of}"))).collect();
        assert_eq!(found, numbers, "{:#?}", self.lines);
        assert!(!self.lines.iter().any(|line| line.contains(BAR)), "{:#?}", self.lines);
    }
}

#[test]
fn each_epoch_leaves_a_line_and_the_bar_leaves_nothing() {
    let sandbox = Sandbox::with_data();
    for columns in [40, 80, 120] {
        let ended = Terminal::start(training(&sandbox, 3).arg("--hidden_layers=1024,1024"), columns).end();
        assert_eq!(ended.code, Some(0), "{:#?}", ended.lines);
        ended.has_epochs(3, "3");
        let long = ended.with("3/3").iter().any(|line| line.contains("test loss"));
        assert_eq!(long, columns >= 80, "{:#?}", ended.lines);
        assert!(ended.bytes.contains(BAR), "no bar was drawn");
        assert_eq!(ended.with("test accuracy  ").len(), 1, "{:#?}", ended.lines);
    }
}

#[test]
fn nothing_is_lost_when_the_user_interrupts_or_resizes() {
    let sandbox = Sandbox::with_data();
    let flags = ["--hidden_layers=1024,1024", "--max_seconds=60"];
    for sizes in [[80, 80, 80], [120, 40, 80], [40, 120, 40]] {
        let mut terminal = Terminal::start(training(&sandbox, 1000).args(flags), sizes[0]);
        terminal.wait_for("1/1000");
        for (columns, epoch) in sizes.into_iter().zip(2..) {
            terminal.wait_for(&format!("{epoch}/1000"));
            terminal.resize(columns);
        }
        terminal.wait_for("5/1000");
        terminal.interrupt();
        let ended = terminal.end();
        assert_eq!(ended.code, Some(130), "{:#?}", ended.lines);
        let kept = |line: &&String| line.starts_with("epoch ") || line.contains("/1000, ");
        let done = ended.lines.iter().filter(kept).count();
        assert!(done >= 4 && !ended.lines.iter().last().unwrap().contains(BAR), "{:#?}", ended.lines);
        assert_eq!(ended.with("data: ").len(), 1, "{:#?}", ended.lines);
        if sizes == [80; 3] {
            ended.has_epochs(done as u32, "1000");
            let error = ended.with("error: ");
            assert_eq!(error.len(), 1, "{:#?}", ended.lines);
            assert!(error[0].starts_with("error: "), "{:#?}", ended.lines);
        }
    }
}

#[test]
fn the_demo_shows_every_step_once() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.program();
    command.args(["demo", "--train_epochs=2", "--hidden_layers=[]"]).env("https_proxy", "http://127.0.0.1:9");
    let ended = Terminal::start(&mut command, 80).end();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.lines);
    ended.has_epochs(2, "2");
    assert_eq!(ended.with("SYNTHETIC digits instead").len(), 1, "{:#?}", ended.lines);
    // The command holds the path of the program, which may be longer than the screen is wide.
    let next = ended.lines.iter().position(|line| line.starts_with("Next, train longer: "));
    let next = ended.lines[next.unwrap_or_else(|| panic!("{:#?}", ended.lines))..].concat();
    assert!(next.ends_with("train --train_epochs=4 --hidden_layers='[]'"), "{next}");
    for place in ["data  ", "model  ", "report  ", "parameters  ", "logs  "] {
        let lines: Vec<&String> = ended.lines.iter().filter(|line| line.starts_with(place)).collect();
        assert!(lines.len() == 1 && lines[0].chars().count() < 80, "{:#?}", ended.lines);
    }
}

#[test]
fn a_download_reports_every_file_once() {
    let Some(mirror) = real_mnist() else { return skipped("no MNIST: set MNIST_TEST_DATA") };
    for columns in [40, 80, 120] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.program();
        command.args(["download", "--data_dir=data", "--log_dir=logs"]).arg("--mirror").arg(&mirror);
        let ended = Terminal::start(&mut command, columns).end();
        assert_eq!(ended.code, Some(0), "{:#?}", ended.lines);
        for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
            assert_eq!(ended.with(name).len(), 1, "{:#?}", ended.lines);
        }
        let log = sandbox.read("logs/mlcube_mnist_download.log");
        assert_eq!(log.matches("SHA-256 right").count(), 4, "{log}");
    }
}

#[test]
fn a_dumb_or_tiny_terminal_gets_plain_lines() {
    let sandbox = Sandbox::with_data();
    for (kind, columns) in [("dumb", 80), ("", 80), ("xterm", 12)] {
        let ended = Terminal::start(training(&sandbox, 2).env("TERM", kind).env("NO_COLOR", "1"), columns).end();
        assert_eq!(ended.code, Some(0), "{:#?}", ended.lines);
        assert!(!ended.bytes.contains('\x1b') && !ended.bytes.contains(BAR), "{:?}", ended.bytes);
        assert_eq!(ended.bytes.matches("epoch ").count(), 2, "{}", ended.bytes);
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let sandbox = Sandbox::new();
    let failing = || {
        let mut command = sandbox.program();
        command.args(["evaluate", "--data_dir=none", "--log_dir=logs", "--model_dir=none"]);
        command
    };
    const RED: &str = "\x1b[31m";
    let shown = |command: &mut Command| Terminal::start(command, 80).end().bytes;
    let plain = shown(&mut failing());
    assert!(plain.contains(RED) && plain.contains("error:"), "{plain:?}");
    for command in [failing().env("NO_COLOR", "1"), failing().env("TERM", "dumb"), failing().env("CLICOLOR", "0")] {
        let shown = shown(command);
        assert!(!shown.contains('\x1b') && shown.contains("error: "), "{shown:?}");
    }
    assert!(!end(&mut failing()).stderr.contains('\x1b'));
    assert!(end(failing().env("CLICOLOR_FORCE", "1")).stderr.contains(RED));
    let log = fs::read_to_string(sandbox.path("logs/mlcube_mnist_evaluate.log")).unwrap_or_default();
    assert!(!log.contains('\x1b'), "{log:?}");
}

#[test]
fn quiet_and_verbose_say_less_and_more() {
    let sandbox = Sandbox::with_data();
    let normal = end(&mut training(&sandbox, 1)).done();
    let verbose = end(training(&sandbox, 1).arg("--verbose")).done();
    assert!(!normal.stderr.contains("parameter batch_size: 32") && verbose.stderr.contains("parameter batch_size: 32"));
    let quiet = end(sandbox.program().arg("-q").args(training(&sandbox, 1).get_args())).done();
    assert!(quiet.stderr.lines().all(|line| line.starts_with("warning: ")), "{}", quiet.stderr);
    assert!(quiet.stdout.starts_with("test accuracy"), "{}", quiet.stdout);
    let failed = end(sandbox.program().args(["-q", "train", "--data_dir=none", "--log_dir=l", "--model_dir=m"]));
    assert!(failed.stderr.starts_with("error: none: ") && failed.stderr.contains("\nhint: get "), "{}", failed.stderr);
    let on_terminal = Terminal::start(training(&sandbox, 1).arg("-q"), 80).end();
    assert!(!on_terminal.bytes.contains(BAR) && !on_terminal.bytes.contains("epoch 1"), "{}", on_terminal.bytes);
    let both = end(training(&sandbox, 1).args(["-q", "-v"]));
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}
