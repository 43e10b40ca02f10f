//! The training step, by each thread of the team on its own columns of every layer.

#![expect(unsafe_code, reason = "threads take turns at the memory they share")]

use super::first_layer;
use super::group::{GROUP, Group};
use super::hidden_layer::{self, Panel};
use super::net::{Net, Slab};
use super::output_layer::{self, Scored};
use super::rest::Rest;
use super::simd::{Block, Job, LANES, Simd, add};
use super::update::StepRule;
use crate::dropout::{self, DropoutMask};

/// Images whose activations are worked on before the next, so that they stay in the first-level cache.
pub const IMAGES_AT_A_TIME: usize = 64;

/// What one thread has for itself.
pub struct Worker {
    pub rank: usize,
    pub threads: usize,
    /// The output layer's biases: each thread has and updates them all.
    pub output_biases: Slab,
    /// Which first-layer weights are up to date.
    pub rest: Rest,
    /// The images of the batch, or of a part of it.
    group: Group,
    /// Logits, then their gradient (B).
    logits: Vec<Block>,
    gradient: Vec<Block>,
    transposed: Vec<Block>,
}

impl Worker {
    pub fn new(net: &Net, rank: usize, threads: usize) -> Self {
        let optimizer = net.recipe.optimizer;
        Self {
            rank,
            threads,
            output_biases: Slab::new(1, 1, &optimizer.slots()),
            rest: Rest::new(optimizer),
            group: Group::new(net.recipe.shape.inputs()),
            logits: vec![Block::ZERO; net.batch()],
            gradient: vec![Block::ZERO; net.largest_gradient(rank, threads)],
            transposed: vec![],
        }
    }
}

/// A thread's part in some steps.
pub struct Round<'a> {
    pub net: &'a Net,
    pub worker: &'a mut Worker,
    pub images: &'a [u32],
    /// Steps done before.
    pub step: u64,
    /// Whether all weights are to be up to date afterwards.
    pub wake: bool,
}

impl Job for Round<'_> {
    type Output = Scored;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Scored {
        let Self { net, worker, images, step, wake } = self;
        let mut scored = Scored::default();
        let mut batches = images.chunks(net.recipe.batch_size).peekable();
        for step in step.. {
            let Some(batch) = batches.next() else { break };
            let next = batches.peek().copied().unwrap_or_default();
            scored += net.step(s, worker, batch, next, step);
            worker.rest.step(step + 1);
            if worker.rest.is_over() {
                net.wake_all(s, worker);
            }
        }
        if wake {
            net.wake_all(s, worker);
        }
        scored
    }
}

impl Net {
    #[inline(always)]
    fn wake_all<S: Simd>(&self, s: S, worker: &mut Worker) {
        for q in self.layers[0].own(worker.rank, worker.threads) {
            // SAFETY: its own slab, which no other thread uses.
            let slab = unsafe { self.layers[0].slabs.write(q) };
            first_layer::wake_all(s, slab, &worker.rest);
            slab.since.fill(0);
        }
        worker.rest.begin();
    }

