//! All errors of the program. Each names its place, the expected and the found, and the next step.

use std::io;
use std::path::{Path, PathBuf};

use crate::text::{self, Problem, escaped, one_of, quoted};

mod cube;
mod medperf;
pub use cube::{CubeError, beside, found_at};
pub use medperf::MedPerfError;

/// Shorthand for results whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The purpose of the memory in which a network is trained, see [`Error::Memory`].
pub const TRAINING: &str = "training";
/// The purpose of the memory in which its files are made.
pub const FILES: &str = "the files of the model";

/// One variant per cause. `Display` names the file, field or URL in one line; [`Error::hint`] adds the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message explains each field")]
pub enum Error {
    // ---- files and directories
    /// The operating system refused to read, write, create or rename.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `create the directory`, ...
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A finished file that could not get its name. It is not lost.
    #[error("{problem}; the new contents are kept as {}", kept.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Kept { problem: Box<Error>, kept: Vec<PathBuf> },
    /// Another process writes the directory.
    #[error("{}: {holder} is writing there", directory.display())]
    InUse { directory: PathBuf, holder: String },
    /// The lock of a directory that this process does not hold any more.
    #[error("{}: expected the lock of this process, found {found}", path.display())]
    LockLost { path: PathBuf, found: &'static str },
    /// Something of a user's in the place of a file that only this program writes.
    #[error("{}: expected a file of this program with one name, found {found}", path.display())]
    InTheWay { path: PathBuf, found: String },
    /// A user's model, or something else, in the place of the directory for an unfinished one.
    #[error("{}: expected the directory of an unfinished training, found {found}", path.display())]
    NotUnfinished { path: PathBuf, found: &'static str },
    /// A file system without rename, and a file in the way.
    #[error("{}: is there already, and this file system cannot replace files", path.display())]
    NoRename { path: PathBuf },
    /// A link that leads nowhere, in place of a directory.
    #[error("{}: expected a directory, found a link to {}, which is not there", path.display(), target.display())]
    DanglingLink { path: PathBuf, target: PathBuf },

    // ---- memory
    /// Less memory than the work needs.
    #[error("{purpose}: expected {} of memory, found {}", text::bytes(*expected), text::bytes(*found))]
    Memory { purpose: String, expected: u64, found: u64 },

    // ---- data
    /// DATA_DIR is not there.
    #[error("{}: expected the directory with the data, found none", data_dir.display())]
    NoDataDir { data_dir: PathBuf },
    /// One of the four files is not in DATA_DIR in any of its forms.
    #[error(
        "{}: {name} is missing (looked for it and for {name}.gz, under their other names and in MNIST/raw too)",
        data_dir.display()
    )]
    DataMissing { data_dir: PathBuf, name: String },
    /// A file in which the IDX format is broken.
    #[error("{}: {problem}", path.display())]
    Idx { path: PathBuf, problem: String },
    /// A file that is sound as far as it was read, but not of a set that is known.
    #[error("{}: {problem}", path.display())]
    OtherSet { path: PathBuf, problem: String },
    /// A gzip file that is cut or corrupt.
    #[error("{}: cannot decompress: {problem}", path.display())]
    Gzip { path: PathBuf, problem: String },
    /// Files of two known sets, as a download that was killed at the wrong moment may leave them.
    #[error("{}: expected the files of one data set, found {}", data_dir.display(), of_sets(files))]
    MixedData { data_dir: PathBuf, files: Vec<(&'static str, &'static str)> },
    /// Images and labels that do not belong together.
    #[error(
        "{}: has {images} images, but {} has {labels} labels: expected equal numbers",
        images_path.display(), labels_path.display()
    )]
    CountsDiffer { images_path: PathBuf, images: u32, labels_path: PathBuf, labels: u32 },

    // ---- models
    /// No model where one was expected.
    #[error("{}: has no model: expected a file model.safetensors", model_dir.display())]
    NoModel {
        model_dir: PathBuf,
        /// The directory in it that has the model of an unfinished training.
        unfinished: Option<PathBuf>,
    },
    /// The metrics of `evaluate` would replace those of `train`.
    #[error("{}: expected a directory for logs alone, found model.safetensors there", log_dir.display())]
    LogsBesideModel { log_dir: PathBuf },
    /// A model file that is not what `train` writes.
    #[error("{}: {problem}", path.display())]
    Model { path: PathBuf, problem: String },

    /// A snapshot that a training cannot go on from.
    #[error("{}: {problem}", path.display())]
    Snapshot {
        path: PathBuf,
        problem: String,
        /// The next step.
        next: String,
    },

    // ---- training
    /// The threads of an engine could not be started.
    #[error("cannot start {threads} threads: {problem}")]
    Threads { threads: usize, problem: String },
    /// The environment names an instruction set that this processor lacks.
    #[error(
        "the environment variable {variable}: expected one of {}, which this processor has, found {asked}",
        available.join(", ")
    )]
    InstructionSet { variable: &'static str, asked: String, available: Vec<&'static str> },
    /// The device failed.
    #[error("the device failed: {problem}")]
    Device { problem: String },
    /// An engine or a device that this build of the program lacks.
    #[error("{parameter}: expected a program built with the feature {feature}, found one without")]
    NotBuiltIn { parameter: &'static str, feature: &'static str },
    /// An engine cannot train this network or on this device.
    #[error("engine {engine}: {reason}")]
    Unsupported { engine: &'static str, reason: String },
    /// Products of bf16 numbers are one engine's, on the processor.
    #[error("precision: expected float32 for engine {engine} on device {device}, found bf16")]
    Precision { engine: &'static str, device: String },
    /// No adapter has the number or name given.
    #[error("device gpu: expected {asked}, found {}", if found.is_empty() { "no adapter at all".into() } else { one_of(found).replace(" or ", " and ") })]
    NoAdapter { asked: String, found: Vec<String> },
    /// There are not so many GPUs of one kind.
    #[error("gpus: expected {asked} of the GPU {kind}, found {there}; the adapters are {}", one_of(found).replace(" or ", " and "))]
    TooFewGpus { asked: usize, kind: String, there: usize, found: Vec<String> },
    /// The loss or a weight is infinite or NaN.
    #[error("training diverged: {what} of epoch {epoch} is {value}")]
    Diverged { epoch: u32, what: &'static str, value: f64 },

    /// A validation split that the training images do not allow.
    #[error("validation: {part} of the {images} training images {problem}")]
    Validation { part: f64, images: usize, problem: String },
    /// `max_seconds` are over.
    #[error("stopped after {} s, as max_seconds says", text::number(*seconds))]
    OutOfTime { seconds: f64 },
    /// The accuracy that was asked for was not reached.
    #[error("target_accuracy: expected a {split} accuracy of {}", text::different_percents(*expected, *found).join(", found "))]
    TargetMissed { split: &'static str, expected: f64, found: f64 },
    /// A model to begin with that does not fit the parameters.
    #[error("{}: expected a model with {expected}, as the parameters say, found {found}", path.display())]
    OtherNetwork { path: PathBuf, expected: String, found: String },

    // ---- prediction
    /// A file that is no image of a digit.
    #[error("{}: {problem}", path.display())]
    Picture { path: PathBuf, problem: String },
    /// Some images could not be read; their errors are printed before this one.
    #[error("{unread} of {images} images could not be read")]
    Pictures { unread: usize, images: usize },
    /// `--strict` and answers that are doubtful; the answers are printed.
    #[error("{doubtful} of {images} answers {} doubtful", if *doubtful == 1 { "is" } else { "are" })]
    Doubtful { doubtful: usize, images: usize },

    // ---- parameters
    /// No parameters file where one was expected.
    #[error("{}: cannot read: {source}", path.display())]
    NoParameters { path: PathBuf, source: io::Error },
    /// A parameters file that cannot be used as it is.
    #[error("{}", in_file(path, problems).join("; "))]
    ParametersFile { path: PathBuf, problems: Vec<Problem> },
    /// Something stands where a file would go.
    #[error("{}: expected a new file or an earlier one of this program, found {found}", path.display())]
    Occupied { path: PathBuf, found: &'static str },
    /// Flags that contradict each other or the file.
    #[error("with the parameters given as flags{}: {problem}", text::and_in(file.as_deref()))]
    ParameterFlags { file: Option<PathBuf>, problem: String },
    /// An argument that does not lead to what it should.
    #[error("--{flag}={}: expected {expected}, found {found}", text::repeated(&given.display().to_string()))]
    Argument { flag: &'static str, given: PathBuf, expected: &'static str, found: &'static str, next: Option<String> },

    // ---- download
    /// A mirror that is neither a URL nor a directory. `given` shows nothing that may be a login.
    #[error("mirror {given}: expected a URL with http:// or https://, or a directory, found {found}")]
    Mirror { given: String, found: String },
    /// Files that no mirror has, with the answer of each mirror.
    #[error("{}", unfetched(failures))]
    Download { failures: Vec<Unfetched> },
    /// The same where DATA_DIR holds some files of MNIST, so that synthetic data cannot replace it.
    #[error("{}", unfetched(failures))]
    DownloadInPart { data_dir: PathBuf, failures: Vec<Unfetched> },
    /// Synthetic data would overwrite MNIST.
    #[error("{}: holds MNIST itself ({file}), which the synthetic stand-in does not replace", directory.display())]
    RealData { directory: PathBuf, file: String },

    // ---- the cube
    /// Of the runner.
    #[error(transparent)]
    Cube(#[from] CubeError),
    /// Of MedPerf's tasks.
    #[error(transparent)]
    MedPerf(#[from] MedPerfError),

    // ---- the run itself
    /// A signal arrived. Files written so far are whole.
    #[error("stopped by {}", signal_name(*signal))]
    Interrupted { signal: i32 },
}

/// A file that no mirror had, with each mirror's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfetched {
    /// The file's classic name.
    pub file: String,
    /// Each mirror, as shown to users, and its answer, in the order of the requests.
    pub answers: Vec<(String, String)>,
}

/// A signal in a message.
fn signal_name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// The problems of the file at `path`, each with its line.
fn in_file(path: &Path, problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| problem.in_file(path)).collect()
}

/// Files, each with the set that it is of.
fn of_sets(files: &[(&str, &str)]) -> String {
    files.iter().map(|(file, set)| format!("{file} of {set}")).collect::<Vec<_>>().join(", ")
}

/// The answers of the mirrors. Files with equal answers share one list.
fn unfetched(failures: &[Unfetched]) -> String {
    let alike = failures.chunk_by(|a, b| a.answers == b.answers).map(|alike| {
        let files: Vec<&str> = alike.iter().map(|failure| failure.file.as_str()).collect();
        let answer = |(mirror, answer): &(String, String)| format!("\n  {}: {}", escaped(mirror), escaped(answer));
        let answers: String = alike[0].answers.iter().map(answer).collect();
        format!("{}: no mirror has {}{answers}", files.join(", "), if files.len() == 1 { "it" } else { "them" })
    });
    alike.collect::<Vec<_>>().join("\n")
}

impl Error {
    /// The message, a text for each of its lines; none where all is said. Only these breaks are meant; any other comes from a name or an answer.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Error::Download { failures } | Error::DownloadInPart { failures, .. } => {
                unfetched(failures).lines().map(String::from).collect()
            }
            Error::ParametersFile { path, problems } => in_file(path, problems),
            Error::Cube(CubeError::Told { .. }) => vec![],
            _ => vec![self.to_string()],
        }
    }

    /// Returns a function that wraps an I/O error with what was tried and where, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// The next step, where there is a better one than the message itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Cube(error) => error.hint(),
            Error::MedPerf(error) => error.hint(),
            Error::Argument { next, .. } => next.clone(),
            _ => self.data_hint().or_else(|| self.training_hint()).or_else(|| self.download_hint()),
        }
    }

    /// For files, data and models.
    fn data_hint(&self) -> Option<String> {
        match self {
            Error::Io { action: "start", source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                Some("the system starts no more processes; see `ulimit -u` and the container's pids.max".into())
            }
            Error::NoParameters { path, .. } => beside(path),
            // No disk.
            Error::Io { path, .. } if path.as_os_str() == "stdout" => None,
            Error::Io { source, .. } => io_hint(source).map(str::to_string),
            Error::Kept { problem, .. } if matches!(**problem, Error::Occupied { .. }) => Some(
                "move that file elsewhere, then the kept ones into its directory, without the ending `.kept`".into(),
            ),
            Error::Kept { problem, .. } => problem.hint(),
            Error::InUse { .. } => Some("wait until it has ended, or choose other directories".into()),
            Error::LockLost { .. } => {
                Some("see who works in that directory, then bring the new files to where they belong".into())
            }
            Error::InTheWay { .. } | Error::NotUnfinished { .. } => {
                Some("move it elsewhere, or choose another directory".into())
            }
            Error::Occupied { .. } => Some("choose another name or directory".into()),
            Error::NoRename { .. } => Some("choose an empty directory, or one on another file system".into()),
            Error::DanglingLink { .. } => Some("make the directory that it leads to, or give another one".into()),
            Error::Memory { purpose, .. } => {
                let less = match purpose.as_str() {
                    TRAINING => "take fewer hidden units or a smaller batch_size, or ",
                    FILES => "take fewer hidden units, or ",
                    _ => "",
                };
                let limit = "the limit may be that of `ulimit -v`, of the container, or the machine's";
                Some(format!("{less}give the program more memory; {limit}"))
            }
            Error::MixedData { data_dir, .. } => {
                Some(format!("make them whole with `mnist download --data_dir={}`", quoted(data_dir)))
            }
            Error::NoDataDir { data_dir } | Error::DataMissing { data_dir, .. } => {
                Some(format!("get the data with `mnist download --data_dir={}`", quoted(data_dir)))
            }
            Error::Idx { .. } | Error::Gzip { .. } => {
                Some("bring the file again, or run `mnist download`, which keeps other files under another name".into())
            }
            Error::LogsBesideModel { .. } => Some(
                "choose another --log_dir: metrics.json of the evaluation would replace that of the training".into(),
            ),
            Error::OtherSet { .. } | Error::CountsDiffer { .. } => Some(
                "the file seems to be of another data set: leave it there, and give MNIST a directory of its own with \
                 --data_dir=DIR; `mnist download` brings it. Data of your own needs images of 28 x 28 pixels and for each \
                 a label from 0 to 9"
                    .into(),
            ),
            Error::NoModel { model_dir, unfinished } => Some(model_hint(model_dir, unfinished.as_deref())),
            Error::Model { path, .. } => {
                let directory = path.parent().unwrap_or(path);
                Some(format!(
                    "bring the right file back, or move this one away and train with `mnist train --model_dir={}`",
                    quoted(directory)
                ))
            }
            _ => None,
        }
    }

    /// For engines and devices.
    fn training_hint(&self) -> Option<String> {
        match self {
            Error::Snapshot { next, .. } => Some(next.clone()),
            Error::Diverged { .. } => Some("try a smaller learning_rate".into()),
            Error::Validation { .. } => {
                Some("set validation to a smaller share, such as 0.1, or a smaller number of images".into())
            }
            Error::OutOfTime { .. } => Some("give more max_seconds: by then no model was evaluated".into()),
            Error::TargetMissed { .. } => {
                Some("train more epochs, or with other parameters".into())
            }
            Error::OtherNetwork { .. } => Some("set hidden_layers and ensemble to those of the model".into()),
            Error::InstructionSet { .. } => Some("unset it, and the fastest is taken".into()),
            Error::NotBuiltIn { feature, .. } => Some(format!(
                "build it with `cargo build --release --features {feature}`, use the container image, or set {}",
                if *feature == "burn" { "engine to auto" } else { "device to cpu" }
            )),
            Error::TooFewGpus { there, .. } => {
                Some(format!("set gpus to {there} or less, or to all; a container has the GPUs that its platform file gives it"))
            }
            Error::Unsupported { engine: "burn", .. } => Some("set engine to fused, or gpus to 1".into()),
            Error::Unsupported { .. } => {
                Some("set engine to burn, in a program built with `cargo build --release --features burn`".into())
            }
            Error::Precision { .. } => Some("set engine to auto and device to cpu, or precision to float32".into()),
            Error::NoAdapter { .. } => Some(
                "see `mnist devices`; check the GPU's driver and the Vulkan loader (`vulkaninfo --summary` must list the \
                 GPU); in Docker give --gpus all (NVIDIA_DRIVER_CAPABILITIES must contain graphics), in Singularity --nv; \
                 a software adapter must be asked for by its name, as in gpu:llvmpipe"
                    .into(),
            ),
            Error::Device { .. } => {
                Some("try a smaller batch_size or fewer hidden units if memory ran out, else device: cpu".into())
            }
            Error::Threads { .. } => Some("set threads to a smaller number".into()),
            _ => None,
        }
    }

    /// For downloads.
    fn download_hint(&self) -> Option<String> {
        match self {
            Error::Download { .. } => Some(
                "put the files, plain or gzipped, into the data directory by hand, name a mirror of your own with \
                 --mirror=URL_OR_DIRECTORY (for a task of the cube, in MNIST_MIRROR), or draw a stand-in with \
                 `mnist download --synthetic`; behind a proxy, set https_proxy"
                    .to_string(),
            ),
            Error::DownloadInPart { data_dir, .. } => Some(format!(
                "{} holds a part of MNIST: put the rest there by hand, plain or gzipped, name a mirror of your own with \
                 --mirror=URL_OR_DIRECTORY, or call `mnist demo` in another directory for synthetic digits; behind a \
                 proxy, set https_proxy",
                data_dir.display()
            )),
            Error::RealData { .. } => Some("give the stand-in another directory with --data_dir=DIR".to_string()),
            _ => None,
        }
    }

    /// The process's exit code: 1 failed, 2 wrong arguments (most are clap's), 128 and the signal's number after a signal.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Interrupted { signal } => 128 + *signal as u8,
            Error::Cube(error) => error.exit_code(),
            Error::Mirror { .. }
            | Error::InstructionSet { .. }
            | Error::ParameterFlags { .. }
            | Error::Argument { .. } => 2,
            _ => 1,
        }
    }
}

