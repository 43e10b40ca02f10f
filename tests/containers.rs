//! The cube in real containers: each generation of runners with Docker and with Singularity configures it, downloads and
//! trains, in a workspace that belongs to a plain user. Tests without their engine or runner are skipped.
//!
//! Published runners are found by MNIST_TEST_MLCUBE_003 and MNIST_TEST_MLCUBE_009, the directories of their programs. A
//! Singularity image takes minutes to build; MNIST_TEST_SIF names one that is copied to where each runner keeps its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::server::{Reply, Server};
use crate::common::sshd::Sshd;
use crate::common::{Ended, Sandbox, copy_program, end, is_root, real_mnist, skipped};

/// The plain user.
const USER: u32 = 1000;
pub const IMAGE: &str = "mlcommons/mlcube:mnist";
/// What download and train write, in the workspace.
const OUTPUTS: [&str; 4] = ["data", "download_logs", "train_logs", "model"];

/// One engine at a time: the tests share the machine and the image.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn works(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    if !found {
        skipped(&format!("`{program} {argument}` does not work here"));
    }
    found
}

pub fn docker_works() -> bool {
    works("docker", "info")
}

/// The directory of a published runner's programs.
fn runner(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        skipped(&format!("{variable} names no published runner"));
    }
    found
}

/// A copy of the cube in which everything belongs to [`USER`], with the real MNIST, gzipped, in its workspace.
struct Cube {
    sandbox: Sandbox,
}

impl Cube {
    /// None without the real MNIST or without root's rights.
    fn new(with_data: bool) -> Option<Self> {
        if !is_root() {
            skipped("only root can act as a plain user");
            return None;
        }
        let mnist = real_mnist()?;
        let cube = Self { sandbox: Sandbox::new() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["mlcube.yaml", "mlcube-2.0.yaml", "tasks", "run", "platforms", "build", "workspace/parameters"] {
            copy(&root.join(name), &cube.sandbox.path("cube").join(name));
        }
        // For 0.0.9, whose recipe lies below the root.
        for name in ["Cargo.toml", "Cargo.lock", "src"] {
            std::os::unix::fs::symlink(Path::new("build").join(name), cube.path(name)).unwrap();
        }
        if with_data {
            for file in fs::read_dir(mnist).unwrap().map(|entry| entry.unwrap().path()) {
                if file.extension().is_some_and(|extension| extension == "gz") {
                    copy(&file, &cube.path("workspace/data").join(file.file_name().unwrap()));
                }
            }
        }
        cube.give_away();
        Some(cube)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path("cube").join(name)
    }

    fn give_away(&self) {
        each(&self.sandbox.path(""), &mut |path| std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap());
    }

    /// Puts the image that was built before where a runner looks for it.
    fn image_at(&self, name: &str) {
        if let Some(image) = std::env::var_os("MNIST_TEST_SIF") {
            copy(Path::new(&image), &self.path(name));
            self.give_away();
        }
    }

    /// Lets platforms/singularity.yaml name `image` of the cube, and puts the image there that was built before.
    fn singularity_image(&self, image: &str) {
        let platform = self.path("platforms/singularity.yaml");
        let text = fs::read_to_string(&platform).unwrap();
        let shipped = "/opt/singularity/mlcommons_mlcube_mnist-0.01.simg";
        assert!(text.contains(shipped));
        fs::write(&platform, text.replace(shipped, &self.path(image).display().to_string())).unwrap();
        self.image_at(image);
    }

    /// Runs `program` in the cube as root, whose Singularity runs as the plain user.
    fn as_root(&self, program: impl AsRef<Path>, arguments: &str) -> Ended {
        end(self.command(program, arguments).env("BENCH_UID", USER.to_string()))
    }

    /// Runs `program` in the cube as the plain user, who may speak to the Docker engine.
    fn as_user(&self, program: impl AsRef<Path>, arguments: &str) -> Ended {
        let socket = fs::metadata("/var/run/docker.sock").expect("a Docker engine on this machine");
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}")).arg(format!("--groups={}", socket.gid()));
        command.arg(program.as_ref()).args(arguments.split_whitespace());
        end(self.in_cube(&mut command).env("HOME", self.sandbox.path("")))
    }

