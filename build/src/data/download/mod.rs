//! A download: the four files into DATA_DIR, each one from where it can be had with the least trouble.
//!
//! What is there and right stays; `NAME.gz` that is there and right is decompressed; the rest comes from the mirrors, in
//! their order, four files side by side.

pub mod content;
pub mod environment;
pub mod fetch;
pub mod mirror;
pub mod proxy;
pub mod store;
mod transfer;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use reqwest::Url;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use crate::data::download::fetch::{Failure, Fetcher, Limits, Step};
use crate::data::download::mirror::{Mirror, url_of};
use crate::data::download::store::Found;
use crate::data::sets::SourceFile;
use crate::error::{Error, Result, Unfetched};
use crate::files::{AtomicFile, writable_directory};
use crate::interrupt;
use crate::output::console::{LOG, PROGRESS};

const CREDIT: &str = "MNIST is by Yann LeCun, Corinna Cortes and Christopher J.C. Burges, under the licence CC BY-SA 3.0 \
                      (https://creativecommons.org/licenses/by-sa/3.0/)";

/// What to download, from where, to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files go; made if it is missing.
    pub data_dir: PathBuf,
    /// Where they come from, as [`Mirror::parse`] reads it, in the order in which to try: the user's own, then
    /// [`MIRRORS`](crate::data::sets::MIRRORS). Only read where a file has to come from there.
    pub mirrors: Vec<String>,
    /// Patience with the mirrors.
    pub limits: Limits,
    /// The files: [`crate::data::sets::MNIST`].
    pub files: Vec<SourceFile>,
    /// Files of the same names that may be replaced, since they can be drawn again.
    pub stand_in: Vec<SourceFile>,
}

/// Where one of the files is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    There,
    /// It was there as `NAME.gz`, in a directory that cannot be written, and is used as it is.
    ThereGzipped,
    /// It was there as `NAME.gz`, which stays, and was decompressed.
    Unpacked,
    /// From this mirror, as shown to users.
    Mirror(String),
    /// The program has drawn it.
    Drawn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::There => f.write_str("there already, SHA-256 right"),
            Self::ThereGzipped => f.write_str("there already, gzipped, SHA-256 right"),
            Self::Unpacked => f.write_str("decompressed from the .gz that was there, SHA-256 right"),
            Self::Mirror(mirror) => write!(f, "from {mirror}, SHA-256 right"),
            Self::Drawn => f.write_str("drawn, not MNIST"),
        }
    }
}

/// What a download did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Each file and where it is from, in the order of [`Options::files`].
    pub files: Vec<(SourceFile, Origin)>,
}

