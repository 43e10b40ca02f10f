//! Which hidden units a training step drops: one counter-based mask for all engines, on any thread or device.
//!
//! Source: Srivastava and others: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014; inverted, so
//! that the units kept are scaled by `1 / (1 - dropout)` in training and nothing changes in evaluation.

use crate::rng::{Purpose, Stream};

/// The mask of one hidden layer in one step: a 64-bit key, from which each unit's fate follows by itself.
///
/// 32-bit operations only, so that eight or sixteen units go through a vector register, or one through a GPU lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutMask {
    pub(crate) key: [u32; 2],
    /// Units whose 32 bits are below this are dropped; 2^32 times the dropout rate.
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

    /// Whether `unit` is kept: the index into the layer's activations (B,H), row by row.
    ///
    /// The hash is lowbias32 with the key's halves mixed in before and within, see
    /// <https://nullprogram.com/blog/2018/07/31/>.
    #[inline]
    pub fn keeps(&self, unit: u32) -> bool {
        let mut x = unit ^ self.key[0];
        x ^= x >> 16;
        x = x.wrapping_mul(Self::FACTORS[0]) ^ self.key[1];
        x ^= x >> 15;
        x = x.wrapping_mul(Self::FACTORS[1]);
        x ^= x >> 16;
        x >= self.threshold
    }
}

/// What the units kept are multiplied by.
pub fn scale(dropout: f64) -> f64 {
    1.0 / (1.0 - dropout)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