/// Where a directory has no model.
fn model_hint(model_dir: &Path, unfinished: Option<&Path>) -> String {
    let is_empty = || model_dir.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    if let Some(directory) = unfinished {
        format!("give {}, which has one", quoted(directory))
    } else if model_dir.is_file() {
        let directory = model_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        format!("give the directory of a model, such as {}", quoted(directory.unwrap_or(Path::new("."))))
    } else if is_empty() {
        format!("train one first with `mnist train --model_dir={}`", quoted(model_dir))
    } else {
        // It may be a mistyped name.
        "name the directory of a trained model, or train one with `mnist train`".into()
    }
}

fn io_hint(error: &io::Error) -> Option<&'static str> {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
        return Some("this process may open no more files: raise `ulimit -n`");
    }
    Some(match error.kind() {
        io::ErrorKind::StorageFull => "free some space on that disk, or choose another directory",
        io::ErrorKind::FileTooLarge => "files may not grow beyond `ulimit -f`: raise it, or choose another file system",
        io::ErrorKind::QuotaExceeded => "free some of your quota, or choose another directory",
        io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a file system that can be written",
        io::ErrorKind::PermissionDenied => "check the owner and permissions, or choose another directory",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_ends_what_the_user_has() {
        let hints =
            [include_str!("mod.rs"), include_str!("cube.rs"), include_str!("medperf.rs")].map(|source: &str| {
                let (_, hints) = source.split_once(" fn hint").unwrap();
                hints.split_once(" fn exit_code").map_or(hints, |(hints, _)| hints).to_string()
            });
        let hints = hints.concat();
        let destructive = ["remove", "delete", "rm", "clear", "overwrite", "erase"];
        let words = hints.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        let found: Vec<String> = words.filter(|word| destructive.contains(&word.as_str())).collect();
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn only_the_memory_of_a_training_and_of_its_files_depends_on_its_parameters() {
        let hint = |purpose: &str| Error::Memory { purpose: purpose.into(), expected: 2, found: 1 }.hint().unwrap();
        assert!(hint(TRAINING).starts_with("take fewer hidden units or a smaller batch_size, or give the program"));
        assert!(hint(FILES).starts_with("take fewer hidden units, or give the program"));
        for purpose in ["the network", "train-images-idx3-ubyte", "drawing the digits"] {
            assert!(hint(purpose).starts_with("give the program more memory; the limit may be "), "{purpose}");
        }
    }

    #[test]
    fn signals_become_exit_codes() {
        assert_eq!(Error::Interrupted { signal: 2 }.exit_code(), 130);
        assert_eq!(Error::Interrupted { signal: 15 }.exit_code(), 143);
    }

    #[test]
    fn an_answer_adds_no_line_to_a_message() {
        let answers = vec![("http://m\n".to_string(), "404\r\nforged\u{1b}[0m".to_string())];
        let error = Error::Download { failures: vec![Unfetched { file: "a".into(), answers }] };
        assert_eq!(error.lines(), ["a: no mirror has it", r"  http://m\n: 404\r\nforged\u001b[0m"]);
        let error = Error::NoModel { model_dir: "a\nb".into(), unfinished: None };
        assert_eq!(error.lines().len(), 1);
    }
}
