//! The network in a model file, whose answers are checked: finite weights may be so large that answers are not.

use std::path::{Path, PathBuf};

use super::{EngineInfo, Network, choice};
use crate::error::{Error, Result};
use crate::model::file::{FILE_NAME, Model};

/// A network whose answers are all finite.
struct CheckedNetwork {
    network: Box<dyn Network>,
    /// The model's file, for the message.
    path: PathBuf,
}

/// Builds the network of `model`, which was read from `model_dir`. It fails rather than give an infinite answer or NaN.
///
/// # Errors
/// See [`choice::network`].
pub fn network(model_dir: &Path, model: &Model) -> Result<Box<dyn Network>> {
    let network = choice::network(&model.shape, &model.parameters)?;
    Ok(Box::new(CheckedNetwork { network, path: model_dir.join(FILE_NAME) }))
}

impl Network for CheckedNetwork {
    fn info(&self) -> EngineInfo {
        self.network.info()
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let logits = self.network.logits(pixels)?;
        match logits.iter().find(|logit| !logit.is_finite()) {
            None => Ok(logits),
            Some(logit) => {
                let problem = format!("expected finite answers, found {logit}: its weights are too large");
                Err(Error::Model { path: self.path.clone(), problem })
            }
        }
    }
}
