//! A whole step in one launch, for networks with one hidden layer that is not wide.
//!
//! A cube owns a strip of 8 hidden units: their weights, their biases, and the weights from them to the logits. All it
//! needs from the other cubes are their shares of the logits. So there is one point in a step at which all must have
//! come: between the forward pass and the softmax. One launch goes from there to there:
//!
//! ```text
//! launch t:   sum of all cubes' logits of step t-1, softmax, loss, gradient      (each cube for itself)
//!             gradients of the strip, optimizer in place                         (end of step t-1)
//!             forward pass of the strip on batch t, with what was just updated
//!             the strip's share of the logits of step t, for the next launch
//! ```
//!
//! What one launch writes and another cube reads has two places, used in turn, since a cube may be ahead of another by
//! one launch's end: the logits, and the last layer's biases, which the first cube alone updates.

#![expect(clippy::manual_range_contains, reason = "kernels know no such method")]

use cubecl::prelude::*;

use super::kernels::*;

/// S: hidden units of a cube.
pub const STRIP: usize = 8;
/// Images that are worked on at a time: one for each unit of the strip.
const IMAGES: usize = UNITS / STRIP;
/// Places for an image's logits.
const PLACES: usize = 16;
/// Words (of four pixels) that the forward pass has in shared memory at a time.
const STRETCH: usize = 49;

/// What the kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StripPlan {
    /// D, at most 4 * 256, H and K.
    pub inputs: usize,
    pub hidden: usize,
    pub classes: usize,
    /// Where weights and biases of the first layer begin in the state, and those of the last.
    pub weights: [usize; 2],
    pub biases: [usize; 2],
    /// Numbers of a record of the plan.
    pub record: usize,
    /// P.
    pub parameters: usize,
}

impl StripPlan {
    /// Cubes.
    pub fn cubes(&self) -> usize {
        self.hidden.div_ceil(STRIP)
    }

    /// Numbers of scratch memory for batches of `rows` images (B): each cube's activations, (cubes, B, S), each cube's
    /// share of the logits, twice (cubes, B, K), the last layer's biases, twice (K).
    pub fn scratch(&self, rows: usize) -> usize {
        self.cubes() * rows * (STRIP + 2 * self.classes) + 2 * self.classes
    }
}

/// Where in the scratch memory the activations of `cube` begin.
#[cube]
fn activations_of(cube: usize, rows: usize) -> usize {
    cube * rows * STRIP
}

/// Where the logits of `image` begin in the share of `cube`.
#[cube]
fn logits_of(cube: usize, image: usize, turn: usize, rows: usize, #[comptime] net: StripPlan) -> usize {
    let cubes = comptime!(net.cubes());
    cubes * rows * STRIP + ((turn * cubes + cube) * rows + image) * comptime!(net.classes)
}

/// Where the last layer's biases begin.
#[cube]
fn biases_of(turn: usize, rows: usize, #[comptime] net: StripPlan) -> usize {
    comptime!(net.cubes()) * rows * comptime!(STRIP + 2 * net.classes) + turn * comptime!(net.classes)
}

/// See the module: the launch between steps `step` - 1 and `step` of those from `first` to `end`.
#[cube(launch_unchecked)]
pub fn strip(
    pixels: &[u32],
    order: &[u32],
    labels: &[u32],
    plan: &[u32],
    state: &mut [f32],
    scratch: &mut [f32],
    scores: &mut [f32],
    step: usize,
    first: usize,
    end: usize,
    rows: usize,
    kept: f32,
    rates: Rates,
    #[comptime] net: StripPlan,
    #[comptime] optimizer: UpdatePlan,
) {
    if step > first {
        finish_step(pixels, order, labels, plan, state, scratch, scores, step - 1, rows, kept, &rates, net, optimizer);
    }
    // The strip's weights, as this cube has just written them.
    sync_storage();
    if step < end {
        if step == first && CUBE_POS_X == 0 && UNIT_POS < comptime!(net.classes as u32) {
            let k = UNIT_POS as usize;
            scratch[biases_of(step % 2, rows, net) + k] = state[comptime!(net.biases[1]) + k];
        }
        begin_step(pixels, order, plan, state, scratch, step, rows, kept, net);
    }
}

