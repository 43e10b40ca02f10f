//! The ways in which files arrive.

use std::fs;
use std::time::{Duration, Instant};

use mnist::data::download::Origin;

use super::{Case, idx, images, names, source};
use crate::common::server::{Reply, Server};
use crate::common::{fifo, gzip};

#[test]
fn four_files_come_side_by_side_and_a_second_call_asks_nobody() {
    let server = Server::start();
    let contents: Vec<Vec<u8>> = (0..4).map(|seed| idx(30_000, seed)).collect();
    let labels = ["a", "b", "c", "d"];
    for (name, bytes) in labels.iter().zip(&contents) {
        // Each takes 0.3 s: 1.2 s one after the other.
        let reply = Reply::Trickle(gzip(bytes), 10_000, Duration::from_millis(75));
        server.on(&format!("/mnist/{name}.gz"), [reply]);
    }
    let files = labels.iter().zip(&contents).map(|(name, bytes)| source(name, bytes)).collect();
    let case = Case::of(files, [server.url("/mnist/")]);
    let started = Instant::now();
    assert_eq!(case.run().unwrap(), vec![Origin::Mirror(server.url("/mnist")); 4]);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(case.names(), labels);
    for (name, bytes) in labels.iter().zip(&contents) {
        assert!(fs::read(case.path(name)).unwrap() == *bytes);
    }
    assert_eq!(case.run().unwrap(), labels.map(|name| Origin::There(name.into())));
    assert_eq!(server.requests().len(), 4);
    assert_eq!(server.requests()[0].header("Accept-Encoding"), Some("identity"));
}

#[test]
fn a_server_that_sends_the_file_uncompressed_is_understood() {
    let server = Server::start();
    server.on("/images.gz", [Reply::Whole(images())]);
    Case::new([server.url("")]).fetches_from(&server.url(""));
}

#[test]
fn redirects_are_followed() {
    let server = Server::start();
    server.on("/images.gz", [Reply::redirect("/elsewhere?token=1")]);
    server.on("/elsewhere?token=1", [Reply::File(gzip(&images()))]);
    Case::new([server.url("")]).fetches_from(&server.url(""));
}

#[test]
fn redirects_may_hold_letters_that_are_not_percent_encoded() {
    for (location, path) in
        [(&b"/plain/\xc3\xa9/NAME"[..], "/plain/%C3%A9/NAME"), (b"/plain/\xe9/NAME", "/plain/%E9/NAME")]
    {
        let server = Server::start();
        let redirect = [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ", location, b"\r\n\r\n"].concat();
        server.on("/images.gz", [Reply::Raw(redirect)]).on(path, [Reply::File(gzip(&images()))]);
        Case::new([server.url("")]).fetches_from(&server.url(""));
    }
}

#[test]
fn announcements_before_the_answer_are_skipped() {
    let file = gzip(&images());
    let answer = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len()).as_bytes(), &file].concat();
    for announcements in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nServer: old\r\n\r\n",
        "HTTP/1.1 100 Continue\nServer: old\n\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 100 Continue\r\nServer: old\r\n\r\n",
    ] {
        let server = Server::start();
        server.on("/images.gz", [Reply::Raw([announcements.as_bytes(), &answer].concat())]);
        Case::new([server.url("")]).fetches_from(&server.url(""));
    }
}

#[test]
fn a_mirror_may_be_a_directory_with_files_gzipped_or_plain() {
    let home = tempfile::tempdir().unwrap();
    let mirror = home.path().join("Spiegel für Zahlen");
    fs::create_dir(&mirror).unwrap();
    let shown = mirror.to_str().unwrap();
    let case = Case::new([shown]);
    case.fails_with(&[(shown, "the file is not there, neither plain nor gzipped")]);

    fs::write(mirror.join("images.gz"), &gzip(&images())[..1000]).unwrap();
    let case = Case::new([shown]);
    let message = case.error();
    assert!(message.starts_with(&format!("images: no mirror has it\n  {shown}: images.gz: cut short: ")), "{message}");

    fs::write(mirror.join("images"), images()).unwrap();
    case.fetches_from(shown);
    fs::write(mirror.join("images.gz"), gzip(&images())).unwrap();
    fs::remove_file(mirror.join("images")).unwrap();
    Case::new([shown]).fetches_from(shown);
    assert_eq!(names(&mirror), ["images.gz"]);
}

#[test]
fn a_directory_that_has_none_of_the_files_is_told_once() {
    let mirror = tempfile::tempdir().unwrap();
    let shown = mirror.path().to_str().unwrap();
    let case = Case::of(["a", "b", "c", "d"].map(|name| source(name, &images())).to_vec(), [shown]);
    let answer = "the file is not there, neither plain nor gzipped";
    assert_eq!(case.error(), format!("a, b, c, d: no mirror has them\n  {shown}: {answer}"));
    // A pipe in the place of a file stands for all that cannot be read: root may read everything else.
    let answers = ["a", "b", "c", "d"].map(|name| {
        fifo(&mirror.path().join(name));
        format!("{name}: no mirror has it\n  {shown}: {name}: expected a file, found a pipe")
    });
    assert_eq!(case.error(), answers.join("\n"));
}

#[test]
fn a_path_with_spaces_and_other_letters() {
    let server = Server::start();
    server.on("/ein%20Spiegel/images.gz", [Reply::File(gzip(&images()))]);
    let mut case = Case::new([server.url("/ein Spiegel")]);
    case.options.data_dir = case.path("Daten für 数字").join("a b");
    case.fetches_from(&server.url("/ein%20Spiegel"));
}
