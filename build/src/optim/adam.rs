//! Adam, and AdamW, which is Adam with weight decay.
//!
//! Sources: Kingma, Ba: Adam: A Method for Stochastic Optimization, 2014, in the form just before its section 2.1.
//! Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2017. Keras: `adam.py`, `adamw.py`.

#[cfg(feature = "burn")]
use burn::tensor::Tensor;
use num_traits::Float;

use super::lazy::{ClosedForm, Coefficients, Move};
use super::vectors::{Rule, SMALLEST_RATE};
use super::{Definition, EPSILON, Formula, MAX_SLOTS, Optimizer, Slot, real};
use crate::simd::{Block, Simd};

// ---- what users see

/// Decay of the first moment.
pub const BETA_1: f64 = 0.9;
/// Decay of the second moment.
pub const BETA_2: f64 = 0.999;

/// Adam for users.
pub const ADAM: Definition = Definition {
    name: "adam",
    default_learning_rate: 0.001,
    options: &[],
    constants: &[("opt_adam_beta_1", BETA_1), ("opt_adam_beta_2", BETA_2), ("opt_adam_epsilon", EPSILON)],
    warning: |_| None,
    formula: |_| Optimizer::Adam(Adam),
};

/// AdamW for users.
pub const ADAMW: Definition = Definition {
    name: "adamw",
    default_learning_rate: 0.001,
    options: &[],
    constants: &[("opt_adamw_beta_1", BETA_1), ("opt_adamw_beta_2", BETA_2), ("opt_adamw_epsilon", EPSILON)],
    warning: |options| {
        (options.weight_decay == 0.0)
            .then_some("adamw with weight_decay 0 is adam: set weight_decay (Keras takes 0.004)")
    },
    formula: |_| Optimizer::Adam(Adam),
};

// ---- settings, slots, the update of one number

/// Adam. It has no settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam;

/// The step size, with the correction of both moments for their start at zero:
/// `rate * sqrt(1 - beta_2^step) / (1 - beta_1^step)`.
pub fn step_size(rate: f64, step: u64) -> f64 {
    let step = step.min(i32::MAX as u64) as i32;
    rate * (1.0 - BETA_2.powi(step)).sqrt() / (1.0 - BETA_1.powi(step))
}

impl Formula for Adam {
    type Rule = AdamRule;
    type ClosedForm = Self;
    #[cfg(feature = "gpu")]
    type Kernel = ();

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zero("first_moment"), Slot::zero("second_moment")]
    }

    #[inline]
    fn update<T: Float>(&self, rate: f64, step: u64, w: T, [m, v]: [T; MAX_SLOTS], g: T) -> (T, [T; MAX_SLOTS]) {
        let [one, beta_1, beta_2] = [1.0, BETA_1, BETA_2].map(real::<T>);
        let m = m + (g - m) * (one - beta_1);
        let v = v + (g * g - v) * (one - beta_2);
        (w - real::<T>(step_size(rate, step)) * m / (v.sqrt() + real(EPSILON)), [m, v])
    }

    fn rule(&self, rate: f64, step: u64) -> AdamRule {
        let step_size = step_size(rate, step).max(SMALLEST_RATE);
        AdamRule { scale: (1.0 / step_size) as f32, offset: (EPSILON / step_size) as f32 }
    }

    fn closed_form(&self) -> Option<Self> {
        Some(*self)
    }

    #[cfg(feature = "burn")]
    fn update_tensor(&self, rate: f64, step: u64, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
        slots[0].inplace(|m| m * BETA_1 + g.clone() * (1.0 - BETA_1));
        slots[1].inplace(|v| v * BETA_2 + g.square() * (1.0 - BETA_2));
        let (m, v) = (slots[0].clone(), slots[1].clone());
        w - m * step_size(rate, step) / (v.sqrt() + EPSILON)
    }

    #[cfg(feature = "gpu")]
    fn kernel(&self) {}

    #[cfg(feature = "gpu")]
    fn kernel_rates(&self, rate: f64, step: u64) -> [f64; 2] {
        [step_size(rate, step), 0.0]
    }
}

