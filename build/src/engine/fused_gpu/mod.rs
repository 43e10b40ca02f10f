//! The fused engine's second home: a GPU, by kernels in CubeCL, which run on Vulkan, Metal and DX12.
//!
//! All launches are written into the device's queue without waiting, and many steps go to the driver at once. A network
//! with one hidden layer that is not wide takes one launch a step (see `strip.rs`). Any other, with L hidden layers, takes
//! 3 L + 1, or 2 without any:
//!
//! ```text
//! for each hidden layer:          forward   images of the batch or activations -> product, bias, ReLU, dropout
//! head                            last layer, softmax, loss, gradient, gradient by the last hidden layer
//! for each hidden layer but the first, from the last on:
//!                                 backward  gradient by the hidden layer before it
//! for each layer:                 update    gradient of weights and biases, optimizer in place
//! ```
//!
//! The images are on the device from the start, the order of an epoch from its start, with a plan: a record for each step
//! that says where its batch begins, how long it is, Adam's step size and the dropout masks' keys. What a step needs from
//! the host is its number. What comes back is a loss and a bit for each image, some hundred milliseconds at a time.
//!
//! What a step of the default network must do (784-128-10, batch 32, Adam), in 16 cubes:
//!
//! | part | multiply-adds | bytes read and written |
//! |---|---|---|
//! | logits summed, softmax | 0.08 M | 0.33 MB: each cube reads all 16 shares |
//! | gradient | 3.2 M | 0.4 MB of pixels, 25 kB for each cube |
//! | optimizer | | 2.4 MB: weights and two moments, each read and written |
//! | forward | 3.2 M, of which a fifth is not black | 0.8 MB: pixels and weights |
//!
//! A GPU with 16 or more multiprocessors of 128 lanes does the products in about 2 microseconds and moves the bytes, all of
//! which stay in its second-level cache, in about as many; the rest is how long one launch after another takes.

#![expect(unsafe_code, reason = "buffers are handed to kernels with their lengths")]

mod kernels;
mod strip;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;

use self::kernels::{LayerPlan, RatesLaunch, SIDE, UNITS, UpdatePlan};
use self::strip::StripPlan;
use super::adapter::{Adapter, guarded};
use super::{EngineInfo, EpochTotals, Network, Progress, Recipe, Trainer, TrainingState, one_line, steps_for, words};
use crate::data::dataset::Images;
use crate::engine::dropout::{self, DropoutMask};
use crate::error::{Error, Result};
use crate::model::Layer;
use crate::optim::KernelSettings;

/// How long the device works between two looks at the losses, about.
/// K at most: the kernels keep the logits of an image in this many registers.
const MOST_CLASSES: usize = 16;
const LOOK: Duration = Duration::from_millis(100);
/// How many activations an evaluation may take at a time.
const EVALUATION_ACTIVATIONS: usize = 1 << 22;
/// How many images, at most.
const EVALUATION_BATCH: usize = 2_000;
/// Cubes that keep a large GPU busy; where large tiles would make fewer, tiles are small.
const BUSY: usize = 256;
/// R of large tiles.
const LARGE: usize = 4;
/// Up to this width of the only hidden layer a step is one launch: each cube reads what all others made.
const NARROW: usize = 512;

/// The fused engine on a GPU.
pub struct FusedGpuEngine {
    recipe: Recipe,
    adapter: Adapter,
    client: Client,
    layers: Vec<LayerPlan>,
    /// How a step is done in one launch, where it can be.
    strip: Option<StripPlan>,
    /// Images that the scratch memory is for.
    rows: usize,
    images: DeviceImages,
    /// Parameters and slots, (1 + slots, P).
    state: Buffer,
    /// Activations of the hidden layers, gradients by them and by the logits.
    scratch: Buffer,
    step: u64,
    steps_per_look: usize,
}

/// The training images in the device's memory.
struct DeviceImages {
    /// (N,D/4), rounded up: four pixels to a word.
    pixels: Buffer,
    /// (N).
    labels: Buffer,
}

