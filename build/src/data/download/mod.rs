//! A download: brings the four files of a data set into DATA_DIR.
//!
//! A file that is there and right stays, under any of the names in [`places`]. One that is gzipped is decompressed. All
//! others come from the mirrors, which are tried in their order. The four files are fetched side by side, each in a thread
//! of its own.
//!
//! ```text
//! mod -> fetch (retries) -> client (one request) -> connection -> socket; proxy, cause
//!              transfer (resume) -> content (gunzip, hash)
//!        store (files in DATA_DIR)    mirror (where files come from)    events -> logs, progress bars
//! ```

mod cause;
mod client;
mod connection;
pub mod content;
pub mod environment;
pub mod events;
mod fault;
pub mod fetch;
pub mod mirror;
pub mod proxy;
mod socket;
pub mod store;
mod transfer;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tracing::info;
use url::Url;

use crate::data::download::fetch::{Failure, Fetcher, Limits};
use crate::data::download::mirror::{Mirror, url_of};
use crate::data::download::store::{Found, Placing};
use crate::data::places;
use crate::data::sets::SourceFile;
use crate::error::{Error, Result, Unfetched};
use crate::files::{AtomicFile, OutputDirectory, writable_directory};
use crate::interrupt;
use crate::open;
use crate::threads;

pub use crate::data::download::events::{DownloadEvent, DownloadWatch, Origin, Reporter};

/// What to download, from where, to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files go. It is created if it is missing.
    pub data_dir: PathBuf,
    /// Where the files come from, as [`Mirror::parse`] reads it, in the order to try: the user's own mirrors, then
    /// those of the set. Read only if a file has to be fetched.
    pub mirrors: Vec<OsString>,
    /// How long to wait for a mirror, and how often to ask it.
    pub limits: Limits,
    /// Authors and licence of the files, shown before they are fetched.
    pub credit: Option<&'static str>,
    /// The files of the set.
    pub files: Vec<SourceFile>,
    /// Synthetic files of the same names. They may be replaced, since they can be generated again.
    pub stand_in: Vec<SourceFile>,
}

/// What a download did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Each file and where it is from, in the order of [`Options::files`].
    pub files: Vec<(SourceFile, Origin)>,
}

/// Brings the files into the directory.
///
/// # Errors
/// - [`Error::Mirror`]: a mirror is needed, and one of them is malformed or missing.
/// - [`Error::Download`]: no mirror has some of the files. Those that came stay, unless they would stand beside synthetic
///   ones.
/// - [`Error::Io`]: the directory cannot be read or written.
/// - [`Error::Interrupted`]: a signal arrived.
///
/// No incomplete file is left in any case.
pub fn fetch_all(options: &Options, watch: &dyn DownloadWatch) -> Result<Downloaded> {
    let reporter = Reporter::new(watch);
    let directory = &options.data_dir;
    let found = side_by_side(&options.files, |file| store::look(directory, file));
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    if found.iter().all(|found| matches!(found, Found::There(_))) {
        return Ok(as_it_is(options, &found, &reporter));
    }
    let mirrors = if found.contains(&Found::Nothing) { &options.mirrors[..] } else { &[] };
    let mirrors = mirrors.iter().map(|mirror| Mirror::parse(mirror)).collect::<Result<Vec<_>>>()?;
    let output = match OutputDirectory::open(directory) {
        Ok(output) => output,
        Err(error) => {
            // A complete data set that belongs to somebody else need not be writable.
            let usable = |found: &Found| matches!(found, Found::There(_) | Found::Packed { usable: true, .. });
            return if found.iter().all(usable) { Ok(as_it_is(options, &found, &reporter)) } else { Err(error) };
        }
    };
    let missing = options.files.iter().zip(&found).filter(|(_, found)| !matches!(found, Found::There(_)));
    output.check(missing.map(|(file, _)| file.name))?;
    if let Some(credit) = options.credit {
        info!("{credit}");
    }

    let fetcher = Fetcher::new(&options.limits);
    let placing = Placing::begin(directory, &options.stand_in)?;
    let jobs: Vec<(SourceFile, &Found)> = options.files.iter().copied().zip(&found).collect();
    let origins = side_by_side(&jobs, |(file, found)| {
        let origin = match found {
            Found::There(path) => Origin::There(below(directory, path)),
            Found::Packed { path, .. } => unpack(options, file, path, &placing)?,
            Found::Nothing => from_mirrors(options, file, (&mirrors, &fetcher), &reporter, &placing)?,
        };
        reporter.report(file, &DownloadEvent::Done { origin: &origin });
        Ok((*file, origin))
    });
    let files = all_or_failures(origins)?;
    placing.finish()?;
    Ok(Downloaded { files })
}

/// The files where they were found, which is reported.
fn as_it_is(options: &Options, found: &[Found], reporter: &Reporter) -> Downloaded {
    let place = |found: &Found| match found {
        Found::There(path) | Found::Packed { path, .. } => below(&options.data_dir, path),
        Found::Nothing => PathBuf::new(),
    };
    let files = options.files.iter().zip(found).map(|(file, found)| (*file, Origin::There(place(found))));
    let report = |(file, origin): &(SourceFile, Origin)| reporter.report(file, &DownloadEvent::Done { origin });
    Downloaded { files: files.inspect(report).collect() }
}

