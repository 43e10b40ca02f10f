//! The forward pass, for training and for answers.

use super::access::Access;
use super::bf16::{self, TileMultiplier};
use super::first_layer::{self, FIRST_LAYER_IMAGES};
use super::group::ImageGroup;
use super::hidden_layer;
use super::micro_batch::{in_ranges, passes};
use super::nonzero::NonzeroPixels;
use super::output_layer;
use super::panel::MASK;
use super::weights::LayerLayout;
use crate::engine::dropout::{self, DropoutMask};
use crate::interrupt;
use crate::simd::{Block, LANES, Simd, add};

const _: () = assert!(FIRST_LAYER_IMAGES.is_multiple_of(MASK));

/// The images of a forward pass: indices into lists of nonzero pixels.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The lists.
    pub nonzero: &'a NonzeroPixels,
    /// (B).
    pub images: &'a [u32],
    /// How many images of their batch come before them.
    pub before: usize,
    /// The images of the next forward pass: prefetched before the thread waits for others.
    pub next: &'a [u32],
}

/// Dropout in a step.
#[derive(Debug, Clone, Copy)]
pub struct StepDropout {
    /// The fraction of activations that is dropped.
    pub rate: f64,
    /// The seed of the masks.
    pub seed: u64,
    /// The number of steps before.
    pub steps_before: u64,
}

/// Dropout after a hidden layer in a step.
#[derive(Debug, Clone, Copy)]
struct LayerDropout {
    mask: DropoutMask,
    /// The factor of kept activations.
    scale: f32,
}

impl StepDropout {
    fn after(self, layer: usize) -> LayerDropout {
        let mask = DropoutMask::new(self.seed, self.steps_before, layer, self.rate);
        LayerDropout { mask, scale: dropout::scale(self.rate) as f32 }
    }
}

/// Computes the `logits` (B) of `inputs`, by all threads of the team together. Begins with the first phase of a step,
/// and ends in that of the loss.
///
/// Puts the inputs' values into the `group`, if there is one; it has begun with the same images. With a `multiplier` the
/// products are those of bf16 numbers.
#[inline(always)]
pub fn forward<S: Simd>(
    s: S,
    access: &mut Access,
    inputs: Inputs,
    dropout: Option<StepDropout>,
    group: Option<&mut ImageGroup>,
    mut multiplier: Option<TileMultiplier>,
    logits: &mut [Block],
) {
    match &mut multiplier {
        None => first_layer(s, access, inputs, dropout, group),
        Some(multiplier) => bf16_first_layer(s, access, inputs, dropout, group, multiplier),
    }
    let images = inputs.images.len();
    for l in 1..access.hidden() {
        access.next();
        dense_layer(s, access, l, inputs, dropout.map(|dropout| dropout.after(l)), multiplier.as_mut());
    }
    partial_logits(s, access, images);
    inputs.nonzero.prefetch(inputs.next);
    access.next();
    sum_logits(s, access, logits);
}

#[inline(always)]
fn first_layer<S: Simd>(
    s: S,
    access: &mut Access,
    inputs: Inputs,
    dropout: Option<StepDropout>,
    mut group: Option<&mut ImageGroup>,
) {
    let is_hidden = access.hidden() > 0;
    let dropout = dropout.map(|dropout| dropout.after(0));
    let mut layer = access.layer(0);
    for (n, q) in layer.own.clone().enumerate() {
        let slab = layer.weights.get(q);
        // The first slab's pass over the pixels puts them into the group.
        let mut group = group.as_deref_mut().filter(|_| n == 0);
        for rows in in_ranges(inputs.images.len(), FIRST_LAYER_IMAGES) {
            if interrupt::is_received() {
                break;
            }
            let panel = layer.activations.get_mut(q);
            let z = panel.rows_mut(rows.clone());
            let images = &inputs.images[rows.clone()];
            first_layer::forward(s, slab, inputs.nonzero, images, group.as_deref_mut(), z);
            if is_hidden {
                activate(s, z, layer.layout, q, inputs.before + rows.start, dropout);
                panel.make_ready(s, rows);
            }
        }
    }
    if let Some(group) = group {
        group.end();
    }
}

