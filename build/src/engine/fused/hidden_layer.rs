//! A hidden layer after the first: dense products, in tiles of sums that stay in registers.
//!
//! The matrices lie in slabs of a few columns, which is the order that a library for matrix products would first copy them
//! into. Each sum runs over its terms one by one, so that no bit depends on how the work is divided.

#![expect(unsafe_code, reason = "one check of bounds for a tile instead of one for each of its rows")]

use std::ops::Range;

use super::net::Slab;
use crate::optim::vectors::StepRule;
use crate::simd::{Block, LANES, Simd, add};

/// Column blocks of a matrix that all products are made with before the next: what they take of [`IMAGES_AT_A_TIME`] stays
/// in the second-level cache while all slabs come by, and the weights they meet, 16 KB of a slab, in the first-level cache
/// while all images do.
const CHUNK: usize = 16;
/// Images that all products of a layer are made with before the next.
pub const IMAGES_AT_A_TIME: usize = 256;
/// Images whose part of a gradient is summed before the next: a block of a and one of d stay in the first-level cache.
const IMAGES_PER_SUM: usize = 128;
/// From so many images on, turning the weights round pays off on the way back.
pub const MANY_IMAGES: usize = 8;

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

/// Some column blocks of a matrix (B,I).
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Column blocks before it.
    begin: usize,
    columns: [Column<'a>; CHUNK],
    count: usize,
}

impl<'a> Chunk<'a> {
    #[inline(always)]
    fn columns(&self) -> &[Column<'a>] {
        &self.columns[..self.count]
    }

    /// The column blocks of it, counted from the first of the matrix.
    pub fn blocks(&self) -> Range<usize> {
        self.begin..self.begin + self.count
    }
}

/// A matrix, given as its panels, by [`CHUNK`].
#[inline(always)]
pub fn chunks<'a>(panels: impl Iterator<Item = Panel<'a>>) -> impl Iterator<Item = Chunk<'a>> {
    let mut columns = panels.flat_map(|panel| (0..panel.width).map(move |block| Column { panel, block }));
    let mut begin = 0;
    std::iter::from_fn(move || {
        let mut chunk = [Column { panel: Panel { blocks: &[], width: 0 }, block: 0 }; CHUNK];
        let count = chunk.iter_mut().zip(&mut columns).map(|(place, column)| *place = column).count();
        let chunk = Chunk { begin, columns: chunk, count };
        begin += count;
        (count > 0).then_some(chunk)
    })
}

/// The blocks of columns that dense layers are worked on by: with enough registers, two.
#[inline(always)]
pub const fn tile_width(registers: usize) -> usize {
    if registers >= 32 { 2 } else { 1 }
}

/// `z = a W + b` for the slab's columns, as far as `inputs`, the next chunk of a (B,I), add to it: z (B,W).
#[inline(always)]
pub fn forward<S: Simd>(s: S, slab: &Slab, inputs: &Chunk, z: &mut [Block]) {
    let width = slab.width;
    if inputs.begin == 0 {
        let biases = &slab.weights[slab.weights.len() - width..];
        for z in z.chunks_exact_mut(width) {
            z.copy_from_slice(biases);
        }
    }
    let Range { start, end } = inputs.blocks();
    add_product(s, inputs, &slab.weights[start * LANES * width..end * LANES * width], width, z, width, 0);
}

/// `z += a W` for `width` blocks of columns of z (B,`stride`), from block `first` on: `inputs` are some columns of a, and
/// `weights` (those,`width`).
#[inline(always)]
fn add_product<S: Simd>(
    s: S,
    inputs: &Chunk,
    weights: &[Block],
    width: usize,
    z: &mut [Block],
    stride: usize,
    first: usize,
) {
    // As many images to a tile as give sums enough to keep the processor busy, and no more than fit into its registers.
    let inputs = inputs.columns();
    match (S::REGISTERS, width) {
        (32.., 2) => add_product_by::<S, 2, 12>(s, inputs, weights, z, stride, first),
        (32.., _) => add_product_by::<S, 1, 12>(s, inputs, weights, z, stride, first),
        (8.., _) => add_product_by::<S, 1, 6>(s, inputs, weights, z, stride, first),
        (_, _) => add_product_by::<S, 1, 3>(s, inputs, weights, z, stride, first),
    }
}

