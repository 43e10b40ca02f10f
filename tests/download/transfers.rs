//! Transfers that break and are resumed.

use std::fs;

use super::{BYTES, Case, Notes, idx, images, ranges, source};
use crate::common::gzip;
use crate::common::server::{Reply, Server, etag};

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let whole = gzip(&images());
    let server = Server::start();
    server.on(
        "/images.gz",
        [
            Reply::ResetAfter(whole.clone(), 100_000),
            Reply::ResetAfter(whole.clone(), 5),
            Reply::HangAfter(whole.clone(), 50_000),
            Reply::File(whole.clone()),
        ],
    );
    let mut case = Case::new([server.url("")]);
    case.options.limits.retries = 3;
    case.fetches_from(&server.url(""));
    let from = |bytes: usize| Some(format!("bytes={bytes}-"));
    assert_eq!(ranges(&server), [None, from(100_000), from(100_005), from(150_005)]);
    assert_eq!(server.requests()[1].header("If-Range"), Some(etag(&whole).as_str()));
}

#[test]
fn a_mirror_that_breaks_every_time_is_given_up() {
    let whole = gzip(&images());
    let server = Server::start();
    let reply = Reply::ResetAfter(whole[..100].to_vec(), 0);
    server.on("/images.gz", [reply]);
    let url = server.url("");
    let answer = "connection broken after 0 bytes: Connection reset by peer (os error 104)";
    Case::new([&url]).fails_with(&[(&url, answer)]);
    assert_eq!(server.requests().len(), 3);
    // Each attempt goes on after the 1000 bytes that the one before has brought.
    server.on("/images.gz", [Reply::ResetAfter(whole.clone(), 1000)]);
    let answer = "connection broken after 3000 bytes: Connection reset by peer (os error 104)";
    Case::new([&url]).fails_with(&[(&url, answer)]);
    assert_eq!(server.requests().len(), 6);
    // As long as it gets on by much, it may break as often as it likes.
    server.on("/images.gz", [Reply::ResetAfter(gzip(&idx(BYTES * 3, 1)), 70_000)]);
    Case::of(vec![source("images", &idx(BYTES * 3, 1))], [&url]).run().unwrap();
    assert_eq!(server.requests().len(), 6 + 9);
}

#[test]
fn a_server_that_cannot_resume_sends_all_of_it_again() {
    let whole = gzip(&images());
    for second in [
        Reply::Whole(whole.clone()),
        // Another version of the file: the ETag no longer matches.
        Reply::File([&whole[..], b"new"].concat()),
    ] {
        let server = Server::start();
        server.on("/images.gz", [Reply::ResetAfter(whole.clone(), 100_000), second]);
        Case::new([server.url("")]).fetches_from(&server.url(""));
        assert_eq!(ranges(&server), [None, Some("bytes=100000-".to_string())]);
    }
    for (second, status) in [
        (Reply::WrongPart(whole.clone()), "206 Partial Content"),
        (Reply::status(416, "Range Not Satisfiable"), "416 Range Not Satisfiable"),
    ] {
        let server = Server::start();
        server.on("/images.gz", [Reply::ResetAfter(whole.clone(), 100_000), second, Reply::File(whole.clone())]);
        let case = Case::new([server.url("")]);
        let retry = format!("images: retry: {status} without the bytes from 100000 on");
        assert!(Notes::of(&case).contains(&retry));
        assert!(fs::read(case.path("images")).unwrap() == images());
        assert_eq!(ranges(&server), [None, Some("bytes=100000-".to_string()), None]);
    }
}

#[test]
fn an_answer_without_length_that_ends_early_is_resumed() {
    let whole = gzip(&images());
    let server = Server::start();
    server.on("/images.gz", [Reply::NoLengthCut(whole.clone(), 5), Reply::NoLength(whole)]);
    Case::new([server.url("")]).fetches_from(&server.url(""));
    assert_eq!(ranges(&server), [None, Some("bytes=5-".to_string())]);
}

#[test]
fn pieces_of_two_versions_are_fetched_again_as_one() {
    // The server gives no ETag, so nothing tells that the second piece is of another file.
    let (old, new) = (gzip(&idx(BYTES, 7)), gzip(&images()));
    let server = Server::start();
    server.on("/images.gz", [Reply::NoLengthCut(old, 100_000), Reply::NoLength(new)]);
    Case::new([server.url("")]).fetches_from(&server.url(""));
    assert_eq!(ranges(&server), [None, Some("bytes=100000-".to_string()), None]);
}

#[test]
fn a_file_whose_bytes_have_all_come_is_taken_however_the_connection_ends() {
    let whole = gzip(&images());
    let answer = |headers: &str, ends: [&[u8]; 2]| {
        [format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").as_bytes(), ends[0], &whole, ends[1]].concat()
    };
    let size = format!("{:x}\r\n", whole.len());
    let chunk_but_not_the_last = answer("Transfer-Encoding: chunked", [size.as_bytes(), b"\r\n"]);
    let length_too_large = answer(&format!("Content-Length: {}", whole.len() + 1), [b"", b""]);
    for bytes in [chunk_but_not_the_last, length_too_large] {
        let server = Server::start();
        server.on("/images.gz", [Reply::Raw(bytes)]);
        Case::new([server.url("")]).fetches_from(&server.url(""));
        assert_eq!(server.requests().len(), 1);
    }
    // Or does not end: a length that is too large, and then nothing.
    let server = Server::start();
    server.on("/images.gz", [Reply::HangAfter([&whole[..], b"more"].concat(), whole.len())]);
    Case::new([server.url("")]).fetches_from(&server.url(""));
    assert_eq!(server.requests().len(), 1);
}
