//! A hidden layer after the first: products with the activations and gradients that are not zero.
//!
//! ReLU and dropout leave some half of a layer's activations or less, and of their gradients the same. Each of the three products
//! of a layer is a sum of rows, one for each number of the left matrix that is not zero; masks say which these are:
//!
//! | product | for each | sum of rows of | by the numbers of |
//! |---|---|---|---|
//! | `z = a W + b` | image | W | its row of a |
//! | `d_in = d W^T` | image | W^T | its row of d |
//! | `gradient = a^T d` | input | d | its column of a |
//!
//! 64 rows at a time are in the first-level cache. Each sum adds its terms one by one, so that no bit depends on how the work is
//! divided.

#![expect(unsafe_code, reason = "the innermost loop reads places that a mask is known to stay within")]

use std::ops::Range;

use super::access::LayerAccess;
use super::gradient_sums::GradientSums;
use super::micro_batch::in_ranges;
use super::panel::{MASK, Panel};
use super::weights::{Columns, Slab, TOGETHER, WIDEST, for_slabs};
use crate::interrupt;
use crate::optim::vectors::StepRule;
use crate::simd::{self, Block, LANES, Simd, load_row, numbers, store_row};

const _: () = assert!(WIDEST * LANES <= MASK);
/// Blocks of the transposed weights of a panel's outputs, for all slabs that are worked on together.
const TRANSPOSED: usize = TOGETHER * MASK * WIDEST;

/// Adds to the `sums`, W blocks in each of N slabs, the products of numbers and rows: for each bit k of `mask`, that of
/// `value(k)` and row k.
///
/// # Safety
/// `mask` has no bit beyond the rows of any slab.
#[inline(always)]
unsafe fn add_rows<S: Simd, const W: usize, const N: usize>(
    s: S,
    mut mask: u64,
    value: impl Fn(usize) -> f32,
    rows: [&[[Block; W]]; N],
    sums: &mut [[S::F; W]; N],
) {
    while mask != 0 {
        let k = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        let x = s.splat(value(k));
        for n in 0..N {
            // SAFETY: the mask has bit k, and no bit beyond the rows, as the caller promises.
            let row = unsafe { rows[n].get_unchecked(k) };
            for j in 0..W {
                sums[n][j] = s.mul_add(x, s.load(&row[j]), sums[n][j]);
            }
        }
    }
}

/// The bits of a mask for the rows of every slab.
#[inline(always)]
fn inside<const W: usize, const N: usize>(rows: [&[[Block; W]]; N]) -> u64 {
    let count = rows.iter().map(|rows| rows.len()).min().unwrap_or(0).min(MASK);
    u64::MAX.checked_shr((MASK - count) as u32).unwrap_or(0)
}

/// `z += a W` for N slabs, W blocks of columns each. `left` is a panel of a, and `rows` are those of W for its columns.
#[inline(always)]
fn add_product<S: Simd, const W: usize, const N: usize>(
    s: S,
    left: Panel,
    rows: [&[[Block; W]]; N],
    z: [&mut [[Block; W]]; N],
) {
    let inside = inside(rows) & (u64::MAX >> (MASK - left.width * LANES));
    for (image, (a, mask)) in left.blocks.chunks_exact(left.width).zip(left.masks).enumerate() {
        let a = numbers(a);
        let mut sums = [[s.splat(0.0); W]; N];
        for n in 0..N {
            sums[n] = load_row(s, &z[n][image]);
        }
        // SAFETY: the mask is for rows that are there, and for numbers of the panel's row.
        unsafe { add_rows(s, mask & inside, |k| *a.get_unchecked(k), rows, &mut sums) };
        for n in 0..N {
            store_row(s, sums[n], &mut z[n][image]);
        }
    }
}

/// A dense layer before ReLU and dropout, `z = a W + b`, for a part of the images.
#[inline(always)]
pub fn forward<S: Simd>(s: S, before: &LayerAccess, layer: &mut LayerAccess, part: &Range<usize>) {
    for q in layer.own.clone() {
        let slab = layer.weights.get(q);
        let biases = &slab.weights[slab.weights.len() - slab.width..];
        for z in layer.activations.get_mut(q).rows_mut(part.clone()).chunks_exact_mut(slab.width) {
            z.copy_from_slice(biases);
        }
    }
    for (a, inputs) in before.activations.panels(part).zip(&before.layout.slabs) {
        if interrupt::is_received() {
            return;
        }
        for slabs in layer.layout.together::<S>(layer.own.clone()) {
            for_slabs!(layer.layout, slabs, forward_by::<S>(s, a, *inputs, layer, slabs.start, part));
        }
    }
}