/// What happens to a file, as it happens.
#[derive(Debug)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Event<'a> {
    /// Bytes begin to arrive, as sent, so many in all, if known.
    Started { mirror: &'a str, total: Option<u64> },
    /// Bytes received so far, as sent.
    Received { bytes: u64 },
    /// A mirror will be asked again after a wait.
    Retry { mirror: &'a str, answer: &'a str, wait: Duration },
    /// A mirror is given up.
    MirrorFailed { mirror: &'a str, answer: &'a str },
    /// The file is there.
    Done { origin: &'a Origin },
}

/// Whoever wants to see the events, such as progress bars. Called from several threads.
pub trait Watch: Sync {
    /// Something happened to `file`.
    fn on(&self, file: &SourceFile, event: &Event);
}

/// Watches nothing.
impl Watch for () {
    fn on(&self, _: &SourceFile, _: &Event) {}
}

/// Brings the files into the directory.
///
/// # Errors
/// [`Error::Mirror`] if a mirror is needed and one of them is none, [`Error::Download`] if no mirror has some of the
/// files (those that came stay), [`Error::Io`] if the directory cannot be read or written, [`Error::Interrupted`] after a
/// signal; nothing incomplete is left in any case.
pub fn run(options: &Options, watch: &dyn Watch) -> Result<Summary> {
    let reporter = Reporter::new(watch);
    let directory = &options.data_dir;
    let found = side_by_side(&options.files, |file| store::look(directory, file));
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    let as_it_is = || Summary {
        files: options
            .files
            .iter()
            .zip(&found)
            .map(|(file, found)| (*file, if *found == Found::Plain { Origin::There } else { Origin::ThereGzipped }))
            .inspect(|(file, origin)| reporter.tell(file, &Event::Done { origin }))
            .collect(),
    };
    if found.iter().all(|found| *found == Found::Plain) {
        return Ok(as_it_is());
    }
    let complete = !found.contains(&Found::Nothing);
    let mirrors = if complete { &[][..] } else { &options.mirrors };
    let mirrors = mirrors.iter().map(|mirror| Mirror::parse(mirror)).collect::<Result<Vec<_>>>()?;
    if let Err(error) = writable_directory(directory) {
        // A data set that others keep, and whose files are all there, need not be writable.
        return if complete { Ok(as_it_is()) } else { Err(error) };
    }
    store::clear_stale(directory, &options.files);
    info!("{CREDIT}");

    let network = Network::new(&options.limits);
    let jobs: Vec<(SourceFile, &Found)> = options.files.iter().copied().zip(&found).collect();
    let origins = side_by_side(&jobs, |(file, found)| {
        let origin = match found {
            Found::Plain => Origin::There,
            Found::Gzip(path) => unpack(options, file, path)?,
            Found::Nothing => from_mirrors(options, file, (&mirrors, &network), &reporter)?,
        };
        reporter.tell(file, &Event::Done { origin: &origin });
        Ok((*file, origin))
    });
    // Prompt even where a name is being looked up, which nothing can interrupt.
    if let Some((_, runtime)) = network.running.into_inner() {
        runtime.shutdown_background();
    }
    Ok(Summary { files: all_or_failures(origins)? })
}

/// Draws the synthetic stand-in into the directory by calling `draw`, unless it is there already.
///
/// # Errors
/// [`Error::RealData`] if one of `files`, MNIST itself, is there; those of `draw` and of files that cannot be read.
pub fn run_synthetic(options: &Options, draw: impl FnOnce(&Path) -> Result<()>) -> Result<Summary> {
    let directory = &options.data_dir;
    if let Some(file) = genuine(options)? {
        return Err(Error::RealData { directory: directory.clone(), file: file.name.to_string() });
    }
    let there = side_by_side(&options.stand_in, |file| store::look(directory, file));
    let there = there.into_iter().collect::<Result<Vec<_>>>()?;
    let drawn = there.iter().any(|found| *found != Found::Plain);
    if drawn {
        writable_directory(directory)?;
        for file in &options.stand_in {
            store::set_aside(&directory.join(file.name), file, &[])?;
        }
        draw(directory)?;
    }
    let origin = if drawn { Origin::Drawn } else { Origin::There };
    Ok(Summary { files: options.stand_in.iter().map(|file| (*file, origin.clone())).collect() })
}

/// The first of `files` that is there and right, plain or gzipped.
///
/// # Errors
/// A file cannot be read.
pub fn genuine(options: &Options) -> Result<Option<SourceFile>> {
    for file in &options.files {
        if store::look(&options.data_dir, file)? != Found::Nothing {
            return Ok(Some(*file));
        }
    }
    Ok(None)
}

/// The HTTP client and the thread that drives it, set up when the first URL is to be asked: who takes all from a
/// directory may have a proxy that is of no use.
struct Network<'a> {
    limits: &'a Limits,
    running: OnceLock<(Fetcher<'a>, Runtime)>,
    starting: Mutex<()>,
}

impl<'a> Network<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, running: OnceLock::new(), starting: Mutex::new(()) }
    }

    fn running(&self) -> Result<&(Fetcher<'a>, Runtime)> {
        let _one_at_a_time = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        let fetcher = Fetcher::new(self.limits)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| Error::HttpClient { reason: e.to_string() })?;
        Ok(self.running.get_or_init(|| (fetcher, runtime)))
    }
}

fn unpack(options: &Options, file: &SourceFile, gzip: &Path) -> Result<Origin> {
    let open = File::open(gzip).map_err(Error::io("read", gzip))?;
    match store::unpack((open, gzip), &options.data_dir, file, &options.stand_in)? {
        Ok(()) => Ok(Origin::Unpacked),
        // It was right a moment ago.
        Err(wrong) => Err(Error::io("read", gzip)(io::Error::other(wrong.to_string()))),
    }
}

/// Asks one mirror after the other.
fn from_mirrors(
    options: &Options,
    file: &SourceFile,
    (mirrors, network): (&[Mirror], &Network),
    reporter: &Reporter,
) -> Result<Origin> {
    let mut answers = Vec::new();
    for mirror in mirrors {
        interrupt::check()?;
        let shown = mirror.to_string();
        let outcome = match mirror {
            Mirror::Directory(path) => from_directory(options, file, path),
            Mirror::Url(url) => from_url(options, file, (url, &shown), network, reporter),
        };
        let (answer, last) = match outcome {
            Ok(()) => return Ok(Origin::Mirror(shown)),
            Err(Failure::Mirror(answer)) => (answer, false),
            Err(Failure::Unanswered(answer)) => (answer, true),
            Err(Failure::Run(error)) => return Err(error),
        };
        reporter.tell(file, &Event::MirrorFailed { mirror: &shown, answer: &answer });
        answers.push((shown, answer));
        if last {
            break;
        }
    }
    Err(Error::Download { failures: vec![Unfetched { file: file.name.to_string(), answers }] })
}