// ---- on vectors

/// Added to a squared gradient, so that the root of the second moment is a normal number. The sum with epsilon stays as it
/// is.
const TINY: f32 = 1e-30;

/// Adam on vectors.
#[derive(Debug, Clone, Copy)]
pub struct AdamRule {
    /// 1 / step size: one multiplication less for each parameter.
    scale: f32,
    /// Epsilon / step size.
    offset: f32,
}

impl Rule for AdamRule {
    const SLOTS: usize = 2;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, v]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let m = s.mul_add(s.sub(g, m), s.splat((1.0 - BETA_1) as f32), m);
        let v = s.mul_add(s.sub(s.mul_add(g, g, s.splat(TINY)), v), s.splat((1.0 - BETA_2) as f32), v);
        (s.sub(w, s.over_root(m, v, self.scale, self.offset)), [m, v])
    }
}

// ---- lazy update

/// Without gradient `m` decays by beta_1, the root of `v` by the root of beta_2, and the step size a_j changes every step:
///
/// ```text
/// w -= sum over j of  a_j beta_1^j m / (beta_2^(j/2) sqrt(v) + epsilon)
///    = m / (sqrt(v) + epsilon)  sum of  a_j r^j / (1 + f t_j)         r = beta_1 / sqrt(beta_2), t_j = beta_2^(-j/2) - 1,
///    ~ m / (sqrt(v) + epsilon) (S_0 - f S_1 + f^2 S_2)                f = epsilon / (sqrt(v) + epsilon)
///                                                                     S_i = sum of a_j r^j t_j^i
/// ```
///
/// Since f is at most 1 and t_j about j / 2000, the error is less than a millionth of the move.
impl ClosedForm for Adam {
    fn coefficients(&self) -> Coefficients {
        let ratio = BETA_1 / BETA_2.sqrt();
        Coefficients {
            slot_factors: [BETA_1, BETA_2],
            sums: 3,
            term: Box::new(move |i, j| ratio.powi(j) * (BETA_2.powf(f64::from(j) / -2.0) - 1.0).powi(i as i32)),
        }
    }

    #[inline(always)]
    fn size(&self, rate: f64, step: u64) -> f64 {
        step_size(rate, step)
    }

    #[inline(always)]
    fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], [m, v]: [&[Block]; MAX_SLOTS], by: Move) {
        let [s0, s1, s2] = by.sums;
        for ((w, m), v) in weights.iter_mut().zip(m).zip(v) {
            let v = s.max(s.splat(1e-36), s.load(v)); // so that its root is a normal number
            let over = s.over_root(s.splat(1.0), v, 1.0, EPSILON as f32);
            let f = s.mul(over, s.splat(EPSILON as f32));
            let sum = s.mul_add(s.mul_add(f, s.splat(s2), s.splat(-s1)), f, s.splat(s0));
            let moved = s.mul(s.mul(s.load(m), over), sum);
            s.store(s.sub(s.mul(s.load(w), s.splat(by.decay)), moved), w);
        }
    }
}

// ---- on GPUs

#[cfg(feature = "gpu")]
mod on_gpu {
    use cubecl::prelude::*;

    use super::super::{GpuParameter, GpuRates};
    use super::Adam;

    const BETA_1: f32 = super::BETA_1 as f32;
    const BETA_2: f32 = super::BETA_2 as f32;
    const EPSILON: f32 = super::EPSILON as f32;

    #[cube]
    impl Adam {
        /// Adam in a kernel; the rate is the step size.
        pub fn update_on_gpu(p: &mut GpuParameter, g: f32, rates: &GpuRates, #[comptime] _kernel: ()) {
            let m = p.slot_0 + (g - p.slot_0) * (1.0 - BETA_1);
            let v = p.slot_1 + (g * g - p.slot_1) * (1.0 - BETA_2);
            p.slot_0 = m;
            p.slot_1 = v;
            p.w -= rates.rate * m / (v.sqrt() + EPSILON);
        }
    }
}
