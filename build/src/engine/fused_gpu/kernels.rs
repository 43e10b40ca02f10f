//! What the kernels share: their arguments, a step's batch, dropout, softmax with its loss, the optimizer.
//!
//! Kernels are written in CubeCL. Each is compiled for the network at hand when it is first launched: arguments marked
//! `#[comptime]` are constants in the compiled kernel. A cube (workgroup) has [`super::plan::UNITS`] units (threads).
//!
//! Every sum has one fixed order, and no atomics are used: the same inputs give the same bits.

use cubecl::prelude::*;

use super::plan::{BEGIN, LENGTH, LOGITS, MASK_KEYS, RATES, THRESHOLD, Targets, UpdatePlan};
use crate::engine::dropout::DropoutMask;
use crate::optim::{GpuParameter, GpuRates, update_on_gpu};

const FACTORS: [u32; 2] = DropoutMask::FACTORS;
const FACTOR_0: u32 = FACTORS[0];
const FACTOR_1: u32 = FACTORS[1];

/// The buffers that kernels only read.
#[derive(CubeType, CubeLaunch)]
pub struct StepInputs {
    /// (N,D/4), rounded up: four pixels to a word, the first in the lowest byte.
    pub pixels: Box<[u32]>,
    /// (N).
    pub labels: Box<[u32]>,
    /// Indices of images, batch after batch.
    pub order: Box<[u32]>,
    /// A record for each step, see [`super::plan`].
    pub plan: Box<[u32]>,
}

/// The buffers that kernels change.
#[derive(CubeType, CubeLaunch)]
pub struct StepMemory {
    /// Parameters and optimizer state, (1 + slots, P).
    pub state: Box<[f32]>,
    /// Activations and gradients of one batch, see [`super::plan`].
    pub scratch: Box<[f32]>,
    /// Loss and correctness (0 or 1) of each image in the order, or in evaluation its logits.
    pub scores: Box<[f32]>,
}

// Lends the changing buffers to functions that only read them: CubeCL does it for its own types alone.
impl<'a> From<&'a mut StepMemoryExpand> for &'a StepMemoryExpand {
    fn from(memory: &'a mut StepMemoryExpand) -> Self {
        memory
    }
}

/// The batch of a step.
#[derive(CubeType)]
pub struct StepBatch {
    /// Where the step's record begins in the plan.
    pub record: usize,
    /// Where the batch begins in the order.
    pub begin: usize,
    /// B.
    pub length: usize,
}

/// The batch of `step`, of a plan whose records have `record` words.
#[cube]
pub fn batch_of(inputs: &StepInputs, step: usize, #[comptime] record: usize) -> StepBatch {
    let record = step * record;
    StepBatch { record, begin: inputs.plan[record + BEGIN] as usize, length: inputs.plan[record + LENGTH] as usize }
}

/// Pixel `i` of image `image` of the batch, from 0 to 1.
#[cube]
pub fn pixel(inputs: &StepInputs, batch: &StepBatch, image: usize, i: usize, #[comptime] width: usize) -> f32 {
    let words = comptime!(width.div_ceil(4));
    let word = inputs.pixels[inputs.order[batch.begin + image] as usize * words + i / 4];
    let shift = u32::cast_from(i % 4) * 8;
    f32::cast_from((word >> shift) & 255) / 255.0
}

/// `length` zeros, to sum up in.
#[cube]
pub fn zeros(#[comptime] length: usize) -> Array<f32> {
    let mut sums = Array::<f32>::new(length);
    #[unroll]
    for i in 0..length {
        sums[i] = 0.0;
    }
    sums
}

/// ReLU and dropout of the sum `z` of a hidden unit. Its number `unit` counts through the activations (B,H) of hidden layer
/// `layer`; `scale` is the factor for units that dropout keeps.
#[cube]
pub fn activation(
    inputs: &StepInputs,
    batch: &StepBatch,
    z: f32,
    unit: usize,
    scale: f32,
    #[comptime] layer: usize,
) -> f32 {
    let key = batch.record + comptime!(MASK_KEYS + 2 * layer);
    let threshold = inputs.plan[batch.record + THRESHOLD];
    let keep = keeps(u32::cast_from(unit), inputs.plan[key], inputs.plan[key + 1], threshold);
    select(keep, z.max(0.0) * scale, 0.0)
}

