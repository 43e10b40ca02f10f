//! The training step, by each thread of the team on its own columns of every layer.

use std::ops::Range;

use super::access::{Access, LayerAccess};
use super::bf16::{self, TileMultiplier};
use super::first_layer;
use super::forward::{Inputs, StepDropout, forward};
use super::group::{GROUP, ImageGroup};
use super::hidden_layer::{self, PART_IMAGES, in_ranges};
use super::nonzero::NonzeroPixels;
use super::output_layer;
use super::pixel_tiles::PixelTiles;
use super::weights::{TOGETHER, WIDEST, Weights};
use crate::engine::{EpochTotals, Recipe, dropout};
use crate::interrupt;
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::StepRule;
use crate::simd::tile::{Bf16Tile, Tiles};
use crate::simd::{Block, Job, LANES, Precision, Simd, add};

/// The training data, which all threads read.
#[derive(Clone, Copy)]
pub struct TrainingData<'a> {
    pub recipe: &'a Recipe,
    /// (N).
    pub labels: &'a [u8],
    /// The pixels of the images.
    pub nonzero: &'a NonzeroPixels,
}

/// What one thread has for itself from step to step.
pub struct Worker {
    /// The lazy update of the first layer's weights.
    lazy: LazyUpdates,
    /// The images of the batch, or of a part of it. The first is the only one of a batch that is a single group.
    groups: Vec<ImageGroup>,
    /// Logits, then their gradient (B).
    logits: Vec<Block>,
    /// The images of the batch that have a gradient: a bit for each, 32 in a number. With `skip_confident` only.
    kept: Vec<u32>,
    /// Scratch memory for a gradient of weights.
    gradient: Vec<Block>,
    /// Scratch memory for transposed weights.
    transposed: Vec<Block>,
    /// The batch's pixels, and scratch memory for weights, for products of bf16 numbers.
    pixel_tiles: PixelTiles,
    weight_tiles: Vec<Bf16Tile>,
}

impl Worker {
    /// Thread `rank` of those that `weights` are laid out for, for batches of `images`.
    pub fn new(recipe: &Recipe, weights: &Weights, rank: usize, images: usize) -> Self {
        let inputs = recipe.shape.inputs();
        let (groups, pixel_tiles) = match recipe.precision {
            Precision::Float32 => (images.clamp(1, PART_IMAGES).div_ceil(GROUP), PixelTiles::default()),
            Precision::Bf16 => (1, PixelTiles::new(images, inputs)),
        };
        Self {
            lazy: LazyUpdates::new(recipe.optimizer),
            groups: (0..groups).map(|_| ImageGroup::new(inputs)).collect(),
            logits: vec![Block::ZERO; images],
            kept: vec![],
            gradient: vec![Block::ZERO; largest_gradient(weights, rank, images)],
            transposed: vec![],
            pixel_tiles,
            weight_tiles: vec![],
        }
    }

    /// Takes memory for the share that is left to thread `rank` since there are fewer threads.
    pub fn take_more(&mut self, weights: &Weights, rank: usize) {
        self.gradient.resize(largest_gradient(weights, rank, self.logits.len()), Block::ZERO);
    }
}

/// The blocks of the largest gradient that thread `rank` keeps: of slabs of the first layer that are worked on together for
/// batches of several groups, of all its slabs for batches of several parts; or of some slabs of a layer after it.
fn largest_gradient(weights: &Weights, rank: usize, images: usize) -> usize {
    if weights.precision == Precision::Bf16 {
        return WIDEST * LANES;
    }
    let [first, others @ ..] = &weights.layers[..] else { unreachable!("a network has a layer") };
    let own = first.layout.width(first.layout.own(rank, weights.threads()));
    let kept = if images <= GROUP {
        0
    } else if images <= PART_IMAGES {
        own.min(TOGETHER * WIDEST)
    } else {
        own
    };
    let first = weights.shape().inputs() * kept;
    let others = others.iter().map(|layer| hidden_layer::gradient_blocks(layer.layout.rows, images));
    first.max(others.max().unwrap_or(0)).max(WIDEST * LANES)
}

/// One thread's work in some steps.
pub struct Round<'a> {
    pub data: TrainingData<'a>,
    pub access: Access<'a>,
    pub worker: &'a mut Worker,
    /// The right to multiply tiles, for products of bf16 numbers.
    pub tiles: Option<&'a Tiles>,
    /// The images of all steps, one batch after the other.
    pub images: &'a [u32],
    /// The number of steps before.
    pub steps_before: u64,
    /// Whether to bring all weights up to date at the end.
    pub catch_up: bool,
    /// The totals of the epoch's steps before.
    pub totals: EpochTotals,
}

impl Job for Round<'_> {
    type Output = EpochTotals;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> EpochTotals {
        let Self { data, mut access, worker, tiles, images, steps_before, catch_up, mut totals } = self;
        let mut batches = images.chunks(data.recipe.batch_size).peekable();
        for steps_before in steps_before.. {
            let Some(images) = batches.next() else { break };
            let next = batches.peek().copied().unwrap_or_default();
            totals += TrainingStep::new(data, tiles, images, next, steps_before).take(s, &mut access, worker);
            if worker.lazy.is_over() {
                catch_up_all(s, &mut access, worker);
            }
        }
        if catch_up {
            catch_up_all(s, &mut access, worker);
        }
        totals
    }
}

