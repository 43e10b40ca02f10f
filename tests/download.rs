//! `download` against servers on this machine and directories, which do all that servers, disks and users may do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::server::{Reply, Server, etag};
use crate::common::{gzip, tmpfs};
use mnist::data::download::fetch::Limits;
use mnist::data::download::{self, Event, Options, Origin, Summary, Watch};
use mnist::data::sets::SourceFile;
use mnist::error::{Error, Result};
use mnist::text::hexadecimal;
use sha2::{Digest, Sha256};

/// Bytes of the file that most tests fetch. It hardly compresses.
const BYTES: usize = 200_000;

/// `bytes` bytes that begin as IDX does; another set for each seed.
fn idx(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    [0, 0, 8, 3].into_iter().chain(std::iter::repeat_with(&mut next)).take(bytes).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn source(name: &'static str, bytes: &[u8]) -> SourceFile {
    SourceFile { name, bytes: bytes.len() as u64, sha256: Box::leak(sha256(bytes).into_boxed_str()) }
}

/// The file of most tests: `images`.
fn images() -> Vec<u8> {
    idx(BYTES, 1)
}

fn impatient() -> Limits {
    Limits {
        connect: Duration::from_millis(600),
        idle: Duration::from_millis(400),
        slowest_bytes_per_s: 10_000,
        slowest_over: Duration::from_millis(300),
        retries: 2,
        back_off: Duration::from_millis(5),
        longest_wait: Duration::from_millis(200),
        first_answer: None,
    }
}

/// A data directory of its own, and what to download into it.
struct Case {
    _home: tempfile::TempDir,
    options: Options,
}

impl Case {
    fn new<M: AsRef<str>>(mirrors: impl IntoIterator<Item = M>) -> Self {
        Self::of(vec![source("images", &images())], mirrors)
    }

    fn of<M: AsRef<str>>(files: Vec<SourceFile>, mirrors: impl IntoIterator<Item = M>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mirrors = mirrors.into_iter().map(|mirror| mirror.as_ref().to_string()).collect();
        let data_dir = home.path().join("data");
        let options = Options { data_dir, mirrors, limits: impatient(), files, stand_in: Vec::new() };
        Self { _home: home, options }
    }

    /// With `bytes` under `name` in the data directory.
    fn with(self, name: &str, bytes: &[u8]) -> Self {
        fs::create_dir_all(&self.options.data_dir).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.options.data_dir.join(name)
    }

    fn run(&self) -> Result<Vec<Origin>> {
        origins(download::run(&self.options, &()))
    }

    fn error(&self) -> String {
        self.run().unwrap_err().to_string()
    }

    /// The names in the data directory, sorted.
    fn names(&self) -> Vec<String> {
        names(&self.options.data_dir)
    }

    /// Asserts that `images` came from `mirror` and that nothing else lies about.
    fn fetches_from(&self, mirror: &str) {
        assert_eq!(self.run().unwrap(), [Origin::Mirror(mirror.to_string())]);
        assert!(fs::read(self.path("images")).unwrap() == images());
        assert_eq!(self.names(), ["images"]);
    }

    /// Asserts what each mirror answered, and that nothing is left.
    fn fails_with(&self, answers: &[(&str, &str)]) {
        let lines: String = answers.iter().map(|(mirror, answer)| format!("\n  {mirror}: {answer}")).collect();
        assert_eq!(self.error(), format!("images: no mirror has it{lines}"));
        assert_eq!(self.names(), [""; 0]);
    }
}

fn origins(summary: Result<Summary>) -> Result<Vec<Origin>> {
    Ok(summary?.files.into_iter().map(|(_, origin)| origin).collect())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts what the only mirror answers to requests for `/images.gz` that get `replies`.
fn answer_is(replies: impl IntoIterator<Item = Reply>, expected: &str) {
    let server = Server::start();
    server.on("/images.gz", replies);
    Case::new([server.url("")]).fails_with(&[(&server.url(""), &expected.replace("SERVER", &server.url("")))]);
}

/// Writes down all events but those of single bytes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Watch for Notes {
    fn on(&self, file: &SourceFile, event: &Event) {
        let text = match event {
            Event::Started { total, .. } => format!("started, {total:?}"),
            Event::Received { .. } => return,
            Event::Retry { answer, .. } => format!("retry: {answer}"),
            Event::MirrorFailed { answer, .. } => format!("failed: {answer}"),
            Event::Done { origin } => format!("done: {origin}"),
        };
        self.0.lock().unwrap().push(format!("{}: {text}", file.name));
    }
}

impl Notes {
    fn of(case: &Case) -> Vec<String> {
        let notes = Self::default();
        download::run(&case.options, &notes).unwrap();
        notes.0.into_inner().unwrap()
    }
}

/// What is asked with Range in each request.
fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("Range").map(str::to_string)).collect()
}

