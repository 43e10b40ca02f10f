//! Inputs that their own task would overwrite.

use std::path::{Path, PathBuf};

use super::invocation::Binding;
use crate::files::lies_in;
use crate::output::{artifacts, names};

/// An input that the task would overwrite.
#[derive(Debug, PartialEq, Eq)]
pub struct Overwritten {
    /// The parameter's name.
    pub input: String,
    /// What was expected and found.
    pub problem: String,
}

/// The inputs among `bindings` that an output among them replaces: one that is the output itself, and in this program's cube
/// one whose name a task gives to a file of its own. Two directories may be one, where no file of the first is replaced:
/// then the task adds to it. An input that the task may write, it may replace.
pub fn overwritten(bindings: &[Binding], is_ours: bool) -> Vec<Overwritten> {
    let (inputs, outputs): (Vec<_>, Vec<_>) = bindings.iter().partition(|binding| binding.is_input);
    let inputs = inputs.into_iter().filter(|input| !input.is_writable);
    let problem = |input: &Binding| {
        outputs.iter().filter(|output| output.claim == input.claim).find_map(|output| {
            let expected = if is_same(&input.path, &output.path) {
                let both_get = || artifacts::names().find(|name| are_of(name, &[&input.name, &output.name]));
                if input.is_file || output.is_file {
                    format!("another path than that of the output {}", output.name)
                } else {
                    let name = both_get().filter(|_| is_ours)?;
                    format!("another directory than that of the output {}, which gets a {name} too", output.name)
                }
            } else {
                let name = replaced(input, output).filter(|_| is_ours)?;
                format!("a file that the task does not replace, as it does {name} in the output {}", output.name)
            };
            Some(format!("expected {expected}, found {}", input.path.display()))
        })
    };
    inputs.filter_map(|input| Some(Overwritten { input: input.name.clone(), problem: problem(input)? })).collect()
}

/// The inputs among `bindings` that the task may write to since an output among them is the same directory, with that output.
pub fn laid_over(bindings: &[Binding]) -> Vec<(&Binding, &Binding)> {
    let (inputs, outputs): (Vec<_>, Vec<_>) = bindings.iter().partition(|binding| binding.is_input);
    let inputs = inputs.into_iter().filter(|input| !input.is_writable);
    let over = |input: &&Binding, output: &&Binding| {
        input.claim == output.claim && !output.is_file && is_same(input.directory(), &output.path)
    };
    inputs.filter_map(|input| Some((input, *outputs.iter().find(|output| over(&input, output))?))).collect()
}

/// The name of the file `input`, or of that which it leads to, if a task puts one of that name there, as it writes `output`.
fn replaced(input: &Binding, output: &Binding) -> Option<String> {
    let inner = names::directories_in(&output.name).iter().map(|inner| (output.path.join(inner), *inner));
    let places: Vec<_> = inner.chain([(output.path.clone(), &*output.name)]).collect();
    let name_if_replaced = |path: PathBuf| {
        let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
        let is_replaced = places.iter().any(|(place, flag)| is_same(directory, place) && names::is_ours(flag, name));
        is_replaced.then(|| name.to_string())
    };
    let paths = [Some(input.path.clone()), input.path.canonicalize().ok()].into_iter().flatten();
    paths.filter(|_| input.is_file && !output.is_file).find_map(name_if_replaced)
}

/// Whether a task gives the name to a file in the directory of each of these flags.
fn are_of(name: &str, flags: &[&str]) -> bool {
    flags.iter().all(|flag| names::is_ours(flag, name))
}

