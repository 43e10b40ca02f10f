//! The part of an optimizer that users see: its name, its options, its rate, and how they are checked and logged.

use serde::{Serialize, Serializer};

use super::{Optimizer, OptimizerKind, OptimizerSettings, Schedule};

/// The options of all optimizers. Each optimizer takes weight decay, and of the others those in [`Definition::options`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OptimizerOptions {
    /// The fraction of the last update that is added to the next one. Without momentum there is no memory for it.
    pub momentum: f64,
    /// Nesterov's variant of momentum.
    pub nesterov: bool,
    /// The fraction of each parameter that is subtracted per step, times the learning rate.
    pub weight_decay: f64,
}

/// One of the [`OptimizerOptions`] that not every optimizer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerOption {
    /// [`OptimizerOptions::momentum`].
    Momentum,
    /// [`OptimizerOptions::nesterov`].
    Nesterov,
}

impl OptimizerOption {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Momentum, Self::Nesterov];

    /// The name in the parameters file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Momentum => "momentum",
            Self::Nesterov => "nesterov",
        }
    }

    fn is_set(self, options: &OptimizerOptions) -> bool {
        match self {
            Self::Momentum => options.momentum > 0.0,
            Self::Nesterov => options.nesterov,
        }
    }
}

/// The part of an optimizer that users see.
#[derive(Debug)]
pub struct Definition {
    /// The name in the parameters file.
    pub name: &'static str,
    /// Keras' default.
    pub default_learning_rate: f64,
    /// The options that it takes, besides weight decay.
    pub options: &'static [OptimizerOption],
    /// Its constants by their MLLOG keys (`mlperf_logging/mllog/constants.py`), where there is a key.
    pub constants: &'static [(&'static str, f64)],
    /// A warning about options that are allowed but hardly intended.
    pub warning: fn(&OptimizerOptions) -> Option<&'static str>,
    /// The formula with its settings.
    pub formula: fn(&OptimizerOptions) -> Optimizer,
}

impl OptimizerKind {
    /// The name in the parameters file.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Keras' default.
    pub fn default_learning_rate(self) -> f64 {
        self.definition().default_learning_rate
    }

    /// Whether it takes this option.
    pub fn takes(self, option: OptimizerOption) -> bool {
        self.definition().options.contains(&option)
    }

    /// Checks that it takes all options that are set.
    ///
    /// # Errors
    /// It does not, as a sentence that begins with the option's name.
    pub fn check(self, options: &OptimizerOptions) -> std::result::Result<(), String> {
        let mut set = OptimizerOption::ALL.into_iter().filter(|option| option.is_set(options));
        if let Some(option) = set.find(|&option| !self.takes(option)) {
            let (instead, option, name) = (Self::that_take(option), option.name(), self.name());
            return Err(format!("{option}: optimizer {name} has none: remove it, or use optimizer {instead}"));
        }
        if options.nesterov && options.momentum == 0.0 {
            return Err("nesterov: expected a momentum above 0 with it, found 0".into());
        }
        Ok(())
    }

    /// The optimizers that take `option`, such as `sgd or rmsprop`.
    fn that_take(option: OptimizerOption) -> String {
        let all = Self::ALL.iter().filter(|(_, kind)| kind.takes(option)).map(|(name, _)| *name);
        crate::text::one_of(&all.collect::<Vec<_>>())
    }

    /// A warning about options that are allowed but hardly intended.
    pub fn warning(self, options: &OptimizerOptions) -> Option<&'static str> {
        (self.definition().warning)(options)
    }

    /// Its own hyper-parameters with their MLLOG keys.
    pub fn logged(self, options: &OptimizerOptions) -> Vec<(&'static str, f64)> {
        let momentum = self.takes(OptimizerOption::Momentum).then_some(("opt_momentum", options.momentum));
        momentum.into_iter().chain(self.definition().constants.iter().copied()).collect()
    }

    /// This optimizer with the learning rates of `schedule` and those of `options` that it takes.
    pub fn settings(self, schedule: Schedule, options: &OptimizerOptions) -> OptimizerSettings {
        OptimizerSettings { method: (self.definition().formula)(options), schedule, weight_decay: options.weight_decay }
    }
}

impl Serialize for OptimizerKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_refused_that_an_optimizer_does_not_take() {
        let with = |option: OptimizerOption| match option {
            OptimizerOption::Momentum => OptimizerOptions { momentum: 0.9, ..OptimizerOptions::default() },
            OptimizerOption::Nesterov => OptimizerOptions { nesterov: true, momentum: 0.9, weight_decay: 0.0 },
        };
        for (name, kind) in OptimizerKind::ALL {
            assert_eq!(kind.name(), name);
            for option in OptimizerOption::ALL {
                let problem = kind.check(&with(option)).err().unwrap_or_default();
                assert_eq!(problem.is_empty(), kind.takes(option), "{name}: {problem}");
            }
        }
        let problem = OptimizerKind::RmsProp.check(&with(OptimizerOption::Nesterov)).unwrap_err();
        assert_eq!(problem, "nesterov: optimizer rmsprop has none: remove it, or use optimizer sgd");
    }
}
