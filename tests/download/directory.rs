//! Files that are there already, and disks that refuse new ones.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mnist::data::dataset::Dataset;
use mnist::data::download::{self, Origin, PlaceDrawn};
use mnist::error::Error;

use super::{BYTES, Case, idx, images, origins, source};
use crate::common::server::{Reply, Server};
use crate::common::{fifo, gzip, tmpfs};

#[test]
fn files_that_the_user_has_put_there_need_no_mirror() {
    let case = Case::new([""; 0]).with("images", &images());
    assert_eq!(case.run().unwrap(), [Origin::There("images".into())]);
    let case = Case::new([""; 0]).with("images.gz", &gzip(&images()));
    assert_eq!(case.run().unwrap(), [Origin::Unpacked("images.gz".into())]);
    assert!(fs::read(case.path("images")).unwrap() == images());
    assert_eq!(case.names(), ["images", "images.gz"]);
    let case = Case::new([""; 0]);
    assert_eq!(case.error(), "images: no mirror has it");
}

/// The layouts in which people get MNIST.
const LAYOUTS: [&str; 6] = [
    "a.idx3-ubyte",
    "a.idx3-ubyte.gz",
    "a-idx3-ubyte/a-idx3-ubyte",
    "a.idx3-ubyte/a-idx3-ubyte",
    "MNIST/raw/a-idx3-ubyte",
    "MNIST/raw/a-idx3-ubyte.gz",
];

#[test]
fn files_in_every_layout_are_taken_where_they_are_and_from_a_mirror() {
    for layout in LAYOUTS {
        let bytes = if layout.ends_with(".gz") { gzip(&images()) } else { images() };
        let files = || vec![source("a-idx3-ubyte", &images())];
        let case = Case::of(files(), ["http://127.0.0.1:9"]);
        fs::create_dir_all(case.path(layout).parent().unwrap()).unwrap();
        let case = case.with(layout, &bytes);
        match layout.ends_with(".gz") {
            false => assert_eq!(case.run().unwrap(), [Origin::There(layout.into())]),
            true => {
                assert_eq!(case.run().unwrap(), [Origin::Unpacked(layout.into())]);
                assert!(fs::read(case.path("a-idx3-ubyte")).unwrap() == images());
            }
        }
        assert!(fs::read(case.path(layout)).unwrap() == bytes);

        let mirror = case.options.data_dir;
        let case = Case::of(files(), [&mirror]);
        assert_eq!(case.run().unwrap(), [Origin::Mirror(mirror.display().to_string())], "{layout}");
        assert!(fs::read(case.path("a-idx3-ubyte")).unwrap() == images());
    }
}

