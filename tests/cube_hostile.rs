//! Files and arguments of a cube that are wrong on purpose or by mistake: each is refused clearly, soon, and in words that
//! cannot be mistaken for others.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::cube::{Cube, DOCKER, SINGULARITY};
use crate::common::{Ended, Sandbox, end};

const TRAIN: &str = "run --platform=platforms/docker.yaml --task=run/train.yaml";

/// Runs `mnist cube LINE` with one more argument.
fn with(cube: &Cube, line: &str, argument: impl AsRef<OsStr>) -> Ended {
    end(cube.command(line).arg(argument))
}

fn bytes(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(text.to_vec()))
}

// ---- paths that are not UTF-8

/// A workspace whose name is not UTF-8, with data and parameters.
fn odd_workspace(cube: &Cube) -> PathBuf {
    let workspace = cube.sandbox.path(bytes(b"w\xff"));
    fs::create_dir_all(workspace.join("parameters")).unwrap();
    fs::copy(
        cube.workspace("parameters/default.parameters.yaml"),
        workspace.join("parameters/default.parameters.yaml"),
    )
    .unwrap();
    mnist::data::synthetic::write(Path::new(&cube.workspace("data")), 300, 100).unwrap();
    fs::rename(cube.workspace("data"), workspace.join("data")).unwrap();
    workspace
}

fn argument(flag: &str, path: &Path) -> OsString {
    [OsStr::new(flag), path.as_os_str()].into_iter().collect()
}

#[test]
fn a_workspace_that_is_not_utf_8_is_kept_to_the_byte() {
    let cube = Cube::new();
    let workspace = odd_workspace(&cube);
    let line = "run --platform=platforms/native.yaml --task=run/train.yaml";
    with(&cube, line, argument("--workspace=", &workspace)).done();
    assert!(workspace.join("model/model.safetensors").is_file());
    let dry = with(&cube, &format!("{line} --dry_run"), argument("--workspace=", &workspace)).done();
    // The printed command leads to the same directory.
    let shell = std::process::Command::new("bash").arg("-c").arg(&dry.stdout).output();
    let Ok(shell) = shell else { return crate::common::skipped("no bash") };
    assert!(shell.status.success(), "{dry:#?} {shell:#?}");
}

#[test]
fn containers_refuse_a_path_that_is_not_utf_8() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    cube.has_image();
    let workspace = odd_workspace(&cube);
    fs::write(workspace.join("mlcommons_mlcube_mnist-0.01.simg"), "").unwrap();
    for platform in ["platforms/docker.yaml", "platforms/mlcube-0.0.3/singularity.yaml"] {
        let line = format!("run --platform={platform} --task=run/train.yaml");
        let ended = with(&cube, &line, argument("--workspace=", &workspace));
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains("cannot be mounted in a container: it is not UTF-8"), "{ended:#?}");
        assert!(!cube.sandbox.path("run").exists(), "nothing was started");
    }
    let mirror = cube.sandbox.path(bytes(b"m\xff"));
    fs::create_dir(&mirror).unwrap();
    let ended =
        end(cube.command("run --platform=platforms/docker.yaml --task=run/download.yaml").env("MNIST_MIRROR", &mirror));
    assert!(ended.stderr.contains("cannot be mounted in a container: it is not UTF-8"), "{ended:#?}");
}

#[test]
fn a_file_of_the_cube_whose_name_is_not_utf_8_is_read() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let odd = cube.sandbox.path("the cube/run").join(bytes(b"t\xff.yaml"));
    fs::rename(cube.sandbox.path("the cube/run/train.yaml"), &odd).unwrap();
    // A decoy where the replaced name leads.
    cube.write("run/t\u{fffd}.yaml", "schema_type: mlcube_invoke\n");
    let line = "run --platform=platforms/docker.yaml";
    with(&cube, line, argument("--task=", &odd)).done();
    fs::remove_file(cube.sandbox.path("the cube/run/t\u{fffd}.yaml")).unwrap();
    fs::write(&odd, "task_name: x\n").unwrap();
    let ended = cube.run("check");
    assert!(ended.stdout.contains("run/t\u{fffd}.yaml: schema_type: expected "), "{ended:#?}");
}

