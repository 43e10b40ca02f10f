//! A whole step in one launch, for networks with one hidden layer that is not wide.
//!
//! A cube owns a strip of 8 hidden units: their weights, their biases, and the weights from them to the logits. It needs
//! from the other cubes only their shares of the logits. So a step has one point at which all cubes must have arrived:
//! between the forward pass and the softmax. A launch goes from one such point to the next:
//!
//! ```text
//! launch t:   sum of all cubes' logits of step t-1, softmax, loss, gradient      (each cube for itself)
//!             gradients of the strip, optimizer in place                         (end of step t-1)
//!             forward pass of the strip on batch t, with the updated weights
//!             the strip's share of the logits of step t, for the next launch
//! ```
//!
//! In one launch, a cube may already write its logits of step t while another still reads those of step t-1. So there are
//! two copies, used in turn: of the logits, and of the last layer's biases, which only the first cube updates.

#![expect(clippy::manual_range_contains, reason = "kernels know no such method")]

use cubecl::prelude::*;

use super::kernels::*;
use super::plan::{LOGITS, STRIP, StripPlan, UNITS, UpdatePlan};
use crate::optim::GpuRates;

/// Images that a cube works on at a time: one for each unit of the strip.
const IMAGES: usize = UNITS / STRIP;
/// Words (of four pixels) that the forward pass has in shared memory at a time.
const STRETCH: usize = 49;
/// The units that sum gradients of weights to the logits come first, then those of the strip's biases, then, from here on,
/// those of the last layer's biases.
const LAST_BIASES: usize = STRIP * LOGITS + LOGITS;

/// The steps of a queue of launches, and which of them this launch begins.
#[derive(CubeType, CubeLaunch)]
pub struct StripSteps {
    /// The step to begin; the one before it is to be finished.
    pub step: usize,
    /// The first step, before which nothing is to be finished.
    pub first: usize,
    /// Behind the last step: there is no step to begin.
    pub end: usize,
    /// The largest batch that the scratch memory has space for.
    pub rows: usize,
    /// The factor for units that dropout keeps.
    pub scale: f32,
}

/// A step on which the cubes work.
#[derive(CubeType)]
struct StripStep {
    batch: StepBatch,
    /// Which of two copies the step uses: 0 or 1.
    turn: usize,
    rows: usize,
    scale: f32,
}

/// What the units of a cube tell each other about the images that they work on, to finish a step.
#[derive(CubeType)]
struct StripChunk {
    /// (IMAGES, LOGITS).
    logits: Shared<[f32]>,
    /// The gradient by the logits, (IMAGES, LOGITS).
    deltas: Shared<[f32]>,
    /// (IMAGES, S).
    activations: Shared<[f32]>,
    /// The gradient by the strip's sums, (IMAGES, S).
    hidden_deltas: Shared<[f32]>,
}

/// The hidden unit with number `s` in this cube's strip.
#[cube]
fn hidden_unit(s: usize) -> usize {
    CUBE_POS_X as usize * STRIP + s
}

/// Where in the scratch memory this cube's activations of `image` begin.
#[cube]
fn activations_of(step: &StripStep, image: usize) -> usize {
    (CUBE_POS_X as usize * step.rows + image) * STRIP
}

/// Where the logits of `image` begin in the share of `cube`.
#[cube]
fn logits_of(step: &StripStep, cube: usize, image: usize, #[comptime] net: StripPlan) -> usize {
    let cubes = comptime!(net.cubes());
    cubes * step.rows * STRIP + ((step.turn * cubes + cube) * step.rows + image) * comptime!(net.classes)
}

/// Where the last layer's biases begin, in copy `turn`.
#[cube]
fn biases_of(turn: usize, rows: usize, #[comptime] net: StripPlan) -> usize {
    comptime!(net.cubes()) * rows * comptime!(STRIP + 2 * net.classes) + turn * comptime!(net.classes)
}

