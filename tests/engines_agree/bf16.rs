//! The fused engine's products of bf16 numbers against the reference, which rounds the same numbers.

use mnist::simd::tile::nearest_bf16;

use super::*;

/// How far such an engine may be from the truth, as a share: the root of the mean square of the distances over that of the
/// values. A number that lies between two bf16 numbers may be rounded to either, which moves a few values by 1/256 at most.
const TOLERANCE: f64 = 3e-4;

/// Networks and batches that leave a rest in every tile, one beyond a pass of 256 images, and some of several micro-batches.
const CASES: [(usize, &[usize], usize, usize); 12] = [
    (20, &[7], 4, 9),
    (12, &[9, 5], 3, 33),
    (6, &[], 10, 40),
    (33, &[3, 64], 2, 5),
    (170, &[300, 33], 10, 300),
    (40, &[33, 300, 20], 10, 130),
    (400, &[530], 10, 70),
    (784, &[96, 64], 10, 64),
    (20, &[7], 4, 1024),
    (20, &[7], 4, 1025),
    (12, &[], 3, 1100),
    (12, &[9, 5], 3, 2100),
];

fn build(set: InstructionSet, recipe: &Recipe, data: &Arc<Images>) -> FusedEngine {
    FusedEngine::new(recipe.clone(), data.clone(), set).unwrap()
}

fn distance(found: &[f32], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let distance = square(&mut found.iter().zip(expected).map(|(&found, expected)| f64::from(found) - expected));
    (distance / square(&mut expected.iter().copied()).max(1e-12)).sqrt()
}

/// The distance of the gradient and of the loss from the truth, in a step of plain SGD.
fn distances(set: InstructionSet, recipe: &Recipe, truth: &Recipe, data: &Arc<Images>) -> [f64; 2] {
    let order: Vec<u32> = (0..recipe.batch_size as u32).rev().collect();
    let mut engine = build(set, recipe, data);
    let before = engine.state().unwrap().parameters;
    let expected = Reference::<f64>::new(truth.clone(), data.clone()).loss_and_gradient(&order);
    let totals = engine.train_epoch(&order, &mut quiet).unwrap();
    let after = engine.state().unwrap().parameters;
    let gradient: Vec<f32> = before.iter().zip(&after).map(|(w, v)| (w - v) / 64.0).collect();
    let loss = totals.loss_sum / order.len() as f64;
    [distance(&gradient, &expected.gradient), (loss - expected.loss).abs() / expected.loss]
}

fn bf16(shape: &MlpShape, n: usize, dropout: f64) -> Recipe {
    Recipe { precision: Precision::Bf16, ..recipe(shape.clone(), OptimizerSettings::sgd(64.0), n, dropout) }
}

#[test]
fn every_instruction_set_agrees_with_the_truth_in_bf16() {
    for set in InstructionSet::available_for(Precision::Bf16) {
        for (inputs, hidden, classes, n) in CASES {
            let shape = MlpShape::new(inputs, hidden, classes);
            let data = images(&shape, n);
            for (dropout, skip_confident) in [(0.0, 0.0), (0.2, 0.11)] {
                let recipe = Recipe { skip_confident, label_smoothing: 0.1, ..bf16(&shape, n, dropout) };
                for (what, distance) in ["gradient", "loss"].into_iter().zip(distances(set, &recipe, &recipe, &data)) {
                    let name = set.name();
                    assert!(
                        distance < TOLERANCE,
                        "{name}, {inputs} {hidden:?} {n}, {dropout}: {what} off by {distance}"
                    );
                }
            }
        }
    }
}

/// So the comparison would object to an engine that rounds nothing.
#[test]
fn the_comparison_tells_float32_from_bf16() {
    let set = InstructionSet::available()[0];
    for (inputs, hidden, classes, n) in CASES {
        let shape = MlpShape::new(inputs, hidden, classes);
        let data = images(&shape, n);
        let truth = bf16(&shape, n, 0.0);
        let [gradient, _] = distances(set, &Recipe { precision: Precision::Float32, ..truth.clone() }, &truth, &data);
        assert!(gradient > 3.0 * TOLERANCE, "{inputs} {hidden:?} {n}: {gradient}");
    }
}

/// Every optimizer, batches that are short at times, the state out and in, and answers, which are float32.
#[test]
fn ten_steps_in_bf16_are_those_of_the_truth() {
    let shape = MlpShape::new(50, &[40, 20], 5);
    let data = images(&shape, 100);
    let order: Vec<u32> = (0..270).map(|i| i * 7 % 100).collect();
    for set in InstructionSet::available_for(Precision::Bf16) {
        for (name, settings) in optimizers() {
            let recipe = Recipe { precision: Precision::Bf16, ..recipe(shape.clone(), settings, 33, 0.2) };
            let (mut engine, mut truth) = (build(set, &recipe, &data), truth(&recipe, &data));
            for part in [&order[..100], &order[100..200]] {
                engine.train_epoch(part, &mut quiet).unwrap();
                truth.train_epoch(part, &mut quiet).unwrap();
            }
            let state = engine.state().unwrap();
            let off = distance(&state.parameters, &as_f64(&truth.state().unwrap().parameters));
            // Adam's first steps are as large for a small gradient as for a large one.
            assert!(off < 0.01, "{} {name}: {off}", set.name());
            let logits = distance(&engine.logits(&data.pixels).unwrap(), &truth.exact_logits(&data.pixels));
            assert!(logits < 0.01, "{} {name}: logits {logits}", set.name());
            let mut other = build(set, &recipe, &data);
            other.load_state(&state).unwrap();
            other.train_epoch(&order[200..], &mut quiet).unwrap();
            engine.train_epoch(&order[200..], &mut quiet).unwrap();
            assert!(other.state().unwrap() == engine.state().unwrap(), "{} {name}", set.name());
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_in_bf16() {
    let shape = MlpShape::new(784, &[130, 97], 10);
    let data = images(&shape, 1200);
    for (set, batch_size) in
        InstructionSet::available_for(Precision::Bf16).into_iter().flat_map(|set| [128, 1100].map(|batch| (set, batch)))
    {
        let order: Vec<u32> = (0..batch_size as u32 + 100).collect();
        let state = |threads: usize| {
            let recipe = recipe(shape.clone(), optimizers()[0].1, batch_size, 0.2);
            let recipe = Recipe { precision: Precision::Bf16, threads, ..recipe };
            let mut engine = build(set, &recipe, &data);
            engine.train_epoch(&order, &mut quiet).unwrap();
            engine.state().unwrap()
        };
        let one = state(1);
        for threads in [2, 3, 8] {
            assert!(state(threads) == one, "{}, batches of {batch_size}, {threads} threads", set.name());
        }
    }
}

#[test]
fn bf16_has_eight_bits() {
    let tie_to_even = [(1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0)];
    for (x, expected) in [(1.0, 1.0), (1.003, 1.0), (1.005, 1.0 + 2.0 / 256.0)].into_iter().chain(tie_to_even) {
        assert_eq!(nearest_bf16(x), expected, "{x}");
    }
}