/// [`DropoutMask::keeps`].
#[cube]
fn keeps(unit: u32, key_0: u32, key_1: u32, threshold: u32) -> bool {
    let mut x = unit ^ key_0;
    x = x ^ (x >> 16);
    x = (x * FACTOR_0) ^ key_1;
    x = x ^ (x >> 15);
    x *= FACTOR_1;
    x = x ^ (x >> 16);
    x >= threshold
}

/// Softmax and cross-entropy of image `image` of the batch: the gradient of the batch's mean loss by the logit at `at` of
/// `logits`, which holds [`LOGITS`] numbers for each image, so that `at % LOGITS` is the class. With `report`, the unit of
/// the image's label also writes loss and correctness to the scores. All units of a class below K may call it.
#[cube]
pub fn softmax_loss(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    batch: &StepBatch,
    logits: &Shared<[f32]>,
    image: usize,
    at: usize,
    report: bool,
    #[comptime] targets: Targets,
) -> f32 {
    let (classes, smoothing) = comptime!((targets.classes, f32::from_bits(targets.smoothing)));
    let class = at % LOGITS;
    let first = at - class;
    let label = inputs.labels[inputs.order[batch.begin + image] as usize] as usize;
    let mut highest = logits[first];
    let mut answer = 0usize;
    for other in 1..classes {
        let logit = logits[first + other];
        if logit > highest {
            highest = logit;
            answer = other;
        }
    }
    let mut sum = 0.0f32;
    for other in 0..classes {
        sum += (logits[first + other] - highest).exp();
    }
    let mut delta = (logits[at] - highest).exp() / sum;
    if comptime!(smoothing > 0.0) {
        delta -= f32::new(comptime!(smoothing / classes as f32));
    }
    if class == label {
        delta -= f32::new(comptime!(1.0 - smoothing));
        if report {
            let place = 2 * (batch.begin + image);
            let mut loss = sum.ln() + highest - logits[at];
            if comptime!(smoothing > 0.0) {
                let mut total = 0.0f32;
                for other in 0..classes {
                    total += logits[first + other];
                }
                let mean = total / f32::cast_from(classes);
                loss += f32::new(smoothing) * (logits[at] - mean);
            }
            memory.scores[place] = loss;
            memory.scores[place + 1] = select(answer == label, 1.0f32, 0.0f32);
        }
    }
    delta / f32::cast_from(batch.length)
}

/// The gradient by a hidden unit's sum, backward through dropout and ReLU, from the `gradient` by its output. A unit whose
/// activation is zero was cut by ReLU or dropped: nothing flows back through it.
#[cube]
pub fn activation_backward(activation: f32, gradient: f32, scale: f32) -> f32 {
    select(activation > 0.0, gradient * scale, 0.0)
}

/// The numbers of the step of `batch`, from the plan.
#[cube]
pub fn rates_of(inputs: &StepInputs, batch: &StepBatch) -> GpuRates {
    let at = batch.record + RATES;
    GpuRates {
        decay: f32::reinterpret(inputs.plan[at]),
        rate: f32::reinterpret(inputs.plan[at + 1]),
        momentum: f32::reinterpret(inputs.plan[at + 2]),
    }
}

/// [`crate::optim::OptimizerSettings::update`] of the parameter at `at` by the gradient `g`. Its slots are P and 2 P further
/// on.
#[cube]
pub fn optimize(memory: &mut StepMemory, at: usize, g: f32, rates: &GpuRates, #[comptime] plan: UpdatePlan) {
    let (first, second) = (at + comptime!(plan.parameters), at + comptime!(2 * plan.parameters));
    let mut p = GpuParameter { w: memory.state[at], slot_0: 0.0, slot_1: 0.0 };
    if comptime!(plan.slots > 0) {
        p.slot_0 = memory.state[first];
    }
    if comptime!(plan.slots > 1) {
        p.slot_1 = memory.state[second];
    }
    if comptime!(plan.decay) {
        p.w *= rates.decay;
    }
    update_on_gpu(&mut p, g, rates, plan.optimizer);
    memory.state[at] = p.w;
    if comptime!(plan.slots > 0) {
        memory.state[first] = p.slot_0;
    }
    if comptime!(plan.slots > 1) {
        memory.state[second] = p.slot_1;
    }
}
