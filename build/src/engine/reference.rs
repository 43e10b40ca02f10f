//! The truth in tests: the training step in plain loops, in f32 or f64.
//!
//! One step on a batch x (B,D) with labels y (B):
//! 1. forward, layer by layer: `z = a W + b`; hidden: `a' = dropout(max(z, 0))`; last: `z` are the logits
//! 2. loss: mean over the batch of `- sum_k t[k] ln p[k]`, with the probabilities `p = softmax(z)` and the targets
//!    `t = (1 - s) onehot(y) + s / K`, where s is the label smoothing
//! 3. backward: `d_z = (p - t) / B`; `d_W = a^T d_z`; `d_b = sum d_z`; `d_a = d_z W^T`; then back through dropout and ReLU to
//!    the layer before
//! 4. the optimizer's update, see [`OptimizerSettings::update`](crate::optim::OptimizerSettings::update)
//!
//! With precision bf16, hidden activations and their gradients `d_z` are rounded to it, and so are the weights of hidden layers
//! in the products. A network without hidden layers has its only layer treated so.

use std::sync::Arc;

use num_traits::Float;

use super::{EngineInfo, EpochTotals, Network, Recipe, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::engine::dropout::{self, DropoutMask};
use crate::error::Result;
use crate::simd::Precision;
use crate::simd::tile::nearest_bf16;

/// The reference engine over the scalar `T`.
pub struct Reference<T> {
    recipe: Recipe,
    train: Arc<Images>,
    parameters: Vec<T>,
    slots: Vec<Vec<T>>,
    step: u64,
}

/// The loss of a batch with its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LossAndGradient<T> {
    /// Mean softmax cross-entropy over the batch, with smoothed labels.
    pub loss: T,
    /// How many were classified right.
    pub correct: usize,
    /// d loss / d parameters (P).
    pub gradient: Vec<T>,
}

/// A batch's way through the network.
struct Forward<T> {
    /// What each layer takes in (B,I): pixels / 255, then the hidden activations after dropout.
    inputs: Vec<Vec<T>>,
    /// (B,K).
    logits: Vec<T>,
}

impl<T: Float> Reference<T> {
    /// The network of `recipe` at its beginning, to be trained on `train`.
    pub fn new(recipe: Recipe, train: Arc<Images>) -> Self {
        let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
        let mut engine = Self { recipe, train, parameters: vec![], slots: vec![], step: 0 };
        engine.take(&initial);
        engine
    }

    /// The loss of the batch of training images `batch` and its gradient, with the dropout mask of the coming step.
    pub fn loss_and_gradient(&self, batch: &[u32]) -> LossAndGradient<T> {
        let d = self.recipe.shape.inputs();
        let pixels: Vec<u8> = batch.iter().flat_map(|&i| &self.train.pixels[i as usize * d..][..d]).copied().collect();
        let labels: Vec<usize> = batch.iter().map(|&i| self.train.labels[i as usize].into()).collect();
        let forward = self.forward(&pixels, Some(self.step));
        self.backward(&forward, &labels)
    }

    /// The logits (N,K) of `pixels` (N,D) in full precision, without dropout.
    pub fn exact_logits(&self, pixels: &[u8]) -> Vec<T> {
        self.forward(pixels, None).logits
    }

    /// The parameters in full precision (P), for numeric gradients.
    pub fn parameters_mut(&mut self) -> &mut [T] {
        &mut self.parameters
    }

    /// Whether the products of layer `l` are made of bf16 numbers in training.
    fn is_rounded(&self, l: usize) -> bool {
        self.recipe.precision == Precision::Bf16 && (l == 0 || l < self.recipe.shape.layers().len() - 1)
    }

    /// Rounds what the products of layer `l` are made of, where they are made of bf16 numbers.
    fn round_if_in_bf16(&self, l: usize, values: &mut [T]) {
        if self.is_rounded(l) {
            values.iter_mut().for_each(|value| *value = round(*value));
        }
    }

    /// The weights of layer `l` as its products in training take them.
    fn weights_in_products(&self, l: usize, weights: &[T]) -> Vec<T> {
        let mut weights = weights.to_vec();
        self.round_if_in_bf16(l, &mut weights);
        weights
    }

    /// Forward, with the dropout masks of step `dropout_step` if there is one.
    fn forward(&self, pixels: &[u8], dropout_step: Option<u64>) -> Forward<T> {
        let shape = &self.recipe.shape;
        let images = pixels.len() / shape.inputs();
        let layers = shape.layers();
        let mut inputs = Vec::with_capacity(layers.len());
        let mut a: Vec<T> = pixels.iter().map(|&pixel| real::<T>(f64::from(pixel)) / real(255.0)).collect();
        for (l, layer) in layers.iter().enumerate() {
            let mut weights = self.parameters[layer.weights.clone()].to_vec();
            if dropout_step.is_some() {
                weights = self.weights_in_products(l, &weights);
            }
            let biases = &self.parameters[layer.biases.clone()];
            let mut z = vec![T::zero(); images * layer.outputs];
            for n in 0..images {
                for o in 0..layer.outputs {
                    let mut sum = biases[o];
                    for i in 0..layer.inputs {
                        sum = sum + a[n * layer.inputs + i] * weights[i * layer.outputs + o];
                    }
                    z[n * layer.outputs + o] = sum;
                }
            }
            inputs.push(a);
            if l + 1 < layers.len() {
                let scales = dropout_step.map(|step| self.dropout_scales(step, l, z.len()));
                for (unit, z) in z.iter_mut().enumerate() {
                    *z = z.max(T::zero()) * scales.as_ref().map_or(T::one(), |scales| scales[unit]);
                }
                if dropout_step.is_some() {
                    self.round_if_in_bf16(l, &mut z);
                }
            }
            a = z;
        }
        Forward { inputs, logits: a }
    }