fn from_url(
    options: &Options,
    file: &SourceFile,
    (mirror, shown): (&Url, &str),
    network: &Network,
    reporter: &Reporter,
) -> std::result::Result<(), Failure> {
    let (fetcher, runtime) = network.running()?;
    let url = url_of(mirror, &format!("{}.gz", file.name));
    let mut part = AtomicFile::create(options.data_dir.join(file.name))?;
    let report = |step: Step| {
        let event = match step {
            Step::Started { total } => Event::Started { mirror: shown, total },
            Step::Received { bytes } => Event::Received { bytes },
            Step::Retry { answer, wait } => Event::Retry { mirror: shown, answer, wait },
        };
        reporter.tell(file, &event);
    };
    runtime.handle().block_on(fetcher.fetch(&url, file, &mut part, &report))?;
    store::settle(part, file, &options.stand_in)?;
    Ok(())
}

/// Takes `NAME.gz` or else `NAME`, whichever is right. The answer names no file, so that it is told once for all.
fn from_directory(options: &Options, file: &SourceFile, mirror: &Path) -> std::result::Result<(), Failure> {
    let mut answers = Vec::new();
    for suffix in [".gz", ""] {
        let path = mirror.join(format!("{}{suffix}", file.name));
        let taken = match File::open(&path) {
            Ok(open) => store::unpack((open, &path), &options.data_dir, file, &options.stand_in),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(Error::io("read", &path)(error)),
        };
        let answer = match taken {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(wrong)) => wrong.to_string(),
            Err(Error::Io { path: of, source, .. }) if of == path => source.to_string(),
            Err(error) => return Err(error.into()),
        };
        answers.push(format!("NAME{suffix}: {answer}"));
    }
    if answers.is_empty() {
        answers.push("holds neither NAME.gz nor NAME".to_string());
    }
    Err(Failure::Mirror(answers.join("; ")))
}

/// Passes events on and logs them.
struct Reporter<'a> {
    watch: &'a dyn Watch,
    /// Mirrors with their answers that were told: four files fail for the same reason, most of the time.
    told: Mutex<Vec<(String, String)>>,
}

impl<'a> Reporter<'a> {
    fn new(watch: &'a dyn Watch) -> Self {
        Self { watch, told: Mutex::default() }
    }

    fn tell(&self, file: &SourceFile, event: &Event) {
        let name = file.name;
        match event {
            Event::Started { mirror, total: Some(total) } => {
                info!(target: PROGRESS, "{name}: {total} bytes from {mirror}");
            }
            Event::Started { mirror, total: None } => info!(target: PROGRESS, "{name}: from {mirror}"),
            Event::Received { .. } => {}
            Event::Retry { mirror, answer, wait } => {
                warn!(target: LOG, "{name}: {mirror}: {answer}; once more in {:.1} s", wait.as_secs_f64());
            }
            Event::MirrorFailed { mirror, answer } if self.is_new(mirror, answer) => {
                warn!(target: PROGRESS, "{mirror}: {answer}");
            }
            Event::MirrorFailed { mirror, answer } => warn!(target: LOG, "{name}: {mirror}: {answer}"),
            Event::Done { origin } => info!(target: PROGRESS, "{name}: {origin}"),
        }
        self.watch.on(file, event);
    }

    fn is_new(&self, mirror: &str, answer: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = (mirror.to_string(), answer.to_string());
        let new = !told.contains(&answer);
        told.push(answer);
        new
    }
}

/// Calls `job` for each item in a thread of its own; the results come in the order of the items.
fn side_by_side<T: Sync, R: Send>(items: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| job(item))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// All files; or the first error that is not a mirror's; or what all mirrors answered for all files that did not come.
fn all_or_failures(origins: Vec<Result<(SourceFile, Origin)>>) -> Result<Vec<(SourceFile, Origin)>> {
    let (mut files, mut all_failures) = (Vec::new(), Vec::new());
    for origin in origins {
        match origin {
            Ok(file) => files.push(file),
            Err(Error::Download { failures }) => all_failures.extend(failures),
            Err(error) => return Err(error),
        }
    }
    if all_failures.is_empty() { Ok(files) } else { Err(Error::Download { failures: all_failures }) }
}
