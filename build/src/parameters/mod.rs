//! What to train: the parameters file, the command line's overrides and the defaults, merged and checked once.
//!
//! [`keys`] holds the one table from which the file's reader, the flags, their help and all messages are made.

pub mod file;
pub mod keys;

use std::path::Path;

use serde::Serialize;

use crate::engine::choice::{Choice, DeviceChoice, EngineChoice};
use crate::engine::{self, Recipe};
use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::optim::{OptimizerKind, OptimizerOptions, OptimizerSettings};
use keys::Draft;

/// Every parameter of a training run with the value it is run with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// How gradients become updates.
    pub optimizer: OptimizerKind,
    /// How often each training image is seen.
    pub train_epochs: u32,
    /// Images per step, over all threads and devices together; an epoch's last batch may be short.
    pub batch_size: usize,
    /// The step size.
    pub learning_rate: f64,
    /// How much of the last step is kept (sgd, rmsprop).
    pub momentum: f64,
    /// Nesterov's variant of momentum (sgd).
    pub nesterov: bool,
    /// Decoupled weight decay, per step and times the learning rate (all but adam).
    pub weight_decay: f64,
    /// The width of each hidden layer, from the input on.
    pub hidden_layers: Vec<usize>,
    /// The share of hidden activations that is dropped in training, after each hidden layer.
    pub dropout: f64,
    /// The seed of initial weights, order and dropout.
    pub seed: u64,
    /// Where to train.
    pub device: DeviceChoice,
    /// What trains.
    pub engine: EngineChoice,
    /// How many threads; 0: as many as there are processors.
    pub threads: usize,
}

impl Parameters {
    /// Fills what `draft` leaves open with the defaults of `mnist.py` and Keras.
    pub fn defaults_with(draft: Draft) -> Self {
        let optimizer = draft.optimizer.unwrap_or(OptimizerKind::Adam);
        Self {
            optimizer,
            train_epochs: draft.train_epochs.unwrap_or(5),
            batch_size: draft.batch_size.unwrap_or(32),
            learning_rate: draft.learning_rate.unwrap_or(optimizer.default_learning_rate()),
            momentum: draft.momentum.unwrap_or(0.0),
            nesterov: draft.nesterov.unwrap_or(false),
            weight_decay: draft.weight_decay.unwrap_or(0.0),
            hidden_layers: draft.hidden_layers.unwrap_or_else(|| vec![128]),
            dropout: draft.dropout.unwrap_or(0.2),
            seed: draft.seed.unwrap_or(42),
            device: draft.device.unwrap_or(DeviceChoice::Auto),
            engine: draft.engine.unwrap_or(EngineChoice::Auto),
            threads: draft.threads.unwrap_or(0),
        }
    }

    /// Fills in the defaults and checks what must fit together.
    ///
    /// # Errors
    /// A setting that the chosen optimizer does not have, as a sentence.
    pub fn resolve(draft: Draft) -> std::result::Result<Self, String> {
        let parameters = Self::defaults_with(draft);
        parameters.optimizer.check(&parameters.optimizer_options())?;
        Ok(parameters)
    }

    /// Reads the parameters file at `path`, if any, lets `overrides` take precedence, and fills in defaults.
    ///
    /// # Errors
    /// The file is not what it should be, its settings do not go together, or not with those given as flags.
    pub fn read(path: Option<&Path>, overrides: Draft) -> Result<Self> {
        let draft = path.map(file::read).transpose()?.unwrap_or_default();
        let file_alone = Self::resolve(draft.clone());
        Self::resolve(draft.overridden_by(overrides)).map_err(|problem| match (path, file_alone) {
            (Some(path), Err(_)) => Error::ParametersFile { path: path.to_path_buf(), line: None, problem },
            _ => Error::ParameterFlags { problem },
        })
    }

    /// Whether a run with `used` is one that these parameters ask for: equal but for what they leave open.
    pub fn are_met_by(&self, used: &Self) -> bool {
        let mut asked = self.clone();
        if asked.device == DeviceChoice::Auto {
            asked.device = used.device.clone();
        }
        if asked.engine == EngineChoice::Auto {
            asked.engine = used.engine;
        }
        if asked.threads == 0 {
            asked.threads = used.threads;
        }
        asked == *used
    }

    /// The options of all optimizers.
    pub fn optimizer_options(&self) -> OptimizerOptions {
        OptimizerOptions { momentum: self.momentum, nesterov: self.nesterov, weight_decay: self.weight_decay }
    }

    /// The optimizer with its settings.
    pub fn optimizer_settings(&self) -> OptimizerSettings {
        self.optimizer.settings(self.learning_rate, &self.optimizer_options())
    }

    /// What an engine is built from, for images of `inputs` pixels in `classes` classes.
    pub fn recipe(&self, inputs: usize, classes: usize) -> Recipe {
        Recipe {
            shape: MlpShape::new(inputs, &self.hidden_layers, classes),
            optimizer: self.optimizer_settings(),
            batch_size: self.batch_size,
            dropout: self.dropout,
            seed: self.seed,
            threads: engine::threads(self.threads),
        }
    }

    /// The engine and the device that are asked for.
    pub fn choice(&self) -> Choice {
        Choice { engine: self.engine, device: self.device.clone() }
    }

    /// The parameters as a file that [`file::read`] takes back.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_else(|e| unreachable!("plain fields become YAML: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::choice::AdapterChoice;

    #[test]
    fn what_is_left_open_is_met_by_anything() {
        let asked = Parameters::defaults_with(Draft::default());
        let used = Parameters { device: DeviceChoice::Cpu, engine: EngineChoice::Fused, threads: 8, ..asked.clone() };
        assert!(asked.are_met_by(&used) && !used.are_met_by(&asked));
        let fixed = Parameters { device: DeviceChoice::Gpu(AdapterChoice::First), ..asked.clone() };
        assert!(!fixed.are_met_by(&used));
        assert!(!asked.are_met_by(&Parameters { train_epochs: 4, ..used }));
    }
}
