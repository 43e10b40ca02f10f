//! Reads a parameters file; every fault comes with its line.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};

use super::given::{Given, GivenReader};
use super::key::Key;
use super::table::{self, KEYS};
use super::{Parameters, Setting};
use crate::error::{Error, Result};
use crate::text::{shortened, suggestion};
use crate::yaml::{self, Problem, line_of};

/// Reads the parameters file at `path`.
///
/// # Errors
/// It cannot be read, is too long, is not a YAML mapping, or holds keys or values that are not allowed; the message has
/// all of them with their lines.
pub fn read(path: &Path) -> Result<Vec<Setting>> {
    let text = yaml::read(path, "a parameters file").map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoParameters { path: path.into(), source },
        _ => Error::io("read", path)(source),
    })?;
    let settings = text.map_err(|problem| vec![problem]).and_then(|text| parse(&text));
    settings.map_err(|problems| Error::ParametersFile { path: path.to_path_buf(), problems })
}

/// The most faults that are named.
const MOST_FAULTS: usize = 20;

fn parse(text: &str) -> std::result::Result<Vec<Setting>, Vec<Problem>> {
    let whole: Given = yaml::parse(text).map_err(|problem| vec![problem])?;
    match whole {
        Given::Mapping => {}
        // Comments at most: all defaults.
        Given::Nothing => return Ok(vec![]),
        other => {
            let text = format!("expected keys with values such as `batch_size: 32`, found {other}");
            return Err(vec![Problem::of_file(text)]);
        }
    }
    let mut problems = vec![];
    loop {
        // The parser tells a line only as it gives up: for the next fault it begins anew and passes over those before.
        let reader = FileReader { pass: Cell::new(problems.len()), ..FileReader::default() };
        match serde_yaml::Deserializer::from_str(text).deserialize_map(&reader) {
            Ok(()) if problems.is_empty() => return Ok(reader.settings.into_inner()),
            Ok(()) => return Err(problems),
            Err(_) if problems.len() == MOST_FAULTS => {
                problems.push(Problem::of_file("there are more faults"));
                return Err(problems);
            }
            // The problem is kept aside, since the parser appends the place to every message.
            Err(error) => problems.push(Problem {
                line: line_of(&error),
                text: reader.problem.into_inner().unwrap_or_else(|| error.to_string()),
            }),
        }
    }
}

/// Checks keys and values while they are parsed: only then does the parser know their lines.
#[derive(Default)]
struct FileReader {
    settings: RefCell<Vec<Setting>>,
    /// The keys met so far, as they were written.
    met: RefCell<Vec<(&'static str, String)>>,
    problem: RefCell<Option<String>>,
    /// How many faults are still passed over.
    pass: Cell<usize>,
}

impl FileReader {
    fn check_key(&self, given: Given) -> std::result::Result<&'static Key, String> {
        let name = match given {
            Given::Text(name) => name,
            other => other.to_string(),
        };
        let Some(key) = table::find(&name) else {
            let known = KEYS.iter().flat_map(|key| [Some(key.name), key.synonym]).flatten();
            let advice = suggestion(&name, known, &KEYS.each_ref().map(|key| key.name));
            return Err(format!("unknown key {}: {advice}", shortened(&name).escape_debug()));
        };
        let mut met = self.met.borrow_mut();
        if let Some((_, before)) = met.iter().find(|(canonical, _)| *canonical == key.name) {
            return Err(if *before == name {
                format!("{name} is given twice: keep one")
            } else {
                format!("{before} and {name} mean the same: keep one")
            });
        }
        met.push((key.name, name));
        Ok(key)
    }

    /// Stores the value of `key`, if that is one.
    fn store(&self, key: Option<&'static Key>, given: Given) -> std::result::Result<(), String> {
        let Some(key) = key else { return Ok(()) };
        let met = self.met.borrow();
        let name = met.last().map_or(key.name, |(_, name)| name);
        key.set(&mut Parameters::default(), &given).map_err(|problem| format!("{name}: {problem}"))?;
        self.settings.borrow_mut().push(Setting { key, given });
        Ok(())
    }

    /// Passes over a fault that is known, and keeps the next one.
    fn unless_known<T>(&self, result: std::result::Result<T, String>) -> std::result::Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.pass.get() > 0 => {
                self.pass.set(self.pass.get() - 1);
                Ok(None)
            }
            Err(problem) => {
                *self.problem.borrow_mut() = Some(problem.clone());
                Err(problem)
            }
        }
    }
}

