//! The layers' products in bf16, for large and wide networks: a parameter of its own, since it rounds more.
//!
//! What passes between layers, activations and their gradients, is rounded to bf16. So are the weights, as they go into a
//! product. Weights, sums, the optimizer and the output layer stay float32. Pixels are exact: whole numbers up to 255, divided
//! after the product. Those that are zero in the whole batch are left out if it is small, else all take part.
//!
//! ```text
//! z = x W / 255 + b,  z = a W + b                  left tiles: rows of x or a       right tiles: rows of W
//! d_in = d W^T                                     left tiles: rows of d            right tiles: W, transposed
//! gradient = x^T d / 255,  gradient = a^T d        left tiles: x or a, transposed   right tiles: rows of d
//! ```
//!
//! Tiles of a, d and x are made once in a micro-batch, those of weights for each product.
//!
//! Source: Micikevicius and others: Mixed Precision Training, 2018; Kalamkar and others: A Study of BFLOAT16 for Deep Learning
//! Training, 2019.

use std::ops::Range;

use super::access::LayerAccess;
use super::gradient_sums::GradientSums;
use super::panel::{PanelBuffer, PanelTiles};
use super::pixel_tiles::{Left, PixelTiles};
use super::weights::{Columns, Slab, WIDEST};
use crate::interrupt;
use crate::model::MlpShape;
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::{BlockUpdate, StepRule};
use crate::simd::tile::{Bf16Tile, DEPTH, ROWS, Term, Tiles};
use crate::simd::{Block, LANES, Simd};

/// What a thread multiplies tiles with.
pub struct TileMultiplier<'a> {
    /// The right to.
    pub tiles: &'a Tiles,
    /// The micro-batch's pixels.
    pub pixels: &'a mut PixelTiles,
    /// Scratch memory for weights.
    pub weights: &'a mut Vec<Bf16Tile>,
}

/// Bytes that a thread has for itself, for micro-batches of `images` images.
pub fn memory(images: usize, shape: &MlpShape) -> usize {
    let weights = shape.widths().iter().max().map_or(0, |inputs| inputs.div_ceil(DEPTH) * WIDEST);
    PixelTiles::memory(images, shape.inputs()) + weights * size_of::<Bf16Tile>()
}

/// A product's terms, in memory that serves one product after the other.
struct Product<'a> {
    tiles: &'a Tiles,
    one: Vec<Term<'a, 1>>,
    two: Vec<Term<'a, 2>>,
}

impl<'a> Product<'a> {
    fn new(tiles: &'a Tiles) -> Self {
        Self { tiles, one: vec![], two: vec![] }
    }

    /// Adds to `sums`, [`ROWS`] rows of `width` blocks, the product of `left` and the tiles that `right` gives for a term and
    /// a column.
    #[inline(always)]
    fn add<S: Simd>(
        &mut self,
        s: S,
        left: &[[&'a Bf16Tile; 2]],
        right: impl Fn(usize, usize) -> &'a Bf16Tile,
        sums: &mut [Block],
        width: usize,
    ) {
        let left = || left.iter().copied().enumerate();
        for first in (0..width).step_by(2) {
            if first + 1 == width {
                self.one.clear();
                self.one.extend(left().map(|(k, left)| Term { left, right: [right(k, first)] }));
                self.tiles.multiply(s, &self.one, &mut sums[first..], width);
            } else {
                self.two.clear();
                self.two.extend(left().map(|(k, left)| Term { left, right: [right(k, first), right(k, first + 1)] }));
                self.tiles.multiply(s, &self.two, &mut sums[first..], width);
            }
        }
    }
}

/// Some panels, which are one matrix: the pairs of blocks of their columns.
fn pairs<'a>(panels: impl Iterator<Item = &'a PanelBuffer>) -> Vec<(&'a PanelTiles, usize)> {
    panels.map(PanelBuffer::tiles).flat_map(|tiles| (0..tiles.pairs()).map(move |pair| (tiles, pair))).collect()
}

/// Some images of the matrix, to be multiplied over its columns.
fn left_rows<'a>(pairs: &[(&'a PanelTiles, usize)], images: &Range<usize>) -> Left<'a> {
    let groups = images.start / ROWS..images.end.div_ceil(ROWS);
    groups.map(|group| pairs.iter().map(|(tiles, pair)| tiles.rows(group, *pair)).collect()).collect()
}

