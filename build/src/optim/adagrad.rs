//! Adagrad.
//!
//! Sources: Duchi, Hazan, Singer: Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, 2011.
//! Keras: `adagrad.py`.

#[cfg(feature = "burn")]
use burn::tensor::Tensor;
use num_traits::Float;

use super::lazy::{ClosedForm, Coefficients, Move};
use super::vectors::{Rule, SMALLEST_RATE};
use super::{Definition, EPSILON, Formula, MAX_SLOTS, Optimizer, Slot, real};
use crate::simd::{Block, Simd};

// ---- what users see

/// Adagrad for users.
pub const ADAGRAD: Definition = Definition {
    name: "adagrad",
    default_learning_rate: 0.001,
    options: &[],
    constants: &[("opt_adagrad_epsilon", EPSILON)],
    warning: |_| None,
    formula: |_| Optimizer::Adagrad(Adagrad),
};

// ---- settings, slots, the update of one number

/// Adagrad. It has no settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad;

impl Formula for Adagrad {
    type Rule = AdagradRule;
    type ClosedForm = Self;
    #[cfg(feature = "gpu")]
    type Kernel = ();

    fn slots(&self) -> Vec<Slot> {
        // Keras' `initial_accumulator_value`.
        vec![Slot { name: "sum_of_squares", initial: 0.1 }]
    }

    #[inline]
    fn update<T: Float>(&self, rate: f64, _: u64, w: T, [sum, none]: [T; MAX_SLOTS], g: T) -> (T, [T; MAX_SLOTS]) {
        let sum = sum + g * g;
        (w - real::<T>(rate) * g / (sum + real(EPSILON)).sqrt(), [sum, none])
    }

    fn rule(&self, rate: f64, _: u64) -> AdagradRule {
        AdagradRule { scale: (1.0 / rate.max(SMALLEST_RATE)) as f32 }
    }

    fn closed_form(&self) -> Option<Self> {
        Some(*self)
    }

    #[cfg(feature = "burn")]
    fn update_tensor(&self, rate: f64, _: u64, w: Tensor<1>, slots: &mut [Tensor<1>], g: Tensor<1>) -> Tensor<1> {
        slots[0].inplace(|sum| sum + g.clone().square());
        w - g * rate / (slots[0].clone() + EPSILON).sqrt()
    }

    #[cfg(feature = "gpu")]
    fn kernel(&self) {}

    #[cfg(feature = "gpu")]
    fn kernel_rates(&self, rate: f64, _: u64) -> [f64; 2] {
        [rate, 0.0]
    }
}

// ---- on vectors

/// Adagrad on vectors.
#[derive(Debug, Clone, Copy)]
pub struct AdagradRule {
    /// 1 / learning rate.
    scale: f32,
}

impl Rule for AdagradRule {
    const SLOTS: usize = 1;

    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [sum, none]: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]) {
        let sum = s.mul_add(g, g, sum);
        let change = s.over_root(g, s.add(sum, s.splat(EPSILON as f32)), self.scale, 0.0);
        (s.sub(w, change), [sum, none])
    }
}

// ---- lazy update

/// Without gradient nothing happens but weight decay.
impl ClosedForm for Adagrad {
    fn coefficients(&self) -> Coefficients {
        Coefficients { slot_factors: [1.0; MAX_SLOTS], sums: 0, term: Box::new(|_, _| 0.0) }
    }

    #[inline(always)]
    fn size(&self, _: f64, _: u64) -> f64 {
        0.0
    }

    #[inline(always)]
    fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], _: [&[Block]; MAX_SLOTS], by: Move) {
        by.decay(s, weights);
    }
}

// ---- on GPUs

#[cfg(feature = "gpu")]
mod on_gpu {
    use cubecl::prelude::*;

    use super::super::{GpuParameter, GpuRates};
    use super::Adagrad;

    const EPSILON: f32 = super::EPSILON as f32;

    #[cube]
    impl Adagrad {
        /// Adagrad in a kernel.
        pub fn update_on_gpu(p: &mut GpuParameter, g: f32, rates: &GpuRates, #[comptime] _kernel: ()) {
            let sum = p.slot_0 + g * g;
            p.slot_0 = sum;
            p.w -= rates.rate * g / (sum + EPSILON).sqrt();
        }
    }
}
