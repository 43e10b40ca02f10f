//! The training step, by each thread of the team on its own columns of every layer.

#![expect(unsafe_code, reason = "threads take turns at the memory they share")]

use std::ops::Range;

use super::first_layer;
use super::group::{GROUP, Group};
use super::hidden_layer;
use super::net::{Net, Slab, SplitLayer};
use super::output_layer::{self, Scored};
use crate::engine::dropout::{self, DropoutMask};
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::StepRule;
use crate::simd::{Block, Job, LANES, Simd, add};

/// Images whose activations are worked on before the next, so that they stay in the first-level cache.
pub const IMAGES_AT_A_TIME: usize = 64;

/// What one thread has for itself.
pub struct Worker {
    pub rank: usize,
    pub threads: usize,
    /// The output layer's biases: each thread has and updates them all.
    pub output_biases: Slab,
    /// Which first-layer weights are up to date.
    pub lazy: LazyUpdates,
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
            lazy: LazyUpdates::new(optimizer),
            group: Group::new(net.recipe.shape.inputs()),
            logits: vec![Block::ZERO; net.batch()],
            gradient: vec![Block::ZERO; net.largest_gradient(rank, threads)],
            transposed: vec![],
        }
    }

    /// The slabs of `layer` that are this thread's.
    fn own(&self, layer: &SplitLayer) -> Range<usize> {
        layer.own(self.rank, self.threads)
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
            scored += Step::new(net, batch, next, step).take(s, worker);
            if worker.lazy.is_over() {
                net.catch_up_all(s, worker);
            }
        }
        if wake {
            net.catch_up_all(s, worker);
        }
        scored
    }
}

impl Net {
    #[inline(always)]
    fn catch_up_all<S: Simd>(&self, s: S, worker: &mut Worker) {
        for q in worker.own(&self.layers[0]) {
            // SAFETY: its own slab, which no other thread uses.
            let slab = unsafe { self.layers[0].slabs.write(q) };
            first_layer::catch_up_all(s, slab, &worker.lazy);
            slab.since.fill(0);
        }
        worker.lazy.begin();
    }
}

/// A step, which all threads of the team take together.
struct Step<'a> {
    net: &'a Net,
    images: &'a [u32],
    /// The images of the step after it.
    next: &'a [u32],
    /// Steps done before.
    before: u64,
    rule: StepRule,
    /// What activations that are kept are multiplied by.
    scale: f32,
}

// SAFETY, for every block below: a thread writes only its own slabs, activations and gradients, and parts of logits. Those
// of others it reads only where a barrier stands between the writing before, the reading, and the next writing:
// - slabs of the first layer, its gradients and, where it is the only one, its activations are nobody else's;
// - activations of layer l are written before the barrier at which the layer after it begins, and read until the barrier
//   at the end of the way back through the dense layers;
// - gradients of layer l are written before the barrier at which the way back through layer l begins, and read by others
//   until the next one;
// - slabs of dense layers are read by others on the way back, and written after the barrier that ends it;
// - parts of logits are written before the barrier of the output layer and read after it; the next step's are others.
impl<'a> Step<'a> {
    fn new(net: &'a Net, images: &'a [u32], next: &'a [u32], before: u64) -> Self {
        let rule = StepRule::new(&net.recipe.optimizer, before + 1);
        Self { net, images, next, before, rule, scale: dropout::scale(net.recipe.dropout) as f32 }
    }

    #[inline(always)]
    fn take<S: Simd>(&self, s: S, worker: &mut Worker) -> Scored {
        self.first_layer(s, worker);
        for l in 1..self.net.hidden() {
            self.hidden_layer(s, worker, l);
        }
        let scored = self.output_layer(s, worker);
        if self.net.hidden() > 1 {
            self.hidden_layers_back(s, worker);
        }
        self.first_layer_back(s, worker);
        worker.lazy.step(self.before + 1);
        scored
    }

    /// The dropout mask after hidden layer `l`, if there is dropout.
    fn mask(&self, l: usize) -> Option<DropoutMask> {
        let dropout = self.net.recipe.dropout;
        (dropout > 0.0).then(|| DropoutMask::new(self.net.recipe.seed, self.before, l, dropout))
    }

    /// Whether the batch is a single group.
    fn is_whole(&self) -> bool {
        self.images.len() <= GROUP
    }

