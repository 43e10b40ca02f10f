//! What `mnist cube` advises where something is mistyped, missing or without effect.

use crate::common::cube::{Cube, DOCKER, OneFileCube};
use crate::common::{Ended, Sandbox};
use crate::cube_2::{HELLO, hello, with};

const RUN: &str = "run --platform=docker --task=hello";

#[track_caller]
fn is_refused(ended: &Ended, said: &str) {
    assert!(format!("{}{}", ended.stdout, ended.stderr).contains(said) && ended.code == Some(2), "{said}: {ended:#?}");
}

#[test]
fn a_change_of_a_key_that_nothing_reads_is_refused() {
    let cube = hello();
    let none = "expected a key of the cube's file, or one that a ${...} uses, found none:";
    let no_task = "expected a task of the cube, found none of this name:";
    for (change, said) in [
        ("dokcer.image=x", format!("-Pdokcer.image=x: dokcer: {none} did you mean docker?\n")),
        (
            "tasks.helo.parameters.inputs.name=x",
            format!("-Ptasks.helo.parameters.inputs.name=x: tasks.helo: {no_task} did you mean hello?\n"),
        ),
    ] {
        is_refused(&cube.run(&format!("{RUN} -P{change}")), &said);
    }
    assert!(cube.calls().is_empty());
    let ended = cube.run(&format!("{RUN} -Pfoo=1")).done();
    let warning = "warning: -Pfoo=1: has no effect: the cube's file has no such key, and no ${...} uses it\n";
    assert!(ended.stderr.contains(warning), "{ended:#?}");
    // A key of the user's own, which a value of the file or of the command line uses.
    with("names/alice.txt}", "'names/${who}.txt'}").run(&format!("{RUN} -Pwho=alice")).done();
    with("names/alice.txt}", "'names/${ own.who }.txt'}").run(&format!("{RUN} -Pown.who=alice")).done();
    cube.run(&format!("{RUN} -Pwho=alice -Pdocker.image=a/${{who}}:1")).done();
    // Sections that a file may leave out.
    cube.run(&format!("{RUN} -Pplatform.accelerator_count=0 -Pdescription=x")).done();
}

#[test]
fn a_change_of_a_section_that_does_not_count_is_warned_of() {
    let warning = |section: &str, platform: &str| {
        format!("warning: -P{section}.image=x: has no effect with --platform={platform}\n")
    };
    let cube = hello();
    let ended = cube.run(&format!("{RUN} -Psingularity.image=x")).done();
    assert!(ended.stderr.contains(&warning("singularity", "docker")), "{ended:#?}");
    let singularity = "run --platform=singularity --task=hello --dry_run -Pdocker.image=x";
    let ended = cube.run(singularity).done();
    assert!(ended.stderr.contains(&warning("docker", "singularity")), "{ended:#?}");
    // What is used does count.
    for (from, to) in [("singularity:\n  image: hello_world.sif\n", ""), ("hello_world.sif", "'${docker.image}.sif'")] {
        let ended = with(from, to).run(singularity).done();
        assert!(!ended.stderr.contains("no effect"), "{ended:#?}");
    }
}

#[test]
fn a_file_of_another_kind_is_told() {
    let cube = Cube::new().with("docker", DOCKER);
    let task = "expected a run configuration, or the name of one in run/, found";
    let platform = "expected a platform file, or the name of one in platforms/, found";
    for (line, said) in [
        (
            "--platform=docker --task=tasks/train.yaml",
            format!("{task} the file of a task\nhint: did you mean train?\n"),
        ),
        ("--platform=docker --task=mlcube.yaml", format!("{task} the file of a cube\nhint: known are download, ")),
        ("--platform=docker --task=platforms/ssh.yaml", format!("{task} a platform file\nhint: known are ")),
        ("--platform=run/train.yaml --task=train", format!("{platform} a run configuration\nhint: known are docker, ")),
    ] {
        is_refused(&cube.run(&format!("run {line}")), &said);
    }
    // Whatever the task: the exit code is that of wrong arguments.
    for task in ["train", "no-such-task"] {
        let ended = cube.run(&format!("run --mlcube=mlcube-2.0.yaml --platform=ssh --task={task}"));
        let said = "found mlcube_ssh: it runs cubes with tasks/ and run/, as --mlcube=. names one\n";
        assert!(ended.stdout.ends_with(said) && ended.code == Some(2), "{ended:#?}");
    }
}

#[test]
fn a_platform_by_another_name_is_known() {
    let cube = Cube::new().with("docker", DOCKER);
    let configure = |more: &str| cube.run(&format!("configure --platform={more}"));
    is_refused(&configure("k8s"), "hint: did you mean kubernetes?\n");
    is_refused(&configure("apptainer"), "hint: did you mean singularity?\n");
    let cube = with("singularity:\n  image: hello_world.sif\n", "");
    let configure = |more: &str| cube.run(&format!("configure --platform={more}"));
    is_refused(&configure("native"), "hint: known are docker, singularity, or the path of a platform file\n");
    is_refused(&configure("podman"), "hint: give --platform=docker with -Pdocker.docker=podman\n");
}

