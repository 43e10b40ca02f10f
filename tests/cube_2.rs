//! `mnist cube` with cubes of configuration 2.0: one file with tasks and platforms. Scripts stand in for docker and
//! singularity; `cube_published.rs` compares with the published runner.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::common::Ended;
use crate::common::cube::{Cube, DOCKER, OneFileCube, SUDO};

pub const HELLO: &str = "name: hello_world
docker:
  image: somebody/hello_world:0.0.1
singularity:
  image: hello_world.sif
tasks:
  hello:
    parameters:
      inputs:
        name: {type: file, default: names/alice.txt}
      outputs:
        chat: {type: directory, default: chats}
  bye:
    entrypoint: /bin/bye
    parameters:
      inputs:
        chat_in: {type: directory, default: chats, opts: rw}
      outputs:
        log: log/
";

pub fn hello() -> OneFileCube {
    let cube = OneFileCube::new(HELLO, &["names/alice.txt"]);
    cube.sandbox.write("image", "null");
    cube
}

/// A cube in which `from` is `to`, with its image.
#[track_caller]
pub fn with(from: &str, to: &str) -> OneFileCube {
    assert!(HELLO.contains(from), "no {from:?}");
    let cube = OneFileCube::new(&HELLO.replacen(from, to, 1), &["names/alice.txt"]);
    cube.sandbox.write("image", "null");
    cube
}

#[track_caller]
fn finds(from: &str, to: &str, fault: &str) {
    for command in ["check", "run --platform=docker --task=hello"] {
        let ended = with(from, to).run(command);
        assert_eq!(ended.stdout, format!("{fault}\n"), "{command}: {ended:#?}");
        ended.failed_with(".: 1 fault in the cube's files");
    }
}

#[test]
fn tasks_run_one_after_the_other_until_one_fails() {
    let cube = hello();
    cube.run("run --platform=docker --task=hello,bye,hello").done();
    let calls = cube.calls();
    let last = |call: &Vec<String>, count: usize| call[call.len() - count..].to_vec();
    let mount = |name: &str, n: usize, more: &str| {
        format!("--mount=type=bind,source={},target=/mlcube_io{n}{more}", cube.workspace(name))
    };
    let image = "somebody/hello_world:0.0.1";
    let greeted = [&mount("names", 0, ",readonly"), &mount("chats", 1, ""), image, "hello"];
    let flags = ["--name=/mlcube_io0/alice.txt", "--chat=/mlcube_io1"];
    assert_eq!(last(&calls[0], 6), [&greeted[..], &flags].concat());
    // `opts` lets the task write into its input. Its program gets all its arguments.
    let bye = ["--entrypoint=/bin/bye", image, "--chat_in=/mlcube_io0", "--log=/mlcube_io1"];
    assert_eq!(last(&calls[1], 6), [&[&*mount("chats", 0, ""), &mount("log", 1, "")][..], &bye].concat());
    assert_eq!(last(&calls[2], 6), last(&calls[0], 6));
    for name in ["MLCUBE_NAME=hello_world", "MLCUBE_TASK_NAME=bye"] {
        assert!(calls[1].contains(&format!("--env={name}")), "{calls:#?}");
    }

    let script = r#"case "$1 $*" in version*) echo 28 ;; info*) echo [] ;; image*) echo null ;;
        run*/bin/bye*) echo bye >>"$HERE/order"; exit 3 ;; run*) echo hello >>"$HERE/order" ;; esac"#;
    cube.program("docker", script);
    let ended = cube.run("run --platform=docker --task=hello,bye,hello");
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert!(ended.stderr.contains("error: task bye: exit status: 3"), "{ended:#?}");
    assert_eq!(cube.sandbox.read("order"), "hello\nbye\n");
    // Unknown names are found before anything runs.
    let ended = cube.run("run --platform=docker --task=hello,byee");
    let expected =
        "error: --task=byee: expected a task of the cube, found none of this name\nhint: did you mean bye?\n";
    assert_eq!((&*ended.stderr, ended.code), (expected, Some(2)));
    assert_eq!(cube.sandbox.read("order"), "hello\nbye\n");
}

