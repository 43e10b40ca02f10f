//! `mnist cube configure | run | clean`: the commands given to docker and singularity, and the errors when they refuse.
//! Scripts stand in for both; `containers.rs` uses the real ones.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::cube::{Cube, DOCKER, SINGULARITY};
use crate::common::{Ended, Sandbox, TRAIN as TRAIN_HERE, end, is_root, skipped};

const TRAIN: &str = "run --mlcube=. --platform=platforms/docker.yaml --task=run/train.yaml";

#[test]
fn docker_mounts_inputs_read_only_and_outputs_writable() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let secret = "http://user:secret@proxy.example:3128";
    end(cube.command(TRAIN).env("https_proxy", secret).env("MNIST_MIRROR", "http://mirror.example/mnist")).done();
    let mut run = cube.wrote("run");
    let user = run.iter().position(|argument| argument.starts_with("--user=")).map(|at| run.remove(at));
    assert_eq!(user.is_none(), is_root(), "{user:?}");
    assert!(run[3].starts_with("--name=mlcube_train_"), "{run:#?}");
    run.remove(3);
    let mount = |name: &str, n: usize, more: &str| {
        format!("--mount=type=bind,source={},target=/mlcube_io{n}{more}", cube.workspace(name))
    };
    let hosts = ["data", "parameters", "train_logs", "model"].map(|name| cube.workspace(name));
    let hosts = json!({
        "/mlcube_io0": hosts[0], "/mlcube_io1": hosts[1], "/mlcube_io2": hosts[2], "/mlcube_io3": hosts[3],
    });
    let expected = [
        "run",
        "--rm",
        "--network=host",
        "--env=MLCUBE_NAME=mnist",
        "--env=MLCUBE_TASK_NAME=train",
        &format!("--env=MLCUBE_HOST_PATHS={hosts}"),
        "--env=https_proxy",
        "--env=MNIST_MIRROR",
        &mount("data", 0, ",readonly"),
        &mount("parameters", 1, ",readonly"),
        &mount("train_logs", 2, ""),
        &mount("model", 3, ""),
        "mlcommons/mlcube:mnist",
        "train",
        "--data_dir=/mlcube_io0",
        "--parameters_file=/mlcube_io1/default.parameters.yaml",
        "--log_dir=/mlcube_io2",
        "--model_dir=/mlcube_io3",
    ];
    assert_eq!(run, expected);
    assert!(cube.wrote("environment").contains(&format!("https_proxy={secret}")));
    assert!(Path::new(&cube.workspace("model")).is_dir());
    assert!(!cube.sandbox.path("build").exists(), "there was an image");
}

#[test]
fn a_gpu_is_given_where_the_platform_file_says_so() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    cube.write(
        "platforms/gpu.yaml",
        "schema_version: 1.0.0\nschema_type: mlcube_docker\nimage: i\ndocker_runtime: nvidia-docker\n",
    );
    let ended = cube.run("run --platform=platforms/gpu.yaml --task=run/download.yaml --dry_run").done();
    assert!(ended.stdout.contains(" --gpus=all "), "{ended:#?}");
    cube.write(
        "platforms/gpu.yaml",
        "schema_version: 1.0.0\nschema_type: mlcube_singularity\nimage: i.sif\nnv: true\n",
    );
    let ended = cube.run("run --platform=platforms/gpu.yaml --task=run/download.yaml --dry-run").done();
    assert!(ended.stdout.contains(" singularity run --nv --bind "), "{ended:#?}");
    for (gpus, flag) in [("2", "--gpus=2"), ("all", "--gpus=all"), ("device=0,2", "'--gpus=\"device=0,2\"'")] {
        let file = "schema_version: 1.0.0\nschema_type: mlcube_docker\nimage: i\ndocker_runtime: docker\ngpus: ";
        cube.write("platforms/gpu.yaml", format!("{file}{gpus}\n"));
        let ended = cube.run("run --platform=gpu --task=download --dry_run").done();
        assert!(ended.stdout.contains(&format!(" {flag} ")), "{ended:#?}");
    }
    for odd in ["0", "-1", "2.5", "some", "device=", "device=0,,1", "[0, 1]", "true"] {
        let file = "schema_version: 1.0.0\nschema_type: mlcube_docker\nimage: i\ndocker_runtime: docker\ngpus: ";
        cube.write("platforms/gpu.yaml", format!("{file}{odd}\n"));
        let ended = cube.run("run --platform=gpu --task=download --dry_run");
        let expected =
            "./platforms/gpu.yaml:5: gpus: expected a number of GPUs, all, or a list such as device=0,2, found ";
        assert!(ended.stdout.starts_with(expected), "{odd}: {ended:#?}");
    }
    cube.write("platforms/gpu.yaml", "schema_version: 1.0.0\nschema_type: mlcube_singularity\nimage: i.sif\nnv: 1\n");
    let ended = cube.run("run --platform=platforms/gpu.yaml --task=run/download.yaml");
    assert_eq!(ended.stdout, "platforms/gpu.yaml:4: nv: expected true or false, found 1\n");
}

