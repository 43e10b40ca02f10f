//! Augmentation: every epoch trains on distorted copies of the images.
//!
//! An image is moved, rotated, scaled and sheared as a whole (affine), and bent smoothly (elastic), by one resampling. The
//! random numbers follow from the seed, the epoch and the image's place, so that the bytes depend neither on the number of
//! threads nor on the instruction set.
//!
//! Source: Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis,
//! ICDAR 2003.

pub mod augmenter;
pub mod sheet;
mod warp;

use serde::Serialize;

pub use self::warp::Warper;
use crate::text::number;

/// The kinds of distortion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentKind {
    /// The images stay as they are.
    None,
    /// Rotation, scale, shear and shift of the whole image.
    Affine,
    /// A smooth random field of displacements.
    Elastic,
    /// Affine and elastic in one.
    Both,
}

impl AugmentKind {
    /// The choices by their names in the parameters file.
    pub const ALL: &[(&'static str, Self)] =
        &[("none", Self::None), ("affine", Self::Affine), ("elastic", Self::Elastic), ("both", Self::Both)];

    /// The names of those that `are`.
    pub fn names(are: impl Fn(Self) -> bool) -> Vec<&'static str> {
        Self::ALL.iter().filter(|(_, kind)| are(*kind)).map(|(name, _)| *name).collect()
    }

    /// Whether rotation, scale, shear and shift are part of it.
    pub fn is_affine(self) -> bool {
        matches!(self, Self::Affine | Self::Both)
    }

    /// Whether a field of displacements is part of it.
    pub fn is_elastic(self) -> bool {
        matches!(self, Self::Elastic | Self::Both)
    }
}

/// How images are distorted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// The largest rotation to either side, in degrees.
    pub rotation: f64,
    /// The largest relative change of width and of height, each by itself.
    pub scale: f64,
    /// The largest shift of a row, in shares of its distance from the middle.
    pub shear: f64,
    /// The largest shift of the image along each axis, in pixels.
    pub shift: f64,
    /// The field of displacements.
    pub elastic: Elastic,
}

impl Augmentation {
    /// The values of parameters that are not given.
    pub const DEFAULT: Self =
        Self { rotation: 7.0, scale: 0.08, shear: 0.05, shift: 0.3, elastic: Elastic { sigma: 7.0, alpha: 56.0 } };

    /// What happens to an image, as the end of a sentence.
    pub fn in_words(self) -> String {
        let Self { rotation, scale, shear, shift, elastic } = self;
        // Two decimals, but no zeros at the end.
        let short = |value: f64| number((100.0 * value).round() / 100.0);
        let parts = [
            (rotation, format!("rotated by up to {} degrees", short(rotation))),
            (scale, format!("width and height changed by up to {} %", short(100.0 * scale))),
            (shear, format!("sheared by up to {} pixels a row", short(shear))),
            (shift, format!("shifted by up to {} pixels", short(shift))),
            (elastic.alpha, format!("bent smoothly, by {:.2} pixels (RMS) along each axis", elastic.rms())),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|(most, _)| *most > 0.0).map(|(_, words)| words).collect();
        if parts.is_empty() { "left as they are, since every distortion is 0".into() } else { parts.join(", ") }
    }
}

/// A smooth random field of displacements.
///
/// Simard's field is white noise, uniform in +-1, smoothed by a Gaussian filter of standard deviation `sigma` and multiplied
/// by `alpha`. A displacement then has the root mean square (RMS) `alpha / sqrt(3) / (2 sigma sqrt(pi))` along each axis:
/// 1.38 pixels for his sigma 4 and alpha 34. Here cubic B-splines over a coarse grid of random numbers give a field of the
/// same RMS and smoothness, for a hundredth of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elastic {
    /// The smoothness, in pixels.
    pub sigma: f64,
    /// The strength; 0: none.
    pub alpha: f64,
}

impl Elastic {
    /// The root mean square of the displacements along each axis, in pixels.
    pub fn rms(self) -> f64 {
        self.alpha / 3f64.sqrt() / (2.0 * self.sigma * std::f64::consts::PI.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_distortions_above_0_are_in_words() {
        let all = "rotated by up to 7 degrees, width and height changed by up to 8 %, sheared by up to 0.05 pixels a row, \
                   shifted by up to 0.3 pixels, bent smoothly, by 1.30 pixels (RMS) along each axis";
        assert_eq!(Augmentation::DEFAULT.in_words(), all);
        let none = Elastic { alpha: 0.0, ..Augmentation::DEFAULT.elastic };
        let affine = Augmentation { rotation: 0.0, scale: 0.07, shear: 0.0, shift: 0.0, elastic: none };
        assert_eq!(affine.in_words(), "width and height changed by up to 7 %");
        assert_eq!(Augmentation { scale: 0.0, ..affine }.in_words(), "left as they are, since every distortion is 0");
    }
}