#[test]
fn singularity_runs_the_image_or_a_program_in_it() {
    let cube = hello();
    cube.write("Singularity.recipe", "");
    cube.run("run --platform=singularity --task=hello").done();
    let calls = cube.calls();
    let image = cube.workspace(".image/hello_world.sif");
    assert_eq!(calls[0][..2], ["build", "--fakeroot"]);
    assert!(fs::read_to_string(&image).is_ok(), "{calls:#?}");
    let bind = |name: &str, n: usize, more: &str| format!("{}:/mlcube_io{n}{more}", cube.workspace(name));
    let mounts = ["run", "--bind", &bind("names", 0, ":ro"), "--bind", &bind("chats", 1, "")];
    assert_eq!(
        calls[1],
        [&mounts[..], &[&image, "hello", "--name=/mlcube_io0/alice.txt", "--chat=/mlcube_io1"]].concat()
    );
    cube.run("run --platform=singularity --task=bye -Psingularity.--nv=true -Psingularity.run_args=-C").done();
    let mounts = ["exec", "-C", "--nv", "--bind", &bind("chats", 0, ""), "--bind", &bind("log", 1, "")];
    assert_eq!(
        cube.calls()[0],
        [&mounts[..], &[&image, "/bin/bye", "--chat_in=/mlcube_io0", "--log=/mlcube_io1"]].concat()
    );
}

#[test]
fn a_wrong_argument_is_no_fault_of_our_own_file() {
    let cube = Cube::new();
    let run = "run --mlcube=mlcube-2.0.yaml --platform=docker --task=train --dry_run";
    for argument in ["model_dir=../m", "model_dir="] {
        let ended = cube.run(&format!("{run} {argument}"));
        assert_eq!(ended.code, Some(2), "{ended:#?}");
        assert!(ended.stdout.contains(&format!("{argument}: tasks.train.parameters.outputs.model_dir")), "{ended:#?}");
        assert!(!ended.stdout.contains("found none"), "{ended:#?}");
    }
}

