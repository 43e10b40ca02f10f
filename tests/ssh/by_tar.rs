//! What tar does of its own, and what it does not: names with backslashes, things of another kind, empty directories, pipes.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::outputs::{both, interrupt};
use super::{Far, TRAIN, make_runnable};

/// Without rsync.
fn by_tar() -> Option<Far> {
    let far = Far::new()?;
    far.sshd.program("rsync", "exit 1");
    Some(far)
}

#[test]
fn a_name_with_a_backslash_is_a_name() {
    both(|far| {
        far.cube.write("workspace/data/b\\102", "input");
        far.cube.write("workspace/data/bB", "another input");
        let child = far.long_training();
        let there = far.base().join("cube/workspace");
        assert_eq!(fs::read_to_string(there.join("data/b\\102")).unwrap(), "input");
        let names = ["a\\101", "a\\n", "a\nb", "aA"];
        names.iter().for_each(|name| fs::write(there.join("model").join(name), name).unwrap());
        interrupt(child, far);
        let model = far.outputs("model");
        assert!(
            names.iter().all(|name| model.get(*name).is_some_and(|text| text == name.as_bytes())),
            "{:?}",
            model.keys()
        );
    });
}

#[test]
fn only_what_was_asked_for_is_taken_from_what_comes() {
    let bin = crate::common::Sandbox::new();
    bin.write(
        "tar",
        "#!/bin/sh\ncase \"$*\" in *-cf*) echo more >model/more; exec /usr/bin/tar \"$@\" ./model/more ;; esac\n\
         exec /usr/bin/tar \"$@\"\n",
    );
    make_runnable(&bin.path("tar"));
    let Some(far) = Far::with(&format!("PATH={}:/usr/bin:/bin", bin.path("").display())) else { return };
    far.sshd.program("rsync", "exit 1");
    far.run(TRAIN).done();
    assert!(far.base().join("cube/workspace/model/more").exists());
    let names: Vec<String> = far.outputs("model").into_keys().collect();
    assert!(names.len() == 5 && !names.contains(&"more".to_string()), "{names:?}");
}

#[test]
fn what_has_become_of_another_kind_here_does_so_there() {
    let Some(far) = by_tar() else { return };
    let here = |name: &str| PathBuf::from(far.cube.workspace(name));
    for place in ["data", "model"] {
        for name in ["directory/deep/file", "file", "kept/file"] {
            far.cube.write(&format!("workspace/{place}/{name}"), "text");
        }
    }
    far.run(TRAIN).done();
    for place in ["data", "model"] {
        fs::remove_dir_all(here(place).join("directory")).unwrap();
        fs::remove_file(here(place).join("file")).unwrap();
        far.cube.write(&format!("workspace/{place}/directory"), "a file now");
        far.cube.write(&format!("workspace/{place}/file/deep/file"), "in a directory now");
        far.cube.write(&format!("workspace/{place}/socket/file"), "text");
        let _ = UnixListener::bind(far.base().join("cube/workspace").join(place).join("socket")).unwrap();
    }
    far.run(TRAIN).done();
    for place in ["data", "model"] {
        let there = far.base().join("cube/workspace").join(place);
        assert_eq!(fs::read_to_string(there.join("directory")).unwrap(), "a file now", "{place}");
        assert_eq!(fs::read_to_string(there.join("file/deep/file")).unwrap(), "in a directory now", "{place}");
        assert!(there.join("socket/file").is_file() && there.join("kept/file").is_file(), "{place}");
        assert!(here(place).join("directory").is_file() && here(place).join("file/deep/file").is_file(), "{place}");
    }
}

#[test]
fn empty_directories_go_there_and_away_again() {
    both(|far| {
        let here = |name: &str| PathBuf::from(far.cube.workspace(name));
        for name in ["model/empty/deep", "data/empty"] {
            fs::create_dir_all(here(name)).unwrap();
        }
        far.run(TRAIN).done();
        let there = far.base().join("cube/workspace");
        assert!(there.join("model/empty/deep").is_dir() && there.join("data/empty").is_dir());
        assert!(here("model/empty/deep").is_dir());
        fs::remove_dir(here("model/empty/deep")).unwrap();
        fs::remove_dir(here("data/empty")).unwrap();
        far.run(TRAIN).done();
        assert!(!there.join("model/empty/deep").exists() && !there.join("data/empty").exists());
        assert!(there.join("model/empty").is_dir() && here("model/empty").is_dir());
    });
}

#[test]
fn a_socket_in_an_output_is_left_out_with_a_warning() {
    both(|far| {
        let child = far.long_training();
        let there = far.base().join("cube/workspace/model/socket");
        let _ = UnixListener::bind(&there).unwrap();
        interrupt(child, far);
        let (stderr, socket) = (far.cube.sandbox.read("stderr"), far.cube.workspace("model/socket"));
        assert!(stderr.contains(&format!("{socket}: left out, since it is no file\n")), "{stderr}");
        assert!(fs::symlink_metadata(socket).is_err());
    });
}

/// A far side whose tar sends a link in a first stream, and in the next a file by way of it.
#[test]
fn a_link_that_comes_is_not_followed_by_what_comes_next() {
    let bin = crate::common::Sandbox::new();
    fs::create_dir(bin.path("victim")).unwrap();
    bin.write("victim/file", "mine");
    bin.write(
        "tar",
        format!(
            "#!/bin/sh\ncase \"$*\" in *-cf*)\n\
             if mkdir '{first}'; then ln -s '{victim}' model/way; exec /usr/bin/tar \"$@\" ./model/way; fi\n\
             rm model/way; mkdir model/way; echo theirs >model/way/file; exec /usr/bin/tar \"$@\" ./model/way/file ;;\n\
             esac\nexec /usr/bin/tar \"$@\"\n",
            first = bin.path("first").display(),
            victim = bin.path("victim").display(),
        ),
    );
    make_runnable(&bin.path("tar"));
    let Some(far) = Far::with(&format!("PATH={}:/usr/bin:/bin", bin.path("").display())) else { return };
    far.sshd.program("rsync", "exit 1");
    let child = far.long_training();
    let there = far.base().join("cube/workspace/model");
    (0..1000).for_each(|n| fs::write(there.join(format!("f{n}")), "").unwrap());
    std::os::unix::fs::symlink("f0", there.join("a link")).unwrap();
    interrupt(child, &far);
    assert!(there.join("way/file").exists(), "a second stream");
    assert_eq!(bin.read("victim/file"), "mine");
    let model = far.outputs("model");
    assert!(model.len() > 1000 && !model.contains_key("way/file") && !model.contains_key("a link"), "{}", model.len());
    let said = far.cube.sandbox.read("stderr");
    assert!(said.contains("/a link: left out, since it is no file\n"), "{said}");
}