    fn command(&self, program: impl AsRef<Path>, arguments: &str) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(arguments.split_whitespace());
        self.in_cube(&mut command);
        command
    }

    fn in_cube<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.current_dir(self.path("")).env_remove("MNIST_MIRROR")
    }

    /// The program of this build, in a directory where a plain user may start it.
    fn program(&self) -> PathBuf {
        let program = self.sandbox.path("mnist");
        if !program.exists() {
            copy_program(&program);
        }
        program
    }

    /// Makes the outputs' directories. A published runner would make them root's, since only root may start it here.
    fn make_outputs(&self) {
        for output in OUTPUTS {
            fs::create_dir_all(self.path("workspace").join(output)).unwrap();
        }
        self.give_away();
    }

    /// The outputs come from the real MNIST, are accurate, and belong to the plain user.
    #[track_caller]
    fn is_trained(&self) {
        let metrics = fs::read_to_string(self.path("workspace/model/metrics.json")).unwrap();
        let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
        assert_eq!(metrics["data"]["source"], "mnist", "{metrics:#}");
        assert!(metrics["test"]["accuracy"].as_f64().unwrap() > 0.97, "{metrics:#}");
        assert!(self.path("workspace/train_logs/mlcube_mnist_train.log").is_file());
        for output in OUTPUTS {
            each(&self.path("workspace").join(output), &mut |path| {
                let owner = fs::symlink_metadata(path).unwrap().uid();
                assert_eq!(owner, USER, "{} belongs to {owner}", path.display());
            });
        }
    }
}

/// Copies a file, or a directory without build outputs.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name() != "target" {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Visits `path` and all below it.
fn each(path: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(path);
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each(&entry.unwrap().path(), visit);
        }
    }
}

/// Configures, downloads and trains, each by `step`.
#[track_caller]
fn three_steps(step: impl Fn(&str) -> Ended) {
    for name in ["configure", "download", "train"] {
        step(name).done();
    }
}

#[test]
fn our_runner_with_docker() {
    let _alone = alone();
    if !docker_works() {
        return;
    }
    let Some(cube) = Cube::new(true) else { return };
    let platform = "--mlcube=. --platform=platforms/docker.yaml";
    three_steps(|step| match step {
        "configure" => cube.as_user(cube.program(), &format!("cube configure {platform}")),
        task => cube.as_user(cube.program(), &format!("cube run {platform} --task=run/{task}.yaml")),
    });
    cube.is_trained();
    // The container's exit code and its messages are passed on.
    fs::remove_file(cube.path("workspace/data/train-images-idx3-ubyte.gz")).unwrap();
    fs::remove_file(cube.path("workspace/data/train-images-idx3-ubyte")).unwrap();
    let ended = cube.as_user(cube.program(), &format!("cube run {platform} --task=run/train.yaml"));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let missing = format!("{}: train-images-idx3-ubyte is missing", cube.path("workspace/data").display());
    assert!(ended.stderr.contains(&missing), "{ended:#?}");
    assert!(ended.stderr.ends_with("error: task train: exit status: 1\n"), "{ended:#?}");
}

#[test]
fn our_runner_with_singularity() {
    let _alone = alone();
    if !works("singularity", "--version") {
        return;
    }
    let Some(cube) = Cube::new(true) else { return };
    cube.singularity_image("images/mnist.simg");
    let platform = "--mlcube=. --platform=platforms/singularity.yaml";
    three_steps(|step| match step {
        "configure" => cube.as_root(cube.program(), &format!("cube configure {platform}")),
        task => cube.as_root(cube.program(), &format!("cube run {platform} --task=run/{task}.yaml")),
    });
    cube.is_trained();
}

/// A mirror of the real MNIST on this machine.
fn mirror() -> Option<Server> {
    let mnist = real_mnist()?;
    let server = Server::start();
    for file in fs::read_dir(mnist).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        server.on(&format!("/{name}"), [Reply::File(fs::read(file).unwrap())]);
    }
    Some(server)
}

/// Configures, downloads and trains on another machine: this one, behind a real OpenSSH server, with another home directory.
#[track_caller]
fn over_ssh(cube: &Cube, platform: &str) {
    let here = |name| std::env::var(name).map_or(String::new(), |value| format!("\"{name}={value}\""));
    let Some(mirror) = mirror() else { return };
    let more = format!("MNIST_MIRROR={} DOCKER_BUILDKIT=0", mirror.url(""));
    let environment = format!("{} {} {more}", here("PATH"), here("BENCH_HOME"));
    let Some(sshd) = Sshd::start(&cube.sandbox, &environment) else { return };
    let file = format!(
        "schema_version: 1.0.0\nschema_type: mlcube_ssh\nhost: far\nauthentication: {{}}\nplatform: {platform}\n"
    );
    fs::write(cube.path("platforms/ssh.yaml"), file).unwrap();
    cube.give_away();
    three_steps(|step| {
        let line = match step {
            "configure" => "cube configure --platform=ssh".into(),
            task => format!("cube run --platform=ssh --task={task}"),
        };
        end(cube.command(cube.program(), &line).env("PATH", sshd.path()))
    });
    cube.is_trained();
}

#[test]
fn our_runner_with_docker_over_ssh() {
    let _alone = alone();
    if docker_works()
        && let Some(cube) = Cube::new(false)
    {
        over_ssh(&cube, "docker.yaml");
    }
}