// ---- what a shell would have replaced

#[test]
fn tildes_and_other_variables_are_refused() {
    let cube = Cube::new().with("docker", DOCKER);
    let text = cube.sandbox.read("the cube/run/train.yaml");
    for value in ["~/mnist", "~", "~user/mnist", "$WORKSPACEx/data", "$WORKSPACE.old", "$HOME/mnist", "${WORKSPACE}/d"]
    {
        cube.write("run/train.yaml", text.replace("$WORKSPACE/data", &format!("'{value}'")));
        let fault = format!(
            "run/train.yaml:7: input_binding.data_dir: expected a path without variables and without ~ at its beginning, \
             or $WORKSPACE/..., found {value:?}"
        );
        let ended = cube.run("check");
        assert!(ended.stdout.lines().any(|line| line == fault), "{value}: {ended:#?}");
        let ended = cube.run(TRAIN);
        assert_eq!(ended.code, Some(1), "{value}: {ended:#?}");
    }
    // These are names like others.
    fs::create_dir_all(cube.workspace("a~1/~")).unwrap();
    for value in ["a~1", "$WORKSPACE/a~1/~", "$WORKSPACE//a~1"] {
        cube.write("run/train.yaml", text.replace("$WORKSPACE/data", value));
        cube.run(&format!("{TRAIN} --dry_run")).done();
    }
    cube.write(
        "platforms/home.yaml",
        "schema_version: 1.0.0\nschema_type: mlcube_singularity\nimage: ~/images/mnist.sif\n",
    );
    let ended = cube.run("configure --platform=platforms/home.yaml --dry_run");
    assert!(ended.stdout.contains("platforms/home.yaml:3: image: expected "), "{ended:#?}");
}

// ---- files that take long

const LIMIT: Duration = Duration::from_secs(1);

/// The time that `mnist cube check` takes with `text` as `file`, and its result. The best of some tries: other tests run
/// beside this one.
fn judged(file: &str, text: &[u8]) -> (Duration, Ended) {
    let cube = Cube::new();
    cube.write(file, text);
    let mut tries = (0..5).map(|_| {
        let begin = Instant::now();
        let ended = cube.run("check");
        (begin.elapsed(), ended)
    });
    let first = tries.next().unwrap();
    if first.0 < LIMIT { first } else { tries.find(|(time, _)| *time < LIMIT).unwrap_or(first) }
}

#[test]
fn every_file_is_judged_in_a_second() {
    let keys = |count: usize| (0..count).map(|n| format!("key{n}: 1\n")).collect::<String>();
    let long = "x".repeat(30_000);
    let cases = [
        ("flow mappings", "{a: ".repeat(40_000)),
        ("flow mappings, less", "{a: ".repeat(16_000)),
        ("flow lists", "[".repeat(65_000)),
        ("a few lists", format!("a: {}", "[".repeat(490)) + &"x, ".repeat(20_000)),
        ("block lists", "- ".repeat(32_000)),
        ("block keys", "? ".repeat(32_000)),
        ("unknown keys", keys(20_000)),
        ("unknown keys, less", keys(5_000)),
        ("items", format!("inputs:\n{}", "- a: 1\n".repeat(9_000))),
        ("bindings", format!("schema_type: mlcube_invoke\ninput_binding:\n{}", keys(4_000).replace("key", "  key"))),
        ("aliases of a text", format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(10_000))),
        (
            "aliases of aliases",
            (b'b'..=b'z').fold(format!("a: &a {long}\n"), |text, letter| {
                let (name, before) = (letter as char, (letter - 1) as char);
                text + &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","))
            }),
        ),
        ("a long key", format!("{long}: 1\n? {long}b\n: 1\n")),
        ("quotes", "'".repeat(60_000)),
        ("anchors", (0..8_000).map(|n| format!("- &a{n}\n")).collect()),
        ("colons", ": ".repeat(30_000)),
    ];
    for (name, text) in &cases {
        for file in ["run/train.yaml", "platforms/docker.yaml", "tasks/train.yaml", "mlcube.yaml"] {
            let (time, ended) = judged(file, text.as_bytes());
            assert!(time < LIMIT, "{name} as {file}: {time:?}");
            assert_eq!(ended.code, Some(1), "{name} as {file}");
            let lines = ended.stdout.lines().count();
            assert!((1..=51).contains(&lines), "{name} as {file}: {lines} lines");
            assert!(ended.stdout.len() < 100_000, "{name} as {file}: {} bytes", ended.stdout.len());
        }
        let (time, _) = judged("workspace/parameters/default.parameters.yaml", text.as_bytes());
        assert!(time < LIMIT, "{name} as parameters: {time:?}");
    }
}