/// See the module: the launch between two steps.
#[cube(launch_unchecked)]
pub fn strip(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    steps: &StripSteps,
    #[comptime] net: StripPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (rows, scale) = (steps.rows, steps.scale);
    if steps.step > steps.first {
        let before = steps.step - 1;
        let step = StripStep { batch: batch_of(inputs, before, net.record), turn: before % 2, rows, scale };
        finish_step(inputs, memory, &step, net, plan);
    }
    // The forward pass reads the strip's weights, which this cube has just written.
    sync_storage();
    if steps.step < steps.end {
        let step = StripStep { batch: batch_of(inputs, steps.step, net.record), turn: steps.step % 2, rows, scale };
        if steps.step == steps.first && CUBE_POS_X == 0 && UNIT_POS < comptime!(net.classes as u32) {
            let k = UNIT_POS as usize;
            memory.scratch[biases_of(step.turn, rows, net) + k] = memory.state[comptime!(net.biases[1]) + k];
        }
        begin_step(inputs, memory, &step, net);
    }
}

/// From the logits to the updated strip.
#[cube]
fn finish_step(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    step: &StripStep,
    #[comptime] net: StripPlan,
    #[comptime] plan: UpdatePlan,
) {
    let mut chunk = StripChunk {
        logits: Shared::<[f32]>::new_slice(IMAGES * LOGITS),
        deltas: Shared::<[f32]>::new_slice(IMAGES * LOGITS),
        activations: Shared::<[f32]>::new_slice(UNITS),
        hidden_deltas: Shared::<[f32]>::new_slice(UNITS),
    };
    // Each unit sums the gradients of four pixels' weights to the strip, and one of the strip's other gradients.
    let mut pixel_sums = zeros(comptime!(4 * STRIP));
    let mut other_sum = 0.0f32;

    for number in 0..step.batch.length.div_ceil(IMAGES) {
        let first = number * IMAGES;
        load_chunk(memory, step, &mut chunk, first, net);
        sync_cube();
        logit_deltas(inputs, memory, step, &mut chunk, first, net);
        sync_cube();
        hidden_deltas(memory, step, &mut chunk, net);
        sync_cube();
        add_pixel_gradients(inputs, step, &chunk, &mut pixel_sums, first, net);
        other_sum = add_other_gradient(&chunk, other_sum);
        sync_cube();
    }

    let rates = rates_of(inputs, &step.batch);
    update_pixel_weights(memory, &pixel_sums, &rates, net, plan);
    update_others(memory, step, other_sum, &rates, net, plan);
}

/// Puts the logits of the images from `first` on, summed over all cubes, and the strip's activations into shared memory.
#[cube]
fn load_chunk(memory: &StepMemory, step: &StripStep, chunk: &mut StripChunk, first: usize, #[comptime] net: StripPlan) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for half in 0..2 {
        let at = unit + half * UNITS;
        let (image, k) = (first + at / LOGITS, at % LOGITS);
        let mut logit = 0.0f32;
        if image < step.batch.length && k < comptime!(net.classes) {
            logit = memory.scratch[biases_of(step.turn, step.rows, net) + k];
            for cube in 0..comptime!(net.cubes()) {
                logit += memory.scratch[logits_of(step, cube, image, net) + k];
            }
        }
        chunk.logits[at] = logit;
    }
    let (image, s) = (first + unit / STRIP, unit % STRIP);
    let mut a = 0.0f32;
    if image < step.batch.length && hidden_unit(s) < comptime!(net.hidden) {
        a = memory.scratch[activations_of(step, image) + s];
    }
    chunk.activations[unit] = a;
}

/// The gradient by the logits of the images from `first` on. The first cube reports their losses.
#[cube]
fn logit_deltas(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    step: &StripStep,
    chunk: &mut StripChunk,
    first: usize,
    #[comptime] net: StripPlan,
) {
    #[unroll]
    for half in 0..2 {
        let at = UNIT_POS as usize + half * UNITS;
        let (image, k) = (first + at / LOGITS, at % LOGITS);
        let mut delta = 0.0f32;
        if image < step.batch.length && k < comptime!(net.classes) {
            let report = CUBE_POS_X == 0;
            let targets = comptime!(net.targets());
            delta = softmax_loss(inputs, memory, &step.batch, &chunk.logits, image, at, report, targets);
        }
        chunk.deltas[at] = delta;
    }
}

/// The gradient by the strip's sums.
#[cube]
fn hidden_deltas(memory: &StepMemory, step: &StripStep, chunk: &mut StripChunk, #[comptime] net: StripPlan) {
    let unit = UNIT_POS as usize;
    let (row, h) = (unit / STRIP, hidden_unit(unit % STRIP));
    let a = chunk.activations[unit];
    let mut sum = 0.0f32;
    if a > 0.0 {
        for k in 0..comptime!(net.classes) {
            let weight = memory.state[comptime!(net.weights[1]) + h * comptime!(net.classes) + k];
            sum += chunk.deltas[row * LOGITS + k] * weight;
        }
    }
    chunk.hidden_deltas[unit] = activation_backward(a, sum, step.scale);
}

