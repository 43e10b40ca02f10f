//! Launches kernels: they are written into the device's queue, and nothing waits for them.

#![expect(unsafe_code, reason = "kernels index buffers unchecked")]

use std::ops::Range;

use cubecl::client::Client;
use cubecl::prelude::*;

use super::kernels::{StepInputsLaunch, StepMemoryLaunch};
use super::memory::{DeviceBuffer, GpuEpoch};
use super::plan::{LayerPlan, NetworkPlan, SIDE, StripPlan, UNITS, tiles};
use super::strip::StripStepsLaunch;
use super::{layers, strip};
use crate::engine::dropout;

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
    /// Indices below N, the plan of the steps, the scores.
    pub epoch: &'a GpuEpoch,
    /// (1 + slots, P).
    pub state: &'a DeviceBuffer,
    /// As long as the plan says.
    pub scratch: &'a DeviceBuffer,
}

impl StepQueue<'_> {
    /// Queues the training steps with these numbers of the epoch, with batches of at most `rows` images.
    pub fn train(&self, steps: Range<usize>, rows: usize) {
        match self.plan.strip {
            None => steps.for_each(|step| self.step(step, rows)),
            // A launch ends one step and begins the next.
            Some(strip) => (steps.start..=steps.end).for_each(|step| self.strip(step, &steps, strip)),
        }
    }

    /// Queues an evaluation of the epoch's only batch, of `rows` images: logits (N,K) into the scores.
    pub fn evaluate(&self, rows: usize) {
        let last = self.forward(0, rows, 1.0);
        // SAFETY: the plan's record says B = `rows`, the order has B indices below N, and the scores have (B,K) numbers. The
        // kernel checks image and class against B and K, and the scratch memory has space for batches of B.
        unsafe {
            let count = images_count(rows);
            layers::logits::launch_unchecked(self.client, count, square(), self.inputs(), self.memory(), last);
        }
    }

    /// Queues a training step, layer by layer.
    fn step(&self, step: usize, rows: usize) {
        let last = self.forward(step, rows, self.scale());
        // SAFETY: as in `forward`; besides, the kernel reads the labels (N) of the batch's images, and writes two scores for
        // each index of the order, for which the scores have place.
        unsafe {
            let (inputs, memory) = (self.inputs(), self.memory());
            layers::loss::launch_unchecked(
                self.client,
                images_count(rows),
                square(),
                inputs,
                memory,
                step,
                self.scale(),
                last,
            );
        }
        let hidden = &self.plan.layers[..self.plan.layers.len() - 1];
        for layer in hidden.iter().skip(1).rev() {
            self.backward(step, rows, layer);
        }
        for layer in &self.plan.layers {
            self.update(step, layer);
        }
    }

    /// Queues the hidden layers of a step and returns the last layer.
    fn forward(&self, step: usize, rows: usize, scale: f32) -> LayerPlan {
        let (last, hidden) = self.plan.layers.split_last().expect("a network has at least one layer");
        for layer in hidden {
            let (count, layer) = tiles(layer, rows, layer.outputs);
            // SAFETY: the step is one of the plan's. The order has the B indices that its record names, each below N. The
            // kernel checks images against B, inputs against I and outputs against O, and the state and the scratch memory
            // were taken by the plan that the layer is from, for batches of at least B.
            unsafe {
                let (inputs, memory) = (self.inputs(), self.memory());
                layers::forward::launch_unchecked(
                    self.client,
                    cubes(count),
                    square(),
                    inputs,
                    memory,
                    step,
                    scale,
                    layer,
                );
            }
        }
        *last
    }

    fn backward(&self, step: usize, rows: usize, layer: &LayerPlan) {
        let (count, layer) = tiles(layer, rows, layer.inputs);
        // SAFETY: as in `forward`; the kernel reads neither images nor order.
        unsafe {
            let (inputs, memory, scale) = (self.inputs(), self.memory(), self.scale());
            layers::backward::launch_unchecked(self.client, cubes(count), square(), inputs, memory, step, scale, layer);
        }
    }

    fn update(&self, step: usize, layer: &LayerPlan) {
        let (count, layer) = tiles(layer, layer.inputs + 1, layer.outputs);
        // SAFETY: as in `forward`; besides, the kernel writes the layer's parameters (I+1,O) and their slots, for which the
        // state has place: it was made for this optimizer.
        unsafe {
            layers::update::launch_unchecked(
                self.client,
                cubes(count),
                square(),
                self.inputs(),
                self.memory(),
                step,
                layer,
                self.plan.update,
            );
        }
    }

    /// Queues the end of step `step` - 1 and the beginning of `step`, of `steps`.
    fn strip(&self, step: usize, steps: &Range<usize>, strip: StripPlan) {
        let steps = StripStepsLaunch::new(step, steps.start, steps.end, self.plan.rows, self.scale());
        // SAFETY: the kernel works on steps of the plan alone: from `steps.start` to before `steps.end`. The order has the B
        // indices that a step's record names, each below N. The kernel checks images against B, pixels
        // against D, units against H and classes against K, and the state and the scratch memory were taken by the same
        // plan, for batches of `rows` images, which is at least B.
        unsafe {
            strip::strip::launch_unchecked(
                self.client,
                cubes([strip.cubes(), 1]),
                CubeDim::new_1d(UNITS as u32),
                self.inputs(),
                self.memory(),
                steps,
                strip,
                self.plan.update,
            );
        }
    }

    fn inputs(&self) -> StepInputsLaunch {
        let arguments = [self.pixels, self.labels, &self.epoch.order, &self.epoch.plan].map(argument);
        let [pixels, labels, order, plan] = arguments;
        StepInputsLaunch::new(pixels, labels, order, plan)
    }

    fn memory(&self) -> StepMemoryLaunch {
        let [state, scratch, scores] = [self.state, self.scratch, &self.epoch.scores].map(argument);
        StepMemoryLaunch::new(state, scratch, scores)
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

/// Cubes for the last layer of `rows` images.
fn images_count(rows: usize) -> CubeCount {
    cubes([rows.div_ceil(SIDE), 1])
}

fn cubes([x, y]: [usize; 2]) -> CubeCount {
    CubeCount::Static(x as u32, y as u32, 1)
}

/// A cube of 16 x 16 units.
fn square() -> CubeDim {
    CubeDim::new_2d(SIDE as u32, SIDE as u32)
}
