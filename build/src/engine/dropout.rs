//! Which hidden units a training step drops: one counter-based mask for all engines, on any thread or device.
//!
//! Source: Srivastava and others: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014. Inverted:
//! the kept units are scaled by `1 / (1 - dropout)` in training, and nothing changes in evaluation.

use crate::rng::{Purpose, Stream};
use crate::simd::{Simd, Single, U32Lanes};

/// The mask of one hidden layer in one step: a 64-bit key, from which each unit's fate follows by itself.
///
/// The hash takes 32-bit operations only, so that a vector register hashes eight or sixteen units, and a GPU's lane
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutMask {
    pub(crate) key: [u32; 2],
    /// Units with a hash below this are dropped; 2^32 times the dropout rate.
    pub(crate) threshold: u32,
}

impl DropoutMask {
    /// The hash's two factors.
    pub(crate) const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

    /// The mask after hidden layer `layer` (from 0) in the step with `steps_before` steps before it.
    pub fn new(seed: u64, steps_before: u64, layer: usize, dropout: f64) -> Self {
        let bits = Stream::new(seed, Purpose::Dropout, steps_before).at(layer as u64);
        Self { key: [bits as u32, (bits >> 32) as u32], threshold: (dropout * 4_294_967_296.0) as u32 }
    }

    /// The hash of units, which are indices into the layer's activations (B,H), row by row.
    ///
    /// It is lowbias32, with one half of the key mixed in before it and one within it, see
    /// <https://nullprogram.com/blog/2018/07/31/>.
    #[inline(always)]
    fn hash<S: U32Lanes>(&self, s: S, unit: S::U) -> S::U {
        let h = s.xor(unit, s.splat_u32(self.key[0]));
        let h = s.xor(h, s.shift_right(h, 16));
        let h = s.xor(s.mul_u32(h, s.splat_u32(Self::FACTORS[0])), s.splat_u32(self.key[1]));
        let h = s.xor(h, s.shift_right(h, 15));
        let h = s.mul_u32(h, s.splat_u32(Self::FACTORS[1]));
        s.xor(h, s.shift_right(h, 16))
    }

    /// Whether `unit` is kept.
    #[inline]
    pub fn keeps(&self, unit: u32) -> bool {
        self.hash(Single, unit) >= self.threshold
    }

    /// `x` where unit `first_unit` and those after it are kept, zero elsewhere.
    #[inline(always)]
    pub fn keep<S: Simd>(&self, s: S, first_unit: u32, x: S::F) -> S::F {
        let units = s.add_u32(s.lane_numbers(), s.splat_u32(first_unit));
        s.where_at_least(self.hash(s, units), s.splat_u32(self.threshold), x)
    }
}

/// The factor that kept units are multiplied by.
pub fn scale(dropout: f64) -> f64 {
    1.0 / (1.0 - dropout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Block, InstructionSet, Job};

    #[test]
    fn the_rate_is_kept_over_units_and_over_steps() {
        for dropout in [0.2, 0.5] {
            let units = 100_000;
            let mask = DropoutMask::new(42, 7, 0, dropout);
            let dropped = (0..units).filter(|&unit| !mask.keeps(unit)).count() as f64;
            // Five standard deviations of a binomial share.
            let bound = 5.0 * (dropout * (1.0 - dropout) / f64::from(units)).sqrt();
            assert!((dropped / f64::from(units) - dropout).abs() < bound, "{dropped}");
            let dropped = (0..100_000).filter(|&step| !DropoutMask::new(42, step, 0, dropout).keeps(3)).count() as f64;
            assert!((dropped / 100_000.0 - dropout).abs() < bound, "{dropped}");
        }
    }

    #[test]
    fn masks_of_two_steps_layers_or_seeds_are_independent() {
        let first = DropoutMask::new(42, 0, 0, 0.5);
        for other in [(42, 1, 0), (42, 0, 1), (43, 0, 0)] {
            let other = DropoutMask::new(other.0, other.1, other.2, 0.5);
            let alike = (0..100_000).filter(|&unit| first.keeps(unit) == other.keeps(unit)).count();
            assert!(alike.abs_diff(50_000) < 800, "{alike}");
        }
    }

    #[test]
    fn no_dropout_keeps_everything() {
        let mask = DropoutMask::new(42, 0, 0, 0.0);
        assert!((0..100_000).all(|unit| mask.keeps(unit)));
    }

    #[test]
    fn every_instruction_set_keeps_the_same_units() {
        struct Keep(DropoutMask, u32);
        impl Job for Keep {
            type Output = Block;
            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> Block {
                let mut kept = Block::ZERO;
                s.store(self.0.keep(s, self.1, s.splat(1.5)), &mut kept);
                kept
            }
        }
        let mask = DropoutMask::new(3, 4, 0, 0.5);
        for set in InstructionSet::available() {
            for first in [0, 77, u32::MAX - 5] {
                for (lane, kept) in set.run(Keep(mask, first)).0.into_iter().enumerate() {
                    let expected = if mask.keeps(first.wrapping_add(lane as u32)) { 1.5 } else { 0.0 };
                    assert_eq!(kept, expected, "{} unit {first} + {lane}", set.name());
                }
            }
        }
    }
}
