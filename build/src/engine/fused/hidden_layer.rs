//! A hidden layer after the first: dense products, in tiles of sums that stay in registers.
//!
//! The matrices lie in slabs of a few columns, which is the order that a library for matrix products would first copy them
//! into. Each sum runs over its terms one by one, so that no bit depends on how the work is divided.

#![expect(unsafe_code, reason = "one check of bounds for a tile instead of one for each of its rows")]

use std::ops::Range;

use super::net::Slab;
use super::simd::{Block, LANES, Simd, add};
use super::update::StepRule;

/// Column blocks of the inputs that are worked on before the next: their weights, 16 KB for a block of outputs, stay in the
/// first-level cache while all images come by.
const INPUT_BLOCKS: usize = 16;
/// Images that all products of a layer are made with before the next: what they take stays in the cache.
pub const IMAGES_AT_A_TIME: usize = 512;
/// Images whose part of a gradient is summed before the next: a block of a and one of d stay in the first-level cache.
const IMAGES_PER_SUM: usize = 128;
/// From so many images on, turning the weights round pays off on the way back.
const MANY_IMAGES: usize = 8;

/// `images` by [`IMAGES_AT_A_TIME`].
pub fn parts(images: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images).step_by(IMAGES_AT_A_TIME).map(move |begin| begin..(begin + IMAGES_AT_A_TIME).min(images))
}

/// A matrix (B,W) that belongs to a slab of columns.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Row by row, `width` blocks each.
    pub blocks: &'a [Block],
    /// W in blocks.
    pub width: usize,
}

/// A block of columns of a [`Panel`].
#[derive(Debug, Clone, Copy)]
struct Column<'a> {
    panel: Panel<'a>,
    block: usize,
}

impl<'a> Column<'a> {
    /// What images `first` and following have in it.
    #[inline(always)]
    fn images<const R: usize>(&self, first: usize) -> [&'a [f32; LANES]; R] {
        let Panel { blocks, width } = self.panel;
        assert!((first + R) * width <= blocks.len() && self.block < width);
        let mut images = [&[0.0; LANES]; R];
        for r in 0..R {
            // SAFETY: the last of them is there, as asserted; one check for all.
            images[r] = unsafe { &blocks.get_unchecked((first + r) * width + self.block).0 };
        }
        images
    }
}

/// The column blocks of some panels, in order.
#[inline(always)]
fn columns<'a>(panels: impl Iterator<Item = Panel<'a>> + Clone) -> impl Iterator<Item = Column<'a>> + Clone {
    panels.flat_map(|panel| (0..panel.width).map(move |block| Column { panel, block }))
}

/// The blocks of columns that dense layers are worked on by: with enough registers, two.
#[inline(always)]
pub const fn tile_width(registers: usize) -> usize {
    if registers >= 32 { 2 } else { 1 }
}

/// `z = a W + b` for the slab's columns: z (B,W); `inputs` are the panels of a (B,I), from the first column on.
#[inline(always)]
pub fn forward<'a, S: Simd>(s: S, slab: &Slab, inputs: impl Iterator<Item = Panel<'a>> + Clone, z: &mut [Block]) {
    let (weights, biases) = slab.weights.split_at(slab.weights.len() - slab.width);
    for z in z.chunks_exact_mut(slab.width) {
        z.copy_from_slice(biases);
    }
    add_product(s, inputs, weights, slab.width, z, slab.width, 0);
}

/// `z += a W` for `width` blocks of columns of z (B,`stride`), from block `first` on: `inputs` are the panels of a (B,I),
/// `weights` is (I,`width`).
#[inline(always)]
fn add_product<'a, S: Simd>(
    s: S,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    weights: &[Block],
    width: usize,
    z: &mut [Block],
    stride: usize,
    first: usize,
) {
    // As many images to a tile as give sums enough to keep the processor busy, and no more than fit into its registers.
    let inputs = columns(inputs);
    match (S::REGISTERS, width) {
        (32.., 2) => add_product_by::<S, 2, 12>(s, inputs, weights, z, stride, first),
        (32.., _) => add_product_by::<S, 1, 12>(s, inputs, weights, z, stride, first),
        (8.., _) => add_product_by::<S, 1, 6>(s, inputs, weights, z, stride, first),
        (_, _) => add_product_by::<S, 1, 3>(s, inputs, weights, z, stride, first),
    }
}