/// By tiles of `R` images: their sums for `W` blocks of columns are in registers, and each input adds `R` times `W`
/// products, from `R` numbers of a and `W` blocks of the weights.
#[inline(always)]
fn add_product_by<S: Simd, const W: usize, const R: usize>(
    s: S,
    inputs: &[Column],
    weights: &[Block],
    z: &mut [Block],
    stride: usize,
    first: usize,
) {
    let images = z.len() / stride;
    let weights = weights.as_chunks::<W>().0;
    let tiled = images / R * R;
    for image in (0..tiled).step_by(R) {
        add_tile::<S, W, R>(s, inputs, weights, image, z, stride, first);
    }
    for image in tiled..images {
        add_tile::<S, W, 1>(s, inputs, weights, image, z, stride, first);
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

/// The gradient `d_in = d W^T` of what goes into the layer, for some columns of it, as far as `d`, the next chunk of d
/// (B,O), adds to it: d_in is (B,`width`) from column `first` of the layer's inputs on.
///
/// `weights` gives a column block of the layer's outputs: its slab, and which of the slab's it is. `room` is for some rows
/// of `W^T`.
#[inline(always)]
pub fn input_gradient<'a, S: Simd>(
    s: S,
    d: &Chunk,
    weights: impl Fn(usize) -> (&'a Slab, usize),
    first: usize,
    width: usize,
    room: &mut Vec<Block>,
    d_in: &mut [Block],
) {
    if d.begin == 0 {
        d_in.fill(Block::ZERO);
    }
    let tile_width = tile_width(S::REGISTERS);
    for block in (0..width).step_by(tile_width) {
        let tile_width = tile_width.min(width - block);
        room.clear();
        for output in d.blocks() {
            let (slab, column) = weights(output);
            turn_round(slab, column, first + block * LANES, tile_width, room);
        }
        add_product(s, d, room, tile_width, d_in, width, block);
    }
}

/// Appends to `turned` (O,`width`) the weights of a column block of the slab's outputs from input `first` on.
#[inline(always)]
fn turn_round(slab: &Slab, column: usize, first: usize, width: usize, turned: &mut Vec<Block>) {
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

/// What [`input_gradient`] gives of all chunks, for few images: each weight is used where it lies. `outputs` are the
/// layer's slabs, each with its panel of d.
#[inline(always)]
pub fn input_gradient_of_few<'a, S: Simd>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    first: usize,
    width: usize,
    d_in: &mut [Block],
) {
    const AT_A_TIME: usize = 4;
    for (image, d_in) in d_in.chunks_exact_mut(width).enumerate() {
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
}

/// Cuts the gradient of activations `a` where they were cut, in place: `d scale` where `a > 0`.
#[inline(always)]
pub fn cut<S: Simd>(s: S, a: &[Block], scale: f32, d: &mut [Block]) {
    for (a, d) in a.iter().zip(d) {
        let scaled = s.mul(s.load(d), s.splat(scale));
        s.store(s.where_positive(s.load(a), scaled), d);
    }
}

/// The gradient `a^T d` of some rows of the slab's weights over some images, added to those `before` in `gradient` (all
/// rows), and with the last of them the update by `rule`; `inputs` as for [`forward`].
#[inline(always)]
pub fn update<S: Simd>(
    s: S,
    slab: &mut Slab,
    inputs: &Chunk,
    d: &[Block],
    before: bool,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
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
fn update_by<S: Simd, const W: usize, const R: usize, const L: usize>(
    s: S,
    slab: &mut Slab,
    inputs: &Chunk,
    d: &[Block],
    before: bool,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let (d, gradient) = (d.as_chunks::<W>().0, gradient.as_chunks_mut::<W>().0);
    for (&column, block) in inputs.columns().iter().zip(inputs.blocks()) {
        let rows = block * LANES..(block + 1) * LANES;
        let gradient = &mut gradient[rows.clone()];
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
            slab.update(s, rule, rows, gradient.as_flattened());
        }
    }
}

/// As [`update`], for the slab's biases, the last of the rows.
#[inline(always)]
pub fn update_biases<S: Simd>(
    s: S,
    slab: &mut Slab,
    d: &[Block],
    before: bool,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let rows = slab.rows() - 1..slab.rows();
    let gradient = &mut gradient[rows.start * slab.width..rows.end * slab.width];
    if !before {
        gradient.fill(Block::ZERO);
    }
    for d in d.chunks_exact(slab.width) {
        add(s, gradient, d);
    }
    if let Some(rule) = rule {
        slab.update(s, rule, rows, gradient);
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
