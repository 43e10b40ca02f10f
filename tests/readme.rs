//! The README as its reader follows it: its commands and its Python, run one after the other in an empty directory.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use mnist::data::picture;
use mnist::data::synthetic::{self, Split};

use crate::common::{Ended, Sandbox, end, python_with, real_mnist, root, skipped};

/// A program and its arguments as they stand in the README, or Python between ```` ```python ```` and ```` ``` ````.
#[derive(Debug, PartialEq)]
enum Step {
    Command(String),
    Python(String),
}

/// What there is to run in `text`, in its order.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "```python" {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            steps.push(Step::Python(code.join("\n")));
        } else if line.starts_with("```") {
            lines.by_ref().find(|line| *line == "```");
        } else if let Some(command) = line.strip_prefix("    ") {
            steps.push(Step::Command(command.to_string()));
        }
    }
    steps
}

/// Runs a command of the README in `sandbox`: quicker than it stands there, or only in words where it needs a container.
/// None for a command of another program.
fn run(command: &str, sandbox: &Sandbox, mirror: &Path) -> Option<Ended> {
    let words: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
    let (program, arguments) = words.split_first()?;
    let task = arguments.first()?.to_str()?;
    if program != "mnist" {
        return None;
    }
    let more = match task {
        "cube" => Some("--dry_run"),
        "train" if arguments.len() > 1 => Some("--train_epochs=1"),
        _ => None,
    };
    let arguments = arguments.iter().filter(|argument| !argument.to_string_lossy().starts_with("--train_epochs"));
    Some(end(sandbox.program().args(arguments).args(more).env("MNIST_MIRROR", mirror)))
}

#[test]
fn its_commands_work_in_their_order() {
    let Some(mirror) = real_mnist() else { return skipped("no MNIST: set MNIST_TEST_DATA") };
    let sandbox = Sandbox::new();
    for part in ["examples", "mlcube.yaml", "platforms", "run", "tasks", "workspace"] {
        let copied = Command::new("cp").arg("-r").arg(root().join(part)).arg(sandbox.path(part)).status().unwrap();
        assert!(copied.success());
    }
    fs::create_dir(sandbox.path("build")).unwrap();
    let mut ran = vec![];
    for step in steps(&fs::read_to_string(root().join("README.md")).unwrap()) {
        match step {
            Step::Command(command) => {
                let Some(ended) = run(&command, &sandbox, &mirror) else { continue };
                assert_eq!(ended.code, Some(0), "{command}: {ended:#?}");
                if command.ends_with("seven.png") {
                    assert!(ended.stdout.contains(" 7 "), "{}", ended.stdout);
                }
                ran.push(command);
            }
            Step::Python(code) => {
                let modules = ["numpy", "onnxruntime", "torch", "safetensors"];
                let used: Vec<&str> = modules.into_iter().filter(|module| code.contains(module)).collect();
                let Some(mut python) = python_with(&used) else { continue };
                // The second piece goes on from the first.
                let before = "import numpy\nimages = numpy.fromfile('workspace/data/t10k-images-idx3-ubyte', \
                              numpy.uint8, offset=16).reshape(-1, 28, 28)\n";
                let ended = end(python.current_dir(sandbox.path("")).args(["-c", &format!("{before}{code}")]));
                assert_eq!(ended.code, Some(0), "{code}: {ended:#?}");
                let digits: Vec<&str> =
                    ended.stdout.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()).collect();
                assert_eq!(digits[..4], ["7", "2", "1", "0"], "the first test digits: {}", ended.stdout);
            }
        }
    }
    for expected in
        ["mnist demo", "mnist download", "mnist train", "mnist evaluate", "mnist predict examples/seven.png"]
    {
        assert!(ran.iter().any(|command| command == expected), "{expected} is not in {ran:#?}");
    }
}

#[test]
fn steps_are_found_in_their_order() {
    let text = "a\n\n    mnist demo\n\n```text\n    no\n```\n```python\nx = 1\ny\n```\n    b c\n";
    let expected = [Step::Command("mnist demo".into()), Step::Python("x = 1\ny".into()), Step::Command("b c".into())];
    assert_eq!(steps(text), expected);
}

/// The example is the eighth of the synthetic test digits, as ink on paper.
#[test]
fn the_example_is_drawn_by_the_program() {
    const ZOOM: usize = 8;
    const MARGIN: usize = 6;
    const NUMBER: usize = 7;
    let drawn = synthetic::draw(Split::Test, NUMBER + 1);
    assert_eq!(drawn.labels[NUMBER], 7);
    let seven = &drawn.pixels[NUMBER * 784..][..784];
    let side = 28 + 2 * MARGIN;
    let pixel = |row: usize, column: usize| {
        let inside = (MARGIN..MARGIN + 28).contains(&row) && (MARGIN..MARGIN + 28).contains(&column);
        if inside { 255 - seven[(row - MARGIN) * 28 + column - MARGIN] } else { 255 }
    };
    let pixels: Vec<u8> =
        (0..(side * ZOOM).pow(2)).map(|i| pixel(i / (side * ZOOM) / ZOOM, i % (side * ZOOM) / ZOOM)).collect();
    let expected = picture::png(&pixels, side * ZOOM);
    if fs::read(root().join("examples/seven.png")).ok().as_ref() != Some(&expected) {
        let path = root().join("target/seven.png");
        fs::write(&path, expected).unwrap();
        panic!("examples/seven.png: expected the bytes that are now in {}", path.display());
    }
}