/// By [`INPUT_BLOCKS`] of the inputs; of these, by tiles of `R` images: their sums for `W` blocks of columns are in
/// registers, and each input adds `R` times `W` products, from `R` numbers of a and `W` blocks of the weights.
#[inline(always)]
fn add_product_by<'a, S: Simd, const W: usize, const R: usize>(
    s: S,
    mut inputs: impl Iterator<Item = Column<'a>>,
    weights: &[Block],
    z: &mut [Block],
    stride: usize,
    first: usize,
) {
    let images = z.len() / stride;
    for weights in weights.as_chunks::<W>().0.chunks(INPUT_BLOCKS * LANES) {
        let mut some = [Column { panel: Panel { blocks: &[], width: 0 }, block: 0 }; INPUT_BLOCKS];
        let some = &mut some[..weights.len() / LANES];
        some.iter_mut().for_each(|column| *column = inputs.next().expect("a column of a for each row of the weights"));
        let tiled = images / R * R;
        for image in (0..tiled).step_by(R) {
            add_tile::<S, W, R>(s, some, weights, image, z, stride, first);
        }
        for image in tiled..images {
            add_tile::<S, W, 1>(s, some, weights, image, z, stride, first);
        }
    }
}

#[inline(always)]
fn add_tile<S: Simd, const W: usize, const R: usize>(
    s: S,
    inputs: &[Column],
    weights: &[[Block; W]],
    image: usize,
    z: &mut [Block],
    stride: usize,
    first: usize,
) {
    let mut sums = [[s.splat(0.0); W]; R];
    for r in 0..R {
        let z = &z[(image + r) * stride + first..][..W];
        for j in 0..W {
            sums[r][j] = s.load(&z[j]);
        }
    }
    for (column, weights) in inputs.iter().zip(weights.as_chunks::<LANES>().0) {
        let a = column.images::<R>(image);
        for lane in 0..LANES {
            let mut w = [s.splat(0.0); W];
            for j in 0..W {
                w[j] = s.load(&weights[lane][j]);
            }
            for r in 0..R {
                let x = s.splat(a[r][lane]);
                for j in 0..W {
                    sums[r][j] = s.mul_add(x, w[j], sums[r][j]);
                }
            }
        }
    }
    for r in 0..R {
        let z = &mut z[(image + r) * stride + first..][..W];
        for j in 0..W {
            s.store(sums[r][j], &mut z[j]);
        }
    }
}

/// The gradient of the activations before the layer, for some columns of them, cut where they were:
/// `d_in = (d W^T) scale` where `a > 0`; d_in and a are (B,W) from column `first` of the layer's inputs on.
///
/// `outputs` are the layer's slabs, each with its panel of d (B,O). `room` is for some columns of `W^T`.
#[inline(always)]
pub fn input_gradient<'a, S: Simd>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    first: usize,
    a: Panel,
    scale: f32,
    room: &mut Vec<Block>,
    d_in: &mut [Block],
) {
    if d_in.len() / a.width < MANY_IMAGES {
        for (image, d_in) in d_in.chunks_exact_mut(a.width).enumerate() {
            image_gradient(s, outputs.clone(), first, image, d_in);
        }
    } else {
        d_in.fill(Block::ZERO);
        let tile_width = tile_width(S::REGISTERS);
        for block in (0..a.width).step_by(tile_width) {
            let width = tile_width.min(a.width - block);
            room.clear();
            for (slab, _) in outputs.clone() {
                turn_round(slab, first + block * LANES, width, room);
            }
            add_product(s, outputs.clone().map(|(_, panel)| panel), room, width, d_in, a.width, block);
        }
    }
    for (a, d_in) in a.blocks.iter().zip(d_in) {
        let d = s.mul(s.load(d_in), s.splat(scale));
        s.store(s.where_positive(s.load(a), d), d_in);
    }
}

/// Appends to `turned` (O,`width`) the weights of the slab's outputs from input `first` on.
#[inline(always)]
fn turn_round(slab: &Slab, first: usize, width: usize, turned: &mut Vec<Block>) {
    for column in 0..slab.width {
        let begin = turned.len();
        turned.resize(begin + LANES * width, Block::ZERO);
        let turned = &mut turned[begin..];
        for block in 0..width {
            for i in 0..LANES {
                let weights = &slab.weights[(first + block * LANES + i) * slab.width + column];
                for o in 0..LANES {
                    turned[o * width + block].0[i] = weights.0[o];
                }
            }
        }
    }
}