#[test]
fn a_file_behind_a_wrong_one_takes_its_place() {
    let case = Case::of(vec![source("a-idx3-ubyte", &images())], [""; 0]);
    let case = case.with("a-idx3-ubyte", &idx(BYTES, 3)).with("a.idx3-ubyte", &images());
    assert_eq!(case.run().unwrap(), [Origin::Unpacked("a.idx3-ubyte".into())]);
    assert!(fs::read(case.path("a-idx3-ubyte")).unwrap() == images());
    assert_eq!(case.names(), ["a-idx3-ubyte", "a-idx3-ubyte.mismatch", "a.idx3-ubyte"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_named_and_kept_under_another_name() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    let case = Case::new([server.url("")]);
    let file = case.path("images");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("not/there", &file).unwrap();
    case.run().unwrap();
    assert!(fs::read(&file).unwrap() == images());
    assert_eq!(fs::read_link(case.path("images.mismatch")).unwrap(), Path::new("not/there"));
    // As a data manager leaves one for a file that it has not fetched.
    let (name, directory) = ("train-images-idx3-ubyte", tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("not/there", directory.path().join(name)).unwrap();
    let error = Dataset::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("{name}: cannot read: expected a file, found a link to nothing")), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_mirror_whose_path_is_not_utf_8_is_that_directory() {
    let home = tempfile::tempdir().unwrap();
    let mirror = home.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"spiegel-\xfc"));
    fs::create_dir(&mirror).unwrap();
    fs::write(mirror.join("images"), images()).unwrap();
    let case = Case::new([&mirror]);
    assert_eq!(case.run().unwrap(), [Origin::Mirror(mirror.display().to_string())]);
}

#[test]
fn what_is_there_and_wrong_is_kept_under_another_name() {
    let server = Server::start();
    let fashion = idx(BYTES, 3);
    let case = Case::new([server.url("")]).with("images", &fashion).with("images.gz", b"mine");
    // As long as no mirror has the file, nothing changes.
    case.error();
    assert!(fs::read(case.path("images")).unwrap() == fashion);
    assert_eq!(case.names(), ["images", "images.gz"]);

    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    case.run().unwrap();
    assert!(fs::read(case.path("images")).unwrap() == images());
    assert!(fs::read(case.path("images.mismatch")).unwrap() == fashion);
    assert_eq!(fs::read(case.path("images.gz")).unwrap(), b"mine");

    let case = case.with("images", &images()[..1000]);
    case.run().unwrap();
    assert!(fs::read(case.path("images.mismatch")).unwrap() == fashion);
    assert!(fs::read(case.path("images.mismatch-2")).unwrap() == images()[..1000]);
    assert_eq!(case.names(), ["images", "images.gz", "images.mismatch", "images.mismatch-2"]);
}

#[test]
fn the_stand_in_is_replaced_and_never_replaces_mnist() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    let drawn = idx(BYTES, 4);
    let mut case = Case::new([server.url("")]);
    case.options.stand_in = vec![source("images", &drawn)];
    let stand_in = case.options.stand_in[0];
    let draw = |place: PlaceDrawn| place(&stand_in, &drawn);
    assert_eq!(origins(download::write_synthetic(&case.options, draw)).unwrap(), [Origin::Drawn]);
    let never = |_: PlaceDrawn| panic!("nothing to draw");
    let again = origins(download::write_synthetic(&case.options, never)).unwrap();
    assert_eq!(again, [Origin::DrawnBefore("images".into())]);

    case.fetches_from(&server.url(""));
    let refused = |case: &Case| {
        let error = download::write_synthetic(&case.options, never).unwrap_err();
        let directory = case.options.data_dir.display();
        let expected = "holds MNIST itself (images), which the synthetic stand-in does not replace";
        assert_eq!(error.to_string(), format!("{directory}: {expected}"));
        assert_eq!(error.hint().unwrap(), "give the stand-in another directory with --data_dir=DIR");
    };
    refused(&case);
    fs::remove_file(case.path("images")).unwrap();
    let case = case.with("images.gz", &gzip(&images()));
    refused(&case);

    // Anything else is kept, as in a download.
    let case = case.with("images", b"mine").with("images.gz", b"mine");
    assert_eq!(origins(download::write_synthetic(&case.options, draw)).unwrap(), [Origin::Drawn]);
    assert_eq!(case.names(), ["images", "images.gz", "images.mismatch"]);

    // What comes while the digits are drawn, a download or a file of the user's.
    let meanwhile = |bytes: &[u8]| {
        fs::remove_file(case.path("images")).unwrap();
        download::write_synthetic(&case.options, |place| {
            fs::write(case.path("images"), bytes).unwrap();
            place(&stand_in, &drawn)
        })
    };
    assert!(matches!(meanwhile(&images()), Err(Error::RealData { .. })));
    assert!(fs::read(case.path("images")).unwrap() == images());
    meanwhile(b"mine too").unwrap();
    assert!(fs::read(case.path("images")).unwrap() == drawn);
    assert_eq!(fs::read(case.path("images.mismatch-2")).unwrap(), b"mine too");
}

#[test]
fn the_stand_in_stays_whole_until_all_files_are_there() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    server.on("/labels.gz", [Reply::status(404, "Not Found"), Reply::File(gzip(&images()))]);
    let drawn = idx(BYTES, 4);
    let mut case = Case::of(["images", "labels"].map(|name| source(name, &images())).to_vec(), [server.url("")]);
    case.options.stand_in = ["images", "labels"].map(|name| source(name, &drawn)).to_vec();
    let case = case.with("images", &drawn).with("labels", &drawn);
    assert!(case.run().is_err());
    assert_eq!(case.names(), ["images", "labels"]);
    for name in ["images", "labels"] {
        assert_eq!(fs::read(case.path(name)).unwrap(), drawn, "{name}");
    }
    case.run().unwrap();
    for name in ["images", "labels"] {
        assert_eq!(fs::read(case.path(name)).unwrap(), images(), "{name}");
    }
    assert_eq!(case.names(), ["images", "labels"]);
}

