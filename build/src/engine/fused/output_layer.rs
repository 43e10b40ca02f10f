//! The output layer: logits from the activations of the last hidden layer, softmax and loss, and the backward pass.
//!
//! Each row of its weights (H,K) lies with the slab that has the same hidden column, in a block of 16 for the 10
//! classes. So a thread needs only the sums of the logits over the columns of other threads.

use std::ops::Range;

use super::group::GROUP;
use super::panel::Panel;
use super::weights::Slab;
use crate::engine::EpochTotals;
use crate::optim::vectors::StepRule;
use crate::simd::{self, Block, LANES, Simd, exp};

/// A part of the logits (B): `a W` over some column blocks of a slab. `weights` are the output layer's rows for the
/// slab.
#[inline(always)]
pub fn partial_logits<S: Simd>(s: S, a: Panel, blocks: Range<usize>, weights: &[Block], logits: &mut [Block]) {
    if S::MANY_REGISTERS {
        partial_logits_by::<S, 8>(s, a, blocks, weights, logits);
    } else {
        partial_logits_by::<S, 4>(s, a, blocks, weights, logits);
    }
}

/// `R` images at a time.
#[inline(always)]
fn partial_logits_by<S: Simd, const R: usize>(
    s: S,
    a: Panel,
    blocks: Range<usize>,
    weights: &[Block],
    logits: &mut [Block],
) {
    let Panel { blocks: a, width, .. } = a;
    let (tiles, rest) = logits.as_chunks_mut::<R>();
    let (tiled, a_rest) = a.split_at(tiles.len() * R * width);
    for (logits, a) in tiles.iter_mut().zip(tiled.chunks_exact(R * width)) {
        partial_logits_tile(s, a, width, blocks.clone(), weights, logits);
    }
    for (logits, a) in rest.iter_mut().zip(a_rest.chunks_exact(width)) {
        partial_logits_tile::<S, 1>(s, a, width, blocks.clone(), weights, std::array::from_mut(logits));
    }
}

#[inline(always)]
fn partial_logits_tile<S: Simd, const R: usize>(
    s: S,
    a: &[Block],
    width: usize,
    blocks: Range<usize>,
    weights: &[Block],
    logits: &mut [Block; R],
) {
    let mut sums = [s.splat(0.0); R];
    for block in blocks {
        let mut columns = [&Block::ZERO; R];
        for r in 0..R {
            columns[r] = &a[r * width + block];
        }
        let rows = &weights[block * LANES..][..LANES];
        for lane in 0..LANES {
            let row = s.load(&rows[lane]);
            for r in 0..R {
                sums[r] = s.mul_add(s.splat(columns[r].0[lane]), row, sums[r]);
            }
        }
    }
    for r in 0..R {
        s.store(sums[r], &mut logits[r]);
    }
}

/// Replaces the logits z of some images by their gradient `(softmax(z) - target) / B`, zero in the lanes from `classes` on. The
/// target is `(1 - smoothing) onehot(label) + smoothing / K`, and B is the whole batch's size.
///
/// Returns loss and right answers of the images.
#[inline(always)]
pub fn softmax_gradient<S: Simd>(
    s: S,
    logits: &mut [Block],
    labels: impl Iterator<Item = u8>,
    batch: usize,
    classes: usize,
    smoothing: f32,
) -> EpochTotals {
    if smoothing > 0.0 {
        softmax_gradient_by::<S, true>(s, logits, labels, batch, classes, smoothing)
    } else {
        softmax_gradient_by::<S, false>(s, logits, labels, batch, classes, 0.0)
    }
}

/// With `SMOOTHED` labels or without.
#[inline(always)]
fn softmax_gradient_by<S: Simd, const SMOOTHED: bool>(
    s: S,
    logits: &mut [Block],
    labels: impl Iterator<Item = u8>,
    batch: usize,
    classes: usize,
    smoothing: f32,
) -> EpochTotals {
    let mut totals = EpochTotals { images: logits.len(), ..EpochTotals::default() };
    let (mut inside, mut outside) = (Block::ZERO, Block::ZERO);
    inside.0[..classes].fill(1.0);
    outside.0[classes..].fill(-1e30);
    let (inside, outside) = (s.load(&inside), s.load(&outside));
    let per_image = 1.0 / batch as f32;
    let per_label = per_image * (1.0 - smoothing);
    let per_class = s.mul(inside, s.splat(per_image * smoothing / classes as f32));
    // The product of some images' sums, so that one logarithm does for all of them. Each sum is from 1 to 16.
    let mut product = 1.0;
    for (n, (block, label)) in logits.iter_mut().zip(labels).enumerate() {
        let label = usize::from(label);
        let z = s.add(s.load(block), outside);
        let highest = s.highest(z);
        let e = s.where_positive(inside, exp(s, s.sub(z, s.splat(highest))));
        let sum = s.sum(e);
        let right = block.0[label];
        if right == highest {
            // The answer is the first of equal logits. All are looked at: a loop's end that depends on the label is mispredicted.
            let is_earlier = |lane: usize| (lane < label) & (block.0[lane] >= highest);
            totals.correct += usize::from(!(0..LANES).fold(false, |any, lane| any | is_earlier(lane)));
        }
        totals.loss_sum += f64::from(highest - right);
        if SMOOTHED {
            let mean = s.sum(s.where_positive(inside, z)) / classes as f32;
            totals.loss_sum += f64::from(smoothing * (right - mean));
        }
        product *= f64::from(sum);
        if n % 200 == 199 {
            totals.loss_sum += product.ln();
            product = 1.0;
        }
        let gradient = s.mul(e, s.splat(per_image / sum));
        s.store(if SMOOTHED { s.sub(gradient, per_class) } else { gradient }, block);
        block.0[label] -= per_label;
    }
    totals.loss_sum += product.ln();
    totals
}

