//! `mnist demo`: download, train and evaluate in `./workspace`, with one command. What is there is used again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::cli::{Demo, Evaluate, Overrides, Train};
use crate::data::dataset::Dataset;
use crate::data::download::fetch::Limits;
use crate::data::sets::DataSource;
use crate::error::{Error, Result};
use crate::files;
use crate::model::file as weights;
use crate::output::console::{self, Console, LOG};
use crate::output::logs::with_logs;
use crate::output::{onnx, report};
use crate::parameters::Parameters;
use crate::task::{download, evaluate, train};

/// How long the mirrors have to answer before the demo draws its own digits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the documents' parameters file holds, for a workspace that has none.
const DEFAULT_PARAMETERS: &str = "optimizer: \"adam\"\ntrain_epochs: 5\nbatch_size: 32\n";

/// Where the demo's things are: the places that the cube's run configurations name.
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

/// Runs the three tasks and prints what came out and where everything is.
///
/// # Errors
/// One of the tasks failed; that no mirror answers is no failure.
pub fn run(args: &Demo, console: &Console) -> Result<()> {
    let workspace = Workspace::at(Path::new("workspace"));
    if !workspace.parameters_file.exists() {
        if let Some(directory) = workspace.parameters_file.parent() {
            files::writable_directory(directory)?;
        }
        files::write(&workspace.parameters_file, DEFAULT_PARAMETERS.as_bytes())?;
    }
    with_logs(console, &workspace.log_dir("download"), "download", |mllog| {
        mllog.run_start();
        bring_data(&workspace, args, console)
    })?;
    if is_trained(&workspace) {
        info!("{} is trained on this data with these parameters: used again", workspace.model.display());
    } else {
        let args = Train {
            data_dir: workspace.data.clone(),
            log_dir: workspace.log_dir("train"),
            model_dir: workspace.model.clone(),
            parameters_file: workspace.parameters_file.clone(),
            overrides: Overrides::default(),
        };
        with_logs(console, &args.log_dir, "train", |mllog| train::train(&args, console, mllog))?;
    }
    let args = Evaluate {
        data_dir: workspace.data.clone(),
        log_dir: workspace.log_dir("evaluate"),
        model_dir: workspace.model.clone(),
    };
    let score = with_logs(console, &args.log_dir, "evaluate", |mllog| evaluate::evaluate(&args, mllog))?;
    console::print(&format!(
        "{score}\ndata           {}\nmodel          {}\nreport         {} (open it in a browser, and draw a digit)\n\
         parameters     {}\nlogs           {}\n\n\
         Train again with other parameters:\n  mnist train --data_dir={} --log_dir={} --model_dir={} --parameters_file={} --train_epochs=10\n",
        workspace.data.display(),
        workspace.model.join(weights::FILE_NAME).display(),
        workspace.model.join(report::FILE_NAME).display(),
        workspace.parameters_file.display(),
        ["download", "train", "evaluate"].map(|task| workspace.log_dir(task).display().to_string()).join(", "),
        workspace.data.display(),
        workspace.log_dir("train").display(),
        workspace.model.display(),
        workspace.parameters_file.display(),
    ))
}

/// The data that is there, or MNIST from a mirror, or the synthetic stand-in. Where the stand-in is there, only a mirror
/// that the user names is asked: without a network the others would cost [`PATIENCE`] each time.
fn bring_data(workspace: &Workspace, args: &Demo, console: &Console) -> Result<()> {
    let data_dir = &workspace.data;
    let there = Dataset::load(data_dir).ok().map(|dataset| dataset.provenance.source);
    let stand_in = there == Some(DataSource::Synthetic);
    if let Some(source) = there
        && (!stand_in || download::named_mirrors(&args.mirrors).is_empty())
    {
        info!("{}: there already: {}", data_dir.display(), source.description());
        if stand_in {
            let (data_dir, log_dir) = (data_dir.display(), workspace.log_dir("download"));
            info!(
                "to have MNIST itself: mnist download --data_dir={data_dir} --log_dir={}, then the demo once more",
                log_dir.display()
            );
        }
        return Ok(());
    }
    let limits = Limits { first_answer: Some(PATIENCE), ..Limits::default() };
    let failures = match download::download(data_dir, &args.mirrors, limits, console) {
        Err(Error::Download { failures }) => failures,
        result => return result.map(drop),
    };
    if download::holds_mnist(data_dir)? {
        return Err(Error::DownloadInPart { data_dir: data_dir.clone(), failures });
    }
    warn!(target: LOG, "{}", Error::Download { failures });
    warn!("no mirror could be reached: training on SYNTHETIC digits instead, which is not MNIST");
    download::draw(data_dir).map(drop)
}

/// Whether MODEL_DIR holds a model of the data that is there, trained with the parameters that are there.
fn is_trained(workspace: &Workspace) -> bool {
    let trained = || {
        let asked = Parameters::read(&workspace.parameters_file, &[]).ok()?;
        let used = Parameters::read(&workspace.model.join(train::PARAMETERS_FILE_NAME), &[]).ok()?;
        let model = weights::load(&workspace.model).ok()?;
        let dataset = Dataset::load(&workspace.data).ok()?;
        let complete = [report::FILE_NAME, onnx::FILE_NAME].iter().all(|name| workspace.model.join(name).exists());
        Some(asked.is_satisfied_by(&used) && model.data == dataset.provenance.source && complete)
    };
    trained().unwrap_or(false)
}