#[test]
fn our_own_file_runs_with_the_label_check() {
    let cube = Cube::new().with("docker", DOCKER);
    let ended = cube.run("check --mlcube=mlcube-2.0.yaml").done();
    assert_eq!(ended.stdout, "mlcube-2.0.yaml: 2 files are right, tasks download, train, evaluate\n");
    cube.has_image();
    cube.run("run --mlcube=mlcube-2.0.yaml --platform=docker --task=download,train").done();
    assert_eq!(cube.wrote("run").last().unwrap(), "--model_dir=/mlcube_io3");
    cube.sandbox.write("image", r#"{"Labels":{},"Entrypoint":["python3"]}"#);
    for platform in ["docker", "platforms/docker.yaml"] {
        let ended = cube.run(&format!("run --mlcube=mlcube-2.0.yaml --platform={platform} --task=train"));
        assert!(ended.stderr.contains("expected this program's image"), "{ended:#?}");
    }
    // A native platform is this program.
    let ended = cube.run("run --mlcube=mlcube-2.0.yaml --platform=native --task=train --dry_run").done();
    assert!(ended.stdout.ends_with(&format!("'--model_dir={}'\n", cube.workspace("model"))), "{ended:#?}");
    let text = cube.sandbox.read("the cube/mlcube-2.0.yaml");
    for (from, to, fault) in [
        (
            "log_dir: train_logs/",
            "logdir: train_logs/",
            "33: tasks.train.parameters.outputs.logdir: expected a flag of",
        ),
        (
            "log_dir: train_logs/",
            "log_dir: {type: file, default: x}",
            "33: tasks.train.parameters.outputs.log_dir.type: expected directory, found file",
        ),
        (
            "default.parameters.yaml",
            "no.yaml",
            "31: tasks.train.parameters.inputs.parameters_file.default: expected a file ",
        ),
    ] {
        cube.write("mlcube-2.0.yaml", text.replace(from, to));
        let ended = cube.run("check --mlcube=mlcube-2.0.yaml");
        assert!(ended.stdout.contains(fault) && ended.code == Some(1), "{fault}: {ended:#?}");
    }
    cube.write("workspace/parameters/default.parameters.yaml", "batch_size: 0\n");
    cube.write("mlcube-2.0.yaml", text);
    let ended = cube.run("check --mlcube=mlcube-2.0.yaml");
    assert!(ended.stdout.contains("default.parameters.yaml:1: batch_size: "), "{ended:#?}");
}

#[test]
fn a_cube_of_another_program_stands_alone() {
    let cube = hello();
    assert_eq!(cube.run("check").done().stdout, ".: 1 file is right, tasks hello, bye\n");
    let elsewhere = cube.sandbox.path("cube/other.yaml");
    fs::rename(cube.sandbox.path("cube/mlcube.yaml"), &elsewhere).unwrap();
    let ended = cube.run("check --mlcube=other.yaml").done();
    assert_eq!(ended.stdout, "other.yaml: 1 file is right, tasks hello, bye\n");
    let ended = cube.run("describe --mlcube=other.yaml").done();
    assert!(ended.stdout.contains("    name = bye, inputs = ['chat_in'], outputs = ['log']\n"), "{ended:#?}");
    assert!(ended.stdout.contains(&format!(" cube run --task=bye --mlcube={} ", elsewhere.display())), "{ended:#?}");
    cube.write("platforms/native.yaml", "schema_version: 1.0.0\nschema_type: mlcube_native\n");
    cube.run("run --mlcube=other.yaml --platform=native --task=hello").failed_with(
        "native: expected a task of this program, found hello of the cube hello_world\n\
         hint: give a platform with containers, such as Docker",
    );
    let docker = "schema_version: 1.0.0\nschema_type: mlcube_docker\ndocker_runtime: docker\nimage: ";
    cube.write("platforms/mine.yaml", format!("{docker}mine/hello:1\n"));
    let ended = cube.run("run --mlcube=other.yaml --platform=mine --task=bye");
    let expected = format!(
        "chat_in: expected a directory {}, found none\nhint: run the task hello first",
        cube.workspace("chats")
    );
    assert!(ended.stderr.contains(&expected), "{ended:#?}");
    let ssh = "schema_version: 1.0.0\nschema_type: mlcube_ssh\nhost: far\nplatform: docker.yaml\n";
    cube.write("platforms/ssh.yaml", ssh);
    cube.write("platforms/docker.yaml", format!("{docker}mine/hello:1\n"));
    let ended = cube.run("run --mlcube=other.yaml --platform=ssh --task=hello");
    let expected = "--platform=./platforms/ssh.yaml: expected a platform of this machine for a cube of one file, found \
                    mlcube_ssh: it runs cubes with tasks/ and run/, as --mlcube=DIR names one\n";
    assert_eq!((&*ended.stdout, ended.code), (expected, Some(2)));
    assert_eq!(ended.stderr, "error: 1 fault in the arguments\n");
    cube.write(
        "platforms/k8s.yaml",
        "schema_version: 1.0.0\nschema_type: mlcube_k8s\nimage: mine/hello:1\npvc: mine\n",
    );
    fs::create_dir_all(cube.workspace("chats")).unwrap();
    let ended = cube.run("run --mlcube=other.yaml --platform=k8s --task=bye --dry_run").done();
    assert!(ended.stdout.contains("        command:\n        - /bin/bye\n        - --chat_in="), "{ended:#?}");
}

#[test]
fn interpolations_that_are_wrong_are_found() {
    finds("name: hello_world", "name: 5", "mlcube.yaml:1: name: expected a text, found 5");
    with("docker:\n", "docker: ${engine}\nengine:\n").run("run --platform=docker --task=hello").done();
    let image = "image: somebody/hello_world:0.0.1";
    let docker = "mlcube.yaml:3: docker.image: expected";
    finds(image, "image: ${nmae}:1", &format!("{docker} a key of this file, found ${{nmae}}: did you mean name?"));
    let circle = "mlcube.yaml:3: docker.image: expected a value that does not depend on itself, found docker.image -> \
                  docker.image";
    finds(image, "image: a${docker.image}", circle);
    let functions = "${KEY}, ${oc.env:NAME} or ${oc.env:NAME,DEFAULT}";
    finds(image, "image: ${oc.dict.keys:a}", &format!("{docker} {functions}, found ${{oc.dict.keys:...}}"));
}

#[test]
fn arguments_types_and_paths_that_are_wrong_are_found() {
    let name = "mlcube.yaml:10: tasks.hello.parameters.inputs.name";
    for (from, to, fault) in [
        (
            "image: somebody/hello_world:0.0.1",
            "image: '-v'",
            "mlcube.yaml:3: docker.image: expected the name of an image, such as mlcommons/mlcube:mnist, found \"-v\"".into(),
        ),
        (
            "  image: somebody/hello_world:0.0.1",
            "  image: a\n  cpu_args: --user $(id -u)",
            "mlcube.yaml:4: docker.cpu_args: expected arguments without what a shell acts on, or names with values, found \
             \"--user $(id -u)\""
                .into(),
        ),
        (
            "  image: somebody/hello_world:0.0.1",
            "  image: a\n  docker: /bin/sh",
            "mlcube.yaml:4: docker.docker: expected docker, podman, sudo docker or sudo podman, found \"/bin/sh\"".into(),
        ),
        ("{type: file, default: names/alice.txt}", "5", format!("{name}: expected a path, or the keys default, type and opts, found 5")),
        ("type: file,", "type: fiel,", format!("{name}.type: expected file or directory, found \"fiel\"")),
        ("default: names/alice.txt}", "default: [a]}", format!("{name}.default: expected a path, found a list")),
        ("names/alice.txt}", "names/}", format!("{name}.default: expected the path of a file, found \"names/\"")),
        (
            "names/alice.txt}",
            "names/../../alice.txt}",
            format!("{name}.default: expected a path in the workspace, or an absolute one, found \"names/../../alice.txt\""),
        ),
        ("names/alice.txt}", "~bob/a}", format!("{name}.default: expected a path, without the name of a user, found \"~bob/a\"")),
        (
            "names/alice.txt}",
            "$NO_SUCH/a}",
            format!("{name}.default: expected a value in the environment variable NO_SUCH, found \"$NO_SUCH/a\""),
        ),
        ("names/alice.txt}", "a, opts: x}", format!("{name}.opts: expected ro or rw, found \"x\"")),
        (
            "chat: {type: directory, default: chats}",
            "chat: chats",
            "mlcube.yaml:12: tasks.hello.parameters.outputs.chat: expected type: file, or a directory's path that ends in a \
             slash, found \"chats\""
                .into(),
        ),
        (
            "entrypoint: /bin/bye",
            "entrypoint: a; b",
            "mlcube.yaml:14: tasks.bye.entrypoint: expected a program with its arguments, without what a shell acts on, found \
             \"a; b\""
                .into(),
        ),
        ("      inputs:\n        name: {type: file, default: names/alice.txt}", "      inputs: [a]", "mlcube.yaml:9: tasks.hello.parameters.inputs: expected names with values, found a list".into()),
        ("name: hello_world", "name: a\nplatform: {accelerator_count: two}", "mlcube.yaml:2: platform.accelerator_count: expected a whole number, found \"two\"".into()),
    ] {
        finds(from, to, &fault);
    }
}

#[test]
fn a_file_without_tasks_or_platform_is_named() {
    let tasks = HELLO.find("tasks:").unwrap();
    for yaml in [HELLO[..tasks].to_string(), format!("{}tasks: {{}}\n", &HELLO[..tasks])] {
        let ended = OneFileCube::new(&yaml, &[]).run("check");
        assert!(ended.stdout.contains("tasks: expected the cube's tasks, found none"), "{ended:#?}");
    }
    let ended = OneFileCube::new(&HELLO[HELLO.find("tasks:").unwrap()..], &[]).run("check");
    assert!(ended.stdout.contains("mlcube.yaml: expected a section docker or singularity, found none"), "{ended:#?}");
}

#[test]
fn a_cube_with_tasks_and_runs_has_no_configuration_to_change() {
    let cube = Cube::new().with("docker", DOCKER);
    let hint = "hint: give the file of such a cube, as in --mlcube=mlcube-2.0.yaml";
    for (line, what) in [
        ("run --platform=docker --task=train -Pdocker.image=a", "-Pdocker.image=a"),
        ("run --platform=docker --task=train data_dir=x", "data_dir=x"),
        ("configure --platform=docker -Pa=b", "-Pa=b"),
        ("show_config", "show_config"),
    ] {
        let expected =
            format!("error: {what}: expected a cube of configuration 2.0, found one with tasks/ and run/\n{hint}\n");
        let ended = cube.run(line);
        assert_eq!((ended.stderr, ended.code), (expected, Some(2)));
    }
    cube.has_image();
    cube.run("run --platform=docker --task=download,train").done();
    assert_eq!(cube.wrote("run").last().unwrap(), "--model_dir=/mlcube_io3");
    let ended = cube.run("describe").done();
    assert!(ended.stdout.contains("  name = mnist:0.1.0\n"), "{ended:#?}");
    assert!(
        ended.stdout.contains(" --platform=docker\n") && ended.stdout.contains("run --task=run/train-fast.yaml "),
        "{ended:#?}"
    );
}

#[test]
fn inputs_come_into_another_workspace_whole() {
    let cube = hello();
    cube.write("workspace/chats/a/b.txt", "hi");
    cube.run("run --platform=docker --task=hello,bye --workspace=../other").done();
    assert!(cube.sandbox.path("other/names/alice.txt").is_file());
    // Outputs of tasks are not copied.
    assert!(!cube.sandbox.path("other/chats/a").exists());
    let theirs = cube.sandbox.path("other/names/alice.txt");
    fs::write(&theirs, "mine").unwrap();
    cube.run("run --platform=docker --task=hello --workspace=../other").done();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "mine");
    cube.write("mlcube.yaml", HELLO.replace("{type: file, default: names/alice.txt}", "names/"));
    cube.run("run --platform=docker --task=hello --workspace=../third").done();
    assert!(cube.sandbox.path("third/names/alice.txt").is_file());
    assert_eq!(cube.sandbox.files("third"), ["chats", "names"]);
    // A link back to where it is would have no end.
    symlink(".", cube.workspace("names/again")).unwrap();
    let ended = cube.run("run --platform=docker --task=hello --workspace=../fourth");
    assert!(ended.code == Some(1) && ended.stderr.contains("names/again: cannot read: "), "{ended:#?}");
    assert_eq!(cube.sandbox.files("fourth"), [""; 0]);
}

