//! A hidden layer after the first: dense products, in tiles of sums that stay in registers.
//!
//! The matrices are stored in slabs of a few columns, the order that matrix libraries copy them into first. Each sum
//! adds its terms one by one, so that no bit depends on how the work is divided.

#![expect(unsafe_code, reason = "one bounds check for a tile instead of one for each of its rows")]

use std::ops::Range;

use super::panel::Panel;
use super::weights::{Columns, Slab, dense_width};
use crate::interrupt;
use crate::optim::vectors::StepRule;
use crate::simd::{Block, LANES, Simd, add};

/// Column blocks of a matrix in one pass. 16 keep their activations for [`DENSE_IMAGES`] images in the second-level
/// cache while every slab is visited, and 16 KB of a slab's weights in the first-level cache while every image is.
const CHUNK: usize = 16;
/// Images in one pass through a layer.
pub const DENSE_IMAGES: usize = 256;
/// Images whose part of a gradient is summed before the next: a block of a and one of d stay in the first-level cache.
const IMAGES_PER_SUM: usize = 128;
/// From so many images on, the backward pass transposes the weights: the faster products make up for it.
pub const MANY_IMAGES: usize = 8;

/// `images` in parts of [`DENSE_IMAGES`]; no more after a signal.
pub fn parts(images: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = (0..images).step_by(DENSE_IMAGES).map(move |begin| begin..(begin + DENSE_IMAGES).min(images));
    parts.take_while(|_| !interrupt::is_received())
}

/// A block of columns of a [`Panel`].
#[derive(Debug, Clone, Copy)]
struct Column<'a> {
    panel: Panel<'a>,
    block: usize,
}

impl<'a> Column<'a> {
    /// The rows of images `first` and following.
    #[inline(always)]
    fn images<const R: usize>(&self, first: usize) -> [&'a [f32; LANES]; R] {
        let Panel { blocks, width } = self.panel;
        assert!((first + R) * width <= blocks.len() && self.block < width);
        let mut images = [&[0.0; LANES]; R];
        for r in 0..R {
            // SAFETY: `r` is below `R`, and the row of image `first + R - 1` lies within the panel, as asserted.
            images[r] = unsafe { &blocks.get_unchecked((first + r) * width + self.block).0 };
        }
        images
    }
}

/// Some column blocks of a matrix (B,I).
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The number of column blocks before it.
    begin: usize,
    columns: [Column<'a>; CHUNK],
    count: usize,
}

impl<'a> Chunk<'a> {
    #[inline(always)]
    fn columns(&self) -> &[Column<'a>] {
        &self.columns[..self.count]
    }

    /// Its column blocks, counted from the first of the matrix.
    pub fn blocks(&self) -> Range<usize> {
        self.begin..self.begin + self.count
    }
}

/// A matrix, given as its panels, in pieces of [`CHUNK`] column blocks; no more after a signal.
#[inline(always)]
pub fn chunks<'a>(panels: impl Iterator<Item = Panel<'a>>) -> impl Iterator<Item = Chunk<'a>> {
    let mut columns = panels.flat_map(|panel| (0..panel.width).map(move |block| Column { panel, block }));
    let mut begin = 0;
    std::iter::from_fn(move || {
        let mut chunk = [Column { panel: Panel { blocks: &[], width: 0 }, block: 0 }; CHUNK];
        let count = chunk.iter_mut().zip(&mut columns).map(|(place, column)| *place = column).count();
        let chunk = Chunk { begin, columns: chunk, count };
        begin += count;
        (count > 0 && !interrupt::is_received()).then_some(chunk)
    })
}

/// Adds to z (B,W) the products of `inputs`, the next chunk of a (B,I). After the last chunk `z = a W + b`, for the
/// slab's columns.
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

/// `z += a W` for `width` blocks of columns of z (B,`stride`), from block `first` on. `inputs` are some columns of a,
/// and `weights` their rows, `width` blocks each.
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
    // As many images in a tile as the registers hold sums for.
    let inputs = inputs.columns();
    match (S::REGISTERS, width) {
        (32.., 2) => add_product_by::<S, 2, 12>(s, inputs, weights, z, stride, first),
        (32.., _) => add_product_by::<S, 1, 12>(s, inputs, weights, z, stride, first),
        // Slabs of a network that trains in bf16.
        (_, 2) => add_product_by::<S, 2, 3>(s, inputs, weights, z, stride, first),
        (8.., _) => add_product_by::<S, 1, 6>(s, inputs, weights, z, stride, first),
        (_, _) => add_product_by::<S, 1, 3>(s, inputs, weights, z, stride, first),
    }
}

/// In tiles of `R` images, whose sums for `W` blocks of columns are in registers. Each input adds `R` times `W`
/// products, of `R` numbers of a and `W` blocks of the weights.
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

/// Adds to d_in (B,W) the products of `d`, the next chunk of d (B,O). After the last chunk `d_in = d W^T`: the gradient
/// of the layer's inputs, for their `columns`.
///
/// `weights` gives, for a column block of the layer's outputs, its slab and its number in the slab. `scratch` is memory
/// for rows of `W^T`.
#[inline(always)]
pub fn input_gradient<'a, S: Simd>(
    s: S,
    d: &Chunk,
    weights: impl Fn(usize) -> (&'a Slab, usize),
    columns: Columns,
    scratch: &mut Vec<Block>,
    d_in: &mut [Block],
) {
    if d.begin == 0 {
        d_in.fill(Block::ZERO);
    }
    let Columns { begin, width } = columns;
    let tile_width = dense_width(S::REGISTERS);
    for block in (0..width).step_by(tile_width) {
        let tile_width = tile_width.min(width - block);
        scratch.clear();
        for output in d.blocks() {
            let (slab, column) = weights(output);
            transpose(slab, column, (begin + block) * LANES, tile_width, scratch);
        }
        add_product(s, d, scratch, tile_width, d_in, width, block);
    }
}

