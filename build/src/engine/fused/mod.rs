//! The CPU engine that users get: one training step in fused kernels, which do only the necessary work.
//!
//! | word | meaning here |
//! |---|---|
//! | block | 16 numbers: a cache line, and the unit of all vector arithmetic ([`Block`]) |
//! | slab | some neighbouring columns of a layer's weights, up to 64, with the optimizer's slots; one thread owns it |
//! | panel | a matrix (B,W) that belongs to a slab: activations or their gradient |
//! | mask | which of up to 64 numbers are not 0, a bit for each; dense layers use no others |
//! | nonzero pixel | a pixel that is not 0; the first layer reads no others |
//! | stretch | 158 neighbouring pixels, whose weights fit into the first-level cache |
//! | micro-batch | up to 256 images of a batch, in bf16 1,024, which pass all layers forward and backward before the next |
//! | group | up to 32 images of a micro-batch, listed pixel by pixel for the gradient of the first layer |
//! | lazy update | weights of pixels that are zero in the whole batch are not touched in the step |
//! | catch up | to apply the updates that such weights missed, before they are used again |
//! | dense layer | a hidden layer after the first |
//! | logit part | the logits' sum over a few hidden columns; all threads add up all parts in the same order |
//! | phase | a step's work between two barriers; it decides who may use which memory (`access.rs`) |
//! | scratch | memory that keeps nothing from one use to the next |
//!
//! One step on a batch of B images, by each thread of the team on its own columns H' of the hidden layer (letters: see
//! [`crate::model`]):
//!
//! ```text
//! for each pixel nonzero in any image, if its weights are behind:              LazyUpdates::catch_up
//!     W[pixel, H'] catches up
//! for each stretch of 158 pixels, for each image:                              first_layer::forward
//!     z[image, H'] += sum over nonzero pixels: x[pixel] W[pixel, H']
//! a = dropout(max(z, 0))                                                       forward::activate
//! part[H'] = a[:, H'] V[H', :]                                                 output_layer::partial_logits
//! ---- the one barrier of a network with one hidden layer; a thread prefetches the next batch before it waits ----
//! logits = c + sum of all parts                                                each thread for itself
//! d_logits = (softmax(logits) - target) / B                                    output_layer::softmax_gradient
//! d_logits = 0 for images that are right with enough probability, if asked     output_layer::skip_confident
//! d[:, H'] = d_logits V[H', :]^T where a > 0                                   output_layer::hidden_gradient
//! V[H', :] -= optimizer(a[:, H']^T d_logits)                                   output_layer::update
//! for each pixel nonzero in any image:                                         first_layer::backward
//!     g = sum over images in which it is nonzero: x[pixel] d[image, H']        in registers
//!     W[pixel, H'] -= optimizer(g)
//! ```
//!
//! Dense layers (`hidden_layer`) have a barrier before each on the forward pass and on the backward pass, one before
//! their weights change and one after. They too use only what is not zero: ReLU and dropout leave a quarter to some half.
//! For batches of more than 32 images, the first layer's gradient is summed over groups of 32 and kept in memory in
//! between; for those of several micro-batches, all gradients are, from one to the next. Every sum has an order that
//! depends neither on the number of threads nor on the columns that a thread owns, so neither does any bit of the result.
//!
//! The work in a step for 784-128-10, B = 32 and Adam on MNIST. There, 150 pixels of an image are nonzero on average
//! and 457 in any of 32 images; the weights of 37 of them are behind. `cargo bench --features bench --bench limits -- DATA_DIR`
//! counts this, and measures the rates of the machine.
//!
//! | operations on single numbers, a multiply-add being one | |
//! |---|---|
//! | first layer, forward and the gradient: 2 x 32 x 150 x 128 | 1.23 million |
//! | output layer, forward, gradient of weights and of activations: 3 x 32 x 128 x 10 | 0.12 million |
//! | Adam, 12 a parameter: (457 x 128 + 128 + 1,290) x 12, and 16 for each that catches up | 0.80 million |
//! | bytes between first- and second-level cache | |
//! | W once in the forward pass; W, m and v read and written in the backward pass | 1.75 MB |
//!
//! That is 268,000 instructions on 8 numbers (AVX2) or 134,000 on 16 (AVX-512). At two a cycle these take 67,000 or
//! 34,000 cycles of each of two threads. The bytes, at 32 a cycle, take 27,000 cycles of each, which overlap.
//!
//! No program reaches two a cycle, so this is not the limit. Each multiply-add of the first layer reads a weight or a gradient
//! from the first-level cache, and each row of 64 columns one pixel's value and its place too: 11 reads for 8 multiply-adds by
//! AVX-512, at one (Zen 4) or two a cycle. Adam's estimates of a root and of a quotient count as one operation each and take
//! two to four. `limits` measures these rates too; by them, the least time of a step was 1.7 times as long on an Intel Xeon. On
//! top come the lists of nonzero pixels and the loss (a tenth), and branch mispredictions at loop exits: one for each image and
//! stretch, and one for each pixel.

