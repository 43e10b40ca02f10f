//! `mnist demo`: downloads, trains and evaluates in `./workspace`, with one command. It reuses what it finds there.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::cli::{self, Demo, Evaluate, Overrides, Train};
use crate::data::dataset::Dataset;
use crate::data::download::fetch::Limits;
use crate::data::sets::DataSource;
use crate::error::{Error, Result};
use crate::files::{self, OutputDirectory, set};
use crate::model::file as weights;
use crate::output::console::{self, Console, LOG};
use crate::output::event::RunEvent;
use crate::output::logs::with_logs;
use crate::output::report::{self, repeat};
use crate::output::{artifacts, metrics};
use crate::parameters::Parameters;
use crate::task::{download, evaluate, train};
use crate::text::{self, quoted};
use crate::workspace;

/// How long the mirrors have to answer before the demo draws synthetic digits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The parameters file for a workspace that has none. A test compares it with the cube's `default.parameters.yaml`, which
/// a build in a container cannot include.
pub const DEFAULT_PARAMETERS: &str = "optimizer: \"adam\"\ntrain_epochs: 5\nbatch_size: 32\n";

/// Runs the three tasks and prints the score and the places of all files.
///
/// # Errors
/// One of the tasks failed. That no mirror answers is no failure.
pub fn run(args: &Demo, console: &Console) -> Result<()> {
    let parameters_file = Path::new(workspace::PARAMETERS);
    if !parameters_file.exists() {
        if let Some(directory) = parameters_file.parent() {
            files::writable_directory(directory)?;
        }
        files::write(parameters_file, DEFAULT_PARAMETERS.as_bytes())?;
    }
    let logs = OutputDirectory::open(Path::new(workspace::DOWNLOAD_LOGS))?;
    let dataset = with_logs(console, &logs, "download", |listener| {
        listener.on(RunEvent::RunStarted);
        bring_data(args, console)
    })?;
    // A training that is ended in time leaves a finished model of before in its place.
    let unfinished = Path::new(workspace::MODEL).join(weights::UNFINISHED);
    let written = || std::fs::metadata(unfinished.join(weights::FILE_NAME)).and_then(|file| file.modified()).ok();
    let before = written();
    let test = dataset.test_set();
    if is_trained(&args.overrides, dataset.provenance.source) {
        info!("{}: is trained on this data with these parameters: used again", workspace::MODEL);
    } else {
        let train = Train {
            data_dir: workspace::DATA.into(),
            log_dir: workspace::TRAIN_LOGS.into(),
            model_dir: workspace::MODEL.into(),
            parameters_file: parameters_file.into(),
            resume: false,
            init: None,
            overrides: args.overrides.clone(),
        };
        let data = || Ok(dataset);
        train::logged(&train, data, console, &mut String::new())?;
    }
    let evaluated = Evaluate {
        data_dir: workspace::DATA.into(),
        log_dir: workspace::EVALUATE_LOGS.into(),
        model_dir: if written() > before { unfinished.clone() } else { workspace::MODEL.into() },
    };
    let data = || Ok(test);
    let score = evaluate::logged(&evaluated, data, console)?;
    let next = longer(&Parameters::read(parameters_file, &args.overrides.0)?, &args.overrides);
    console::print(&format!("{score}\n{}\nNext, train longer: {} {next}\n", places(), cli::started_as()))
}

/// The command that trains the same network twice as long.
fn longer(parameters: &Parameters, Overrides(given): &Overrides) -> String {
    let longer = Parameters { train_epochs: parameters.train_epochs.saturating_mul(2), ..parameters.clone() };
    let is_given = |name: &str| name == "train_epochs" || given.iter().any(|setting| setting.key.name == name);
    let flags = repeat::values(&longer).into_iter().filter(|(name, _)| is_given(name));
    let flags = flags.map(|(name, value)| format!(" --{name}={}", quoted(Path::new(&value))));
    format!("train{}", flags.collect::<String>())
}

/// The places of all files.
fn places() -> String {
    let model_file = |name: &str| format!("{}/{name}", workspace::MODEL);
    let report = model_file(report::ARTIFACT.file_name);
    text::named_values(&[
        ("data", workspace::DATA.into()),
        ("model", model_file(weights::FILE_NAME)),
        ("report", format!("{report} (open it in a browser, draw a digit)")),
        ("parameters", workspace::PARAMETERS.into()),
        ("logs", workspace::ALL_LOGS.into()),
    ])
}

/// The data in the workspace, else MNIST from a mirror, else the synthetic stand-in. Where the stand-in is there already,
/// only a mirror that the user names is tried: without a network the others would cost [`PATIENCE`] each time.
fn bring_data(args: &Demo, console: &Console) -> Result<Dataset> {
    let data_dir = Path::new(workspace::DATA);
    let found = Dataset::load(data_dir).ok();
    let stand_in = |dataset: &Dataset| dataset.provenance.source.stands_in_for().is_some();
    if let Some(dataset) = found
        && (!stand_in(&dataset) || download::named_mirrors(&args.mirrors).is_empty())
    {
        info!("{}: there already: {}", data_dir.display(), dataset.provenance.source.description());
        if stand_in(&dataset) {
            info!("to have MNIST itself: `{} download`, then the demo once more", cli::started_as());
        }
        return Ok(dataset);
    }
    let limits = Limits { first_answer: Some(PATIENCE), ..Limits::default() };
    match download::download(data_dir, &args.mirrors, limits, console) {
        Err(Error::Download { failures }) if download::holds_mnist(data_dir)? => {
            return Err(Error::DownloadInPart { data_dir: data_dir.into(), failures });
        }
        Err(Error::Download { failures }) => {
            Error::Download { failures }.lines().iter().for_each(|line| warn!(target: LOG, "{line}"));
            warn!("no mirror could be reached: training on SYNTHETIC digits instead, which is not MNIST");
            info!("to have MNIST itself: `{} demo --mirror=URL_OR_DIRECTORY`", cli::started_as());
            download::draw(data_dir)?;
        }
        result => drop(result?),
    }
    Dataset::load(data_dir)
}

/// Whether the workspace holds all files of a model of `data`, trained with its parameters and the flags, and no `--init`.
fn is_trained(Overrides(flags): &Overrides, data: DataSource) -> bool {
    let model_dir = Path::new(workspace::MODEL);
    let trained = || {
        let wanted = Parameters::read(Path::new(workspace::PARAMETERS), flags).ok()?;
        let used_file = set::locate(model_dir, artifacts::PARAMETERS.file_name);
        let used = Parameters::read(&used_file, &[]).ok()?;
        let model = weights::load(model_dir).ok()?;
        let finished = model.unfinished.is_none() && artifacts::is_complete(model_dir);
        let began_anew = metrics::read(model_dir)?["init"].is_null();
        Some(wanted == used && model.data == data.id() && finished && began_anew)
    };
    trained().unwrap_or(false)
}