/// From the logits to the updated strip.
#[cube]
fn finish_step(
    pixels: &[u32],
    order: &[u32],
    labels: &[u32],
    plan: &[u32],
    state: &mut [f32],
    scratch: &mut [f32],
    scores: &mut [f32],
    step: usize,
    rows: usize,
    kept: f32,
    rates: &Rates,
    #[comptime] net: StripPlan,
    #[comptime] optimizer: UpdatePlan,
) {
    let (inputs, hidden, classes) = comptime!((net.inputs, net.hidden, net.classes));
    let words = comptime!(net.inputs.div_ceil(4));
    let mut logits = Shared::<[f32]>::new_slice(IMAGES * PLACES);
    let mut deltas = Shared::<[f32]>::new_slice(IMAGES * PLACES);
    let mut activations = Shared::<[f32]>::new_slice(UNITS);
    let mut hidden_deltas = Shared::<[f32]>::new_slice(UNITS);
    let record = step * comptime!(net.record);
    let (first, length) = (plan[record + BEGIN] as usize, plan[record + LENGTH] as usize);
    let (cube, unit) = (CUBE_POS_X as usize, UNIT_POS as usize);
    let (row, s) = (unit / STRIP, unit % STRIP);
    let h = cube * STRIP + s;
    let turn = step % 2;
    let biases = biases_of(turn, rows, net);

    // Each unit sums the gradients of four pixels' weights, and one of the small rest: of the weights to the logits (0 to
    // 127), of the strip's biases (128 to 135), of the last layer's biases (from 144 on).
    let mut sums = Array::<f32>::new(comptime!(4 * STRIP));
    #[unroll]
    for i in 0..comptime!(4 * STRIP) {
        sums[i] = 0.0;
    }
    let mut side = 0.0f32;
    let (side_s, side_k) = ((unit / PLACES) % STRIP, unit % PLACES);

    for chunk in 0..length.div_ceil(IMAGES) {
        #[unroll]
        for half in 0..2 {
            let at = unit + half * UNITS;
            let (image, k) = (chunk * IMAGES + at / PLACES, at % PLACES);
            let mut logit = 0.0f32;
            if image < length && k < classes {
                logit = scratch[biases + k];
                for other in 0..comptime!(net.cubes()) {
                    logit += scratch[logits_of(other, image, turn, rows, net) + k];
                }
            }
            logits[at] = logit;
        }
        let image = chunk * IMAGES + row;
        let mut a = 0.0f32;
        if image < length && h < hidden {
            a = scratch[activations_of(cube, rows) + image * STRIP + s];
        }
        activations[unit] = a;
        sync_cube();

        #[unroll]
        for half in 0..2 {
            let at = unit + half * UNITS;
            let (row, k) = (at / PLACES, at % PLACES);
            let image = chunk * IMAGES + row;
            let mut delta = 0.0f32;
            if image < length && k < classes {
                let label = labels[order[first + image] as usize] as usize;
                let mut highest = logits[row * PLACES];
                let mut answer = 0usize;
                for other in 1..classes {
                    let logit = logits[row * PLACES + other];
                    if logit > highest {
                        highest = logit;
                        answer = other;
                    }
                }
                let mut sum = 0.0f32;
                for other in 0..classes {
                    sum += (logits[row * PLACES + other] - highest).exp();
                }
                delta = (logits[at] - highest).exp() / sum;
                if k == label {
                    delta -= 1.0;
                    if cube == 0 {
                        let place = 2 * (first + image);
                        scores[place] = sum.ln() + highest - logits[at];
                        scores[place + 1] = select(answer == label, 1.0f32, 0.0f32);
                    }
                }
                delta /= f32::cast_from(length);
            }
            deltas[at] = delta;
        }
        sync_cube();

        let mut sum = 0.0f32;
        // An activation that is zero was cut by ReLU or dropped: nothing flows back through it.
        if a > 0.0 {
            for k in 0..classes {
                sum += deltas[row * PLACES + k] * state[comptime!(net.weights[1]) + h * classes + k];
            }
        }
        hidden_deltas[unit] = sum * kept;
        sync_cube();

        if unit < words {
            for row in 0..IMAGES {
                let image = chunk * IMAGES + row;
                if image < length {
                    let word = pixels[order[first + image] as usize * words + unit];
                    #[unroll]
                    for p in 0..4 {
                        let x = f32::cast_from((word >> (8 * p as u32)) & 255);
                        #[unroll]
                        for s in 0..STRIP {
                            sums[p * STRIP + s] += x * hidden_deltas[row * STRIP + s];
                        }
                    }
                }
            }
        }
        if unit < STRIP * PLACES {
            for row in 0..IMAGES {
                side += activations[row * STRIP + side_s] * deltas[row * PLACES + side_k];
            }
        } else if unit < STRIP * PLACES + STRIP {
            for row in 0..IMAGES {
                side += hidden_deltas[row * STRIP + s];
            }
        } else if unit >= STRIP * PLACES + PLACES && unit < STRIP * PLACES + 2 * PLACES {
            for row in 0..IMAGES {
                side += deltas[row * PLACES + side_k];
            }
        }
        sync_cube();
    }

    let adam_step_size = f32::reinterpret(plan[record + ADAM_STEP_SIZE]);
    let parameters = comptime!(net.parameters);
    #[unroll]
    for p in 0..4 {
        #[unroll]
        for s in 0..STRIP {
            let (i, h) = (4 * unit + p, cube * STRIP + s);
            if i < inputs && h < hidden {
                let at = comptime!(net.weights[0]) + i * hidden + h;
                optimize(state, at, sums[p * STRIP + s] / 255.0, rates, adam_step_size, parameters, optimizer);
            }
        }
    }
    if unit < STRIP * PLACES {
        let h = cube * STRIP + side_s;
        if side_k < classes && h < hidden {
            let at = comptime!(net.weights[1]) + h * classes + side_k;
            optimize(state, at, side, rates, adam_step_size, parameters, optimizer);
        }
    } else if unit < STRIP * PLACES + STRIP {
        if h < hidden {
            optimize(state, comptime!(net.biases[0]) + h, side, rates, adam_step_size, parameters, optimizer);
        }
    } else if cube == 0 && unit >= STRIP * PLACES + PLACES && unit < STRIP * PLACES + PLACES + classes {
        let at = comptime!(net.biases[1]) + side_k;
        optimize(state, at, side, rates, adam_step_size, parameters, optimizer);
        scratch[biases_of(1 - turn, rows, net) + side_k] = state[at];
    }
}

