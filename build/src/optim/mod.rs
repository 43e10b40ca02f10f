//! Optimizers: their settings, the formulas (Keras 3's, `keras/src/optimizers/`), and the plain update.
//!
//! Every engine follows these definitions; frameworks differ silently here (where epsilon stands, what is decayed).

use num_traits::Float;
use serde::Serialize;

/// How gradients become updates of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Kingma, Ba: Adam, 2014, in the form of the text just before its section 2.1.
    Adam,
    /// Adam with weight decay: Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2017.
    AdamW,
    /// Stochastic gradient descent, with momentum or Nesterov's momentum if set.
    Sgd,
    /// Hinton: Neural Networks for Machine Learning, lecture 6e, 2012.
    RmsProp,
    /// Duchi, Hazan, Singer: Adaptive Subgradient Methods, 2011.
    Adagrad,
}

/// What an optimizer remembers of each parameter between steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// The usual name of it.
    pub name: &'static str,
    /// Its value before the first step.
    pub initial: f32,
}

impl OptimizerKind {
    /// The optimizers by their names in the parameters file.
    pub const ALL: [(&'static str, Self); 5] = [
        ("adam", Self::Adam),
        ("adamw", Self::AdamW),
        ("sgd", Self::Sgd),
        ("rmsprop", Self::RmsProp),
        ("adagrad", Self::Adagrad),
    ];

    /// The name in the parameters file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Keras' default.
    pub fn default_learning_rate(self) -> f64 {
        if self == Self::Sgd { 0.01 } else { 0.001 }
    }

    /// Whether `momentum` means something to it.
    pub fn has_momentum(self) -> bool {
        matches!(self, Self::Sgd | Self::RmsProp)
    }
}

/// Decay of Adam's first moment.
pub const BETA_1: f64 = 0.9;
/// Decay of Adam's second moment.
pub const BETA_2: f64 = 0.999;
/// Decay of RMSprop's mean square.
pub const RHO: f64 = 0.9;
/// What keeps every division finite.
pub const EPSILON: f64 = 1e-7;

/// An optimizer with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// Which one.
    pub kind: OptimizerKind,
    /// The step size.
    pub learning_rate: f64,
    /// How much of the last step is kept; 0: none, and no memory for it.
    pub momentum: f64,
    /// Nesterov's variant of momentum.
    pub nesterov: bool,
    /// The share of each parameter taken away per step, times the learning rate, before the update.
    pub weight_decay: f64,
}

impl OptimizerSettings {
    /// What is remembered of each parameter.
    pub fn slots(&self) -> Vec<Slot> {
        let zero = |name| Slot { name, initial: 0.0 };
        match self.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => vec![zero("first_moment"), zero("second_moment")],
            OptimizerKind::Sgd if self.momentum > 0.0 => vec![zero("momentum")],
            OptimizerKind::Sgd => vec![],
            OptimizerKind::RmsProp if self.momentum > 0.0 => vec![zero("mean_square"), zero("momentum")],
            OptimizerKind::RmsProp => vec![zero("mean_square")],
            OptimizerKind::Adagrad => vec![Slot { name: "sum_of_squares", initial: 0.1 }],
        }
    }

    /// The size of Adam's step number `step` (from 1), which holds the correction of both moments for their start at
    /// zero: `learning_rate * sqrt(1 - beta_2^step) / (1 - beta_1^step)`.
    pub fn adam_step_size(&self, step: u64) -> f64 {
        let step = step.min(i32::MAX as u64) as i32;
        self.learning_rate * (1.0 - BETA_2.powi(step)).sqrt() / (1.0 - BETA_1.powi(step))
    }

    /// What every parameter is multiplied by before the update.
    pub fn decay(&self) -> f64 {
        1.0 - self.weight_decay * self.learning_rate
    }

    /// Updates `parameters` by `gradient` in step number `step` (from 1); the reference for all engines.
    ///
    /// `slots[s][p]` is slot `s` (see [`OptimizerSettings::slots`]) of parameter `p`.
    pub fn update<T: Float>(&self, step: u64, parameters: &mut [T], gradient: &[T], slots: &mut [Vec<T>]) {
        let real = |value: f64| T::from(value).unwrap_or_else(T::nan);
        let one = T::one();
        let (rate, epsilon, momentum) = (real(self.learning_rate), real(EPSILON), real(self.momentum));
        let (beta_1, beta_2, rho) = (real(BETA_1), real(BETA_2), real(RHO));
        let adam_step_size = real(self.adam_step_size(step));
        let decay = real(self.decay());

        for (p, (w, &g)) in parameters.iter_mut().zip(gradient).enumerate() {
            if self.weight_decay > 0.0 {
                *w = *w * decay;
            }
            match (self.kind, &mut *slots) {
                (OptimizerKind::Adam | OptimizerKind::AdamW, [m, v]) => {
                    m[p] = m[p] + (g - m[p]) * (one - beta_1);
                    v[p] = v[p] + (g * g - v[p]) * (one - beta_2);
                    *w = *w - adam_step_size * m[p] / (v[p].sqrt() + epsilon);
                }
                (OptimizerKind::Sgd, [m]) => {
                    m[p] = momentum * m[p] - rate * g;
                    *w = *w + if self.nesterov { momentum * m[p] - rate * g } else { m[p] };
                }
                (OptimizerKind::Sgd, _) => *w = *w - rate * g,
                (OptimizerKind::RmsProp, [v, rest @ ..]) => {
                    v[p] = rho * v[p] + (one - rho) * g * g;
                    let change = rate * g / (v[p] + epsilon).sqrt();
                    *w = *w
                        - match rest {
                            [m] => {
                                m[p] = momentum * m[p] + change;
                                m[p]
                            }
                            _ => change,
                        };
                }
                (OptimizerKind::Adagrad, [sum]) => {
                    sum[p] = sum[p] + g * g;
                    *w = *w - rate * g / (sum[p] + epsilon).sqrt();
                }
                (kind, slots) => unreachable!("{} with {} slots", kind.name(), slots.len()),
            }
        }
    }
}
