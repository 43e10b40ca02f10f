//! `mnist download`: the four files of MNIST, or the synthetic stand-in, into DATA_DIR.

use std::path::Path;

use serde_json::json;
use tracing::warn;

use crate::cli::Download;
use crate::data::download::{self, Options, Summary, Watch};
use crate::data::fetch::Limits;
use crate::data::mirror::Mirror;
use crate::data::source::{DataSource, MNIST, SYNTHETIC};
use crate::data::synthetic;
use crate::error::Result;
use crate::output::console::{self, Console};
use crate::output::logs::with_logs;
use crate::output::transfers::Transfers;

/// Runs the task and prints where each file is from.
///
/// # Errors
/// See [`download()`] and [`draw`]; the logs hold the reason too.
pub fn run(args: &Download, console: &Console) -> Result<()> {
    let data_dir = &args.data_dir;
    let summary = with_logs(console, &args.log_dir, "download", |mllog| {
        let source = if args.synthetic { DataSource::Synthetic } else { DataSource::Mnist };
        mllog.point("data_source", json!(source));
        mllog.run_start();
        if args.synthetic { draw(data_dir) } else { download(data_dir, &args.mirrors, Limits::default(), console) }
    })?;
    console::print(&table(data_dir, &summary))
}

/// Brings MNIST into `data_dir`, from the `mirrors` that the user names (or MNIST_MIRROR does) or else the known ones.
///
/// # Errors
/// A mirror is none, no mirror has the files, `data_dir` cannot be written, or a signal arrived.
pub fn download(data_dir: &Path, mirrors: &[String], limits: Limits, console: &Console) -> Result<Summary> {
    let options = options(data_dir, mirrors, limits)?;
    match console.bars() {
        Some(bars) => download::run(&options, &Transfers::new(bars, &options.files) as &dyn Watch),
        None => download::run(&options, &()),
    }
}

/// Draws the synthetic stand-in into `data_dir`.
///
/// # Errors
/// MNIST itself is there, `data_dir` cannot be written, or a signal arrived.
pub fn draw(data_dir: &Path) -> Result<Summary> {
    warn!("drawing synthetic digits: a stand-in for trying things out, not MNIST");
    download::run_synthetic(&options(data_dir, &[], Limits::default())?, |directory| {
        synthetic::write(directory, synthetic::TRAIN, synthetic::TEST)
    })
}

fn options(data_dir: &Path, mirrors: &[String], limits: Limits) -> Result<Options> {
    let from_environment = std::env::var("MNIST_MIRROR").ok().filter(|mirror| mirrors.is_empty() && !mirror.is_empty());
    let given = mirrors.iter().chain(&from_environment);
    let mut mirrors = given.map(|mirror| Mirror::parse(mirror)).collect::<Result<Vec<_>>>()?;
    mirrors.extend(Mirror::table());
    Ok(Options { data_dir: data_dir.into(), mirrors, limits, files: MNIST.to_vec(), stand_in: SYNTHETIC.to_vec() })
}

fn table(data_dir: &Path, summary: &Summary) -> String {
    let rows = summary.files.iter().map(|(file, origin)| format!("{}  {origin}\n", data_dir.join(file.name).display()));
    rows.collect()
}