/// `path` as it is below `directory`.
fn below(directory: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(directory).unwrap_or(path).to_path_buf()
}

/// Takes a file of the synthetic set: which one it is, and its contents.
pub type PlaceDrawn<'a> = &'a dyn Fn(&SourceFile, &[u8]) -> Result<()>;

/// Has `draw` make the files of the synthetic set for the directory, unless they are there already.
///
/// # Errors
/// [`Error::RealData`] if a file of MNIST itself is there, or comes meanwhile. Those of `draw`. A file cannot be read or
/// written.
pub fn write_synthetic(options: &Options, draw: impl FnOnce(PlaceDrawn) -> Result<()>) -> Result<Downloaded> {
    let directory = &options.data_dir;
    if let Some(file) = find_real(options)? {
        return Err(Error::RealData { directory: directory.clone(), file: file.name.to_string() });
    }
    let there = side_by_side(&options.stand_in, |file| store::look(directory, file));
    let there = there.into_iter().collect::<Result<Vec<_>>>()?;
    let drawn = there.iter().any(|found| !matches!(found, Found::There(_)));
    if drawn {
        writable_directory(directory)?;
        draw(&|file, bytes| store::place_drawn(directory, file, bytes, &options.files))?;
    }
    let origin = |found: &Found| match found {
        Found::There(path) if !drawn => Origin::DrawnBefore(below(directory, path)),
        _ => Origin::Drawn,
    };
    Ok(Downloaded { files: options.stand_in.iter().copied().zip(there.iter().map(origin)).collect() })
}

/// The first of [`Options::files`] that is there and right, plain or gzipped.
///
/// # Errors
/// A file cannot be read.
pub fn find_real(options: &Options) -> Result<Option<SourceFile>> {
    for file in &options.files {
        if store::look(&options.data_dir, file)? != Found::Nothing {
            return Ok(Some(*file));
        }
    }
    Ok(None)
}

fn unpack(options: &Options, file: &SourceFile, path: &Path, placing: &Placing) -> Result<Origin> {
    let open = open::regular(path).map_err(Error::io("read", path))?;
    match store::unpack((open, path), &options.data_dir, file, placing)? {
        Ok(()) => Ok(Origin::Unpacked(below(&options.data_dir, path))),
        // It was right a moment ago.
        Err(wrong) => Err(Error::io("read", path)(io::Error::other(wrong.to_string()))),
    }
}

/// Asks one mirror after the other, until one has the file.
fn from_mirrors(
    options: &Options,
    file: &SourceFile,
    (mirrors, fetcher): (&[Mirror], &Fetcher),
    reporter: &Reporter,
    placing: &Placing,
) -> Result<Origin> {
    let mut answers = Vec::new();
    for mirror in mirrors {
        interrupt::check()?;
        let shown = mirror.to_string();
        let outcome = match mirror {
            Mirror::Directory(path) => from_directory(options, file, path, placing),
            Mirror::Url(url) => from_url(options, file, (url, &shown), fetcher, reporter, placing),
        };
        let (answer, last) = match outcome {
            Ok(()) => return Ok(Origin::Mirror(shown)),
            Err(Failure::Mirror(answer)) => (answer, false),
            Err(Failure::Unanswered(answer)) => (answer, true),
            Err(Failure::Run(error)) => return Err(error),
        };
        reporter.report(file, &DownloadEvent::MirrorFailed { mirror: &shown, answer: &answer });
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
    fetcher: &Fetcher,
    reporter: &Reporter,
    placing: &Placing,
) -> std::result::Result<(), Failure> {
    let url = url_of(mirror, &format!("{}.gz", file.name));
    let mut part = AtomicFile::create(options.data_dir.join(file.name))?;
    fetcher.fetch((&url, shown), file, &mut part, &|event| reporter.report(file, event))?;
    placing.settle(part, file)?;
    Ok(())
}

/// Takes the first file in the [`places`] that is right. The answer for a file that is missing does not name it, so that it
/// is shown once for all four.
fn from_directory(
    options: &Options,
    file: &SourceFile,
    mirror: &Path,
    placing: &Placing,
) -> std::result::Result<(), Failure> {
    let mut answers = Vec::new();
    for path in places::existing(mirror, file.name) {
        let open = open::regular(&path).map_err(Error::io("read", &path));
        let taken = open.and_then(|open| store::unpack((open, &path), &options.data_dir, file, placing));
        let answer = match taken {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(wrong)) => wrong.to_string(),
            Err(Error::Io { path: of, source, .. }) if of == path => source.to_string(),
            Err(error) => return Err(error.into()),
        };
        answers.push(format!("{}: {answer}", below(mirror, &path).display()));
    }
    if answers.is_empty() {
        answers.push("the file is not there, neither plain nor gzipped".to_string());
    }
    Err(Failure::Mirror(answers.join("; ")))
}

/// Calls `job` for each item, if possible in a thread of its own. Returns the results in the order of the items.
fn side_by_side<T: Sync, R: Send>(items: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    threads::side_by_side(items.len(), items.iter(), job)
}

/// Returns all files. Otherwise the first error that is not a mirror's, or else one error with the answers of all
/// mirrors.
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