/// Brings all weights of the thread's slabs up to date, and begins a new period of the lazy update.
#[inline(always)]
fn catch_up_all<S: Simd>(s: S, access: &mut Access, worker: &mut Worker) {
    let mut layer = access.layer(0);
    for q in layer.own.clone() {
        let slab = layer.weights.get_mut(q);
        first_layer::catch_up_all(s, slab, &worker.lazy);
        slab.up_to.fill(0);
    }
    worker.lazy.begin();
}

/// A step, which all threads of the team take together.
struct TrainingStep<'a> {
    data: TrainingData<'a>,
    tiles: Option<&'a Tiles>,
    images: &'a [u32],
    /// The images of the step after it.
    next: &'a [u32],
    steps_before: u64,
    rule: StepRule,
    /// The factor of activations that dropout keeps.
    scale: f32,
}

impl<'a> TrainingStep<'a> {
    fn new(
        data: TrainingData<'a>,
        tiles: Option<&'a Tiles>,
        images: &'a [u32],
        next: &'a [u32],
        steps_before: u64,
    ) -> Self {
        let rule = StepRule::new(&data.recipe.optimizer, steps_before + 1);
        Self { data, tiles, images, next, steps_before, rule, scale: dropout::scale(data.recipe.dropout) as f32 }
    }

