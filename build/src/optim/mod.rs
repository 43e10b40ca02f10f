//! Optimizers: how gradients become updates of the parameters.
//!
//! Each optimizer has a file of its own: `adam.rs`, `sgd.rs`, `rmsprop.rs`, `adagrad.rs`. All follow the definitions of
//! Keras 3 (`keras/src/optimizers/`). Frameworks differ silently here: in the place of epsilon, and in the parameters that
//! decay. A file has these parts, in this order:
//!
//! 1. the paper and Keras' source
//! 2. its [`Definition`]: name, default learning rate, options, MLLOG keys
//! 3. its settings, its slots and the update of one number: the reference engine uses it, all others are tested against it
//! 4. the update in Burn
//! 5. the update of vectors (`vectors.rs`), for the fused engine
//! 6. the lazy update (`lazy.rs`), for the fused engine: many steps without gradient at once
//! 7. the update on GPUs
//!
//! Weight decay is the same for all, and decoupled: before its update, a step with the rate r multiplies every weight and
//! every bias by `1 - r weight_decay`. Keras' decays biases too; many PyTorch programs leave them out.
//!
//! The formula stands several times in a file on purpose: each engine is checked against the others.
//!
//! **To add an optimizer**, write its file and add it to both lists of `optimizers!` below. The compiler asks for the rest,
//! and the tests for numbers from Keras.
//!
//! The learning rate of each step comes from `schedule.rs`, by [`OptimizerSettings::rate`].

mod adagrad;
mod adam;
mod definition;
#[cfg(feature = "gpu")]
mod gpu;
pub(crate) mod lazy;
mod rmsprop;
mod schedule;
mod sgd;
pub mod vectors;

#[cfg(feature = "burn")]
use burn::tensor::Tensor;
#[cfg(feature = "gpu")]
use cubecl::prelude::*;
use num_traits::Float;

use self::lazy::ClosedForm;
use self::vectors::BlockUpdate;
use crate::simd::{Block, Simd};

pub use self::adagrad::Adagrad;
pub use self::adam::{Adam, BETA_1, BETA_2};
pub use self::definition::{Definition, OptimizerOption, OptimizerOptions};
#[cfg(feature = "gpu")]
pub(crate) use self::gpu::{GpuParameter, GpuRates};
pub use self::rmsprop::{RHO, RmsProp};
pub use self::schedule::{Schedule, ScheduleKind};
pub use self::sgd::Sgd;

/// Keeps every division finite.
pub const EPSILON: f64 = 1e-7;

/// The most numbers that an optimizer keeps of a parameter. The memory layouts of the engines depend on it.
pub const MAX_SLOTS: usize = 2;

/// A number that an optimizer keeps of each parameter between steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Its usual name.
    pub name: &'static str,
    /// Its value before the first step.
    pub initial: f32,
}

impl Slot {
    /// A slot that begins at zero.
    pub const fn zero(name: &'static str) -> Self {
        Self { name, initial: 0.0 }
    }
}

/// What an optimizer's file implements. `rate` is the learning rate of the step; `step` is its number, from 1.
pub(crate) trait Formula: Copy {
    /// The update of vectors.
    type Rule: BlockUpdate + Copy + std::fmt::Debug;
    /// The lazy update, or [`std::convert::Infallible`] if there is none.
    type ClosedForm: ClosedForm;
    /// The settings that GPU kernels are compiled for.
    #[cfg(feature = "gpu")]
    type Kernel: Copy + Eq + std::hash::Hash + std::fmt::Debug;

    /// What it keeps of each parameter: at most [`MAX_SLOTS`] numbers.
    fn slots(&self) -> Vec<Slot>;

    /// A parameter `w` and its slots after a step with gradient `g`. Slots that it does not have are ignored.
    fn update<T: Float>(&self, rate: f64, step: u64, w: T, slots: [T; MAX_SLOTS], g: T) -> (T, [T; MAX_SLOTS]);

