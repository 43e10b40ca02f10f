//! The layers' products in bf16, for large and wide networks: a parameter of its own, since it rounds more.
//!
//! What passes between layers, activations and their gradients, is rounded to bf16. So are the weights, as they go into a
//! product. Weights, sums, the optimizer and the output layer stay float32. Pixels are exact: whole numbers up to 255, divided
//! after the product. All pixels take part, since a unit for tiles has no use for zeros.
//!
//! ```text
//! z = x W / 255 + b,  z = a W + b                  left tiles: rows of x or a       right tiles: rows of W
//! d_in = d W^T                                     left tiles: rows of d            right tiles: W, transposed
//! gradient = x^T d / 255,  gradient = a^T d        left tiles: x or a, transposed   right tiles: rows of d
//! ```
//!
//! Tiles of a, d and x are made once in a step, those of weights for each product: the next step has others.
//!
//! Source: Micikevicius and others: Mixed Precision Training, 2018; Kalamkar and others: A Study of BFLOAT16 for Deep Learning
//! Training, 2019.

use std::ops::Range;

use super::access::{Access, LayerAccess};
use super::first_layer;
use super::nonzero::NonzeroPixels;
use super::panel::{PanelBuffer, PanelTiles};
use super::weights::{Columns, Slab, WIDEST};
use crate::interrupt;
use crate::model::MlpShape;
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::StepRule;
use crate::simd::tile::{DEPTH, ROWS, Term, Tile, Tiles};
use crate::simd::{Block, LANES, Simd};

/// What a thread multiplies tiles with.
pub struct TileMultiplier<'a> {
    /// The right to.
    pub tiles: &'a Tiles,
    /// The batch's pixels.
    pub pixels: &'a mut PixelTiles,
    /// Scratch memory for weights.
    pub weights: &'a mut Vec<Tile>,
}

/// The pixels of a batch in bf16: whole numbers.
#[derive(Debug, Default)]
pub struct PixelTiles {
    /// 16 images and 32 pixels each: (B / 16, `depth`).
    rows: Vec<Tile>,
    /// The transpose, 16 pixels and 32 images each: (D / 16, `groups`).
    columns: Vec<Tile>,
    depth: usize,
    groups: usize,
}

impl PixelTiles {
    /// Memory for `images` images of `d` pixels.
    pub fn new(images: usize, d: usize) -> Self {
        let (depth, groups) = (d.div_ceil(DEPTH), images.div_ceil(DEPTH));
        let tiles = 2 * groups * depth;
        Self { rows: vec![Tile::ZERO; tiles], columns: vec![Tile::ZERO; tiles], depth, groups }
    }

    /// Takes the pixels of `images`.
    pub fn fill(&mut self, nonzero: &NonzeroPixels, images: &[u32]) {
        self.rows.fill(Tile::ZERO);
        self.columns.fill(Tile::ZERO);
        for (n, &image) in images.iter().enumerate() {
            nonzero.each(image as usize, |pixel, value| {
                let bits = f32::from(value).to_bits() >> 16;
                let (row, half) = (n / LANES * self.depth + pixel / DEPTH, pixel % DEPTH / LANES);
                self.rows[row].0[n % LANES][pixel % LANES] |= bits << (16 * half);
                let (column, half) = (pixel / LANES * self.groups + n / DEPTH, n % DEPTH / LANES);
                self.columns[column].0[pixel % LANES][n % LANES] |= bits << (16 * half);
            });
        }
    }
}

/// Bytes that a thread has for itself, for batches of `images` images.
pub fn memory(images: usize, shape: &MlpShape) -> usize {
    let pixels = 4 * shape.inputs().div_ceil(DEPTH) * images.div_ceil(DEPTH);
    let weights = shape.widths().iter().max().map_or(0, |inputs| inputs.div_ceil(DEPTH) * WIDEST);
    (pixels + weights) * size_of::<Tile>()
}

/// Adds `left right` to `sums`, [`ROWS`] rows of `stride` blocks each, in one or two of their columns from `first` on. `left`
/// and `right` give the tiles of step k.
#[inline(always)]
fn multiply<'a, S: Simd>(
    s: S,
    tiles: &Tiles,
    depth: usize,
    left: impl Fn(usize) -> [&'a Tile; 2],
    right: impl Fn(usize, usize) -> &'a Tile,
    sums: &mut [Block],
    (first, stride): (usize, usize),
) {
    if stride - first == 1 {
        let terms: Vec<_> = (0..depth).map(|k| Term { left: left(k), right: [right(k, first)] }).collect();
        tiles.multiply(s, &terms, &mut sums[first..], stride);
    } else {
        let right = |k| [right(k, first), right(k, first + 1)];
        let terms: Vec<_> = (0..depth).map(|k| Term { left: left(k), right: right(k) }).collect();
        tiles.multiply(s, &terms, &mut sums[first..], stride);
    }
}

