//! The first layer: products with the nonzero pixels only; its gradient, and with it the update of the weights.

#![expect(unsafe_code, reason = "the innermost loops read places that the lists are known to stay within")]

use std::ops::Range;

use super::access::LayerAccess;
use super::group::{GROUP, ImageGroup};
use super::lists::{Lists, NonzeroPixel, STRETCH};
use super::nonzero::NonzeroPixels;
use super::weights::{Slab, TOGETHER, WIDEST, for_slabs};
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::{BlockUpdate, StepRule};
use crate::simd::{Block, Simd, load_row, store_row};

/// The most images that pass the first layer together: their activations stay in the first-level cache.
pub const FIRST_LAYER_IMAGES: usize = 64;

/// `pixel / 255`.
static SCALED: [f32; 256] = {
    let mut scaled = [0.0; 256];
    let mut value = 0;
    while value < 256 {
        scaled[value] = value as f32 / 255.0;
        value += 1;
    }
    scaled
};

/// Calls a function that is generic over the blocks of columns in a slab.
macro_rules! for_width {
    ($width:expr, $function:ident::<$S:ident>($($argument:expr),*)) => {
        match $width {
            1 => $function::<$S, 1>($($argument),*),
            2 => $function::<$S, 2>($($argument),*),
            3 => $function::<$S, 3>($($argument),*),
            _ => $function::<$S, 4>($($argument),*),
        }
    };
}

/// `z = x W + b` for `images` and the slab's columns: z (B,W), with W blocks of columns.
///
/// The outer loop is over stretches of pixels, the inner one over images. So the weights of a stretch stay in the
/// first-level cache, and each weight is read from the second-level cache once.
///
/// Puts the values of the pixels into the `group`, if there is one; it has begun with the same images.
#[inline(always)]
pub fn forward<S: Simd>(
    s: S,
    slab: &Slab,
    nonzero: &NonzeroPixels,
    images: &[u32],
    group: Option<&mut ImageGroup>,
    z: &mut [Block],
) {
    match group {
        Some(group) => for_width!(slab.width, forward_wide::<S>(s, slab, nonzero, images, Some(group), z)),
        None => for_width!(slab.width, forward_wide::<S>(s, slab, nonzero, images, None, z)),
    }
}

#[inline(always)]
fn forward_wide<S: Simd, const W: usize>(
    s: S,
    slab: &Slab,
    nonzero: &NonzeroPixels,
    images: &[u32],
    mut group: Option<&mut ImageGroup>,
    z: &mut [Block],
) {
    assert!(group.is_none() || images.len() <= GROUP);
    let rows = slab.weights.as_chunks::<W>().0;
    let biases = rows.last().expect("a slab has a row of biases");
    let z = z.as_chunks_mut::<W>().0;
    let mut lists = [Lists::default(); FIRST_LAYER_IMAGES];
    let lists = &mut lists[..images.len()];
    for (of_image, &image) in lists.iter_mut().zip(images) {
        *of_image = nonzero.lists(image as usize);
    }
    for stretch in 0..nonzero.stretches() {
        let rows = &rows[stretch * STRETCH..];
        let mut list = lists[0].next_stretch();
        for (i, z) in z.iter_mut().enumerate() {
            // Looked up one image in advance: the length of a list is known before the loop over it begins.
            let next = lists.get_mut(i + 1).map_or(&[][..], Lists::next_stretch);
            let mut even = load_row(s, if stretch == 0 { biases } else { z });
            // Two sums, where the registers hold them: twice as many products are in flight.
            let mut odd = [s.splat(0.0); W];
            for &pair in std::mem::replace(&mut list, next) {
                let [a, b] = pair.map(NonzeroPixel);
                if let Some(group) = &mut group {
                    // SAFETY: the pixels come from that list, and there are at most `GROUP` images, as asserted.
                    unsafe {
                        group.put(i, stretch, a);
                        group.put(i, stretch, b);
                    }
                }
                // SAFETY: `NonzeroPixels` lists pixels, or the one after the last, and that row holds the biases.
                let [a_row, b_row] = [a, b].map(|pixel| unsafe { rows.get_unchecked(pixel.index()) });
                let [a, b] = [a, b].map(|pixel| s.splat(SCALED[usize::from(pixel.value())]));
                for j in 0..W {
                    even[j] = s.mul_add(a, s.load(&a_row[j]), even[j]);
                }
                let second = if S::MANY_REGISTERS { &mut odd } else { &mut even };
                for j in 0..W {
                    second[j] = s.mul_add(b, s.load(&b_row[j]), second[j]);
                }
            }
            for j in 0..W {
                s.store(if S::MANY_REGISTERS { s.add(even[j], odd[j]) } else { even[j] }, &mut z[j]);
            }
        }
    }
}

/// Brings the weights of the pixels up to date that are nonzero in `group`.
#[inline(always)]
pub fn catch_up<S: Simd>(s: S, slab: &mut Slab, group: &ImageGroup, lazy: &LazyUpdates) {
    for &pixel in group.pixels() {
        catch_up_row(s, slab, pixel.into(), lazy);
    }
}

/// Brings all weights up to date.
#[inline(always)]
pub fn catch_up_all<S: Simd>(s: S, slab: &mut Slab, lazy: &LazyUpdates) {
    for pixel in 0..slab.up_to.len() {
        catch_up_row(s, slab, pixel, lazy);
    }
}

#[inline(always)]
fn catch_up_row<S: Simd>(s: S, slab: &mut Slab, row: usize, lazy: &LazyUpdates) {
    let up_to = usize::from(slab.up_to[row]);
    if up_to != lazy.steps() {
        let (weights, slots) = slab.rows_mut(row..row + 1);
        lazy.catch_up(s, up_to, weights, slots);
        slab.up_to[row] = lazy.steps() as u8;
    }
}

