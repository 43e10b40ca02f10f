//! The kernels of a step, in CubeCL. Each is compiled for the network at hand when it is first launched.
//!
//! A cube (workgroup) is 16 x 16 units. `forward`, `backward` and `update` are matrix products: a cube makes one tile of
//! the result, (16 R, 16 R), each unit R x R numbers of it, and goes through the inner dimension 16 at a time, with both
//! operands in shared memory. What comes before and after the product is fused with it: fetching the batch's images,
//! bias, ReLU and dropout, the optimizer.
//!
//! Sums have one fixed order and no atomics are used: the same inputs give the same bits.

use cubecl::prelude::*;

use crate::engine::dropout::DropoutMask;
use crate::optim::{self, OptimizerKind};

/// Units along each side of a cube, and how far a product goes through its inner dimension at a time.
pub const SIDE: usize = 16;
/// Units of a cube.
pub const UNITS: usize = SIDE * SIDE;

const BETA_1: f32 = optim::BETA_1 as f32;
const BETA_2: f32 = optim::BETA_2 as f32;
const RHO: f32 = optim::RHO as f32;
const EPSILON: f32 = optim::EPSILON as f32;
const FACTORS: [u32; 2] = DropoutMask::FACTORS;
const FACTOR_0: u32 = FACTORS[0];
const FACTOR_1: u32 = FACTORS[1];

/// Where a step's numbers stand in the plan's records.
pub const BEGIN: usize = 0;
pub const LENGTH: usize = 1;
pub const ADAM_STEP_SIZE: usize = 2;
/// Dropout: units whose hash is below are dropped.
pub const THRESHOLD: usize = 3;
/// Two for each hidden layer, from here on.
pub const MASK_KEYS: usize = 4;

/// What kernels are made for; all but `edge` follows from the network and the size of the scratch memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerPlan {
    /// I and O.
    pub inputs: usize,
    pub outputs: usize,
    /// Where the weights (I,O) begin in the state; the biases (O) follow them.
    pub weights: usize,
    /// Where the layer's inputs begin in the scratch memory; the first layer's are pixels.
    pub activations_in: Option<usize>,
    /// The same for its outputs, of hidden layers.
    pub activations_out: usize,
    /// Where the loss's gradients by the layer's inputs (before ReLU) and by its outputs go.
    pub deltas_in: usize,
    pub deltas_out: usize,
    /// Its place among the layers.
    pub index: usize,
    /// Numbers of a record of the plan.
    pub record: usize,
    /// P.
    pub parameters: usize,
    /// R.
    pub edge: usize,
}

/// The optimizer's numbers.
#[derive(CubeType, CubeLaunch)]
pub struct Rates {
    pub learning_rate: f32,
    pub momentum: f32,
    pub decay: f32,
}

/// How the optimizer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpdatePlan {
    pub kind: OptimizerKind,
    pub nesterov: bool,
    pub momentum: bool,
    pub decay: bool,
}

/// Pixel `at` of an image, from 0 to 1; four to a word, the first lowest.
#[cube]
fn pixel(pixels: &[u32], image: usize, at: usize, #[comptime] inputs: usize) -> f32 {
    let words = comptime!(inputs.div_ceil(4));
    let word = pixels[image * words + at / 4];
    let shift = u32::cast_from(at % 4) * 8;
    f32::cast_from((word >> shift) & 255) / 255.0
}

/// Adds to `sums` (R,R) the products of a stretch of both operands: `left` (16,16R) and `right` (16,16R).
#[cube]
fn multiply(left: &Shared<[f32]>, right: &Shared<[f32]>, sums: &mut Array<f32>, #[comptime] edge: usize) {
    let (x, y) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    for k in 0..SIDE {
        let row = k * SIDE * edge;
        #[unroll]
        for r in 0..edge {
            let a = left[row + y + r * SIDE];
            #[unroll]
            for c in 0..edge {
                sums[r * edge + c] += a * right[row + x + c * SIDE];
            }
        }
    }
}

/// Whether dropout keeps the unit: [`DropoutMask::keeps`].
#[cube]
pub fn keeps(unit: u32, key_0: u32, key_1: u32, threshold: u32) -> bool {
    let mut x = unit ^ key_0;
    x = x ^ (x >> 16);
    x = (x * FACTOR_0) ^ key_1;
    x = x ^ (x >> 15);
    x *= FACTOR_1;
    x = x ^ (x >> 16);
    x >= threshold
}