#[test]
fn at_most_fifty_faults_are_shown_and_the_number_of_the_rest() {
    let keys: String = (0..60).map(|n| format!("key{n}: 1\n")).collect();
    let cube = Cube::new();
    cube.write("platforms/docker.yaml", cube.sandbox.read("the cube/platforms/docker.yaml") + &keys);
    let ended = cube.run("check");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!((lines.len(), lines[50]), (51, "and 10 more faults"), "{ended:#?}");
    assert!(lines[49].contains("key49"), "{ended:#?}");
    ended.failed_with(".: 60 faults in the cube's files");
}

// ---- encodings

#[test]
fn a_byte_order_mark_is_taken_and_utf_16_is_named() {
    let utf_16 = |text: &str, little: bool, mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    };
    let files = [
        "mlcube.yaml",
        "tasks/train.yaml",
        "run/train.yaml",
        "platforms/docker.yaml",
        "workspace/parameters/default.parameters.yaml",
    ];
    for file in files {
        let cube = Cube::new();
        let text = cube.sandbox.read(&format!("the cube/{file}"));
        let text = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        cube.write(file, format!("\u{feff}{text}"));
        cube.run("check").done();
        for (little, mark) in [(true, true), (false, true), (true, false), (false, false)] {
            cube.write(file, utf_16(&text, little, mark));
            let ended = cube.run("check");
            let fault = format!("{file}: expected UTF-8, found UTF-16: save it as UTF-8 (");
            assert!(ended.stdout.contains(&fault), "{file}: {ended:#?}");
        }
        cube.write(file, b"schema_type: 1\nname: M\xfcller\n");
        let ended = cube.run("check");
        assert!(ended.stdout.contains(&format!("{file}:2: expected UTF-8, found ")), "{file}: {ended:#?}");
    }
}

#[test]
fn a_parameters_file_of_train_may_have_a_byte_order_mark() {
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", format!("\u{feff}{}", crate::common::PARAMETERS));
    sandbox.train("").done();
}

// ---- options in place of names

#[test]
fn an_image_that_reads_as_an_option_is_refused_everywhere() {
    let cube = Cube::new().with("docker", DOCKER).with("singularity", SINGULARITY);
    cube.has_image();
    let platform = |kind: &str, image: &str| match kind {
        "mlcube_platform" => format!(
            "schema_version: 1.0.0\nschema_type: mlcube_platform\nplatform: {{ name: docker, version: '1' }}\n\
             container: {{ image: {image:?} }}\n"
        ),
        "mlcube_docker" => {
            format!("schema_version: 1.0.0\nschema_type: {kind}\ndocker_runtime: docker\nimage: {image:?}\n")
        }
        _ => format!("schema_version: 1.0.0\nschema_type: {kind}\nimage: {image:?}\n"),
    };
    let cases = [
        ("mlcube_docker", "--privileged"),
        ("mlcube_docker", "-v=/:/host"),
        ("mlcube_docker", "a b"),
        ("mlcube_docker", "a/b:c\n--privileged"),
        ("mlcube_platform", "--privileged"),
        ("mlcube_singularity", "--writable"),
        ("mlcube_singularity", "-w"),
    ];
    for (kind, image) in cases {
        cube.write("platforms/odd.yaml", platform(kind, image));
        for line in [
            "check",
            "configure --platform=platforms/odd.yaml",
            "run --platform=platforms/odd.yaml --task=run/download.yaml",
            "run --platform=platforms/odd.yaml --task=run/download.yaml --dry_run",
        ] {
            let ended = cube.run(line);
            assert_eq!(ended.code, Some(1), "{image} with {line}: {ended:#?}");
            assert!(ended.stdout.contains("image: expected "), "{image} with {line}: {ended:#?}");
            assert!(!cube.sandbox.path("run").exists() && !cube.sandbox.path("build").exists());
        }
    }
    fs::remove_file(cube.sandbox.path("the cube/platforms/odd.yaml")).unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("mlcube-2.0.yaml")).unwrap();
    cube.write("mlcube-2.0.yaml", text.replace("mlcommons/mlcube:mnist", "--privileged"));
    let ended = cube.run("check");
    assert!(ended.stdout.contains("docker.image: expected "), "{ended:#?}");
}

