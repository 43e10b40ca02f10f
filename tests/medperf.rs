//! MedPerf's containers: the configurations in medperf/, and their tasks with the arguments, mounts and rights that
//! MedPerf gives them, without a container and in one.

mod faults;
mod in_containers;
mod pictures;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use mnist::cli::Cli;
use mnist::data::dataset::Dataset;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::{Ended, Sandbox, copy_program, end, gzip, is_root, root, skipped, tmpfs};

/// Who runs the containers, if the tests run as root.
pub const USER: u32 = 1000;

const IMAGES: &str = "t10k-images-idx3-ubyte";
const LABELS: &str = "t10k-labels-idx1-ubyte";
const HASH: &str = "t10k-images-idx3-ubyte.sha256";

// ---- configurations

/// A container_config.yaml, as MedPerf reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub container_type: String,
    pub image: String,
    pub tasks: BTreeMap<String, ContainerTask>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerTask {
    pub run_args: RunArgs,
    pub input_volumes: BTreeMap<String, Volume>,
    #[serde(default)]
    pub output_volumes: BTreeMap<String, Volume>,
}

/// Of those that MedPerf allows, the one that is used here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunArgs {
    pub command: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub mount_path: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// The containers by their roles.
pub fn containers() -> BTreeMap<&'static str, Container> {
    let read = |role| {
        let text = fs::read_to_string(root().join("medperf").join(role).join("container_config.yaml")).unwrap();
        (role, serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{role}: {error}")))
    };
    ["data_preparator", "model", "evaluator"].map(read).into()
}

/// Volumes, and where they are in a [`Trial`].
pub type Mounts = [(&'static str, &'static str)];

/// The volumes of each task as MedPerf calls it: names from `commands/dataset` and `commands/execution` of its client, and
/// paths in a [`Trial`].
pub const CALLS: [(&str, &str, &Mounts); 5] = [
    (
        "data_preparator",
        "prepare",
        &[("data_path", "raw"), ("labels_path", "raw"), ("output_path", "data"), ("output_labels_path", "labels")],
    ),
    ("data_preparator", "sanity_check", &[("data_path", "data"), ("labels_path", "labels")]),
    (
        "data_preparator",
        "statistics",
        &[("data_path", "data"), ("labels_path", "labels"), ("output_path", "statistics/statistics.yaml")],
    ),
    ("model", "infer", &[("data_path", "data"), ("output_path", "predictions"), ("additional_files", "files")]),
    (
        "evaluator",
        "evaluate",
        &[("predictions", "predictions"), ("labels", "labels"), ("output_path", "results/results.yaml")],
    ),
];

#[test]
fn each_role_has_the_tasks_and_volumes_that_medperf_asks_for() {
    let containers = containers();
    let mut asked = BTreeMap::<_, BTreeSet<_>>::new();
    for (role, name, mounts) in CALLS {
        asked.entry(role).or_default().insert(name);
        let task = &containers[role].tasks[name];
        let volumes = task.input_volumes.iter().chain(&task.output_volumes);
        let mut given: BTreeMap<_, _> = volumes.map(|(key, volume)| (key.as_str(), &volume.mount_path)).collect();
        assert_eq!(given.keys().copied().collect::<BTreeSet<_>>(), mounts.iter().map(|(key, _)| *key).collect());

        // Each volume is a flag of the command, whose default is where the volume is mounted.
        let mut command = Cli::command();
        for word in task.run_args.command.split(' ') {
            command = command.find_subcommand(word).unwrap_or_else(|| panic!("{word}")).clone();
        }
        assert_eq!(command.get_name(), name);
        for flag in command.get_arguments() {
            let [default] = flag.get_default_values() else { panic!("{}", flag.get_id()) };
            assert_eq!(given.remove(flag.get_long().unwrap()).map(|path| path.as_str()), default.to_str());
        }
        assert!(given.is_empty(), "{given:?}");
        for (key, volume) in task.input_volumes.iter().chain(&task.output_volumes) {
            let kind = if volume.mount_path.ends_with(".yaml") { "file" } else { "directory" };
            assert_eq!(volume.kind, kind, "{key}");
        }
    }
    for (role, container) in containers {
        assert_eq!((&*container.container_type, &*container.image), ("DockerImage", "mlcommons/mlcube:mnist"));
        assert_eq!(container.tasks.keys().map(String::as_str).collect::<BTreeSet<_>>(), asked[role]);
    }
}