impl DeviceImages {
    /// Copies `train`, images of `inputs` pixels, to the device.
    fn new(memory: &Memory, train: &Images, inputs: usize) -> Result<Self> {
        Ok(Self {
            pixels: memory.words("the training images", &words(&train.pixels, inputs).collect::<Vec<_>>())?,
            labels: memory.words("their labels", &train.labels.iter().map(|&l| l.into()).collect::<Vec<u32>>())?,
        })
    }
}

/// An epoch, as the device needs it.
struct Epoch {
    order: Buffer,
    /// A record for each step, see [`kernels::BEGIN`].
    plan: Buffer,
    /// Loss and correctness of each image.
    scores: Buffer,
}

/// Device memory for `length` numbers of 32 bits.
struct Buffer {
    handle: Handle,
    length: usize,
}

impl FusedGpuEngine {
    /// Whether this engine can train `recipe`.
    ///
    /// # Errors
    /// It cannot, with the reason.
    pub fn supports(recipe: &Recipe) -> Result<()> {
        let classes = recipe.shape.classes();
        if classes > MOST_CLASSES {
            let reason = format!("expected at most {MOST_CLASSES} classes, found {classes}");
            return Err(Error::Unsupported { engine: "fused", reason });
        }
        Ok(())
    }

    /// The network of `recipe` at its beginning, to be trained on `train` by `adapter`.
    ///
    /// # Errors
    /// The recipe is not supported, the device cannot be opened, or has not enough memory.
    pub fn new(recipe: Recipe, train: Arc<Images>, adapter: Adapter) -> Result<Self> {
        Self::supports(&recipe)?;
        guarded(|| {
            let device = adapter.open()?;
            let client = cubecl::Device::Wgpu(device).client();
            let widths = recipe.shape.widths();
            let hidden: usize = widths[1..widths.len() - 1].iter().sum();
            let rows = recipe.batch_size.min(train.len().max(1));
            let rows = rows.max((EVALUATION_ACTIVATIONS / hidden.max(1)).min(EVALUATION_BATCH));
            let (layers, scratch) = plan_layers(&recipe, rows);
            let strip = plan_strip(&layers);
            let scratch = scratch.max(strip.map_or(0, |strip| strip.scratch(rows)));
            let memory = Memory { client: &client, adapter: &adapter };
            let (d, slots) = (recipe.shape.inputs(), recipe.optimizer.slots().len());
            let images = DeviceImages::new(&memory, &train, d)?;
            let state = memory.empty("the parameters", (1 + slots) * recipe.shape.parameter_count())?;
            let scratch = memory.empty("the activations of a batch", scratch)?;
            let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
            let mut engine = Self {
                recipe,
                adapter,
                client,
                layers,
                strip,
                rows,
                images,
                state,
                scratch,
                step: 0,
                steps_per_look: 1,
            };
            engine.put(&initial);
            Ok(engine)
        })
    }

