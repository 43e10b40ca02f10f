//! The first layer: products with the lit pixels only, and its gradient with the update of the weights at once.

#![expect(unsafe_code, reason = "the innermost loops look up places that lists made before are known to hold")]

use super::group::{GROUP, Group};
use super::lit::{LitPixels, STRETCH};
use super::net::{Slab, WIDEST};
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::{BlockUpdate, StepRule};
use crate::simd::{Block, Simd, add};

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

/// Calls a function that is generic over the blocks of columns of a slab.
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

/// `z = x W + b` for `images` of `lit` and the slab's columns: z (B,W), with W blocks of columns.
///
/// Stretch by stretch through the pixels, so that the weights of a stretch stay in the first-level cache while the images
/// come by, and each weight comes from the second-level cache once.
///
/// With a `group`, which has begun with the same images, puts the values of their pixels there.
#[inline(always)]
pub fn forward<S: Simd>(
    s: S,
    slab: &Slab,
    lit: &LitPixels,
    images: &[u32],
    group: Option<&mut Group>,
    z: &mut [Block],
) {
    match group {
        Some(group) => for_width!(slab.width, forward_wide::<S>(s, slab, lit, images, Some(group), z)),
        None => for_width!(slab.width, forward_wide::<S>(s, slab, lit, images, None, z)),
    }
}