#[test]
fn a_dry_run_prints_a_command_to_type_and_does_nothing() {
    let cube = Cube::new().with("docker", DOCKER);
    let ended = cube.run(&format!("{TRAIN} --dry_run")).done();
    assert!(ended.stdout.contains(&format!("'--mount=type=bind,source={},", cube.workspace("data"))), "{ended:#?}");
    assert!(!cube.sandbox.path("run").exists() && !Path::new(&cube.workspace("model")).exists());
    // Typed into a shell, it is the same command.
    let path = format!("{}:/usr/bin:/bin", cube.sandbox.path("bin").display());
    end(Command::new("sh").arg("-c").arg(&ended.stdout).env("PATH", path)).done();
    assert_eq!(cube.wrote("run").last().unwrap(), "--model_dir=/mlcube_io3");
    let by_name = cube.run("run --platform=docker --task=train --dry_run").done();
    let after_name = |command: &str| command.split_once(" '--mount").unwrap().1.to_string();
    assert_eq!(after_name(&by_name.stdout), after_name(&ended.stdout));
    let ended = cube.run("configure --platform=platforms/docker.yaml --dry_run").done();
    assert!(ended.stdout.starts_with("docker build --tag=mlcommons/mlcube:mnist '--file=/"), "{ended:#?}");
    assert!(!cube.sandbox.path("build").exists());
}

#[test]
fn a_mirror_that_is_a_directory_is_mounted() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    cube.has_image();
    let mirror = cube.sandbox.path("my mirror");
    fs::create_dir(&mirror).unwrap();
    let download = |platform: &str| {
        let line = format!("run --platform={platform} --task=run/download.yaml");
        end(cube.command(&line).env("MNIST_MIRROR", &mirror)).done();
        cube.wrote("run")
    };
    let run = download("platforms/docker.yaml");
    let given: Vec<_> = run.iter().filter(|argument| argument.contains("MNIST_MIRROR")).collect();
    assert_eq!(given, ["--env=MNIST_MIRROR=/mlcube_mirror"]);
    let mount = format!("--mount=type=bind,source={},target=/mlcube_mirror,readonly", mirror.display());
    assert!(run.contains(&mount), "{run:#?}");
    let run = download("platforms/mlcube-0.0.3/singularity.yaml");
    assert!(run.contains(&format!("{}:/mlcube_mirror:ro", mirror.display())), "{run:#?}");
    assert!(cube.wrote("environment").contains(&"MNIST_MIRROR=/mlcube_mirror".into()));
}

#[test]
fn a_missing_image_is_built_first() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    end(cube.command("run --platform=platforms/docker.yaml --task=run/download.yaml").env("http_proxy", "http://p:1"))
        .done();
    let build = cube.sandbox.path("the cube/build").display().to_string();
    let file = format!("--file={build}/Dockerfile");
    assert_eq!(cube.wrote("build"), ["build", "--build-arg=http_proxy", "--tag=mlcommons/mlcube:mnist", &file, &build]);
    assert!(cube.sandbox.path("run").exists());

    cube.run("run --platform=platforms/mlcube-0.0.3/singularity.yaml --task=run/download.yaml").done();
    let image = cube.workspace("mlcommons_mlcube_mnist-0.01.simg");
    let growing = cube.workspace(".mlcommons_mlcube_mnist-0.01.simg.mnist-part");
    let wrote = cube.wrote("build");
    assert_eq!(wrote[..2], [build, "build".into()]);
    assert_eq!(wrote.contains(&"--fakeroot".into()), !is_root());
    let [.., built, recipe] = &wrote[..] else { panic!("{wrote:?}") };
    assert!(built.starts_with(&format!("{growing}/mlcube_image_")) && recipe == "Singularity.recipe", "{wrote:?}");
    assert!(Path::new(&image).exists() && !Path::new(&growing).exists());
    let run = cube.wrote("run");
    let bind = |name: &str, n: usize| format!("{}:/mlcube_io{n}", cube.workspace(name));
    let expected = [
        "run",
        "--bind",
        &bind("data", 0),
        "--bind",
        &bind("download_logs", 1),
        &image,
        "download",
        "--data_dir=/mlcube_io0",
        "--log_dir=/mlcube_io1",
    ];
    assert_eq!(run, expected);
}

