//! Evaluation: the network's answers without dropout.

#![expect(unsafe_code, reason = "memory that the team takes turns at in training")]

use super::first_layer;
use super::hidden_layer::{self, Panel};
use super::lit::LitPixels;
use super::net::{Net, SplitLayer};
use super::output_layer;
use super::step::{IMAGES_AT_A_TIME, activate};
use crate::simd::{Block, Job, Simd, add};

/// The logits of some images, by one thread; nobody trains meanwhile.
pub struct Evaluation<'a> {
    pub net: &'a Net,
    pub output_biases: Block,
    /// (N,D).
    pub pixels: &'a [u8],
    /// (N,K).
    pub logits: &'a mut [f32],
}

impl Job for Evaluation<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { net, output_biases, pixels, logits } = self;
        let (d, classes) = (net.recipe.shape.inputs(), net.recipe.shape.classes());
        let room = |layer: &SplitLayer| -> Vec<Vec<Block>> {
            layer.places.iter().map(|(_, width)| vec![Block::ZERO; IMAGES_AT_A_TIME * width]).collect()
        };
        let mut activations: Vec<Vec<Vec<Block>>> = net.layers.iter().map(room).collect();
        let mut lit = LitPixels::default();
        let order: Vec<u32> = (0..IMAGES_AT_A_TIME as u32).collect();
        let mut part = [Block::ZERO; IMAGES_AT_A_TIME];
        let mut sums = [Block::ZERO; IMAGES_AT_A_TIME];
        // SAFETY, for every block below: who evaluates has borrowed the engine for himself, so that nobody writes.
        for (pixels, logits) in pixels.chunks(IMAGES_AT_A_TIME * d).zip(logits.chunks_mut(IMAGES_AT_A_TIME * classes)) {
            let b = pixels.len() / d;
            lit.fill(pixels, d);
            for (l, layer) in net.layers.iter().enumerate() {
                let (before, after) = activations.split_at_mut(l);
                if l == 0 {
                    for (q, z) in after[0].iter_mut().enumerate() {
                        let slab = unsafe { layer.slabs.read(q) };
                        first_layer::forward(s, slab, &lit, &order[..b], None, &mut z[..b * slab.width]);
                    }
                } else {
                    let places = &net.layers[l - 1].places;
                    let inputs = before[l - 1].iter().zip(places).map(|(blocks, &(_, width))| Panel { blocks, width });
                    for inputs in hidden_layer::chunks(inputs) {
                        for (q, z) in after[0].iter_mut().enumerate() {
                            let slab = unsafe { layer.slabs.read(q) };
                            hidden_layer::forward(s, slab, &inputs, &mut z[..b * slab.width]);
                        }
                    }
                }
                if net.hidden() > 0 {
                    for (z, &(_, width)) in after[0].iter_mut().zip(&layer.places) {
                        activate(s, &mut z[..b * width], width, None, 1.0, |_| 0);
                    }
                }
            }
            let (last, a) = (&net.layers[net.layers.len() - 1], &activations[net.layers.len() - 1]);
            let sums = &mut sums[..b];
            if net.hidden() == 0 {
                sums.copy_from_slice(&a[0][..b]);
            } else {
                sums.fill(output_biases);
                for (q, &(_, width)) in last.places.iter().enumerate() {
                    let rows = unsafe { &net.outputs.read(q).weights };
                    for block in (0..width).step_by(net.grain) {
                        let blocks = block..(block + net.grain).min(width);
                        output_layer::partial_logits(s, &a[q][..b * width], width, blocks, rows, &mut part[..b]);
                        add(s, sums, &part);
                    }
                }
            }
            for (logits, sums) in logits.chunks_exact_mut(classes).zip(sums) {
                logits.copy_from_slice(&sums.0[..classes]);
            }
        }
    }
}