/// The panels' pairs of blocks, in the order of the matrix's columns: the panel and the number of its pair.
#[inline(always)]
fn pairs<'a>(panels: impl Iterator<Item = &'a PanelBuffer>) -> Vec<(&'a PanelTiles, usize)> {
    panels.map(PanelBuffer::tiles).flat_map(|tiles| (0..tiles.pairs()).map(move |pair| (tiles, pair))).collect()
}

/// The activations of the first layer before ReLU and dropout: z (B,W) of slab `slab`.
#[inline(always)]
pub fn first_layer<S: Simd>(s: S, slab: &Slab, multiplier: &mut TileMultiplier, images: usize, z: &mut PanelBuffer) {
    let TileMultiplier { tiles, pixels, weights } = multiplier;
    let (width, depth, d) = (slab.width, pixels.depth, slab.rows() - 1);
    weights.clear();
    for k in 0..depth {
        pack_rows(s, slab, k * DEPTH..d.min((k + 1) * DEPTH), weights);
    }
    let z = z.rows_mut(0..images.next_multiple_of(ROWS));
    z.fill(Block::ZERO);
    for (group, z) in z.chunks_exact_mut(ROWS * width).enumerate() {
        if interrupt::is_received() {
            return;
        }
        let left = |k| [0, 1].map(|half| &pixels.rows[(2 * group + half) * depth + k]);
        for first in (0..width).step_by(2) {
            multiply(s, tiles, depth, left, |k, c| &weights[k * width + c], z, (first, width));
        }
    }
    let biases = &slab.weights[d * width..];
    for z in z.chunks_exact_mut(width) {
        for (z, b) in z.iter_mut().zip(biases) {
            s.store(s.mul_add(s.load(z), s.splat(1.0 / 255.0), s.load(b)), z);
        }
    }
}

/// `z = a W + b` for a part of the images and the slab's columns; `inputs` are [`pairs`] of a.
#[inline(always)]
fn dense_layer<S: Simd>(
    s: S,
    slab: &Slab,
    inputs: &[(&PanelTiles, usize)],
    multiplier: &mut TileMultiplier,
    part: &Range<usize>,
    z: &mut PanelBuffer,
) {
    let TileMultiplier { tiles, weights, .. } = multiplier;
    let width = slab.width;
    weights.clear();
    let mut first = 0;
    for &(input, pair) in inputs {
        let rows = input.blocks(pair).len() * LANES;
        pack_rows(s, slab, first..first + rows, weights);
        first += rows;
    }
    let z = z.rows_mut(part.start..part.end.next_multiple_of(ROWS));
    for z in z.chunks_exact_mut(width) {
        z.copy_from_slice(&slab.weights[slab.weights.len() - width..]);
    }
    for (n, z) in z.chunks_exact_mut(ROWS * width).enumerate() {
        let left = |k: usize| inputs[k].0.rows(part.start / ROWS + n, inputs[k].1);
        multiply(s, tiles, inputs.len(), left, |k, c| &weights[k * width + c], z, (0, width));
    }
}

/// Appends the right tiles of some rows of the slab's weights, at most [`DEPTH`]; those after them are zero.
#[inline(always)]
fn pack_rows<S: Simd>(s: S, slab: &Slab, rows: Range<usize>, tiles: &mut Vec<Tile>) {
    let begin = tiles.len();
    tiles.resize(begin + slab.width, Tile::ZERO);
    for m in 0..LANES {
        let [low, high] = [0, LANES].map(|half| rows.start + half + m).map(|row| {
            let is_inside = row < rows.end;
            if is_inside {
                &slab.weights[row * slab.width..][..slab.width]
            } else {
                &[Block::ZERO; WIDEST][..slab.width]
            }
        });
        for c in 0..slab.width {
            tiles[begin + c].set_row(s, m, &low[c], &high[c]);
        }
    }
}

/// A dense layer before ReLU and dropout, for a part of the images.
#[inline(always)]
pub fn forward<S: Simd>(
    s: S,
    before: &LayerAccess,
    layer: &mut LayerAccess,
    part: &Range<usize>,
    multiplier: &mut TileMultiplier,
) {
    let inputs = pairs((0..before.layout.slabs.len()).map(|q| before.activations.get(q)));
    for q in layer.own.clone() {
        if interrupt::is_received() {
            return;
        }
        dense_layer(s, layer.weights.get(q), &inputs, multiplier, part, layer.activations.get_mut(q));
    }
}