/// [`first_layer`] in bf16.
#[inline(always)]
fn bf16_first_layer<S: Simd>(
    s: S,
    access: &mut Access,
    inputs: Inputs,
    dropout: Option<StepDropout>,
    group: Option<&mut ImageGroup>,
    multiplier: &mut TileMultiplier,
) {
    let is_hidden = access.hidden() > 0;
    let dropout = dropout.map(|dropout| dropout.after(0));
    let images = inputs.images.len();
    match group {
        Some(group) => {
            group.put_all(inputs.nonzero, inputs.images);
            multiplier.pixels.fill_with_group(s, group);
        }
        None => multiplier.pixels.fill(inputs.nonzero, inputs.images),
    }
    let mut layer = access.layer(0);
    for q in layer.own.clone() {
        let panel = layer.activations.get_mut(q);
        bf16::first_layer(s, layer.weights.get(q), multiplier, images, panel);
        if is_hidden {
            activate(s, panel.rows_mut(0..images), layer.layout, q, inputs.before, dropout);
            panel.make_ready(s, 0..images);
        }
    }
}

#[inline(always)]
fn dense_layer<S: Simd>(
    s: S,
    access: &mut Access,
    l: usize,
    inputs: Inputs,
    dropout: Option<LayerDropout>,
    mut multiplier: Option<&mut TileMultiplier>,
) {
    for part in passes(inputs.images.len()) {
        let [before, mut layer] = access.pair(l);
        if let Some(multiplier) = &mut multiplier {
            bf16::forward(s, &before, &mut layer, &part, multiplier);
        } else {
            hidden_layer::forward(s, &before, &mut layer, &part);
        }
        for q in layer.own.clone() {
            let panel = layer.activations.get_mut(q);
            activate(s, panel.rows_mut(part.clone()), layer.layout, q, inputs.before + part.start, dropout);
            panel.make_ready(s, part.clone());
        }
    }
}

/// ReLU and dropout in place on z (B,W), of slab `q` of a layer; `before` images of the batch come before its first.
#[inline(always)]
fn activate<S: Simd>(
    s: S,
    z: &mut [Block],
    layout: &LayerLayout,
    q: usize,
    before: usize,
    dropout: Option<LayerDropout>,
) {
    let columns = layout.slabs[q];
    for (image, row) in z.chunks_exact_mut(columns.width).enumerate() {
        let first_unit = ((before + image) * layout.outputs + columns.begin * LANES) as u32;
        for (block, z) in row.iter_mut().enumerate() {
            let mut a = s.max(s.splat(0.0), s.load(z));
            if let Some(LayerDropout { mask, scale }) = dropout {
                a = mask.keep(s, first_unit + (block * LANES) as u32, s.mul(a, s.splat(scale)));
            }
            s.store(a, z);
        }
    }
}

/// The parts of the logits from this thread's columns of the last hidden layer.
#[inline(always)]
fn partial_logits<S: Simd>(s: S, access: &mut Access, images: usize) {
    if access.hidden() == 0 {
        return;
    }
    let (layer, mut output) = access.last();
    for q in layer.own.clone() {
        if interrupt::is_received() {
            break;
        }
        let columns = layer.layout.slabs[q];
        let a = layer.activations.get(q).rows(0..images);
        let rows = &output.weights.get(q).weights;
        for block in (0..columns.width).step_by(output.grain) {
            let part = output.logit_parts.get_mut((columns.begin + block) / output.grain).rows_mut(0..images);
            let blocks = block..(block + output.grain).min(columns.width);
            output_layer::partial_logits(s, a, blocks, rows, part);
        }
    }
}

/// The sum of the logits' parts and biases. Without hidden layers, the logits are what the first layer gave.
#[inline(always)]
fn sum_logits<S: Simd>(s: S, access: &mut Access, logits: &mut [Block]) {
    let (hidden, images) = (access.hidden(), logits.len());
    let (layer, output) = access.last();
    if hidden == 0 {
        logits.copy_from_slice(layer.activations.get(0).rows(0..images).blocks);
        return;
    }
    logits.fill(output.biases.get(output.rank).weights[0]);
    for part in 0..output.part_count {
        add(s, logits, output.logit_parts.get(part).rows(0..images).blocks);
    }
}
