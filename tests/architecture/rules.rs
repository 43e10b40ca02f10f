//! The rules, each as a function from sources to violations.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// No file is longer.
pub const FILE_LINES: usize = 500;
/// No function has more lines between its braces.
pub const FUNCTION_LINES: usize = 60;
/// No function has more arguments, `self` included.
pub const ARGUMENTS: usize = 8;

/// The direction of imports: a module imports from layers below its own, and from its own folder. `main` parses what `cli`
/// declares, and a task reads the arguments that `cli` declares for it.
pub const LAYERS: [&[&str]; 15] = [
    &["main"],
    &["task"],
    &["cli"],
    &["cube", "training"],
    &["output"],
    &["parameters"],
    &["engine"],
    &["data"],
    &["model", "score", "optim"],
    &["simd", "rng", "files", "yaml"],
    &["open"],
    &["interrupt", "memory"],
    &["error"],
    &["host_paths", "sha256"],
    &["text", "threads", "workspace"],
];

/// What breaks a rule: the place, by which an exception names it, and the details.
#[derive(Debug, PartialEq)]
pub struct Violation {
    pub place: String,
    pub detail: String,
}

fn violation(place: impl Into<String>, detail: impl Into<String>) -> Violation {
    Violation { place: place.into(), detail: detail.into() }
}

/// The imports of each file: pairs of paths, without those of a file from itself.
pub fn edges(sources: &[Source]) -> BTreeSet<(&str, &str)> {
    let files: BTreeMap<Vec<&str>, &str> = sources.iter().map(|source| (source.module(), &*source.path)).collect();
    let mut edges = BTreeSet::new();
    for source in sources {
        for import in source.imports() {
            let names: Vec<&str> = import.iter().map(String::as_str).collect();
            // The file that a path leads to is the one of its longest beginning that is a module; lib.rs only declares.
            let found = (1..=names.len()).rev().find_map(|length| files.get(&names[..length]));
            edges.extend(found.filter(|path| **path != source.path).map(|path| (&*source.path, *path)));
        }
    }
    edges
}

/// The layer of a file, 0 at the top, and its top module.
fn layer(path: &str) -> (Option<usize>, &str) {
    let top = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    (LAYERS.iter().position(|layer| layer.contains(&top)), top)
}

/// Imports run downwards, and every module has a layer.
pub fn direction(edges: &BTreeSet<(&str, &str)>, sources: &[Source]) -> Vec<Violation> {
    let unknown = sources.iter().filter(|source| source.path != "lib.rs" && layer(&source.path).0.is_none());
    let mut found: Vec<_> = unknown.map(|source| violation(&source.path, "its module has no layer")).collect();
    for (from, to) in edges {
        let ((Some(above), module), (Some(below), imported)) = (layer(from), layer(to)) else { continue };
        if module != imported && above >= below {
            found.push(violation(format!("{from} -> {to}"), format!("{module} may not import {imported}")));
        }
    }
    found
}

/// No circle of files: the imports that are part of one. A folder's `mod.rs` may list the files of its folder, which may
/// import the trait or type that they implement from it; such a list is not counted.
pub fn circles<'a>(edges: &BTreeSet<(&'a str, &'a str)>) -> Vec<Violation> {
    let lists = |from: &str, to: &str| from.strip_suffix("mod.rs").is_some_and(|folder| to.starts_with(folder));
    let edges: BTreeSet<_> = edges.iter().copied().filter(|(from, to)| !lists(from, to)).collect();
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(edges.iter().filter(|(a, b)| *a == file && seen.insert(*b)).map(|(_, b)| *b));
        }
        seen
    };
    let circular = edges.iter().filter(|(from, to)| reach(to).contains(from));
    circular.map(|(from, to)| violation(format!("{from} -> {to}"), "part of a circle of files")).collect()
}

/// No file of more than [`FILE_LINES`], no function of more than [`FUNCTION_LINES`] or [`ARGUMENTS`].
pub fn sizes(source: &Source) -> Vec<Violation> {
    let mut found = vec![];
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        found.push(violation(&source.path, format!("{lines} lines")));
    }
    for function in source.functions() {
        let place = format!("{}::{}", source.path, function.name);
        if function.lines > FUNCTION_LINES {
            found.push(violation(&place, format!("{} lines", function.lines)));
        }
        if function.arguments > ARGUMENTS {
            found.push(violation(&place, format!("{} arguments", function.arguments)));
        }
    }
    found
}

/// No type has the name of another one in another file.
pub fn names(sources: &[Source]) -> Vec<Violation> {
    let mut places: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        source.types().into_iter().for_each(|name| _ = places.entry(name).or_default().insert(&source.path));
    }
    let several = places.into_iter().filter(|(_, files)| files.len() > 1);
    several.map(|(name, files)| violation(name, Vec::from_iter(files).join(", "))).collect()
}

/// The path that `link`, in a file of `folder`, leads to.
fn target(folder: &str, link: &str) -> String {
    let mut path: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for name in link.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = path.pop(),
            name => path.push(name),
        }
    }
    path.join("/")
}

/// The links of a Markdown text and the names of source files in a text lead to `files`, which are paths below the repository.
pub fn mentions(path: &str, text: &str, files: &BTreeSet<String>) -> Vec<Violation> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    if path.ends_with(".md") {
        let links = text.split("](").skip(1).filter_map(|after| after.split([')', '#', ' ']).next());
        let inside = links.filter(|link| !link.is_empty() && !link.contains(':'));
        missing.extend(inside.filter(|link| {
            let whole = target(folder, link);
            !files.iter().any(|file| *file == whole || file.starts_with(&format!("{whole}/")))
        }));
    }
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '*' | '{');
    for name in text.split(|c| !word(c)) {
        let name = name.trim_end_matches('.').trim_start_matches("./");
        let ours = name.ends_with(".rs")
            || name.contains('/') && [".py", ".sbatch", ".recipe"].iter().any(|end| name.ends_with(end));
        // NAME.rs stands for any name; ../ leads out of the file's folder and is found by what follows.
        let stem = name.rsplit('/').next().unwrap_or_default();
        let placeholder = stem.starts_with(|c: char| c.is_uppercase() || c == '.') || name.contains(['*', '{']);
        let name = name.trim_start_matches("../");
        if ours && !placeholder && !files.iter().any(|file| file == name || file.ends_with(&format!("/{name}"))) {
            missing.insert(name);
        }
    }
    missing.into_iter().map(|name| violation(format!("{path}: {name}"), "there is no such file")).collect()
}