/// From the images to the strip's share of the logits.
#[cube]
fn begin_step(
    pixels: &[u32],
    order: &[u32],
    plan: &[u32],
    state: &mut [f32],
    scratch: &mut [f32],
    step: usize,
    rows: usize,
    kept: f32,
    #[comptime] net: StripPlan,
) {
    let (inputs, hidden, classes) = comptime!((net.inputs, net.hidden, net.classes));
    let words = comptime!(net.inputs.div_ceil(4));
    let mut weights = Shared::<[f32]>::new_slice(STRETCH * 4 * STRIP);
    let mut images = Shared::<[u32]>::new_slice(STRETCH * IMAGES);
    let mut activations = Shared::<[f32]>::new_slice(UNITS);
    let record = step * comptime!(net.record);
    let (first, length) = (plan[record + BEGIN] as usize, plan[record + LENGTH] as usize);
    let (cube, unit) = (CUBE_POS_X as usize, UNIT_POS as usize);
    let (row, s) = (unit / STRIP, unit % STRIP);
    let h = cube * STRIP + s;
    let turn = step % 2;

    for chunk in 0..length.div_ceil(IMAGES) {
        let mut z = 0.0f32;
        for stretch in 0..comptime!(words.div_ceil(STRETCH)) {
            for round in 0..comptime!((STRETCH * 4 * STRIP).div_ceil(UNITS)) {
                let at = round * UNITS + unit;
                let (i, h) = (stretch * 4 * STRETCH + at / STRIP, cube * STRIP + at % STRIP);
                if at < STRETCH * 4 * STRIP {
                    let mut weight = 0.0f32;
                    if i < inputs && h < hidden {
                        weight = state[comptime!(net.weights[0]) + i * hidden + h];
                    }
                    weights[at] = weight;
                }
            }
            for round in 0..comptime!((STRETCH * IMAGES).div_ceil(UNITS)) {
                let at = round * UNITS + unit;
                let (image, word) = (chunk * IMAGES + at / STRETCH, stretch * STRETCH + at % STRETCH);
                if at < STRETCH * IMAGES {
                    let mut four = 0u32;
                    if image < length && word < words {
                        four = pixels[order[first + image] as usize * words + word];
                    }
                    images[at] = four;
                }
            }
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

        let image = chunk * IMAGES + row;
        let mut a = 0.0f32;
        if image < length && h < hidden {
            a = (z / 255.0 + state[comptime!(net.biases[0]) + h]).max(0.0);
            let (unit, key) = (u32::cast_from(image * hidden + h), record + MASK_KEYS);
            a = select(keeps(unit, plan[key], plan[key + 1], plan[record + THRESHOLD]), a * kept, 0.0);
            scratch[activations_of(cube, rows) + image * STRIP + s] = a;
        }
        activations[unit] = a;
        sync_cube();

        #[unroll]
        for half in 0..2 {
            let at = unit + half * UNITS;
            let (row, k) = (at / PLACES, at % PLACES);
            let image = chunk * IMAGES + row;
            if image < length && k < classes {
                let mut logit = 0.0f32;
                for s in 0..STRIP {
                    let h = cube * STRIP + s;
                    if h < hidden {
                        logit += activations[row * STRIP + s] * state[comptime!(net.weights[1]) + h * classes + k];
                    }
                }
                scratch[logits_of(cube, image, turn, rows, net) + k] = logit;
            }
        }
        sync_cube();
    }
}
