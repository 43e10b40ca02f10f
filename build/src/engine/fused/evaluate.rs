//! Answers: logits without dropout, for images that may be new.

use super::access::{Access, Exchange};
use super::first_layer::FIRST_LAYER_IMAGES;
use super::forward::{Inputs, forward};
use super::nonzero::NonzeroPixels;
use super::weights::Weights;
use crate::error::Result;
use crate::interrupt;
use crate::simd::{Block, FlushDenormals, InstructionSet, Job, Simd};
use crate::threads;

/// Parts of the images for each thread: where one is slower than another, it takes fewer.
const PARTS: usize = 8;

/// The logits (N,K) of `pixels` (N,D), by all threads.
///
/// # Errors
/// A signal arrived.
pub fn logits(weights: &Weights, set: InstructionSet, pixels: &[u8]) -> Result<Vec<f32>> {
    let (d, classes) = (weights.shape().inputs(), weights.shape().classes());
    let images = pixels.len() / d;
    let mut logits = vec![0.0; images * classes];
    let part = images.div_ceil(PARTS * weights.threads()).next_multiple_of(FIRST_LAYER_IMAGES).max(1);
    let parts = pixels.chunks(part * d).zip(logits.chunks_mut(part * classes));
    threads::side_by_side(weights.threads(), parts, |(pixels, logits)| {
        let _flush = FlushDenormals::begin();
        set.run(LogitsJob { weights, pixels, logits });
    });
    interrupt::check().map(|()| logits)
}

/// The logits of some images, by one thread.
struct LogitsJob<'a> {
    weights: &'a Weights,
    /// (N,D).
    pixels: &'a [u8],
    /// (N,K).
    logits: &'a mut [f32],
}

impl Job for LogitsJob<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { weights, pixels, logits } = self;
        let (d, classes) = (weights.shape().inputs(), weights.shape().classes());
        let at_a_time = FIRST_LAYER_IMAGES.min(pixels.len() / d);
        let mut exchange = Exchange::for_answers(weights, at_a_time);
        let mut access = Access::alone(weights, &mut exchange);
        let mut nonzero = NonzeroPixels::default();
        let order: Vec<u32> = (0..at_a_time as u32).collect();
        let mut blocks = vec![Block::ZERO; at_a_time];
        for (pixels, logits) in pixels.chunks(at_a_time * d).zip(logits.chunks_mut(at_a_time * classes)) {
            if interrupt::is_received() {
                break;
            }
            let images = pixels.len() / d;
            nonzero.fill(pixels, d);
            let inputs = Inputs { nonzero: &nonzero, images: &order[..images], before: 0, next: &[] };
            forward(s, &mut access, inputs, None, None, None, &mut blocks[..images]);
            access.next();
            for (logits, block) in logits.chunks_exact_mut(classes).zip(&blocks) {
                logits.copy_from_slice(&block.0[..classes]);
            }
        }
    }
}