/// The transpose of the matrix, to be multiplied over `images` images.
fn left_columns<'a>(pairs: &[(&'a PanelTiles, usize)], images: usize) -> Left<'a> {
    let of_pair = |(tiles, pair): &(&'a PanelTiles, usize)| -> Vec<_> {
        let first = tiles.blocks(*pair).start;
        let groups = 0..images.div_ceil(DEPTH);
        groups.map(|group| [tiles.columns(group, first), tiles.columns(group, first + 1)]).collect()
    };
    pairs.iter().map(of_pair).collect()
}

/// The activations of the first layer before ReLU and dropout: z (B,W) of slab `slab`.
#[inline(always)]
pub fn first_layer<S: Simd>(s: S, slab: &Slab, multiplier: &mut TileMultiplier, images: usize, z: &mut PanelBuffer) {
    let TileMultiplier { tiles, pixels, weights } = multiplier;
    let (width, d) = (slab.width, slab.rows() - 1);
    weights.clear();
    for pixels in pixels.list().chunks(DEPTH) {
        pack_rows(s, slab, |row| pixels.get(row).map(|&pixel| pixel.into()), weights);
    }
    let z = z.rows_mut(0..images.next_multiple_of(ROWS));
    z.fill(Block::ZERO);
    let mut product = Product::new(tiles);
    for (left, z) in pixels.left_rows(images).iter().zip(z.chunks_exact_mut(ROWS * width)) {
        if interrupt::is_received() {
            return;
        }
        product.add(s, left, |k, c| &weights[k * width + c], z, width);
    }
    let biases = &slab.weights[d * width..];
    for z in z.chunks_exact_mut(width) {
        for (z, b) in z.iter_mut().zip(biases) {
            s.store(s.mul_add(s.load(z), s.splat(1.0 / 255.0), s.load(b)), z);
        }
    }
}

/// Appends the right tiles of [`DEPTH`] rows of the slab's weights, as `row` numbers them; zero where it gives none.
#[inline(always)]
fn pack_rows<S: Simd>(s: S, slab: &Slab, row: impl Fn(usize) -> Option<usize>, tiles: &mut Vec<Bf16Tile>) {
    const ZERO: [Block; WIDEST] = [Block::ZERO; WIDEST];
    let begin = tiles.len();
    tiles.resize(begin + slab.width, Bf16Tile::ZERO);
    for m in 0..LANES {
        let [low, high] = [m, LANES + m].map(|at| match row(at) {
            Some(row) => &slab.weights[row * slab.width..][..slab.width],
            None => &ZERO[..slab.width],
        });
        for c in 0..slab.width {
            tiles[begin + c].set_row(s, m, &low[c], &high[c]);
        }
    }
}

/// A dense layer before ReLU and dropout, `z = a W + b`, for a part of the images.
#[inline(always)]
pub fn forward<S: Simd>(
    s: S,
    before: &LayerAccess,
    layer: &mut LayerAccess,
    part: &Range<usize>,
    multiplier: &mut TileMultiplier,
) {
    let TileMultiplier { tiles, weights, .. } = multiplier;
    let inputs = pairs((0..before.layout.slabs.len()).map(|q| before.activations.get(q)));
    let lefts = left_rows(&inputs, part);
    for q in layer.own.clone() {
        if interrupt::is_received() {
            return;
        }
        let slab = layer.weights.get(q);
        let width = slab.width;
        weights.clear();
        let mut first = 0;
        for &(input, pair) in &inputs {
            let rows = input.blocks(pair).len() * LANES;
            pack_rows(s, slab, |row| (row < rows).then_some(first + row), weights);
            first += rows;
        }
        let z = layer.activations.get_mut(q).rows_mut(part.start..part.end.next_multiple_of(ROWS));
        let mut product = Product::new(tiles);
        for (left, z) in lefts.iter().zip(z.chunks_exact_mut(ROWS * width)) {
            for z in z.chunks_exact_mut(width) {
                z.copy_from_slice(&slab.weights[slab.weights.len() - width..]);
            }
            product.add(s, left, |k, c| &weights[k * width + c], z, width);
        }
    }
}

