//! One training on several GPUs against one GPU and against the truth. Software stands in for them.

use mnist::engine::fused_gpu::FusedGpuEngine;

use super::*;
use crate::common::several_adapters;

/// Builds the fused engine on so many GPUs.
fn fused(gpus: usize) -> Option<Build> {
    let adapters = several_adapters(gpus)?;
    Some(Box::new(move |recipe, train| Box::new(FusedGpuEngine::new(recipe, train, adapters.clone()).unwrap())))
}

/// The optimizers whose slots tell most: adam, and sgd with momentum.
fn adam_and_momentum() -> impl Iterator<Item = (&'static str, OptimizerSettings)> {
    optimizers().into_iter().filter(|(name, _)| ["adam", "sgd_momentum"].contains(name))
}

/// Batches of 21 images, which neither 2 nor 8 divide; the last of an epoch has 5, fewer than 8 GPUs.
#[test]
fn two_and_eight_gpus_agree_with_one_and_with_the_truth() {
    let (Some(one), Some(two), Some(eight)) = (fused(1), fused(2), fused(8)) else { return };
    for (shape, (name, settings)) in [MlpShape::new(33, &[40, 12], 10), MlpShape::new(20, &[], 4)]
        .iter()
        .flat_map(|shape| adam_and_momentum().map(move |optimizer| (shape, optimizer)))
    {
        let data = images(shape, 68);
        let order: Vec<u32> = (0..68).rev().collect();
        let recipe = Recipe { label_smoothing: 0.1, ..recipe(shape.clone(), settings, 21, 0.4) };
        let mut truth = truth(&recipe, &data);
        let mut engines = [&one, &two, &eight].map(|build| build(recipe.clone(), data.clone()));
        for epoch in 1..=3 {
            let expected = truth.train_epoch(&order, &mut quiet).unwrap();
            for engine in &mut engines {
                let case = |what: &str| {
                    let gpus = engine.info().gpus;
                    format!("{what} on {gpus} GPUs after {epoch} epochs with {name} of {:?}", shape.widths())
                };
                let (cases, mut heard) = (["loss", "correct", "parameters", "slots"].map(case), vec![]);
                let mut progress = |progress: Progress| {
                    heard.push(progress.images);
                    Ok(())
                };
                let totals = engine.train_epoch(&order, &mut progress).unwrap();
                agree(&cases[0], &[totals.loss_sum as f32], &[expected.loss_sum]).unwrap();
                assert_eq!((totals.images, totals.correct), (68, expected.correct), "{}", cases[1]);
                assert_eq!(heard.last(), Some(&68));
                let (state, expected) = (engine.state().unwrap(), truth.state().unwrap());
                assert_eq!(state.step, 4 * epoch);
                agree(&cases[2], &state.parameters, &as_f64(&expected.parameters)).unwrap();
                for (slot, expected) in state.slots.iter().zip(&expected.slots) {
                    agree(&cases[3], slot, &as_f64(expected)).unwrap();
                }
            }
        }
    }
}

/// Three layers, and batches that several cubes share out on each GPU; dropout on all of them.
#[test]
fn large_batches_are_shared_out_twice() {
    let Some(three) = fused(3) else { return };
    for hidden in [&[300, 33][..], &[33, 300, 20]] {
        let shape = MlpShape::new(170, hidden, 10);
        compare_a_step(&three, &shape, 1800, [0.2, 0.1, 0.1]).unwrap();
    }
}

#[test]
fn several_gpus_give_the_same_bytes_again() {
    let Some(eight) = fused(8) else { return };
    let shape = MlpShape::new(100, &[64], 10);
    let data = images(&shape, 300);
    let order: Vec<u32> = (0..300).collect();
    let state = || {
        let mut engine = eight(recipe(shape.clone(), optimizers()[0].1, 128, 0.2), data.clone());
        for _ in 0..3 {
            engine.train_epoch(&order, &mut quiet).unwrap();
        }
        engine.state().unwrap()
    };
    let first = state();
    assert!((0..3).all(|_| state() == first));
}

/// The sum of the gradients has one order, that of the GPUs. A network of one layer without weights tells each gradient to the
/// last bit: it is what a step of size 1 takes away. And a quarter of a batch costs four times as much as in the whole, which
/// is exact.
#[test]
fn gradients_are_added_in_the_order_of_the_gpus() {
    let (Some(one), Some(four)) = (fused(1), fused(4)) else { return };
    let shape = MlpShape::new(50, &[], 10);
    let data = images(&shape, 36);
    let order: Vec<u32> = (0..36).map(|image| image * 5 % 36).collect();
    let gradient = |build: &Build, batch: &[u32]| {
        let settings = OptimizerSettings::sgd(1.0);
        let mut engine = build(recipe(shape.clone(), settings, batch.len(), 0.0), data.clone());
        engine.load_state(&TrainingState::new(&settings, vec![0.0; shape.parameter_count()])).unwrap();
        engine.train_epoch(batch, &mut quiet).unwrap();
        let parameters = engine.parameters().unwrap();
        parameters.into_iter().map(|parameter| -parameter).collect::<Vec<f32>>()
    };
    let parts: Vec<Vec<f32>> = order.chunks(9).map(|share| gradient(&one, share)).collect();
    let sum = |order: [usize; 4]| -> Vec<f32> {
        let number = |p: usize| order.iter().map(|&gpu| parts[gpu][p] / 4.0).reduce(|sum, part| sum + part).unwrap();
        (0..shape.parameter_count()).map(number).collect()
    };
    let found = gradient(&four, &order);
    assert!(found == sum([0, 1, 2, 3]));
    // Which this would not show if every order gave the same.
    assert!(sum([3, 2, 1, 0]) != sum([0, 1, 2, 3]) && sum([1, 2, 0, 3]) != sum([0, 1, 2, 3]));
}
