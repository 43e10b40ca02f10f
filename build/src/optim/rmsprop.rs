//! RMSprop, with momentum if set.
//!
//! Sources: Hinton: Neural Networks for Machine Learning, lecture 6e, 2012. Keras: `rmsprop.py`.

#[cfg(feature = "burn")]
use burn::tensor::Tensor;
use num_traits::Float;

use super::lazy::{ClosedForm, Coefficients, Move};
use super::vectors::{BlockUpdate, Rule, SMALLEST_RATE};
use super::{Definition, EPSILON, Formula, MAX_SLOTS, Optimizer, OptimizerOption, Slot, real};
use crate::simd::{Block, Simd};

// ---- what users see

/// Decay of the mean square.
pub const RHO: f64 = 0.9;

/// RMSprop for users.
pub const RMSPROP: Definition = Definition {
    name: "rmsprop",
    default_learning_rate: 0.001,
    options: &[OptimizerOption::Momentum],
    constants: &[],
    warning: |_| None,
    formula: |options| Optimizer::RmsProp(RmsProp { momentum: options.momentum }),
};

// ---- settings, slots, the update of one number

/// RMSprop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsProp {
    /// The fraction of the last update that is added to the next one; 0: none, and no slot for it.
    pub momentum: f64,
}

impl Formula for RmsProp {
    type Rule = RmsPropRule;
    type ClosedForm = Self;
    #[cfg(feature = "gpu")]
    type Kernel = RmsPropKernel;

    fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot::zero("mean_square")];
        slots.extend((self.momentum > 0.0).then_some(Slot::zero("momentum")));
        slots
    }

    #[inline]
    fn update<T: Float>(&self, rate: f64, _: u64, w: T, [v, m]: [T; MAX_SLOTS], g: T) -> (T, [T; MAX_SLOTS]) {
        let (rate, momentum, rho) = (real::<T>(rate), real::<T>(self.momentum), real::<T>(RHO));
        let v = rho * v + (T::one() - rho) * g * g;
        let change = rate * g / (v + real(EPSILON)).sqrt();
        if self.momentum == 0.0 {
            return (w - change, [v, m]);
        }
        let m = momentum * m + change;
        (w - m, [v, m])
    }

    fn rule(&self, rate: f64, _: u64) -> RmsPropRule {
        let scale = (1.0 / rate.max(SMALLEST_RATE)) as f32;
        match self.momentum {
            0.0 => RmsPropRule::Plain(PlainRmsProp { scale }),
            momentum => RmsPropRule::Momentum(MomentumRmsProp { scale, momentum: momentum as f32 }),
        }
    }

    fn closed_form(&self) -> Option<Self> {
        Some(*self)
    }

    #[cfg(feature = "burn")]
    fn update_tensor(&self, rate: f64, _: u64, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
        slots[0].inplace(|v| v * RHO + g.clone().square() * (1.0 - RHO));
        let change = g * rate / (slots[0].clone() + EPSILON).sqrt();
        if self.momentum == 0.0 {
            return w - change;
        }
        slots[1].inplace(|m| m * self.momentum + change);
        w - slots[1].clone()
    }

    #[cfg(feature = "gpu")]
    fn kernel(&self) -> RmsPropKernel {
        RmsPropKernel { momentum: self.momentum > 0.0 }
    }

    #[cfg(feature = "gpu")]
    fn kernel_rates(&self, rate: f64, _: u64) -> [f64; 2] {
        [rate, self.momentum]
    }
}

// ---- on vectors

/// RMSprop on vectors.
#[derive(Debug, Clone, Copy)]
pub enum RmsPropRule {
    Plain(PlainRmsProp),
    Momentum(MomentumRmsProp),
}

impl BlockUpdate for RmsPropRule {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]) {
        match self {
            Self::Plain(rule) => rule.apply(s, weights, slots, gradient),
            Self::Momentum(rule) => rule.apply(s, weights, slots, gradient),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PlainRmsProp {
    /// 1 / learning rate.
    scale: f32,
}

impl PlainRmsProp {
    /// The change of `w`, and the new mean square.
    #[inline(always)]
    fn change<S: Simd>(self, s: S, v: S::F, g: S::F) -> (S::F, S::F) {
        let v = s.mul_add(s.sub(s.mul(g, g), v), s.splat((1.0 - RHO) as f32), v);
        (s.over_root(g, s.add(v, s.splat(EPSILON as f32)), self.scale, 0.0), v)
    }
}

impl Rule for PlainRmsProp {
    const SLOTS: usize = 1;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [v, none]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let (change, v) = self.change(s, v, g);
        (s.sub(w, change), [v, none])
    }
}

#[derive(Debug, Clone, Copy)]
pub struct MomentumRmsProp {
    scale: f32,
    momentum: f32,
}

impl Rule for MomentumRmsProp {
    const SLOTS: usize = 2;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [v, m]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let (change, v) = PlainRmsProp { scale: self.scale }.change(s, v, g);
        let m = s.mul_add(m, s.splat(self.momentum), change);
        (s.sub(w, m), [v, m])
    }
}

// ---- lazy update

/// Without gradient the mean square decays by rho. With momentum mu, `m` decays by mu and
/// `w -= m (mu + mu^2 + ... + mu^k)`. The learning rate has no part in it.
impl ClosedForm for RmsProp {
    fn coefficients(&self) -> Coefficients {
        let momentum = self.momentum;
        Coefficients {
            slot_factors: [RHO, if momentum > 0.0 { momentum } else { 1.0 }],
            sums: usize::from(momentum > 0.0),
            term: Box::new(move |_, j| momentum.powi(j)),
        }
    }

    #[inline(always)]
    fn size(&self, _: f64, _: u64) -> f64 {
        1.0
    }

    #[inline(always)]
    fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], [_, m]: [&[Block]; MAX_SLOTS], by: Move) {
        if self.momentum > 0.0 { by.by_momentum(s, weights, m) } else { by.decay(s, weights) }
    }
}

// ---- on GPUs

/// The setting that kernels are compiled for.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RmsPropKernel {
    pub momentum: bool,
}

#[cfg(feature = "gpu")]
mod on_gpu {
    use cubecl::prelude::*;

    use super::super::{GpuParameter, GpuRates};
    use super::{RmsProp, RmsPropKernel};

    const RHO: f32 = super::RHO as f32;
    const EPSILON: f32 = super::EPSILON as f32;

    #[cube]
    impl RmsProp {
        /// RMSprop in a kernel.
        pub fn update_on_gpu(p: &mut GpuParameter, g: f32, rates: &GpuRates, #[comptime] kernel: RmsPropKernel) {
            let v = RHO * p.slot_0 + (1.0 - RHO) * g * g;
            p.slot_0 = v;
            let change = rates.rate * g / (v + EPSILON).sqrt();
            if comptime!(kernel.momentum) {
                let m = rates.momentum * p.slot_1 + change;
                p.slot_1 = m;
                p.w -= m;
            } else {
                p.w -= change;
            }
        }
    }
}