/// Makes the gradient of an image of a batch zero if its label has at least the probability `least`; the label's target is
/// `target`. Bit i % 32 of number i / 32 of `kept` says whether image i keeps its gradient.
pub fn skip_confident(
    d_logits: &mut [Block],
    labels: impl Iterator<Item = u8>,
    batch: usize,
    target: f32,
    least: f32,
    kept: &mut Vec<u32>,
) {
    // d = (p - target) / B
    let least = (least - target) / batch as f32;
    kept.clear();
    kept.resize(d_logits.len().div_ceil(GROUP), 0);
    for (i, (d, label)) in d_logits.iter_mut().zip(labels).enumerate() {
        if d.0[usize::from(label)] >= least {
            *d = Block::ZERO;
        } else {
            kept[i / GROUP] |= 1 << (i % GROUP);
        }
    }
}

/// The gradient of a slab's last hidden layer before ReLU and dropout: `d = (d_logits W^T) scale` where `a > 0`, else
/// 0.
///
/// a and d are (B,W). `transposed` is scratch memory for the slab's rows.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes the arrays that it reads and writes")]
pub fn hidden_gradient<S: Simd>(
    s: S,
    d_logits: &[Block],
    classes: usize,
    weights: &[Block],
    a: &[Block],
    scale: f32,
    transposed: &mut Vec<Block>,
    d: &mut [Block],
) {
    match weights.len() / LANES {
        1 => hidden_gradient_wide::<S, 1>(s, d_logits, classes, weights, a, scale, transposed, d),
        2 => hidden_gradient_wide::<S, 2>(s, d_logits, classes, weights, a, scale, transposed, d),
        3 => hidden_gradient_wide::<S, 3>(s, d_logits, classes, weights, a, scale, transposed, d),
        _ => hidden_gradient_wide::<S, 4>(s, d_logits, classes, weights, a, scale, transposed, d),
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes the arrays that it reads and writes")]
fn hidden_gradient_wide<S: Simd, const W: usize>(
    s: S,
    d_logits: &[Block],
    classes: usize,
    weights: &[Block],
    a: &[Block],
    scale: f32,
    transposed: &mut Vec<Block>,
    d: &mut [Block],
) {
    transposed.resize(LANES * W, Block::ZERO);
    let transposed = transposed.as_chunks_mut::<W>().0;
    for (block, rows) in weights.as_chunks::<LANES>().0.iter().enumerate() {
        let mut scaled = [s.splat(0.0); LANES];
        for i in 0..LANES {
            scaled[i] = s.mul(s.load(&rows[i]), s.splat(scale));
        }
        for (to, row) in transposed[..classes].iter_mut().zip(simd::transposed(s, scaled)) {
            to[block] = row;
        }
    }
    let (a, d) = (a.as_chunks::<W>().0, d.as_chunks_mut::<W>().0);
    for ((d_logits, a), d) in d_logits.iter().zip(a).zip(d) {
        let mut sums = [s.splat(0.0); W];
        for (&d_logit, row) in d_logits.0[..classes].iter().zip(transposed.iter()) {
            let x = s.splat(d_logit);
            for j in 0..W {
                sums[j] = s.mul_add(x, s.load(&row[j]), sums[j]);
            }
        }
        for j in 0..W {
            s.store(s.where_positive(s.load(&a[j]), sums[j]), &mut d[j]);
        }
    }
}

/// Adds to the `gradient` of the output weights of a hidden slab that of some images, `a^T d_logits`. The last have the `rule`
/// of the update. `slab` holds the rows of the weights.
#[inline(always)]
pub fn update<S: Simd>(
    s: S,
    slab: &mut Slab,
    a: &[Block],
    d_logits: &[Block],
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    if S::MANY_REGISTERS {
        update_by::<S, 8>(s, slab, a, d_logits, rule, gradient);
    } else {
        update_by::<S, 4>(s, slab, a, d_logits, rule, gradient);
    }
}

/// `R` rows at a time.
#[inline(always)]
fn update_by<S: Simd, const R: usize>(
    s: S,
    slab: &mut Slab,
    a: &[Block],
    d_logits: &[Block],
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let width = slab.rows() / LANES;
    for block in 0..width {
        for first in (0..LANES).step_by(R) {
            let gradient = &mut gradient[block * LANES + first..][..R];
            let mut sums = [s.splat(0.0); R];
            for r in 0..R {
                sums[r] = s.load(&gradient[r]);
            }
            for (d, a) in d_logits.iter().zip(a.chunks_exact(width)) {
                let d = s.load(d);
                let a = &a[block].0[first..first + R];
                for r in 0..R {
                    sums[r] = s.mul_add(s.splat(a[r]), d, sums[r]);
                }
            }
            for r in 0..R {
                s.store(sums[r], &mut gradient[r]);
            }
        }
    }
    if let Some(rule) = rule {
        slab.update(s, rule, 0..width * LANES, gradient);
    }
}