/// Backward through a dense layer: the gradient of the activations before, `d_in = d W^T`, of a part of the images.
#[inline(always)]
pub fn input_gradient<S: Simd>(
    s: S,
    before: &mut LayerAccess,
    layer: &LayerAccess,
    part: &Range<usize>,
    tiles: &Tiles,
    weights: &mut Vec<Bf16Tile>,
) {
    let slabs = layer.layout.slabs.len();
    let lefts = left_rows(&pairs((0..slabs).map(|q| layer.gradients.get(q))), part);
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
        let mut product = Product::new(tiles);
        for (left, d_in) in lefts.iter().zip(d_in.chunks_exact_mut(ROWS * width)) {
            product.add(s, left, |k, c| &weights[k * width + c], d_in, width);
        }
    }
}

/// Appends the right tile of `W^T` for the slab's columns, one or two blocks, and 16 inputs.
#[inline(always)]
fn pack_transposed<S: Simd>(s: S, slab: &Slab, first: usize, tiles: &mut Vec<Bf16Tile>) {
    let mut tile = Bf16Tile::ZERO;
    for i in 0..LANES {
        let row = &slab.weights[(first + i) * slab.width..][..slab.width];
        tile.set_row(s, i, &row[0], row.get(1).unwrap_or(&Block::ZERO));
    }
    tile.transpose(s);
    tiles.push(tile);
}

/// Adds to the gradient of a dense layer's weights, without the biases, that of the micro-batch, `a^T d` over `images` images.
/// The last micro-batch has the `rule` of the update.
#[inline(always)]
pub fn update<S: Simd>(
    s: S,
    before: &LayerAccess,
    layer: &mut LayerAccess,
    images: usize,
    tiles: &Tiles,
    rule: Option<&StepRule>,
    sums: &mut GradientSums,
) {
    let LayerAccess { own, weights, gradients, .. } = layer;
    let inputs = pairs((0..before.layout.slabs.len()).map(|q| before.activations.get(q)));
    let lefts = left_columns(&inputs, images);
    let mut product = Product::new(tiles);
    for q in own.clone() {
        if interrupt::is_received() {
            return;
        }
        let (slab, d) = (weights.get_mut(q), gradients.get(q));
        let width = slab.width;
        let mut first = 0;
        for ((input, pair), left) in inputs.iter().zip(&lefts) {
            let gradient = sums.next(ROWS * width);
            product.add(s, left, |group, c| d.tiles().columns(group, c), gradient, width);
            let rows = first..first + input.blocks(*pair).len() * LANES;
            if let Some(rule) = rule {
                slab.update(s, rule, rows.clone(), &gradient[..rows.len() * width]);
            }
            first = rows.end;
        }
    }
}

/// Adds to the gradient of the first layer's weights, without the biases, that of the micro-batch, over `images` images. The last
/// micro-batch has the `rule` of the update. Weights of pixels that take no part are left to the lazy update.
#[inline(always)]
pub fn update_first_layer<S: Simd>(
    s: S,
    layer: &mut LayerAccess,
    images: usize,
    (tiles, pixels): (&Tiles, &PixelTiles),
    rule: Option<&StepRule>,
    lazy: &LazyUpdates,
    sums: &mut GradientSums,
) {
    let LayerAccess { own, weights, gradients, .. } = layer;
    let lefts = pixels.left_columns(images);
    let mut product = Product::new(tiles);
    for q in own.clone() {
        let (slab, d) = (weights.get_mut(q), gradients.get(q));
        let width = slab.width;
        for (pixels, left) in pixels.list().chunks(ROWS).zip(&lefts) {
            if interrupt::is_received() {
                return;
            }
            let gradient = sums.next(ROWS * width);
            product.add(s, left, |group, c| d.tiles().columns(group, c), gradient, width);
            let Some(rule) = rule else { continue };
            for g in &mut *gradient {
                s.store(s.mul(s.load(g), s.splat(1.0 / 255.0)), g);
            }
            match rule.adam() {
                Some(adam) => update_rows(s, slab, pixels, gradient, &adam, lazy),
                None => update_rows(s, slab, pixels, gradient, rule, lazy),
            }
        }
    }
}

/// Updates the weights of `pixels` by their rows of the gradient.
#[inline(always)]
fn update_rows<S: Simd>(
    s: S,
    slab: &mut Slab,
    pixels: &[u16],
    gradient: &[Block],
    rule: &impl BlockUpdate,
    lazy: &LazyUpdates,
) {
    for (&pixel, gradient) in pixels.iter().zip(gradient.chunks_exact(slab.width)) {
        let pixel = usize::from(pixel);
        slab.update(s, rule, pixel..pixel + 1, gradient);
        slab.up_to[pixel] = lazy.steps() as u8 + 1;
    }
}
