//! Servers that fail or misbehave.

use std::time::{Duration, Instant};

use mnist::data::download::Origin;
use mnist::sha256;

use super::environment::run_in_child;
use super::{BYTES, Case, answer_is, idx, images, impatient, source};
use crate::common::gzip;
use crate::common::server::{Reply, Server};

#[test]
fn each_mirrors_status_is_reported() {
    let server = Server::start();
    let statuses = [
        (403, "Forbidden", 1),
        (404, "Not Found", 1),
        (500, "Internal Server Error", 3),
        (503, "Service Unavailable", 3),
        (429, "Too Many Requests", 3),
    ];
    let mut answers = Vec::new();
    for (code, reason, _) in statuses {
        server.on(&format!("/{code}/images.gz"), [Reply::status(code, reason)]);
        answers.push((server.url(&format!("/{code}")), format!("{code} {reason}")));
    }
    let case = Case::new(answers.iter().map(|(mirror, _)| mirror));
    let expected: Vec<(&str, &str)> = answers.iter().map(|(m, a)| (m.as_str(), a.as_str())).collect();
    case.fails_with(&expected);
    // What may pass is tried again, the rest is not.
    for (code, _, times) in statuses {
        let path = format!("/{code}/images.gz");
        assert_eq!(server.requests().iter().filter(|request| request.target == path).count(), times, "{code}");
    }
}

#[test]
fn all_files_that_do_not_come_are_reported_and_those_that_come_stay() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    let files = ["x", "images", "y"].map(|name| source(name, &images())).to_vec();
    let case = Case::of(files, [server.url("")]);
    let url = server.url("");
    assert_eq!(case.error(), format!("x, y: no mirror has them\n  {url}: 404 Not Found"));
    assert_eq!(case.names(), ["images"]);
}

