//! The README and the pages in docs/: their tables against the program's lists, their links, and the README's length.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mnist::cube::platform::PLATFORMS;
use mnist::cube::runner::Platform;
use mnist::output::artifacts;
use mnist::output::tensorboard;
use mnist::parameters::table::KEYS;
use serde_json::Value;

use crate::common::{end, python_with, root};

/// The README has no more, tables and code included.
const README_WORDS: usize = 1200;

/// The settings of `mlcube`, and a file that leads to ssh.
const NOT_LISTED: [&str; 2] = ["k8s", "mlcube_gcp"];

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// The texts between backticks in `text`, sorted.
fn quoted(text: &str) -> Vec<&str> {
    let mut names: Vec<_> = text.split('`').skip(1).step_by(2).collect();
    names.sort();
    names
}

#[test]
fn files_lists_the_files_of_a_run() {
    let page = read("docs/files.md");
    let row = page.lines().find_map(|line| line.strip_prefix("| train | in MODEL_DIR ")).expect("a row for train");
    let (model, logs) = row.split_once("in LOG_DIR ").expect("MODEL_DIR, then LOG_DIR");
    let mut names: Vec<_> = artifacts::names().collect();
    names.sort();
    assert_eq!(quoted(model), names);
    let [events] = quoted(logs)[..] else { panic!("{logs}") };
    assert!(events.starts_with(tensorboard::PREFIX), "{events}");
}

/// Every parameter has a row in the order of the table, with the default as a parameters file would have it and the values
/// as messages name them.
#[test]
fn parameters_lists_the_parameters_with_their_defaults_and_values() {
    let page = read("docs/parameters.md");
    let head = "| key | default | values | |\n|---|---|---|---|\n";
    let (_, table) = page.split_once(head).expect("the table of parameters");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect::<Vec<_>>());
    let rows: Vec<_> = cells.collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), KEYS.each_ref().map(|key| key.name));
    for (row, key) in rows.iter().zip(&KEYS) {
        let value = match key.default_value() {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.as_f64().unwrap().to_string(),
            Value::Null => "none".into(),
            other => other.to_string(),
        };
        // A default that depends on another parameter begins with the usual one.
        assert_eq!(row[1].split(',').next().unwrap(), value, "{}", key.name);
        assert_eq!(row[2], key.expected(), "{}", key.name);
        if let Some(synonym) = key.synonym {
            assert!(quoted(row[3]).contains(&synonym), "{} should name {synonym}", key.name);
        }
    }
}

/// Each kind of platform file that can run a task has a row with its keys.
#[test]
fn cube_lists_the_keys_of_platform_files() {
    let page = read("docs/cube.md");
    for Platform { schema, .. } in PLATFORMS.iter().filter(|platform| !NOT_LISTED.contains(&platform.schema.name)) {
        let row = page.lines().find(|line| line.starts_with(&format!("| {} |", schema.name))).expect(schema.name);
        let mut keys: Vec<_> = schema.fields.iter().map(|field| field.name).collect();
        keys.sort();
        assert_eq!(quoted(row), keys, "{}", schema.name);
    }
}

#[test]
fn the_readme_is_short() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= README_WORDS, "{words} words; at most {README_WORDS}");
}

#[test]
fn every_page_says_for_whom_it_is_and_the_readme_leads_there() {
    let readme = read("README.md");
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        let text = read(page);
        let first = text.lines().nth(2).unwrap_or_default();
        assert!(first.starts_with("For "), "{page}: {first}");
        assert!(readme.contains(&format!("]({page})")), "the README has no link to {page}");
    }
}

// ---- links

/// The README and the pages in docs/, as paths below the repository.
fn pages() -> Vec<String> {
    let names = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = names.map(|name| format!("docs/{}", name.to_str().unwrap())).filter(|page| page.ends_with(".md"));
    std::iter::once("README.md".to_string()).chain(docs).collect()
}

/// The lines of a Markdown text that are not between fences.
fn without_code(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The anchors of a Markdown text's headings, as GitHub makes them: no punctuation, hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    let text = without_code(text);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().replace(' ', "-").to_lowercase()
    };
    headings.map(anchor).collect()
}

/// The links in `text`, which is that of the file `page`, that lead to no file or heading of this repository.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let text = without_code(text);
    let links = text.split("](").skip(1).filter_map(|after| after.split(')').next());
    let leads_nowhere = |link: &&str| {
        let (file, heading) = link.split_once('#').unwrap_or((*link, ""));
        let target: PathBuf = if file.is_empty() { page.into() } else { page.parent().unwrap().join(file) };
        let has_heading = || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(heading));
        !target.exists() || !heading.is_empty() && !has_heading()
    };
    links.filter(|link| !link.contains(':')).filter(leads_nowhere).map(String::from).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    for page in pages() {
        assert_eq!(broken(&root().join(&page), &read(&page)), Vec::<String>::new(), "{page}");
    }
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let text = "See [one](../README.md#use), [two](../README.md#abuse), [three](gone.md), [four](files.md),\n\
                [five](https://example.com/#a), [six](#gone) and [seven](../build/src/lib.rs).\n\
                ```\n[eight](gone.md)\n```\n[nine](files.md#whole-or-not-at-all), [ten](files.md#whole).";
    let found = broken(&root().join("docs/files.md"), text);
    assert_eq!(found, ["../README.md#abuse", "gone.md", "#gone", "files.md#whole"]);
}

#[test]
fn the_table_of_records_is_what_they_give() {
    let Some(mut python) = python_with(&["json"]) else { return };
    end(python.arg(root().join("bench/overview.py")).arg("--check")).done();
}
