//! Calibration: the probabilities of the model that is kept are made as right as they can be on the validation split, so that
//! of the answers with a confidence of 90 % about nine in ten are right. Which answer of a network comes first does not change;
//! in the mean of an ensemble it seldom does.
//!
//! All logits are divided by one number, the temperature. The last layer's weights and biases are divided by it instead:
//! whatever program reads the model gives calibrated probabilities.
//!
//! Source: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.

use tracing::info;

use super::evaluation;
use crate::data::dataset::Images;
use crate::engine::choice;
use crate::error::Result;
use crate::model::MlpShape;
use crate::score::{Score, mean_of_answers};
use crate::text;

/// Temperatures between which the best is looked for.
const RANGE: [f64; 2] = [0.5, 10.0];
/// The lowest for answers that are far too unsure, as after training with much `label_smoothing`. A validation split without a
/// mistake would make it ever lower, so that it says nothing below [`RANGE`].
const LEAST: f64 = 0.05;
/// Steps of the search. Each divides the range by the golden ratio, all of them by some ten thousand.
const STEPS: usize = 22;
/// Fewer images say little of the confidence.
const LEAST_IMAGES: usize = 100;
/// More images than these, the first of the split, would say no more, and take time and memory in a large ensemble.
const MOST_IMAGES: usize = 10_000;

/// By what to divide the logits of the networks `parameters` of `shape`, as the `validation` images ask for; nothing if they
/// are too few. `go_on` is asked again and again.
///
/// # Errors
/// That of `go_on`.
pub fn temperature(
    shape: &MlpShape,
    parameters: &[f32],
    validation: &Images,
    go_on: impl Fn() -> Result<()>,
) -> Result<Option<f64>> {
    let images = validation.len().min(MOST_IMAGES);
    if images < LEAST_IMAGES {
        let images = text::counted(images, "image");
        info!("not calibrated: the validation set has {images}, of the {LEAST_IMAGES} that it takes");
        return Ok(None);
    }
    let (pixels, labels) = (&validation.pixels[..images * validation.inputs()], &validation.labels[..images]);
    let members = parameters.chunks_exact(shape.parameter_count());
    let answers = members.map(|parameters| {
        evaluation::logits(choice::network(shape, parameters)?.as_mut(), pixels, validation.inputs(), &go_on)
    });
    let answers = answers.collect::<Result<Vec<_>>>()?;
    let score = |temperature: f64| -> Result<Score> {
        go_on()?;
        let mean = mean_of_answers(&scaled(&answers, temperature), shape.classes());
        Ok(Score::new(&mean, labels, shape.classes()))
    };
    let loss = |temperature: f64| score(temperature).map(|score| score.loss);
    let found = lowest(RANGE, loss)?;
    match found < 1.001 * RANGE[0] && score(found)?.accuracy < 1.0 {
        true => lowest([LEAST, RANGE[0]], loss).map(Some),
        false => Ok(Some(found)),
    }
}

/// About how many bytes that takes for networks of `members` and `classes`, with so many `validation` images.
pub fn memory(members: usize, classes: usize, validation: usize) -> u64 {
    let logits = (members * classes * validation.min(MOST_IMAGES) * size_of::<f32>()) as u64;
    2 * logits
}

fn scaled(answers: &[Vec<f32>], temperature: f64) -> Vec<Vec<f32>> {
    let divide = |logit: &f32| (f64::from(*logit) / temperature) as f32;
    answers.iter().map(|logits| logits.iter().map(divide).collect()).collect()
}

/// `parameters` with the last layer of each network divided by `temperature`.
pub fn divided(shape: &MlpShape, parameters: &[f32], temperature: f64) -> Vec<f32> {
    let mut parameters = parameters.to_vec();
    if let Some(last) = shape.layers().pop() {
        for network in parameters.chunks_exact_mut(shape.parameter_count()) {
            for parameter in &mut network[last.weights.start..last.biases.end] {
                *parameter = (f64::from(*parameter) / temperature) as f32;
            }
        }
    }
    parameters
}

