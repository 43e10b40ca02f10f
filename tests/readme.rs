//! The README's tables against the lists of the program.

use std::fs;

use mnist::output::artifacts;
use mnist::output::tensorboard;
use mnist::parameters::Parameters;
use mnist::parameters::table::KEYS;
use serde_json::Value;

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The texts between backticks in `text`, sorted.
fn quoted(text: &str) -> Vec<&str> {
    let mut names: Vec<_> = text.split('`').skip(1).step_by(2).collect();
    names.sort();
    names
}

#[test]
fn it_lists_the_files_of_a_run() {
    let readme = readme();
    let row = readme.lines().find_map(|line| line.strip_prefix("| train | in MODEL_DIR ")).expect("a row for train");
    let (model, logs) = row.split_once("in LOG_DIR ").expect("MODEL_DIR, then LOG_DIR");
    let mut names: Vec<_> = artifacts::names().collect();
    names.sort();
    assert_eq!(quoted(model), names);
    let [events] = quoted(logs)[..] else { panic!("{logs}") };
    assert!(events.starts_with(tensorboard::PREFIX), "{events}");
}

/// Every parameter has a row in the order of the table, with the default as a parameters file would have it.
#[test]
fn it_lists_the_parameters_with_their_defaults() {
    let readme = readme();
    let (_, table) = readme.split_once("| key | default | |\n|---|---|---|\n").expect("the table of parameters");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect::<Vec<_>>());
    let rows: Vec<_> = cells.collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), KEYS.each_ref().map(|key| key.name));
    for (row, key) in rows.iter().zip(&KEYS) {
        let value = match key.value(&Parameters::default()) {
            Value::String(text) => text,
            Value::Number(number) => number.as_f64().unwrap().to_string(),
            Value::Null => "none".into(),
            other => other.to_string(),
        };
        // A default that depends on another parameter begins with the usual one.
        assert_eq!(row[1].split(',').next().unwrap(), value, "{}", key.name);
        if let Some(synonym) = key.synonym {
            assert!(quoted(row[2]).contains(&synonym), "{} should name {synonym}", key.name);
        }
    }
}