#[test]
fn what_mlcube_s_users_type_leads_to_what_is_right() {
    let cube = hello();
    let tip = "\n  tip: parameters of tasks are written without hyphens: name=names/bob.txt\n";
    is_refused(&cube.run(&format!("{RUN} --name=names/bob.txt")), tip);
    is_refused(&cube.run(&format!("{RUN} --name names/bob.txt")), tip);
    let ended = cube.run("show_config --task=hello");
    assert!(ended.code == Some(2) && !ended.stderr.contains("tip:"), "{ended:#?}");
    is_refused(&cube.run("run --platfrom=docker --task=hello"), "tip: a similar argument exists: '--platform'\n");
    is_refused(&cube.run("run --mlcube=. --task=hello --dry-rnu"), "a similar argument exists: '--dry_run'\n");
    is_refused(&cube.run("show-confgi"), "a similar subcommand exists: 'show_config'\n");
    let sandbox = Sandbox::new();
    is_refused(&sandbox.run("run --task=train"), "tip: it is a command of the cube: mnist cube run\n");
    is_refused(&sandbox.run("configure"), "tip: it is a command of the cube: mnist cube configure\n");
    is_refused(&sandbox.run("cube check"), "hint: give --mlcube=DIR, or change into the cube's directory\n");
    for flags in ["", " --mlcube=no"] {
        let no_cube = sandbox.run(&format!("cube describe{flags}")).stderr;
        assert!(no_cube.starts_with("error: --mlcube="), "{no_cube}");
        for command in ["run", "run --task=hello", "configure"] {
            let ended = sandbox.run(&format!("cube {command}{flags}"));
            assert_eq!((&ended.stderr, ended.code), (&no_cube, Some(2)), "{command}");
        }
    }
    // A cube that cannot be read is one.
    cube.write("mlcube.yaml", HELLO.replace("hello_world.sif", "[]"));
    is_refused(&cube.run("run --mlcube=. --task=hello"), "are listed by: mnist cube describe --mlcube=.\n");
}

#[test]
fn a_flag_of_a_task_belongs_into_a_file_of_a_cube_with_run_configurations() {
    let cube = Cube::new();
    let run = |flag: &str| cube.run(&format!("run --platform=native --task=train {flag}"));
    let parameters = "  tip: write `train_epochs: 3` into the parameters file that the run configuration names\n";
    is_refused(&run("--train_epochs=3"), parameters);
    is_refused(&run("--train_epochs 3"), parameters);
    let path = "  tip: write it into the run configuration, the file of --task, as `data_dir: elsewhere`\n";
    is_refused(&run("--data_dir=elsewhere"), path);
}

#[test]
fn a_flag_that_no_task_of_the_cube_has_is_one_outside() {
    let cube = Cube::new();
    let run =
        |mlcube: &str, flag: &str| cube.run(&format!("run --mlcube={mlcube} --platform=native --task=train {flag}"));
    for mlcube in [".", "mlcube-2.0.yaml"] {
        for flag in ["--init=workspace/model/unfinished", "--resume"] {
            let tip = "  tip: no task of the cube has this parameter; outside the cube there is: mnist train";
            is_refused(&run(mlcube, flag), &format!("{tip} {flag}\n"));
        }
        let ended = run(mlcube, "--no_such_thing=1");
        assert!(ended.code == Some(2) && !ended.stderr.contains("tip:"), "{ended:#?}");
        let tip = "  tip: write `train_epochs: 2` into the parameters file that ";
        is_refused(&run(mlcube, "--train_epochs=2"), tip);
        is_refused(&run(mlcube, "--train-epochs=2"), tip);
    }
    let tip = "  tip: parameters of tasks are written without hyphens: data_dir=elsewhere\n";
    is_refused(&run("mlcube-2.0.yaml", "--data_dir=elsewhere"), tip);
    // In another program's cube neither counts.
    for flag in ["--init=x", "--train_epochs=2"] {
        let ended = hello().run(&format!("{RUN} {flag}"));
        assert!(ended.code == Some(2) && !ended.stderr.contains("tip:"), "{ended:#?}");
    }
}

#[test]
fn the_platforms_of_a_cube_are_one_list() {
    let cube = with("singularity:\n  image: hello_world.sif\n", "");
    for name in ["docker", "far"] {
        cube.write(&format!("platforms/{name}.yaml"), "");
    }
    let known = "known are docker, singularity, far";
    for line in ["run --task=hello", "configure", "run --task=hello --platform=xyz", "configure --platform=xyz"] {
        let ended = cube.run(line);
        assert!(
            ended.stderr.contains(&format!("{known}\n")) || ended.stderr.contains(&format!("{known}, or ")),
            "{ended:#?}"
        );
    }
}