/// Appends to `transposed` (O,`width`) the weights of a column block of the slab's outputs, from input `first` on.
#[inline(always)]
fn transpose(slab: &Slab, column: usize, first: usize, width: usize, transposed: &mut Vec<Block>) {
    let begin = transposed.len();
    transposed.resize(begin + LANES * width, Block::ZERO);
    let transposed = &mut transposed[begin..];
    for block in 0..width {
        for i in 0..LANES {
            let weights = &slab.weights[(first + block * LANES + i) * slab.width + column];
            for o in 0..LANES {
                transposed[o * width + block].0[i] = weights.0[o];
            }
        }
    }
}

/// The same gradient as [`input_gradient`] over all chunks, for few images: the weights are read where they are.
/// `outputs` are the layer's slabs, each with its panel of d.
#[inline(always)]
pub fn input_gradient_of_few<'a, S: Simd>(
    s: S,
    outputs: impl Iterator<Item = (&'a Slab, Panel<'a>)> + Clone,
    columns: Columns,
    d_in: &mut [Block],
) {
    const AT_A_TIME: usize = 4;
    for (image, d_in) in d_in.chunks_exact_mut(columns.width).enumerate() {
        for (block, d_in) in d_in.iter_mut().enumerate() {
            for (n, d_in) in d_in.0.as_chunks_mut::<AT_A_TIME>().0.iter_mut().enumerate() {
                let first = (columns.begin + block) * LANES + n * AT_A_TIME;
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

/// Backward through ReLU and dropout, in place: `d scale` where `a > 0`, else 0.
#[inline(always)]
pub fn relu_backward<S: Simd>(s: S, a: &[Block], scale: f32, d: &mut [Block]) {
    for (a, d) in a.iter().zip(d) {
        let scaled = s.mul(s.load(d), s.splat(scale));
        s.store(s.where_positive(s.load(a), scaled), d);
    }
}

/// The gradient of weights over some images of a batch.
pub struct PartialGradient<'a> {
    /// Whether these are the first images. Otherwise `gradient` holds the sum over those before.
    pub is_first: bool,
    /// The update that follows the last images.
    pub rule: Option<&'a StepRule>,
    /// All rows of a slab.
    pub gradient: &'a mut [Block],
}

impl PartialGradient<'_> {
    /// The same with the gradient from block `begin` on.
    #[inline(always)]
    pub fn at(&mut self, begin: usize) -> PartialGradient<'_> {
        PartialGradient { is_first: self.is_first, rule: self.rule, gradient: &mut self.gradient[begin..] }
    }
}

/// Adds to the `sum` of gradients that of some rows of the slab's weights over some images, `a^T d`. Then updates the
/// rows, if these are the last images. `inputs` are the next chunk of a.
#[inline(always)]
pub fn update<S: Simd>(s: S, slab: &mut Slab, inputs: &Chunk, d: &[Block], sum: PartialGradient) {
    match (S::REGISTERS, slab.width) {
        (32.., 2) => update_by::<S, 2, 8, 8>(s, slab, inputs, d, sum),
        (32.., _) => update_by::<S, 1, 8, 8>(s, slab, inputs, d, sum),
        (8.., _) => update_by::<S, 1, 6, 4>(s, slab, inputs, d, sum),
        (_, _) => update_by::<S, 1, 2, 2>(s, slab, inputs, d, sum),
    }
}

/// In parts of [`IMAGES_PER_SUM`] images, and tiles of `R` inputs whose sums for the slab's columns are in registers. A
/// last tile of `L` inputs completes the 16 of a block.
#[inline(always)]
fn update_by<S: Simd, const W: usize, const R: usize, const L: usize>(
    s: S,
    slab: &mut Slab,
    inputs: &Chunk,
    d: &[Block],
    sum: PartialGradient,
) {
    let PartialGradient { is_first, rule, gradient } = sum;
    let (d, gradient) = (d.as_chunks::<W>().0, gradient.as_chunks_mut::<W>().0);
    for (&column, block) in inputs.columns().iter().zip(inputs.blocks()) {
        let rows = block * LANES..(block + 1) * LANES;
        let gradient = &mut gradient[rows.clone()];
        if is_first {
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
pub fn update_biases<S: Simd>(s: S, slab: &mut Slab, d: &[Block], sum: PartialGradient) {
    let PartialGradient { is_first, rule, gradient } = sum;
    let rows = slab.rows() - 1..slab.rows();
    let gradient = &mut gradient[rows.start * slab.width..rows.end * slab.width];
    if is_first {
        gradient.fill(Block::ZERO);
    }
    for d in d.chunks_exact(slab.width) {
        add(s, gradient, d);
    }
    if let Some(rule) = rule {
        slab.update(s, rule, rows, gradient);
    }
}

/// Adds to the gradient of `R` inputs, from `lane` of `column` on, that of images `first` and following.
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
