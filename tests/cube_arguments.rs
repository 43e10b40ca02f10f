//! Arguments of `mnist cube` that are wrong: each is refused in words that say what is right.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::cube::{Cube, DOCKER};
use crate::cube_2::{HELLO, hello, with};

#[test]
fn faults_of_the_command_line_name_the_argument() {
    let cube = hello();
    for (more, fault) in [
        (
            "-Pdocker.image=A",
            "-Pdocker.image=A: docker.image: expected the name of an image, such as mlcommons/mlcube:mnist, found \"A\"",
        ),
        (
            "-Pdocker.image=${no}",
            "-Pdocker.image=${no}: docker.image: expected a key of this file, found ${no}: known are ",
        ),
        ("-Pdocker.imgae=a", "-Pdocker.imgae=a: docker.imgae: unknown key: did you mean image?"),
        ("-Prunner.imgae=a", "-Prunner.imgae=a: runner.imgae: unknown key: did you mean image?"),
        ("-Pname.x=1", "-Pname.x=1: name.x: expected keys with values in name, found \"hello_world\""),
        ("-Pdocker=", "docker: expected a section of this platform, found none"),
        ("-Ptasks.hello=5", "-Ptasks.hello=5: tasks.hello: expected names with values, found 5"),
        (
            "name=../x",
            "name=../x: tasks.hello.parameters.inputs.name.default: expected a path in the workspace, or an absolute",
        ),
        (
            "nmae=x",
            "nmae=x: expected the name of a parameter of some task, found none of this name: did you mean name?",
        ),
        (
            "name=${oc.env:NO_SUCH}/x",
            "name=${oc.env:NO_SUCH}/x: tasks.hello.parameters.inputs.name.default: expected the environment variable NO_SUCH",
        ),
    ] {
        let ended = cube.run(&format!("run --platform=docker --task=hello {more}"));
        assert!(ended.stdout.contains(fault) && ended.code == Some(2), "{fault}: {ended:#?}");
        assert!(ended.stderr.ends_with("error: 1 fault in the arguments\n"), "{ended:#?}");
        assert!(cube.calls().is_empty());
    }
    // With a fault of the file it is the file's turn.
    cube.write("mlcube.yaml", HELLO.replace("somebody/hello_world:0.0.1", "'-v'"));
    let ended = cube.run("run --platform=docker --task=hello name=../x");
    ended.failed_with(".: 2 faults in the cube's files");
    cube.write("mlcube.yaml", HELLO);
    for (more, error) in [
        ("-Pdocker", "expected KEY=VALUE, such as docker.image=a/b:c"),
        ("-P.a=b", "expected keys with points between, found \".a\""),
        ("-Pa..b=c", "expected keys with points between, found \"a..b\""),
        ("-Pa=[", "the value is not YAML: "),
        (&format!("-P{}=1", "a.".repeat(20_000) + "a"), "expected at most 500 keys with points between, found 20001"),
        ("-Pruntime.workspace=/w", "expected --workspace=DIR, which sets these keys"),
        ("name", "expected NAME=PATH, such as data_dir=/datasets/mnist"),
        ("name=a chat=b name=c", "name=PATH: expected this parameter once, found it twice"),
    ] {
        let ended = cube.run(&format!("run --platform=docker --task=hello {more}"));
        assert!(ended.stderr.contains(error) && ended.code == Some(2), "{error}: {ended:#?}");
    }
}

#[test]
fn a_change_that_would_not_count_is_refused() {
    let cube = hello();
    let docker = "schema_version: 1.0.0\nschema_type: mlcube_docker\ndocker_runtime: docker\nimage: mine/hello:1\n";
    cube.write("platforms/mine.yaml", docker);
    for (command, change) in [
        ("run --task=hello", "docker.image=a"),
        ("run --task=hello --dry_run", "singularity.image=a"),
        ("configure", "runner.image=a"),
        ("inspect", "platform.accelerator_count=1"),
    ] {
        let ended = cube.run(&format!("{command} --platform=mine -P{change}"));
        let expected = format!(
            "error: -P{change}: expected --platform=docker or singularity for this change, found the platform file \
             ./platforms/mine.yaml\nhint: give the platform by its name, or write the value into ./platforms/mine.yaml\n"
        );
        assert_eq!((ended.stderr, ended.code), (expected, Some(2)), "{change}");
        assert!(cube.calls().is_empty());
    }
    // These count with any platform.
    cube.write("workspace/names/bob.txt", "");
    cube.run("run --platform=mine --task=hello -Pwho=bob name=names/${who}.txt").done();
    assert_eq!(cube.calls()[0].last_chunk::<2>().unwrap(), &["--name=/mlcube_io0/bob.txt", "--chat=/mlcube_io1"]);
}

#[test]
fn an_argument_takes_what_the_file_takes() {
    let cube = with("chat: {type: directory, default: chats}", "chat: chats/");
    let ended =
        cube.run("run --platform=docker --task=hello --dry_run chat=${docker.image}/${oc.env:NO_SUCH,x}").done();
    let chat = cube.workspace("somebody/hello_world:0.0.1/x");
    assert!(ended.stdout.contains(&format!("source={chat},")), "{ended:#?}");
    let ended = cube.run("show_config name=names/${name}.txt").done();
    assert!(ended.stdout.contains("default: names/${name}.txt\n"), "{ended:#?}");
}

