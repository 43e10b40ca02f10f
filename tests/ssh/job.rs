//! What stands in the place that a task has on another machine.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{Far, TRAIN};
use crate::common::Sandbox;

#[test]
fn a_signal_that_was_left_ends_no_later_task() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("job")).unwrap();
    sandbox.write("job/signal", "15");
    let about = r#"{"task":"t","outputs":[],"ends_alone":false}"#;
    sandbox.run(&format!("cube job start job {about} -- devices")).done();
    let begin = Instant::now();
    while !sandbox.path("job/code").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", sandbox.files("job"));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sandbox.read("job/code"), "0");
}

#[test]
fn what_stands_in_the_place_of_a_task_is_named() {
    let Some(far) = Far::new() else { return };
    far.run(TRAIN).done();
    let job = far.base().join("job");
    fs::write(job.join("about.json"), "{").unwrap();
    for line in [TRAIN, "configure --platform=ssh", "run --platform=ssh --task=train --attach"] {
        far.run(line).failed_with(&format!(
            "far: expected a task or nothing in {}, found a file about.json that names no task\nhint: see with `ps` over \
             there whether a task of this cube runs; if none does, move that directory away",
            job.display()
        ));
    }
    fs::remove_dir_all(&job).unwrap();
    far.run(TRAIN).done();
    // Of two that start at once, the second.
    let about = r#"{"task":"t","outputs":[],"ends_alone":false}"#;
    let start = || far.cube.run(&format!("job start job {about} -- devices"));
    start().done();
    let job = far.cube.sandbox.path("the cube/job");
    far.waits_for("the cube/job/code", "0");
    start().failed_with(&format!(
        "{}: expected no task, found task t, whose outputs nobody has fetched\nhint: take it up or fetch its outputs with the \
         command that started it and --attach",
        job.display()
    ));
}
