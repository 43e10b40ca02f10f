//! The kind of file that a training run leaves in MODEL_DIR. [`artifacts`](super::artifacts) lists them.

use std::borrow::Cow;

use crate::output::finished::Finished;

/// Before the SHA-256 of the model's file in every other file, as its format writes names and values: somebody may copy a
/// model into a directory with the files of another.
pub const MODEL_SHA256: &str = "model_sha256";

/// A file that a training run leaves in MODEL_DIR.
#[derive(Debug)]
pub struct Artifact {
    /// Its name in the summary.
    pub name: &'static str,
    /// The name of the file.
    pub file_name: &'static str,
    /// Whether the model is of no use without it. If such a file cannot be written, the old set stays; a failure of
    /// another one costs only that file.
    pub essential: bool,
    /// The file's contents; none where this run has no such file.
    pub encode: for<'f> fn(&Finished<'f>) -> Option<Cow<'f, [u8]>>,
}