#[test]
fn arguments_that_are_not_utf_8_are_refused() {
    let cube = hello();
    for argument in [&b"name=names/\xff\x1b[31m"[..], b"-Pname=\xff", b"-P\xff=1"] {
        let mut command = cube.sandbox.program();
        command.args(["cube", "run", "--platform=docker", "--task=hello"]).arg(OsStr::from_bytes(argument));
        let ended = cube.in_place(&mut command);
        let expected = "expected UTF-8, as in the cube's file, found other bytes";
        assert!(ended.stderr.contains(expected) && ended.code == Some(2), "{ended:#?}");
        assert!(!ended.stderr.contains('\u{1b}'), "{ended:#?}");
    }
}

#[test]
fn no_task_has_an_empty_name() {
    let cube = hello();
    let old = Cube::new().with("docker", DOCKER);
    for task in [",", "hello,", ",hello", "hello,,bye", "download,,train"] {
        let expected = format!("error: --task={task}: expected names with commas between, found an empty one\n");
        for ended in [
            cube.run(&format!("run --platform=docker --task={task}")),
            old.run(&format!("run --platform=docker --task={task}")),
        ] {
            assert_eq!((&*ended.stderr, ended.code), (&*expected, Some(2)), "{task}");
        }
        assert!(cube.calls().is_empty() && !old.sandbox.path("run").exists());
    }
}

#[test]
fn an_unknown_platform_is_answered_with_those_of_the_cube() {
    let cube = hello();
    let platform = |name: &str| cube.run(&format!("run --platform={name} --task=hello"));
    let expected = "error: --platform=lxc: expected a section of the cube's file, or a platform file, found nothing of this \
                    name\nhint: known are docker, singularity, or the path of a platform file\n";
    let ended = platform("lxc");
    assert_eq!((&*ended.stderr, ended.code), (expected, Some(2)));
    cube.write("platforms/far.yaml", "");
    assert!(
        platform("lxc").stderr.ends_with("hint: known are docker, singularity, far, or the path of a platform file\n")
    );
    cube.write("mlcube.yaml", HELLO.replace("docker:\n  image: somebody/hello_world:0.0.1\n", ""));
    assert!(platform("lxc").stderr.ends_with("hint: known are singularity, far, or the path of a platform file\n"));
    let ended = cube.run("describe").done();
    assert!(ended.stdout.contains(" --platform=singularity\n") && !ended.stdout.contains("=docker"), "{ended:#?}");
}

#[test]
fn a_flag_of_other_platforms_is_refused() {
    let cube = Cube::new().with("docker", DOCKER);
    let one_file = hello();
    cube.has_image();
    for (flag, platforms) in [("keep", "mlcube_k8s"), ("attach", "mlcube_ssh or mlcube_k8s")] {
        for (platform, found) in [
            ("docker", "mlcube_docker"),
            ("native", "mlcube_native"),
            ("singularity", "mlcube_singularity"),
            ("slurm", "mlcube_slurm"),
        ] {
            let ended = cube.run(&format!("run --platform={platform} --task=download --{flag}"));
            let expected = format!("error: --{flag}: expected a platform file of {platforms}, found {found}\n");
            assert_eq!((ended.stderr, ended.code), (expected, Some(2)), "{platform}");
            assert!(!cube.sandbox.path("run").exists());
        }
        let ended = one_file.run(&format!("run --platform=docker --task=hello --{flag}"));
        let expected = format!("error: --{flag}: expected a platform file of {platforms}, found docker\n");
        assert_eq!((ended.stderr, ended.code), (expected, Some(2)));
    }
}

#[test]
fn a_long_argument_is_not_repeated_whole() {
    let cube = hello();
    let (long, deep) = ("x".repeat(20_000), vec!["a"; 500].join("."));
    for more in [
        format!("-P{long}"),
        format!("-P.{long}=1"),
        format!("-Pdocker.image={long}"),
        format!("-Pname.{deep}=1"),
        format!("-P{deep}=${{{long}}}"),
        format!("-P{deep}=[1,[2,${{{deep}}}]]"),
        format!("name={long}/../../.."),
        format!("{long}=x"),
        format!("--{long}"),
        format!("--task={long}"),
        format!("--mlcube={long}"),
    ] {
        let ended =
            cube.run(&format!("run --platform=docker --task=hello {more}").replace("--task=hello --task", "--task"));
        let said = ended.stdout.len() + ended.stderr.len();
        assert!(said < 2_000 && [Some(1), Some(2)].contains(&ended.code), "{}: {said} bytes {ended:#?}", &more[..20]);
        assert!(cube.calls().is_empty());
    }
    // As deep as it may be.
    cube.run(&format!("run --platform=docker --task=hello -Pplatform{}=1", &deep[1..])).done();
}