    #[inline(always)]
    fn first_layer<S: Simd>(&self, s: S, worker: &mut Worker) {
        let (net, layer) = (self.net, &self.net.layers[0]);
        if self.is_whole() {
            worker.group.begin(&net.lit, self.images);
        }
        let mask = self.mask(0);
        for (n, q) in worker.own(layer).enumerate() {
            let slab = unsafe { layer.slabs.write(q) };
            if self.is_whole() {
                first_layer::catch_up(s, slab, &worker.group, &worker.lazy);
            } else {
                first_layer::catch_up_all(s, slab, &worker.lazy);
            }
            let z = unsafe { layer.activations.write(q) };
            let (begin, width) = layer.places[q];
            let mut values = (self.is_whole() && n == 0).then_some(&mut worker.group);
            for (n, images) in self.images.chunks(IMAGES_AT_A_TIME).enumerate() {
                let before = n * IMAGES_AT_A_TIME;
                let z = &mut z[before * width..][..images.len() * width];
                first_layer::forward(s, slab, &net.lit, images, values.as_deref_mut(), z);
                if net.hidden() > 0 {
                    let first_unit = |image: usize| ((before + image) * layer.outputs + begin * LANES) as u32;
                    activate(s, z, width, mask.as_ref(), self.scale, first_unit);
                }
            }
        }
        if self.is_whole() {
            worker.group.end(s);
        }
    }

    #[inline(always)]
    fn hidden_layer<S: Simd>(&self, s: S, worker: &mut Worker, l: usize) {
        self.net.barrier.wait();
        let (before, layer) = (&self.net.layers[l - 1], &self.net.layers[l]);
        let mask = self.mask(l);
        for part in hidden_layer::parts(self.images.len()) {
            let z = |q: usize| {
                let (_, width) = layer.places[q];
                unsafe { &mut layer.activations.write(q)[part.start * width..part.end * width] }
            };
            for inputs in hidden_layer::chunks(before.panels(|q| unsafe { before.activations.read(q) }, &part)) {
                for q in worker.own(layer) {
                    hidden_layer::forward(s, unsafe { layer.slabs.read(q) }, &inputs, z(q));
                }
            }
            for q in worker.own(layer) {
                let (begin, width) = layer.places[q];
                let first_unit = |image: usize| ((part.start + image) * layer.outputs + begin * LANES) as u32;
                activate(s, z(q), width, mask.as_ref(), self.scale, first_unit);
            }
        }
    }

    /// Logits, loss and their gradient; the way back through the output layer and its update.
    #[inline(always)]
    fn output_layer<S: Simd>(&self, s: S, worker: &mut Worker) -> Scored {
        let (net, b) = (self.net, self.images.len());
        let classes = net.recipe.shape.classes();
        let labels = self.images.iter().map(|&image| net.train.labels[image as usize]);
        let last = &net.layers[net.layers.len() - 1];
        let own = worker.own(last);
        let Worker { output_biases, logits, gradient, transposed, .. } = worker;
        let logits = &mut logits[..b];
        if net.hidden() == 0 {
            logits.copy_from_slice(unsafe { &last.activations.read(0)[..b] });
            let scored = output_layer::softmax_gradient(s, logits, labels, classes);
            unsafe { last.gradients.write(0)[..b].copy_from_slice(logits) };
            return scored;
        }

        let parts = net.parts.len() / 2;
        let turn = (self.before % 2) as usize * parts;
        for q in own.clone() {
            let (begin, width) = last.places[q];
            let a = unsafe { &last.activations.read(q)[..b * width] };
            let rows = unsafe { &net.outputs.read(q).weights };
            for block in (0..width).step_by(net.grain) {
                let part = unsafe { &mut net.parts.write(turn + (begin + block) / net.grain)[..b] };
                let blocks = block..(block + net.grain).min(width);
                output_layer::partial_logits(s, a, width, blocks, rows, part);
            }
        }
        // While others are waited for, the images of the next batch come from memory.
        net.lit.prefetch(s, self.next);
        net.barrier.wait();
        logits.fill(output_biases.weights[0]);
        for part in 0..parts {
            add(s, logits, unsafe { &net.parts.read(turn + part)[..b] });
        }
        let scored = output_layer::softmax_gradient(s, logits, labels, classes);

        for q in own {
            let (_, width) = last.places[q];
            let slab = unsafe { net.outputs.write(q) };
            let a = unsafe { &last.activations.read(q)[..b * width] };
            let d = unsafe { &mut last.gradients.write(q)[..b * width] };
            output_layer::hidden_gradient(s, logits, classes, &slab.weights, a, self.scale, transposed, d);
            output_layer::update(s, slab, a, logits, &self.rule, gradient);
        }
        let sum = &mut gradient[..1];
        sum.fill(Block::ZERO);
        for d in &*logits {
            add(s, sum, std::slice::from_ref(d));
        }
        output_biases.update(s, &self.rule, 0..1, sum);
        scored
    }

