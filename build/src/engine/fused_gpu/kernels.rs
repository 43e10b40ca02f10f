//! What the kernels share: their arguments, a step's batch, dropout, softmax with its loss, the optimizer.
//!
//! Kernels are written in CubeCL. Each is compiled for the network at hand when it is first launched: arguments marked
//! `#[comptime]` are constants in the compiled kernel. A cube (workgroup) has [`super::plan::UNITS`] units (threads).
//!
//! Every sum has one fixed order, and no atomics are used: the same inputs give the same bits.

use cubecl::prelude::*;

use super::plan::{BEGIN, FIRST, LENGTH, MASK_KEYS, MembersPlan, RATES, THRESHOLD, Targets, UpdatePlan, WHOLE};
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
    /// Parameters and optimizer state, (1 + slots, networks, P).
    pub state: Box<[f32]>,
    /// Activations and gradients of one batch, see [`super::plan`].
    pub scratch: Box<[f32]>,
    /// Loss and correctness (0 or 1) of each image in the order by each network, (images, networks, 2), or in evaluation the
    /// logits, (images, networks, K).
    pub scores: Box<[f32]>,
    /// The number of the step to work on, by turns in two copies. So launches differ only in their turn, and can be recorded.
    pub clock: Box<[u32]>,
}

// Lends the changing buffers to functions that only read them: CubeCL does it for its own types alone.
impl<'a> From<&'a mut StepMemoryExpand> for &'a StepMemoryExpand {
    fn from(memory: &'a mut StepMemoryExpand) -> Self {
        memory
    }
}

/// The number of the step to work on. Launches of one step have the same turn, 0 or 1, those of the next one the other.
#[cube]
pub fn step_of(memory: &StepMemory, turn: usize) -> usize {
    memory.clock[turn] as usize
}

/// Ends step `now`. One unit does it in one launch of the step. No launch of this step reads the other turn's copy.
#[cube]
pub fn set_next_step(memory: &mut StepMemory, turn: usize, now: usize) {
    memory.clock[1 - turn] = u32::cast_from(now + 1);
}

/// The number of this cube among those of its plane.
#[cube]
pub fn number_of_cube() -> usize {
    CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize
}

/// The batch of a step, or this GPU's share of it.
#[derive(CubeType)]
pub struct StepBatch {
    /// Where the step's record begins in the plan.
    pub record: usize,
    /// Where the dropout keys of this cube's network begin there.
    pub keys: usize,
    /// The network's number.
    pub member: usize,
    /// Where its parameters begin in the state.
    pub state: usize,
    /// Where its part of the scratch memory begins.
    pub scratch: usize,
    /// Where the share begins in the order.
    pub begin: usize,
    /// How many images it has. Kernels and plans call it B.
    pub length: usize,
    /// The place of its first image in the whole batch.
    pub first: usize,
    /// How many images the whole batch has.
    pub whole: usize,
}

/// The batch of `step` for network number `member`.
#[cube]
pub fn batch_of(inputs: &StepInputs, step: usize, member: usize, #[comptime] members: MembersPlan) -> StepBatch {
    let record = step * comptime!(members.record);
    StepBatch {
        record,
        keys: record + MASK_KEYS + member * comptime!(members.keys),
        member,
        state: member * comptime!(members.parameters),
        scratch: member * comptime!(members.scratch),
        begin: inputs.plan[record + BEGIN] as usize,
        length: inputs.plan[record + LENGTH] as usize,
        first: inputs.plan[record + FIRST] as usize,
        whole: inputs.plan[record + WHOLE] as usize,
    }
}