/// The products of one panel and N slabs from number `first` on.
#[inline(always)]
fn forward_by<S: Simd, const W: usize, const N: usize>(
    s: S,
    a: Panel,
    inputs: Columns,
    layer: &mut LayerAccess,
    first: usize,
    part: &Range<usize>,
) {
    let rows = inputs.begin * LANES..(inputs.begin + inputs.width) * LANES;
    let weights = std::array::from_fn(|n| &layer.weights.get(first + n).weights.as_chunks::<W>().0[rows.clone()]);
    let z = layer.activations.several_mut(first).map(|z| z.rows_mut(part.clone()).as_chunks_mut::<W>().0);
    add_product::<S, W, N>(s, a, weights, z);
}

/// Backward through a dense layer: the gradient of the activations before, `d_in = d W^T`, for a part of the images.
///
/// `transposed` is scratch memory for rows of `W^T`.
#[inline(always)]
pub fn input_gradient<S: Simd>(
    s: S,
    before: &mut LayerAccess,
    layer: &LayerAccess,
    part: &Range<usize>,
    transposed: &mut Vec<Block>,
) {
    if are_few(part.len(), layer.layout.outputs) {
        return input_gradient_of_few(s, before, layer, part);
    }
    for q in before.own.clone() {
        before.gradients.get_mut(q).rows_mut(part.clone()).fill(Block::ZERO);
    }
    for (q, d) in layer.gradients.panels(part).enumerate() {
        if interrupt::is_received() {
            return;
        }
        let slab = layer.weights.get(q);
        for slabs in before.layout.together::<S>(before.own.clone()) {
            for_slabs!(before.layout, slabs, input_gradient_by::<S>(s, d, slab, before, slabs.start, part, transposed));
        }
    }
}

/// The products of one panel and N slabs from number `first` on. `slab` has the weights of the panel's columns.
#[inline(always)]
fn input_gradient_by<S: Simd, const W: usize, const N: usize>(
    s: S,
    d: Panel,
    slab: &Slab,
    before: &mut LayerAccess,
    first: usize,
    part: &Range<usize>,
    transposed: &mut Vec<Block>,
) {
    let outputs = d.width * LANES;
    transposed.resize(TRANSPOSED, Block::ZERO);
    for (n, rows) in transposed.chunks_exact_mut(outputs * W).take(N).enumerate() {
        let inputs = before.layout.slabs[first + n].begin * LANES;
        transpose::<S, W>(s, slab, inputs, rows.as_chunks_mut::<W>().0);
    }
    let rows = transposed.as_chunks::<W>().0;
    let rows = std::array::from_fn(|n| &rows[n * outputs..(n + 1) * outputs]);
    let d_in = before.gradients.several_mut(first).map(|d| d.rows_mut(part.clone()).as_chunks_mut::<W>().0);
    add_product::<S, W, N>(s, d, rows, d_in);
}

/// The `transposed` (O,W) weights of all the slab's outputs and W blocks of inputs, from `first` on.
#[inline(always)]
fn transpose<S: Simd, const W: usize>(s: S, slab: &Slab, first: usize, transposed: &mut [[Block; W]]) {
    for column in 0..slab.width {
        for j in 0..W {
            let mut rows = [s.splat(0.0); LANES];
            for i in 0..LANES {
                rows[i] = s.load(&slab.weights[(first + j * LANES + i) * slab.width + column]);
            }
            for (to, row) in transposed[column * LANES..].iter_mut().zip(simd::transposed(s, rows)) {
                to[j] = row;
            }
        }
    }
}

/// Whether it pays for a part of `images` images to read the weights where they are, instead of transposing those of `outputs`.
fn are_few(images: usize, outputs: usize) -> bool {
    images < 8 || images <= MASK.min(outputs / 12)
}

/// [`input_gradient`] for few images: for each input, the products of its row of W and the rows of d of those images in which
/// the input is not zero. ReLU leaves no others.
#[inline(always)]
fn input_gradient_of_few<S: Simd>(s: S, before: &mut LayerAccess, layer: &LayerAccess, part: &Range<usize>) {
    let slabs = (0..layer.layout.slabs.len()).map(|q| &layer.weights.get(q).weights[..]);
    let outputs: Vec<_> = slabs.zip(layer.gradients.panels(part)).collect();
    for q in before.own.clone() {
        if interrupt::is_received() {
            return;
        }
        let Columns { begin, width } = before.layout.slabs[q];
        let d_in = before.gradients.get_mut(q).rows_mut(part.clone());
        for (i, &mask) in before.activations.get(q).column_masks(part.start).iter().enumerate() {
            let (row, block, lane) = (begin * LANES + i, i / LANES, i % LANES);
            let mut put = |image: usize, sum| d_in[image * width + block].0[lane] = sum;
            let mut mask = mask;
            while mask != 0 {
                mask = match mask.count_ones() {
                    4.. => row_products::<S, 4>(s, &outputs, row, mask, &mut put),
                    2.. => row_products::<S, 2>(s, &outputs, row, mask, &mut put),
                    _ => row_products::<S, 1>(s, &outputs, row, mask, &mut put),
                };
            }
        }
    }
}

