//! A hidden layer after the first: dense products, in tiles that stay in registers.
//!
//! The matrices lie in slabs of up to 64 columns, which is the order that a matrix product would first copy them into.

use super::net::Slab;
use super::simd::{Block, LANES, Simd};
use super::update::StepRule;

/// Images whose part of a gradient is summed before the next: their activations stay in the second-level cache.
const IMAGES_AT_A_TIME: usize = 256;

/// A matrix (B,W) that belongs to a slab of columns.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Row by row, `width` blocks each.
    pub blocks: &'a [Block],
    /// W in blocks.
    pub width: usize,
}

/// `z = a W + b` for the slab's columns: z (B,W); `inputs` are the panels of a (B,I), from the first column on.
#[inline(always)]
pub fn forward<'a, S: Simd>(
    s: S,
    slab: &Slab,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    z: &mut [Block],
) {
    if S::MANY_REGISTERS {
        match slab.width {
            1 => forward_by::<S, 12, 1>(s, slab, inputs, z),
            2 => forward_by::<S, 8, 2>(s, slab, inputs, z),
            3 => forward_by::<S, 6, 3>(s, slab, inputs, z),
            _ => forward_by::<S, 6, 4>(s, slab, inputs, z),
        }
    } else {
        forward_by::<S, 6, 1>(s, slab, inputs, z);
    }
}

/// Tiles of `R` images and `C` column blocks.
#[inline(always)]
fn forward_by<'a, S: Simd, const R: usize, const C: usize>(
    s: S,
    slab: &Slab,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    z: &mut [Block],
) {
    let images = z.len() / slab.width;
    let whole = images / R * R;
    for column in (0..slab.width).step_by(C) {
        for image in (0..whole).step_by(R) {
            forward_tile::<S, R, C>(s, slab, inputs.clone(), image, column, z);
        }
        for image in whole..images {
            forward_tile::<S, 1, C>(s, slab, inputs.clone(), image, column, z);
        }
    }
}

#[inline(always)]
fn forward_tile<'a, S: Simd, const R: usize, const C: usize>(
    s: S,
    slab: &Slab,
    inputs: impl Iterator<Item = Panel<'a>>,
    image: usize,
    column: usize,
    z: &mut [Block],
) {
    let biases = &slab.weights[(slab.rows() - 1) * slab.width + column..][..C];
    let mut sums = [[s.splat(0.0); C]; R];
    for sums in &mut sums {
        for c in 0..C {
            sums[c] = s.load(&biases[c]);
        }
    }
    let mut rows = slab.weights.chunks_exact(slab.width);
    for panel in inputs {
        for block in 0..panel.width {
            let mut a = [&Block::ZERO; R];
            for r in 0..R {
                a[r] = &panel.blocks[(image + r) * panel.width + block];
            }
            for (lane, row) in (0..LANES).zip(&mut rows) {
                let row = &row[column..column + C];
                let mut w = [s.splat(0.0); C];
                for c in 0..C {
                    w[c] = s.load(&row[c]);
                }
                for r in 0..R {
                    let x = s.splat(a[r].0[lane]);
                    for c in 0..C {
                        sums[r][c] = s.mul_add(x, w[c], sums[r][c]);
                    }
                }
            }
        }
    }
    for r in 0..R {
        let z = &mut z[(image + r) * slab.width + column..][..C];
        for c in 0..C {
            s.store(sums[r][c], &mut z[c]);
        }
    }
}

/// The gradient of the activations before the layer, for some columns of them, cut where they were:
/// `d_in = (d W^T) scale` where `a > 0`; d_in and a are (B,`width`) from column `first` of the layer's inputs on.
///
/// `outputs` are the layer's slabs, each with its panel of d (B,O).
#[inline(always)]
pub fn input_gradient<'a, S: Simd>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    first: usize,
    a: Panel,
    scale: f32,
    d_in: &mut [Block],
) {
    if S::MANY_REGISTERS {
        input_gradient_by::<S, 4, 4>(s, outputs, first, a, scale, d_in);
    } else {
        input_gradient_by::<S, 1, 4>(s, outputs, first, a, scale, d_in);
    }
}

