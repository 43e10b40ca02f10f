//! What a task on another machine leaves in its output directories here: what it would have left had it run here.

use std::fs;
use std::process::{Child, Command};

use super::{Far, TRAIN, ended};
use crate::common::is_root;

/// With rsync and without.
pub(super) fn both(test: impl Fn(&Far)) {
    for with_rsync in [true, false] {
        let Some(far) = Far::new() else { return };
        if !with_rsync {
            far.sshd.program("rsync", "exit 1");
        }
        println!("rsync {with_rsync}");
        test(&far);
    }
}

/// Runs `script` here whenever a task has been started there and is followed.
fn as_it_runs(far: &Far, script: &str) {
    let ssh = "exec /usr/bin/ssh -F \"$(dirname \"$0\")/../config\" \"$@\"";
    far.sshd.program("ssh", &format!("case \"$*\" in *follow*) {script} ;; esac\n{ssh}"));
}

/// Ends a task as Ctrl-C does.
pub(super) fn interrupt(child: Child, far: &Far) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(ended(child), Some(130), "{}", far.cube.sandbox.read("stderr"));
}

#[test]
fn a_model_from_here_stays_when_a_task_there_is_interrupted() {
    both(|far| {
        far.cube.run("run --platform=native --task=train").done();
        far.cube.write("workspace/model/notes.txt", "mine");
        let before = far.outputs("model");
        interrupt(far.long_training(), far);
        assert!(far.outputs("model") == before, "{:?}", far.outputs("model").keys());
        assert!(far.outputs("model/unfinished").contains_key("model.safetensors"));
        far.short_training();
        far.run(TRAIN).done();
        let after = far.outputs("model");
        assert!(after.keys().eq(before.keys()), "{:?}", after.keys());
        assert_eq!(after["notes.txt"], b"mine");
        assert!(!far.cube.sandbox.path("the cube/workspace/model/unfinished").exists());
    });
}

#[test]
fn a_model_that_was_moved_away_does_not_come_back() {
    both(|far| {
        far.run(TRAIN).done();
        fs::rename(far.cube.workspace("model"), far.cube.workspace("kept")).unwrap();
        interrupt(far.long_training(), far);
        // With no whole model beside it, the unfinished one has this place.
        let (model, kept) = (far.outputs("model"), far.outputs("kept"));
        assert!(model["model.safetensors"] != kept["model.safetensors"]);
        assert!(!far.cube.sandbox.path("the cube/workspace/model/unfinished").exists());
    });
}

#[test]
fn what_is_written_here_meanwhile_stays() {
    both(|far| {
        far.run(TRAIN).done();
        let child = far.long_training();
        far.cube.write("workspace/model/model.safetensors", "newer");
        fs::remove_file(far.cube.workspace("model/model.onnx")).unwrap();
        interrupt(child, far);
        let model = far.outputs("model");
        assert!(model["model.safetensors"] == b"newer");
        assert!(!model.contains_key("model.onnx"), "{:?}", model.keys());
    });
}

#[test]
fn directories_that_a_task_makes_come_and_those_that_it_removes_go() {
    both(|far| {
        far.run(TRAIN).done();
        for name in ["gone/deep/file", "kept/file"] {
            far.cube.write(&format!("workspace/model/{name}"), "text");
        }
        let child = far.long_training();
        // As a task might.
        let there = far.base().join("cube/workspace/model");
        fs::create_dir_all(there.join("new/deep")).unwrap();
        fs::remove_dir_all(there.join("gone")).unwrap();
        fs::remove_file(there.join("kept/file")).unwrap();
        interrupt(child, far);
        let here = std::path::PathBuf::from(far.cube.workspace("model"));
        assert!(here.join("new/deep").is_dir(), "{}", far.cube.sandbox.read("stderr"));
        assert!(!here.join("gone").exists());
        assert!(here.join("kept").is_dir() && !here.join("kept/file").exists());
    });
}

#[test]
fn a_name_with_signs_of_a_pattern_is_a_name() {
    both(|far| {
        let text = far.cube.sandbox.read("the cube/run/train.yaml");
        far.run(TRAIN).done();
        let strange = far.base().join("cube/workspace/model/strange.txt");
        for name in ["[m]odel", "m*", "mode?"] {
            fs::write(&strange, "of the directory that the pattern would find").unwrap();
            far.cube.write("run/train.yaml", text.replace("$WORKSPACE/model", &format!("$WORKSPACE/{name}")));
            far.run(TRAIN).done();
            assert!(far.outputs(name).contains_key("model.safetensors"), "{name}: {:?}", far.outputs(name).keys());
            assert!(!far.outputs(name).contains_key("strange.txt"), "{name}");
        }
    });
}