    /// The same for vectors of `f32`.
    fn rule(&self, rate: f64, step: u64) -> Self::Rule;

    /// Many steps without gradient at once. `None`: the fused engine takes them one by one.
    fn closed_form(&self) -> Option<Self::ClosedForm>;

    /// [`Formula::update`] for tensors; `slots` are those of [`Formula::slots`].
    #[cfg(feature = "burn")]
    fn update_tensor(&self, rate: f64, step: u64, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1>;

    /// The settings for `update_on_gpu`, which each optimizer has as a function of its own: CubeCL wants it outside traits.
    #[cfg(feature = "gpu")]
    fn kernel(&self) -> Self::Kernel;

    /// The numbers `rate` and `momentum` of [`GpuRates`].
    #[cfg(feature = "gpu")]
    fn kernel_rates(&self, rate: f64, step: u64) -> [f64; 2];
}

/// Makes the types that list all optimizers, and the only dispatch over them.
macro_rules! optimizers {
    (
        names: { $($(#[$kind_doc:meta])* $kind:ident = $definition:expr,)+ }
        formulas: { $($(#[$doc:meta])* $formula:ident,)+ }
    ) => {
        /// An optimizer by its name in the parameters file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum OptimizerKind {
            $($(#[$kind_doc])* $kind,)+
        }

        impl OptimizerKind {
            /// All optimizers by their names in the parameters file.
            pub const ALL: [(&'static str, Self); [$(Self::$kind),+].len()] = [$(($definition.name, Self::$kind)),+];

            /// The part that users see.
            pub fn definition(self) -> &'static Definition {
                match self {
                    $(Self::$kind => &$definition,)+
                }
            }
        }

        /// An optimizer's formula with its settings.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Optimizer {
            $($(#[$doc])* $formula($formula),)+
        }

        /// An optimizer's rule for vectors in one step.
        #[derive(Debug, Clone, Copy)]
        enum OptimizerRule {
            $($formula(<$formula as Formula>::Rule),)+
        }

        impl Optimizer {
            fn slots(&self) -> Vec<Slot> {
                match self {
                    $(Self::$formula(formula) => formula.slots(),)+
                }
            }

            fn update<T: Float>(&self, at: At, parameters: &mut [T], gradient: &[T], slots: &mut [Vec<T>]) {
                match self {
                    $(Self::$formula(formula) => update_all(formula, at, parameters, gradient, slots),)+
                }
            }

            fn rule(&self, rate: f64, step: u64) -> OptimizerRule {
                match self {
                    $(Self::$formula(formula) => OptimizerRule::$formula(formula.rule(rate, step)),)+
                }
            }

            /// [`vectors::stand_still`].
            fn stand_still(
                &self,
                step: u64,
                weights: &mut [Block],
                slots: [&mut [Block]; MAX_SLOTS],
                gradient: &[Block],
            ) {
                match self {
                    $(Self::$formula(formula) => vectors::stand_still(formula, step, weights, slots, gradient),)+
                }
            }

            /// The coefficients of the closed form, if there is one.
            fn coefficients(&self) -> Option<lazy::Coefficients> {
                match self {
                    $(Self::$formula(formula) => formula.closed_form().map(|form| form.coefficients()),)+
                }
            }

            /// [`ClosedForm::size`].
            #[inline(always)]
            fn closed_form_size(&self, rate: f64, step: u64) -> f64 {
                match self {
                    $(Self::$formula(formula) => formula.closed_form().map_or(0.0, |form| form.size(rate, step)),)+
                }
            }

            /// [`ClosedForm::move_weights`].
            #[inline(always)]
            fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&[Block]; MAX_SLOTS], by: lazy::Move) {
                match self {
                    $(Self::$formula(formula) => {
                        if let Some(form) = formula.closed_form() {
                            form.move_weights(s, weights, slots, by);
                        }
                    })+
                }
            }

            #[cfg(feature = "burn")]
            fn update_tensor(&self, at: At, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
                match self {
                    $(Self::$formula(formula) => formula.update_tensor(at.rate, at.step, w, slots, g),)+
                }
            }

            #[cfg(feature = "gpu")]
            fn kernel(&self) -> OptimizerKernel {
                match self {
                    $(Self::$formula(formula) => OptimizerKernel::$formula(formula.kernel()),)+
                }
            }

            #[cfg(feature = "gpu")]
            fn kernel_rates(&self, rate: f64, step: u64) -> [f64; 2] {
                match self {
                    $(Self::$formula(formula) => formula.kernel_rates(rate, step),)+
                }
            }
        }

        /// An optimizer with the settings that GPU kernels are compiled for.
        #[cfg(feature = "gpu")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum OptimizerKernel {
            $($formula(<$formula as Formula>::Kernel),)+
        }

        /// [`Formula::update`] in a GPU kernel: the parameter `p` and its slots after a step with gradient `g`.
        #[cfg(feature = "gpu")]
        #[cube]
        pub(crate) fn update_on_gpu(
            p: &mut GpuParameter,
            g: f32,
            rates: &GpuRates,
            #[comptime] optimizer: OptimizerKernel,
        ) {
            match comptime!(optimizer) {
                $(OptimizerKernel::$formula(kernel) => $formula::update_on_gpu(p, g, rates, kernel),)+
            }
        }

        impl BlockUpdate for OptimizerRule {
            #[inline(always)]
            fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]) {
                match self {
                    $(Self::$formula(rule) => rule.apply(s, weights, slots, gradient),)+
                }
            }
        }
    };
}

optimizers! {
    names: {
        /// Adam.
        Adam = adam::ADAM,
        /// Adam with weight decay.
        AdamW = adam::ADAMW,
        /// Stochastic gradient descent.
        Sgd = sgd::SGD,
        /// RMSprop.
        RmsProp = rmsprop::RMSPROP,
        /// Adagrad.
        Adagrad = adagrad::ADAGRAD,
    }
    formulas: {
        /// Adam, and with weight decay AdamW.
        Adam,
        /// Stochastic gradient descent, perhaps with momentum.
        Sgd,
        /// RMSprop, perhaps with momentum.
        RmsProp,
        /// Adagrad.
        Adagrad,
    }
}

/// How gradients become updates: the optimizer, and what all optimizers share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// The formula with its own settings.
    pub method: Optimizer,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Decoupled weight decay: the fraction of each parameter that is subtracted before the update, times the learning rate.
    ///
    /// Source: Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2017; Keras' `weight_decay`.
    pub weight_decay: f64,
}

/// A step: its number (from 1), its learning rate and the factor of every parameter before the update.
#[derive(Debug, Clone, Copy)]
struct At {
    step: u64,
    rate: f64,
    decay: f64,
}

impl OptimizerSettings {
    /// Stochastic gradient descent at one rate, without options: it has no slots, and its step shows the gradient.
    pub fn sgd(learning_rate: f64) -> Self {
        OptimizerKind::Sgd.settings(Schedule::constant(learning_rate), &OptimizerOptions::default())
    }

    /// The learning rate of step number `step` (from 1).
    #[inline]
    pub fn rate(&self, step: u64) -> f64 {
        self.schedule.rate(step)
    }

    /// The factor of every parameter before the update, in a step with learning rate `rate`.
    pub fn decay(&self, rate: f64) -> f64 {
        1.0 - self.weight_decay * rate
    }

    /// What the optimizer keeps of each parameter.
    pub fn slots(&self) -> Vec<Slot> {
        self.method.slots()
    }

    /// Updates `parameters` (P) by `gradient` (P) in step number `step` (from 1). The reference for all engines.
    ///
    /// `slots[s][p]` is slot `s` (see [`OptimizerSettings::slots`]) of parameter `p`.
    pub fn update<T: Float>(&self, step: u64, parameters: &mut [T], gradient: &[T], slots: &mut [Vec<T>]) {
        self.method.update(self.at(step), parameters, gradient, slots);
    }

    /// [`OptimizerSettings::update`] for tensors: the new value of `w`.
    #[cfg(feature = "burn")]
    pub fn update_tensor(&self, step: u64, mut w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
        let at = self.at(step);
        if at.decay != 1.0 {
            w = w * at.decay;
        }
        self.method.update_tensor(at, w, slots, g)
    }

    fn at(&self, step: u64) -> At {
        let rate = self.rate(step);
        At { step, rate, decay: self.decay(rate) }
    }
}

/// One step of `formula` on all parameters, see [`OptimizerSettings::update`].
fn update_all<F: Formula, T: Float>(formula: &F, at: At, parameters: &mut [T], gradient: &[T], slots: &mut [Vec<T>]) {
    let decay = real(at.decay);
    for (p, (w, &g)) in parameters.iter_mut().zip(gradient).enumerate() {
        let old = std::array::from_fn(|s| slots.get(s).map_or(T::zero(), |slot| slot[p]));
        let decayed = if at.decay == 1.0 { *w } else { *w * decay };
        let (updated, new) = formula.update(at.rate, at.step, decayed, old, g);
        *w = updated;
        for (slot, new) in slots.iter_mut().zip(new) {
            slot[p] = new;
        }
    }
}

/// A constant as a number of the type that is computed with.
fn real<T: Float>(value: f64) -> T {
    T::from(value).unwrap_or_else(T::nan)
}

#[cfg(feature = "gpu")]
impl OptimizerSettings {
    /// The settings that GPU kernels are compiled for.
    pub(crate) fn kernel(&self) -> OptimizerKernel {
        self.method.kernel()
    }

    /// The numbers that GPU kernels take for step number `step` (from 1): those of [`GpuRates`], in this order.
    pub(crate) fn kernel_rates(&self, step: u64) -> [f32; 3] {
        let At { rate, decay, .. } = self.at(step);
        let [rate, momentum] = self.method.kernel_rates(rate, step);
        [decay, rate, momentum].map(|number| number as f32)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ALL_OPTIONS: OptimizerOptions = OptimizerOptions { momentum: 0.9, nesterov: true, weight_decay: 0.1 };

    /// Every optimizer with every combination of options that it takes.
    pub(crate) fn every_setting() -> Vec<OptimizerSettings> {
        let mut all = Vec::new();
        for (_, kind) in OptimizerKind::ALL {
            for combination in 0..8 {
                let set = |bit: usize| combination >> bit & 1 == 1;
                let options = OptimizerOptions {
                    momentum: if set(0) { ALL_OPTIONS.momentum } else { 0.0 },
                    nesterov: set(1),
                    weight_decay: if set(2) { ALL_OPTIONS.weight_decay } else { 0.0 },
                };
                if kind.check(&options).is_ok() {
                    all.push(kind.settings(Schedule::constant(0.01), &options));
                }
            }
        }
        all
    }

    /// All of them under every schedule, with and without warmup.
    pub(crate) fn every_setting_and_schedule() -> Vec<OptimizerSettings> {
        let mut all = Vec::new();
        for (_, kind) in ScheduleKind::ALL {
            for warmup_steps in [0, 20] {
                let (learning_rate, final_learning_rate) = (0.01, kind.default_final(0.01));
                let schedule = Schedule { kind, learning_rate, final_learning_rate, warmup_steps, steps: 100 };
                all.extend(every_setting().into_iter().map(|settings| OptimizerSettings { schedule, ..settings }));
            }
        }
        all
    }

    #[test]
    fn slots_are_no_more_than_memory_is_laid_out_for() {
        assert!(every_setting().len() > OptimizerKind::ALL.len());
        for settings in every_setting() {
            assert!(settings.slots().len() <= MAX_SLOTS, "{settings:?}");
        }
    }
}
