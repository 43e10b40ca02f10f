//! The CPU engine that users get: one training step, hand-fused, that leaves only the work that must be done.
//!
//! One step on a batch of B images, by each thread of the team on its own columns H' of the hidden layer (letters: see
//! [`crate::model`]; `lit` are the pixels of an image that are not black, `lit in any` those lit in any of the batch):
//!
//! ```text
//! for each pixel lit in any that rested since an earlier step:                 LazyUpdates::catch_up
//!     W[pixel, H'] moves on by what the optimizer remembers
//! for each stretch of 158 pixels, for each image:                              first_layer::forward
//!     z[image, H'] += sum over lit: x[pixel] W[pixel, H']
//! a = dropout(max(z, 0))                                                       step::activate
//! part[H'] = a[:, H'] V[H', :]                                                 output_layer::partial_logits
//! ---- the one barrier of a network with one hidden layer; who waits fetches the next batch from memory ----
//! logits = c + sum of all parts                                                each thread for itself
//! d_logits = (softmax(logits) - onehot(label)) / B                             output_layer::softmax_gradient
//! d[:, H'] = d_logits V[H', :]^T where a > 0                                   output_layer::hidden_gradient
//! V[H', :] -= optimizer(a[:, H']^T d_logits)                                   output_layer::update
//! for each pixel lit in any:                                                   first_layer::backward
//!     g = sum over images in which it is lit: x[pixel] d[image, H']            in registers
//!     W[pixel, H'] -= optimizer(g)
//! ```
//!
//! Hidden layers after the first are dense (`hidden_layer`): a barrier before each on the way there and on the way back,
//! one before their weights change and one after. Batches of more than 32 images are taken 32 at a time on the way back,
//! and gradients kept in between. Every sum has an order that depends neither on the number of threads nor on the columns
//! that a thread has, so neither does any bit of the result.
//!
//! What a step must cost for 784-128-10, B = 32 and Adam on MNIST, where 150 pixels of an image are lit on average and 457
//! in any of 32, 37 of which rested (counted by `cargo bench --bench limits`, which measures what the machine could do):
//!
//! | operations on single numbers, a multiply-add being one | |
//! |---|---|
//! | first layer, forward and the gradient: 2 x 32 x 150 x 128 | 1.23 million |
//! | output layer, forward, gradient of weights and of activations: 3 x 32 x 128 x 10 | 0.12 million |
//! | Adam, 12 a parameter: (457 x 128 + 128 + 1,290) x 12, and 16 for each that rested | 0.80 million |
//! | bytes between first- and second-level cache | |
//! | W once on the way there; W, m and v read and written on the way back | 1.75 MB |
//!
//! That is 268,000 instructions on 8 numbers (AVX2) or 134,000 on 16 (AVX-512); at two a cycle 67,000 or 34,000 cycles for
//! each of two threads. The bytes, at 32 a cycle, take 27,000 cycles for each and overlap. What comes on top are loops that
//! end unforeseen, one for each image and stretch and one for each pixel, and looking up what is lit.

#![expect(clippy::needless_range_loop, reason = "kernels go through several arrays alike, by indices that unroll")]

mod evaluate;
mod first_layer;
mod group;
mod hidden_layer;
mod lit;
mod net;
mod output_layer;
mod step;
mod team;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::evaluate::Evaluation;
use self::net::Net;
use self::output_layer::Scored;
use self::step::{Round, Worker};
use self::team::FlushDenormals;
use super::{EngineInfo, EpochTotals, Network, Progress, Recipe, Trainer, TrainingState, steps_for};
use crate::data::dataset::Images;
use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::optim::OptimizerSettings;
use crate::simd::InstructionSet;
use crate::simd::LANES;

/// How long the team works between two calls of `progress`, about.
const ROUND: Duration = Duration::from_millis(30);

/// Whether the kernels fit a network of this shape.
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

/// A network that only answers, with the fused kernels.
pub struct FusedNetwork(FusedEngine);

impl FusedNetwork {
    /// The network of `shape` with `parameters` (P), to answer with `threads` threads and the instruction set `set`.
    ///
    /// # Errors
    /// The shape is not supported.
    pub fn new(shape: &MlpShape, parameters: &[f32], threads: usize, set: InstructionSet) -> Result<Self> {
        // Remembers nothing, so that no memory goes to an optimizer.
        let optimizer = OptimizerSettings::sgd(0.0);
        let recipe = Recipe { shape: shape.clone(), optimizer, batch_size: 1, dropout: 0.0, seed: 0, threads };
        let mut engine = FusedEngine::new(recipe, Arc::default(), set)?;
        engine.put(&TrainingState::new(&optimizer, parameters.to_vec()));
        Ok(Self(engine))
    }
}

impl Network for FusedNetwork {
    fn info(&self) -> EngineInfo {
        self.0.info()
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        self.0.logits(pixels)
    }
}