/// Whether two paths are one, links followed. Neither needs to be there.
fn is_same(one: &Path, other: &Path) -> bool {
    lies_in(one, other) && lies_in(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NAME=PATH` for each parameter: the outputs after `->`, a file in capitals.
    fn found(is_ours: bool, line: &str) -> Vec<String> {
        let (inputs, outputs) = line.split_once("->").unwrap();
        let of = |line: &str, is_input: bool| -> Vec<Binding> {
            let binding = |word: &str| {
                let (name, path) = word.split_once('=').unwrap();
                Binding::of(&name.to_lowercase(), path, name.to_lowercase() != name, is_input)
            };
            line.split_whitespace().map(binding).collect()
        };
        let bindings = [of(inputs, true), of(outputs, false)].concat();
        let found = overwritten(&bindings, is_ours);
        found.into_iter().map(|Overwritten { input, problem }| format!("{input}: {problem}")).collect()
    }

    #[test]
    fn an_input_that_a_task_of_this_program_replaces_is_found() {
        let of = |name: &str, output: &str, path: &str| {
            let expected = format!("a file that the task does not replace, as it does {name} in the output {output}");
            vec![format!("parameters_file: expected {expected}, found {path}")]
        };
        for (line, expected) in [
            (
                "PARAMETERS_FILE=/w/p/parameters.yaml -> model_dir=/w/p",
                of("parameters.yaml", "model_dir", "/w/p/parameters.yaml"),
            ),
            (
                "PARAMETERS_FILE=/w/p/../p/parameters.yaml -> model_dir=/w/p",
                of("parameters.yaml", "model_dir", "/w/p/../p/parameters.yaml"),
            ),
            (
                "PARAMETERS_FILE=/w/l/mllog_train.log -> log_dir=/w/l",
                of("mllog_train.log", "log_dir", "/w/l/mllog_train.log"),
            ),
            (
                "PARAMETERS_FILE=/w/m/unfinished/parameters.yaml -> model_dir=/w/m",
                of("parameters.yaml", "model_dir", "/w/m/unfinished/parameters.yaml"),
            ),
            (
                "model_dir=/w/m -> log_dir=/w/m",
                vec![
                    "model_dir: expected another directory than that of the output log_dir, which gets a metrics.json \
                     too, found /w/m"
                        .into(),
                ],
            ),
        ] {
            assert_eq!(found(true, line), expected, "{line}");
            assert_eq!(found(false, line), [""; 0], "{line}");
        }
        for line in [
            "PARAMETERS_FILE=/w/p/default.parameters.yaml -> model_dir=/w/p",
            "PARAMETERS_FILE=/w/p/parameters.yaml -> log_dir=/w/p",
            "PARAMETERS_FILE=/w/p/parameters.yaml -> model_dir=/w",
            "data_dir=/w -> log_dir=/w model_dir=/w",
            "data_dir=/w/d -> log_dir=/w/d/logs",
            " -> log_dir=/w model_dir=/w",
        ] {
            assert_eq!(found(true, line), [""; 0], "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_what_a_task_replaces_is_found() {
        let workspace = tempfile::tempdir().unwrap();
        let at = |name: &str| workspace.path().join(name).display().to_string();
        std::fs::create_dir(at("model")).unwrap();
        std::fs::write(at("model/parameters.yaml"), "").unwrap();
        std::os::unix::fs::symlink("model/parameters.yaml", at("link.yaml")).unwrap();
        let line = format!("PARAMETERS_FILE={} -> model_dir={}", at("link.yaml"), at("model"));
        let expected = "a file that the task does not replace, as it does parameters.yaml in the output model_dir";
        assert_eq!(found(true, &line), [format!("parameters_file: expected {expected}, found {}", at("link.yaml"))]);
    }

    #[test]
    fn an_output_over_an_input_is_found() {
        let found = |input: Binding, output: Binding| !laid_over(&[input, output]).is_empty();
        let of = |path: &str, is_file: bool, is_input: bool| Binding::of("a", path, is_file, is_input);
        assert!(found(of("/w/names/alice.txt", true, true), of("/w/names", false, false)));
        assert!(found(of("/w/names", false, true), of("/w/chats/../names", false, false)));
        assert!(!found(of("/w/names/alice.txt", true, true), of("/w/chats", false, false)));
        assert!(!found(of("/w/names/alice.txt", true, true), of("/w/names/bob.txt", true, false)));
        assert!(!found(Binding { is_writable: true, ..of("/w/a", false, true) }, of("/w/a", false, false)));
    }

    #[test]
    fn a_file_that_is_an_output_too_is_found_in_any_cube() {
        let expected = ["table: expected another path than that of the output result, found /w/t.csv"];
        assert_eq!(found(false, "TABLE=/w/t.csv -> RESULT=/w/t.csv"), expected);
        assert_eq!(found(false, "TABLE=/w/t.csv -> RESULT=/w/x/../t.csv"), expected);
        assert_eq!(found(false, "model_in=/w/model -> model_dir=/w/model"), [""; 0]);
        let mut bindings = [Binding::of("a", "/w/a", true, true), Binding::of("b", "/w/a", true, false)];
        bindings[0].is_writable = true;
        assert_eq!(overwritten(&bindings, false), []);
        bindings[0].is_writable = false;
        bindings[1].claim = Some("c".into());
        assert_eq!(overwritten(&bindings, false), []);
    }
}
