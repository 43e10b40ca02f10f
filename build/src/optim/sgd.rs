//! Stochastic gradient descent, with momentum or Nesterov's momentum if set.
//!
//! Sources: Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning, 2013.
//! Keras: `sgd.py`.

#[cfg(feature = "burn")]
use burn::tensor::Tensor;
use num_traits::Float;

use super::lazy::{ClosedForm, Coefficients, Move};
use super::vectors::{BlockUpdate, Rule};
use super::{Definition, Formula, MAX_SLOTS, Optimizer, OptimizerOption, Slot, real};
use crate::simd::{Block, Simd};

// ---- what users see

/// Stochastic gradient descent for users.
pub const SGD: Definition = Definition {
    name: "sgd",
    default_learning_rate: 0.01,
    options: &[OptimizerOption::Momentum, OptimizerOption::Nesterov],
    constants: &[],
    warning: |_| None,
    formula: |options| Optimizer::Sgd(Sgd { momentum: options.momentum, nesterov: options.nesterov }),
};

// ---- settings, slots, the update of one number

/// Stochastic gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The fraction of the last update that is added to the next one; 0: none, and no slot for it.
    pub momentum: f64,
    /// Nesterov's variant of momentum.
    pub nesterov: bool,
}

impl Formula for Sgd {
    type Rule = SgdRule;
    type ClosedForm = Self;
    #[cfg(feature = "gpu")]
    type Kernel = SgdKernel;

    fn slots(&self) -> Vec<Slot> {
        if self.momentum > 0.0 { vec![Slot::zero("momentum")] } else { vec![] }
    }

    #[inline]
    fn update<T: Float>(&self, rate: f64, _: u64, w: T, [m, none]: [T; MAX_SLOTS], g: T) -> (T, [T; MAX_SLOTS]) {
        let (rate, momentum) = (real::<T>(rate), real::<T>(self.momentum));
        if self.momentum == 0.0 {
            return (w - rate * g, [m, none]);
        }
        let m = momentum * m - rate * g;
        (w + if self.nesterov { momentum * m - rate * g } else { m }, [m, none])
    }

    fn rule(&self, rate: f64, _: u64) -> SgdRule {
        let (rate, momentum) = (rate as f32, self.momentum as f32);
        match self {
            Self { momentum: 0.0, .. } => SgdRule::Plain(PlainSgd { rate }),
            Self { nesterov: false, .. } => SgdRule::Momentum(MomentumSgd { rate, momentum }),
            Self { nesterov: true, .. } => SgdRule::Nesterov(NesterovSgd { rate, momentum }),
        }
    }

    fn closed_form(&self) -> Option<Self> {
        Some(*self)
    }

    #[cfg(feature = "burn")]
    fn update_tensor(&self, rate: f64, _: u64, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
        if self.momentum == 0.0 {
            return w - g * rate;
        }
        slots[0].inplace(|m| m * self.momentum - g.clone() * rate);
        let m = slots[0].clone();
        w + if self.nesterov { m * self.momentum - g * rate } else { m }
    }

    #[cfg(feature = "gpu")]
    fn kernel(&self) -> SgdKernel {
        SgdKernel { momentum: self.momentum > 0.0, nesterov: self.nesterov }
    }

    #[cfg(feature = "gpu")]
    fn kernel_rates(&self, rate: f64, _: u64) -> [f64; 2] {
        [rate, self.momentum]
    }
}

// ---- on vectors

/// Stochastic gradient descent on vectors.
#[derive(Debug, Clone, Copy)]
pub enum SgdRule {
    Plain(PlainSgd),
    Momentum(MomentumSgd),
    Nesterov(NesterovSgd),
}

impl BlockUpdate for SgdRule {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]) {
        match self {
            Self::Plain(rule) => rule.apply(s, weights, slots, gradient),
            Self::Momentum(rule) => rule.apply(s, weights, slots, gradient),
            Self::Nesterov(rule) => rule.apply(s, weights, slots, gradient),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PlainSgd {
    rate: f32,
}

impl Rule for PlainSgd {
    const SLOTS: usize = 0;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, slots: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        (s.neg_mul_add(g, s.splat(self.rate), w), slots)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct MomentumSgd {
    rate: f32,
    momentum: f32,
}

impl Rule for MomentumSgd {
    const SLOTS: usize = 1;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, none]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let m = s.neg_mul_add(g, s.splat(self.rate), s.mul(m, s.splat(self.momentum)));
        (s.add(w, m), [m, none])
    }
}

#[derive(Debug, Clone, Copy)]
pub struct NesterovSgd {
    rate: f32,
    momentum: f32,
}

impl Rule for NesterovSgd {
    const SLOTS: usize = 1;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, none]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let (rate, momentum) = (s.splat(self.rate), s.splat(self.momentum));
        let m = s.neg_mul_add(g, rate, s.mul(m, momentum));
        (s.neg_mul_add(g, rate, s.mul_add(m, momentum, w)), [m, none])
    }
}

// ---- lazy update

/// Without gradient `m` decays by the momentum mu, and `w += m (mu + mu^2 + ... + mu^k)`. Nesterov's momentum multiplies
/// the sum by mu once more. The learning rate has no part in it.
impl ClosedForm for Sgd {
    fn coefficients(&self) -> Coefficients {
        let momentum = self.momentum;
        Coefficients {
            slot_factors: [if momentum > 0.0 { momentum } else { 1.0 }, 1.0],
            sums: usize::from(momentum > 0.0),
            term: Box::new(move |_, j| momentum.powi(j)),
        }
    }

    #[inline(always)]
    fn size(&self, _: f64, _: u64) -> f64 {
        // Negative, since a move is subtracted.
        if self.nesterov { -self.momentum } else { -1.0 }
    }

    #[inline(always)]
    fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], [m, _]: [&[Block]; MAX_SLOTS], by: Move) {
        if self.momentum > 0.0 { by.by_momentum(s, weights, m) } else { by.decay(s, weights) }
    }
}

// ---- on GPUs

/// The settings that kernels are compiled for.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SgdKernel {
    pub momentum: bool,
    pub nesterov: bool,
}

#[cfg(feature = "gpu")]
mod on_gpu {
    use cubecl::prelude::*;

    use super::super::{GpuParameter, GpuRates};
    use super::{Sgd, SgdKernel};

    #[cube]
    impl Sgd {
        /// Stochastic gradient descent in a kernel.
        pub fn update_on_gpu(p: &mut GpuParameter, g: f32, rates: &GpuRates, #[comptime] kernel: SgdKernel) {
            let change = rates.rate * g;
            if comptime!(kernel.momentum) {
                let m = rates.momentum * p.slot_0 - change;
                p.slot_0 = m;
                if comptime!(kernel.nesterov) {
                    p.w += rates.momentum * m - change;
                } else {
                    p.w += m;
                }
            } else {
                p.w -= change;
            }
        }
    }
}
