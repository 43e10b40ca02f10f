//! Calibration: the probabilities of the model that is kept are made as right as they can be on the validation split, so that
//! of the answers with a confidence of 90 % about nine in ten are right. Which answer comes first does not change.
//!
//! All logits are divided by one number, the temperature. The last layer's weights and biases are divided by it instead:
//! whatever program reads the model gives calibrated probabilities.
//!
//! Source: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.

use tracing::info;

use crate::data::dataset::{Dataset, Images};
use crate::engine::choice;
use crate::error::Result;
use crate::model::MlpShape;
use crate::output::event::Evaluation;
use crate::output::finished::Calibration;
use crate::score::{Score, mean_of_answers};
use crate::text;

/// Temperatures between which the best is looked for. A validation split without a mistake would make it ever lower.
const RANGE: [f64; 2] = [0.5, 10.0];
/// Steps of the search. Each divides the range by the golden ratio, all of them by some ten thousand.
const STEPS: usize = 22;

/// Calibrates the `parameters` of networks of `shape` on the validation split of `dataset`, which must have one, and returns
/// them with their answers to it.
///
/// # Errors
/// A signal arrived.
pub fn calibrate(
    shape: &MlpShape,
    parameters: &[f32],
    dataset: &Dataset,
) -> Result<(Vec<f32>, Evaluation, Calibration)> {
    let (classes, (split, validation)) = (shape.classes(), dataset.watched());
    let answers = answers(shape, parameters, validation)?;
    let scored = |temperature: f64| {
        let logits = mean_of_answers(&scaled(&answers, temperature), classes);
        Evaluation { split, score: Score::new(&logits, &validation.labels, classes), logits }
    };
    let temperature = lowest(|temperature| scored(temperature).score.loss);
    let before = mean_of_answers(&self::answers(shape, parameters, &dataset.test)?, classes);
    let error_before = Score::new(&before, &dataset.test.labels, classes).calibration_error;
    info!(
        "calibration: logits divided by {temperature:.3}, as the {split} set asks for; before, the confidence on the test set \
         was off by {} on average",
        text::percent(error_before)
    );
    let calibration = Calibration { temperature, error_before };
    Ok((divided(shape, parameters, temperature), scored(temperature), calibration))
}

/// The logits (N,K) of each network of `parameters` for `images`.
fn answers(shape: &MlpShape, parameters: &[f32], images: &Images) -> Result<Vec<Vec<f32>>> {
    let members = parameters.chunks_exact(shape.parameter_count());
    members.map(|parameters| choice::network(shape, parameters)?.logits(&images.pixels)).collect()
}

fn scaled(answers: &[Vec<f32>], temperature: f64) -> Vec<Vec<f32>> {
    let divide = |logit: &f32| (f64::from(*logit) / temperature) as f32;
    answers.iter().map(|logits| logits.iter().map(divide).collect()).collect()
}

/// `parameters` with the last layer of each network divided by `temperature`.
fn divided(shape: &MlpShape, parameters: &[f32], temperature: f64) -> Vec<f32> {
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

/// The temperature in [`RANGE`] with the lowest `loss`, by golden-section search over its logarithm. The loss of one network
/// is convex in the inverse of the temperature, so that there is one lowest place.
fn lowest(loss: impl Fn(f64) -> f64) -> f64 {
    const RATIO: f64 = 0.618_033_988_749_894_9;
    let at = |logarithm: f64| loss(logarithm.exp());
    let [mut low, mut high] = RANGE.map(f64::ln);
    let (mut left, mut right) = (high - RATIO * (high - low), low + RATIO * (high - low));
    let (mut at_left, mut at_right) = (at(left), at(right));
    for _ in 0..STEPS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - RATIO * (high - low);
            at_left = at(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + RATIO * (high - low);
            at_right = at(right);
        }
    }
    ((low + high) / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_lowest_place() {
        for expected in [0.6, 1.0, 1.7, 6.0f64] {
            let found = lowest(|temperature| (temperature.ln() - expected.ln()).powi(2));
            assert!((found / expected - 1.0).abs() < 1e-3, "{found}");
        }
    }

    /// Two networks whose answers are `sharpness` times those of one that is calibrated by its making.
    #[test]
    fn an_overconfident_network_becomes_calibrated() {
        use crate::rng::{Purpose, Stream};
        let shape = MlpShape::new(1, &[], 2);
        let sharpness = 3.0;
        let mut stream = Stream::new(1, Purpose::Order, 0);
        let pixels: Vec<u8> = (0..20_000).map(|_| stream.below(256) as u8).collect();
        // An image of brightness x is of class 1 with the probability that the logits 0 and 4x - 2 give.
        let chance = |pixel: u8| 1.0 / (1.0 + (2.0 - 4.0 * f64::from(pixel) / 255.0).exp());
        let labels = pixels.iter().map(|&pixel| u8::from(stream.uniform() < chance(pixel))).collect();
        let images = Images { side: 1, classes: &["0", "1"], pixels, labels };
        let network = [0.0, 4.0 * sharpness, 0.0, -2.0 * sharpness];
        let logits = mean_of_answers(&answers(&shape, &network, &images).unwrap(), 2);
        let before = Score::new(&logits, &images.labels, 2);
        let temperature = lowest(|t| Score::new(&scaled(std::slice::from_ref(&logits), t)[0], &images.labels, 2).loss);
        assert!((temperature / f64::from(sharpness) - 1.0).abs() < 0.05, "{temperature}");
        let calibrated = divided(&shape, &[network, network].concat(), temperature);
        let answer = mean_of_answers(&answers(&shape, &calibrated, &images).unwrap(), 2);
        let after = Score::new(&answer, &images.labels, 2);
        assert_eq!(before.accuracy, after.accuracy);
        assert!(before.calibration_error > 0.05 && after.calibration_error < 0.01, "{before:?} {after:?}");
    }
}
