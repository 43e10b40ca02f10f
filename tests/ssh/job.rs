//! What stands in the place that a task has on another machine.

use std::fs;

use super::{Far, TRAIN};

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