#[test]
fn our_runner_with_singularity_over_ssh() {
    let _alone = alone();
    if works("singularity", "--version")
        && let Some(cube) = Cube::new(false)
    {
        cube.singularity_image("images/mnist.simg");
        over_ssh(&cube, "singularity.yaml");
    }
}

/// Configures, downloads and trains with `program` of the published runner that `variable` names. `image` is where it keeps
/// a Singularity image; `task` makes its argument for a task.
#[track_caller]
fn published_runner(
    variable: &str,
    program: &str,
    arguments: &str,
    image: Option<&str>,
    task: impl Fn(&str) -> String,
) {
    let _alone = alone();
    let Some(bin) = runner(variable) else { return };
    if !(if image.is_some() { works("singularity", "--version") } else { docker_works() }) {
        return;
    }
    let Some(cube) = Cube::new(true) else { return };
    if let Some(image) = image {
        cube.image_at(image);
    }
    cube.make_outputs();
    three_steps(|step| match step {
        "configure" => cube.as_root(bin.join(program), &format!("configure {arguments}")),
        name => cube.as_root(bin.join(program), &format!("run {arguments} --task={}", task(name))),
    });
    cube.is_trained();
}

#[test]
fn runner_0_0_3_with_docker() {
    let arguments = "--mlcube=. --platform=platforms/mlcube-0.0.3/docker.yaml";
    published_runner("MNIST_TEST_MLCUBE_003", "mlcube_docker", arguments, None, |task| format!("run/{task}.yaml"));
}

#[test]
fn runner_0_0_3_with_singularity() {
    let arguments = "--mlcube=. --platform=platforms/mlcube-0.0.3/singularity.yaml";
    let image = Some("workspace/mlcommons_mlcube_mnist-0.01.simg");
    published_runner("MNIST_TEST_MLCUBE_003", "mlcube_singularity", arguments, image, |task| {
        format!("run/{task}.yaml")
    });
}

#[test]
fn runner_0_0_9_with_docker() {
    let arguments = "--mlcube=mlcube-2.0.yaml --platform=docker";
    published_runner("MNIST_TEST_MLCUBE_009", "mlcube", arguments, None, str::to_string);
}

#[test]
fn runner_0_0_9_with_singularity() {
    let arguments = "--mlcube=mlcube-2.0.yaml --platform=singularity";
    let image = Some("workspace/.image/mlcommons_mlcube_mnist-0.01.sif");
    published_runner("MNIST_TEST_MLCUBE_009", "mlcube", arguments, image, str::to_string);
}

#[test]
fn a_mirror_of_this_machine_is_reached_from_containers() {
    let _alone = alone();
    let Some(cube) = Cube::new(false) else { return };
    let Some(server) = mirror() else { return };
    let download = |platform: &str| {
        let line = format!("cube run --platform={platform} --task=run/download.yaml");
        let mut command = cube.command(cube.program(), &line);
        end(command.env("MNIST_MIRROR", server.url("")).env("BENCH_UID", USER.to_string())).done();
        let file = cube.path("workspace/data/train-images-idx3-ubyte");
        assert_eq!(fs::metadata(&file).unwrap().uid(), USER);
        fs::remove_dir_all(cube.path("workspace/data")).unwrap();
    };
    if docker_works() {
        download("platforms/docker.yaml");
    }
    if works("singularity", "--version") {
        cube.image_at("workspace/mlcommons_mlcube_mnist-0.01.simg");
        download("platforms/mlcube-0.0.3/singularity.yaml");
    }
}

#[test]
fn the_image_runs_as_anyone_without_any_right() {
    let _alone = alone();
    if !docker_works() {
        return;
    }
    let Some(cube) = Cube::new(true) else { return };
    cube.as_user(cube.program(), "cube configure --platform=platforms/docker.yaml").done();
    let workspace = cube.path("workspace");
    each(&workspace, &mut |path| chown(path, Some(1234), Some(1234)).unwrap());
    let run = |task: &str| {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--read-only", "--cap-drop=ALL", "--user=1234:1234", "--network=none"]);
        command.arg(format!("--volume={}:/w", workspace.display())).arg(IMAGE);
        end(command.args(task.split_whitespace())).done()
    };
    run("download --data_dir=/w/data --log_dir=/w/download_logs");
    run("train --data_dir=/w/data --log_dir=/w/train_logs --model_dir=/w/model \
         --parameters_file=/w/parameters/default.parameters.yaml");
    let ended = run("evaluate --data_dir=/w/data --log_dir=/w/evaluate_logs --model_dir=/w/model");
    assert!(ended.stdout.contains("accuracy"), "{ended:#?}");
    assert_eq!(fs::metadata(workspace.join("model/model.safetensors")).unwrap().uid(), 1234);
}