#[test]
fn a_task_that_is_taken_up_by_another_configuration_brings_its_own_outputs() {
    let Some(far) = Far::new() else { return };
    let child = far.long_training();
    far.sshd.wire.cut();
    assert_eq!(ended(child), Some(1));
    let text = far.cube.sandbox.read("the cube/run/train.yaml");
    far.cube.write("run/train.yaml", text.replace("$WORKSPACE/model", "$WORKSPACE/other"));
    let log = fs::File::create(far.cube.sandbox.path("stderr")).unwrap();
    let child = far.command(&format!("{TRAIN} --attach")).stderr(log).spawn().unwrap();
    far.waits_for("stderr", "epoch 2/");
    interrupt(child, &far);
    let stderr = far.cube.sandbox.read("stderr");
    assert!(stderr.contains("far: task train was started with other outputs, which are brought: "), "{stderr}");
    assert!(far.outputs("model").contains_key("model.safetensors"));
    assert!(!far.cube.sandbox.path("the cube/workspace/other").exists());
}

#[test]
fn a_result_that_is_newer_here_stays_beside_the_one_that_is_brought() {
    both(|far| {
        far.run(TRAIN).done();
        fs::remove_dir_all(far.cube.workspace("model")).unwrap();
        let child = far.long_training();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        assert_eq!(ended(child), None);
        far.end_there();
        far.short_training();
        far.cube.run("run --platform=native --task=train").done();
        let newer = far.outputs("model");
        let ended = far.run("run --platform=ssh --task=evaluate").done();
        let said = format!(
            ": has changed here since the task began, so {0} is as it was, and all that the task wrote there is in \
             {0}.brought: compare them, and keep one\n",
            far.cube.workspace("model")
        );
        assert!(ended.stderr.contains(&said), "{ended:#?}");
        assert!(far.outputs("model") == newer, "{ended:#?}");
        let other = far.outputs("model.brought");
        assert!(other["model.safetensors"] != newer["model.safetensors"]);
    });
}

#[test]
fn two_commands_at_once_do_not_mix_their_files() {
    let Some(far) = Far::new() else { return };
    far.run(TRAIN).done();
    let before = far.outputs("model");
    far.sshd.program("rsync", "[ \"$1\" = --version ] || sleep 2; exec /usr/bin/rsync \"$@\"");
    far.cube.write("workspace/parameters/default.parameters.yaml", "train_epochs: 2\nhidden_layers: [16]\n");
    let log = fs::File::create(far.cube.sandbox.path("stderr")).unwrap();
    let first = far.command(TRAIN).stderr(log).spawn().unwrap();
    far.waits_for("stderr", "far: the cube: ");
    let second = far.run("run --platform=ssh --task=evaluate");
    assert_eq!(second.code, Some(1), "{second:#?}");
    let (sending, hint) = (far.base().join("sending"), "hint: wait until it has ended, or choose other directories\n");
    assert!(second.stderr.contains(&format!("error: far: cannot send files: {}: process ", sending.display())));
    assert!(second.stderr.ends_with(hint), "{second:#?}");
    assert_eq!(ended(first), Some(0), "{}", far.cube.sandbox.read("stderr"));
    assert!(far.outputs("model")["model.safetensors"] != before["model.safetensors"]);
}

#[test]
fn inputs_of_one_size_and_one_second_are_told_apart() {
    both(|far| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let mut models = vec![];
        for epochs in [1, 2] {
            let name = "workspace/parameters/default.parameters.yaml";
            far.cube.write(name, format!("train_epochs: {epochs}\nhidden_layers: [16]\n"));
            let file = fs::File::options().write(true).open(far.cube.sandbox.path("the cube").join(name)).unwrap();
            file.set_modified(time).unwrap();
            far.run(TRAIN).done();
            models.push(far.outputs("model").remove("model.safetensors").unwrap());
        }
        assert!(models[0] != models[1]);
    });
}

#[test]
fn links_and_names_that_are_no_text_do_not_keep_a_task_from_running() {
    use std::os::unix::ffi::OsStrExt;
    both(|far| {
        let model = std::path::PathBuf::from(far.cube.workspace("model"));
        fs::create_dir(&model).unwrap();
        for (target, name) in [("nowhere", "dangling"), (".", "self"), ("..", "up")] {
            std::os::unix::fs::symlink(target, model.join(name)).unwrap();
        }
        let strange = model.join(std::ffi::OsStr::from_bytes(b"f\xff"));
        fs::write(&strange, "mine").unwrap();
        far.run(TRAIN).done();
        far.run(TRAIN).done();
        assert!(model.join("model.safetensors").exists());
        assert!(strange.exists() && model.join("dangling").symlink_metadata().is_ok());
    });
}

