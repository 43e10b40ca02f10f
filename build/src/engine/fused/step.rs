//! The training step, by each thread of the team on its own columns of every layer.

use super::access::{Access, LayerAccess};
use super::bf16::{self, TileMultiplier};
use super::first_layer;
use super::forward::{Inputs, StepDropout, forward};
use super::gradient_sums::GradientSums;
use super::group::{GROUP, ImageGroup};
use super::hidden_layer;
use super::micro_batch::{self, in_ranges, passes};
use super::nonzero::NonzeroPixels;
use super::output_layer;
use super::pixel_tiles::PixelTiles;
use super::weights::Weights;
use crate::engine::{EpochTotals, Recipe, dropout};
use crate::interrupt;
use crate::optim::lazy::LazyUpdates;
use crate::optim::vectors::StepRule;
use crate::simd::tile::{Bf16Tile, Tiles};
use crate::simd::{Block, Job, Precision, Simd};

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
    /// The images of the micro-batch. The first group is the only one of a batch that is a single group.
    groups: Vec<ImageGroup>,
    /// Logits of the micro-batch, then their gradient.
    logits: Vec<Block>,
    /// The images of the micro-batch that have a gradient: a bit for each, 32 in a number. With `skip_confident` only.
    kept: Vec<u32>,
    /// The gradients of the weights.
    sums: GradientSums,
    /// Scratch memory for transposed weights.
    transposed: Vec<Block>,
    /// The micro-batch's pixels, and scratch memory for weights, for products of bf16 numbers.
    pixel_tiles: PixelTiles,
    weight_tiles: Vec<Bf16Tile>,
}

impl Worker {
    /// Thread `rank` of those that `weights` are laid out for, for batches of `batch` images.
    pub fn new(recipe: &Recipe, weights: &Weights, rank: usize, batch: usize) -> Self {
        let inputs = recipe.shape.inputs();
        let images = micro_batch::size(batch, recipe.precision);
        let (groups, pixel_tiles) = match recipe.precision {
            Precision::Float32 => (images.div_ceil(GROUP).max(1), PixelTiles::default()),
            Precision::Bf16 => (1, PixelTiles::new(images, inputs)),
        };
        Self {
            lazy: LazyUpdates::new(recipe.optimizer),
            groups: (0..groups).map(|_| ImageGroup::new(inputs)).collect(),
            logits: vec![Block::ZERO; images],
            kept: vec![],
            sums: GradientSums::new(weights, rank, batch),
            transposed: vec![],
            pixel_tiles,
            weight_tiles: vec![],
        }
    }

    /// Takes memory for the share that is left to thread `rank` since there are fewer threads.
    pub fn take_more(&mut self, weights: &Weights, rank: usize) {
        self.sums.take_more(weights, rank);
    }
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
        let Self { data, mut access, worker, tiles, mut images, steps_before, catch_up, mut totals } = self;
        let Recipe { batch_size, precision, .. } = *data.recipe;
        let most = micro_batch::size(batch_size, precision);
        for steps_before in steps_before.. {
            let batch = batch_size.min(images.len());
            if batch == 0 {
                break;
            }
            let step = TrainingStep::new(data, tiles, batch, steps_before);
            for range in in_ranges(batch, most) {
                let (these, after) = images.split_at(range.len());
                let next = &after[..most.min(after.len())];
                let micro_batch = MicroBatch { step: &step, images: these, before: range.start, next };
                totals += micro_batch.pass(s, &mut access, worker);
                images = after;
            }
            worker.lazy.step(steps_before + 1);
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
    /// B.
    batch: usize,
    steps_before: u64,
    rule: StepRule,
    /// The factor of activations that dropout keeps.
    scale: f32,
}

impl<'a> TrainingStep<'a> {
    fn new(data: TrainingData<'a>, tiles: Option<&'a Tiles>, batch: usize, steps_before: u64) -> Self {
        let rule = StepRule::new(&data.recipe.optimizer, steps_before + 1);
        Self { data, tiles, batch, steps_before, rule, scale: dropout::scale(data.recipe.dropout) as f32 }
    }
}

/// A micro-batch of a step.
struct MicroBatch<'a> {
    step: &'a TrainingStep<'a>,
    images: &'a [u32],
    /// How many images of the batch come before them.
    before: usize,
    /// The images of the micro-batch after it.
    next: &'a [u32],
}