    fn memory(&self) -> Memory<'_> {
        Memory { client: &self.client, adapter: &self.adapter }
    }

    fn put(&mut self, state: &TrainingState) {
        let all = state.parameters.iter().chain(state.slots.iter().flatten()).copied().collect::<Vec<f32>>();
        self.state.handle = self.client.create_from_slice(f32::as_bytes(&all));
        self.step = state.step;
    }

    /// Hands the device `order` and the plan of its steps.
    fn epoch(&self, order: &[u32]) -> Result<Epoch> {
        let recipe = &self.recipe;
        let mut plan = Vec::new();
        let mut begin = 0;
        for (step, batch) in (self.step..).zip(order.chunks(recipe.batch_size)) {
            plan.extend([begin as u32, batch.len() as u32]);
            plan.push((recipe.optimizer.adam_step_size(step + 1) as f32).to_bits());
            let mask = |layer| DropoutMask::new(recipe.seed, step, layer, recipe.dropout);
            plan.push(mask(0).threshold);
            plan.extend((0..self.layers.len() - 1).flat_map(|layer| mask(layer).key));
            begin += batch.len();
        }
        let memory = self.memory();
        Ok(Epoch {
            order: memory.words("the order of the images", order)?,
            plan: memory.words("the plan of the steps", &plan)?,
            scores: memory.empty("the losses", 2 * order.len())?,
        })
    }

    /// Queues the steps with these numbers of the epoch, with batches of at most `rows` images.
    fn queue_steps(&self, epoch: &Epoch, steps: Range<usize>, rows: usize) {
        match self.strip {
            None => steps.for_each(|step| self.queue_step(epoch, step, rows)),
            // A launch ends one step and begins the next.
            Some(strip) => (steps.start..=steps.end).for_each(|step| self.queue_strip(epoch, step, &steps, strip)),
        }
    }

    fn queue_strip(&self, epoch: &Epoch, step: usize, steps: &Range<usize>, strip: StripPlan) {
        // SAFETY: the kernel's indices stay below the lengths of its buffers, which follow from the same plan.
        unsafe {
            strip::strip::launch_unchecked(
                &self.client,
                CubeCount::Static(strip.cubes() as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                self.images.pixels.argument(),
                epoch.order.argument(),
                self.images.labels.argument(),
                epoch.plan.argument(),
                self.state.argument(),
                self.scratch.argument(),
                epoch.scores.argument(),
                step,
                steps.start,
                steps.end,
                self.rows,
                self.kept(),
                self.rates(),
                strip,
                self.optimizer(),
            );
        }
    }

    fn kept(&self) -> f32 {
        dropout::scale(self.recipe.dropout) as f32
    }

    fn rates(&self) -> RatesLaunch {
        let settings = &self.recipe.optimizer;
        let (rate, momentum) = (settings.learning_rate, settings.for_kernels().momentum);
        RatesLaunch::new(rate as f32, momentum as f32, settings.decay(rate) as f32)
    }

    fn optimizer(&self) -> UpdatePlan {
        let settings = &self.recipe.optimizer;
        let KernelSettings { kind, momentum, nesterov } = settings.for_kernels();
        UpdatePlan { kind, nesterov, momentum: momentum > 0.0, decay: settings.weight_decay > 0.0 }
    }

    fn queue_step(&self, epoch: &Epoch, step: usize, rows: usize) {
        let kept = self.kept();
        self.queue_forward(&self.images.pixels, epoch, step, rows, kept, true);
        for layer in self.layers[..self.layers.len() - 1].iter().skip(1).rev() {
            let (count, layer) = tiles(layer, rows, layer.inputs);
            // SAFETY: the kernel's indices stay below the lengths of its buffers, which follow from the same plan.
            unsafe {
                kernels::backward::launch_unchecked(
                    &self.client,
                    count,
                    cube_dim(),
                    epoch.plan.argument(),
                    self.state.argument(),
                    self.scratch.argument(),
                    step,
                    kept,
                    layer,
                );
            }
        }
        for layer in &self.layers {
            let (count, layer) = tiles(layer, layer.inputs + 1, layer.outputs);
            // SAFETY: the kernel's indices stay below the lengths of its buffers, which follow from the same plan.
            unsafe {
                kernels::update::launch_unchecked(
                    &self.client,
                    count,
                    cube_dim(),
                    self.images.pixels.argument(),
                    epoch.order.argument(),
                    epoch.plan.argument(),
                    self.state.argument(),
                    self.scratch.argument(),
                    step,
                    self.rates(),
                    layer,
                    self.optimizer(),
                );
            }
        }
    }

    /// Queues the layers; with `training`, the head goes on to the gradient by the last hidden layer.
    fn queue_forward(&self, pixels: &Buffer, epoch: &Epoch, step: usize, rows: usize, kept: f32, training: bool) {
        let [hidden @ .., last] = &self.layers[..] else { unreachable!("at least one layer") };
        for layer in hidden {
            let (count, layer) = tiles(layer, rows, layer.outputs);
            // SAFETY: the kernel's indices stay below the lengths of its buffers, which follow from the same plan.
            unsafe {
                kernels::forward::launch_unchecked(
                    &self.client,
                    count,
                    cube_dim(),
                    pixels.argument(),
                    epoch.order.argument(),
                    epoch.plan.argument(),
                    self.state.argument(),
                    self.scratch.argument(),
                    step,
                    kept,
                    layer,
                    training,
                );
            }
        }
        // SAFETY: the kernel's indices stay below the lengths of its buffers, which follow from the same plan.
        unsafe {
            kernels::head::launch_unchecked(
                &self.client,
                CubeCount::Static(rows.div_ceil(SIDE) as u32, 1, 1),
                cube_dim(),
                pixels.argument(),
                epoch.order.argument(),
                self.images.labels.argument(),
                epoch.plan.argument(),
                self.state.argument(),
                self.scratch.argument(),
                epoch.scores.argument(),
                step,
                kept,
                *last,
                training,
            );
        }
    }

    /// The scores of the images at `range` of the order; waits for the device.
    fn look(&self, epoch: &Epoch, range: Range<usize>) -> Result<EpochTotals> {
        let numbers = self.read(&epoch.scores, 2 * range.start..2 * range.end)?;
        let mut totals = EpochTotals { images: range.len(), ..EpochTotals::default() };
        for image in numbers.chunks_exact(2) {
            totals.loss_sum += f64::from(image[0]);
            totals.correct += usize::from(image[1] > 0.5);
        }
        Ok(totals)
    }

    /// Numbers of `buffer`; waits for the device.
    fn read(&self, buffer: &Buffer, range: Range<usize>) -> Result<Vec<f32>> {
        let handle = buffer.handle.clone();
        let handle = handle.offset_start(4 * range.start as u64).offset_end(4 * (buffer.length - range.end) as u64);
        let bytes = self.client.read_one(handle).map_err(|e| self.memory().failure(&e.to_string()))?;
        Ok(f32::from_bytes(&bytes).to_vec())
    }
}