/// Gives `put` the lowest R images of `mask`, each with the product of its row of d and row `row` of W. `outputs` are the weights
/// of each slab and its panel of d. Returns the other images.
#[inline(always)]
fn row_products<S: Simd, const R: usize>(
    s: S,
    outputs: &[(&[Block], Panel)],
    row: usize,
    mut mask: u64,
    mut put: impl FnMut(usize, f32),
) -> u64 {
    let mut images = [0; R];
    for r in 0..R {
        images[r] = mask.trailing_zeros() as usize;
        mask &= mask - 1;
    }
    let mut sums = [s.splat(0.0); R];
    for (weights, d) in outputs {
        let weights = &weights[row * d.width..][..d.width];
        let mut rows = [weights; R];
        for r in 0..R {
            rows[r] = &d.blocks[images[r] * d.width..][..d.width];
        }
        for block in 0..weights.len() {
            let w = s.load(&weights[block]);
            for r in 0..R {
                sums[r] = s.mul_add(s.load(&rows[r][block]), w, sums[r]);
            }
        }
    }
    for r in 0..R {
        put(images[r], s.sum(sums[r]));
    }
    mask
}

/// Backward through ReLU and dropout, in place: `d scale` where `a > 0`, else 0.
#[inline(always)]
pub fn relu_backward<S: Simd>(s: S, a: &[Block], scale: f32, d: &mut [Block]) {
    for (a, d) in a.iter().zip(d) {
        let scaled = s.mul(s.load(d), s.splat(scale));
        s.store(s.where_positive(s.load(a), scaled), d);
    }
}

/// Adds to the gradient of a dense layer's weights, without the biases, that of the micro-batch, `a^T d` over `images` images.
/// The last micro-batch has the `rule` of the update.
#[inline(always)]
pub fn update<S: Simd>(
    s: S,
    before: &LayerAccess,
    layer: &mut LayerAccess,
    images: usize,
    rule: Option<&StepRule>,
    sums: &mut GradientSums,
) {
    for slabs in layer.layout.together::<S>(layer.own.clone()) {
        let width = layer.layout.width(slabs.clone());
        for (input, inputs) in before.layout.slabs.iter().enumerate() {
            if interrupt::is_received() {
                return;
            }
            let gradient = sums.next(inputs.width * LANES * width);
            for_slabs!(
                layer.layout,
                slabs,
                update_by::<S>(s, before, input, layer, slabs.start, images, rule, gradient)
            );
        }
    }
}

/// [`update`] for the inputs in panel `input`, and N slabs from number `first` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes the arrays that it reads and writes")]
fn update_by<S: Simd, const W: usize, const N: usize>(
    s: S,
    before: &LayerAccess,
    input: usize,
    layer: &mut LayerAccess,
    first: usize,
    images: usize,
    rule: Option<&StepRule>,
    gradient: &mut [Block],
) {
    let activations = before.activations.get(input);
    let Columns { begin, width } = before.layout.slabs[input];
    let inputs = width * LANES;
    let gradient = gradient.as_chunks_mut::<W>().0;
    for group in in_ranges(images, MASK) {
        let d: [_; N] =
            std::array::from_fn(|n| layer.gradients.get(first + n).rows(group.clone()).blocks.as_chunks::<W>().0);
        let a = numbers(activations.rows(group.clone()).blocks);
        let inside = inside(d) & (u64::MAX >> (MASK - a.len() / inputs));
        for (i, mask) in activations.column_masks(group.start).iter().enumerate() {
            let mut sums = [[s.splat(0.0); W]; N];
            for n in 0..N {
                sums[n] = load_row(s, &gradient[n * inputs + i]);
            }
            // SAFETY: the mask is for images of the group, which have rows in d and a, and input i is a number of each row of a.
            unsafe { add_rows(s, mask & inside, |k| *a.get_unchecked(k * inputs + i), d, &mut sums) };
            for n in 0..N {
                store_row(s, sums[n], &mut gradient[n * inputs + i]);
            }
        }
    }
    if let Some(rule) = rule {
        for (n, gradient) in gradient.chunks_exact(inputs).enumerate() {
            let rows = begin * LANES..begin * LANES + inputs;
            layer.weights.get_mut(first + n).update(s, rule, rows, gradient.as_flattened());
        }
    }
}