impl<'de> Visitor<'de> for &FileReader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys with values")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let key_reader = || GivenReader { in_list: false, then: |given| self.unless_known(self.check_key(given)) };
        while let Some(key) = map.next_key_seed(key_reader())? {
            map.next_value_seed(GivenReader {
                in_list: false,
                then: |given| self.unless_known(self.store(key, given)),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::choice::{DeviceChoice, EngineChoice};
    use crate::optim::OptimizerKind;

    fn problem(text: &str) -> String {
        let problems = parse(text).unwrap_err();
        let shown = |Problem { line, text }: &Problem| match line {
            Some(line) => format!("{line}: {text}"),
            None => text.clone(),
        };
        problems.iter().map(shown).collect::<Vec<_>>().join("\n")
    }

    fn parameters(text: &str) -> Parameters {
        Parameters::resolve(&parse(text).unwrap()).unwrap()
    }

    #[test]
    fn the_three_keys_of_mlcubes_documentation_are_the_defaults_and_so_is_nothing() {
        assert_eq!(parameters("# none\n"), Parameters::default());
        assert_eq!(parameters("optimizer: \"adam\"\ntrain_epochs: 5\nbatch_size: 32\n"), Parameters::default());
    }

    #[test]
    fn every_key_is_read_and_names_are_taken_in_any_case() {
        let text = "optimizer: SGD\nepochs: 3\nbatch_size: 8\nlearning_rate: 1\nmomentum: 0.9\nnesterov: true\n\
                    weight_decay: 1e-4\nhidden_layers: [64, 32]\ndropout: 0\nseed: 18446744073709551615\n\
                    device: CPU\nengine: Burn\nthreads: 2\n";
        let expected = Parameters {
            optimizer: OptimizerKind::Sgd,
            train_epochs: 3,
            batch_size: 8,
            learning_rate: 1.0,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 1e-4,
            hidden_layers: vec![64, 32],
            dropout: 0.0,
            seed: u64::MAX,
            device: DeviceChoice::Cpu,
            engine: EngineChoice::Burn,
            threads: 2,
            ..Parameters::default()
        };
        assert_eq!(parameters(text), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("- 1\n- 2\n", "expected keys with values such as `batch_size: 32`, found [1, 2]"),
            ("hello", "expected keys with values such as `batch_size: 32`, found the text \"hello\""),
            ("a: 1\n b: 2\n", "2: is not YAML: mapping values are not allowed in this context"),
            ("optimizer: sgd\nbatchsize: 3", "2: unknown key batchsize: did you mean batch_size?"),
            ("\nbatch_size: 0", "2: batch_size: expected a whole number from 1 to 1000000, found 0"),
            ("batch_size: -1", "1: batch_size: expected a whole number from 1 to 1000000, found -1"),
            ("batch_size: 1e99", "1: batch_size: expected a whole number from 1 to 1000000, found 1e99"),
            ("batch_size: '32'", "1: batch_size: expected a whole number from 1 to 1000000, found the text \"32\""),
            ("batch_size: .nan", "1: batch_size: expected a whole number from 1 to 1000000, found .nan"),
            ("learning_rate: .nan", "1: learning_rate: expected a number above 0 and at most 1000, found .nan"),
            ("epochs: 0", "1: epochs: expected a whole number from 1 to 100000, found 0"),
            ("epochs: 1\nseed: 1\ntrain_epochs: 1", "3: epochs and train_epochs mean the same: keep one"),
            ("seed: 1\nseed: 1", "2: seed is given twice: keep one"),
            ("optimizer: lion", "1: optimizer: expected adam, adamw, sgd, rmsprop or adagrad, found the text \"lion\""),
            (
                "hidden_layers: [1, [2]]",
                "1: hidden_layers: expected a list of at most 32 widths, each a whole number from 1 to 4096, such as [256, 128], found [1, a list]",
            ),
            ("dropout: 1", "1: dropout: expected a number from 0 to below 1, found 1"),
            ("device: {}", "1: device: expected auto, cpu, gpu, gpu:NUMBER or gpu:NAME, found a mapping"),
        ];
        for (text, expected) in cases {
            assert_eq!(problem(text), expected, "{text:?}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let text = "batchsize: 3\nepochs: 2\noptimizer: lion\nseed: [1]\ntrain_epochs: 1\ndropout: 0.5\n";
        let expected = "1: unknown key batchsize: did you mean batch_size?\n\
                        3: optimizer: expected adam, adamw, sgd, rmsprop or adagrad, found the text \"lion\"\n\
                        4: seed: expected a whole number from 0 to 18446744073709551615, found [1]\n\
                        5: epochs and train_epochs mean the same: keep one";
        assert_eq!(problem(text), expected);
        let many = problem(&"nothing_known: 1\n".repeat(1000));
        assert_eq!((many.lines().count(), many.lines().last()), (21, Some("there are more faults")));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