// ---- what comes

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
    assert_eq!(case.run().unwrap(), vec![Origin::There; 4]);
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
fn a_mirror_may_be_a_directory_with_files_gzipped_or_plain() {
    let home = tempfile::tempdir().unwrap();
    let mirror = home.path().join("Spiegel für Zahlen");
    fs::create_dir(&mirror).unwrap();
    let shown = mirror.to_str().unwrap();
    let case = Case::new([shown]);
    case.fails_with(&[(shown, "holds neither NAME.gz nor NAME")]);

    fs::write(mirror.join("images.gz"), &gzip(&images())[..1000]).unwrap();
    let case = Case::new([shown]);
    let message = case.error();
    assert!(message.starts_with(&format!("images: no mirror has it\n  {shown}: NAME.gz: cut short: ")), "{message}");

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
    assert_eq!(case.error(), format!("a, b, c, d: no mirror has them\n  {shown}: holds neither NAME.gz nor NAME"));
    // A directory in the place of a file stands for all that cannot be read: root may read everything else.
    for name in ["a", "b", "c", "d"] {
        fs::create_dir(mirror.path().join(name)).unwrap();
    }
    let answer = "NAME: Is a directory (os error 21)";
    assert_eq!(case.error(), format!("a, b, c, d: no mirror has them\n  {shown}: {answer}"));
}

#[test]
fn a_path_with_spaces_and_other_letters() {
    let server = Server::start();
    server.on("/ein%20Spiegel/images.gz", [Reply::File(gzip(&images()))]);
    let mut case = Case::new([server.url("/ein Spiegel")]);
    case.options.data_dir = case.path("Daten für 数字").join("a b");
    case.fetches_from(&server.url("/ein%20Spiegel"));
}

// ---- servers that fail

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
    let answer = format!("wrong hash: expected SHA-256 {}, found {}", sha256(&images()), sha256(&other));
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

// ---- broken transfers

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

// ---- what is there already