// ---- all tasks

/// A directory with raw data in `raw` and a model in `files`. All of it belongs to the plain user.
pub struct Trial {
    pub sandbox: Sandbox,
}

impl Trial {
    pub fn new() -> Self {
        let sandbox = Sandbox::with_data();
        sandbox.train("--train_epochs=3").done();
        for directory in ["raw", "files"] {
            fs::create_dir(sandbox.path(directory)).unwrap();
        }
        fs::copy(sandbox.path("data").join(IMAGES), sandbox.path("raw").join(IMAGES)).unwrap();
        let labels = fs::read(sandbox.path("data").join(LABELS)).unwrap();
        sandbox.write(&format!("raw/{LABELS}.gz"), gzip(&labels));
        fs::rename(sandbox.path("data"), sandbox.path("known")).unwrap();
        fs::copy(sandbox.path("model/model.safetensors"), sandbox.path("files/model.safetensors")).unwrap();
        copy_program(&sandbox.path("mnist"));
        let trial = Self { sandbox };
        trial.each("", &|path| give_away(path));
        trial
    }

    /// The user that runs the containers.
    pub fn user(&self) -> (u32, u32) {
        let sandbox = fs::metadata(self.sandbox.path("")).unwrap();
        (sandbox.uid(), sandbox.gid())
    }

