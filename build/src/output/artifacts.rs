//! The files that a training run leaves in MODEL_DIR, in one list. They replace those of an earlier run together.
//!
//! A new kind of file is a module of its own with an [`Artifact`], and an entry in [`ALL`]. `train` checks and writes the
//! list, `demo` looks for it, and tests compare it with docs/files.md.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::error::{Error, Result};
use crate::files::OutputDirectory;
use crate::files::lock::DirectoryLock;
use crate::files::set::{self, FileSet};
use crate::model::file as weights;
use crate::open;
use crate::output::artifact::{Artifact, MODEL_SHA256};
use crate::output::finished::Finished;
use crate::output::{metrics, onnx, origin, report};
use crate::threads;

/// All of them, in the order in which they are written and named in the summary: the model first.
pub const ALL: &[&Artifact] = &[&WEIGHTS, &metrics::ARTIFACT, &PARAMETERS, &report::ARTIFACT, &onnx::ARTIFACT];

/// `model.safetensors`, which `evaluate` and `predict` read.
pub const WEIGHTS: Artifact = Artifact {
    name: "model",
    file_name: weights::FILE_NAME,
    essential: true,
    encode: |finished| Some(finished.weights.into()),
};

/// `parameters.yaml`: every parameter with the value it had.
pub const PARAMETERS: Artifact = Artifact {
    name: "parameters",
    file_name: "parameters.yaml",
    essential: true,
    encode: |finished| {
        let origin = format!("# {MODEL_SHA256}: {}\n", finished.model_sha256);
        Some((finished.parameters.to_yaml() + &origin).into_bytes().into())
    },
};

/// The files that were written.
#[derive(Debug, Default)]
pub struct Written {
    /// Name and path of each, in the order of [`ALL`].
    pub files: Vec<(&'static str, PathBuf)>,
    /// The first failure among the files that are not essential.
    pub failure: Option<Error>,
}

/// About how many bytes the files of a network with so many parameters take at most while they are made, with the network
/// itself: the model's file, the report, which is written meanwhile, and ONNX's constants with their file. The allocator keeps
/// about as much as the parameters once more.
pub fn memory(parameters: usize) -> u64 {
    (5 * size_of::<f32>() * parameters + report::memory(parameters)) as u64
}

/// The names of the files.
pub fn names() -> impl DoubleEndedIterator<Item = &'static str> {
    ALL.iter().map(|artifact| artifact.file_name)
}

/// Whether `model_dir` holds every file that a run leaves there.
pub fn is_complete(model_dir: &Path) -> bool {
    names().all(|name| set::locate(model_dir, name).exists())
}

/// Opens a directory of these files. If a training was killed while it renamed them, the renames that are left are made.
///
/// # Errors
/// See [`OutputDirectory::open`] and [`refuse_strangers`].
pub fn open(directory: &Path) -> Result<OutputDirectory> {
    refuse_strangers(directory, names())?;
    let directory = OutputDirectory::open(directory)?;
    directory.finish_set(&names().collect::<Vec<_>>())?;
    Ok(directory)
}

/// Checks that each file in `directory` with one of these `names` was written by a task.
///
/// # Errors
/// One is a user's or another program's, which the task would replace.
pub fn refuse_strangers(directory: &Path, mut names: impl Iterator<Item = &'static str>) -> Result<()> {
    match names.find(|name| is_stranger(directory, name)) {
        Some(name) => Err(Error::Occupied { path: directory.join(name), found: "another file" }),
        None => Ok(()),
    }
}

/// Whether `name` in `directory` is one of these names, and what stands there was not written by a task, or cannot be read.
/// An empty file is nobody's. The new files of a set that waits for its names are not looked at: they would replace it.
pub fn is_stranger(directory: &Path, name: &str) -> bool {
    let path = directory.join(name);
    let is_ours = || {
        open::regular(&path).is_ok_and(|file| match name == WEIGHTS.file_name {
            true => weights::is_ours(file),
            false => origin::hash_in(file).is_some(),
        })
    };
    let holds_something =
        path.symlink_metadata().is_ok_and(|found| !found.is_dir() && (!found.is_file() || found.len() > 0));
    names().any(|other| other == name) && holds_something && !is_ours()
}