#[test]
fn a_dry_run_prints_what_would_run_there() {
    let Some(far) = Far::new() else { return };
    let ended = far.run("configure --platform=ssh --dry_run").done();
    let sent = "far: would first get this program and what is new of the cube: mlcube.yaml, ";
    assert!(ended.stderr.contains(sent), "{ended:#?}");
    let ended = far.run(&format!("{TRAIN} --dry_run")).done();
    assert!(ended.stdout.starts_with("ssh -o ServerAliveInterval=15 -x -T -- far "), "{ended:#?}");
    assert!(ended.stdout.contains("cube run --mlcube=. --platform=native.yaml"), "{ended:#?}");
    assert!(
        ended.stderr.contains("of the workspace, of data, parameters/default.parameters.yaml, train_logs, model\n"),
        "{ended:#?}"
    );
    assert!(ended.stderr.contains("would then give what is new of train_logs, model\n"), "{ended:#?}");
    assert_eq!(far.sshd.wire.bytes(), 0);
}

#[test]
fn an_output_that_cannot_be_put_in_place_is_an_error_and_ends_the_command() {
    both(|far| {
        far.run(TRAIN).done();
        let (model, there) = (far.cube.workspace("model"), far.base().join("cube/workspace/model/extra"));
        let [owner, other] = [54321, 12345].map(|user| if is_root() { user } else { uid(&model) });
        std::os::unix::fs::chown(far.cube.workspace(""), Some(owner), None).unwrap();
        let there = there.display();
        as_it_runs(far, &format!("echo newer >'{model}/model.safetensors'; echo >'{there}'; chown {other} '{there}'"));
        far.run("run --platform=ssh --task=train,evaluate").failed_with(&format!(
            "{model}/model.safetensors: has changed here since the task began, so {model} is as it was, and all that the task \
             wrote there is in {model}.brought: compare them, and keep one"
        ));
        assert_eq!(far.outputs("model")["model.safetensors"], b"newer\n");
        assert!(far.outputs("model.brought").contains_key("model.safetensors"));
        assert!(!far.cube.sandbox.path("the cube/workspace/evaluate_logs").exists());
        for name in ["", "/extra"] {
            assert_eq!(uid(&format!("{model}.brought{name}")), owner, "{name}");
        }
    });
}

fn uid(path: &str) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap())
}

#[test]
fn a_link_that_is_not_brought_is_named_by_its_place_here() {
    both(|far| {
        far.run(TRAIN).done();
        let model = far.base().join("cube/workspace/model");
        as_it_runs(far, &format!("ln -s model.onnx '{}/link'", model.display()));
        let ended = far.run(TRAIN).done();
        let said = format!("warning: {}/link: left out, since it is a link\n", far.cube.workspace("model"));
        assert!(ended.stderr.contains(&said), "{ended:#?}");
    });
}

#[test]
fn of_several_tasks_the_one_that_goes_on_is_taken_up_alone() {
    let Some(far) = Far::new() else { return };
    let child = far.long("run --platform=ssh --task=train,evaluate,train", 100);
    far.sshd.wire.cut();
    assert_eq!(ended(child), Some(1));
    let stderr = far.cube.sandbox.read("stderr");
    let hint = "task train goes on there\nhint: take it up again with the same command and --task=train --attach; Ctrl-C then \
                stops it; afterwards run those that are left, --task=evaluate,train\n";
    assert!(stderr.ends_with(hint), "{stderr}");
    far.end_there();
    assert_eq!(far.run(&format!("{TRAIN} --attach")).code, Some(130));
}

#[test]
fn outputs_whose_way_here_is_interrupted_wait_there() {
    let Some(far) = Far::new() else { return };
    let slow = "case \"$*\" in *--files-from*) echo bringing >&2; touch \"$0.began\"; sleep 30 ;; esac";
    for (tasks, more) in [("train", "--attach\n"), ("evaluate,train", "--task=evaluate --attach; afterwards run")] {
        far.sshd.program("rsync", &format!("{slow}\nexec /usr/bin/rsync \"$@\""));
        let log = fs::File::create(far.cube.sandbox.path("stderr")).unwrap();
        let child = far.command(&format!("run --platform=ssh --task={tasks}")).stderr(log).spawn().unwrap();
        let began = far.cube.sandbox.path("ssh/bin/rsync.began");
        let begin = std::time::Instant::now();
        while !began.exists() {
            assert!(begin.elapsed().as_secs() < 60, "{}", far.cube.sandbox.read("stderr"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        fs::remove_file(began).unwrap();
        interrupt(child, &far);
        let task = tasks.split(',').next().unwrap();
        let said = format!(
            "error: stopped by SIGINT while the outputs of task {task} were brought; they wait on far\nhint: bring them with \
             the same command and {more}"
        );
        assert!(far.cube.sandbox.read("stderr").contains(&said), "{}", far.cube.sandbox.read("stderr"));
        far.sshd.program("rsync", "exec /usr/bin/rsync \"$@\"");
        far.run(&format!("run --platform=ssh --task={task} --attach")).done();
    }
    assert!(far.outputs("model").contains_key("model.safetensors"));
    assert!(far.outputs("evaluate_logs").contains_key("metrics.json"));
}
