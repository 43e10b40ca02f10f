//! The shape of the source: the direction of imports, sizes, names, and files that texts mention. See CONTRIBUTING.md.

mod exceptions;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::root;
use exceptions::{CIRCLES, DIRECTION, Exception, MENTIONS, NAMES, SIZES};
use rules::Violation;
use source::Source;

/// The files below `folder` of the repository, as paths below the repository.
fn files(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            // Links are left out: those at the root lead into build/, whose files have one name only.
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", ".git"].map(Path::new).iter().any(|name| path.ends_with(name)) {
                folders.push(path);
            } else if kind.is_file() {
                found.insert(path.to_str().unwrap().to_string());
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn library() -> Vec<Source> {
    let paths = files("build/src").into_iter().filter(|path| path.ends_with(".rs"));
    paths.map(|path| Source::new(path.trim_start_matches("build/src/"), &read(&path))).collect()
}

/// Expects no violation but the exceptions, and no exception without its violation.
#[track_caller]
fn hold(rule: &str, violations: &[Violation], exceptions: &[Exception]) {
    let excepted = |violation: &&Violation| exceptions.iter().any(|exception| exception.place == violation.place);
    let broken: Vec<_> = violations.iter().filter(|violation| !excepted(violation)).collect();
    let lines: Vec<_> = broken.iter().map(|found| format!("{}: {}", found.place, found.detail)).collect();
    assert!(lines.is_empty(), "{rule}; {} violations:\n{}", lines.len(), lines.join("\n"));
    let needed = |exception: &&Exception| violations.iter().any(|violation| violation.place == exception.place);
    let stands = exceptions.iter().filter(|exception| !needed(exception));
    let idle: Vec<_> = stands.map(|exception| exception.place).collect();
    assert!(idle.is_empty(), "{rule}: these exceptions have no violation any more: {idle:#?}");
    let unexplained: Vec<_> = exceptions.iter().filter(|exception| exception.reason.is_empty()).collect();
    assert!(unexplained.is_empty(), "{rule}: these exceptions give no reason: {unexplained:#?}");
}

#[test]
fn imports_run_in_one_direction() {
    let sources = library();
    hold("a module imports from layers below only", &rules::direction(&rules::edges(&sources), &sources), DIRECTION);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = library();
    let mut edges = rules::edges(&sources);
    let all = rules::circles(&edges);
    // An import that is excepted closes no circle for others.
    edges.retain(|(from, to)| !CIRCLES.iter().any(|exception| exception.place == format!("{from} -> {to}")));
    hold("files import each other in no circle", &rules::circles(&edges), &[]);
    let excepted = |found: &Violation| CIRCLES.iter().any(|exception| exception.place == found.place);
    hold("an exception closes a circle", &all.into_iter().filter(excepted).collect::<Vec<_>>(), CIRCLES);
}

#[test]
fn files_and_functions_are_short() {
    let others = ["tests", "benches"].iter().flat_map(|folder| files(folder)).filter(|path| path.ends_with(".rs"));
    let others = others.map(|path| Source::new(&path, &read(&path)));
    let violations: Vec<_> = library().into_iter().chain(others).flat_map(|source| rules::sizes(&source)).collect();
    hold("files and functions are short", &violations, SIZES);
}

#[test]
fn no_two_types_have_one_name() {
    hold("no two types have one name", &rules::names(&library()), NAMES);
}

#[test]
fn texts_name_files_that_exist() {
    let files = files("");
    let read_by_people = |path: &&String| path.ends_with(".md") || path.ends_with(".rs") || path.ends_with(".toml");
    // A record says what was true on its day; the tests of the rules and the exceptions name files that do not exist.
    let others = ["bench/records/", "tests/architecture"];
    let today = files.iter().filter(|path| !others.iter().any(|other| path.starts_with(other)));
    let texts = today.filter(read_by_people);
    let violations: Vec<_> = texts.flat_map(|path| rules::mentions(path, &read(path), &files)).collect();
    hold("texts name files that exist", &violations, MENTIONS);
}

// ---- the rules object to broken sources

fn places(violations: &[Violation]) -> Vec<&str> {
    violations.iter().map(|violation| &*violation.place).collect()
}

#[test]
fn imports_that_run_back_up_are_found() {
    let sources = [
        Source::new("data/idx.rs", "use crate::{error::Error, output::{self, Bars as B}};\nuse std::fs;\n"),
        Source::new(
            "engine/mod.rs",
            "fn f() {\n    crate::parameters::read()\n}\n#[cfg(test)]\nmod tests {\n    use crate::task;\n}\n",
        ),
        Source::new(
            "cube/mod.rs",
            "/// See crate::task.\npub(crate) use crate::training::run;\nconst A: &str = \"crate::task\";\n",
        ),
        Source::new("output/mod.rs", "use super::parameters::Parameters;"),
        Source::new("extra.rs", ""),
        Source::new("lib.rs", "pub mod extra;"),
    ]
    .into_iter()
    .chain(["error.rs", "parameters/mod.rs", "task/mod.rs", "training/mod.rs"].map(|path| Source::new(path, "")));
    let sources: Vec<_> = sources.collect();
    let found = rules::direction(&rules::edges(&sources), &sources);
    let expected = [
        "extra.rs",
        "cube/mod.rs -> training/mod.rs",
        "data/idx.rs -> output/mod.rs",
        "engine/mod.rs -> parameters/mod.rs",
    ];
    assert_eq!(places(&found), expected);
}

#[test]
fn circles_are_found() {
    let sources = [
        Source::new("a/mod.rs", "pub mod b;\npub use b::B;\nuse crate::e::E;"),
        Source::new("a/b.rs", "use super::c::C;"),
        Source::new("a/c.rs", "use crate::a::{A};"),
        Source::new("e.rs", "fn f() -> crate::a::b::B {}"),
        Source::new("a/d.rs", "use super::A;"),
        Source::new("list/mod.rs", "pub mod one;\npub const ALL: [Kind; 1] = [one::ONE];\nuse one::One;"),
        Source::new("list/one.rs", "use super::Kind;"),
    ];
    let found = rules::circles(&rules::edges(&sources));
    assert_eq!(places(&found), ["a/b.rs -> a/c.rs", "a/c.rs -> a/mod.rs", "a/mod.rs -> e.rs", "e.rs -> a/b.rs"]);
}

#[test]
fn long_files_and_functions_are_found() {
    let body = |lines: usize| format!("{{\n{}}}\n", "    // why\n".repeat(lines));
    let generic =
        "<F: Fn(u8, u8) -> u8>(&self, a: [u8; 2], b: (u8, u8), c: F, d: u8, e: &'a u8, f: Vec<(u8, u8)>, g: u8,\n)";
    let text = format!("fn short() {}fn long() -> u8 {}fn eight{generic} {}", body(60), body(61), body(1));
    let source = Source::new("a.rs", &text);
    let functions: Vec<_> =
        source.functions().into_iter().map(|function| (function.arguments, function.lines)).collect();
    assert_eq!(functions, [(0, 60), (0, 61), (8, 1)]);
    assert_eq!(places(&rules::sizes(&source)), ["a.rs::long"]);

    let nine = "trait T { fn none(a: u8); }\nfn nine(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) where A: B {}\n";
    assert_eq!(places(&rules::sizes(&Source::new("a.rs", nine))), ["a.rs::nine"]);
    let long = format!("{}#[cfg(test)]\nmod tests {{}}\n", "\n".repeat(499));
    assert_eq!(places(&rules::sizes(&Source::new("b.rs", &long))), ["b.rs"]);
    let braces = "fn f() {\n    let a = ['{', '\\'', '\"'];\n    let b: &'static str = r#\"{ \" {\"#;\n    /* { */\n}\nfn g() {\n}\n";
    let lines = Source::new("c.rs", braces).functions().into_iter().map(|function| function.lines);
    assert_eq!(lines.collect::<Vec<_>>(), [3, 0]);
}

#[test]
fn types_of_one_name_are_found() {
    let sources = [
        Source::new("a.rs", "pub struct Fault<'a>(&'a str);\n/// A struct Place in a text.\nenum Step {}"),
        Source::new("b.rs", "pub(crate) enum Fault {}\ntrait Other {}"),
        Source::new("c.rs", "#[cfg(test)]\nmod tests {\n    struct Step;\n    struct Other;\n}\n"),
    ];
    assert_eq!(places(&rules::names(&sources)), ["Fault"]);
}

#[test]
fn files_that_do_not_exist_are_found() {
    let files: BTreeSet<_> = ["build/src/lib.rs", "bench/run.py", "build/src/optim/mod.rs"].map(String::from).into();
    let text = "See [lib.rs](build/src/lib.rs), [it](bench/), [gone](build/gone.md#part), [web](https://a.rs/b), `lib.rs`,\n\
                `optim/mod.rs`, `optim/NAME.rs`, `optim/{adam,sgd}.rs`, `mnist.py`, `bench/gone.py` and `training/gone.rs`.";
    let found = rules::mentions("README.md", text, &files);
    let expected = ["README.md: bench/gone.py", "README.md: build/gone.md", "README.md: training/gone.rs"];
    assert_eq!(places(&found), expected);

    let text = "See [lib.rs](../build/src/lib.rs), [it](../bench/) and [gone](../lib.rs).";
    assert_eq!(places(&rules::mentions("docs/page.md", text, &files)), ["docs/page.md: ../lib.rs"]);
}
