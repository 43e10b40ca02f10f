//! Augmentation: every epoch trains on distorted copies of the images.
//!
//! An image is moved, rotated, scaled and sheared as a whole (affine), and bent smoothly (elastic), by one resampling. The
//! random numbers follow from the seed, the epoch and the image's place, so that the bytes depend neither on the number of
//! threads nor on the instruction set.
//!
//! Source: Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis,
//! ICDAR 2003.

pub mod augmenter;
mod warp;

use serde::Serialize;

pub use self::warp::Warper;

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
        Self { rotation: 7.5, scale: 0.08, shear: 0.05, shift: 0.5, elastic: Elastic { sigma: 5.0, alpha: 40.0 } };
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