impl Network for FusedGpuEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "fused",
            device: "gpu",
            backend: format!("own kernels on {}", self.adapter),
            instruction_set: "wgsl".into(),
            threads: 1,
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let (d, classes) = (self.recipe.shape.inputs(), self.recipe.shape.classes());
        let mut logits = Vec::with_capacity(pixels.len() / d * classes);
        for part in pixels.chunks(self.rows * d) {
            logits.extend(guarded(|| {
                let (rows, memory) = (part.len() / d, self.memory());
                let pixels = memory.words("the images", &words(part, d).collect::<Vec<_>>())?;
                let mut record = vec![0; self.layers[0].record];
                record[kernels::LENGTH] = rows as u32;
                let epoch = Epoch {
                    order: memory.words("an order", &[0])?,
                    plan: memory.words("the plan", &record)?,
                    scores: memory.empty("the logits", rows * classes)?,
                };
                self.queue_forward(&pixels, &epoch, 0, rows, 1.0, false);
                self.read(&epoch.scores, 0..epoch.scores.length)
            })?);
        }
        Ok(logits)
    }
}

impl Trainer for FusedGpuEngine {
    fn train_epoch(&mut self, order: &[u32], progress: &mut dyn FnMut(Progress) -> Result<()>) -> Result<EpochTotals> {
        let batch = self.recipe.batch_size;
        let epoch = guarded(|| self.epoch(order))?;
        let mut totals = EpochTotals::default();
        let (mut done, steps) = (0, order.len().div_ceil(batch));
        while done < steps {
            let begin = Instant::now();
            let round = done..steps.min(done + self.steps_per_look);
            let scored = guarded(|| {
                self.queue_steps(&epoch, round.clone(), batch.min(order.len()));
                self.look(&epoch, totals.images..order.len().min(round.end.saturating_mul(batch)))
            })?;
            self.step += round.len() as u64;
            done = round.end;
            totals.images += scored.images;
            totals.loss_sum += scored.loss_sum;
            totals.correct += scored.correct;
            self.steps_per_look = steps_for(LOOK, self.steps_per_look, begin.elapsed());
            progress(Progress { images: totals.images, loss: Some(totals.loss_sum / totals.images as f64) })?;
        }
        Ok(totals)
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        let inputs = self.recipe.shape.inputs();
        self.images = guarded(|| DeviceImages::new(&self.memory(), &train, inputs))?;
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        let p = self.recipe.shape.parameter_count();
        let all = guarded(|| self.read(&self.state, 0..self.state.length))?;
        let mut parts = all.chunks_exact(p).map(<[f32]>::to_vec);
        let parameters = parts.next().unwrap_or_default();
        Ok(TrainingState { parameters, slots: parts.collect(), step: self.step })
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        guarded(|| {
            self.put(state);
            Ok(())
        })
    }
}