#[test]
fn a_task_whose_name_reads_as_an_option_is_refused() {
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    fs::rename(cube.sandbox.path("the cube/tasks/download.yaml"), cube.sandbox.path("the cube/tasks/--help.yaml"))
        .unwrap();
    for file in ["mlcube.yaml", "run/download.yaml"] {
        let text = cube.sandbox.read(&format!("the cube/{file}"));
        cube.write(file, text.replace("tasks/download", "tasks/--help").replace("name: download", "name: --help"));
    }
    let ended = cube.run("run --platform=platforms/docker.yaml --task=run/download.yaml");
    assert!(ended.stdout.contains("expected a task that the program has, found --help"), "{ended:#?}");
    assert!(!cube.sandbox.path("run").exists());
}

// ---- control characters

/// No character that a terminal obeys, and no line that does not begin as ours do.
#[track_caller]
fn is_plain(text: &str, what: &str) {
    let odd = text.chars().find(|c| c.is_control() && *c != '\n' || "\u{202e}\u{2028}".contains(*c));
    assert_eq!(odd, None, "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{what}: {text:?}");
}

const ODD: &str = "a\u{1b}[31m\u{7}\nforged\r\u{9b}b\u{202e}";

#[test]
fn no_name_or_value_writes_control_characters() {
    let cube = Cube::new().with("docker", DOCKER);
    let (odd, all) = (Path::new(ODD), "download train evaluate predict");
    for task in all.split(' ') {
        let mut command = cube.sandbox.program();
        command.arg(task);
        let flags: &[&str] = match task {
            "download" => &["data_dir", "log_dir"],
            "evaluate" => &["data_dir", "log_dir", "model_dir"],
            "predict" => &["model_dir"],
            _ => &["data_dir", "log_dir", "model_dir", "parameters_file"],
        };
        flags.iter().for_each(|flag| _ = command.arg(argument(&format!("--{flag}="), odd)));
        command.args((task == "download").then_some("--mirror=none\u{1b}[0m\nforged"));
        command.args((task == "predict").then_some(odd));
        let ended = end(&mut command);
        assert_ne!(ended.code, Some(0), "{ended:#?}");
        is_plain(&format!("{}{}", ended.stdout, ended.stderr), task);
    }
    cube.write(&format!("run/{}.yaml", ODD), "a: 1\n");
    cube.write(
        "run/other.yaml",
        format!("task_name: {ODD:?}\n{ODD:?}: 1\n").replace("\\u{", "\\U000000").replace('}', ""),
    );
    cube.write("platforms/other.yaml", "schema_type: \"a\\e[31m\\nforged\"\n");
    for line in ["check", "clean --yes", "configure --platform=platforms/other.yaml"] {
        let ended = cube.run(line);
        is_plain(&format!("{}{}", ended.stdout, ended.stderr), line);
    }
    for flag in ["--mlcube=", "--platform=", "--task=", "--workspace=", "--odd=", "--dry_run="] {
        let ended = with(&cube, &format!("{TRAIN} --dry_run"), argument(flag, odd));
        is_plain(&format!("{}{}", ended.stdout, ended.stderr), flag);
    }
    let refused = Cube::new().with("docker", "printf 'no\\033[31m \\r\\a engine\\n' >&2; exit 1");
    is_plain(&refused.run(TRAIN).stderr, "docker");
}