/// One image's row of `d W^T`, for few images: each weight is used where it lies.
#[inline(always)]
fn image_gradient<'a, S: Simd>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    first: usize,
    image: usize,
    d_in: &mut [Block],
) {
    const AT_A_TIME: usize = 4;
    for (block, d_in) in d_in.iter_mut().enumerate() {
        for (n, d_in) in d_in.0.as_chunks_mut::<AT_A_TIME>().0.iter_mut().enumerate() {
            let first = first + block * LANES + n * AT_A_TIME;
            let mut sums = [s.splat(0.0); AT_A_TIME];
            for (slab, d) in outputs.clone() {
                let d = &d.blocks[image * d.width..][..d.width];
                for i in 0..AT_A_TIME {
                    for (d, w) in d.iter().zip(&slab.weights[(first + i) * slab.width..]) {
                        sums[i] = s.mul_add(s.load(d), s.load(w), sums[i]);
                    }
                }
            }
            for i in 0..AT_A_TIME {
                d_in[i] = s.sum(sums[i]);
            }
        }
    }
}

/// The gradient `a^T d` of the slab's weights over some images, added to those `before` in `gradient`, and with the last of
/// them the update by `rule`; `inputs` as for [`forward`].
#[inline(always)]
pub fn update<'a, S: Simd>(
    s: S,
    slab: &mut Slab,
    inputs: impl Iterator<Item = Panel<'a>> + Clone,
    d: &[Block],
    before: bool,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let inputs = columns(inputs);
    match (S::REGISTERS, slab.width) {
        (32.., 2) => update_by::<S, 2, 8, 8>(s, slab, inputs, d, before, rule, gradient),
        (32.., _) => update_by::<S, 1, 8, 8>(s, slab, inputs, d, before, rule, gradient),
        (8.., _) => update_by::<S, 1, 6, 4>(s, slab, inputs, d, before, rule, gradient),
        (_, _) => update_by::<S, 1, 2, 2>(s, slab, inputs, d, before, rule, gradient),
    }
}

/// By [`IMAGES_PER_SUM`]; of these, by tiles of `R` inputs (and a last one of `L`, which make 16), whose sums for the slab's
/// columns are in registers.
#[inline(always)]
fn update_by<'a, S: Simd, const W: usize, const R: usize, const L: usize>(
    s: S,
    slab: &mut Slab,
    inputs: impl Iterator<Item = Column<'a>> + Clone,
    d: &[Block],
    before: bool,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let d = d.as_chunks::<W>().0;
    let (biases, weights) = gradient.as_chunks_mut::<W>().0[..slab.rows()].split_last_mut().expect("a row of biases");
    if !before {
        *biases = [Block::ZERO; W];
    }
    for (n, (column, gradient)) in inputs.zip(weights.chunks_exact_mut(LANES)).enumerate() {
        if !before {
            gradient.fill([Block::ZERO; W]);
        }
        for (part, d) in d.chunks(IMAGES_PER_SUM).enumerate() {
            for lane in (0..LANES - L).step_by(R) {
                gradient_tile::<S, W, R>(s, column, part * IMAGES_PER_SUM, lane, d, gradient);
            }
            gradient_tile::<S, W, L>(s, column, part * IMAGES_PER_SUM, LANES - L, d, gradient);
        }
        if let Some(rule) = rule {
            slab.update(s, rule, n * LANES..(n + 1) * LANES, gradient.as_flattened());
        }
    }
    for d in d {
        add(s, biases, d);
    }
    if let Some(rule) = rule {
        slab.update(s, rule, slab.rows() - 1..slab.rows(), biases);
    }
}

/// Adds to the gradient of `R` inputs, from `lane` of `column` on, what images `first` and following give.
#[inline(always)]
fn gradient_tile<S: Simd, const W: usize, const R: usize>(
    s: S,
    column: Column,
    first: usize,
    lane: usize,
    d: &[[Block; W]],
    gradient: &mut [[Block; W]],
) {
    let gradient = &mut gradient[lane..lane + R];
    let mut sums = [[s.splat(0.0); W]; R];
    for r in 0..R {
        for j in 0..W {
            sums[r][j] = s.load(&gradient[r][j]);
        }
    }
    let rows = column.panel.blocks[first * column.panel.width + column.block..].iter().step_by(column.panel.width);
    for (a, d) in rows.zip(d) {
        let a = &a.0[lane..lane + R];
        for r in 0..R {
            let x = s.splat(a[r]);
            for j in 0..W {
                sums[r][j] = s.mul_add(x, s.load(&d[j]), sums[r][j]);
            }
        }
    }
    for r in 0..R {
        for j in 0..W {
            s.store(sums[r][j], &mut gradient[r][j]);
        }
    }
}