/// Backward through a dense layer: the gradient of the activations before, `d_in = d W^T`, of a part of the images.
#[inline(always)]
pub fn input_gradient<S: Simd>(
    s: S,
    before: &mut LayerAccess,
    layer: &LayerAccess,
    part: &Range<usize>,
    multiplier: &mut TileMultiplier,
) {
    let TileMultiplier { tiles, weights, .. } = multiplier;
    let slabs = layer.layout.slabs.len();
    let outputs = pairs((0..slabs).map(|q| layer.gradients.get(q)));
    for q in before.own.clone() {
        if interrupt::is_received() {
            return;
        }
        let Columns { begin, width } = before.layout.slabs[q];
        weights.clear();
        // A slab of a dense layer is one pair of blocks.
        for output in 0..slabs {
            for column in 0..width {
                pack_transposed(s, layer.weights.get(output), (begin + column) * LANES, weights);
            }
        }
        let d_in = before.gradients.get_mut(q).rows_mut(part.start..part.end.next_multiple_of(ROWS));
        d_in.fill(Block::ZERO);
        for (n, d_in) in d_in.chunks_exact_mut(ROWS * width).enumerate() {
            let left = |k: usize| outputs[k].0.rows(part.start / ROWS + n, outputs[k].1);
            for first in (0..width).step_by(2) {
                multiply(s, tiles, slabs, left, |k, c| &weights[k * width + c], d_in, (first, width));
            }
        }
    }
}

/// Appends the right tile of `W^T` for the slab's columns, one or two blocks, and 16 inputs.
#[inline(always)]
fn pack_transposed<S: Simd>(s: S, slab: &Slab, first: usize, tiles: &mut Vec<Tile>) {
    let mut tile = Tile::ZERO;
    for i in 0..LANES {
        let row = &slab.weights[(first + i) * slab.width..][..slab.width];
        tile.set_row(s, i, &row[0], row.get(1).unwrap_or(&Block::ZERO));
    }
    tile.transpose(s);
    tiles.push(tile);
}

/// The gradient of the weights of hidden layer `l`, from 1, over `images` images, and their update.
#[inline(always)]
pub fn update<S: Simd>(s: S, access: &mut Access, l: usize, images: usize, tiles: &Tiles, rule: &StepRule) {
    let [before, mut layer] = access.pair(l);
    let inputs = pairs((0..before.layout.slabs.len()).map(|q| before.activations.get(q)));
    for q in layer.own.clone() {
        if interrupt::is_received() {
            return;
        }
        let (slab, d) = (layer.weights.get_mut(q), layer.gradients.get(q));
        let width = slab.width;
        let mut row = 0;
        for &(input, pair) in &inputs {
            let blocks = input.blocks(pair);
            let left = |group| [0, 1].map(|second| input.columns(group, blocks.start + second));
            let mut gradient = [Block::ZERO; ROWS * 2];
            let gradient = &mut gradient[..ROWS * width];
            let right = |group, c| d.tiles().columns(group, c);
            multiply(s, tiles, images.div_ceil(DEPTH), left, right, gradient, (0, width));
            let rows = row..row + blocks.len() * LANES;
            slab.update(s, rule, rows.clone(), &gradient[..rows.len() * width]);
            row = rows.end;
        }
        first_layer::update_biases(s, slab, d.rows(0..images).blocks, rule);
    }
}

/// The gradient of the first layer's weights over `images` images, and their update.
#[inline(always)]
pub fn update_first_layer<S: Simd>(
    s: S,
    access: &mut Access,
    images: usize,
    (tiles, pixels): (&Tiles, &PixelTiles),
    rule: &StepRule,
    lazy: &LazyUpdates,
) {
    let mut layer = access.layer(0);
    for q in layer.own.clone() {
        let (slab, d) = (layer.weights.get_mut(q), layer.gradients.get(q));
        let (width, inputs) = (slab.width, slab.rows() - 1);
        for first in (0..inputs).step_by(ROWS) {
            if interrupt::is_received() {
                return;
            }
            let left = |group| [0, 1].map(|half| &pixels.columns[(first / LANES + half) * pixels.groups + group]);
            let right = |group, c| d.tiles().columns(group, c);
            let mut gradient = [Block::ZERO; ROWS * WIDEST];
            let gradient = &mut gradient[..ROWS * width];
            for column in (0..width).step_by(2) {
                multiply(s, tiles, images.div_ceil(DEPTH), left, right, gradient, (column, width));
            }
            for g in &mut *gradient {
                s.store(s.mul(s.load(g), s.splat(1.0 / 255.0)), g);
            }
            let rows = first..inputs.min(first + ROWS);
            slab.update(s, rule, rows.clone(), &gradient[..rows.len() * width]);
        }
        slab.up_to.fill(lazy.steps() as u8 + 1);
        first_layer::update_biases(s, slab, d.rows(0..images).blocks, rule);
    }
}