#[test]
fn images_are_small() {
    let _alone = alone();
    if docker_works() {
        let size = end(Command::new("docker").args(["image", "inspect", "--format={{.Size}}", IMAGE]));
        match size.stdout.trim().parse::<u64>() {
            Ok(size) => assert!(size < 160_000_000, "{IMAGE}: {size} bytes"),
            Err(_) => skipped(&format!("{IMAGE} was not built")),
        }
    }
    if let Some(image) = std::env::var_os("MNIST_TEST_SIF") {
        let size = fs::metadata(image).unwrap().len();
        assert!(size < 160_000_000, "the Singularity image: {size} bytes");
    }
}

#[test]
fn the_labels_hold_the_version_of_the_crate() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("build/Dockerfile").contains(&format!("image.version=\"{version}\"")));
    assert!(read("build/Singularity.recipe").contains(&format!("image.version {version}\n")));
}

/// Mesa's software Vulkan of this machine with all its libraries but the C library, and the file that names it, in a
/// directory to mount at `/vulkan` in a container, as a GPU's driver is mounted.
fn software_vulkan(sandbox: &Sandbox) -> Option<PathBuf> {
    let directory = sandbox.path("vulkan");
    fs::create_dir(&directory).unwrap();
    let driver = "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so";
    let libraries = end(Command::new("ldd").arg(driver)).stdout;
    let needed = libraries.lines().filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next());
    let of_libc = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
    let mut found = 0;
    for library in needed.chain([driver]).map(Path::new).filter(|path| path.is_file()) {
        let name = library.file_name().unwrap();
        if !of_libc.iter().any(|libc| name == *libc) {
            fs::copy(library, directory.join(name)).unwrap();
            found += 1;
        }
    }
    if found < 2 {
        skipped("no software Vulkan is at hand; install mesa-vulkan-drivers");
        return None;
    }
    let icd = r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "/vulkan/libvulkan_lvp.so", "api_version": "1.3.0"}}"#;
    fs::write(directory.join("icd.json"), icd).unwrap();
    Some(directory)
}

/// Checks that `devices`, run in a container by `run`, finds the driver, and that `train` trains with it.
fn trains_with_vulkan(run: impl Fn(&str) -> Ended) {
    let version = run("--version").done().stdout;
    let features = version.lines().find_map(|line| line.strip_prefix("features: "));
    if !features.unwrap_or_else(|| panic!("no features in {version}")).split(", ").any(|feature| feature == "gpu") {
        return skipped("the image was built without the feature gpu");
    }
    let devices = run("devices").done();
    assert!(devices.stdout.contains("gpu:llvmpipe"), "{devices:#?}");
    let flags = "train --data_dir=/w/data --log_dir=/w/logs --model_dir=/w/model --parameters_file=/w/parameters.yaml";
    let trained = run(&format!("{flags} --device=gpu:llvmpipe")).done();
    assert!(trained.stderr.contains("engine: fused on gpu"), "{trained:#?}");
}

#[test]
fn the_docker_image_finds_the_hosts_vulkan_driver() {
    let _alone = alone();
    if !docker_works() {
        return;
    }
    if end(Command::new("docker").args(["image", "inspect", IMAGE])).code != Some(0) {
        return skipped(&format!("{IMAGE} was not built"));
    }
    let sandbox = Sandbox::with_data();
    let Some(vulkan) = software_vulkan(&sandbox) else { return };
    let run = |arguments: &str| {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--network=none", "-e", "LD_LIBRARY_PATH=/vulkan"]);
        command.args(["-e", "VK_ICD_FILENAMES=/vulkan/icd.json", "-v", &format!("{}:/vulkan:ro", vulkan.display())]);
        command.args(["-v", &format!("{}:/w", sandbox.path("").display()), IMAGE]);
        end(command.args(arguments.split(' ')))
    };
    trains_with_vulkan(run);
}

#[test]
fn the_singularity_image_finds_the_hosts_vulkan_driver() {
    let _alone = alone();
    let Some(image) = std::env::var_os("MNIST_TEST_SIF") else { return };
    let sandbox = Sandbox::with_data();
    let Some(vulkan) = software_vulkan(&sandbox) else { return };
    let run = |arguments: &str| {
        let mut command = Command::new("singularity");
        command.args(["run", "--env", "LD_LIBRARY_PATH=/vulkan,VK_ICD_FILENAMES=/vulkan/icd.json"]);
        command.args(["--bind", &format!("{}:/vulkan:ro,{}:/w", vulkan.display(), sandbox.path("").display())]);
        end(command.arg(&image).args(arguments.split(' ')))
    };
    trains_with_vulkan(run);
}
