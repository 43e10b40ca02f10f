//! The names of the files that tasks write, and how to tell them from a user's own.

use crate::data::sets::SETS;
use crate::files::atomic::TEMPORARY;
use crate::files::{lock, set};
use crate::model::file::UNFINISHED;
use crate::output::{artifacts, metrics, tensorboard};

/// The directory of snapshots in MODEL_DIR.
pub const SNAPSHOTS: &str = "snapshots";
/// The beginning and the end of a snapshot's name.
const SNAPSHOT: (&str, &str) = ("epoch-", ".safetensors");

/// The end of a damaged snapshot's name, after its own.
pub const DAMAGED: &str = ".damaged";

/// The snapshot after `epoch`.
pub fn snapshot(epoch: u32) -> String {
    format!("{}{epoch:03}{}", SNAPSHOT.0, SNAPSHOT.1)
}

/// Whether a snapshot has this name.
pub fn is_snapshot(name: &str) -> bool {
    let epoch = name.strip_prefix(SNAPSHOT.0).and_then(|rest| rest.strip_suffix(SNAPSHOT.1));
    epoch.is_some_and(|epoch| epoch.len() >= 3 && epoch.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The directories that a task makes in the one that its flag `flag` names. Each stands for a flag in [`is_ours`].
pub fn directories_in(flag: &str) -> &'static [&'static str] {
    if flag == "model_dir" { &[SNAPSHOTS, UNFINISHED] } else { &[] }
}

/// A directory of events for TensorBoard.
const EVENTS: &str = "events";

/// The log file of `task`.
pub fn log(task: &str) -> String {
    format!("mlcube_mnist_{task}.log")
}

/// The MLPerf log of `task`.
pub fn mllog(task: &str) -> String {
    format!("mllog_{task}.log")
}

/// Whether a task gives a file this name in the directory that its flag `flag` names, without hyphens. The files of a
/// data set are told by their contents, [`is_data`] or not; the temporary ones and those that guard a directory are the
/// program's wherever they are. For `flag` may stand the kind of a [`subdirectory`].
pub fn is_ours(flag: &str, name: &str) -> bool {
    let is_final = match flag {
        "model_dir" | UNFINISHED => artifacts::names().any(|artifact| artifact == name),
        SNAPSHOTS => is_snapshot(name.strip_suffix(DAMAGED).unwrap_or(name)),
        "log_dir" => is_log(name),
        EVENTS => name.starts_with(tensorboard::PREFIX) && name.ends_with(tensorboard::SUFFIX),
        _ => false,
    };
    is_final || name.ends_with(TEMPORARY) || [lock::NAME, set::JOURNAL].contains(&name)
}

/// The kind of a directory that a task makes in the one that its flag `flag` names; none of one that no task makes.
pub fn subdirectory(flag: &str, name: &str) -> Option<&'static str> {
    match flag {
        "log_dir" if tensorboard::DIRECTORIES.contains(&name) => Some(EVENTS),
        "model_dir" if name == UNFINISHED => Some("model_dir"),
        _ => None,
    }
}

/// Whether one of the files of a known data set has this name.
pub fn is_data(name: &str) -> bool {
    SETS.iter().flat_map(|set| &set.files).any(|file| file.name == name)
}

/// Whether it is a log, or the result of `evaluate`.
fn is_log(name: &str) -> bool {
    let of_a_task = |pattern: String| {
        let (before, after) = pattern.split_once('\0').unwrap_or_default();
        let task = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        task.is_some_and(|task| !task.is_empty() && task.chars().all(|c| c.is_ascii_lowercase()))
    };
    of_a_task(log("\0")) || of_a_task(mllog("\0")) || name == metrics::ARTIFACT.file_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tasks_are_told_from_others() {
        let ours = [
            (
                "model_dir",
                "model.safetensors metrics.json report.html .model.onnx.x1Y2z3.mnist-part .mnist-lock .mnist-set",
            ),
            ("log_dir", "mlcube_mnist_train.log mllog_evaluate.log metrics.json"),
            (EVENTS, "events.out.tfevents.1.h.2.0.mnist"),
            ("log_dir", ".mllog_train.log.abc.mnist-part"),
            ("data_dir", ".t10k-labels-idx1-ubyte.abc.mnist-part"),
            (
                "snapshots",
                "epoch-003.safetensors epoch-003.safetensors.damaged epoch-1000.safetensors .epoch-004.safetensors.abc.mnist-part",
            ),
            ("unfinished", "model.safetensors metrics.json"),
        ];
        let others = [
            ("model_dir", "notes.txt model.safetensors.bak my-model.onnx mllog_train.log MODEL.ONNX model.onnx.part"),
            (
                "log_dir",
                "mllog_.log mllog_my-run.log train.log parameters.yaml .other.abc.part events.out.tfevents.1.h.2.0.mnist",
            ),
            (EVENTS, "events.out.tfevents.1.h.2.0.v2 mllog_train.log"),
            ("data_dir", "t10k-labels-idx1-ubyte metrics.json .model.onnx.abc.part"),
            ("other_dir", "model.safetensors"),
            (
                "snapshots",
                "epoch-3.safetensors mine.damaged epoch-003.safetensors.bak epoch-+03.safetensors model.safetensors",
            ),
            ("model_dir", "epoch-003.safetensors snapshots"),
            ("unfinished", "epoch-003.safetensors notes.txt"),
        ];
        for (expected, cases) in [(true, &ours[..]), (false, &others[..])] {
            for (flag, name) in cases.iter().flat_map(|(flag, names)| names.split(' ').map(move |name| (flag, name))) {
                assert_eq!(is_ours(flag, name), expected, "{name} in {flag}");
            }
        }
    }
}
