//! `download` against servers on this machine, which fail in every way that servers do, and against directories and disks.

mod arrivals;
mod directory;
mod environment;
mod servers;
mod tls;
mod transfers;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use mnist::data::download::fetch::Limits;
use mnist::data::download::{self, DownloadEvent, DownloadWatch, Downloaded, Options, Origin};
use mnist::data::sets::SourceFile;
use mnist::error::{Error, Result};
use mnist::sha256;

use crate::common::gzip;
use crate::common::server::{Reply, Server};

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

fn source(name: &'static str, bytes: &[u8]) -> SourceFile {
    SourceFile { name, bytes: bytes.len() as u64, sha256: Box::leak(sha256::of(bytes).into_boxed_str()), blake3: "" }
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
    fn new<M: AsRef<OsStr>>(mirrors: impl IntoIterator<Item = M>) -> Self {
        Self::of(vec![source("images", &images())], mirrors)
    }

    fn of<M: AsRef<OsStr>>(files: Vec<SourceFile>, mirrors: impl IntoIterator<Item = M>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mirrors = mirrors.into_iter().map(|mirror| mirror.as_ref().into()).collect();
        let data_dir = home.path().join("data");
        let options = Options { data_dir, mirrors, limits: impatient(), credit: None, files, stand_in: Vec::new() };
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
        origins(download::fetch_all(&self.options, &()))
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

fn origins(summary: Result<Downloaded>) -> Result<Vec<Origin>> {
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

impl DownloadWatch for Notes {
    fn on(&self, file: &SourceFile, event: &DownloadEvent) {
        let text = match event {
            DownloadEvent::Started { total, .. } => format!("started, {total:?}"),
            DownloadEvent::Received { .. } => return,
            DownloadEvent::Retry { answer, .. } => format!("retry: {answer}"),
            DownloadEvent::MirrorFailed { answer, .. } => format!("failed: {answer}"),
            DownloadEvent::Done { origin } => format!("done: {origin}"),
        };
        self.0.lock().unwrap().push(format!("{}: {text}", file.name));
    }
}

impl Notes {
    fn of(case: &Case) -> Vec<String> {
        let notes = Self::default();
        download::fetch_all(&case.options, &notes).unwrap();
        notes.0.into_inner().unwrap()
    }
}

/// The Range header of each request.
fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("Range").map(str::to_string)).collect()
}

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
        "put the files, plain or gzipped, into the data directory by hand, name a mirror of your own with \
         --mirror=URL_OR_DIRECTORY (for a task of the cube, in MNIST_MIRROR), or draw a stand-in with \
         `mnist download --synthetic`; behind a proxy, set https_proxy"
    );
}