#[test]
fn files_that_the_user_has_put_there_need_no_mirror() {
    let case = Case::new([""; 0]).with("images", &images());
    assert_eq!(case.run().unwrap(), [Origin::There]);
    let case = Case::new([""; 0]).with("images.gz", &gzip(&images()));
    assert_eq!(case.run().unwrap(), [Origin::Unpacked]);
    assert!(fs::read(case.path("images")).unwrap() == images());
    assert_eq!(case.names(), ["images", "images.gz"]);
    let case = Case::new([""; 0]);
    assert_eq!(case.error(), "images: no mirror has it");
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
    let draw = |directory: &Path| {
        fs::write(directory.join("images"), &drawn).unwrap();
        Ok(())
    };
    assert_eq!(origins(download::run_synthetic(&case.options, draw)).unwrap(), [Origin::Drawn]);
    let never = |_: &Path| panic!("nothing to draw");
    assert_eq!(origins(download::run_synthetic(&case.options, never)).unwrap(), [Origin::There]);

    case.fetches_from(&server.url(""));
    let refused = |case: &Case| {
        let error = download::run_synthetic(&case.options, never).unwrap_err();
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
    assert_eq!(origins(download::run_synthetic(&case.options, draw)).unwrap(), [Origin::Drawn]);
    assert_eq!(case.names(), ["images", "images.gz", "images.mismatch"]);
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
fn what_killed_runs_have_left_is_removed_after_a_day() {
    let server = Server::start();
    server.on("/images.gz", [Reply::File(gzip(&images()))]);
    let names = [".images.old.part", ".images.new.part", ".other.old.part"];
    let case = names.iter().fold(Case::new([server.url("")]), |case, name| case.with(name, b"half"));
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    for name in [names[0], names[2]] {
        fs::File::options().write(true).open(case.path(name)).unwrap().set_modified(old).unwrap();
    }
    case.run().unwrap();
    assert_eq!(case.names(), [".images.new.part", ".other.old.part", "images"]);
}

// ---- disks

#[test]
fn a_data_directory_that_is_a_file_or_cannot_be_read() {
    let mut case = Case::new([""; 0]).with("taken", b"");
    case.options.data_dir = case.path("taken");
    let path = case.options.data_dir.display();
    let error = case.run().unwrap_err();
    assert_eq!(error.to_string(), format!("{path}: cannot create the directory: File exists (os error 17)"));

    // A directory in the place of a file stands for all that cannot be read: root may read everything else.
    let case = Case::new([""; 0]);
    fs::create_dir_all(case.path("images")).unwrap();
    let path = case.path("images").display().to_string();
    assert_eq!(case.error(), format!("{path}: cannot read: Is a directory (os error 21)"));
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

    for (name, bytes, origin) in
        [("images", images(), Origin::There), ("images.gz", gzip(&images()), Origin::ThereGzipped)]
    {
        let case = Case::new(["http://127.0.0.1:9"]);
        let Some(mount) = tmpfs(&case.options.data_dir, "size=1m") else { return };
        let case = case.with(name, &bytes);
        mount.make_read_only();
        assert_eq!(case.run().unwrap(), [origin]);
    }
}

// ---- the environment and signals, in a process of its own

/// A download of `images` by another process.
struct Child {
    process: std::process::Child,
    home: tempfile::TempDir,
}

impl Child {
    /// What it reports: where the file is from, or the error, with `|` for line ends.
    fn wait(self) -> String {
        let output = self.process.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report = stdout.split("REPORT ").nth(1).unwrap_or(&stdout);
        report.split(" END").next().unwrap().to_string()
    }
}

/// Runs this test program once more, but only [`child`], with `variables` as the only proxy settings.
fn run_in_child(limits: &str, mirror: &str, variables: &[(&str, &str)]) -> Child {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.args(["--exact", "download::child", "--ignored", "--nocapture"]);
    command.env("DATA", home.path()).env("MIRROR", mirror).env("LIMITS", limits).envs(variables.iter().copied());
    Child { process: command.stdout(Stdio::piped()).spawn().unwrap(), home }
}

#[test]
#[ignore = "called by other tests, as a process of its own"]
fn child() {
    let variable = |name| std::env::var(name).unwrap();
    mnist::interrupt::install().unwrap();
    let mut case = Case::new([Ok(variable("MIRROR")), std::env::var("MIRROR_2")].into_iter().flatten());
    case.options.data_dir = variable("DATA").into();
    if variable("LIMITS") == "patient" {
        case.options.limits = Limits::default();
    }
    let report = match case.run() {
        Ok(origins) => origins[0].to_string(),
        Err(error) => format!("{} {error}", error.exit_code()).replace("1 images", "images").replace('\n', "|"),
    };
    println!("REPORT {report} END");
}

#[test]
fn proxies_of_the_environment() {
    let proxy = Server::start();
    proxy.on("/mnist/images.gz", [Reply::File(gzip(&images()))]);
    let (mirror, address) = ("http://mirror.invalid/mnist", proxy.url(""));
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let child = run_in_child("", mirror, &[(variable, &address), ("no_proxy", "other.invalid,10.0.0.0/8")]);
        assert_eq!(child.wait(), format!("from {mirror}, SHA-256 right"), "{variable}");
    }
    let requests = proxy.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0].target, "http://mirror.invalid/mnist/images.gz");

    // With a password, which is sent but not shown.
    let with_password = address.replace("http://", "http://me:secret@");
    run_in_child("", mirror, &[("http_proxy", &with_password)]).wait();
    assert_eq!(proxy.requests()[4].header("Proxy-Authorization"), Some("Basic bWU6c2VjcmV0"));

    // Asked directly: what no_proxy lists, and this machine.
    for (variable, value) in [("no_proxy", "mirror.invalid"), ("NO_PROXY", ".invalid"), ("no_proxy", "*")] {
        run_in_child("", mirror, &[("http_proxy", &address), (variable, value)]).wait();
    }
    let local = Server::start();
    local.on("/images.gz", [Reply::File(gzip(&images()))]);
    run_in_child("", &local.url(""), &[("http_proxy", &address)]).wait();
    assert_eq!((proxy.requests().len(), local.requests().len()), (5, 1));

    // One for the other scheme is not asked; https goes through the proxy by CONNECT, which this one does not know.
    run_in_child("", mirror, &[("https_proxy", &address)]).wait();
    assert_eq!(proxy.requests().len(), 5);
    run_in_child("", "https://mirror.invalid/mnist", &[("https_proxy", &address)]).wait();
    assert_eq!(proxy.requests()[5].target, "mirror.invalid:443");
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = format!("http://me:secret@{closed}");
    let message = run_in_child("", "http://mirror.invalid", &[("http_proxy", &proxy), ("NO_PROXY", "a.b")]).wait();
    assert_eq!(
        message,
        format!(
            "images: no mirror has it|  http://mirror.invalid: cannot connect: Connection refused (os error 111) \
             (http_proxy=http://{closed} NO_PROXY=a.b)"
        )
    );
    let message = run_in_child("", "http://mirror.invalid", &[("http_proxy", "socks5://host")]).wait();
    assert_eq!(
        message,
        "1 the environment variable http_proxy: expected the URL of an HTTP proxy, such as http://proxy.example:3128"
    );
}