#[test]
fn two_downloads_into_one_directory_do_no_harm() {
    let server = Server::start();
    let slow = Reply::Trickle(gzip(&images()), 50_000, Duration::from_millis(30));
    server.on("/images.gz", [slow]);
    for mine in [None, Some(idx(BYTES, 5))] {
        let mut case = Case::new([server.url("")]);
        if let Some(mine) = &mine {
            case = case.with("images", mine);
        }
        std::thread::scope(|scope| {
            let runs = [0; 4].map(|_| scope.spawn(|| case.run()));
            runs.into_iter().for_each(|run| drop(run.join().unwrap().unwrap()));
        });
        assert!(fs::read(case.path("images")).unwrap() == images());
        match mine {
            None => assert_eq!(case.names(), ["images"]),
            Some(mine) => {
                // Each of the runs may have taken a name for it; one of them has moved it there.
                let kept =
                    |name: &String| name.starts_with("images.mismatch") && fs::read(case.path(name)).unwrap() == mine;
                assert!(case.names().iter().any(kept), "{:?}", case.names());
                assert!(!case.names().iter().any(|name| name.ends_with(".part")), "{:?}", case.names());
            }
        }
    }
}

#[test]
fn a_data_directory_that_is_a_file_or_cannot_be_read() {
    let mut case = Case::new([""; 0]).with("taken", b"");
    case.options.data_dir = case.path("taken");
    let path = case.options.data_dir.display();
    let error = case.run().unwrap_err();
    assert_eq!(error.to_string(), format!("{path}: cannot create the directory: expected a directory, found a file"));

    // A pipe in the place of a file stands for all that cannot be read: root may read everything else.
    let case = Case::new([""; 0]).with("other", b"");
    fifo(&case.path("images"));
    let path = case.path("images").display().to_string();
    assert_eq!(case.error(), format!("{path}: cannot read: expected a file, found a pipe"));
    // A directory cannot be replaced, which is found out before anything is fetched.
    let case = Case::new(["http://127.0.0.1:9"]);
    fs::create_dir_all(case.path("images")).unwrap();
    let path = case.path("images").display().to_string();
    assert_eq!(case.error(), format!("{path}: cannot write: is a directory"));
}

#[test]
fn a_full_disk_is_named_and_left_as_it_was() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    let case = Case::new([server.url("/404"), server.url(""), server.url("/b")]);
    let Some(_mount) = tmpfs(&case.options.data_dir, "size=64k") else { return };
    let error = case.run().unwrap_err();
    let path = case.path("images").display().to_string();
    assert_eq!(error.to_string(), format!("{path}: cannot write: No space left on device (os error 28)"));
    assert_eq!(error.hint().unwrap(), "free some space on that disk, or choose another directory");
    assert_eq!(case.names(), [""; 0]);
    assert_eq!(server.requests().len(), 2, "no other mirror helps against a full disk");
}

#[test]
fn a_read_only_directory_will_do_if_all_is_there() {
    let case = Case::new(["http://127.0.0.1:9"]);
    let Some(mount) = tmpfs(&case.options.data_dir, "size=1m") else { return };
    mount.make_read_only();
    let error = case.run().unwrap_err();
    let path = case.options.data_dir.display().to_string();
    let expected = "cannot write into the directory: Read-only file system (os error 30)";
    assert_eq!(error.to_string(), format!("{path}: {expected}"));
    assert_eq!(error.hint().unwrap(), "choose a directory on a file system that can be written");
    drop(mount);

    for (name, bytes) in [("images", images()), ("images.gz", gzip(&images()))] {
        let case = Case::new(["http://127.0.0.1:9"]);
        let Some(mount) = tmpfs(&case.options.data_dir, "size=1m") else { return };
        let case = case.with(name, &bytes);
        mount.make_read_only();
        assert_eq!(case.run().unwrap(), [Origin::There(name.into())]);
    }
}
