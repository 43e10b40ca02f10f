//! Training on tiny shapes with two threads, small enough for Valgrind: memcheck looks for reads and writes out of
//! bounds, helgrind for accesses that no barrier orders.

use std::sync::Arc;

use super::*;
use crate::optim::{OptimizerKind, OptimizerOptions, Schedule};

/// An engine to be trained on `images` images, and these.
pub fn engine(
    set: InstructionSet,
    hidden: &[usize],
    batch_size: usize,
    images: usize,
    threads: usize,
) -> (FusedEngine, Arc<Images>) {
    let shape = MlpShape::new(23, hidden, 3);
    let pixels = (0..images * 23).map(|i| if i % 3 == 0 { (7 * i) as u8 } else { 0 }).collect();
    let labels = (0..images).map(|i| (i % 3) as u8).collect();
    let train = Arc::new(Images { side: 1, classes: &["a", "b", "c"], pixels, labels });
    let optimizer = OptimizerKind::Adam.settings(Schedule::constant(0.01), &OptimizerOptions::default());
    let recipe = Recipe {
        shape,
        optimizer,
        batch_size,
        dropout: 0.5,
        label_smoothing: 0.0,
        skip_confident: 0.0,
        precision: Precision::Float32,
        fewer_threads: false,
        ensemble: 1,
        seed: 1,
        threads,
    };
    let engine = FusedEngine::new(recipe, train.clone(), set).unwrap();
    assert_eq!(engine.info().threads, threads);
    (engine, train)
}

/// Trains a few steps, and returns state and answers.
fn train(
    set: InstructionSet,
    hidden: &[usize],
    batch_size: usize,
    images: usize,
    threads: usize,
) -> (TrainingState, Vec<f32>) {
    let (mut engine, train) = engine(set, hidden, batch_size, images, threads);
    let order: Vec<u32> = (0..images as u32).collect();
    engine.train_epoch(&order, &mut |_| Ok(())).unwrap();
    (engine.state().unwrap(), engine.logits(&train.pixels).unwrap())
}

/// Two threads compute the same as one.
fn compare(hidden: &[usize], batch_size: usize, images: usize) {
    let portable = InstructionSet::available().len() - 1;
    let set = InstructionSet::available()[portable];
    let [one, two] = [1, 2].map(|threads| train(set, hidden, batch_size, images, threads));
    assert!(one == two, "{hidden:?}, batches of {batch_size}");
}

#[test]
fn valgrind_one_hidden_layer() {
    compare(&[37], 5, 13);
}

#[test]
fn valgrind_dense_layers() {
    compare(&[37, 20, 33], 9, 20);
}

#[test]
fn valgrind_batches_of_several_groups() {
    compare(&[33, 18], 70, 100);
}

#[test]
fn valgrind_batches_of_several_micro_batches() {
    compare(&[33, 18], 270, 300);
}
