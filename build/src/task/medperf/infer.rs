//! `mnist medperf infer`: the probabilities that a trained model gives to the classes of prepared images.

use tracing::{info, warn};

use super::predictions::{self, Predictions};
use super::{output, prepared};
use crate::cli::InferArgs;
use crate::data::sets::{self, DataSource, MNIST};
use crate::engine::{self, Network};
use crate::error::{Error, Result};
use crate::files::{self, OutputDirectory};
use crate::interrupt;
use crate::model::file as weights;
use crate::output::{artifacts, console};
use crate::score::softmax;
use crate::text;

/// How many images are classified between two looks for a signal.
const IMAGES_AT_ONCE: usize = 10_000;

/// Runs the task and says what was written.
///
/// # Errors
/// The model or the data is missing or damaged, they do not fit, or the predictions cannot be written or would replace
/// anything but earlier ones.
pub fn run(args: &InferArgs) -> Result<()> {
    output::apart(&args.output_path, [&args.data_path, &args.additional_files])?;
    let output = OutputDirectory::open(&args.output_path)?;
    let path = output.path().join(predictions::FILE_NAME);
    files::begin_mounted(&path, predictions::BEGINNING)?;
    output.check([predictions::FILE_NAME])?;
    let model_dir = &args.additional_files;
    let (model, model_sha256) = weights::load_hashed(model_dir)?;
    artifacts::warn_of_other_origin(model_dir, &model_sha256);
    info!("model: trained on {}", DataSource::of_model(model_dir, &model)?.description());
    if let Some(unfinished) = &model.unfinished {
        warn!("{}: the model is {unfinished}", model_dir.display());
    }
    sets::check_fit(&model.shape, MNIST.frame.side, prepared::classes().len())
        .map_err(|problem| Error::Model { path: model_dir.join(weights::FILE_NAME), problem })?;
    let images = prepared::images(&args.data_path)?;
    let mut network = engine::checked::network(model_dir, &model)?;
    let probabilities = probabilities(network.as_mut(), &images.bytes)?;

    let count = text::counted(probabilities.len(), "image");
    let classes = prepared::classes().iter().map(|class| class.to_string()).collect();
    let predictions = Predictions { model_sha256, images_sha256: images.sha256, classes, probabilities };
    files::write(&path, &predictions.encode())?;
    console::print(&text::named_values(&[("classified", count), ("predictions", path.display().to_string())]))
}

/// The probabilities (N,K) that `network` gives for `pixels` (N,D).
fn probabilities(network: &mut dyn Network, pixels: &[u8]) -> Result<Vec<Vec<f64>>> {
    let mut probabilities = vec![];
    for some in pixels.chunks(IMAGES_AT_ONCE * prepared::inputs()) {
        interrupt::check()?;
        let logits = network.logits(some)?;
        probabilities.extend(logits.chunks_exact(prepared::classes().len()).map(softmax));
    }
    Ok(probabilities)
}