/// Warns of files in `model_dir` that were made from another model than the one with this hash. Files without a hash, and
/// those that cannot be read, are left out.
pub fn warn_of_other_origin(model_dir: &Path, model_sha256: &str) {
    let is_other = |name: &&str| origin::model_sha256(model_dir, name).is_some_and(|hash| hash != model_sha256);
    let others: Vec<_> = made_from_model().filter(is_other).collect();
    // A training may have replaced all of them meanwhile.
    let is_there = || weights::load_hashed(model_dir).is_ok_and(|(_, sha256)| sha256 == model_sha256);
    if !others.is_empty() && is_there() {
        let (files, model) = (others.join(", "), WEIGHTS.file_name);
        warn!("{}: made from another model than the {model} there: {files}", model_dir.display());
    }
}

/// The names of the files that are made from the model.
fn made_from_model() -> impl Iterator<Item = &'static str> {
    names().filter(|name| *name != WEIGHTS.file_name)
}

/// Whether `model_dir` holds a model that is not marked as unfinished.
pub fn is_finished(model_dir: &Path) -> bool {
    set::locate(model_dir, weights::FILE_NAME).exists() && !weights::is_unfinished(model_dir)
}

/// Replaces the files in `directory`, which `lock` keeps others out of, by those of `finished`. A file that is not essential
/// and cannot be written is left out, and an older one of its name removed.
///
/// # Errors
/// An essential file cannot be written, the lock is lost, a user's file is there, or the set cannot be put in place. The old files stay, and the
/// new ones that were written are kept under other names.
pub fn write_all(finished: &Finished, directory: &Path, lock: Option<&DirectoryLock>) -> Result<Written> {
    let mut set = FileSet::new(directory, lock);
    let mut written = Written::default();
    let mut left_out = vec![];
    let mut failed = None;
    let write = |(artifact, bytes): (&Artifact, Option<Cow<[u8]>>)| {
        if failed.is_some() {
            return;
        }
        match bytes.map(|bytes| set.add(artifact.file_name, &bytes)) {
            Some(Ok(path)) => written.files.push((artifact.name, path)),
            Some(Err(problem)) if artifact.essential => failed = Some(problem),
            Some(Err(problem)) => {
                left_out.push(artifact.file_name);
                match written.failure {
                    None => written.failure = Some(problem),
                    Some(_) => warn!("{problem}"),
                }
            }
            None => left_out.push(artifact.file_name),
        }
    };
    // The system writes a file while the next is made.
    threads::one_ahead(|made| ALL.iter().for_each(|artifact| made((artifact, (artifact.encode)(finished)))), write);
    if let Some(problem) = failed {
        return Err(set.keep_after(problem));
    }
    // Looked at again, since the user may have put something there.
    if let Err(problem) =
        lock.map_or(Ok(()), DirectoryLock::check_held).and_then(|()| refuse_strangers(directory, names()))
    {
        return Err(set.keep_after(problem));
    }
    set.commit(&left_out)?;
    Ok(written)
}

/// Keeps the files of `finished` in `directory` under other names than their own, which are not theirs to take, until one
/// cannot be written. Returns `error` with these names.
pub fn keep_all(finished: &Finished, directory: &Path, error: Error) -> Error {
    let mut set = FileSet::new(directory, None);
    for Artifact { file_name, encode, .. } in ALL {
        if let Some(Err(problem)) = encode(finished).map(|bytes| set.add(file_name, &bytes)) {
            warn!("{problem}");
            break;
        }
    }
    set.keep_after(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_comes_first_and_the_essential_files_before_the_others() {
        assert_eq!(ALL[0].file_name, "model.safetensors");
        assert!(ALL.is_sorted_by_key(|artifact| !artifact.essential));
    }

    #[test]
    fn no_two_have_one_name() {
        for (at, one) in ALL.iter().enumerate() {
            for other in &ALL[at + 1..] {
                assert_ne!(one.name, other.name);
                assert_ne!(one.file_name, other.file_name);
            }
        }
    }
}
