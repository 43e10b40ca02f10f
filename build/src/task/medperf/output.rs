//! The one file that a task writes: for MedPerf's server, or predictions.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// Checks before the work that `path` can take the output, whose first key is `first_key`, and that no input is lost. A
/// mounted file is emptied.
///
/// # Errors
/// It is in one of the directories `inputs`, or something else than an earlier output is there.
pub fn begin(path: &Path, inputs: [&Path; 2], first_key: &str) -> Result<()> {
    apart(path, inputs)?;
    files::begin_mounted(path, &format!("{first_key}: "))
}

/// Checks that the output `given` is in none of the directories `inputs`.
///
/// # Errors
/// It is.
pub fn apart(given: &Path, inputs: [&Path; 2]) -> Result<()> {
    if inputs.into_iter().any(|input| files::lies_in(given, input)) {
        return Err(Error::Argument {
            flag: "output_path",
            given: given.into(),
            expected: "a path outside of the directories of the inputs",
            found: "one in them",
            next: Some("name another directory".into()),
        });
    }
    Ok(())
}
