//! `report.html`: what it says of the run, and how it leads on. tests/outside.rs opens it in Chromium.

use std::fs;
use std::process::Command;

use crate::common::{Sandbox, end};

#[test]
fn the_report_describes_the_run_and_needs_no_network() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 3 --hidden_layers 5").done();
    let report = sandbox.read("model/report.html");
    let metrics = sandbox.metrics("model");
    let accuracy = format!("{:.2}\u{a0}%", 100.0 * metrics["test"]["accuracy"].as_f64().unwrap());
    assert!(report.contains(&format!("<h1>{accuracy}")), "{accuracy}");
    let best = format!("┊ epoch {}: best</span>", metrics["best_epoch"]);
    assert_eq!(report.matches(&best).count(), 2, "in both charts: {best}");
    assert!(!report.contains("The model is that of epoch") && !report.contains(", kept</span>"));
    for expected in ["784–5–10", "3,985 parameters", "train_epochs", "Program and machine", "The 5 units"] {
        assert!(report.contains(expected), "{expected}");
    }
    for file in metrics["data"]["files"].as_array().unwrap() {
        assert!(report.contains(file["sha256"].as_str().unwrap()));
    }
    // These few digits are not a known data set; the banner is for the whole synthetic set.
    assert!(!report.contains("<strong>SYNTHETIC</strong>"));
    // No value is missing, either.
    for absent in ["http://", "https://", "src=\"/", "{{", "{%", "undefined", "NaN"] {
        assert!(!report.contains(absent), "{absent}");
    }
}

#[test]
fn a_network_too_large_for_a_page_has_a_report_without_it() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--hidden_layers 2600").done();
    let report = sandbox.read("model/report.html");
    assert!(
        report.contains("too large for this page") && !report.contains("<script type") && !report.contains("\"pad\"")
    );
    assert!(report.len() < 300_000, "{}", report.len());
}

#[test]
fn the_errors_of_each_digit_are_those_of_the_metrics() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs 3").done();
    let report = sandbox.read("model/report.html");
    let confusion = sandbox.metrics("model")["test"]["confusion"].clone();
    for digit in 0..10 {
        let counts: Vec<u64> = serde_json::from_value(confusion[digit].clone()).unwrap();
        let images: u64 = counts.iter().sum();
        let wrong = images - counts[digit];
        let error = format!("<strong>{:.2}\u{a0}%</strong> wrong", 100.0 * wrong as f64 / images as f64);
        let row = report.split(&format!("<strong class=\"name\">{digit}</strong>")).nth(1).unwrap();
        let row = row.split("</li>").next().unwrap();
        assert!(row.contains(&error) && row.contains(&format!(">{wrong} of {images}<")), "{digit}: {error} in {row}");
        let right = usize::from(counts[digit] > 0) * 2;
        assert_eq!(row.matches("<img").count(), right + wrong.min(4) as usize, "{digit}");
    }
}

#[test]
fn the_report_links_every_other_file_of_the_run() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let report = sandbox.read("model/report.html");
    let linked = |file: &String| report.contains(&format!("<a href=\"{file}\">{file}</a>"));
    let missing: Vec<String> = sandbox.files("model").into_iter().filter(|file| !linked(file)).collect();
    assert_eq!(missing, ["report.html"]);
}

#[test]
fn the_reports_command_gives_the_same_model() {
    let sandbox = Sandbox::with_data();
    sandbox
        .train("--train_epochs=2 --seed=7 --hidden_layers=[] --augment=affine --rotation=20 --validation=0.1")
        .done();
    let report = sandbox.read("model/report.html");
    let command = report.split("<pre id=\"command\"").nth(1).unwrap();
    let command = command.split_once('>').unwrap().1.split_once("</pre>").unwrap().0;
    let command = command.replace("<span>", "").replace("</span>", "").replace("&#x27;", "'").replace("&#39;", "'");
    assert!(command.starts_with("mnist train --optimizer=adam ") && !command.contains('&'), "{command}");
    fs::create_dir(sandbox.path("workspace")).unwrap();
    fs::rename(sandbox.path("data"), sandbox.path("workspace/data")).unwrap();
    let command = command.replacen("mnist", env!("CARGO_BIN_EXE_mnist"), 1);
    end(Command::new("sh").args(["-c", &command]).current_dir(sandbox.path(""))).done();
    assert!(sandbox.model() == fs::read(sandbox.path("workspace/model/model.safetensors")).unwrap());
    assert!(report.contains(", byte for byte, with the instruction set "));
}