#[test]
fn a_server_that_recovers_is_asked_again() {
    let server = Server::start();
    let busy = Reply::Status(429, "Too Many Requests", vec![("Retry-After", "3600".to_string())]);
    server.on("/images.gz", [busy, Reply::status(500, "Internal Server Error"), Reply::File(gzip(&images()))]);
    let case = Case::new([server.url("")]);
    let started = Instant::now();
    case.fetches_from(&server.url(""));
    // Retry-After is heeded, but not for an hour.
    assert!(started.elapsed() >= Duration::from_millis(200) && started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_wrong_hash_is_reported_and_the_next_mirror_has_the_file() {
    let server = Server::start();
    let other = idx(BYTES, 2);
    server.on("/wrong/images.gz", [Reply::File(gzip(&other))]).on("/right/images.gz", [Reply::File(gzip(&images()))]);
    let (wrong, right) = (server.url("/wrong"), server.url("/right"));
    let answer = format!("wrong hash: expected SHA-256 {}, found {}", sha256::of(images()), sha256::of(other));
    Case::new([&wrong]).fails_with(&[(&wrong, &answer)]);
    Case::new([&wrong, &right]).fetches_from(&right);
    assert_eq!(server.requests().len(), 3, "a wrong hash is no reason to ask again");
}

#[test]
fn a_page_served_as_the_file() {
    let page = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>".to_vec();
    answer_is([Reply::Whole(page.clone())], "an HTML page instead of the file");
    answer_is(
        [Reply::Typed("text/html; charset=utf-8", b"Please log in".to_vec())],
        "an HTML page instead of the file",
    );
    answer_is(
        [Reply::Typed("text/plain", b"Please log in".to_vec())],
        "neither gzip nor IDX: it begins with 50 6c 65 61 73 65 20 6c",
    );
    let portal = Server::start();
    portal.on("/login?from=here", [Reply::Whole(page)]);
    let login = portal.url("/login");
    let expected = format!("an HTML page instead of the file (redirected to {login})");
    answer_is([Reply::redirect(format!("{login}?from=here"))], &expected);
}

#[test]
fn gzip_that_is_cut_corrupt_or_a_bomb() {
    let whole = gzip(&images());
    let server = Server::start();
    server.on("/images.gz", [Reply::Whole(whole[..whole.len() / 2].to_vec())]);
    let message = Case::new([server.url("")]).error();
    assert!(message.contains(": cut short: ") && message.ends_with(" of 200000 decompressed bytes"), "{message}");
    assert_eq!(server.requests().len(), 1, "all that the server has came: no reason to ask again");

    let mut corrupt = whole.clone();
    corrupt[10..60].fill(0xff);
    answer_is([Reply::File(corrupt)], "corrupt gzip after 0 of 200000 decompressed bytes");
    let bomb = gzip(&[&images()[..], &vec![0; 100_000_000]].concat());
    answer_is([Reply::File(bomb)], "longer than the 200000 bytes that the file has");
    // A stream without end that decompresses to nothing: empty blocks.
    let endless = [&whole[..10], &[0, 0, 0, 0xff, 0xff].repeat(200_000)].concat();
    answer_is([Reply::File(endless)], "longer than the 200000 bytes that the file has");
}

#[test]
fn redirects_that_lead_nowhere() {
    answer_is([Reply::redirect("/images.gz")], "redirected in a circle, back to SERVER/images.gz");
    answer_is([Reply::redirect("ftp://host/images.gz")], "redirected from http to ftp://host/images.gz");
    let server = Server::start();
    server.on("/images.gz", [Reply::redirect("/1")]);
    for hop in 1..20 {
        server.on(&format!("/{hop}"), [Reply::redirect(format!("/{}", hop + 1))]);
    }
    let url = server.url("");
    let expected = format!("redirected more than 10 times, lastly to {url}/11");
    Case::new([&url]).fails_with(&[(&url, &expected)]);
}

#[test]
fn servers_that_hang_or_trickle_are_given_up() {
    let whole = gzip(&images());
    answer_is([Reply::Hang], "no answer within 1s");
    answer_is([Reply::HangAfter(whole.clone(), 1000), Reply::status(404, "Not Found")], "404 Not Found");
    let server = Server::start();
    server.on("/hang/images.gz", [Reply::HangAfter(whole.clone(), 1000)]);
    server.on("/trickle/images.gz", [Reply::Trickle(whole.clone(), 10, Duration::from_millis(20))]);
    server.on("/right/images.gz", [Reply::File(whole)]);
    let (hang, trickle, right) = (server.url("/hang"), server.url("/trickle"), server.url("/right"));
    Case::new([&hang, &trickle, &right]).fetches_from(&right);
    let message = Case::new([&trickle]).error();
    let answer = message.strip_prefix(&format!("images: no mirror has it\n  {trickle}: too slow: ")).unwrap();
    assert!(answer.ends_with(" bytes per second over 300ms"), "{message}");
    // It hangs after 1000 bytes; the retry gets 1000 more.
    let message = Case::new([&hang]).error();
    assert_eq!(message, format!("images: no mirror has it\n  {hang}: nothing more within 400ms after 2000 bytes"));
}

#[test]
fn a_mirror_that_delivers_other_files_is_only_busy() {
    let server = Server::start();
    let busy = Reply::status(503, "Service Unavailable");
    let limits = impatient();
    // Twice as often as a mirror without any success is asked.
    let replies = std::iter::repeat_n(busy, 2 * limits.retries as usize + 2).chain([Reply::File(gzip(&images()))]);
    server.on("/d.gz", replies);
    for name in ["a", "b", "c"] {
        server.on(&format!("/{name}.gz"), [Reply::Trickle(gzip(&images()), 500, Duration::from_millis(2))]);
    }
    let case = Case::of(["a", "b", "c", "d"].map(|name| source(name, &images())).to_vec(), [server.url("")]);
    assert_eq!(case.run().unwrap(), vec![Origin::Mirror(server.url("")); 4]);
}

#[test]
fn a_mirror_that_cuts_every_file_short_is_given_up() {
    let server = Server::start();
    let whole = gzip(&images());
    let mut cut = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len()).into_bytes();
    cut.extend(&whole[..whole.len() / 2]);
    let names = ["a", "b", "c", "d"];
    for name in names {
        server.on(&format!("/{name}.gz"), [Reply::Raw(cut.clone())]); // and the same again
    }
    let case = Case::of(names.map(|name| source(name, &images())).to_vec(), [server.url("")]);
    assert!(case.run().is_err());
    // What comes once more is no progress, for itself and for the others.
    let most = names.len() * 2 * (impatient().retries as usize + 1);
    assert!(server.requests().len() <= most, "{} requests", server.requests().len());
}

#[test]
fn announcements_without_an_answer_are_given_up() {
    let announcement = b"HTTP/1.1 100 Continue\r\nServer: old\r\n\r\n";
    answer_is([Reply::Raw(announcement.repeat(100_000))], "no answer, only announcements of one (status 1xx)");
    answer_is([Reply::Raw(announcement.to_vec())], "connection broken before an answer: the server closed it");
    answer_is(
        [Reply::Raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n".to_vec())],
        "101 Switching Protocols",
    );
}

#[test]
fn nobody_listens_and_nobody_knows_the_name() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    Case::new([&url]).fails_with(&[(&url, "cannot connect: Connection refused (os error 111)")]);
    // How a name is not found depends on the machine: it is said to be unknown, or nobody can be asked.
    let message = run_in_child("unknown", "http://mirror.invalid/mnist", &[]).wait();
    let answer = message.strip_prefix("images: no mirror has it|  http://mirror.invalid/mnist: ").unwrap_or(&message);
    let known = ["cannot connect: failed to lookup address information: ", "no connection within 600ms"];
    assert!(known.iter().any(|known| answer.starts_with(known)), "{message}");
}

#[test]
fn the_time_for_a_first_answer_ends_all_attempts() {
    let server = Server::start();
    server.on("/images.gz", [Reply::Hang]);
    let mut case = Case::new([server.url(""), server.url("/b")]);
    case.options.limits.connect = Duration::from_secs(60);
    case.options.limits.first_answer = Some(Duration::from_millis(200));
    let started = Instant::now();
    case.fails_with(&[(&server.url(""), "given up, since no mirror has delivered anything within 200ms")]);
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());

    // Once one has begun to answer, all have their time.
    let slow = Reply::Trickle(gzip(&images()), 60_000, Duration::from_millis(120));
    server.on("/images.gz", [slow]);
    case.fetches_from(&server.url(""));
}