/// Pixel `p` of the four in `word`, from 0 to 1.
#[cube]
pub fn pixel(word: u32, p: usize) -> f32 {
    f32::cast_from((word >> (u32::cast_from(p) * 8)) & 255) / 255.0
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

/// ReLU and dropout of the sum `z` of a hidden unit. Its number `unit` counts through the activations of hidden layer `layer`
/// in the whole batch, so that the same units drop on any number of GPUs; `scale` is the factor for units that dropout keeps.
#[cube]
pub fn activation(
    inputs: &StepInputs,
    batch: &StepBatch,
    z: f32,
    unit: usize,
    scale: f32,
    #[comptime] layer: usize,
) -> f32 {
    let key = batch.keys + comptime!(2 * layer);
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

/// Softmax and cross-entropy of image `image` of the batch: the gradient of the batch's mean loss by the logit of `class`.
/// `logits` holds one for each class. The unit of the label also writes loss and correctness to the scores. All units of a
/// class below K may call it.
#[cube]
pub fn softmax_loss(
    memory: &mut StepMemory,
    batch: &StepBatch,
    logits: &Shared<[f32]>,
    class: usize,
    image: usize,
    label: usize,
    #[comptime] targets: Targets,
    #[comptime] members: MembersPlan,
) -> f32 {
    let (classes, smoothing) = comptime!((targets.classes, f32::from_bits(targets.smoothing)));
    let skipped = comptime!(f32::from_bits(targets.skip_confident));
    let mut highest = logits[0];
    let mut answer = 0usize;
    #[unroll]
    for other in 1..classes {
        let logit = logits[other];
        if logit > highest {
            highest = logit;
            answer = other;
        }
    }
    let mut sum = 0.0f32;
    #[unroll]
    for other in 0..classes {
        sum += (logits[other] - highest).exp();
    }
    let mut delta = (logits[class] - highest).exp() / sum;
    if comptime!(smoothing > 0.0) {
        delta -= f32::new(comptime!(smoothing / classes as f32));
    }
    if class == label {
        delta -= f32::new(comptime!(1.0 - smoothing));
        let place = 2 * ((batch.begin + image) * comptime!(members.count) + batch.member);
        let mut loss = sum.ln() + highest - logits[class];
        if comptime!(smoothing > 0.0) {
            let mut total = 0.0f32;
            for other in 0..classes {
                total += logits[other];
            }
            let mean = total / f32::cast_from(classes);
            loss += f32::new(smoothing) * (logits[class] - mean);
        }
        memory.scores[place] = loss;
        memory.scores[place + 1] = select(answer == label, 1.0f32, 0.0f32);
    }
    if comptime!(skipped > 0.0) {
        let probability = (logits[label] - highest).exp() / sum;
        delta = select(probability >= f32::new(skipped), 0.0f32, delta);
    }
    delta / f32::cast_from(batch.whole)
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

/// Parameters of one unit, on which the optimizer's step is done at once, so that their ways from memory overlap.
#[derive(CubeType)]
pub struct Run {
    /// Where the parameters lie in the state; [`NOWHERE`] for none.
    pub places: Array<usize>,
    pub gradients: Array<f32>,
    weights: Array<f32>,
    slots_0: Array<f32>,
    slots_1: Array<f32>,
}

/// No place in the state: no parameter.
pub const NOWHERE: usize = u32::MAX as usize;

/// A run of `length` parameters, all nowhere.
#[cube]
pub fn new_run(#[comptime] length: usize) -> Run {
    let mut places = Array::<usize>::new(length);
    #[unroll]
    for n in 0..length {
        places[n] = NOWHERE;
    }
    Run { places, gradients: zeros(length), weights: zeros(length), slots_0: zeros(length), slots_1: zeros(length) }
}

/// What a layer's gradient is made for: the optimizer's step, or where GPUs share out the batch, its place in the scratch
/// memory, from which the host takes it.
#[cube]
pub fn finish_run(
    memory: &mut StepMemory,
    run: &mut Run,
    rates: &GpuRates,
    #[comptime] length: usize,
    #[comptime] plan: UpdatePlan,
) {
    if comptime!(plan.gradient.is_some()) {
        #[unroll]
        for n in 0..length {
            let at = run.places[n];
            if at != NOWHERE {
                memory.scratch[comptime!(plan.gradient.unwrap_or_default()) + at] = run.gradients[n];
            }
        }
    } else {
        optimize_run(memory, run, rates, length, plan);
    }
}

/// [`crate::optim::OptimizerSettings::update`] of the parameters of `run`. Their slots are further on, behind the parameters of
/// all networks.
#[cube]
pub fn optimize_run(
    memory: &mut StepMemory,
    run: &mut Run,
    rates: &GpuRates,
    #[comptime] length: usize,
    #[comptime] plan: UpdatePlan,
) {
    let (first, second) = comptime!((plan.parameters, 2 * plan.parameters));
    #[unroll]
    for n in 0..length {
        let at = run.places[n];
        if at != NOWHERE {
            run.weights[n] = memory.state[at];
            if comptime!(plan.slots > 0) {
                run.slots_0[n] = memory.state[at + first];
            }
            if comptime!(plan.slots > 1) {
                run.slots_1[n] = memory.state[at + second];
            }
        }
    }
    #[unroll]
    for n in 0..length {
        let at = run.places[n];
        let mut p = GpuParameter { w: run.weights[n], slot_0: run.slots_0[n], slot_1: run.slots_1[n] };
        if comptime!(plan.decay) {
            p.w *= rates.decay;
        }
        update_on_gpu(&mut p, run.gradients[n], rates, plan.optimizer);
        if at != NOWHERE {
            memory.state[at] = p.w;
            if comptime!(plan.slots > 0) {
                memory.state[at + first] = p.slot_0;
            }
            if comptime!(plan.slots > 1) {
                memory.state[at + second] = p.slot_1;
            }
        }
    }
}