/// Adds the gradients, times 255, of the weights from the unit's four pixels to the strip, over the images from `first` on.
#[cube]
fn add_pixel_gradients(
    inputs: &StepInputs,
    step: &StripStep,
    chunk: &StripChunk,
    sums: &mut Array<f32>,
    first: usize,
    #[comptime] net: StripPlan,
) {
    let words = comptime!(net.inputs.div_ceil(4));
    let unit = UNIT_POS as usize;
    if unit < words {
        for row in 0..IMAGES {
            if first + row < step.batch.length {
                let image = inputs.order[step.batch.begin + first + row] as usize;
                let word = inputs.pixels[image * words + unit];
                #[unroll]
                for p in 0..4 {
                    let x = f32::cast_from((word >> (8 * p as u32)) & 255);
                    #[unroll]
                    for s in 0..STRIP {
                        sums[p * STRIP + s] += x * chunk.hidden_deltas[row * STRIP + s];
                    }
                }
            }
        }
    }
}

/// `sum` and the unit's other gradient over the images of the chunk: of a weight to a logit, of a bias of the strip, or of a
/// bias of the last layer.
#[cube]
fn add_other_gradient(chunk: &StripChunk, sum: f32) -> f32 {
    let mut sum = sum;
    let unit = UNIT_POS as usize;
    let (s, k) = ((unit / LOGITS) % STRIP, unit % LOGITS);
    if unit < STRIP * LOGITS {
        for row in 0..IMAGES {
            sum += chunk.activations[row * STRIP + s] * chunk.deltas[row * LOGITS + k];
        }
    } else if unit < STRIP * LOGITS + STRIP {
        for row in 0..IMAGES {
            sum += chunk.hidden_deltas[row * STRIP + unit % STRIP];
        }
    } else if unit >= LAST_BIASES && unit < LAST_BIASES + LOGITS {
        for row in 0..IMAGES {
            sum += chunk.deltas[row * LOGITS + k];
        }
    }
    sum
}

/// The optimizer's step on the weights from the unit's four pixels to the strip.
#[cube]
fn update_pixel_weights(
    memory: &mut StepMemory,
    sums: &Array<f32>,
    rates: &GpuRates,
    #[comptime] net: StripPlan,
    #[comptime] plan: UpdatePlan,
) {
    #[unroll]
    for p in 0..4 {
        #[unroll]
        for s in 0..STRIP {
            let (i, h) = (4 * UNIT_POS as usize + p, hidden_unit(s));
            if i < comptime!(net.inputs) && h < comptime!(net.hidden) {
                let at = comptime!(net.weights[0]) + i * comptime!(net.hidden) + h;
                optimize(memory, at, sums[p * STRIP + s] / 255.0, rates, plan);
            }
        }
    }
}

/// The optimizer's step on the parameter of the unit's other gradient `g`.
#[cube]
fn update_others(
    memory: &mut StepMemory,
    step: &StripStep,
    g: f32,
    rates: &GpuRates,
    #[comptime] net: StripPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (hidden, classes) = comptime!((net.hidden, net.classes));
    let unit = UNIT_POS as usize;
    let k = unit % LOGITS;
    if unit < STRIP * LOGITS {
        let h = hidden_unit(unit / LOGITS);
        if k < classes && h < hidden {
            optimize(memory, comptime!(net.weights[1]) + h * classes + k, g, rates, plan);
        }
    } else if unit < STRIP * LOGITS + STRIP {
        let h = hidden_unit(unit % STRIP);
        if h < hidden {
            optimize(memory, comptime!(net.biases[0]) + h, g, rates, plan);
        }
    } else if CUBE_POS_X == 0 && unit >= LAST_BIASES && unit < LAST_BIASES + classes {
        let at = comptime!(net.biases[1]) + k;
        optimize(memory, at, g, rates, plan);
        memory.scratch[biases_of(1 - step.turn, step.rows, net) + k] = memory.state[at];
    }
}