/// The layers with their places in the scratch memory for `rows` images, and how many numbers that takes.
fn plan_layers(recipe: &Recipe, rows: usize) -> (Vec<LayerPlan>, usize) {
    let layers = recipe.shape.layers();
    let last = layers.len() - 1;
    let mut end = 0;
    let mut place = |width: usize| {
        end += rows * width;
        end - rows * width
    };
    let activations: Vec<usize> = layers[..last].iter().map(|layer| place(layer.outputs)).collect();
    let deltas: Vec<usize> = layers.iter().map(|layer| place(layer.outputs)).collect();
    let plan = |(l, layer): (usize, &Layer)| LayerPlan {
        inputs: layer.inputs,
        outputs: layer.outputs,
        weights: layer.weights.start,
        activations_in: l.checked_sub(1).map(|before| activations[before]),
        activations_out: activations.get(l).copied().unwrap_or_default(),
        deltas_in: l.checked_sub(1).map_or(0, |before| deltas[before]),
        deltas_out: deltas[l],
        index: l,
        record: kernels::MASK_KEYS + 2 * last,
        parameters: recipe.shape.parameter_count(),
        edge: 1,
    };
    (layers.iter().enumerate().map(plan).collect(), end)
}

/// How a step is done in one launch, where it can be.
fn plan_strip(layers: &[LayerPlan]) -> Option<StripPlan> {
    let [first, last] = layers else { return None };
    let narrow = first.outputs <= NARROW && first.inputs <= 4 * UNITS;
    narrow.then(|| StripPlan {
        inputs: first.inputs,
        hidden: first.outputs,
        classes: last.outputs,
        weights: [first.weights, last.weights],
        biases: [first, last].map(|layer| layer.weights + layer.inputs * layer.outputs),
        record: first.record,
        parameters: first.parameters,
    })
}

/// How many cubes a product with a result (`rows`, `columns`) takes, and the layer with its tiles' size.
fn tiles(layer: &LayerPlan, rows: usize, columns: usize) -> (CubeCount, LayerPlan) {
    let count = |edge: usize| (columns.div_ceil(SIDE * edge), rows.div_ceil(SIDE * edge));
    let (x, y) = count(LARGE);
    let edge = if x * y >= BUSY { LARGE } else { 1 };
    let (x, y) = count(edge);
    (CubeCount::Static(x as u32, y as u32, 1), LayerPlan { edge, ..*layer })
}

fn cube_dim() -> CubeDim {
    CubeDim::new_2d(SIDE as u32, SIDE as u32)
}

impl Buffer {
    fn argument(&self) -> BufferArg {
        // SAFETY: the memory was taken for just this many numbers.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.length) }
    }
}

/// The device's memory, with a limit to a single buffer.
struct Memory<'a> {
    client: &'a Client,
    adapter: &'a Adapter,
}

impl Memory<'_> {
    /// Memory for `length` numbers, which are for `what`.
    fn empty(&self, what: &str, length: usize) -> Result<Buffer> {
        self.fits(what, length)?;
        // Nothing is bound without a byte in it.
        let length = length.max(1);
        Ok(Buffer { handle: self.client.empty(4 * length), length })
    }

    /// `words` in the device's memory.
    fn words(&self, what: &str, words: &[u32]) -> Result<Buffer> {
        if words.is_empty() {
            return self.empty(what, 1);
        }
        self.fits(what, words.len())?;
        Ok(Buffer { handle: self.client.create_from_slice(u32::as_bytes(words)), length: words.len() })
    }

    fn fits(&self, what: &str, length: usize) -> Result<()> {
        let (needed, most) = (4 * length as u64, self.client.properties().memory.max_page_size);
        if needed <= most {
            return Ok(());
        }
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(self.failure(&format!("{what} take {} MiB, more than the {} MiB of one buffer", mb(needed), mb(most))))
    }

    fn failure(&self, problem: &str) -> Error {
        Error::Device { problem: format!("{}: {}", self.adapter.name, one_line(problem)) }
    }
}