impl MicroBatch<'_> {
    /// Passes the network forward and backward. The last one updates the weights.
    #[inline(always)]
    fn pass<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) -> EpochTotals {
        worker.sums.begin(self.before == 0);
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
        // The first layer uses only this thread's memory: others may begin the next micro-batch meanwhile.
        access.next();
        self.first_layer_backward(s, access, worker);
        totals
    }

    /// The rule of the update, if this is the last micro-batch.
    fn rule(&self) -> Option<&StepRule> {
        (self.before + self.images.len() == self.step.batch).then_some(&self.step.rule)
    }

    /// Whether the batch is a single group.
    fn is_one_group(&self) -> bool {
        self.step.batch <= GROUP
    }

    /// Begins the batch's group, if it is a single one. Brings the weights up to date that the batch uses.
    #[inline(always)]
    fn catch_up<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let Worker { groups, lazy, .. } = worker;
        let group = &mut groups[0];
        if self.is_one_group() {
            group.begin(self.step.data.nonzero, self.images);
        }
        let mut layer = access.layer(0);
        for q in layer.own.clone() {
            let slab = layer.weights.get_mut(q);
            if self.is_one_group() {
                first_layer::catch_up(s, slab, group, lazy);
            } else if self.before == 0 {
                first_layer::catch_up_all(s, slab, lazy);
            }
        }
    }

    /// The logits.
    #[inline(always)]
    fn forward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let &TrainingStep { data: TrainingData { recipe, nonzero, .. }, tiles, steps_before, .. } = self.step;
        let Worker { groups, logits, pixel_tiles: pixels, weight_tiles: weights, .. } = worker;
        let multiplier = tiles.map(|tiles| TileMultiplier { tiles, pixels, weights });
        let rate = recipe.dropout;
        let dropout = StepDropout { rate, seed: recipe.seed, steps_before };
        let dropout = (rate > 0.0).then_some(dropout);
        let group = groups.first_mut().filter(|_| self.is_one_group());
        let inputs = Inputs { nonzero, images: self.images, before: self.before, next: self.next };
        forward(s, access, inputs, dropout, group, multiplier, &mut logits[..self.images.len()]);
    }

    /// Loss and gradient of the logits; backward through the output layer, and its update.
    #[inline(always)]
    fn output_layer<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) -> EpochTotals {
        let (b, batch, data) = (self.images.len(), self.step.batch, self.step.data);
        let hidden = access.hidden();
        let Recipe { shape, label_smoothing, skip_confident, .. } = data.recipe;
        let (classes, smoothing) = (shape.classes(), *label_smoothing as f32);
        let labels = self.images.iter().map(|&image| data.labels[image as usize]);
        let Worker { logits, kept, sums, transposed, .. } = worker;
        let d_logits = &mut logits[..b];
        let totals = output_layer::softmax_gradient(s, d_logits, labels.clone(), batch, classes, smoothing);
        if *skip_confident > 0.0 {
            let target = 1.0 - smoothing + smoothing / classes as f32;
            output_layer::skip_confident(d_logits, labels, batch, target, *skip_confident as f32, kept);
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
            output_layer::hidden_gradient(s, d_logits, classes, &slab.weights, a, self.step.scale, transposed, d);
            output_layer::update(s, slab, a, d_logits, self.rule(), sums.next(slab.rows()));
            layer.gradients.get_mut(q).make_ready(s, 0..b);
        }
        output.biases.get_mut(output.rank).update_biases(s, d_logits, self.rule(), sums.next(1));
        totals
    }

    /// Backward through hidden layer `l`, from 1, to the one before.
    #[inline(always)]
    fn dense_backward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker, l: usize) {
        let [mut before, layer] = access.pair(l);
        for part in passes(self.images.len()) {
            if let Some(tiles) = self.step.tiles {
                bf16::input_gradient(s, &mut before, &layer, &part, tiles, &mut worker.weight_tiles);
            } else {
                hidden_layer::input_gradient(s, &mut before, &layer, &part, &mut worker.transposed);
            }
            for q in before.own.clone() {
                let a = before.activations.get(q).rows(part.clone()).blocks;
                let gradient = before.gradients.get_mut(q);
                hidden_layer::relu_backward(s, a, self.step.scale, gradient.rows_mut(part.clone()));
                gradient.make_ready(s, part.clone());
            }
        }
    }

    /// The gradient of the weights of hidden layer `l`, from 1, and their update.
    #[inline(always)]
    fn dense_update<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker, l: usize) {
        let b = self.images.len();
        let [before, mut layer] = access.pair(l);
        if let Some(tiles) = self.step.tiles {
            bf16::update(s, &before, &mut layer, b, tiles, self.rule(), &mut worker.sums);
        } else {
            hidden_layer::update(s, &before, &mut layer, b, self.rule(), &mut worker.sums);
        }
        self.update_biases(s, &mut layer, &mut worker.sums);
    }

    /// The gradient of the first layer, and its update.
    #[inline(always)]
    fn first_layer_backward<S: Simd>(&self, s: S, access: &mut Access, worker: &mut Worker) {
        let mut layer = access.layer(0);
        if let Some(tiles) = self.step.tiles {
            let Worker { lazy, pixel_tiles, sums, .. } = &mut *worker;
            let (b, rule) = (self.images.len(), self.rule());
            bf16::update_first_layer(s, &mut layer, b, (tiles, pixel_tiles), rule, lazy, sums);
        } else if self.is_one_group() {
            self.first_layer_by_pixels(s, &mut layer, worker);
        } else {
            self.first_layer_by_groups(s, &mut layer, worker);
        }
        self.update_biases(s, &mut layer, &mut worker.sums);
    }

    /// [`first_layer_backward`](Self::first_layer_backward) without the biases, for a batch that is a single group.
    #[inline(always)]
    fn first_layer_by_pixels<S: Simd>(&self, s: S, layer: &mut LayerAccess, worker: &mut Worker) {
        let Worker { lazy, groups, kept, .. } = worker;
        let group = &mut groups[0];
        if let [kept] = kept[..] {
            group.keep(kept);
        }
        for q in layer.own.clone() {
            let d = layer.gradients.get(q).rows(0..self.images.len()).blocks;
            first_layer::backward(s, layer.weights.get_mut(q), group, d, &self.step.rule, lazy);
        }
    }

    /// [`first_layer_backward`](Self::first_layer_backward) without the biases, for a batch of several groups. The gradient of
    /// some slabs stays in the second-level cache over all groups of the micro-batch.
    #[inline(always)]
    fn first_layer_by_groups<S: Simd>(&self, s: S, layer: &mut LayerAccess, worker: &mut Worker) {
        let (b, inputs) = (self.images.len(), self.step.data.recipe.shape.inputs());
        let Worker { lazy, groups, kept, sums, .. } = worker;
        self.fill_groups(groups, kept);
        for slabs in layer.layout.together::<S>(layer.own.clone()) {
            if interrupt::is_received() {
                return;
            }
            let gradient = sums.next(inputs * layer.layout.width(slabs.clone()));
            for (group, images) in groups.iter().zip(in_ranges(b, GROUP)) {
                first_layer::accumulate(s, layer, slabs.clone(), group, images, gradient);
            }
            if let Some(rule) = self.rule() {
                for (gradient, q) in gradient.chunks_exact(gradient.len() / slabs.len()).zip(slabs) {
                    first_layer::update(s, layer.weights.get_mut(q), gradient, rule, lazy);
                }
            }
        }
    }

    /// The gradient of the layer's biases, and their update.
    #[inline(always)]
    fn update_biases<S: Simd>(&self, s: S, layer: &mut LayerAccess, sums: &mut GradientSums) {
        for q in layer.own.clone() {
            let (slab, d) = (layer.weights.get_mut(q), layer.gradients.get(q).rows(0..self.images.len()).blocks);
            slab.update_biases(s, d, self.rule(), sums.next(slab.width));
        }
    }

    /// Fills `groups` with the images, those that are `kept`.
    #[inline(always)]
    fn fill_groups(&self, groups: &mut [ImageGroup], kept: &[u32]) {
        for (n, (group, images)) in groups.iter_mut().zip(self.images.chunks(GROUP)).enumerate() {
            group.fill(self.step.data.nonzero, images);
            if let Some(&kept) = kept.get(n) {
                group.keep(kept);
            }
        }
    }
}