    /// What dropout multiplies each activation (B,H) after hidden layer `l` by: 0 or 1 / (1 - dropout).
    fn dropout_scales(&self, step: u64, l: usize, units: usize) -> Vec<T> {
        let mask = DropoutMask::new(self.recipe.seed, step, l, self.recipe.dropout);
        let scale = real(dropout::scale(self.recipe.dropout));
        (0..units as u32).map(|unit| if mask.keeps(unit) { scale } else { T::zero() }).collect()
    }

    fn backward(&self, forward: &Forward<T>, labels: &[usize]) -> LossAndGradient<T> {
        let shape = &self.recipe.shape;
        let (images, classes) = (labels.len(), shape.classes());
        let batch = real::<T>(images as f64);
        let smoothing = real::<T>(self.recipe.label_smoothing);
        let share = smoothing / real(classes as f64);

        let mut loss = T::zero();
        let mut correct = 0;
        let mut d_z = forward.logits.clone(); // (B,K)
        let skip_confident = real::<T>(self.recipe.skip_confident);
        for (row, &label) in d_z.chunks_exact_mut(classes).zip(labels) {
            correct += usize::from(crate::score::argmax(row) == label);
            let highest = row.iter().fold(T::neg_infinity(), |a, &b| a.max(b));
            let sum = row.iter().fold(T::zero(), |sum, &z| sum + (z - highest).exp());
            let is_skipped = skip_confident > T::zero() && (row[label] - highest).exp() / sum >= skip_confident;
            for (k, z) in row.iter_mut().enumerate() {
                let target = if k == label { T::one() - smoothing + share } else { share };
                let probability = (*z - highest).exp() / sum;
                loss = loss + target * (sum.ln() + highest - *z) / batch;
                *z = if is_skipped { T::zero() } else { (probability - target) / batch };
            }
        }

        let mut gradient = vec![T::zero(); self.parameters.len()];
        for (l, layer) in shape.layers().into_iter().enumerate().rev() {
            let a = &forward.inputs[l]; // (B,I)
            self.round_if_in_bf16(l, &mut d_z);
            for n in 0..images {
                for o in 0..layer.outputs {
                    let d = d_z[n * layer.outputs + o];
                    for i in 0..layer.inputs {
                        let w = layer.weights.start + i * layer.outputs + o;
                        gradient[w] = gradient[w] + a[n * layer.inputs + i] * d;
                    }
                    let b = layer.biases.start + o;
                    gradient[b] = gradient[b] + d;
                }
            }
            if l == 0 {
                break;
            }
            let weights = self.weights_in_products(l, &self.parameters[layer.weights]);
            let scales = self.dropout_scales(self.step, l - 1, a.len());
            let mut d_a = vec![T::zero(); a.len()];
            for n in 0..images {
                for i in 0..layer.inputs {
                    let unit = n * layer.inputs + i;
                    // An activation that is zero was cut by ReLU or dropped: nothing flows back through it.
                    if a[unit] > T::zero() {
                        let mut sum = T::zero();
                        for o in 0..layer.outputs {
                            sum = sum + d_z[n * layer.outputs + o] * weights[i * layer.outputs + o];
                        }
                        d_a[unit] = sum * scales[unit];
                    }
                }
            }
            d_z = d_a;
        }
        LossAndGradient { loss, correct, gradient }
    }

    fn take(&mut self, state: &TrainingState) {
        let all = |values: &[f32]| values.iter().map(|&v| real(f64::from(v))).collect::<Vec<T>>();
        self.parameters = all(&state.parameters);
        self.slots = state.slots.iter().map(|slot| all(slot)).collect();
        self.step = state.step;
    }
}

impl<T: Float + Send> Network for Reference<T> {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "reference",
            device: "cpu",
            gpus: 0,
            backend: format!("plain loops in f{}", 8 * size_of::<T>()),
            instruction_set: std::env::consts::ARCH.into(),
            threads: 1,
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        Ok(singles(&self.exact_logits(pixels)))
    }
}

impl<T: Float + Send> Trainer for Reference<T> {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let mut totals = EpochTotals::default();
        for batch in order.chunks(self.recipe.batch_size) {
            let result = self.loss_and_gradient(batch);
            self.step += 1;
            self.recipe.optimizer.update(self.step, &mut self.parameters, &result.gradient, &mut self.slots);
            totals.images += batch.len();
            totals.loss_sum += result.loss.to_f64().unwrap_or(f64::NAN) * batch.len() as f64;
            totals.correct += result.correct;
            progress(totals.progress())?;
        }
        Ok(totals)
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        self.train = train;
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        Ok(TrainingState {
            parameters: singles(&self.parameters),
            slots: self.slots.iter().map(|slot| singles(slot)).collect(),
            step: self.step,
        })
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        self.take(state);
        Ok(())
    }
}

fn real<T: Float>(value: f64) -> T {
    T::from(value).unwrap_or_else(T::nan)
}

fn singles<T: Float>(values: &[T]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32().unwrap_or(f32::NAN)).collect()
}

/// `value` rounded to bf16.
fn round<T: Float>(value: T) -> T {
    real(nearest_bf16(value.to_f32().unwrap_or(f32::NAN)).into())
}
