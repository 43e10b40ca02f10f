//! A disk over there that becomes full.

use std::fs;

use super::outputs::both;
use super::{Far, PLATFORM, TRAIN};
use crate::common::{Mount, tmpfs};

const NEXT: &str = "hint: free some space on that disk over there\n";

/// A small home directory there, if this user may mount one.
fn small_home(far: &Far, options: &str) -> Option<Mount> {
    let home = far.cube.sandbox.path("far home");
    fs::remove_dir(&home).unwrap();
    tmpfs(&home, options)
}

#[test]
fn one_without_space_for_the_program_is_named() {
    let Some(far) = Far::new() else { return };
    let Some(_mount) = small_home(&far, "size=1m") else { return };
    let ended = far.run(TRAIN);
    assert!(ended.stderr.contains("error: far: cannot write this program: "), "{ended:#?}");
    assert!(ended.stderr.ends_with(NEXT), "{ended:#?}");
    assert!(far.outputs("model").is_empty());
}

#[test]
fn one_without_space_for_the_inputs_is_named() {
    both(|far| {
        let platform = format!("{PLATFORM}program: {}\n", env!("CARGO_BIN_EXE_mnist"));
        far.cube.write("platforms/ssh.yaml", platform);
        ["a", "b", "c"].iter().for_each(|name| far.cube.write(&format!("workspace/data/{name}"), vec![7; 2 << 20]));
        let Some(_mount) = small_home(far, "size=3m") else { return };
        let ended = far.run(TRAIN);
        let cause = ["No space left on device", "the disk may be full"];
        assert!(cause.iter().any(|cause| ended.stderr.contains(cause)), "{ended:#?}");
        assert!(ended.stderr.contains("error: far: cannot send the inputs: "), "{ended:#?}");
        assert!(ended.stderr.ends_with(NEXT), "{ended:#?}");
    });
}