#[test]
fn an_input_that_is_missing_is_named() {
    let cube = with("type: file, default: names/alice.txt", "default: names/bob.txt");
    let path = cube.workspace("names/bob.txt");
    cube.run("run --platform=docker --task=hello").failed_with(&format!(
        "name: expected a file or directory {path}, found none\nhint: name the right path in the cube's file, or give it as \
         NAME=PATH; a relative path is below the workspace"
    ));
    let cube = hello();
    let names = cube.workspace("names");
    cube.run("run --platform=docker --task=hello name=names").failed_with(&format!(
        "name: expected a file {names}, found a directory\nhint: name the right path in the cube's file, or give it as \
         NAME=PATH"
    ));
    symlink("gone", cube.workspace("link")).unwrap();
    let ended = cube.run("run --platform=docker --task=hello name=link");
    assert!(ended.stderr.contains("workspace/link, found a link to nothing\n"), "{ended:#?}");
    let ended = with("alice.txt", "null").run("run --platform=docker --task=hello").done();
    assert!(!ended.stderr.contains("null: "), "{ended:#?}");
}

#[test]
fn images_are_pulled_built_or_inspected() {
    let cube = OneFileCube::new(HELLO, &["names/alice.txt"]);
    cube.run("run --platform=docker --task=hello").done();
    assert_eq!(cube.calls()[0], ["pull", "somebody/hello_world:0.0.1"]);
    assert_eq!(cube.run("inspect").done().stdout, "{\"hash\":\"0f0f\"}\n");
    cube.write("Dockerfile", "");
    for _ in 0..2 {
        cube.run("run --platform=docker --task=hello -Pdocker.build_strategy=always").done();
        let calls = cube.calls();
        let words: Vec<&str> = calls.iter().map(|call| &*call[0]).collect();
        assert_eq!(words, ["build", "run"]);
    }
    let ended = cube.run("inspect --platform=singularity");
    let image = cube.workspace(".image/hello_world.sif");
    let hint = "hint: make it with `mnist cube configure`, with the same flags";
    ended.failed_with(&format!("{image}: expected an image, found none\n{hint}"));
    let recipe = cube.sandbox.path("cube").display().to_string();
    cube.run("configure --platform=singularity")
        .failed_with(&format!("{image}: not there, and {recipe} has no Singularity.recipe to build it from\nhint: copy the image there, or give the cube with its build directory as --mlcube"));
    cube.write("workspace/.image/hello_world.sif", "abc");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(cube.run("inspect --platform=singularity").done().stdout, format!("{}\n", json!({ "hash": hash })));

    cube.program("docker", r#"case "$1" in version) echo 28 ;; info) echo [] ;; *) exit 1 ;; esac"#);
    let dockerfile = cube.sandbox.path("cube/Dockerfile").display().to_string();
    cube.run("configure --platform=docker -Pdocker.build_context=nope -Pdocker.build_strategy=auto").failed_with(
        &format!(
            "somebody/hello_world:0.0.1: the image could not be pulled; see the output above\n\
         hint: see whether `image` is in its registry; nor is there {} to build it from, where `build_context` and \
         `build_file` lead",
            cube.sandbox.path("cube/nope/Dockerfile").display()
        ),
    );
    cube.run("configure --platform=docker").failed_with(&format!(
        "somebody/hello_world:0.0.1: the image could not be pulled; see the output above\n\
         hint: build it from {dockerfile} with -Pdocker.build_strategy=auto"
    ));
    let record = crate::common::cube::RECORDING_DOCKER.replace(" END", " \"proxy $https_proxy\" END");
    cube.program("podman", &record);
    cube.program("sudo", SUDO);
    for program in ["podman", "sudo podman"] {
        let mut command = cube.sandbox.program();
        command.args(["cube", "run", "--platform=docker", "--task=hello"]).arg(format!("-Pdocker.docker={program}"));
        cube.in_place(command.env("https_proxy", "http://p:1")).done();
        let calls = cube.calls();
        let call = calls.iter().find(|call| call[0] == "run").unwrap();
        assert!(call.contains(&"--security-opt=label=disable".into()));
        assert!(call.contains(&"--env=https_proxy".into()) && call.contains(&"proxy http://p:1".into()), "{call:#?}");
    }
}

#[test]
fn apptainer_is_asked_alone_where_the_file_names_it() {
    let cube = hello();
    cube.program("singularity", "exit 9");
    cube.program("apptainer", crate::common::cube::RECORDING_SINGULARITY);
    cube.write("Singularity.recipe", "");
    cube.run("run --platform=singularity --task=hello -Psingularity.singularity=apptainer").done();
    assert_eq!(cube.calls().len(), 2, "it builds the image and runs it");
}

#[test]
fn a_key_that_is_no_text_is_a_fault() {
    let cube = hello();
    for odd in ["-Px={? {a: b} : c}", "-Px={? !t a : c}", "-Px=[{? [a] : c}]"] {
        let ended = cube.in_place(cube.sandbox.program().args(["cube", "show_config", odd]));
        assert!(ended.code == Some(2) || ended.code == Some(1), "{ended:#?}");
        assert!((ended.stdout.clone() + &ended.stderr).contains("expected keys that are texts, found "), "{ended:#?}");
    }
}

#[test]
fn a_container_has_one_network() {
    let cube = hello();
    for (more, network) in [
        ("", "--network=host"),
        ("-Pdocker.--network=none", "--network=none"),
        ("-Pdocker.cpu_args=--net=bridge", "--net=bridge"),
    ] {
        cube.run(&format!("run --platform=docker --task=hello {more}")).done();
        let call = cube.calls().concat();
        assert_eq!(call.iter().filter(|word| word.starts_with("--net")).collect::<Vec<_>>(), [network]);
    }
}

#[test]
fn a_task_of_any_name_gets_a_container_of_a_name_that_docker_takes() {
    let cube = with("  hello:", "  héllo you:");
    let arguments = ["cube", "run", "--platform=docker", "--dry_run", "--task=héllo you"];
    let ended = cube.in_place(cube.sandbox.program().args(arguments));
    assert!(ended.stdout.contains(" --name=mlcube_h-llo-you_"), "{ended:#?}");
}

#[test]
fn a_faulty_file_of_any_name_is_read_as_far_as_it_goes() {
    let cube = Cube::new();
    let good = cube.sandbox.read("the cube/mlcube-2.0.yaml");
    cube.write("two.yaml", good.replace("docker:\n", "docker:\n\tx: 1\n"));
    let ended = cube.run("check --mlcube=two.yaml");
    assert!(ended.stdout.starts_with("two.yaml:11: is not YAML: "), "{ended:#?}");
    ended.failed_with("two.yaml: 1 fault in the cube's files");
    cube.write("two.yaml", "a: list of keys");
    assert_eq!(cube.run("check --mlcube=two.yaml").code, Some(2));
}

#[test]
fn outputs_of_another_program_stay_though_they_have_the_names_of_ours() {
    let cube = with("chat: {type: directory, default: chats}", "model_dir: model/\n        log_dir: logs/");
    for file in ["model/model.safetensors", "model/metrics.json", "logs/metrics.json"] {
        cube.write(&format!("workspace/{file}"), "precious");
    }
    let ended = cube.run("clean --yes").done();
    assert!(ended.stderr.contains("another program's cube"), "{ended:#?}");
    assert!(cube.sandbox.path("cube/workspace/model/model.safetensors").exists(), "{ended:#?}");
}

#[test]
fn a_cube_of_one_file_is_cleaned() {
    let cube = Cube::new();
    cube.write("workspace/model/model.safetensors", r#"{"__metadata__":{"mnist":"x"}}"#);
    cube.write("workspace/model/mine.txt", "x");
    fs::remove_file(cube.sandbox.path("the cube/mlcube.yaml")).unwrap();
    let Ended { stdout, .. } = cube.run("clean --mlcube=mlcube-2.0.yaml --yes").done();
    assert!(stdout.contains("remove ") && stdout.contains("model.safetensors") && stdout.contains("keep "), "{stdout}");
    assert!(!cube.sandbox.path("the cube/workspace/model/model.safetensors").exists());
}
