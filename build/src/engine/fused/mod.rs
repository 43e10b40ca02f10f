//! The CPU engine that users get: one training step, hand-fused, that leaves only the work that must be done.

pub mod simd;

mod evaluate;
mod first_layer;
mod group;
mod hidden_layer;
mod lit;
mod net;
mod output_layer;
mod rest;
mod step;
mod team;
mod update;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::evaluate::Evaluation;
use self::net::Net;
use self::output_layer::Scored;
use self::simd::InstructionSet;
use self::step::{Round, Worker};
use self::team::FlushDenormals;
use super::{Engine, EngineInfo, EpochTotals, Progress, Recipe, TrainingState};
use crate::data::dataset::Images;
use crate::error::Result;

/// How long the team works between two calls of `progress`, about.
const ROUND: Duration = Duration::from_millis(30);

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
    /// The network of `recipe` at its beginning, to be trained on `train`, with the instruction set `set`.
    ///
    /// The network may have at most 16 classes.
    pub fn new(recipe: Recipe, train: Arc<Images>, set: InstructionSet) -> Self {
        let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
        let net = Net::new(recipe, train, set);
        let threads = net.barrier.threads();
        let workers = (0..threads).map(|rank| Worker::new(&net, rank, threads)).collect();
        let mut engine = Self { net, workers, set, step: 0, steps_per_round: 16 };
        engine.put(&initial);
        engine
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

impl Engine for FusedEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "fused",
            device: "cpu",
            backend: "fused step".into(),
            instruction_set: self.set.name().into(),
            threads: self.workers.len(),
        }
    }

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
            let per_round = ROUND.as_secs_f64() / begin.elapsed().as_secs_f64().max(1e-6);
            self.steps_per_round = ((self.steps_per_round as f64 * per_round.clamp(0.25, 4.0)) as usize).max(1);
            let told = progress(Progress { images: totals.images, loss: Some(totals.loss_sum / totals.images as f64) });
            if told.is_err() {
                self.train_round(&[], true);
                told?;
            }
        }
        Ok(totals)
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