#[test]
fn a_singularity_image_is_built_again_once_its_sources_are_newer() {
    let cube = Cube::new().with("singularity", SINGULARITY);
    let configure = "configure --platform=platforms/mlcube-0.0.3/singularity.yaml";
    cube.run(configure).done();
    fs::remove_file(cube.sandbox.path("build")).unwrap();
    let ended = cube.run(configure).done();
    assert!(ended.stderr.contains(": up to date"), "{ended:#?}");
    assert!(!cube.sandbox.path("build").exists());
    std::thread::sleep(Duration::from_millis(20));
    cube.write("build/src/main.rs", "changed");
    cube.run(configure).done();
    assert!(cube.sandbox.path("build").exists());
}

#[test]
fn a_failing_build_leaves_the_old_image() {
    let cube = Cube::new().with("singularity", "case \"$1\" in --version) echo 3.8.7 ;; *) while [ $# -gt 2 ]; do shift; done; echo half >\"$1\"; exit 9 ;; esac");
    let image = "mlcommons_mlcube_mnist-0.01.simg";
    cube.write(&format!("workspace/{image}"), "old");
    std::thread::sleep(Duration::from_millis(20));
    cube.write("build/Singularity.recipe", "newer");
    let ended = cube.run("configure --platform=platforms/mlcube-0.0.3/singularity.yaml");
    ended.failed_with(&format!("{}: the image could not be built; see the output above", cube.workspace(image)));
    assert_eq!(fs::read_to_string(cube.workspace(image)).unwrap(), "old");
    assert_eq!(cube.sandbox.files("the cube/workspace"), ["data", image, "parameters"]);

    let cube = Cube::new().with("docker", &DOCKER.replace("touch \"$HERE/image\"", "exit 9"));
    cube.run(TRAIN).failed_with("mlcommons/mlcube:mnist: the image could not be built; see the output above");
}

#[test]
fn the_exit_code_is_the_tasks() {
    let cube = Cube::new().with("docker", &DOCKER.replace("env >\"$HERE/environment\"", "exit 77"));
    cube.has_image();
    let ended = cube.run(TRAIN);
    assert_eq!(ended.code, Some(77), "{ended:#?}");
    assert!(ended.stderr.ends_with("error: task train: exit status: 77\n"), "{ended:#?}");
}

#[test]
fn a_signal_stops_the_container() {
    let script = DOCKER.replace(
        "env >\"$HERE/environment\"",
        "trap 'echo stopped >\"$HERE/stopped\"; exit 0' INT; touch \"$HERE/started\"; while :; do sleep 0.05; done",
    );
    let cube = Cube::new().with("docker", &script);
    cube.has_image();
    let mut child: Child = cube.command(TRAIN).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.path("started").exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(cube.sandbox.read("stopped"), "stopped\n");
    assert_eq!(cube.wrote("removed")[..2], ["rm", "--force"]);
}