    /// Visits all below `directory`.
    fn each(&self, directory: &str, visit: &dyn Fn(&Path)) {
        let mut left = vec![self.sandbox.path(directory)];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            visit(&path);
        }
    }

    /// Makes what MedPerf makes before it runs a task: directories of outputs, and empty files.
    pub fn make_outputs(&self, task: &ContainerTask, mounts: &Mounts) {
        for (key, volume) in &task.output_volumes {
            let path = self.host(key, mounts);
            let directory = if volume.kind == "file" { path.parent().unwrap() } else { &path };
            fs::create_dir_all(directory).unwrap();
            give_away(directory);
            if volume.kind == "file" && !path.exists() {
                fs::write(&path, "").unwrap();
                give_away(&path);
            }
        }
    }

    /// Where a volume is on this machine.
    pub fn host(&self, key: &str, mounts: &Mounts) -> PathBuf {
        let (_, path) = mounts.iter().find(|(name, _)| *name == key).unwrap();
        self.sandbox.path(path)
    }

    /// Calls every task by `run`, then looks at what they wrote.
    #[track_caller]
    pub fn all_tasks(&self, run: impl Fn(&ContainerTask, &str, &Mounts) -> Ended) {
        let containers = containers();
        for (role, name, mounts) in CALLS {
            let task = &containers[role].tasks[name];
            self.make_outputs(task, mounts);
            let inputs: Vec<_> = task.input_volumes.keys().map(|key| self.host(key, mounts)).collect();
            let before = contents(&inputs);
            run(task, name, mounts).done();
            assert!(contents(&inputs) == before, "{name} changed an input");
        }
        self.is_scored();
        self.each("", &|path| {
            let found = fs::symlink_metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), self.user(), "{}", path.display());
        });
    }

    /// The outputs are right: prepared data is the raw data, and the results are those of `mnist train`.
    #[track_caller]
    fn is_scored(&self) {
        assert_eq!(self.sandbox.files("data"), [IMAGES]);
        assert_eq!(self.sandbox.files("labels"), [IMAGES.to_owned() + ".sha256", LABELS.into()]);
        let same = |one: &str, other: &str| {
            fs::read(self.sandbox.path(one)).unwrap() == fs::read(self.sandbox.path(other)).unwrap()
        };
        assert!(same(&format!("data/{IMAGES}"), &format!("known/{IMAGES}")));
        assert!(same(&format!("labels/{LABELS}"), &format!("known/{LABELS}")));

        let yaml = |path: &str| serde_yaml::from_str::<Value>(&self.sandbox.read(path)).unwrap();
        let statistics = yaml("statistics/statistics.yaml");
        let dataset = Dataset::load(&self.sandbox.path("known")).unwrap();
        assert_eq!(statistics["num_cases"], 100);
        let threes = dataset.test.labels.iter().filter(|label| **label == 3).count();
        assert_eq!(statistics["labels_count"]["3"], threes);
        assert_eq!((&statistics["image_size"], &statistics["source"]), (&json!([28, 28]), &json!("unknown")));
        let mean = dataset.test.pixels.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / 255.0 / 78_400.0;
        assert!((statistics["pixels"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);

        let metrics = self.sandbox.metrics("model");
        let (results, test) = (yaml("results/results.yaml"), &metrics["test"]);
        for key in ["images", "accuracy", "confusion"] {
            assert_eq!(results[key], test[key], "{key}");
        }
        assert_eq!(results["classes"], metrics["classes"]);
        for key in ["loss", "calibration_error"] {
            let [found, expected] = [&results[key], &test[key]].map(|value| value.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-5 * expected, "{key}: {found} for {expected}");
        }
        let predictions: Value = serde_json::from_str(&self.sandbox.read("predictions/predictions.json")).unwrap();
        assert_eq!(
            (&predictions["model_sha256"], &results["model_sha256"]),
            (&metrics["model_sha256"], &metrics["model_sha256"])
        );
        assert_eq!(predictions["images_sha256"], metrics["data"]["files"][2]["sha256"]);
    }

    /// Runs a task without a container, as the plain user, with flags for the volumes.
    pub fn native(&self, task: &str, mounts: &Mounts) -> Ended {
        let flags = mounts.iter().map(|(key, path)| format!("--{key}={}", self.sandbox.path(path).display()));
        let mut command = Command::new(self.sandbox.path("mnist"));
        if is_root() {
            command = Command::new("setpriv");
            command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
            command.arg(self.sandbox.path("mnist"));
        }
        command
            .args(["medperf", task])
            .args(flags)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        end(command.current_dir("/"))
    }

    /// A trial in which the data is prepared and classified.
    fn inferred() -> Self {
        let trial = Self::new();
        for (_, name, mounts) in &CALLS[..4] {
            trial.native(name, mounts).done();
        }
        trial
    }

    /// Runs a task with the volumes that MedPerf gives it, of which `changed` are others.
    fn call(&self, name: &str, changed: &Mounts) -> Ended {
        let (_, _, mounts) = CALLS.iter().find(|(_, task, _)| *task == name).unwrap();
        let other = |key: &str| changed.iter().find(|(name, _)| *name == key).map(|(_, path)| *path);
        let mounts: Vec<_> = mounts.iter().map(|(key, path)| (*key, other(key).unwrap_or(path))).collect();
        self.native(name, &mounts)
    }

    /// Expects that a task fails with this message, in which `@` stands for the directory of the trial, and a hint.
    #[track_caller]
    fn refuses(&self, name: &str, changed: &Mounts, message: &str) {
        let ended = self.call(name, changed);
        let directory = self.sandbox.path("").display().to_string();
        let (_, error) = ended.stderr.split_once("error: ").unwrap_or_else(|| panic!("no error in {ended:#?}"));
        let (error, hint) = error.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint in {error}"));
        assert_eq!(error.replace(&directory, "@/"), message);
        assert!(!hint.is_empty() && ended.stdout.is_empty(), "{ended:#?}");
        assert_eq!(ended.code, Some(if message.starts_with("--") { 2 } else { 1 }));
    }
}

/// Gives a path to the plain user, if the tests run as root.
fn give_away(path: &Path) {
    if is_root() {
        lchown(path, Some(USER), Some(USER)).unwrap();
    }
}

/// The names, contents and times of all files in `directories`.
fn contents(directories: &[PathBuf]) -> Vec<(PathBuf, Vec<u8>, i64)> {
    let mut found = vec![];
    for directory in directories {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
            found.push((entry.path(), fs::read(entry.path()).unwrap(), entry.metadata().unwrap().mtime_nsec()));
        }
    }
    found.sort();
    found
}

