//! Short YAML files: read up to a limit, and what is wrong with one as a line and a text.

use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::open;

/// A problem of a YAML file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What was expected and what was found.
    pub text: String,
}

/// Reads the text file or pipe at `path`, of at most `longest` bytes. `kind` stands in the message about a longer one: "a
/// parameters file".
///
/// # Errors
/// The file cannot be read or is not UTF-8. The inner result is the problem of a file that is too long.
pub fn read(path: &Path, longest: u64, kind: &str) -> io::Result<Result<String, Problem>> {
    let mut text = String::new();
    open::regular_or_pipe(path)?.take(longest + 1).read_to_string(&mut text)?;
    Ok(if text.len() as u64 > longest {
        Err(Problem { line: None, text: format!("is longer than {longest} bytes, too long for {kind}") })
    } else {
        Ok(text)
    })
}

/// Parses `text`.
///
/// # Errors
/// It is not YAML, or not a `T`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_yaml::from_str(text).map_err(|error| {
        let message = error.to_string();
        // The parser appends the place to its message; it is reported apart.
        let end = message.find(" at line ").unwrap_or(message.len());
        Problem { line: line_of(&error), text: format!("is not YAML: {}", &message[..end]) }
    })
}

/// The line of a parser's error, from 1.
pub fn line_of(error: &serde_yaml::Error) -> Option<usize> {
    error.location().map(|location| location.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_a_problem_and_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "a: 1\n").unwrap();
        assert_eq!(read(&path, 5, "a file").unwrap().unwrap(), "a: 1\n");
        let problem = read(&path, 4, "a file").unwrap().unwrap_err();
        assert_eq!(problem.text, "is longer than 4 bytes, too long for a file");
        assert!(read(Path::new("/dev/zero"), 4, "a file").is_err());
    }

    #[test]
    fn an_error_of_the_parser_has_its_line_apart() {
        let problem = parse::<serde_yaml::Value>("a: 1\n b: 2\n").unwrap_err();
        assert_eq!(problem.line, Some(2));
        assert_eq!(problem.text, "is not YAML: mapping values are not allowed in this context");
    }
}