#[test]
fn a_task_does_not_outlive_a_runner_that_is_killed() {
    let script = DOCKER.replace(
        "env >\"$HERE/environment\"",
        "trap 'echo stopped >\"$HERE/stopped\"; exit 0' TERM; touch \"$HERE/started\"; while :; do sleep 0.05; done",
    );
    let cube = Cube::new().with("docker", &script);
    cube.has_image();
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 100000\nhidden_layers: [16]\n");
    let kill_after = |platform: &str, sign: &str| {
        let log = fs::File::create(cube.sandbox.path("stderr")).unwrap();
        let mut command = cube.command(&format!("run --platform={platform} --task=train"));
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begin = Instant::now();
        while !cube.sandbox.read("stderr").contains(sign) && !cube.sandbox.path(sign).exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{}", cube.sandbox.read("stderr"));
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let soon = |is_so: &dyn Fn() -> bool, what: &str| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    kill_after("docker", "started");
    soon(&|| cube.sandbox.path("stopped").exists(), "the container goes on");
    kill_after("native", "epoch 2/");
    // As after SIGTERM: what was trained is there, and the directory is free.
    soon(&|| Path::new(&cube.workspace("model/model.safetensors")).exists(), "no model");
    soon(&|| !Path::new(&cube.workspace("model/.mnist-lock")).exists(), "the task goes on");
}

#[test]
fn a_signal_to_a_task_of_this_program_is_told_once() {
    let cube = Cube::new();
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 100000\nhidden_layers: [16]\n");
    let log = fs::File::create(cube.sandbox.path("stderr")).unwrap();
    let mut command = cube.command("run --platform=native --task=train");
    let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begin = Instant::now();
    while !cube.sandbox.read("stderr").contains("epoch 2/") {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", cube.sandbox.read("stderr"));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said = cube.wrote("stderr");
    assert_eq!(said.iter().filter(|line| *line == "error: stopped by SIGINT").count(), 1, "{said:#?}");
}

#[test]
fn a_signal_ends_a_question_to_an_engine_that_hangs() {
    let cube = Cube::new().with("docker", "echo $$ >\"$HERE/pid\"; exec sleep 60");
    // As a terminal sends it, to the whole group, or to the runner alone.
    for to_all in ["-", ""] {
        let mut child = cube.command(TRAIN).process_group(0).stderr(Stdio::piped()).spawn().unwrap();
        let begin = Instant::now();
        while !cube.sandbox.path("pid").exists() || cube.sandbox.read("pid").is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let target = format!("{to_all}{}", child.id());
        assert!(Command::new("kill").args(["-INT", "--", &target]).status().unwrap().success());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), &*said), (Some(130), "error: stopped by SIGINT\n"));
        let pid = cube.sandbox.read("pid");
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "docker goes on");
        fs::remove_file(cube.sandbox.path("pid")).unwrap();
    }
}

#[test]
fn an_engine_that_does_not_answer_is_named_with_what_to_do() {
    let refuse = |problem: &str| format!("echo '{problem}' >&2; exit 1");
    let down = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    let cube = Cube::new().with("docker", &refuse(down));
    cube.run(TRAIN).failed_with(&format!(
        "docker: the engine does not answer: {down}\nhint: start it (`sudo systemctl start docker`, or Docker Desktop), \
         or set DOCKER_HOST to where it is"
    ));
    assert!(!Path::new(&cube.workspace("model")).exists(), "nothing was made");
    let denied = "permission denied while trying to connect to the Docker daemon socket";
    Cube::new().with("docker", &refuse(denied)).run(TRAIN).failed_with(&format!(
        "docker: the engine does not answer: {denied}\nhint: this user may not speak to the engine: `sudo usermod -aG \
         docker $USER` and a new login change that; without root's help, Singularity needs no engine"
    ));
}

#[test]
fn missing_programs_are_named() {
    let nothing = |cube: &Cube, line: &str| end(cube.command(line).env("PATH", cube.sandbox.path("bin")));
    let cube = Cube::new();
    nothing(&cube, TRAIN).failed_with(
        "docker: expected this program in PATH, found none\nhint: install Docker, or give another platform, such as \
         Singularity",
    );
    nothing(&cube, "configure --platform=platforms/mlcube-0.0.3/singularity.yaml").failed_with(
        "singularity: expected this program in PATH, found none\nhint: install Apptainer or SingularityCE (on a cluster \
         perhaps `module load apptainer`), or give another platform, such as Docker",
    );
    // Apptainer by its own name is as good.
    let cube = cube.with("apptainer", SINGULARITY);
    nothing(&cube, "configure --platform=platforms/mlcube-0.0.3/singularity.yaml").done();
}

