//! `mnist demo`: downloads, trains and evaluates in `./workspace`, with one command. It reuses what it finds there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::cli::{Demo, Evaluate, Overrides, Train};
use crate::data::dataset::Dataset;
use crate::data::download::fetch::Limits;
use crate::data::sets::DataSource;
use crate::error::{Error, Result};
use crate::files::{self, OutputDirectory, set};
use crate::model::file as weights;
use crate::output::console::{self, Console, LOG};
use crate::output::event::RunEvent;
use crate::output::logs::with_logs;
use crate::output::{artifacts, metrics, report};
use crate::parameters::Parameters;
use crate::task::{download, evaluate, train};
use crate::text;

/// How long the mirrors have to answer before the demo draws synthetic digits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The parameters file for a workspace that has none. A test compares it with the cube's `default.parameters.yaml`, which
/// a build in a container cannot include.
pub const DEFAULT_PARAMETERS: &str = "optimizer: \"adam\"\ntrain_epochs: 5\nbatch_size: 32\n";

/// The demo's files, in the places that the cube's run configurations name.
struct Workspace {
    data: PathBuf,
    model: PathBuf,
    parameters_file: PathBuf,
    logs: PathBuf,
}

impl Workspace {
    fn at(root: &Path) -> Self {
        Self {
            data: root.join("data"),
            model: root.join("model"),
            parameters_file: root.join("parameters").join("default.parameters.yaml"),
            logs: root.to_path_buf(),
        }
    }

    fn log_dir(&self, task: &str) -> PathBuf {
        self.logs.join(format!("{task}_logs"))
    }
}

/// Runs the three tasks and prints the score and the places of all files.
///
/// # Errors
/// One of the tasks failed. That no mirror answers is no failure.
pub fn run(args: &Demo, console: &Console) -> Result<()> {
    let workspace = Workspace::at(Path::new("workspace"));
    if !workspace.parameters_file.exists() {
        if let Some(directory) = workspace.parameters_file.parent() {
            files::writable_directory(directory)?;
        }
        files::write(&workspace.parameters_file, DEFAULT_PARAMETERS.as_bytes())?;
    }
    let dataset =
        with_logs(console, &OutputDirectory::open(&workspace.log_dir("download"))?, "download", |listener| {
            listener.on(RunEvent::RunStarted);
            bring_data(&workspace, args, console)
        })?;
    if is_trained(&workspace, dataset.provenance.source) {
        info!("{} is trained on this data with these parameters: used again", workspace.model.display());
    } else {
        let args = Train {
            data_dir: workspace.data.clone(),
            log_dir: workspace.log_dir("train"),
            model_dir: workspace.model.clone(),
            parameters_file: workspace.parameters_file.clone(),
            resume: false,
            init: None,
            overrides: Overrides::default(),
        };
        let data = || Ok(dataset.clone());
        train::logged(&args, data, console, &mut String::new())?;
    }
    let args = Evaluate {
        data_dir: workspace.data.clone(),
        log_dir: workspace.log_dir("evaluate"),
        model_dir: workspace.model.clone(),
    };
    let data = || Ok(dataset);
    let score = evaluate::logged(&args, data, console)?;
    console::print(&format!("{score}\n{}", places(&workspace)))
}

/// The places of all files, and the command to train again.
fn places(workspace: &Workspace) -> String {
    let model_file = |name| workspace.model.join(name).display().to_string();
    let report = model_file(report::ARTIFACT.file_name);
    let logs = ["download", "train", "evaluate"].map(|task| workspace.log_dir(task).display().to_string());
    let rows = text::named_values(&[
        ("data", workspace.data.display().to_string()),
        ("model", model_file(weights::FILE_NAME)),
        ("report", format!("{report} (open it in a browser, and draw a digit)")),
        ("parameters", workspace.parameters_file.display().to_string()),
        ("logs", logs.join(", ")),
    ]);
    format!(
        "{rows}\nTrain again with other parameters:\n  mnist train --data_dir={} --log_dir={} --model_dir={} \
         --parameters_file={} --train_epochs=10\n",
        workspace.data.display(),
        workspace.log_dir("train").display(),
        workspace.model.display(),
        workspace.parameters_file.display(),
    )
}

/// The data in the workspace, else MNIST from a mirror, else the synthetic stand-in. Where the stand-in is there already,
/// only a mirror that the user names is tried: without a network the others would cost [`PATIENCE`] each time.
fn bring_data(workspace: &Workspace, args: &Demo, console: &Console) -> Result<Dataset> {
    let data_dir = &workspace.data;
    let found = Dataset::load(data_dir).ok();
    let stand_in = |dataset: &Dataset| dataset.provenance.source.stands_in_for().is_some();
    if let Some(dataset) = found
        && (!stand_in(&dataset) || download::named_mirrors(&args.mirrors).is_empty())
    {
        info!("{}: there already: {}", data_dir.display(), dataset.provenance.source.description());
        if stand_in(&dataset) {
            let (data_dir, log_dir) = (data_dir.display(), workspace.log_dir("download"));
            info!(
                "to have MNIST itself: mnist download --data_dir={data_dir} --log_dir={}, then the demo once more",
                log_dir.display()
            );
        }
        return Ok(dataset);
    }
    let limits = Limits { first_answer: Some(PATIENCE), ..Limits::default() };
    match download::download(data_dir, &args.mirrors, limits, console) {
        Err(Error::Download { failures }) if download::holds_mnist(data_dir)? => {
            return Err(Error::DownloadInPart { data_dir: data_dir.clone(), failures });
        }
        Err(Error::Download { failures }) => {
            Error::Download { failures }.lines().iter().for_each(|line| warn!(target: LOG, "{line}"));
            warn!("no mirror could be reached: training on SYNTHETIC digits instead, which is not MNIST");
            download::draw(data_dir)?;
        }
        result => drop(result?),
    }
    Dataset::load(data_dir)
}

/// Whether MODEL_DIR holds all files of a model of `data`, trained with the workspace's parameters and no `--init`.
fn is_trained(workspace: &Workspace, data: DataSource) -> bool {
    let trained = || {
        let wanted = Parameters::read(&workspace.parameters_file, &[]).ok()?;
        let used_file = set::locate(&workspace.model, artifacts::PARAMETERS.file_name);
        let used = Parameters::read(&used_file, &[]).ok()?;
        let model = weights::load(&workspace.model).ok()?;
        let finished = model.unfinished.is_none() && artifacts::is_complete(&workspace.model);
        let began_anew = metrics::read(&workspace.model)?["init"].is_null();
        Some(wanted == used && model.data == data.id() && finished && began_anew)
    };
    trained().unwrap_or(false)
}
