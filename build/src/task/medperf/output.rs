//! The one file that a task writes for MedPerf's server.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// Checks before the work that `path` can take the output, whose first key is `first_key`, and that no input is lost. A
/// mounted file is emptied.
///
/// # Errors
/// It is in one of the directories `inputs`, or something else than an earlier output is there.
pub fn begin(path: &Path, inputs: [&Path; 2], first_key: &str) -> Result<()> {
    if inputs.into_iter().any(|input| files::lies_in(path, input)) {
        return Err(Error::Argument {
            flag: "output_path",
            given: path.into(),
            expected: "a file outside of the directories of the inputs",
            found: "a path in one of them",
            next: Some("name a file in another directory".into()),
        });
    }
    files::begin_mounted(path, &format!("{first_key}: "))
}
