//! What a task on another machine leaves in its output directories here: what it would have left had it run here.

use std::fs;
use std::process::{Child, Command};

use super::{Far, TRAIN, ended};

/// With rsync and without.
fn both(test: impl Fn(&Far)) {
    for with_rsync in [true, false] {
        let Some(far) = Far::new() else { return };
        if !with_rsync {
            far.sshd.program("rsync", "exit 1");
        }
        println!("rsync {with_rsync}");
        test(&far);
    }
}

/// Ends a task as Ctrl-C does.
fn interrupt(child: Child, far: &Far) {
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
