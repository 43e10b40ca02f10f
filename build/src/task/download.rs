//! `mnist download`: the four files of MNIST, or the synthetic stand-in, into DATA_DIR.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;

use tracing::warn;

use crate::cli::Download;
use crate::data::download::fetch::Limits;
use crate::data::download::{self, DownloadWatch, Downloaded, Options, Origin, environment};
use crate::data::sets::{DataSource, MNIST, SYNTHETIC};
use crate::data::synthetic;
use crate::error::{Error, Result};
use crate::files::OutputDirectory;
use crate::output::console::{self, Console};
use crate::output::event::RunEvent;
use crate::output::logs::with_logs;
use crate::output::terminal;
use crate::output::transfers::Transfers;
use crate::text;

/// Runs the task and prints where each file is from.
///
/// # Errors
/// See [`download()`] and [`draw`]; the logs hold the reason too.
pub fn run(args: &Download, console: &Console) -> Result<()> {
    let data_dir = &args.data_dir;
    let summary = with_logs(console, &OutputDirectory::open(&args.log_dir)?, "download", |listener| {
        let source = DataSource(Some(if args.synthetic { &SYNTHETIC } else { &MNIST }));
        listener.on(RunEvent::Data { source, images: &[] });
        listener.on(RunEvent::RunStarted);
        if args.synthetic { draw(data_dir) } else { download(data_dir, &args.mirrors, Limits::default(), console) }
    })?;
    // On a terminal the progress has said it.
    let is_said = !args.synthetic && console.bars().is_some() && io::stdout().is_terminal();
    if is_said { Ok(()) } else { console::print(&table(data_dir, &summary)) }
}

/// Brings MNIST into `data_dir`, from the `mirrors` that the user names (or `environment::MIRROR` does) or else the known
/// ones.
///
/// # Errors
/// A mirror is none, no mirror has the files, `data_dir` cannot be written, or a signal arrived.
pub fn download(data_dir: &Path, mirrors: &[OsString], limits: Limits, console: &Console) -> Result<Downloaded> {
    let options = options(data_dir, &named_mirrors(mirrors), limits);
    let done = match console.bars() {
        Some(bars) => download::fetch_all(
            &options,
            &Transfers::new(bars, terminal::columns, &options.files) as &dyn DownloadWatch,
        ),
        None => download::fetch_all(&options, &()),
    };
    done.map_err(|error| match error {
        Error::Mirror { given, found } if mirrors.is_empty() => {
            Error::Mirror { given: format!("{}={given}", environment::MIRROR), found }
        }
        error => error,
    })
}

/// The mirrors that the user names: by flags, or else by `environment::MIRROR`.
pub fn named_mirrors(flags: &[OsString]) -> Vec<OsString> {
    let from_environment = || std::env::var_os(environment::MIRROR).filter(|mirror| !mirror.is_empty());
    if flags.is_empty() { from_environment().into_iter().collect() } else { flags.to_vec() }
}

/// Draws the synthetic stand-in into `data_dir`.
///
/// # Errors
/// MNIST itself is there, `data_dir` cannot be written, or a signal arrived.
pub fn draw(data_dir: &Path) -> Result<Downloaded> {
    download::write_synthetic(&options(data_dir, &[], Limits::default()), |place| {
        warn!("drawing synthetic digits: a stand-in for trying things out, not MNIST");
        synthetic::each_file(synthetic::TRAIN, synthetic::TEST, place)
    })
}

/// Whether `data_dir` holds any of the four files of MNIST itself.
///
/// # Errors
/// A file cannot be read.
pub fn holds_mnist(data_dir: &Path) -> Result<bool> {
    Ok(download::find_real(&options(data_dir, &[], Limits::default()))?.is_some())
}

fn options(data_dir: &Path, mirrors: &[OsString], limits: Limits) -> Options {
    Options {
        data_dir: data_dir.into(),
        mirrors: mirrors.iter().cloned().chain(MNIST.mirrors.iter().map(OsString::from)).collect(),
        limits,
        credit: MNIST.credit,
        files: MNIST.files.to_vec(),
        stand_in: SYNTHETIC.files.to_vec(),
    }
}

fn table(data_dir: &Path, summary: &Downloaded) -> String {
    let row = |(file, origin): &(_, Origin)| format!("{}  {origin}", data_dir.join(origin.place(file)).display());
    text::lines(summary.files.iter().map(row))
}