    #[inline(always)]
    fn hidden_layers_back<S: Simd>(&self, s: S, worker: &mut Worker) {
        let (net, b) = (self.net, self.images.len());
        for l in (1..net.hidden()).rev() {
            net.barrier.wait();
            let (before, layer) = (&net.layers[l - 1], &net.layers[l]);
            let own = worker.own(before);
            for part in hidden_layer::parts(b) {
                let d_in = |q: usize| {
                    let (_, width) = before.places[q];
                    unsafe { &mut before.gradients.write(q)[part.start * width..part.end * width] }
                };
                let d = layer.panels(|q| unsafe { layer.gradients.read(q) }, &part);
                if part.len() < hidden_layer::MANY_IMAGES {
                    let outputs = (0..layer.places.len()).map(|q| unsafe { layer.slabs.read(q) }).zip(d);
                    for q in own.clone() {
                        let (begin, width) = before.places[q];
                        hidden_layer::input_gradient_of_few(s, outputs.clone(), begin * LANES, width, d_in(q));
                    }
                } else {
                    for d in hidden_layer::chunks(d) {
                        for q in own.clone() {
                            let (begin, width) = before.places[q];
                            let weights = |block| {
                                let (q, column) = layer.slab_of(block);
                                (unsafe { layer.slabs.read(q) }, column)
                            };
                            let room = &mut worker.transposed;
                            hidden_layer::input_gradient(s, &d, weights, begin * LANES, width, room, d_in(q));
                        }
                    }
                }
                for q in own.clone() {
                    let (_, width) = before.places[q];
                    let a = &unsafe { before.activations.read(q) }[part.start * width..part.end * width];
                    hidden_layer::cut(s, a, self.scale, d_in(q));
                }
            }
        }
        net.barrier.wait();
        for l in 1..net.hidden() {
            let (before, layer) = (&net.layers[l - 1], &net.layers[l]);
            let own = worker.own(layer);
            for part in hidden_layer::parts(b) {
                let (more, rule) = (part.start > 0, (part.end == b).then_some(&self.rule));
                let d = |q: usize| {
                    let (_, width) = layer.places[q];
                    unsafe { &layer.gradients.read(q)[part.start * width..part.end * width] }
                };
                // Between parts, each slab's gradient is kept.
                let several = b > hidden_layer::IMAGES_AT_A_TIME;
                let room = |q: usize| {
                    let first = if several { layer.places[q].0 - layer.places[own.start].0 } else { 0 };
                    first * layer.rows..
                };
                for inputs in hidden_layer::chunks(before.panels(|q| unsafe { before.activations.read(q) }, &part)) {
                    for q in own.clone() {
                        let slab = unsafe { layer.slabs.write(q) };
                        hidden_layer::update(s, slab, &inputs, d(q), more, rule, &mut worker.gradient[room(q)]);
                    }
                }
                for q in own.clone() {
                    let slab = unsafe { layer.slabs.write(q) };
                    hidden_layer::update_biases(s, slab, d(q), more, rule, &mut worker.gradient[room(q)]);
                }
            }
        }
        // The next step begins with new activations of the first layer, which these updates read.
        net.barrier.wait();
    }

    #[inline(always)]
    fn first_layer_back<S: Simd>(&self, s: S, worker: &mut Worker) {
        let (net, layer) = (self.net, &self.net.layers[0]);
        let own = worker.own(layer);
        let Worker { lazy, group, gradient, .. } = worker;
        if !self.is_whole() {
            self.first_gradient(s, own.clone(), group, gradient);
        }
        let mut gradient = &gradient[..];
        for q in own {
            let (_, width) = layer.places[q];
            let slab = unsafe { layer.slabs.write(q) };
            let d = unsafe { &layer.gradients.read(q)[..self.images.len() * width] };
            if self.is_whole() {
                first_layer::backward(s, slab, group, d, &self.rule, lazy);
            } else {
                let (own, others) = gradient.split_at(net.inputs() * width);
                first_layer::update(s, slab, own, &self.rule, lazy);
                gradient = others;
            }
            first_layer::update_biases(s, slab, d, &self.rule);
        }
    }

    /// The gradients of the thread's slabs of the first layer, one after the other, over all groups of the batch.
    #[inline(always)]
    fn first_gradient<S: Simd>(&self, s: S, own: Range<usize>, group: &mut Group, gradient: &mut [Block]) {
        let (net, layer) = (self.net, &self.net.layers[0]);
        gradient.fill(Block::ZERO);
        for (n, images) in self.images.chunks(GROUP).enumerate() {
            group.take(s, &net.lit, images);
            let (begin, end) = (n * GROUP, n * GROUP + images.len());
            let mut gradient = &mut *gradient;
            for q in own.clone() {
                let (_, width) = layer.places[q];
                let d = unsafe { &layer.gradients.read(q)[begin * width..end * width] };
                let (slab_gradient, others) = gradient.split_at_mut(net.inputs() * width);
                first_layer::accumulate(s, width, group, d, slab_gradient);
                gradient = others;
            }
        }
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