#[test]
fn no_name_writes_control_characters_into_a_log_or_a_table() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let picture = sandbox.path(format!("{ODD}.pgm"));
    fs::write(&picture, [b"P5 28 28 255\n".as_slice(), &[200; 300], &[0; 100], &[200; 384]].concat()).unwrap();
    for json in ["", "--json"] {
        let mut command = sandbox.program();
        command.args(["predict", "--model_dir=model"]).args((!json.is_empty()).then_some(json)).arg(&picture);
        let ended = end(&mut command).done();
        is_plain(&ended.stdout, json);
        if !json.is_empty() {
            let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(answer["image"].as_str().unwrap(), picture.display().to_string());
        }
    }
    let mut command = sandbox.program();
    command.args(["train", "--data_dir=data", "--log_dir=logs", "--parameters_file=parameters.yaml"]);
    let ended = end(command.arg(argument("--model_dir=", Path::new(ODD)))).done();
    is_plain(&format!("{}{}", ended.stdout, ended.stderr), "train");
    let mut command = sandbox.program();
    command.args(["evaluate", "--data_dir=data", "--log_dir=logs"]);
    let ended = end(command.arg(argument("--model_dir=", Path::new("n\u{1b}[0m\nforged"))));
    is_plain(&ended.stderr, "evaluate");
    for log in ["mlcube_mnist_train.log", "mlcube_mnist_evaluate.log", "mllog_train.log"] {
        is_plain(&sandbox.read(&format!("logs/{log}")), log);
    }
}

// ---- arguments that are something else

#[test]
fn wrong_arguments_say_what_was_expected() {
    let cube = Cube::new().with("docker", DOCKER);
    let refused = |line: &str, message: &str| {
        let ended = cube.run(line);
        assert_eq!(ended.code, Some(2), "{line}: {ended:#?}");
        assert_eq!(ended.stdout, "", "{line}");
        assert_eq!(ended.stderr, format!("error: {message}\n"), "{line}");
    };
    let platform = "expected a platform file, or the name of one in platforms/, found";
    let task = "expected a run configuration, or the name of one in run/, found";
    let platforms = "hint: known are docker, kubernetes, native, podman, singularity, slurm, ssh";
    let mlcube = "expected the cube's directory, or its file, such as mlcube.yaml, found";
    refused("configure --platform=lxc", &format!("--platform=lxc: {platform} nothing of this name\n{platforms}"));
    refused("configure --platform=platforms", &format!("--platform=platforms: {platform} a directory\n{platforms}"));
    let trian = format!("--task=trian: {task} nothing of this name\nhint: did you mean train?");
    refused("run --platform=docker --task=trian", &trian);
    refused("run --platform=platforms/docker.yaml --task=download,trian", &trian);
    let known = "hint: known are download, evaluate, train, train-8gpu, train-accurate, train-best, train-fast, train-gpu, \
                 train-sgd";
    refused("run --platform=docker --task=x", &format!("--task=x: {task} nothing of this name\n{known}"));
    for command in ["check", "clean", "configure --platform=platforms/docker.yaml", TRAIN] {
        for (given, found) in [
            ("none", "nothing of this name"),
            ("run", "a directory without mlcube.yaml"),
            ("platforms/docker.yaml", "another file"),
        ] {
            let hint = "give --mlcube=DIR, or change into the cube's directory";
            refused(
                &format!("{command} --mlcube={given}"),
                &format!("--mlcube={given}: {mlcube} {found}\nhint: {hint}"),
            );
        }
    }
    fs::remove_dir_all(cube.sandbox.path("the cube/run")).unwrap();
    let none = format!("--task=x: {task} nothing of this name\nhint: ./run has no files *.yaml");
    refused("run --platform=docker --task=x", &none);
    // No empty names.
    cube.write("mlcube.yaml", "name: 1\n");
    cube.run("configure --mlcube=mlcube.yaml --platform=platforms/docker.yaml --dry_run").done();
    let ended = cube.run("clean --mlcube=mlcube.yaml");
    assert!(ended.stderr.contains("error: .: "), "{ended:#?}");
}

#[test]
fn a_link_to_nothing_in_place_of_a_directory_is_named() {
    let sandbox = Sandbox::with_data();
    symlink("gone", sandbox.path("link")).unwrap();
    for place in ["link", "link/logs"] {
        let ended = sandbox.run(&format!("evaluate --data_dir=data --model_dir=model --log_dir={place}"));
        ended.failed_with(
            "link: expected a directory, found a link to gone, which is not there\n\
             hint: make the directory that it leads to, or give another one",
        );
    }
}