#[test]
fn a_directory_needs_no_proxy_not_even_a_right_one() {
    let mirror = tempfile::tempdir().unwrap();
    fs::write(mirror.path().join("images"), images()).unwrap();
    let directory = mirror.path().to_str().unwrap();
    let unasked = ("MIRROR_2", "http://mirror.invalid");
    let child = run_in_child("", directory, &[("ALL_PROXY", "socks5://host:1080"), unasked]);
    assert_eq!(child.wait(), format!("from {directory}, SHA-256 right"));
}

#[test]
fn a_signal_ends_the_download_at_once_and_leaves_nothing() {
    use rustix::process::{Pid, Signal, kill_process};
    let whole = gzip(&images());
    let cases = [
        (Reply::Hang, Signal::INT, "130 stopped by SIGINT"),
        (Reply::HangAfter(whole, 100_000), Signal::TERM, "143 stopped by SIGTERM"),
        (Reply::Status(503, "", vec![("Retry-After", "20".to_string())]), Signal::INT, "130 stopped by SIGINT"),
    ];
    for (reply, signal, expected) in cases {
        let server = Server::start();
        server.on("/images.gz", [reply]);
        let child = run_in_child("patient", &server.url(""), &[]);
        while server.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let (started, home) = (Instant::now(), child.home.path().to_path_buf());
        kill_process(Pid::from_child(&child.process), signal).unwrap();
        let Child { process, home: _kept } = child;
        let output = process.wait_with_output().unwrap();
        let elapsed = started.elapsed();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(&format!("REPORT {expected} END")), "{stdout}");
        assert!(elapsed < Duration::from_millis(250), "{elapsed:?}");
        assert_eq!(names(&home), [""; 0]);
    }
}

// ---- what watchers see

#[test]
fn watchers_see_what_happens() {
    let server = Server::start();
    let whole = gzip(&images());
    let total = whole.len();
    server.on("/b/images.gz", [Reply::status(500, "Internal Server Error"), Reply::File(whole)]);
    let case = Case::new([server.url("/a"), server.url("/b")]);
    assert_eq!(
        Notes::of(&case),
        [
            "images: failed: 404 Not Found".to_string(),
            "images: retry: 500 Internal Server Error".to_string(),
            format!("images: started, Some({total})"),
            format!("images: done: from {}, SHA-256 right", server.url("/b")),
        ]
    );
}

#[test]
fn the_error_says_what_to_do() {
    let error = Case::new([""; 0]).run().unwrap_err();
    assert!(matches!(error, Error::Download { .. }));
    assert_eq!(error.exit_code(), 1);
    assert_eq!(
        error.hint().unwrap(),
        "put the files, plain or as NAME.gz, into the data directory by hand, name a mirror of your own with \
         --mirror=URL_OR_DIRECTORY, or draw a stand-in with --synthetic; behind a proxy, set https_proxy"
    );
}