/// A hidden layer: `(B,I) x (I,O) + (O)`, ReLU, dropout. The first one fetches its images. Without `training` the batch is
/// the first `length` images, and nothing is dropped.
#[cube(launch_unchecked)]
pub fn forward(
    pixels: &[u32],
    order: &[u32],
    plan: &[u32],
    state: &[f32],
    scratch: &mut [f32],
    step: usize,
    kept: f32,
    #[comptime] layer: LayerPlan,
    #[comptime] training: bool,
) {
    let edge = comptime!(layer.edge);
    let (tile, inputs, outputs) = comptime!((SIDE * layer.edge, layer.inputs, layer.outputs));
    let mut left = Shared::<[f32]>::new_slice(SIDE * tile);
    let mut right = Shared::<[f32]>::new_slice(SIDE * tile);
    let record = step * comptime!(layer.record);
    let (begin, length) = (plan[record + BEGIN] as usize, plan[record + LENGTH] as usize);
    let (first_row, first_column) = (CUBE_POS_Y as usize * tile, CUBE_POS_X as usize * tile);
    let mut sums = Array::<f32>::new(comptime!(edge * edge));
    #[unroll]
    for i in 0..comptime!(edge * edge) {
        sums[i] = 0.0;
    }

    for stretch in 0..comptime!(inputs.div_ceil(SIDE)) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            // Images go along the inner dimension, weights along the outputs.
            let (k, row) = (at % SIDE, at / SIDE);
            let (i, image) = (stretch * SIDE + k, first_row + row);
            let mut value = 0.0f32;
            if i < inputs && image < length {
                if comptime!(layer.activations_in.is_some()) {
                    value = scratch[comptime!(layer.activations_in.unwrap_or_default()) + image * inputs + i];
                } else if comptime!(training) {
                    value = pixel(pixels, order[begin + image] as usize, i, inputs);
                } else {
                    value = pixel(pixels, image, i, inputs);
                }
            }
            left[k * tile + row] = value;
            let (k, column) = (at / tile, at % tile);
            let (i, o) = (stretch * SIDE + k, first_column + column);
            let mut value = 0.0f32;
            if i < inputs && o < outputs {
                value = state[comptime!(layer.weights) + i * outputs + o];
            }
            right[k * tile + column] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, edge);
        sync_cube();
    }

    let key = record + comptime!(MASK_KEYS + 2 * layer.index);
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let image = first_row + UNIT_POS_Y as usize + r * SIDE;
            let o = first_column + UNIT_POS_X as usize + c * SIDE;
            if image < length && o < outputs {
                let mut z = sums[r * edge + c] + state[comptime!(layer.weights + inputs * outputs) + o];
                z = z.max(0.0);
                if comptime!(training) {
                    let unit = u32::cast_from(image * outputs + o);
                    let keep = keeps(unit, plan[key], plan[key + 1], plan[record + THRESHOLD]);
                    z = select(keep, z * kept, 0.0);
                }
                scratch[comptime!(layer.activations_out) + image * outputs + o] = z;
            }
        }
    }
}