    #[inline(always)]
    fn take<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) -> EpochTotals {
        self.catch_up(s, access, worker);
        self.forward(s, access, worker);
        let totals = self.output_layer(s, access, worker);
        if access.hidden() > 1 {
            for l in (1..access.hidden()).rev() {
                access.next();
                self.dense_backward(s, access, worker, l);
            }
            access.next();
            for l in 1..access.hidden() {
                self.dense_update(s, access, worker, l);
            }
        }
        // The first layer uses only this thread's memory: others may begin the next step meanwhile.
        access.next();
        self.first_layer_backward(s, access, worker);
        worker.lazy.step(self.steps_before + 1);
        totals
    }

    /// Whether the batch is a single group.
    fn is_one_group(&self) -> bool {
        self.images.len() <= GROUP
    }

    /// Begins the batch's group, if it is a single one. Brings the weights up to date that the batch uses.
    #[inline(always)]
    fn catch_up<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let Worker { groups, lazy, .. } = worker;
        let group = &mut groups[0];
        if self.is_one_group() {
            group.begin(self.data.nonzero, self.images);
        }
        let mut layer = access.layer(0);
        for q in layer.own.clone() {
            let slab = layer.weights.get_mut(q);
            if self.is_one_group() {
                first_layer::catch_up(s, slab, group, lazy);
            } else {
                first_layer::catch_up_all(s, slab, lazy);
            }
        }
    }

    /// The logits.
    #[inline(always)]
    fn forward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let TrainingData { recipe, nonzero, .. } = self.data;
        let Worker { groups, logits, pixel_tiles: pixels, weight_tiles: weights, .. } = worker;
        let multiplier = self.tiles.map(|tiles| TileMultiplier { tiles, pixels, weights });
        let rate = recipe.dropout;
        let dropout = StepDropout { rate, seed: recipe.seed, steps_before: self.steps_before };
        let dropout = (rate > 0.0).then_some(dropout);
        let group = groups.first_mut().filter(|_| self.is_one_group());
        let inputs = Inputs { nonzero, images: self.images, next: self.next };
        forward(s, access, inputs, dropout, group, multiplier, &mut logits[..self.images.len()]);
    }

    /// Loss and gradient of the logits; backward through the output layer, and its update.
    #[inline(always)]
    fn output_layer<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) -> EpochTotals {
        let b = self.images.len();
        let hidden = access.hidden();
        let Recipe { shape, label_smoothing, skip_confident, .. } = self.data.recipe;
        let (classes, smoothing) = (shape.classes(), *label_smoothing as f32);
        let labels = self.images.iter().map(|&image| self.data.labels[image as usize]);
        let Worker { logits, kept, gradient, transposed, .. } = worker;
        let d_logits = &mut logits[..b];
        let totals = output_layer::softmax_gradient(s, d_logits, labels.clone(), classes, smoothing);
        if *skip_confident > 0.0 {
            let target = 1.0 - smoothing + smoothing / classes as f32;
            output_layer::skip_confident(d_logits, labels, target, *skip_confident as f32, kept);
        }
        let (mut layer, mut output) = access.last();
        if hidden == 0 {
            let gradient = layer.gradients.get_mut(0);
            gradient.rows_mut(0..b).copy_from_slice(d_logits);
            gradient.make_ready(s, 0..b);
            return totals;
        }
        for q in layer.own.clone() {
            if interrupt::is_received() {
                break;
            }
            let slab = output.weights.get_mut(q);
            let a = layer.activations.get(q).rows(0..b).blocks;
            let d = layer.gradients.get_mut(q).rows_mut(0..b);
            output_layer::hidden_gradient(s, d_logits, classes, &slab.weights, a, self.scale, transposed, d);
            output_layer::update(s, slab, a, d_logits, &self.rule, gradient);
            layer.gradients.get_mut(q).make_ready(s, 0..b);
        }
        let sum = &mut gradient[..1];
        sum.fill(Block::ZERO);
        for d in &*d_logits {
            add(s, sum, std::slice::from_ref(d));
        }
        output.biases.get_mut(output.rank).update(s, &self.rule, 0..1, sum);
        totals
    }

    /// Backward through hidden layer `l`, from 1, to the one before.
    #[inline(always)]
    fn dense_backward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker, l: usize) {
        let [mut before, layer] = access.pair(l);
        for part in hidden_layer::parts(self.images.len()) {
            if let Some(tiles) = self.tiles {
                let Worker { pixel_tiles: pixels, weight_tiles: weights, .. } = &mut *worker;
                let mut multiplier = TileMultiplier { tiles, pixels, weights };
                bf16::input_gradient(s, &mut before, &layer, &part, &mut multiplier);
            } else {
                hidden_layer::input_gradient(s, &mut before, &layer, &part, &mut worker.transposed);
            }
            for q in before.own.clone() {
                let a = before.activations.get(q).rows(part.clone()).blocks;
                let gradient = before.gradients.get_mut(q);
                hidden_layer::relu_backward(s, a, self.scale, gradient.rows_mut(part.clone()));
                gradient.make_ready(s, part.clone());
            }
        }
    }

    /// The update of hidden layer `l`, from 1.
    #[inline(always)]
    fn dense_update<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker, l: usize) {
        let b = self.images.len();
        if let Some(tiles) = self.tiles {
            return bf16::update(s, access, l, b, tiles, &self.rule);
        }
        let [before, mut layer] = access.pair(l);
        hidden_layer::update(s, &before, &mut layer, b, &self.rule, &mut worker.gradient);
    }

    /// The gradient of the first layer, and its update.
    #[inline(always)]
    fn first_layer_backward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let b = self.images.len();
        let Worker { lazy, groups, kept, pixel_tiles, .. } = worker;
        if let Some(tiles) = self.tiles {
            return bf16::update_first_layer(s, access, b, (tiles, pixel_tiles), &self.rule, lazy);
        }
        let mut layer = access.layer(0);
        if !self.is_one_group() {
            return self.first_layer_backward_in_parts(s, &mut layer, worker);
        }
        let group = &mut groups[0];
        if let [kept] = kept[..] {
            group.keep(kept);
        }
        for q in layer.own.clone() {
            let slab = layer.weights.get_mut(q);
            let d = layer.gradients.get(q).rows(0..b).blocks;
            first_layer::backward(s, slab, group, d, &self.rule, lazy);
            first_layer::update_biases(s, slab, d, &self.rule);
        }
    }

    /// [`first_layer_backward`](Self::first_layer_backward) for a batch of several groups. The gradient of some slabs over the
    /// groups of a part stays in the second-level cache; between parts, that of all slabs is kept.
    #[inline(always)]
    fn first_layer_backward_in_parts<S: Simd>(&self, s: S, layer: &mut LayerAccess, worker: &mut Worker) {
        let b = self.images.len();
        let (layout, inputs) = (layer.layout, self.data.recipe.shape.inputs());
        let Worker { lazy, groups, kept, gradient, .. } = worker;
        for part in hidden_layer::parts(b) {
            self.fill_groups(groups, kept, &part);
            let mut rest = &mut gradient[..];
            for slabs in layout.together::<S>(layer.own.clone()) {
                let blocks = inputs * layout.width(slabs.clone());
                let gradient;
                if b > PART_IMAGES {
                    (gradient, rest) = rest.split_at_mut(blocks)
                } else {
                    gradient = &mut rest[..blocks]
                }
                if part.start == 0 {
                    gradient.fill(Block::ZERO);
                }
                for (group, images) in groups.iter().zip(in_ranges(part.clone(), GROUP)) {
                    first_layer::accumulate(s, layer, slabs.clone(), group, images, gradient);
                }
                if part.end == b {
                    for (gradient, q) in gradient.chunks_exact(blocks / slabs.len()).zip(slabs) {
                        let slab = layer.weights.get_mut(q);
                        first_layer::update(s, slab, gradient, &self.rule, lazy);
                        first_layer::update_biases(s, slab, layer.gradients.get(q).rows(0..b).blocks, &self.rule);
                    }
                }
            }
        }
    }

    /// Fills `groups` with the images of a part of the batch, those that are `kept`.
    #[inline(always)]
    fn fill_groups(&self, groups: &mut [ImageGroup], kept: &[u32], part: &Range<usize>) {
        for (group, images) in groups.iter_mut().zip(in_ranges(part.clone(), GROUP)) {
            let number = images.start / GROUP;
            group.fill(self.data.nonzero, &self.images[images]);
            if let Some(&kept) = kept.get(number) {
                group.keep(kept);
            }
        }
    }
}