#[test]
fn a_singularity_too_old_for_plain_users_is_named() {
    if !is_root() {
        skipped("only root can become a plain user");
        return;
    }
    let cube = Cube::new().with("singularity", "echo singularity version 3.4.2");
    let all = Command::new("chmod").args(["-R", "a+rwX"]).arg(cube.sandbox.path("")).status().unwrap();
    assert!(all.success());
    let mut command = cube.command("configure --platform=platforms/mlcube-0.0.3/singularity.yaml");
    std::os::unix::process::CommandExt::uid(&mut command, 1000);
    let Ok(output) = command.output() else {
        skipped("a plain user may not start this build of the program");
        return;
    };
    let ended =
        Ended { code: output.status.code(), stdout: String::new(), stderr: String::from_utf8(output.stderr).unwrap() };
    ended.failed_with(
        "singularity version 3.4.2: expected 3.5 or newer, with which others than root can build images (--fakeroot)\n\
         hint: ask for a newer version, build the image as root, or build it on another machine and copy the file",
    );
}

#[test]
fn no_image_and_nothing_to_build_it_from() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    fs::remove_dir_all(cube.sandbox.path("the cube/build")).unwrap();
    let build = cube.sandbox.path("the cube/build").display().to_string();
    cube.run(TRAIN).failed_with(&format!(
        "docker image mlcommons/mlcube:mnist: not there, and {build} has no Dockerfile to build it from\nhint: get it with \
         `docker pull mlcommons/mlcube:mnist`, or give the cube with its build directory as --mlcube"
    ));
    cube.run("run --platform=platforms/mlcube-0.0.3/singularity.yaml --task=run/train.yaml").failed_with(&format!(
        "{}: not there, and {build} has no Singularity.recipe to build it from\nhint: copy the image there, or give the \
         cube with its build directory as --mlcube",
        cube.workspace("mlcommons_mlcube_mnist-0.01.simg")
    ));
}

#[test]
fn an_image_where_nothing_can_be_written() {
    let cube = Cube::new().with("singularity", SINGULARITY);
    cube.write("file", "");
    let image = cube.sandbox.path("the cube/file/image.simg").display().to_string();
    let text = format!("schema_version: 1.0.0\nschema_type: mlcube_singularity\nimage: '{image}'\n");
    cube.write("platforms/there.yaml", text);
    let ended = cube.run("configure --platform=platforms/there.yaml");
    assert!(ended.stderr.contains(&format!("error: {image}: cannot write the image there: ")), "{ended:#?}");
    assert!(
        ended.stderr.contains("hint: give a platform file whose image lies where this user can write;"),
        "{ended:#?}"
    );
}

#[test]
fn faults_of_the_files_are_printed_as_by_the_check() {
    let cube = Cube::new().with("docker", DOCKER);
    let faults = |cube: &Cube, line: &str, fault: &str| {
        let ended = cube.run(line);
        assert_eq!(ended.stdout, format!("{fault}\n"));
        ended.failed_with(".: 1 fault in the cube's files");
    };
    cube.write("platforms/odd.yaml", "schema_type: mlcube_odd\nschema_version: 1.0.0\n");
    faults(
        &cube,
        "configure --platform=platforms/odd.yaml",
        "platforms/odd.yaml:1: schema_type: expected mlcube_docker, mlcube_singularity, mlcube_native, mlcube_slurm, mlcube_gcp, mlcube_ssh, mlcube_k8s or mlcube_platform, \
         found \"mlcube_odd\"",
    );
    let run = |name: &str| format!("run --platform=platforms/docker.yaml --task=run/{name}.yaml");
    let text = |from: &str, to: &str| cube.sandbox.read("the cube/run/train.yaml").replace(from, to);
    let file = |name: &str| cube.sandbox.path(format!("the cube/run/{name}.yaml")).display().to_string();
    cube.write("run/unknown.yaml", text("task_name: train", "task_name: trian"));
    faults(
        &cube,
        &run("unknown"),
        &format!("{}:4: task_name: expected download, evaluate or train, found \"trian\"", file("unknown")),
    );
    cube.write("run/few.yaml", text("  model_dir: $WORKSPACE/model\n", ""));
    faults(
        &cube,
        &run("few"),
        &format!("{}:9: output_binding: expected a value for model_dir of task train, found none", file("few")),
    );
    cube.write("run/many.yaml", format!("{}  more: x\n", text("", "")));
    faults(
        &cube,
        &run("many"),
        &format!("{}:12: output_binding.more: expected log_dir or model_dir of task train, found more", file("many")),
    );
    assert!(!cube.sandbox.path("run").exists(), "nothing was started");
}