/// The gradient `x^T d_z` of the slab's weights over the images of `group`, a whole batch, and their update by `rule`.
/// Weights of pixels that are zero in all images are left to the lazy update.
///
/// Pixel by pixel: registers sum the gradient over the images in which the pixel is nonzero, and its weights are
/// updated at once. d_z stays in the first-level cache.
#[inline(always)]
pub fn backward<S: Simd>(
    s: S,
    slab: &mut Slab,
    group: &ImageGroup,
    d_z: &[Block],
    rule: &StepRule,
    lazy: &LazyUpdates,
) {
    match rule.adam() {
        Some(adam) => for_width!(slab.width, backward_wide::<S>(s, slab, group, d_z, &adam, lazy)),
        None => for_width!(slab.width, backward_wide::<S>(s, slab, group, d_z, rule, lazy)),
    }
}

#[inline(always)]
fn backward_wide<S: Simd, const W: usize>(
    s: S,
    slab: &mut Slab,
    group: &ImageGroup,
    d_z: &[Block],
    rule: &impl BlockUpdate,
    lazy: &LazyUpdates,
) {
    let d_z = d_z.as_chunks::<W>().0;
    let mut gradient = [Block::ZERO; W];
    for (&pixel, &mask) in group.pixels().iter().zip(group.masks()) {
        let pixel = usize::from(pixel);
        let [sums] = pixel_gradient(s, [[s.splat(0.0); W]], group.values(pixel), mask, [d_z]);
        store_row(s, sums, &mut gradient);
        slab.update_row(s, rule, pixel, &gradient);
        slab.up_to[pixel] = lazy.steps() as u8 + 1;
    }
}

/// Adds to `gradient`, (D,W) for each of `slabs`, which are worked on together, that of some `images` of a batch, those of
/// `group`. [`update`] follows when all are in it.
#[inline(always)]
pub fn accumulate<S: Simd>(
    s: S,
    layer: &LayerAccess,
    slabs: Range<usize>,
    group: &ImageGroup,
    images: Range<usize>,
    gradient: &mut [Block],
) {
    for_slabs!(layer.layout, slabs, accumulate_by::<S>(s, layer, slabs.start, group, images, gradient))
}

#[inline(always)]
fn accumulate_by<S: Simd, const W: usize, const N: usize>(
    s: S,
    layer: &LayerAccess,
    first: usize,
    group: &ImageGroup,
    images: Range<usize>,
    gradient: &mut [Block],
) {
    let d_z: [_; N] =
        std::array::from_fn(|n| layer.gradients.get(first + n).rows(images.clone()).blocks.as_chunks::<W>().0);
    let gradient = gradient.as_chunks_mut::<W>().0;
    let rows = gradient.len() / N;
    for (&pixel, &mask) in group.pixels().iter().zip(group.masks()) {
        let pixel = usize::from(pixel);
        let mut sums = [[s.splat(0.0); W]; N];
        for n in 0..N {
            sums[n] = load_row(s, &gradient[n * rows + pixel]);
        }
        let sums = pixel_gradient(s, sums, group.values(pixel), mask, d_z);
        for n in 0..N {
            store_row(s, sums[n], &mut gradient[n * rows + pixel]);
        }
    }
}

/// Updates all weights of the slab but its biases by their `gradient`.
#[inline(always)]
pub fn update<S: Simd>(s: S, slab: &mut Slab, gradient: &[Block], rule: &StepRule, lazy: &LazyUpdates) {
    slab.update(s, rule, 0..slab.up_to.len(), gradient);
    slab.up_to.fill(lazy.steps() as u8 + 1);
}

/// Adds to `sums`, W blocks in each of N slabs, for each image in `mask`, its value of a pixel times its rows of d_z.
#[inline(always)]
fn pixel_gradient<S: Simd, const W: usize, const N: usize>(
    s: S,
    mut sums: [[S::F; W]; N],
    values: &[u8; GROUP],
    mut mask: u32,
    d_z: [&[[Block; W]]; N],
) -> [[S::F; W]; N] {
    let mut odd = [[s.splat(0.0); W]; N];
    while mask != 0 {
        // SAFETY: the mask stands for images of the group, and d_z has a row for each.
        unsafe { add_image(s, mask, values, d_z, &mut sums) };
        mask &= mask - 1;
        if S::MANY_REGISTERS && mask != 0 {
            // SAFETY: as before.
            unsafe { add_image(s, mask, values, d_z, &mut odd) };
            mask &= mask - 1;
        }
    }
    if S::MANY_REGISTERS {
        for n in 0..N {
            for j in 0..W {
                sums[n][j] = s.add(sums[n][j], odd[n][j]);
            }
        }
    }
    sums
}

/// Adds to `sums` the first image in `mask`.
///
/// # Safety
/// `mask` is not zero, and d_z has a row for each of its images, in every slab.
#[inline(always)]
unsafe fn add_image<S: Simd, const W: usize, const N: usize>(
    s: S,
    mask: u32,
    values: &[u8; GROUP],
    d_z: [&[[Block; W]]; N],
    sums: &mut [[S::F; W]; N],
) {
    let i = mask.trailing_zeros() as usize;
    // SAFETY: a mask that is not zero has a lowest bit, which is below `GROUP`.
    let value = unsafe { *values.get_unchecked(i) };
    let x = s.splat(SCALED[usize::from(value)]);
    for n in 0..N {
        // SAFETY: there is a row for each image, as the caller promises.
        let d = unsafe { d_z[n].get_unchecked(i) };
        for j in 0..W {
            sums[n][j] = s.mul_add(x, s.load(&d[j]), sums[n][j]);
        }
    }
}
