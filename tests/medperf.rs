//! MedPerf's containers: the configurations in medperf/, and their tasks with the arguments, mounts and rights that
//! MedPerf gives them. Here the tasks run without a container; `containers.rs` runs them in one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use image::{GrayImage, ImageFormat};
use mnist::cli::Cli;
use mnist::data::dataset::Dataset;
use mnist::data::idx::{encode_images, encode_labels};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::{Ended, Sandbox, end, gzip, is_root, root, skipped, tmpfs};

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

/// The volumes with which MedPerf calls each task: names from `commands/dataset/prepare.py` and
/// `commands/execution/container_execution.py` of its client, and paths in a [`Trial`].
pub const CALLS: [(&str, &str, &[(&str, &str)]); 5] = [
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
            let [default] = flag.get_default_values() else { panic!("{flag}") };
            assert_eq!(given.remove(flag.get_long().unwrap()).map(|path| path.as_str()), default.to_str(), "{flag}");
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

/// A directory with raw data in `raw` and a model in `files`, all of which belongs to the plain user.
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
        fs::copy(env!("CARGO_BIN_EXE_mnist"), sandbox.path("mnist")).unwrap();
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
    pub fn make_outputs(&self, task: &ContainerTask, mounts: &[(&str, &str)]) {
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
    pub fn host(&self, key: &str, mounts: &[(&str, &str)]) -> PathBuf {
        let (_, path) = mounts.iter().find(|(name, _)| *name == key).unwrap();
        self.sandbox.path(path)
    }

    /// Calls every task by `run`, then looks at what they wrote.
    #[track_caller]
    pub fn all_tasks(&self, run: impl Fn(&ContainerTask, &str, &[(&str, &str)]) -> Ended) {
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
        let same = |one: &str, other: &str| fs::read(self.sandbox.path(one)).unwrap() == fs::read(self.sandbox.path(other)).unwrap();
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
        assert_eq!((&predictions["model_sha256"], &results["model_sha256"]), (&metrics["model_sha256"], &metrics["model_sha256"]));
        assert_eq!(predictions["images_sha256"], metrics["data"]["files"][2]["sha256"]);
    }

    /// Runs a task without a container, as the plain user, with flags for the volumes.
    pub fn native(&self, task: &str, mounts: &[(&str, &str)]) -> Ended {
        let flags = mounts.iter().map(|(key, path)| format!("--{key}={}", self.sandbox.path(path).display()));
        let mut command = Command::new(self.sandbox.path("mnist"));
        if is_root() {
            command = Command::new("setpriv");
            command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
            command.arg(self.sandbox.path("mnist"));
        }
        command.args(["medperf", task]).args(flags).stdin(Stdio::null()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
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
    fn call(&self, name: &str, changed: &[(&str, &str)]) -> Ended {
        let (_, _, mounts) = CALLS.iter().find(|(_, task, _)| *task == name).unwrap();
        let other = |key: &str| changed.iter().find(|(name, _)| *name == key).map(|(_, path)| *path);
        let mounts: Vec<_> = mounts.iter().map(|(key, path)| (*key, other(key).unwrap_or(path))).collect();
        self.native(name, &mounts)
    }

    /// Expects that a task fails with this message, in which `@` stands for the directory of the trial, and a hint.
    #[track_caller]
    fn refuses(&self, name: &str, changed: &[(&str, &str)], message: &str) {
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
        let set = |mode| inputs.iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
        set(0o555);
        let ended = trial.native(name, mounts);
        set(0o755);
        ended
    });
    // The same again replaces the outputs.
    trial.all_tasks(|_, name, mounts| trial.native(name, mounts));
    // `sha256sum` reads the hash.
    let mut command = Command::new("sha256sum");
    end(command.arg("--check").arg(trial.sandbox.path(format!("labels/{HASH}"))).current_dir(trial.sandbox.path("data"))).done();
}

/// A container's engine mounts the file alone: its directory cannot be written, and the file not be replaced.
#[test]
fn a_mounted_file_is_filled_in_place() {
    if !is_root() {
        return skipped("only root can mount a file");
    }
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    trial.sandbox.write("file", "old and longer than what will be written: ".repeat(100));
    for directory in ["closed", "empty"] {
        fs::create_dir(trial.sandbox.path(directory)).unwrap();
    }
    trial.sandbox.write("closed/statistics.yaml", "");
    give_away(&trial.sandbox.path("file"));
    let target = trial.sandbox.path("closed/statistics.yaml");
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(trial.sandbox.path("file")).arg(&target).status().unwrap();
    if !mount(&["--bind"]).success() {
        return skipped("this user may not mount a file");
    }
    let statistics = [("output_path", "closed/statistics.yaml")];
    let ended = trial.call("statistics", &statistics);
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    assert_eq!(trial.sandbox.read("file"), ended.done().stdout);
    assert_eq!(trial.sandbox.read("closed/statistics.yaml"), "");
    assert_eq!(trial.sandbox.files("closed"), ["statistics.yaml"]);
}

#[test]
fn an_output_that_cannot_be_written_is_named_and_left_as_it_was() {
    let trial = Trial::inferred();
    let Some(mount) = tmpfs(&trial.sandbox.path("full"), "size=64k") else { return };
    trial.sandbox.write("full/results.yaml", "old");
    mount.make_read_only();
    for (name, key, path) in [
        ("prepare", "output_path", "full"),
        ("prepare", "output_labels_path", "full"),
        ("infer", "output_path", "full"),
    ] {
        let message = "@/full: cannot write into the directory: Read-only file system (os error 30)";
        trial.refuses(name, &[(key, path)], message);
    }
    for name in ["statistics", "evaluate"] {
        let message = "@/full/results.yaml: cannot write: Read-only file system (os error 30)";
        trial.refuses(name, &[("output_path", "full/results.yaml")], message);
    }
    assert_eq!(trial.sandbox.read("full/results.yaml"), "old");
}

// ---- pictures

/// The raw data of `trial` as pictures in `pictures`, with their labels in `pictures/labels.csv`.
fn draw(trial: &Trial) {
    let test = Dataset::load(&trial.sandbox.path("known")).unwrap().test;
    fs::create_dir_all(trial.sandbox.path("pictures/ward, 3")).unwrap();
    let mut list = String::from("file,label\n");
    for index in 0..test.len() {
        let name = format!("ward, 3/{index}.png");
        let mut bytes = Cursor::new(vec![]);
        GrayImage::from_raw(28, 28, test.image(index).to_vec()).unwrap().write_to(&mut bytes, ImageFormat::Png).unwrap();
        trial.sandbox.write(&format!("pictures/{name}"), bytes.into_inner());
        list += &format!("\"{name}\",{}\n", test.labels[index]);
    }
    trial.sandbox.write("pictures/labels.csv", list);
    trial.sandbox.write("pictures/README.txt", "no picture");
}

const PICTURES: [(&str, &str); 2] = [("data_path", "pictures"), ("labels_path", "pictures")];

#[test]
fn pictures_become_the_images_that_they_show() {
    let trial = Trial::new();
    draw(&trial);
    trial.call("prepare", &[]).done();
    let expected = contents(&[trial.sandbox.path("data"), trial.sandbox.path("labels")]);
    trial.call("prepare", &PICTURES).done();
    let found = contents(&[trial.sandbox.path("data"), trial.sandbox.path("labels")]);
    let bytes = |files: &[(PathBuf, Vec<u8>, i64)]| files.iter().map(|(path, bytes, _)| (path.clone(), bytes.clone())).collect::<Vec<_>>();
    assert!(bytes(&found) == bytes(&expected));
    trial.call("sanity_check", &[]).done();
}

#[test]
fn pictures_and_their_list_must_fit() {
    let trial = Trial::new();
    draw(&trial);
    let list = trial.sandbox.read("pictures/labels.csv");
    let with = |more: &str| trial.sandbox.write("pictures/labels.csv", format!("{list}{more}"));
    let refuses = |message: &str| trial.refuses("prepare", &PICTURES, message);
    with("a.png,ten\n");
    refuses("@/pictures/labels.csv:102: expected the label 0, 1, 2, 3, 4, 5, 6, 7, 8 or 9, found ten");
    with("../raw/a.png,1\n");
    refuses("@/pictures/labels.csv:102: expected a path below the directory of the pictures, found ../raw/a.png");
    with("");
    trial.sandbox.write("pictures/ward, 3/extra.JPG", "");
    refuses("@/pictures/labels.csv: expected a line for every picture, found none for @/pictures/ward, 3/extra.JPG");
    // Every picture that cannot be read is named.
    with("\"ward, 3/extra.JPG\",4\ngone.png,4\n");
    let ended = trial.call("prepare", &PICTURES);
    for problem in ["ward, 3/extra.JPG: ", "gone.png: cannot read: No such file", "error: 2 of 102 images could not be read"] {
        assert!(ended.stderr.contains(problem), "{problem} in {ended:#?}");
    }
    assert_eq!(ended.code, Some(1));
    assert!(trial.sandbox.files("data").is_empty() && trial.sandbox.files("labels").is_empty());
}

// ---- bad input

#[test]
fn raw_data_must_be_whole_and_apart_from_outputs() {
    let trial = Trial::new();
    let refuses = |changed: &[_], message: &str| trial.refuses("prepare", changed, message);
    fs::create_dir(trial.sandbox.path("empty")).unwrap();
    refuses(
        &[("data_path", "empty"), ("labels_path", "empty")],
        "@/empty: expected t10k-images-idx3-ubyte, plain or gzipped, or labels.csv beside the labels in @/empty, found \
         neither",
    );
    refuses(&[("labels_path", "empty")], "@/empty: expected t10k-labels-idx1-ubyte, plain or gzipped, found none");
    let same = "another directory than those of the raw data, found the same";
    refuses(&[("output_path", "raw")], &format!("--output_path=@/raw: expected {same}"));
    refuses(&[("output_labels_path", "raw")], &format!("--output_labels_path=@/raw: expected {same}"));
    let same = "another directory than --output_path, found the same";
    refuses(&[("output_labels_path", "data")], &format!("--output_labels_path=@/data: expected {same}"));

    let labels = |labels: &[u8]| trial.sandbox.write(&format!("raw/{LABELS}.gz"), gzip(&encode_labels(labels)));
    labels(&[1; 99]);
    refuses(&[], "@/raw/t10k-images-idx3-ubyte: has 100 images, but @/raw/t10k-labels-idx1-ubyte.gz has 99 labels: expected equal numbers");
    labels(&[[1; 99].as_slice(), &[10]].concat());
    refuses(&[], "@/raw/t10k-labels-idx1-ubyte.gz: expected labels from 0 to 9, found 10 at label 99");
    trial.sandbox.write(&format!("raw/{LABELS}.gz"), &gzip(&encode_labels(&[1; 100]))[..20]);
    assert!(trial.call("prepare", &[]).stderr.contains("t10k-labels-idx1-ubyte.gz: cannot decompress: "));
    labels(&[1; 100]);
    trial.sandbox.write(&format!("raw/{IMAGES}"), encode_images(&[0; 100 * 20 * 20], 20, 20));
    refuses(&[], "@/raw/t10k-images-idx3-ubyte: expected images of 28 x 28 pixels, found 20 x 20");
    assert!(trial.sandbox.files("data").is_empty() && trial.sandbox.files("labels").is_empty());
}

#[test]
fn prepared_data_must_be_whole_and_of_one_piece() {
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    let check = |message: &str| {
        for task in ["sanity_check", "statistics"] {
            trial.refuses(task, &[], message);
        }
    };
    let [images, labels, hash] = [format!("data/{IMAGES}"), format!("labels/{LABELS}"), format!("labels/{HASH}")];
    let [good, good_labels, good_hash] = [&images, &labels, &hash].map(|name| fs::read(trial.sandbox.path(name)).unwrap());

    let mut other = good.clone();
    other[1000] ^= 1;
    trial.sandbox.write(&images, &other);
    let ended = trial.call("sanity_check", &[]);
    let problem = format!("{IMAGES}: is not of the labels in {}: expected the SHA-256 ", trial.sandbox.path("labels").display());
    assert!(ended.code == Some(1) && ended.stderr.contains(&problem), "{ended:#?}");
    trial.sandbox.write(&images, &good[..good.len() - 784]);
    check("@/data/t10k-images-idx3-ubyte: is truncated: expected 78416 bytes for 100 images, found 77632");
    trial.sandbox.write(&images, encode_images(&good[16..16 + 784], 28, 28));
    check("@/data/t10k-images-idx3-ubyte: has 1 images, but @/labels/t10k-labels-idx1-ubyte has 100 labels: expected equal numbers");
    fs::remove_file(trial.sandbox.path(&images)).unwrap();
    check("@/data/t10k-images-idx3-ubyte: cannot read: No such file or directory (os error 2)");
    trial.sandbox.write(&images, &good);

    trial.sandbox.write(&labels, encode_labels(&[1; 101]));
    check("@/data/t10k-images-idx3-ubyte: has 100 images, but @/labels/t10k-labels-idx1-ubyte has 101 labels: expected equal numbers");
    trial.sandbox.write(&labels, good_labels);
    for text in ["", "no hash at all\n", &"0123456789abcdef".repeat(100)] {
        trial.sandbox.write(&hash, text);
        check("@/labels/t10k-images-idx3-ubyte.sha256: expected a SHA-256 and the name t10k-images-idx3-ubyte, as sha256sum writes them");
    }
    trial.sandbox.write(&hash, good_hash);
    trial.call("sanity_check", &[]).done();

    // Of which only the sanity check knows.
    trial.sandbox.write(&format!("data/{LABELS}"), "");
    let message = "@/data/t10k-labels-idx1-ubyte: expected no labels beside the images, where a model sees them";
    trial.refuses("sanity_check", &[], message);
    fs::remove_file(trial.sandbox.path(format!("data/{LABELS}"))).unwrap();
    let mut blank = good;
    blank[16 + 784 * 7..16 + 784 * 9].fill(255);
    trial.sandbox.write(&format!("raw/{IMAGES}"), blank);
    trial.call("prepare", &[]).done();
    let message = "@/data/t10k-images-idx3-ubyte: expected images that show something, found 2 images of one shade, the first at 7";
    trial.refuses("sanity_check", &[], message);
}

#[test]
fn a_model_is_needed_that_knows_these_digits() {
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    fs::remove_file(trial.sandbox.path("files/model.safetensors")).unwrap();
    trial.refuses("infer", &[], "@/files: has no model: expected a file model.safetensors");
    trial.sandbox.write("files/model.safetensors", "no model");
    assert!(trial.call("infer", &[]).stderr.contains("files/model.safetensors: is not a safetensors file"));
    assert!(trial.sandbox.files("predictions").is_empty());
}

#[test]
fn predictions_must_be_those_of_the_labels_images() {
    let trial = Trial::inferred();
    let path = "predictions/predictions.json";
    let good: Value = serde_json::from_str(&trial.sandbox.read(path)).unwrap();
    let refuses = |message: &str| trial.refuses("evaluate", &[], &format!("@/{path}: {message}"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        trial.sandbox.write(path, changed.to_string());
    };
    let zeros = "0".repeat(64);
    with(&|all| all["images_sha256"] = json!(zeros));
    let ended = trial.call("evaluate", &[]);
    assert!(ended.stderr.contains("images_sha256: are predictions of other images: expected the SHA-256 "), "{ended:#?}");
    with(&|all| all["model_sha256"] = json!("x"));
    refuses("model_sha256: expected a SHA-256 in hexadecimal");
    with(&|all| all["classes"] = json!(["a", "b"]));
    refuses("classes: expected 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, found a, b");
    with(&|all| _ = all["probabilities"].as_array_mut().unwrap().pop());
    refuses("probabilities: expected those of 100 images, found 99");
    with(&|all| _ = all["probabilities"][4].as_array_mut().unwrap().pop());
    refuses("probabilities of image 4: expected 10 numbers, found 9");
    for wrong in [-0.5, 1.5] {
        with(&|all| all["probabilities"][4][0] = json!(wrong));
        refuses(&format!("probabilities of image 4: expected numbers from 0 to 1, found {wrong}"));
    }
    with(&|all| all["probabilities"][4] = json!([0.5, 0.25, 0, 0, 0, 0, 0, 0, 0, 0]));
    refuses("probabilities of image 4: expected a sum of 1, found 0.75");
    with(&|all| all["labels"] = json!([]));
    let ended = trial.call("evaluate", &[]);
    assert!(ended.stderr.contains("predictions.json:1: unknown field `labels`, expected one of "), "{ended:#?}");
    let text = good.to_string();
    trial.sandbox.write(path, &text[..text.len() / 2]);
    assert!(trial.call("evaluate", &[]).stderr.contains("predictions.json:1: EOF while parsing"));
    trial.sandbox.write(path, text + &" ".repeat(200_000));
    refuses("expected at most 105536 bytes for 100 images, found more");
    fs::remove_file(trial.sandbox.path(path)).unwrap();
    refuses("cannot read: No such file or directory (os error 2)");
    assert!(!trial.sandbox.path("results").exists());

    // One that is sure of a wrong class costs a finite loss.
    let labels = Dataset::load(&trial.sandbox.path("known")).unwrap().test.labels;
    let wrong = |label: &u8| (0..10).map(|class| f64::from(u8::from(class == (label + 1) % 10))).collect::<Vec<_>>();
    with(&|all| all["probabilities"] = json!(labels.iter().map(wrong).collect::<Vec<_>>()));
    trial.call("evaluate", &[]).done();
    let results: Value = serde_yaml::from_str(&trial.sandbox.read("results/results.yaml")).unwrap();
    let loss = results["loss"].as_f64().unwrap();
    assert!(results["accuracy"] == 0.0 && loss > 700.0 && loss.is_finite(), "{results}");
}
