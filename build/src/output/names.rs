//! The names of the files that tasks write, and how to tell them from a user's own.

use crate::data::sets::SETS;
use crate::output::artifact::Directory;
use crate::output::{artifacts, metrics};

/// The log file of `task`.
pub fn log(task: &str) -> String {
    format!("mlcube_mnist_{task}.log")
}

/// The MLPerf log of `task`.
pub fn mllog(task: &str) -> String {
    format!("mllog_{task}.log")
}

/// Whether a task gives a file this name in the directory that its flag `flag` names, without hyphens. The files of a
/// data set are told by their contents, [`is_data`] or not; their temporary files are the program's.
pub fn is_ours(flag: &str, name: &str) -> bool {
    let is_final = |name: &str| match flag {
        "model_dir" => is_artifact(Directory::Model, name),
        "log_dir" => is_artifact(Directory::Logs, name) || is_log(name),
        _ => false,
    };
    let is_target = |target| is_final(target) || flag == "data_dir" && is_data(target);
    is_final(name) || name.ends_with(".mnist-part") || target(name).is_some_and(is_target)
}

/// Whether one of the files of a known data set has this name.
pub fn is_data(name: &str) -> bool {
    SETS.iter().flat_map(|set| &set.files).any(|file| file.name == name)
}

fn is_artifact(directory: Directory, name: &str) -> bool {
    artifacts::ALL.iter().any(|artifact| artifact.directory == directory && artifact.file_name == name)
}

/// Whether it is a log, events for TensorBoard, or the result of `evaluate`.
fn is_log(name: &str) -> bool {
    let of_a_task = |pattern: String| {
        let (before, after) = pattern.split_once('\0').unwrap_or_default();
        let task = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        task.is_some_and(|task| !task.is_empty() && task.chars().all(|c| c.is_ascii_lowercase()))
    };
    of_a_task(log("\0"))
        || of_a_task(mllog("\0"))
        || name.starts_with("events.out.tfevents.")
        || name == metrics::ARTIFACT.file_name
}

/// The file that a temporary file would have become: it is named `.TARGET.RANDOM.part`.
fn target(temporary: &str) -> Option<&str> {
    let (target, _) = temporary.strip_prefix('.')?.strip_suffix(".part")?.rsplit_once('.')?;
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tasks_are_told_from_others() {
        let ours = [
            ("model_dir", "model.safetensors metrics.json report.html .model.onnx.x1Y2z3.part a.mnist-part"),
            ("log_dir", "mlcube_mnist_train.log mllog_evaluate.log events.out.tfevents.train metrics.json"),
            ("log_dir", ".mllog_train.log.abc.part"),
            ("data_dir", ".t10k-labels-idx1-ubyte.abc.part"),
        ];
        let others = [
            ("model_dir", "notes.txt model.safetensors.bak my-model.onnx mllog_train.log MODEL.ONNX model.onnx.part"),
            ("log_dir", "mllog_.log mllog_my-run.log train.log parameters.yaml .other.abc.part .part"),
            ("data_dir", "t10k-labels-idx1-ubyte metrics.json .model.onnx.abc.part"),
            ("other_dir", "model.safetensors"),
        ];
        for (expected, cases) in [(true, &ours[..]), (false, &others[..])] {
            for (flag, name) in cases.iter().flat_map(|(flag, names)| names.split(' ').map(move |name| (flag, name))) {
                assert_eq!(is_ours(flag, name), expected, "{name} in {flag}");
            }
        }
    }
}