/// Tiles of `R` images and `Q` inputs.
#[inline(always)]
fn input_gradient_by<'a, S: Simd, const R: usize, const Q: usize>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    first: usize,
    a: Panel,
    scale: f32,
    d_in: &mut [Block],
) {
    let images = d_in.len() / a.width;
    let whole = images / R * R;
    for column in (0..a.width * LANES).step_by(Q) {
        for image in (0..whole).step_by(R) {
            input_gradient_tile::<S, R, Q>(s, outputs.clone(), first, a, scale, image, column, d_in);
        }
        for image in whole..images {
            input_gradient_tile::<S, 1, Q>(s, outputs.clone(), first, a, scale, image, column, d_in);
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a kernel: what it reads and what it writes")]
fn input_gradient_tile<'a, S: Simd, const R: usize, const Q: usize>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)>,
    first: usize,
    a: Panel,
    scale: f32,
    image: usize,
    column: usize,
    d_in: &mut [Block],
) {
    let mut sums = [[s.splat(0.0); Q]; R];
    for (slab, d) in outputs {
        for block in 0..d.width {
            let mut w = [s.splat(0.0); Q];
            for q in 0..Q {
                w[q] = s.load(&slab.weights[(first + column + q) * slab.width + block]);
            }
            for r in 0..R {
                let d = s.load(&d.blocks[(image + r) * d.width + block]);
                for q in 0..Q {
                    sums[r][q] = s.mul_add(d, w[q], sums[r][q]);
                }
            }
        }
    }
    for r in 0..R {
        let at = (image + r) * a.width + column / LANES;
        for q in 0..Q {
            let lane = column % LANES + q;
            let cut = a.blocks[at].0[lane] <= 0.0;
            d_in[at].0[lane] = if cut { 0.0 } else { s.sum(sums[r][q]) * scale };
        }
    }
}

/// The gradient `a^T d` of the slab's weights over the batch, and their update by `rule`; `inputs` as for [`forward`].
///
/// `gradient` is room for the slab's weights.
#[inline(always)]
pub fn update<'a, S: Simd>(
    s: S,
    slab: &mut Slab,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    d: &[Block],
    rule: &StepRule,
    gradient: &mut [Block],
) {
    match (S::MANY_REGISTERS, slab.width) {
        (true, 2) => update_by::<S, 8, 2>(s, slab, inputs, d, rule, gradient),
        (true, 3) => update_by::<S, 4, 3>(s, slab, inputs, d, rule, gradient),
        (true, 4) => update_by::<S, 4, 4>(s, slab, inputs, d, rule, gradient),
        _ => update_by::<S, 4, 1>(s, slab, inputs, d, rule, gradient),
    }
}

/// Tiles of `R` inputs and `C` column blocks.
#[inline(always)]
fn update_by<'a, S: Simd, const R: usize, const C: usize>(
    s: S,
    slab: &mut Slab,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    d: &[Block],
    rule: &StepRule,
    gradient: &mut [Block],
) {
    let width = slab.width;
    let images = d.len() / width;
    let bias = slab.rows() - 1;
    for begin in (0..images).step_by(IMAGES_AT_A_TIME) {
        let end = (begin + IMAGES_AT_A_TIME).min(images);
        let d = &d[begin * width..end * width];
        let mut input = 0;
        for panel in inputs.clone() {
            for block in 0..panel.width {
                let a = &panel.blocks[begin * panel.width..end * panel.width];
                for first in (0..LANES).step_by(R) {
                    for column in (0..width).step_by(C) {
                        let gradient = &mut gradient[(input + first) * width..][..R * width];
                        update_tile::<S, R, C>(s, a, panel.width, block, first, d, width, column, begin == 0, gradient);
                    }
                }
                if end == images {
                    slab.update(s, rule, input..input + LANES, &gradient[input * width..]);
                }
                input += LANES;
            }
        }
        let gradient = &mut gradient[bias * width..][..width];
        for column in 0..width {
            let mut sum = if begin == 0 { s.splat(0.0) } else { s.load(&gradient[column]) };
            for d in d.chunks_exact(width) {
                sum = s.add(sum, s.load(&d[column]));
            }
            s.store(sum, &mut gradient[column]);
        }
    }
    slab.update(s, rule, bias..bias + 1, &gradient[bias * width..]);
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a kernel: what it reads and what it writes")]
fn update_tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    a: &[Block],
    a_width: usize,
    block: usize,
    first: usize,
    d: &[Block],
    width: usize,
    column: usize,
    fresh: bool,
    gradient: &mut [Block],
) {
    let mut sums = [[s.splat(0.0); C]; R];
    if !fresh {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = s.load(&gradient[r * width + column + c]);
            }
        }
    }
    for (a, d) in a.chunks_exact(a_width).zip(d.chunks_exact(width)) {
        let a = &a[block].0[first..first + R];
        let d = &d[column..column + C];
        for r in 0..R {
            let x = s.splat(a[r]);
            for c in 0..C {
                sums[r][c] = s.mul_add(x, s.load(&d[c]), sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            s.store(sums[r][c], &mut gradient[r * width + column + c]);
        }
    }
}