    /// One step; all threads of the team take it together.
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, worker: &mut Worker, images: &[u32], next: &[u32], step: u64) -> Scored {
        let Worker { rank, threads, output_biases, rest, group, logits, gradient, transposed } = worker;
        let b = images.len();
        let classes = self.recipe.shape.classes();
        let hidden = self.hidden();
        let (first, last) = (&self.layers[0], &self.layers[self.layers.len() - 1]);
        let dropout = self.recipe.dropout;
        let scale = dropout::scale(dropout) as f32;
        let mask = |l: usize| (dropout > 0.0).then(|| DropoutMask::new(self.recipe.seed, step, l, dropout));

        // SAFETY, for every block below: a thread writes only its own slabs, activations and gradients, and parts of
        // logits; it reads those of others only in another stretch between two barriers than the one they are written in:
        // - the slabs of the first layer are nobody else's;
        // - activations of layer l are written before the barrier that the layer after it (or the logits) begins with,
        //   and in the next step only after the barrier that ends this one, if others read them at all;
        // - gradients of layer l likewise before the barrier on the way back;
        // - the slabs of layers after the first are read by others between two barriers, and written after the second;
        // - parts of logits are written twice as often as barriers are passed at most, in turns.
        let whole = b <= GROUP;
        if whole {
            group.begin(&self.lit, images);
        }
        for (n, q) in first.own(*rank, *threads).enumerate() {
            let slab = unsafe { first.slabs.write(q) };
            if whole {
                first_layer::wake(s, slab, group, rest);
            } else {
                first_layer::wake_all(s, slab, rest);
            }
            let z = unsafe { first.activations.write(q) };
            let (begin, width) = first.places[q];
            let mask = mask(0);
            let mut values = (whole && n == 0).then_some(&mut *group);
            for (n, images) in images.chunks(IMAGES_AT_A_TIME).enumerate() {
                let before = n * IMAGES_AT_A_TIME;
                let z = &mut z[before * width..][..images.len() * width];
                first_layer::forward(s, slab, &self.lit, images, values.as_deref_mut(), z);
                if hidden > 0 {
                    let first_unit = |image: usize| ((before + image) * first.outputs + begin * LANES) as u32;
                    activate(s, z, width, mask.as_ref(), scale, first_unit);
                }
            }
        }
        if whole {
            group.end(s);
        }
        for l in 1..hidden {
            self.barrier.wait();
            let (before, layer) = (&self.layers[l - 1], &self.layers[l]);
            let mask = mask(l);
            for part in hidden_layer::parts(b) {
                for q in layer.own(*rank, *threads) {
                    let (begin, width) = layer.places[q];
                    let slab = unsafe { layer.slabs.read(q) };
                    let inputs = before.panels(|q| unsafe { before.activations.read(q) }, &part);
                    let z = &mut unsafe { layer.activations.write(q) }[part.start * width..part.end * width];
                    hidden_layer::forward(s, slab, inputs, z);
                    let first_unit = |image: usize| ((part.start + image) * layer.outputs + begin * LANES) as u32;
                    activate(s, z, width, mask.as_ref(), scale, first_unit);
                }
            }
        }

        let logits = &mut logits[..b];
        if hidden > 0 {
            let parts = self.parts.len() / 2;
            let turn = (step % 2) as usize * parts;
            for q in last.own(*rank, *threads) {
                let (begin, width) = last.places[q];
                let a = unsafe { &last.activations.read(q)[..b * width] };
                let rows = unsafe { &self.outputs.read(q).weights };
                for block in (0..width).step_by(self.grain) {
                    let part = unsafe { &mut self.parts.write(turn + (begin + block) / self.grain)[..b] };
                    let blocks = block..(block + self.grain).min(width);
                    output_layer::partial_logits(s, a, width, blocks, rows, part);
                }
            }
            // While others are waited for, the images of the next batch come from memory.
            self.lit.prefetch(s, next);
            self.barrier.wait();
            logits.fill(output_biases.weights[0]);
            for part in 0..parts {
                add(s, logits, unsafe { &self.parts.read(turn + part)[..b] });
            }
        } else {
            logits.copy_from_slice(unsafe { &last.activations.read(0)[..b] });
        }
        let labels = images.iter().map(|&image| self.train.labels[image as usize]);
        let scored = output_layer::softmax_gradient(s, logits, labels, classes);

        let rule = StepRule::new(&self.recipe.optimizer, step + 1);
        if hidden > 0 {
            for q in last.own(*rank, *threads) {
                let (_, width) = last.places[q];
                let slab = unsafe { self.outputs.write(q) };
                let a = unsafe { &last.activations.read(q)[..b * width] };
                let d = unsafe { &mut last.gradients.write(q)[..b * width] };
                output_layer::hidden_gradient(s, logits, classes, &slab.weights, a, scale, transposed, d);
                output_layer::update(s, slab, a, logits, &rule, gradient);
            }
            let mut sum = s.splat(0.0);
            for d in &*logits {
                sum = s.add(sum, s.load(d));
            }
            s.store(sum, &mut gradient[0]);
            output_biases.update(s, &rule, 0..1, gradient);
        } else {
            unsafe { last.gradients.write(0)[..b].copy_from_slice(logits) };
        }

        for l in (1..hidden).rev() {
            self.barrier.wait();
            let (before, layer) = (&self.layers[l - 1], &self.layers[l]);
            for part in hidden_layer::parts(b) {
                for q in before.own(*rank, *threads) {
                    let (begin, width) = before.places[q];
                    let blocks = part.start * width..part.end * width;
                    let a = Panel { blocks: &unsafe { before.activations.read(q) }[blocks.clone()], width };
                    let d_in = &mut unsafe { before.gradients.write(q) }[blocks];
                    let d = layer.panels(|q| unsafe { layer.gradients.read(q) }, &part);
                    let outputs = (0..layer.places.len()).map(|q| unsafe { layer.slabs.read(q) }).zip(d);
                    hidden_layer::input_gradient(s, outputs, begin * LANES, a, scale, transposed, d_in);
                }
            }
        }
        if hidden > 1 {
            self.barrier.wait();
            for l in 1..hidden {
                let (before, layer) = (&self.layers[l - 1], &self.layers[l]);
                for part in hidden_layer::parts(b) {
                    let rule = (part.end == b).then_some(&rule);
                    let mut room = &mut gradient[..];
                    for q in layer.own(*rank, *threads) {
                        let (_, width) = layer.places[q];
                        let slab = unsafe { layer.slabs.write(q) };
                        let inputs = before.panels(|q| unsafe { before.activations.read(q) }, &part);
                        let d = &unsafe { layer.gradients.read(q) }[part.start * width..part.end * width];
                        hidden_layer::update(s, slab, inputs, d, part.start > 0, rule, room);
                        if b > hidden_layer::IMAGES_AT_A_TIME {
                            room = &mut room[slab.weights.len()..];
                        }
                    }
                }
            }
            // The next step begins with new activations of the first layer, which these updates read.
            self.barrier.wait();
        }
        for (n, images) in images.chunks(GROUP).enumerate().skip(usize::from(whole)) {
            group.take(s, &self.lit, images);
            let (begin, end) = (n * GROUP, n * GROUP + images.len());
            let mut room = &mut gradient[..];
            for q in first.own(*rank, *threads) {
                let (_, width) = first.places[q];
                let d = unsafe { &first.gradients.read(q)[begin * width..end * width] };
                let (gradient, others) = room.split_at_mut(self.inputs() * width);
                if n == 0 {
                    gradient.fill(Block::ZERO);
                }
                first_layer::accumulate(s, width, group, d, gradient);
                room = others;
            }
        }
        let mut room = &gradient[..];
        for q in first.own(*rank, *threads) {
            let (_, width) = first.places[q];
            let slab = unsafe { first.slabs.write(q) };
            let d = unsafe { &first.gradients.read(q)[..b * width] };
            if whole {
                first_layer::backward(s, slab, group, d, &rule, rest);
            } else {
                first_layer::update(s, slab, &room[..self.inputs() * width], &rule, rest);
                room = &room[self.inputs() * width..];
            }
            first_layer::update_biases(s, slab, d, &rule);
        }
        scored
    }
}

/// ReLU and dropout in place on (B,`width`).
#[inline(always)]
pub fn activate<S: Simd>(
    s: S,
    z: &mut [Block],
    width: usize,
    mask: Option<&DropoutMask>,
    scale: f32,
    first_unit: impl Fn(usize) -> u32,
) {
    for (image, row) in z.chunks_exact_mut(width).enumerate() {
        let first = first_unit(image);
        for (block, z) in row.iter_mut().enumerate() {
            let mut a = s.max(s.splat(0.0), s.load(z));
            if let Some(mask) = mask {
                a = s.keep(mask, first + (block * LANES) as u32, s.mul(a, s.splat(scale)));
            }
            s.store(a, z);
        }
    }
}