#[test]
fn an_output_over_an_input_is_warned_of() {
    let cube = hello();
    let ended = cube.run(&format!("{RUN} chat=names")).done();
    let names = cube.workspace("names");
    let said = format!("task hello: may change its input name, since the output chat is its directory, {names}\n");
    assert!(ended.stderr.contains(&said), "{ended:#?}");
    assert!(!cube.run(RUN).done().stderr.contains("may change"));
}

#[test]
fn a_missing_flag_is_answered_with_what_the_cube_has() {
    let said = |ended: Ended| {
        let (_, said) = ended.stderr.split_once("\n  tip: ").unwrap_or_else(|| panic!("{ended:#?}"));
        assert_eq!(ended.code, Some(2));
        said.split("\n\n").next().unwrap().to_string()
    };
    let cube = hello();
    let platforms = "--platform: known are docker, singularity";
    let tasks = "--task: known are hello, bye";
    assert_eq!(said(cube.run("run")), format!("{platforms}\n  tip: {tasks}"));
    assert_eq!(said(cube.run("run --platform=docker --mlcube .")), tasks);
    assert_eq!(said(cube.run("configure --mlcube=mlcube.yaml")), platforms);
    let cube = Cube::new();
    let ended = said(cube.run("run --platform=docker"));
    assert!(ended.starts_with("--task: known are download, evaluate, train, train-8gpu, "), "{ended}");
    let ended = said(cube.run("run --task=train"));
    assert!(ended.starts_with("--platform: known are docker, ") && ended.contains(", native, "), "{ended}");
}

#[test]
fn commands_to_copy_name_the_same_workspace_and_values() {
    let cube = hello();
    let ended = cube.run("describe --workspace=new").done();
    let new = format!(" --workspace={}\n", cube.sandbox.path("cube/new").display());
    assert_eq!(ended.stdout.matches(&new).count(), 3, "{ended:#?}");
    let ended = cube.run("describe").done();
    assert!(!ended.stdout.contains("--workspace"), "{ended:#?}");
    let cube = Cube::new().with("docker", DOCKER);
    cube.has_image();
    let line = "run --mlcube=mlcube-2.0.yaml --platform=docker --task=train data_dir=/no/data -Pdescription=x";
    let ended = cube.run(line);
    assert!(ended.stderr.contains(" --platform=docker -Pdescription=x data_dir=/no/data`\n"), "{ended:#?}");
}

#[test]
fn a_dry_run_warns_of_what_a_run_would_refuse() {
    let cube = Cube::new().with("docker", DOCKER);
    let nowhere = cube.sandbox.path("nope");
    let warning = |name: &str, path: &str| {
        let path = nowhere.join(path);
        format!("warning: {name}: a run will not start: expected {}, found none\n", path.display())
    };
    let dry_run = |task: &str| {
        cube.run(&format!("run --platform=docker --dry_run --workspace={} --task={task}", nowhere.display()))
            .done()
            .stderr
    };
    let parameters = warning("parameters_file", "parameters/default.parameters.yaml");
    assert_eq!(dry_run("train"), warning("data_dir", "data") + &parameters);
    // The first task makes the data.
    assert_eq!(dry_run("download,train"), parameters);
    // In the cube's own workspace too, in which a run calls the missing file a fault.
    std::fs::remove_file(cube.workspace("parameters/default.parameters.yaml")).unwrap();
    let ended = cube.run("run --platform=docker --task=train --dry_run").done();
    let missing = cube.workspace("parameters/default.parameters.yaml");
    let said = format!("warning: parameters_file: a run will not start: expected {missing}, found none\n");
    assert!(ended.stderr.ends_with(&said) && ended.stdout.starts_with("docker run "), "{ended:#?}");
    cube.run("run --platform=docker --task=train").failed_with(".: 1 fault in the cube's files");
    // Of a cube of one file, a run brings what comes with the cube.
    let cube = hello();
    assert_eq!(cube.run(&format!("{RUN} --dry_run --workspace=new")).done().stderr, "");
}

#[test]
fn words_are_those_of_the_case() {
    let cube = hello();
    is_refused(&cube.run(&format!("{RUN} name=")), "inputs.name.default: expected a path, found nothing\n");
    let ended = cube.run("clean --yes").done();
    let said = "another program's cube: clean removes only files of this program's tasks, so nothing here\n";
    assert!(ended.stderr.contains(said), "{ended:#?}");
    let cube = Cube::new();
    cube.write("mlcube.yaml", "");
    let ended = cube.run("check");
    assert_eq!(ended.stdout, "mlcube.yaml: expected the keys of mlcube_root, found an empty file\n");
    let cube = OneFileCube::new(HELLO, &[]);
    let ended = cube.run(RUN);
    assert!(ended.stderr.ends_with("NAME=PATH; a relative path is below the workspace\n"), "{ended:#?}");
    let sandbox = Sandbox::with_data();
    let ended = sandbox.run("train --data_dir=data --log_dir=l --model_dir=m --parameters_file=paramters.yaml");
    assert!(ended.stderr.ends_with("(os error 2)\nhint: did you mean parameters.yaml?\n"), "{ended:#?}");
}
