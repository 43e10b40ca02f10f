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

/// The images of a micro-batch of float32 numbers.
const MICRO_BATCH: usize = 256;
const _: () = assert!(MICRO_BATCH.is_multiple_of(MASK));

/// The images of a micro-batch, but for the last, where batches have `batch` images. In bf16 a batch is a single one: tiles sum
/// a gradient over all its images before it goes to memory.
pub fn size(batch: usize, precision: Precision) -> usize {
    match precision {
        Precision::Float32 => batch.min(MICRO_BATCH),
        Precision::Bf16 => batch,
    }
}

/// `images` images in their order, at most `most` at a time.
#[inline(always)]
pub fn in_ranges(images: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images).step_by(most).map(move |begin| begin..images.min(begin + most))
}

/// The images of a micro-batch that pass a dense layer together; no more after a signal.
pub fn passes(images: usize) -> impl Iterator<Item = Range<usize>> {
    in_ranges(images, MICRO_BATCH).take_while(|_| !interrupt::is_received())
}
