//! The parameters of a training run: the defaults, the parameters file and the flags, merged and checked once.
//!
//! [`table`] has one row for each parameter.

pub mod file;
pub mod given;
pub mod table;

use std::path::Path;

use self::given::Given;
use self::table::Key;
pub use self::table::Parameters;
use crate::engine::choice::{Choice, DeviceChoice, EngineChoice};
use crate::engine::{self, Recipe};
use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::optim::{OptimizerOptions, OptimizerSettings};

/// A parameter that was given, in a file or as a flag, with its value.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The parameter.
    pub key: &'static Key,
    /// Its value, which the key has checked.
    pub given: Given,
}

impl Setting {
    /// The flag `key` with the value `text`.
    ///
    /// # Errors
    /// A value that the key does not take, as a sentence.
    pub fn from_flag(key: &'static Key, text: &str) -> std::result::Result<Self, String> {
        let given = key.given_by_flag(text);
        key.set(&mut Parameters::default(), &given)?;
        Ok(Self { key, given })
    }
}

impl Parameters {
    /// The defaults with `settings` in their place; a later one replaces an earlier one.
    ///
    /// # Errors
    /// A setting that the chosen optimizer does not have, as a sentence.
    pub fn resolve(settings: &[Setting]) -> std::result::Result<Self, String> {
        let mut parameters = Self::default();
        let store = |parameters: &mut Self, Setting { key, given }: &Setting| {
            key.set(parameters, given).map_err(|problem| format!("{}: {problem}", key.name))
        };
        // The optimizer first, since the default learning rate depends on it.
        settings
            .iter()
            .filter(|setting| setting.key.name == "optimizer")
            .try_for_each(|s| store(&mut parameters, s))?;
        parameters.learning_rate = parameters.optimizer.default_learning_rate();
        settings.iter().try_for_each(|setting| store(&mut parameters, setting))?;
        parameters.optimizer.check(&parameters.optimizer_options())?;
        Ok(parameters)
    }

    /// Reads the parameters file at `path`. The settings of `flags` take precedence, defaults fill the rest.
    ///
    /// # Errors
    /// The file is not what it should be, its settings do not go together, or not with those given as flags.
    pub fn read(path: &Path, flags: &[Setting]) -> Result<Self> {
        let mut settings = file::read(path)?;
        let file_alone = Self::resolve(&settings);
        settings.extend_from_slice(flags);
        Self::resolve(&settings).map_err(|problem| match file_alone {
            Err(alone) if alone == problem => Error::ParametersFile { path: path.to_path_buf(), line: None, problem },
            _ => Error::ParameterFlags { problem },
        })
    }

    /// Whether a run with `used` is one that these parameters ask for: equal, but for each `auto` and 0 threads.
    pub fn is_satisfied_by(&self, used: &Self) -> bool {
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
    fn auto_is_satisfied_by_anything() {
        let asked = Parameters::default();
        let used = Parameters { device: DeviceChoice::Cpu, engine: EngineChoice::Fused, threads: 8, ..asked.clone() };
        assert!(asked.is_satisfied_by(&used) && !used.is_satisfied_by(&asked));
        let fixed = Parameters { device: DeviceChoice::Gpu(AdapterChoice::First), ..asked.clone() };
        assert!(!fixed.is_satisfied_by(&used));
        assert!(!asked.is_satisfied_by(&Parameters { train_epochs: 4, ..used }));
    }

    #[test]
    fn later_settings_win_and_the_rate_follows_the_optimizer() {
        let setting = |name, text| Setting::from_flag(Key::find(name).unwrap(), text).unwrap();
        let resolve = |settings: &[Setting]| Parameters::resolve(settings).unwrap();
        assert_eq!(resolve(&[]), Parameters::default());
        assert_eq!(resolve(&[setting("seed", "1"), setting("seed", "2")]).seed, 2);
        assert_eq!(resolve(&[setting("optimizer", "sgd")]).learning_rate, 0.01);
        let both = [setting("learning_rate", "0.5"), setting("optimizer", "sgd")];
        assert_eq!(resolve(&both).learning_rate, 0.5);
    }
}