/// The temperature in `range` with the lowest `loss`, by golden-section search over its logarithm. The loss of one network
/// is convex in the inverse of the temperature, so that there is one lowest place.
///
/// # Errors
/// That of `loss`.
fn lowest(range: [f64; 2], loss: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    const RATIO: f64 = 0.618_033_988_749_894_9;
    let at = |logarithm: f64| loss(logarithm.exp());
    let [mut low, mut high] = range.map(f64::ln);
    let (mut left, mut right) = (high - RATIO * (high - low), low + RATIO * (high - low));
    let (mut at_left, mut at_right) = (at(left)?, at(right)?);
    for _ in 0..STEPS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - RATIO * (high - low);
            at_left = at(left)?;
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + RATIO * (high - low);
            at_right = at(right)?;
        }
    }
    Ok(((low + high) / 2.0).exp())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[test]
    fn the_search_finds_the_lowest_place() {
        for expected in [0.6, 1.0, 1.7, 6.0f64] {
            let found = lowest(RANGE, |temperature| Ok((temperature.ln() - expected.ln()).powi(2))).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-3, "{found}");
        }
    }

    #[test]
    fn an_overconfident_network_and_one_that_is_far_too_unsure_become_calibrated() {
        becomes_calibrated(3.0);
        becomes_calibrated(0.2);
    }

    /// Two networks whose answers are `sharpness` times those of one that is calibrated by its making.
    #[track_caller]
    fn becomes_calibrated(sharpness: f32) {
        use crate::rng::{Purpose, Stream};
        let shape = MlpShape::new(1, &[], 2);
        let mut stream = Stream::new(1, Purpose::Order, 0);
        let pixels: Vec<u8> = (0..20_000).map(|_| stream.below(256) as u8).collect();
        // An image of brightness x is of class 1 with the probability that the logits 0 and 4x - 2 give.
        let chance = |pixel: u8| 1.0 / (1.0 + (2.0 - 4.0 * f64::from(pixel) / 255.0).exp());
        let labels = pixels.iter().map(|&pixel| u8::from(stream.uniform() < chance(pixel))).collect();
        let images = Images { side: 1, classes: &["0", "1"], pixels, labels };
        let network = [0.0, 4.0 * sharpness, 0.0, -2.0 * sharpness];
        let scored = |parameters: &[f32]| {
            let logits = choice::network(&shape, parameters).unwrap().logits(&images.pixels).unwrap();
            Score::new(&logits, &images.labels, 2)
        };
        let networks = [network, network].concat();
        let temperature = temperature(&shape, &networks, &images, || Ok(())).unwrap().unwrap();
        assert!((temperature / f64::from(sharpness) - 1.0).abs() < 0.05, "{temperature}");
        let (before, after) = (scored(&networks), scored(&divided(&shape, &networks, temperature)));
        assert_eq!(before.accuracy, after.accuracy);
        assert!(before.calibration_error > 0.05 && after.calibration_error < 0.01, "{before:?} {after:?}");
    }

    #[test]
    fn a_split_without_a_mistake_makes_answers_only_a_little_surer() {
        let images = Images { side: 1, classes: &["0", "1"], pixels: [0, 255].repeat(100), labels: [0, 1].repeat(100) };
        let network = [0.0, 1.0, 0.0, -0.5];
        let found = temperature(&MlpShape::new(1, &[], 2), &network, &images, || Ok(())).unwrap().unwrap();
        assert!((found / RANGE[0] - 1.0).abs() < 1e-3, "{found}");
    }

    #[test]
    fn few_images_calibrate_nothing_and_a_signal_ends_the_search() {
        let shape = MlpShape::new(1, &[], 2);
        let images = |count: usize| Images {
            side: 1,
            classes: &["0", "1"],
            pixels: vec![255; count],
            labels: (0..count).map(|at| u8::from(at % 3 == 0)).collect(),
        };
        let network = [0.0, 1.0, 0.0, 0.0];
        let few = temperature(&shape, &network, &images(LEAST_IMAGES - 1), || Ok(())).unwrap();
        assert_eq!(few, None);
        let asked = Cell::new(0);
        let stopped = temperature(&shape, &network, &images(LEAST_IMAGES), || {
            asked.set(asked.get() + 1);
            if asked.get() == 5 { Err(Error::Interrupted { signal: 15 }) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted { signal: 15 })));
    }
}
