//! Launches kernels: they are written into the device's queue, and nothing waits for them.

#![expect(unsafe_code, reason = "kernels index buffers unchecked")]

use cubecl::client::{Client, Graph};
use cubecl::prelude::*;
use cubecl::server::ServerError;

use super::kernels::{StepInputsLaunch, StepMemoryLaunch};
use super::memory::{DeviceBuffer, GpuEpoch};
use super::plan::{LayerPlan, MembersPlan, NetworkPlan, SIDE, UNITS, whole_tiles};
use super::{layers, update};
use crate::engine::dropout;

/// Cubes along x, at most. Every device can do twice as many.
const MOST_CUBES: usize = 1 << 15;

/// How many steps are recorded, to be queued at once. An even number, so that their turns stay right.
const RECORDED: usize = 16;

/// The training steps of an epoch, queued one after the other.
///
/// The runtime takes some 20 microseconds for a launch, which is longer than a small one takes on a large GPU. A recording of
/// launches is queued in a fraction of that.
pub struct EpochSteps<'a> {
    queue: StepQueue<'a>,
    /// How many images a batch has, at most.
    rows: usize,
    /// How many steps the epoch has.
    steps: usize,
    /// How many of them are queued.
    queued: usize,
    recording: Option<Graph>,
}

impl<'a> EpochSteps<'a> {
    /// `steps` steps with batches of at most `rows` images.
    pub fn new(queue: StepQueue<'a>, rows: usize, steps: usize) -> Self {
        Self { queue, rows, steps, queued: 0, recording: None }
    }

    /// Queues all steps before number `end`, or some more. Returns how many are queued.
    ///
    /// # Errors
    /// The device failed.
    pub fn advance(&mut self, end: usize) -> Result<usize, ServerError> {
        if self.queued == 0 && self.steps >= 2 + RECORDED {
            self.record();
        }
        while self.queued < end {
            match &self.recording {
                Some(recording) if self.queued.is_multiple_of(2) && self.queued + RECORDED <= end => {
                    // SAFETY: the buffers live as long as the queue that the recording was made of. Nobody else uses them, and
                    // all work is done by one client.
                    unsafe { recording.replay()? };
                    self.queued += RECORDED;
                }
                _ => self.step(),
            }
        }
        Ok(self.queued)
    }

    fn step(&mut self) {
        self.queue.step(self.queued % 2, self.rows);
        self.queued += 1;
    }

    /// Queues two steps, so that every kernel is compiled, and records the next ones without doing them. Without a recording,
    /// every launch is queued by itself.
    fn record(&mut self) {
        let client = self.queue.client;
        let prepared = client.graph_prepare();
        self.step();
        self.step();
        let recording = prepared.and_then(|()| client.start_capture()).and_then(|()| {
            (0..RECORDED).for_each(|step| self.queue.step(step % 2, self.rows));
            client.stop_capture()
        });
        self.recording = recording.ok();
    }
}

/// Everything that steps need, to launch their kernels.
pub struct StepQueue<'a> {
    pub client: &'a Client,
    pub plan: &'a NetworkPlan,
    /// The fraction of hidden activations dropped.
    pub dropout: f64,
    /// (N,D/4).
    pub pixels: &'a DeviceBuffer,
    /// (N).
    pub labels: &'a DeviceBuffer,
    /// Indices below N, the plan of the steps, the scores, the clock.
    pub epoch: &'a GpuEpoch,
    /// (1 + slots, networks, P).
    pub state: &'a DeviceBuffer,
    /// As long as the plan says.
    pub scratch: &'a DeviceBuffer,
}

