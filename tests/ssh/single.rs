//! Single files that are sent: whole, or not under their names.

use std::fs;
use std::path::PathBuf;

use super::{Far, TRAIN, make_runnable};

/// This program there.
fn program(far: &Far) -> PathBuf {
    let programs: Vec<_> = fs::read_dir(far.base().join("bin")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(programs.len(), 1, "{programs:?}");
    programs[0].clone()
}

#[test]
fn a_program_that_did_not_arrive_whole_is_sent_again() {
    let Some(far) = Far::new() else { return };
    far.sshd.wire.cut_after(2_000_000);
    let cut = far.run(TRAIN);
    assert_eq!(cut.code, Some(1), "{cut:#?}");
    assert!(cut.stderr.contains("error: far: cannot connect: ") && !cut.stderr.contains("cannot run"), "{cut:#?}");
    far.run(TRAIN).done();
    // As an older sender may have left it.
    let program = program(&far);
    let whole = fs::metadata(&program).unwrap().len();
    fs::File::options().write(true).open(&program).unwrap().set_len(whole / 2).unwrap();
    let ended = far.run(TRAIN).done();
    assert!(ended.stderr.contains("far: sending this program\n"), "{ended:#?}");
    assert_eq!(fs::metadata(&program).unwrap().len(), whole);
    assert!(!far.run(TRAIN).done().stderr.contains("sending this program"));
}

#[test]
fn two_first_commands_at_once_send_a_program_each() {
    let bin = crate::common::Sandbox::new();
    bin.write("cat", "#!/bin/sh\n/bin/sleep 2\nexec /bin/cat \"$@\"\n");
    make_runnable(&bin.path("cat"));
    let Some(far) = Far::with(&format!("PATH={}:/usr/bin:/bin", bin.path("").display())) else { return };
    let log = |name: &str| fs::File::create(far.cube.sandbox.path(name)).unwrap();
    let children = ["first", "second"].map(|name| far.command(TRAIN).stderr(log(name)).spawn().unwrap());
    let codes = children.map(super::ended);
    let said = ["first", "second"].map(|name| far.cube.sandbox.read(name));
    assert!(codes.contains(&Some(0)), "{said:#?}");
    // One may have come while the other one sent the rest.
    assert!(
        said.iter().all(|said| !said.contains("this program there") && !said.contains("cannot write")),
        "{said:#?}"
    );
    assert!(said.iter().all(|said| said.contains("far: sending this program\n")), "{said:#?}");
    program(&far);
}

#[test]
fn bytes_that_were_changed_on_the_way_do_not_get_the_name() {
    let bin = crate::common::Sandbox::new();
    bin.write("cat", "#!/bin/sh\n/bin/cat \"$@\" | tr A B\n");
    make_runnable(&bin.path("cat"));
    let Some(far) = Far::with(&format!("PATH={}:/usr/bin:/bin", bin.path("").display())) else { return };
    far.run(TRAIN).failed_with("far: cannot write this program: the SHA-256 is not that of what was sent");
    assert_eq!(fs::read_dir(far.base().join("bin")).unwrap().count(), 0);
}