/// The last layer for 16 images a cube, one class a unit: logits, softmax, loss, their gradient, and the gradient by the
/// last hidden layer's outputs. Without `training` only logits, (N,K) into `scores`; with it `scores` gets loss and
/// correctness (0 or 1) of each image, at its place in the order.
#[cube(launch_unchecked)]
pub fn head(
    pixels: &[u32],
    order: &[u32],
    labels: &[u32],
    plan: &[u32],
    state: &[f32],
    scratch: &mut [f32],
    scores: &mut [f32],
    step: usize,
    kept: f32,
    #[comptime] layer: LayerPlan,
    #[comptime] training: bool,
) {
    let (inputs, classes) = comptime!((layer.inputs, layer.outputs));
    let mut logits = Shared::<[f32]>::new_slice(UNITS);
    let mut deltas = Shared::<[f32]>::new_slice(UNITS);
    let record = step * comptime!(layer.record);
    let (begin, length) = (plan[record + BEGIN] as usize, plan[record + LENGTH] as usize);
    let (class, row) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let image = CUBE_POS_X as usize * SIDE + row;
    let weights = comptime!(layer.weights);
    let there = image < length && class < classes;

    let mut logit = 0.0f32;
    if there {
        for i in 0..inputs {
            let a = if comptime!(layer.activations_in.is_some()) {
                scratch[comptime!(layer.activations_in.unwrap_or_default()) + image * inputs + i]
            } else if comptime!(training) {
                pixel(pixels, order[begin + image] as usize, i, inputs)
            } else {
                pixel(pixels, image, i, inputs)
            };
            logit += a * state[weights + i * classes + class];
        }
        logit += state[comptime!(layer.weights + inputs * classes) + class];
    }
    logits[row * SIDE + class] = logit;
    sync_cube();

    if comptime!(!training) {
        if there {
            scores[image * classes + class] = logit;
        }
    } else {
        let mut delta = 0.0f32;
        if there {
            let label = labels[order[begin + image] as usize] as usize;
            let mut highest = logits[row * SIDE];
            let mut answer = 0usize;
            for k in 1..classes {
                let other = logits[row * SIDE + k];
                if other > highest {
                    highest = other;
                    answer = k;
                }
            }
            let mut sum = 0.0f32;
            for k in 0..classes {
                sum += (logits[row * SIDE + k] - highest).exp();
            }
            delta = (logit - highest).exp() / sum;
            if class == label {
                delta -= 1.0;
                let place = 2 * (begin + image);
                scores[place] = sum.ln() + highest - logit;
                scores[place + 1] = select(answer == label, 1.0f32, 0.0f32);
            }
            delta /= f32::cast_from(length);
            scratch[comptime!(layer.deltas_out) + image * classes + class] = delta;
        }
        deltas[row * SIDE + class] = delta;
        sync_cube();

        if comptime!(layer.activations_in.is_some()) {
            let unit = UNIT_POS as usize;
            for round in 0..comptime!((SIDE * inputs).div_ceil(UNITS)) {
                let at = round * UNITS + unit;
                let (row, i) = (at / inputs, at % inputs);
                let image = CUBE_POS_X as usize * SIDE + row;
                if row < SIDE && image < length {
                    let place = image * inputs + i;
                    let mut sum = 0.0f32;
                    // An activation that is zero was cut by ReLU or dropped: nothing flows back through it.
                    if scratch[comptime!(layer.activations_in.unwrap_or_default()) + place] > 0.0 {
                        for k in 0..classes {
                            sum += deltas[row * SIDE + k] * state[weights + i * classes + k];
                        }
                    }
                    scratch[comptime!(layer.deltas_in) + place] = sum * kept;
                }
            }
        }
    }
}

/// From the gradient by a hidden layer's outputs (B,O) to that by the outputs of the hidden layer before it, (B,I).
#[cube(launch_unchecked)]
pub fn backward(
    plan: &[u32],
    state: &[f32],
    scratch: &mut [f32],
    step: usize,
    kept: f32,
    #[comptime] layer: LayerPlan,
) {
    let edge = comptime!(layer.edge);
    let (tile, inputs, outputs) = comptime!((SIDE * layer.edge, layer.inputs, layer.outputs));
    let mut left = Shared::<[f32]>::new_slice(SIDE * tile);
    let mut right = Shared::<[f32]>::new_slice(SIDE * tile);
    let length = plan[step * comptime!(layer.record) + LENGTH] as usize;
    let (first_row, first_column) = (CUBE_POS_Y as usize * tile, CUBE_POS_X as usize * tile);
    let mut sums = Array::<f32>::new(comptime!(edge * edge));
    #[unroll]
    for i in 0..comptime!(edge * edge) {
        sums[i] = 0.0;
    }

    for stretch in 0..comptime!(outputs.div_ceil(SIDE)) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            let (k, row) = (at % SIDE, at / SIDE);
            let o = stretch * SIDE + k;
            let mut value = 0.0f32;
            if o < outputs && first_row + row < length {
                value = scratch[comptime!(layer.deltas_out) + (first_row + row) * outputs + o];
            }
            left[k * tile + row] = value;
            let mut value = 0.0f32;
            if o < outputs && first_column + row < inputs {
                value = state[comptime!(layer.weights) + (first_column + row) * outputs + o];
            }
            right[k * tile + row] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, edge);
        sync_cube();
    }

    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let image = first_row + UNIT_POS_Y as usize + r * SIDE;
            let i = first_column + UNIT_POS_X as usize + c * SIDE;
            if image < length && i < inputs {
                let place = image * inputs + i;
                let lit = scratch[comptime!(layer.activations_in.unwrap_or_default()) + place] > 0.0;
                scratch[comptime!(layer.deltas_in) + place] = select(lit, sums[r * edge + c] * kept, 0.0);
            }
        }
    }
}