impl StepQueue<'_> {
    /// Queues an evaluation of the epoch's only batch, of `rows` images: logits (N, networks, K) into the scores.
    pub fn evaluate(&self, rows: usize) {
        let last = self.forward(0, rows, 1.0);
        // SAFETY: the plan's record says B = `rows`, the order has B indices below N, and the scores have (B, networks, K)
        // numbers. The kernel checks image and class against B and K, and the scratch memory has space for batches of B.
        unsafe {
            let count = row_of_cubes(rows, last.members);
            layers::logits::launch_unchecked(self.client, count, square(), self.inputs(), self.memory(), last);
        }
    }

    /// Queues the launches of the clock's step, of a batch of at most `rows` images. Where GPUs share out the batch, it ends
    /// with the gradient.
    pub fn step(&self, turn: usize, rows: usize) {
        let last = self.forward(turn, rows, self.scale());
        // SAFETY: as in `forward`; besides, the kernel reads the labels (N) of the batch's images, and writes two scores of
        // each network for each index of the order, for which the scores have place.
        unsafe {
            let (inputs, memory) = (self.inputs(), self.memory());
            layers::loss::launch_unchecked(
                self.client,
                row_of_cubes(rows, last.members),
                square(),
                inputs,
                memory,
                turn,
                self.scale(),
                last,
            );
        }
        let hidden = &self.plan.layers[..self.plan.layers.len() - 1];
        for layer in hidden.iter().skip(1).rev() {
            self.backward(turn, rows, layer);
        }
        for (l, layer) in hidden.iter().enumerate() {
            self.update(turn, layer, (l + 1 == hidden.len() && self.plan.last_together).then_some(last));
        }
        if !self.plan.last_together {
            self.update(turn, &last, None);
        }
    }

    /// Queues the hidden layers of a step and returns the last layer.
    fn forward(&self, turn: usize, rows: usize, scale: f32) -> LayerPlan {
        let (last, hidden) = self.plan.layers.split_last().expect("a network has at least one layer");
        for layer in hidden {
            let layer = whole_tiles(layer, rows, layer.outputs);
            // SAFETY: the step is one of the plan's. The order has the B indices that its record names, each below N. The
            // kernel checks images against B, inputs against I and outputs against O, and the state and the scratch memory
            // were taken by the plan that the layer is from, for batches of at least B.
            unsafe {
                let (inputs, memory) = (self.inputs(), self.memory());
                layers::forward::launch_unchecked(
                    self.client,
                    cubes(&layer, rows, layer.outputs, 1),
                    square(),
                    inputs,
                    memory,
                    turn,
                    scale,
                    layer,
                );
            }
        }
        *last
    }

    fn backward(&self, turn: usize, rows: usize, layer: &LayerPlan) {
        let layer = whole_tiles(layer, rows, layer.inputs);
        // SAFETY: as in `forward`; the kernel reads neither images nor order.
        unsafe {
            let (inputs, memory, scale) = (self.inputs(), self.memory(), self.scale());
            let count = cubes(&layer, rows, layer.inputs, 1);
            layers::backward::launch_unchecked(self.client, count, square(), inputs, memory, turn, scale, layer);
        }
    }

    /// Queues the update of `layer`, together with that of the `last` layer, if it is given.
    fn update(&self, turn: usize, layer: &LayerPlan, last: Option<LayerPlan>) {
        let count = cubes(layer, layer.inputs + 1, layer.outputs, layer.planes(last.is_some()));
        // SAFETY: as in `forward`; besides, the kernels write the layers' parameters (I+1,O) and their slots, for which the
        // state has place: it was made for this optimizer. The scratch memory has place for the shares of the gradient, and
        // for the gradient where the plan keeps it.
        unsafe {
            let (inputs, memory, plan) = (self.inputs(), self.memory(), self.plan.update);
            update::update::launch_unchecked(self.client, count, square(), inputs, memory, turn, *layer, last, plan);
            if layer.shares > 1 {
                let count = row_of_cubes(layer.parameters().div_ceil(UNITS), layer.members);
                let (inputs, memory) = (self.inputs(), self.memory());
                update::update_by_shares::launch_unchecked(
                    self.client,
                    count,
                    square(),
                    inputs,
                    memory,
                    turn,
                    *layer,
                    plan,
                );
            }
        }
    }

    /// Queues the end of a step whose batch several GPUs have shared out. The scratch memory holds the sum of their gradients,
    /// by which the optimizer does its step.
    pub fn update_by_sum(&self, turn: usize) {
        let (plan, members) = (self.plan.update, self.plan.members());
        let count = row_of_cubes(plan.parameters.div_ceil(UNITS), members);
        // SAFETY: the step is one of the plan's. The kernel checks parameters against P. The state has P of them with their
        // slots, since it was made for this optimizer, and the scratch memory has place for a gradient (P), since it was taken
        // by a plan for several GPUs.
        unsafe {
            let (inputs, memory) = (self.inputs(), self.memory());
            update::update_by_sum::launch_unchecked(self.client, count, square(), inputs, memory, turn, members, plan);
        }
    }

    fn inputs(&self) -> StepInputsLaunch {
        let arguments = [self.pixels, self.labels, &self.epoch.order, &self.epoch.plan].map(argument);
        let [pixels, labels, order, plan] = arguments;
        StepInputsLaunch::new(pixels, labels, order, plan)
    }

    fn memory(&self) -> StepMemoryLaunch {
        let arguments = [self.state, self.scratch, &self.epoch.scores, &self.epoch.clock].map(argument);
        let [state, scratch, scores, clock] = arguments;
        StepMemoryLaunch::new(state, scratch, scores, clock)
    }

    /// The factor for units that dropout keeps.
    fn scale(&self) -> f32 {
        dropout::scale(self.dropout) as f32
    }
}

fn argument(buffer: &DeviceBuffer) -> BufferArg {
    // SAFETY: the memory was taken for this many numbers of 32 bits.
    unsafe { BufferArg::from_raw_parts(buffer.handle.clone(), buffer.length) }
}

/// So many cubes, at least, for each of the networks.
fn row_of_cubes(count: usize, members: MembersPlan) -> CubeCount {
    CubeCount::Static(count.min(MOST_CUBES) as u32, count.div_ceil(MOST_CUBES) as u32, members.count as u32)
}

/// A cube for each tile of a result (`rows`, `columns`), in so many planes for each network that has the `layer`.
fn cubes(layer: &LayerPlan, rows: usize, columns: usize, planes: usize) -> CubeCount {
    let [x, y] = [columns, rows].map(|length| length.div_ceil(layer.tile.side()) as u32);
    CubeCount::Static(x, y, (layer.members.count * planes) as u32)
}

/// A cube of 16 x 16 units.
fn square() -> CubeDim {
    CubeDim::new_2d(SIDE as u32, SIDE as u32)
}