/// From the images to the strip's share of the logits.
#[cube]
fn begin_step(inputs: &StepInputs, memory: &mut StepMemory, step: &StripStep, #[comptime] net: StripPlan) {
    let mut weights = Shared::<[f32]>::new_slice(STRETCH * 4 * STRIP);
    let mut images = Shared::<[u32]>::new_slice(STRETCH * IMAGES);
    let mut activations = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let (row, s) = (unit / STRIP, unit % STRIP);

    for number in 0..step.batch.length.div_ceil(IMAGES) {
        let first = number * IMAGES;
        let mut z = 0.0f32;
        for stretch in 0..comptime!(net.inputs.div_ceil(4).div_ceil(STRETCH)) {
            load_weights(memory, &mut weights, stretch, net);
            load_images(inputs, step, &mut images, first, stretch, net);
            sync_cube();
            for word in 0..STRETCH {
                let four = images[row * STRETCH + word];
                // Four of five pixels are black.
                if four != 0 {
                    #[unroll]
                    for p in 0..4 {
                        let x = f32::cast_from((four >> (8 * p as u32)) & 255);
                        z += x * weights[(4 * word + p) * STRIP + s];
                    }
                }
            }
            sync_cube();
        }

        let (image, h) = (first + row, hidden_unit(s));
        let mut a = 0.0f32;
        if image < step.batch.length && h < comptime!(net.hidden) {
            let z = z / 255.0 + memory.state[comptime!(net.biases[0]) + h];
            a = activation(inputs, &step.batch, z, image * comptime!(net.hidden) + h, step.scale, 0usize);
            memory.scratch[activations_of(step, image) + s] = a;
        }
        activations[unit] = a;
        sync_cube();
        logit_shares(memory, step, &activations, first, net);
        sync_cube();
    }
}

/// Puts the weights of a stretch of the pixels to the strip into shared memory, (4 STRETCH, S).
#[cube]
fn load_weights(memory: &StepMemory, weights: &mut Shared<[f32]>, stretch: usize, #[comptime] net: StripPlan) {
    for round in 0..comptime!((STRETCH * 4 * STRIP).div_ceil(UNITS)) {
        let at = round * UNITS + UNIT_POS as usize;
        let (i, h) = (stretch * 4 * STRETCH + at / STRIP, hidden_unit(at % STRIP));
        if at < STRETCH * 4 * STRIP {
            let mut weight = 0.0f32;
            if i < comptime!(net.inputs) && h < comptime!(net.hidden) {
                weight = memory.state[comptime!(net.weights[0]) + i * comptime!(net.hidden) + h];
            }
            weights[at] = weight;
        }
    }
}

/// Puts a stretch of the pixels of the images from `first` on into shared memory, (IMAGES, STRETCH).
#[cube]
fn load_images(
    inputs: &StepInputs,
    step: &StripStep,
    images: &mut Shared<[u32]>,
    first: usize,
    stretch: usize,
    #[comptime] net: StripPlan,
) {
    let words = comptime!(net.inputs.div_ceil(4));
    for round in 0..comptime!((STRETCH * IMAGES).div_ceil(UNITS)) {
        let at = round * UNITS + UNIT_POS as usize;
        let (image, word) = (first + at / STRETCH, stretch * STRETCH + at % STRETCH);
        if at < STRETCH * IMAGES {
            let mut four = 0u32;
            if image < step.batch.length && word < words {
                four = inputs.pixels[inputs.order[step.batch.begin + image] as usize * words + word];
            }
            images[at] = four;
        }
    }
}

/// The strip's share of the logits of the images from `first` on.
#[cube]
fn logit_shares(
    memory: &mut StepMemory,
    step: &StripStep,
    activations: &Shared<[f32]>,
    first: usize,
    #[comptime] net: StripPlan,
) {
    let (hidden, classes) = comptime!((net.hidden, net.classes));
    #[unroll]
    for half in 0..2 {
        let at = UNIT_POS as usize + half * UNITS;
        let (row, k) = (at / LOGITS, at % LOGITS);
        let image = first + row;
        if image < step.batch.length && k < classes {
            let mut logit = 0.0f32;
            for s in 0..STRIP {
                let h = hidden_unit(s);
                if h < hidden {
                    let weight = memory.state[comptime!(net.weights[1]) + h * classes + k];
                    logit += activations[row * STRIP + s] * weight;
                }
            }
            memory.scratch[logits_of(step, CUBE_POS_X as usize, image, net) + k] = logit;
        }
    }
}
