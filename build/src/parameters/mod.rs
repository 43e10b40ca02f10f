//! The parameters of a training run: the defaults, the parameters file and the flags, merged and checked once.
//!
//! [`table`] has one row for each parameter.

pub mod file;
pub mod given;
pub mod key;
pub mod schema;
pub mod table;
pub mod values;

use std::path::Path;

use serde_json::Value;

use self::given::Given;
use self::key::Key;
use self::values::DISTORTIONS;
pub use self::values::{Keep, Parameters};
use crate::data::augment::{AugmentKind, Augmentation, Elastic};
use crate::data::dataset::Images;
use crate::engine::choice::{Choice, DeviceChoice, EngineChoice};
use crate::engine::{self, Recipe};
use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::optim::{OptimizerOptions, Schedule, ScheduleKind};
use crate::text::{Problem, one_of};

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
    /// Whether `accuracy` reaches `target_accuracy`; none without a target.
    pub fn reaches_target(&self, accuracy: f64) -> Option<bool> {
        (self.target_accuracy > 0.0).then_some(accuracy >= self.target_accuracy)
    }

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
        let is_given = |name| settings.iter().any(|setting| setting.key.name == name);
        if !is_given("warmup") {
            parameters.warmup = parameters.schedule.default_warmup();
        }
        if !is_given("final_learning_rate") {
            let schedule = parameters.schedule;
            parameters.final_learning_rate =
                schedule.takes_final().then(|| schedule.default_final(parameters.learning_rate));
        }
        parameters.fill_augmentation();
        parameters.check()?;
        Ok(parameters)
    }

    /// Sets what is not given of the distortions that `augment` names.
    fn fill_augmentation(&mut self) {
        let Augmentation { rotation, scale, shear, shift, elastic } = Augmentation::DEFAULT;
        if self.augment.is_affine() {
            self.rotation.get_or_insert(rotation);
            self.scale.get_or_insert(scale);
            self.shear.get_or_insert(shear);
            self.shift.get_or_insert(shift);
        }
        if self.augment.is_elastic() {
            self.elastic_sigma.get_or_insert(elastic.sigma);
            self.elastic_alpha.get_or_insert(elastic.alpha);
        }
    }

    /// How training images are distorted; none if they are not.
    pub fn augmentation(&self) -> Option<Augmentation> {
        let of = |value: Option<f64>| value.unwrap_or(0.0);
        let elastic = Elastic { sigma: self.elastic_sigma.unwrap_or(1.0), alpha: of(self.elastic_alpha) };
        let [rotation, scale, shear, shift] = [self.rotation, self.scale, self.shear, self.shift].map(of);
        (self.augment != AugmentKind::None).then_some(Augmentation { rotation, scale, shear, shift, elastic })
    }

    /// Checks that the parameters go together.
    fn check(&self) -> std::result::Result<(), String> {
        self.optimizer.check(&self.optimizer_options())?;
        let Self { schedule, warmup, train_epochs, .. } = *self;
        if warmup >= 1.0 && warmup >= f64::from(train_epochs) {
            return Err(format!(
                "warmup: expected fewer epochs than train_epochs, which is {train_epochs}, found {warmup}"
            ));
        }
        if !schedule.takes_final() && self.final_learning_rate.is_some() {
            let others = "set schedule, to linear or cosine for example, or leave it out";
            return Err(format!("final_learning_rate: schedule {} has none: {others}", schedule.name()));
        }
        if self.final_learning_rate == Some(0.0) && schedule == ScheduleKind::Exponential {
            return Err("final_learning_rate: expected a number above 0 with schedule exponential, found 0".into());
        }
        let unused = DISTORTIONS.iter().find(|(_, value, takes_it)| value(self).is_some() && !takes_it(self.augment));
        if let Some((name, _, takes_it)) = unused {
            let (kinds, found) =
                (one_of(&AugmentKind::names(*takes_it)), AugmentKind::names(|kind| kind == self.augment));
            return Err(format!("{name}: expected augment {kinds} with it, found {}", found.concat()));
        }
        if self.gpus.asks_for_several() {
            if !matches!(self.device, DeviceChoice::Auto | DeviceChoice::Gpu(_)) {
                return Err(format!("gpus: expected device gpu or auto with several, found {}", self.device));
            }
            if self.engine == EngineChoice::Burn {
                return Err("gpus: expected engine fused or auto with several, found burn".into());
            }
        }
        let needs_split = [(self.keep == Keep::Best, "keep: best"), (self.early_stopping > 0, "early_stopping")];
        if let Some((_, what)) = needs_split.iter().find(|(is_set, _)| *is_set && self.validation == 0.0) {
            return Err(format!("{what} needs a validation split, such as validation: 0.1"));
        }
        if self.min_delta > 0.0 && self.early_stopping == 0 {
            return Err("min_delta: expected early_stopping above 0 with it, found 0".into());
        }
        Ok(())
    }

    /// The parameters of `flags`; defaults fill the rest.
    ///
    /// # Errors
    /// They do not go together.
    pub fn of_flags(flags: &[Setting]) -> Result<Self> {
        Self::resolve(flags).map_err(|problem| Error::ParameterFlags { file: None, problem })
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
            Err(alone) if alone == problem => {
                Error::ParametersFile { path: path.to_path_buf(), problems: vec![Problem::of_file(problem)] }
            }
            _ => Error::ParameterFlags { file: Some(path.to_path_buf()), problem },
        })
    }

    /// The options of all optimizers.
    pub fn optimizer_options(&self) -> OptimizerOptions {
        OptimizerOptions { momentum: self.momentum, nesterov: self.nesterov, weight_decay: self.weight_decay }
    }

    /// The learning rate of each step, for epochs of `images` training images.
    pub fn schedule(&self, images: usize) -> Schedule {
        let epoch = images.div_ceil(self.batch_size) as u64;
        let steps = epoch * u64::from(self.train_epochs);
        let warmup = if self.warmup < 1.0 { steps as f64 * self.warmup } else { epoch as f64 * self.warmup };
        Schedule {
            kind: self.schedule,
            learning_rate: self.learning_rate,
            final_learning_rate: self.final_learning_rate.unwrap_or(self.learning_rate),
            warmup_steps: warmup.round() as u64,
            steps,
        }
    }

    /// What an engine is built from, to train on `train`.
    pub fn recipe(&self, train: &Images) -> Recipe {
        Recipe {
            shape: MlpShape::new(train.inputs(), &self.hidden_layers, train.classes.len()),
            optimizer: self.optimizer.settings(self.schedule(train.len()), &self.optimizer_options()),
            batch_size: self.batch_size,
            dropout: self.dropout,
            label_smoothing: self.label_smoothing,
            skip_confident: self.skip_confident,
            ensemble: self.ensemble,
            seed: self.seed,
            threads: engine::threads(self.threads),
            precision: self.precision,
            fewer_threads: self.threads == 0,
        }
    }

    /// The engine and the device that are asked for.
    pub fn choice(&self) -> Choice {
        Choice { engine: self.engine, device: self.device.clone(), gpus: self.gpus }
    }

    /// The value of each parameter by its name; none for one that is not set.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|e| unreachable!("plain fields become JSON: {e}"))
    }

    /// The parameters as a file that [`file::read`] takes back.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_else(|e| unreachable!("plain fields become YAML: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::table::find;
    use super::*;

    #[test]
    fn later_settings_win_and_the_rate_follows_the_optimizer() {
        let setting = |name, text| Setting::from_flag(find(name).unwrap(), text).unwrap();
        let resolve = |settings: &[Setting]| Parameters::resolve(settings).unwrap();
        assert_eq!(resolve(&[]), Parameters::default());
        assert_eq!(resolve(&[setting("seed", "1"), setting("seed", "2")]).seed, 2);
        assert_eq!(resolve(&[setting("optimizer", "sgd")]).learning_rate, 0.01);
        let both = [setting("learning_rate", "0.5"), setting("optimizer", "sgd")];
        assert_eq!(resolve(&both).learning_rate, 0.5);
    }
}