#[test]
fn a_native_platform_runs_the_task_itself() {
    let cube = Cube::new();
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    let ended = cube.run("configure --platform=platforms/native.yaml").done();
    assert!(ended.stderr.ends_with("nothing to build: this platform takes no image from here\n"), "{ended:#?}");
    let ended = cube.run("run --platform=platforms/native.yaml --task=run/train.yaml --dry_run").done();
    assert!(ended.stdout.contains(&format!(" train '--data_dir={}'", cube.workspace("data"))), "{ended:#?}");
    cube.run("run --platform=platforms/native.yaml --task=run/train.yaml").done();
    for file in ["model/model.safetensors", "train_logs/mlcube_mnist_train.log"] {
        assert!(Path::new(&cube.workspace(file)).is_file(), "{file}");
    }
    cube.write("workspace/parameters/default.parameters.yaml", "batch_size: 0\n");
    let ended = cube.run("run --platform=platforms/native.yaml --task=run/train.yaml");
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("batch_size"), "{ended:#?}");
}

/// A podman whose containers are root's or, with this `rootless`, the caller's.
fn podman(rootless: bool) -> String {
    DOCKER.replace("info*) echo '[\"name=seccomp\"]' ;;", &format!("info*) echo {rootless} ;;"))
}

#[test]
fn podman_takes_the_place_of_docker() {
    let cube = Cube::new().with("podman", &podman(true));
    let platform = "schema_version: 1.0.0\nschema_type: mlcube_docker\nimage: a/b:c\ndocker_runtime: podman\ngpus: 2\n";
    cube.write("platforms/podman.yaml", platform);
    cube.run("configure --platform=podman").done();
    assert_eq!(cube.wrote("build")[1], "--tag=a/b:c");
    cube.has_image();
    cube.run("run --platform=podman --task=download").done();
    let run = cube.wrote("run");
    for flag in ["--security-opt=label=disable", "--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1"] {
        assert!(run.contains(&flag.into()), "{run:#?}");
    }
    // Root in a container of a rootless Podman is the caller.
    assert!(!run.iter().any(|argument| argument.starts_with("--user=")), "{run:#?}");
    let cube = cube.with("podman", &podman(false));
    cube.run("run --platform=podman --task=download").done();
    let user = cube.wrote("run").iter().any(|argument| argument.starts_with("--user="));
    assert_eq!(user, !is_root());
    let cube = cube.with("podman", "echo 'Error: no storage' >&2; exit 125");
    cube.run("run --platform=podman --task=download")
        .failed_with("podman: does not work: Error: no storage\nhint: see what `podman info` says");
}

#[test]
fn a_task_in_a_container_names_the_files_of_the_host() {
    let sandbox = Sandbox::with_data();
    let workspace = sandbox.path("").display().to_string();
    let hosts = json!({ workspace.trim_end_matches('/'): "/home/user/my cube" }).to_string();
    let task = |line: &str| {
        let line = line.replace("=data", &format!("={workspace}/data")).replace("=logs", &format!("={workspace}/logs"));
        let line = line.replace("=model", &format!("={workspace}/model")).replace("//", "/");
        end(sandbox.program().args(line.split(' ')).env("MLCUBE_HOST_PATHS", &hosts))
    };
    let ended = task(&format!("{TRAIN_HERE} --train_epochs=1")).done();
    let shown = ended.stdout.clone() + &ended.stderr + &sandbox.read("logs/mlcube_mnist_train.log");
    assert!(ended.stdout.contains("/home/user/my cube/model/model.safetensors"), "{ended:#?}");
    assert!(!shown.contains(workspace.trim_end_matches('/')), "{shown}");
    let ended = task("evaluate --data_dir=data/none --log_dir=logs --model_dir=model");
    assert!(ended.stderr.contains("error: /home/user/my cube/data/none: "), "{ended:#?}");
    assert!(ended.stderr.contains("--data_dir='/home/user/my cube/data/none'"), "{ended:#?}");
}
