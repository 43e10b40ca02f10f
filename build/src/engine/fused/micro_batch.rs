//! The images that pass all layers together, forward and backward.
//!
//! A batch is one micro-batch or several, whose gradients are summed before the update. So a large batch takes no more memory
//! for activations than a smaller one, and they are still in a cache when the next layer reads them.
//!
//! Source: Huang and others: GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism, 2019, for the word.

use std::ops::Range;

use super::panel::MASK;
use crate::interrupt;
use crate::simd::Precision;
use crate::simd::tile::DEPTH;

/// The images that pass a dense layer together, and the micro-batch of float32 numbers.
const PASS: usize = 256;
/// The micro-batch of bf16 numbers. It is larger, since tiles sum a gradient much faster than it goes to memory and back.
const BF16: usize = 1024;
const _: () = assert!(PASS.is_multiple_of(MASK) && BF16.is_multiple_of(PASS) && PASS.is_multiple_of(DEPTH));

/// The images of a micro-batch, but for the last, where batches have `batch` images.
pub fn size(batch: usize, precision: Precision) -> usize {
    batch.min(match precision {
        Precision::Float32 => PASS,
        Precision::Bf16 => BF16,
    })
}

/// `images` images in their order, at most `most` at a time.
#[inline(always)]
pub fn in_ranges(images: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images).step_by(most).map(move |begin| begin..images.min(begin + most))
}

/// The images of a micro-batch that pass a dense layer together; no more after a signal.
pub fn passes(images: usize) -> impl Iterator<Item = Range<usize>> {
    in_ranges(images, PASS).take_while(|_| !interrupt::is_received())
}
