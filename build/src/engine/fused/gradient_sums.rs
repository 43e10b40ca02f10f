//! The gradients of a thread's weights, summed over the micro-batches of a batch.

use super::group::GROUP;
use super::micro_batch;
use super::panel::MASK;
use super::weights::{LayerLayout, TOGETHER, WIDEST, Weights};
use crate::simd::tile::ROWS;
use crate::simd::{Block, LANES, Precision};

/// Memory for the sums. In batches of several micro-batches every gradient has a place of its own, from one to the next; else
/// all take turns in one place.
pub struct GradientSums {
    blocks: Vec<Block>,
    /// The images of a batch.
    batch: usize,
    are_kept: bool,
    is_first: bool,
    /// The blocks given since the micro-batch began.
    given: usize,
}

impl GradientSums {
    /// For the weights of thread `rank` and batches of `batch` images.
    pub fn new(weights: &Weights, rank: usize, batch: usize) -> Self {
        let are_kept = batch > micro_batch::size(batch, weights.precision);
        let blocks = if are_kept { all(weights, rank) } else { largest(weights, rank, batch) };
        Self { blocks: vec![Block::ZERO; blocks], batch, are_kept, is_first: true, given: 0 }
    }

    /// Takes memory for the share that is left to thread `rank` since there are fewer threads.
    pub fn take_more(&mut self, weights: &Weights, rank: usize) {
        *self = Self::new(weights, rank, self.batch);
    }

    /// Begins a micro-batch, the batch's first or another.
    pub fn begin(&mut self, is_first: bool) {
        (self.is_first, self.given) = (is_first, 0);
    }

    /// The sum for the next weights, `blocks` of them, over the micro-batches before: zero in the first. Every micro-batch asks
    /// for the same weights in the same order.
    #[inline(always)]
    pub fn next(&mut self, blocks: usize) -> &mut [Block] {
        let sum = &mut self.blocks[self.given..][..blocks];
        if self.are_kept {
            self.given += blocks;
        }
        if self.is_first {
            sum.fill(Block::ZERO);
        }
        sum
    }
}

/// The blocks of all gradients of thread `rank`.
fn all(weights: &Weights, rank: usize) -> usize {
    let own = |layout: &LayerLayout| layout.width(layout.own(rank, weights.threads()));
    let rows = |l: usize| match weights.precision {
        Precision::Float32 => weights.layers[l].layout.rows,
        // The rows of tiles, and one for the biases.
        Precision::Bf16 if l == 0 => weights.shape().inputs().next_multiple_of(ROWS) + 1,
        Precision::Bf16 => {
            weights.layers[l - 1].layout.slabs.iter().map(|slab| slab.width.div_ceil(2) * ROWS).sum::<usize>() + 1
        }
    };
    let layers = weights.layers.iter().enumerate().map(|(l, layer)| rows(l) * own(&layer.layout));
    let output = weights.layers.last().map_or(0, |last| own(&last.layout) * LANES + 1);
    layers.sum::<usize>() + output
}

/// The blocks of the largest gradient of thread `rank` in batches of one micro-batch: of slabs of the first layer that are
/// worked on together for several groups of images, or of those of a layer after it and one panel of its inputs; in bf16, of
/// the [`ROWS`] rows of a slab that are computed together.
fn largest(weights: &Weights, rank: usize, batch: usize) -> usize {
    if weights.precision == Precision::Bf16 {
        return WIDEST * ROWS;
    }
    let first = &weights.layers[0].layout;
    let own = first.width(first.own(rank, weights.threads()));
    let together = if batch > GROUP { own.min(TOGETHER * WIDEST) } else { 0 };
    (weights.shape().inputs() * together).max(TOGETHER * WIDEST * MASK)
}
