//! The files that a training run leaves, in one list.
//!
//! A new kind of file is a module of its own with an [`Artifact`], and an entry in [`ALL`]. `train` checks and writes the
//! list, `demo` looks for it, and tests compare it with the README.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::error::{Error, Result};
use crate::files;
use crate::model::file as weights;
use crate::output::artifact::{Artifact, Directories, Directory};
use crate::output::finished::Finished;
use crate::output::{metrics, onnx, report, tensorboard};

/// All of them, in the order in which they are written and named in the summary: the model first, those of LOG_DIR last.
pub const ALL: &[&Artifact] =
    &[&WEIGHTS, &metrics::ARTIFACT, &PARAMETERS, &report::ARTIFACT, &onnx::ARTIFACT, &tensorboard::ARTIFACT];

/// `model.safetensors`, which `evaluate` and `predict` read.
pub const WEIGHTS: Artifact = Artifact {
    name: "model",
    file_name: weights::FILE_NAME,
    directory: Directory::Model,
    essential: true,
    encode: |finished| Some(weights::encode(&finished.trained?.model)),
};

/// `parameters.yaml`: every parameter with the value it had.
pub const PARAMETERS: Artifact = Artifact {
    name: "parameters",
    file_name: "parameters.yaml",
    directory: Directory::Model,
    essential: true,
    encode: |finished| finished.trained.map(|_| finished.parameters.to_yaml().into_bytes()),
};

/// The files that were written.
#[derive(Debug, Default)]
pub struct Written {
    /// Name and path of each, in the order of [`ALL`].
    pub files: Vec<(&'static str, PathBuf)>,
    /// The first failure among the files that are not essential.
    pub failure: Option<Error>,
}

impl Written {
    fn add(&mut self, artifact: &Artifact, written: Result<Option<PathBuf>>) {
        match written {
            Ok(path) => self.files.extend(path.map(|path| (artifact.name, path))),
            Err(problem) if self.failure.is_none() => self.failure = Some(problem),
            Err(problem) => warn!("{problem}"),
        }
    }
}

/// Checks that no directory is in the place of any of the files.
///
/// # Errors
/// There is one.
pub fn check(directories: &Directories) -> Result<()> {
    ALL.iter().try_for_each(|artifact| files::no_directory(&artifact.path(directories)))
}

/// Whether `model_dir` holds every file that a run leaves there.
pub fn is_complete(model_dir: &Path) -> bool {
    of(Directory::Model).all(|artifact| model_dir.join(artifact.file_name).exists())
}

/// Writes every file that `finished` has the contents of.
///
/// # Errors
/// An essential file cannot be written. The files of LOG_DIR are written even then.
pub fn write_all(finished: &Finished, directories: &Directories) -> Result<Written> {
    let logs: Vec<_> = of(Directory::Logs).map(|file| (file, file.write(finished, directories))).collect();
    let mut written = write_model_dir(finished, directories)?;
    logs.into_iter().for_each(|(artifact, path)| written.add(artifact, path));
    Ok(written)
}

/// Writes MODEL_DIR: the essential files, then the others. A run without a model leaves it as it was.
fn write_model_dir(finished: &Finished, directories: &Directories) -> Result<Written> {
    let mut written = Written::default();
    for artifact in of(Directory::Model).filter(|artifact| artifact.essential) {
        let Some(path) = artifact.write(finished, directories)? else { continue };
        written.files.push((artifact.name, path));
        if artifact.file_name == WEIGHTS.file_name {
            remove_outdated(directories)?;
        }
    }
    for artifact in of(Directory::Model).filter(|artifact| !artifact.essential) {
        written.add(artifact, artifact.write(finished, directories));
    }
    Ok(written)
}

/// Removes the files that were made from an earlier model: they must not stand beside the new one.
fn remove_outdated(directories: &Directories) -> Result<()> {
    let outdated = of(Directory::Model).filter(|artifact| !artifact.essential);
    outdated.map(|artifact| artifact.path(directories)).try_for_each(|path| files::remove(&path))
}

fn of(directory: Directory) -> impl Iterator<Item = &'static Artifact> {
    ALL.iter().copied().filter(move |artifact| artifact.directory == directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_comes_first_the_essential_files_before_the_others_and_the_logs_last() {
        assert_eq!(ALL[0].file_name, "model.safetensors");
        assert!(ALL.is_sorted_by_key(|artifact| (artifact.directory == Directory::Logs, !artifact.essential)));
    }

    #[test]
    fn no_two_have_one_name_or_one_place() {
        for (at, one) in ALL.iter().enumerate() {
            for other in &ALL[at + 1..] {
                assert_ne!(one.name, other.name);
                assert_ne!((one.directory, one.file_name), (other.directory, other.file_name));
            }
        }
    }
}