#![expect(clippy::needless_range_loop, reason = "kernels go through several arrays alike, by indices that unroll")]

mod access;
mod barrier;
mod bf16;
#[cfg(target_arch = "x86_64")]
mod compress;
mod evaluate;
mod first_layer;
mod forward;
mod gradient_sums;
mod group;
#[cfg(test)]
mod helgrind;
mod hidden_layer;
mod lister;
mod lists;
mod micro_batch;
mod nonzero;
mod output_layer;
mod panel;
mod pixel_tiles;
mod shared;
mod step;
mod team;
#[cfg(test)]
mod valgrind_tests;
mod weights;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::access::{Access, Exchange};
use self::group::GROUP;
use self::nonzero::NonzeroPixels;
use self::step::{Round, TrainingData, Worker};
use self::team::{STEPS, Search, TeamSearch};
use self::weights::{TOGETHER, WIDEST, Weights, grain};
use super::pace::steps_for;
use super::{EngineInfo, EpochTotals, Network, Recipe, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::MlpShape;
use crate::optim::OptimizerSettings;
#[cfg(doc)]
use crate::simd::Block;
use crate::simd::tile::Tiles;
use crate::simd::{FlushDenormals, InstructionSet, LANES, Precision};
use crate::threads;

/// About how long the team works between two calls of `progress`.
const ROUND: Duration = Duration::from_millis(30);

/// Whether the kernels can compute a network of this shape.
fn supports(shape: &MlpShape) -> Result<()> {
    let refused = |expected: String, found| {
        Err(Error::Unsupported { engine: "fused", reason: format!("expected {expected}, found {found}") })
    };
    if shape.classes() > LANES {
        return refused(format!("at most {LANES} classes"), shape.classes());
    }
    if shape.inputs() > usize::from(u16::MAX) {
        return refused(format!("at most {} pixels an image", u16::MAX), shape.inputs());
    }
    Ok(())
}

fn info(weights: &Weights, set: InstructionSet) -> EngineInfo {
    EngineInfo {
        engine: "fused",
        device: "cpu",
        gpus: 0,
        backend: "own kernels".into(),
        instruction_set: set.name().into(),
        threads: weights.threads(),
    }
}

/// A network that only answers, with the fused kernels.
pub struct FusedNetwork {
    weights: Weights,
    set: InstructionSet,
}

impl FusedNetwork {
    /// About how many bytes a network of `shape` takes, besides its parameters.
    pub fn memory(shape: &MlpShape) -> u64 {
        (size_of::<f32>() * shape.parameter_count()) as u64
    }

    /// The network of `shape` with `parameters` (P), for at most `threads` threads and the instruction set `set`.
    ///
    /// # Errors
    /// The shape is not supported, or a signal arrived.
    pub fn new(shape: &MlpShape, parameters: &[f32], threads: usize, set: InstructionSet) -> Result<Self> {
        supports(shape)?;
        let mut weights = Weights::new(shape, None, threads)?;
        weights.each_parameter(|at, mut place| place.weights().copy_from_slice(&parameters[at]));
        interrupt::check().map(|()| Self { weights, set })
    }
}

impl Network for FusedNetwork {
    fn info(&self) -> EngineInfo {
        info(&self.weights, self.set)
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        evaluate::logits(&self.weights, self.set, pixels)
    }
}

/// The fused engine.
pub struct FusedEngine {
    recipe: Recipe,
    /// Of the training images (N).
    labels: Vec<u8>,
    /// The pixels of the training images.
    nonzero: NonzeroPixels,
    weights: Weights,
    exchange: Exchange,
    /// One for each thread.
    workers: Vec<Worker>,
    set: InstructionSet,
    /// The number of steps done.
    step: u64,
    /// The number of steps until the team meets for `progress`.
    steps_per_round: usize,
    /// The search for the number of threads, until it is over.
    search: Option<TeamSearch>,
}

impl FusedEngine {
    /// Whether this engine can train `recipe`.
    ///
    /// # Errors
    /// It cannot, with the reason.
    pub fn supports(recipe: &Recipe) -> Result<()> {
        supports(&recipe.shape)
    }

    /// About how many bytes training `recipe` on `train` takes at most, without the images themselves.
    pub fn memory(recipe: &Recipe, train: &Images) -> u64 {
        let shape = &recipe.shape;
        let batch = recipe.batch_size.min(train.len());
        let widths = shape.widths();
        let hidden = &widths[1..widths.len() - 1];
        // Weights and slots, and the parameters of the last two epochs. Files are made of these when the rest is gone.
        let parameters = size_of::<f32>() * shape.parameter_count() * (1 + recipe.optimizer.slots().len() + 2);
        // Activations with their gradients, and the logits with their parts, twice.
        let units =
            2 * hidden.iter().sum::<usize>() + hidden.last().map_or(0, |&last| 2 * last / grain(last)) + 2 * LANES;
        let images = micro_batch::size(batch, recipe.precision);
        // Of a batch of several micro-batches all, else of the slabs of the first layer that threads work on at a time.
        let gradients = match recipe.precision {
            _ if batch > images => shape.parameter_count(),
            Precision::Float32 if batch > GROUP => {
                widths[0] * widths[1].min(recipe.threads * TOGETHER * WIDEST * LANES)
            }
            _ => 0,
        };
        let nonzero = NonzeroPixels::memory(&train.pixels, shape.inputs());
        let products = match recipe.precision {
            // Masks: three bits for two numbers.
            Precision::Float32 => images * units / 4,
            // Two kinds of tiles of each panel.
            Precision::Bf16 => 2 * size_of::<f32>() * images * units + recipe.threads * bf16::memory(images, shape),
        };
        (parameters + size_of::<f32>() * (images * units + gradients) + nonzero + products) as u64
    }

    /// The network of `recipe` at its beginning, to be trained on `train`, with the instruction set `set`. Images that are
    /// nobody else's give their memory back.
    ///
    /// # Errors
    /// The recipe is not supported, or a signal arrived.
    pub fn new(recipe: Recipe, train: Arc<Images>, set: InstructionSet) -> Result<Self> {
        Self::supports(&recipe)?;
        let initial = recipe.shape.initial_parameters(recipe.seed);
        let mut weights = Weights::new(&recipe.shape, training(&recipe), recipe.threads)?;
        weights.each_parameter(|at, mut place| place.weights().copy_from_slice(&initial[at]));
        let (nonzero, labels) = listed(train, recipe.shape.inputs(), weights.threads())?;
        let (exchange, workers) = team(&recipe, &weights, labels.len());
        let (step, steps_per_round, search) = (0, 1, None);
        let mut engine =
            Self { nonzero, exchange, workers, recipe, labels, weights, set, step, steps_per_round, search };
        engine.train_round(&[], false, EpochTotals::default()); // finds out how many threads there are
        engine.search = TeamSearch::among(engine.weights.threads()).filter(|_| engine.recipe.fewer_threads);
        interrupt::check().map(|()| engine)
    }

    /// Goes on with this number of threads. All weights are up to date.
    fn set_threads(&mut self, threads: usize) -> Result<()> {
        if threads == self.weights.threads() {
            return Ok(());
        }
        let state = self.state()?;
        let weights = Weights::new(&self.recipe.shape, training(&self.recipe), threads)?;
        (self.exchange, self.workers) = team(&self.recipe, &weights, self.labels.len());
        self.weights = weights;
        self.load_state(&state)
    }

    /// The steps until the team meets the next time, `done` steps after the epoch began, and whether they are a measurement.
    fn next_round(&self, done: usize) -> (usize, bool) {
        // Where a round is shorter, steps are so long that they gain by every thread.
        if self.search.is_none() || self.steps_per_round < STEPS {
            return (self.steps_per_round, false);
        }
        match done % STEPS {
            0 => (STEPS, true),
            some => (STEPS - some, false),
        }
    }

    /// Trains on the batches of `images`, with all threads. With `catch_up`, all weights are up to date afterwards. Returns
    /// the epoch's totals, which were `before`: one sum over its steps, so that no bit depends on how long rounds are.
    fn train_round(&mut self, images: &[u32], catch_up: bool, before: EpochTotals) -> EpochTotals {
        loop {
            match self.try_round(images, catch_up, before) {
                Ok(totals) => {
                    self.step += images.len().div_ceil(self.recipe.batch_size) as u64;
                    return totals;
                }
                Err(threads) => self.reduce_threads(threads),
            }
        }
    }

    /// Goes on with fewer threads. All of them know the same of the lazy update, so those that are left miss nothing.
    fn reduce_threads(&mut self, threads: usize) {
        self.search = None;
        self.weights.reduce_threads(threads);
        self.exchange.reduce_threads(threads);
        self.workers.truncate(threads);
        for (rank, worker) in self.workers.iter_mut().enumerate() {
            worker.take_more(&self.weights, rank);
        }
    }

    /// [`FusedEngine::train_round`]. The error is the number of threads that the system starts; nothing has changed then.
    fn try_round(
        &mut self,
        images: &[u32],
        catch_up: bool,
        totals: EpochTotals,
    ) -> std::result::Result<EpochTotals, usize> {
        let (set, steps_before) = (self.set, self.step);
        let data = TrainingData { recipe: &self.recipe, labels: &self.labels, nonzero: &self.nonzero };
        let work = move |(access, worker): (Access, _)| {
            let _watch = access.watch();
            let _flush = FlushDenormals::begin();
            let tiles = (data.recipe.precision == Precision::Bf16).then(|| Tiles::begin(set.tile_unit()));
            let tiles = tiles.as_ref();
            set.run(Round { data, access, worker, tiles, images, steps_before, catch_up, totals })
        };
        let team = Access::for_team(&mut self.weights, &mut self.exchange).into_iter().zip(&mut self.workers);
        // Every thread computes the totals of all images.
        threads::together(team.collect(), work)
    }
}

impl Network for FusedEngine {
    fn info(&self) -> EngineInfo {
        info(&self.weights, self.set)
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        evaluate::logits(&self.weights, self.set, pixels)
    }
}

impl Trainer for FusedEngine {
    fn train_epoch(&mut self, order: &[u32], report: &mut Report) -> Result<EpochTotals> {
        let mut totals = EpochTotals::default();
        let mut left = order;
        while !left.is_empty() {
            let round;
            let done = (order.len() - left.len()) / self.recipe.batch_size;
            let (steps, is_measured) = self.next_round(done);
            let images = steps.saturating_mul(self.recipe.batch_size);
            let is_measured = is_measured && images <= left.len();
            (round, left) = left.split_at(images.min(left.len()));
            let begin = Instant::now();
            totals = self.train_round(round, left.is_empty(), totals);
            let took = begin.elapsed();
            // The rest of an epoch is no measure of how many steps take so long, unless it takes longer.
            let trained = round.len().div_ceil(self.recipe.batch_size);
            if trained == steps || took > ROUND {
                self.steps_per_round = steps_for(ROUND, trained, took);
            }
            // After a signal the round ended early, and its results are worthless.
            if let Err(error) = interrupt::check().and_then(|()| report(totals.progress())) {
                self.train_round(&[], true, totals);
                return Err(error);
            }
            match self.search.as_mut().filter(|_| is_measured).map(|search| search.measured(took)) {
                Some(Search::Measure(threads)) => self.set_threads(threads)?,
                Some(Search::Over(threads)) => {
                    self.search = None;
                    self.set_threads(threads)?;
                }
                None => {}
            }
        }
        Ok(totals)
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        debug_assert_eq!(train.len(), self.labels.len());
        self.nonzero = NonzeroPixels::default(); // before the new ones take memory
        (self.nonzero, self.labels) = listed(train, self.recipe.shape.inputs(), self.weights.threads())?;
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        let recipe = &self.recipe;
        let mut state = TrainingState::new(&recipe.optimizer, vec![0.0; recipe.shape.parameter_count()]);
        state.step = self.step;
        self.weights.each_parameter(|at, mut place| {
            state.parameters[at.clone()].copy_from_slice(place.weights());
            for (slot, values) in state.slots.iter_mut().enumerate() {
                values[at.clone()].copy_from_slice(place.slot(slot));
            }
        });
        interrupt::check().map(|()| state)
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        let mut parameters = vec![0.0; self.recipe.shape.parameter_count()];
        self.weights.each_parameter(|at, mut place| parameters[at].copy_from_slice(place.weights()));
        interrupt::check().map(|()| parameters)
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        self.weights.each_parameter(|at, mut place| {
            place.weights().copy_from_slice(&state.parameters[at.clone()]);
            for (slot, values) in state.slots.iter().enumerate() {
                place.slot(slot).copy_from_slice(&values[at.clone()]);
            }
        });
        self.step = state.step;
        interrupt::check()
    }
}

/// What the weights of a network in training are laid out for.
fn training(recipe: &Recipe) -> Option<(&OptimizerSettings, Precision)> {
    Some((&recipe.optimizer, recipe.precision))
}

/// What the threads of a team share and what each has for itself, to train on so many `images`.
fn team(recipe: &Recipe, weights: &Weights, images: usize) -> (Exchange, Vec<Worker>) {
    let batch = recipe.batch_size.min(images);
    let workers = (0..weights.threads()).map(|rank| Worker::new(recipe, weights, rank, batch)).collect();
    (Exchange::for_training(weights, micro_batch::size(batch, recipe.precision)), workers)
}

/// The nonzero pixels of `images`, whose inputs are D, and their labels.
///
/// # Errors
/// There is not so much memory.
fn listed(images: Arc<Images>, d: usize, threads: usize) -> Result<(NonzeroPixels, Vec<u8>)> {
    Ok(match Arc::try_unwrap(images) {
        Ok(images) => (NonzeroPixels::new(images.pixels.into(), d, threads)?, images.labels),
        Err(shared) => (NonzeroPixels::new((&shared.pixels).into(), d, threads)?, shared.labels.clone()),
    })
}