#[inline(always)]
fn forward_wide<S: Simd, const W: usize>(
    s: S,
    slab: &Slab,
    lit: &LitPixels,
    images: &[u32],
    mut group: Option<&mut Group>,
    z: &mut [Block],
) {
    assert!(group.is_none() || images.len() <= GROUP);
    let rows = slab.weights.as_chunks::<W>().0;
    let biases = rows.last().expect("a slab has a row of biases");
    let z = z.as_chunks_mut::<W>().0;
    for stretch in 0..lit.stretches() {
        let rows = &rows[stretch * STRETCH..];
        let mut list = lit.of(images[0] as usize, stretch);
        for (i, z) in z.iter_mut().enumerate() {
            // Looked up one image in advance, so that where a loop ends is known before it does.
            let next = images.get(i + 1).map_or(&[][..], |&image| lit.of(image as usize, stretch));
            let mut even = load_row(s, if stretch == 0 { biases } else { z });
            // With registers for two sums, twice as many products are under way at a time.
            let mut odd = [s.splat(0.0); W];
            for &[a, b] in std::mem::replace(&mut list, next) {
                if let Some(group) = &mut group {
                    // SAFETY: from that list; there are no more images than asserted.
                    unsafe {
                        group.put(i, stretch, a);
                        group.put(i, stretch, b);
                    }
                }
                // SAFETY: `LitPixels` lists pixels, or the place after the last, where the biases are.
                let [a_row, b_row] = [a, b].map(|pixel| unsafe { rows.get_unchecked(pixel.place()) });
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

/// Brings the weights of the pixels that are lit in `group` up to date.
#[inline(always)]
pub fn catch_up<S: Simd>(s: S, slab: &mut Slab, group: &Group, lazy: &LazyUpdates) {
    for &pixel in group.lit() {
        catch_up_row(s, slab, pixel.into(), lazy);
    }
}

/// Brings all weights up to date.
#[inline(always)]
pub fn catch_up_all<S: Simd>(s: S, slab: &mut Slab, lazy: &LazyUpdates) {
    for pixel in 0..slab.since.len() {
        catch_up_row(s, slab, pixel, lazy);
    }
}

#[inline(always)]
fn catch_up_row<S: Simd>(s: S, slab: &mut Slab, row: usize, lazy: &LazyUpdates) {
    let since = usize::from(slab.since[row]);
    if since != lazy.steps() {
        let (weights, slots) = slab.rows_mut(row..row + 1);
        lazy.catch_up(s, since, weights, slots);
        slab.since[row] = lazy.steps() as u8;
    }
}

/// The gradient `x^T d_z` of the slab's weights over the images of `group`, a whole batch, and their update by `rule`;
/// the weights of pixels that are zero in all of them wait.
///
/// Pixel by pixel: its gradient is summed in registers from the images in which it is lit, whose d_z stay in the first-level
/// cache, and updates the pixel's weights at once.
#[inline(always)]
pub fn backward<S: Simd>(s: S, slab: &mut Slab, group: &Group, d_z: &[Block], rule: &StepRule, lazy: &LazyUpdates) {
    match rule.adam() {
        Some(adam) => for_width!(slab.width, backward_wide::<S>(s, slab, group, d_z, &adam, lazy)),
        None => for_width!(slab.width, backward_wide::<S>(s, slab, group, d_z, rule, lazy)),
    }
}

#[inline(always)]
fn backward_wide<S: Simd, const W: usize>(
    s: S,
    slab: &mut Slab,
    group: &Group,
    d_z: &[Block],
    rule: &impl BlockUpdate,
    lazy: &LazyUpdates,
) {
    let d_z = d_z.as_chunks::<W>().0;
    let mut gradient = [Block::ZERO; W];
    for (&pixel, &mask) in group.lit().iter().zip(group.masks()) {
        let pixel = usize::from(pixel);
        let sums = pixel_gradient(s, [s.splat(0.0); W], group.values(pixel), mask, d_z);
        store_row(s, sums, &mut gradient);
        slab.update(s, rule, pixel..pixel + 1, &gradient);
        slab.since[pixel] = lazy.steps() as u8 + 1;
    }
}

/// Adds to `gradient` (D,W) what the images of `group`, a part of a batch, give; [`update`] follows when all are in it.
#[inline(always)]
pub fn accumulate<S: Simd>(s: S, width: usize, group: &Group, d_z: &[Block], gradient: &mut [Block]) {
    for_width!(width, accumulate_wide::<S>(s, group, d_z, gradient))
}

#[inline(always)]
fn accumulate_wide<S: Simd, const W: usize>(s: S, group: &Group, d_z: &[Block], gradient: &mut [Block]) {
    let (d_z, gradient) = (d_z.as_chunks::<W>().0, gradient.as_chunks_mut::<W>().0);
    for (&pixel, &mask) in group.lit().iter().zip(group.masks()) {
        let gradient = &mut gradient[usize::from(pixel)];
        let sums = pixel_gradient(s, load_row(s, gradient), group.values(pixel.into()), mask, d_z);
        store_row(s, sums, gradient);
    }
}

/// Updates all weights of the slab but its biases by their `gradient`.
#[inline(always)]
pub fn update<S: Simd>(s: S, slab: &mut Slab, gradient: &[Block], rule: &StepRule, lazy: &LazyUpdates) {
    slab.update(s, rule, 0..slab.since.len(), gradient);
    slab.since.fill(lazy.steps() as u8 + 1);
}

/// `sums`, and for each image in `mask` its value of a pixel times its row of d_z.
#[inline(always)]
fn pixel_gradient<S: Simd, const W: usize>(
    s: S,
    mut sums: [S::F; W],
    values: &[u8; GROUP],
    mut mask: u32,
    d_z: &[[Block; W]],
) -> [S::F; W] {
    // SAFETY of all calls: the group's images are those of d_z, and a mask that is not zero has a lowest bit.
    let at = |mask: u32| unsafe {
        let i = mask.trailing_zeros() as usize;
        (s.splat(SCALED[usize::from(*values.get_unchecked(i))]), d_z.get_unchecked(i))
    };
    let mut odd = [s.splat(0.0); W];
    while mask != 0 {
        let (x, d) = at(mask);
        mask &= mask - 1;
        for j in 0..W {
            sums[j] = s.mul_add(x, s.load(&d[j]), sums[j]);
        }
        if S::MANY_REGISTERS && mask != 0 {
            let (x, d) = at(mask);
            mask &= mask - 1;
            for j in 0..W {
                odd[j] = s.mul_add(x, s.load(&d[j]), odd[j]);
            }
        }
    }
    for j in 0..W {
        if S::MANY_REGISTERS {
            sums[j] = s.add(sums[j], odd[j]);
        }
    }
    sums
}

/// The gradient of the slab's biases, the sum of all d_z, and their update by `rule`.
#[inline(always)]
pub fn update_biases<S: Simd>(s: S, slab: &mut Slab, d_z: &[Block], rule: &StepRule) {
    let mut gradient = [Block::ZERO; WIDEST];
    for d_z in d_z.chunks_exact(slab.width) {
        add(s, &mut gradient[..slab.width], d_z);
    }
    let row = slab.since.len();
    slab.update(s, rule, row..row + 1, &gradient[..slab.width]);
}

#[inline(always)]
fn load_row<S: Simd, const W: usize>(s: S, row: &[Block; W]) -> [S::F; W] {
    let mut values = [s.splat(0.0); W];
    for j in 0..W {
        values[j] = s.load(&row[j]);
    }
    values
}

#[inline(always)]
fn store_row<S: Simd, const W: usize>(s: S, values: [S::F; W], row: &mut [Block; W]) {
    for j in 0..W {
        s.store(values[j], &mut row[j]);
    }
}