/// The fused engine.
pub struct FusedEngine {
    net: Net,
    workers: Vec<Worker>,
    set: InstructionSet,
    step: u64,
    /// Steps until the team meets for `progress`.
    steps_per_round: usize,
}

impl FusedEngine {
    /// Whether this engine can train `recipe`.
    ///
    /// # Errors
    /// It cannot, with the reason.
    pub fn supports(recipe: &Recipe) -> Result<()> {
        supports(&recipe.shape)
    }

    /// The network of `recipe` at its beginning, to be trained on `train`, with the instruction set `set`.
    ///
    /// # Errors
    /// The recipe is not supported.
    pub fn new(recipe: Recipe, train: Arc<Images>, set: InstructionSet) -> Result<Self> {
        Self::supports(&recipe)?;
        let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
        let net = Net::new(recipe, train, set);
        let threads = net.barrier.threads();
        let workers = (0..threads).map(|rank| Worker::new(&net, rank, threads)).collect();
        let mut engine = Self { net, workers, set, step: 0, steps_per_round: 1 };
        engine.put(&initial);
        Ok(engine)
    }

    fn put(&mut self, state: &TrainingState) {
        let biases = self.workers.iter_mut().map(|worker| &mut worker.output_biases);
        self.net.each_parameter(biases, |index, mut place| {
            *place.value(0) = state.parameters[index];
            for (slot, values) in state.slots.iter().enumerate() {
                *place.value(slot + 1) = values[index];
            }
        });
        self.step = state.step;
    }

    /// Trains on the batches of `images`, with all threads. With `wake`, all weights are up to date afterwards.
    fn train_round(&mut self, images: &[u32], wake: bool) -> Scored {
        let (net, set, step) = (&self.net, self.set, self.step);
        self.step += images.len().div_ceil(net.recipe.batch_size) as u64;
        let work = move |worker| {
            let _watch = net.barrier.watch();
            let _flush = FlushDenormals::begin();
            set.run(Round { net, worker, images, step, wake })
        };
        let [first, others @ ..] = &mut self.workers[..] else { unreachable!("at least one thread") };
        std::thread::scope(|scope| {
            for worker in others {
                scope.spawn(move || work(worker));
            }
            work(first)
        })
    }
}

impl Network for FusedEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "fused",
            device: "cpu",
            backend: "own kernels".into(),
            instruction_set: self.set.name().into(),
            threads: self.workers.len(),
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let shape = &self.net.recipe.shape;
        let (d, classes) = (shape.inputs(), shape.classes());
        let images = pixels.len() / d;
        let mut logits = vec![0.0; images * classes];
        let per_thread = images.div_ceil(self.workers.len()).max(1);
        let mut parts = pixels.chunks(per_thread * d).zip(logits.chunks_mut(per_thread * classes));
        std::thread::scope(|scope| {
            let (net, set, output_biases) = (&self.net, self.set, self.workers[0].output_biases.weights[0]);
            let work = move |(pixels, logits)| {
                let _flush = FlushDenormals::begin();
                set.run(Evaluation { net, output_biases, pixels, logits });
            };
            let first = parts.next();
            for part in parts {
                scope.spawn(move || work(part));
            }
            if let Some(part) = first {
                work(part);
            }
        });
        Ok(logits)
    }
}

impl Trainer for FusedEngine {
    fn train_epoch(&mut self, order: &[u32], progress: &mut dyn FnMut(Progress) -> Result<()>) -> Result<EpochTotals> {
        let mut totals = EpochTotals::default();
        let mut left = order;
        while !left.is_empty() {
            let round;
            let images = self.steps_per_round.saturating_mul(self.net.recipe.batch_size).min(left.len());
            (round, left) = left.split_at(images);
            let begin = Instant::now();
            let scored = self.train_round(round, left.is_empty());
            totals.images += images;
            totals.loss_sum += scored.loss_sum;
            totals.correct += scored.correct;
            self.steps_per_round = steps_for(ROUND, self.steps_per_round, begin.elapsed());
            let told = progress(Progress { images: totals.images, loss: Some(totals.loss_sum / totals.images as f64) });
            if told.is_err() {
                self.train_round(&[], true);
                told?;
            }
        }
        Ok(totals)
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        self.net.set_images(train);
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        let recipe = &self.net.recipe;
        let mut state = TrainingState::new(&recipe.optimizer, vec![0.0; recipe.shape.parameter_count()]);
        state.step = self.step;
        let biases = self.workers.iter_mut().map(|worker| &mut worker.output_biases);
        self.net.each_parameter(biases, |index, mut place| {
            state.parameters[index] = *place.value(0);
            for (slot, values) in state.slots.iter_mut().enumerate() {
                values[index] = *place.value(slot + 1);
            }
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        self.put(state);
        Ok(())
    }
}