/// A layer's gradient, `(I+1,B) x (B,O)`, and the optimizer's step on it in place. Row I is the biases', as if they had an
/// input that is always 1; they follow the weights in the state too.
#[cube(launch_unchecked)]
pub fn update(
    pixels: &[u32],
    order: &[u32],
    plan: &[u32],
    state: &mut [f32],
    scratch: &[f32],
    step: usize,
    rates: Rates,
    #[comptime] layer: LayerPlan,
    #[comptime] optimizer: UpdatePlan,
) {
    let edge = comptime!(layer.edge);
    let (tile, inputs, outputs) = comptime!((SIDE * layer.edge, layer.inputs, layer.outputs));
    let mut left = Shared::<[f32]>::new_slice(SIDE * tile);
    let mut right = Shared::<[f32]>::new_slice(SIDE * tile);
    let record = step * comptime!(layer.record);
    let (begin, length) = (plan[record + BEGIN] as usize, plan[record + LENGTH] as usize);
    let (first_row, first_column) = (CUBE_POS_Y as usize * tile, CUBE_POS_X as usize * tile);
    let mut sums = Array::<f32>::new(comptime!(edge * edge));
    #[unroll]
    for i in 0..comptime!(edge * edge) {
        sums[i] = 0.0;
    }

    for stretch in 0..length.div_ceil(SIDE) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            let (k, row) = (at / tile, at % tile);
            let image = stretch * SIDE + k;
            let (i, o) = (first_row + row, first_column + row);
            let mut value = 0.0f32;
            if image < length && i < inputs {
                if comptime!(layer.activations_in.is_some()) {
                    value = scratch[comptime!(layer.activations_in.unwrap_or_default()) + image * inputs + i];
                } else {
                    value = pixel(pixels, order[begin + image] as usize, i, inputs);
                }
            }
            if image < length && i == inputs {
                value = 1.0;
            }
            left[k * tile + row] = value;
            let mut value = 0.0f32;
            if image < length && o < outputs {
                value = scratch[comptime!(layer.deltas_out) + image * outputs + o];
            }
            right[k * tile + row] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, edge);
        sync_cube();
    }

    let adam_step_size = f32::reinterpret(plan[record + ADAM_STEP_SIZE]);
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let i = first_row + UNIT_POS_Y as usize + r * SIDE;
            let o = first_column + UNIT_POS_X as usize + c * SIDE;
            if i <= inputs && o < outputs {
                let at = comptime!(layer.weights) + i * outputs + o;
                let parameters = comptime!(layer.parameters);
                optimize(state, at, sums[r * edge + c], &rates, adam_step_size, parameters, optimizer);
            }
        }
    }
}

/// [`crate::optim::OptimizerSettings::update`] of the parameter at `at`, whose slots are one and two P further on.
#[cube]
pub fn optimize(
    state: &mut [f32],
    at: usize,
    g: f32,
    rates: &Rates,
    adam_step_size: f32,
    #[comptime] parameters: usize,
    #[comptime] optimizer: UpdatePlan,
) {
    let mut w = state[at];
    if comptime!(optimizer.decay) {
        w *= rates.decay;
    }
    let (first, second) = (at + parameters, at + comptime!(2 * parameters));
    match comptime!(optimizer.kind) {
        OptimizerKind::Adam | OptimizerKind::AdamW => {
            let m = state[first] + (g - state[first]) * (1.0 - BETA_1);
            let v = state[second] + (g * g - state[second]) * (1.0 - BETA_2);
            state[first] = m;
            state[second] = v;
            w -= adam_step_size * m / (v.sqrt() + EPSILON);
        }
        OptimizerKind::Sgd => {
            let change = rates.learning_rate * g;
            if comptime!(optimizer.momentum) {
                let m = rates.momentum * state[first] - change;
                state[first] = m;
                if comptime!(optimizer.nesterov) {
                    w += rates.momentum * m - change;
                } else {
                    w += m;
                }
            } else {
                w -= change;
            }
        }
        OptimizerKind::RmsProp => {
            let v = RHO * state[first] + (1.0 - RHO) * g * g;
            state[first] = v;
            let change = rates.learning_rate * g / (v + EPSILON).sqrt();
            if comptime!(optimizer.momentum) {
                let m = rates.momentum * state[second] + change;
                state[second] = m;
                w -= m;
            } else {
                w -= change;
            }
        }
        OptimizerKind::Adagrad => {
            let sum = state[first] + g * g;
            state[first] = sum;
            w -= rates.learning_rate * g / (sum + EPSILON).sqrt();
        }
    }
    state[at] = w;
}