#[test]
fn all_tasks_run_as_a_user_who_cannot_write_their_inputs() {
    let trial = Trial::new();
    trial.all_tasks(|task, name, mounts| {
        let inputs: Vec<_> = task.input_volumes.keys().map(|key| trial.host(key, mounts)).collect();
        let set =
            |mode| inputs.iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
        set(0o555);
        let ended = trial.native(name, mounts);
        set(0o755);
        ended
    });
    // The same again replaces the outputs.
    trial.all_tasks(|_, name, mounts| trial.native(name, mounts));
    // `sha256sum` reads the hash.
    let mut command = Command::new("sha256sum");
    end(command
        .arg("--check")
        .arg(trial.sandbox.path(format!("labels/{HASH}")))
        .current_dir(trial.sandbox.path("data")))
    .done();
}

/// A container's engine mounts the file alone: its directory cannot be written, and the file not be replaced.
#[test]
fn a_mounted_file_is_filled_in_place() {
    if !is_root() {
        return skipped("only root can mount a file");
    }
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    trial.sandbox.write("file", "num_cases: old and longer than what will be written: ".repeat(100));
    for directory in ["closed", "empty"] {
        fs::create_dir(trial.sandbox.path(directory)).unwrap();
    }
    trial.sandbox.write("closed/statistics.yaml", "");
    give_away(&trial.sandbox.path("file"));
    let target = trial.sandbox.path("closed/statistics.yaml");
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(trial.sandbox.path("file")).arg(&target).status().unwrap()
    };
    if !mount(&["--bind"]).success() {
        return skipped("this user may not mount a file");
    }
    let statistics = [("output_path", "closed/statistics.yaml")];
    let failed = trial.call("statistics", &[statistics[0], ("labels_path", "empty")]);
    let left = trial.sandbox.read("file");
    trial.sandbox.write("file", "thesis");
    let refused = trial.call("statistics", &statistics);
    let kept = trial.sandbox.read("file");
    trial.sandbox.write("file", "");
    let ended = trial.call("statistics", &statistics);
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    assert_eq!((failed.code, &*left), (Some(1), "")); // an old result would look new
    assert_eq!((refused.code, &*kept), (Some(1), "thesis"));
    assert_eq!(trial.sandbox.read("file"), ended.done().stdout);
    assert_eq!(trial.sandbox.read("closed/statistics.yaml"), "");
    assert_eq!(trial.sandbox.files("closed"), ["statistics.yaml"]);
}

#[test]
fn an_output_that_cannot_be_written_is_named_and_left_as_it_was() {
    let trial = Trial::inferred();
    let Some(mount) = tmpfs(&trial.sandbox.path("full"), "size=64k") else { return };
    let old = [("statistics", "full/statistics.yaml", "num_cases: 1"), ("evaluate", "full/results.yaml", "images: 1")];
    for (_, path, text) in old {
        trial.sandbox.write(path, text);
    }
    mount.make_read_only();
    for (name, key, path) in [
        ("prepare", "output_path", "full"),
        ("prepare", "output_labels_path", "full"),
        ("infer", "output_path", "full"),
    ] {
        let message = "@/full: cannot write into the directory: Read-only file system (os error 30)";
        trial.refuses(name, &[(key, path)], message);
    }
    for (name, path, text) in old {
        let message = format!("@/{path}: cannot write: Read-only file system (os error 30)");
        trial.refuses(name, &[("output_path", path)], &message);
        assert_eq!(trial.sandbox.read(path), text);
    }
}
