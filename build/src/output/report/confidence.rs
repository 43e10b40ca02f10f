//! How far the network's confidence can be trusted: the calibration error, and a picture of it.

use serde::Serialize;

use super::percent;
use crate::output::finished::{Calibration, Trained};
use crate::score::{CONFIDENCE_RANGES, Classification, confidence_range};
use crate::text::grouped;

/// The calibration of the model as the page shows it.
#[derive(Serialize)]
pub struct Confidence {
    /// The expected calibration error.
    error: String,
    /// None where the model is not calibrated.
    calibrated: Option<Calibrated>,
    dots: Vec<Dot>,
}

#[derive(Serialize)]
struct Calibrated {
    temperature: String,
    error_before: String,
}

/// The answers in one range of confidence.
#[derive(Serialize)]
struct Dot {
    /// Mean confidence, 0 to 100.
    confidence: f64,
    /// The share of right answers, 0 to 100.
    right: f64,
    radius: f64,
    words: String,
}

/// The radius of the dot for all answers, and the least.
const RADII: [f64; 2] = [9.0, 2.5];

impl Confidence {
    /// Of the model in `trained`, by its `answers` (N) to the images with these `labels`.
    pub fn new(trained: &Trained, answers: &[Classification], labels: &[u8]) -> Self {
        let evaluation = trained.final_evaluation();
        let calibrated = |Calibration { temperature, error_before }| Calibrated {
            temperature: format!("{temperature:.2}"),
            error_before: percent(error_before),
        };
        Self {
            error: percent(evaluation.score.calibration_error),
            calibrated: trained.calibration.map(calibrated),
            dots: dots(answers, labels),
        }
    }
}

/// A dot for each range of confidence that has some of the `answers`.
fn dots(answers: &[Classification], labels: &[u8]) -> Vec<Dot> {
    let mut ranges = [(0usize, 0.0, 0.0); CONFIDENCE_RANGES];
    for (answer, &label) in answers.iter().zip(labels) {
        let confidence = answer.confidence();
        let (answers, confidences, right) = &mut ranges[confidence_range(confidence)];
        *answers += 1;
        *confidences += confidence;
        *right += f64::from(u8::from(answer.class == usize::from(label)));
    }
    let dot = |(answers, confidences, right): (usize, f64, f64)| {
        let [confidence, right] = [confidences, right].map(|sum| sum / answers as f64);
        let share = answers as f64 / labels.len() as f64;
        let answered = if answers == 1 { "1 answer".into() } else { format!("{} answers", grouped(answers)) };
        Dot {
            confidence: hundredths(100.0 * confidence),
            right: hundredths(100.0 * right),
            radius: hundredths((RADII[0] * share.sqrt()).max(RADII[1])),
            words: format!("{answered}: {} sure on average, {} right", percent(confidence), percent(right)),
        }
    };
    ranges.into_iter().filter(|(answers, ..)| *answers > 0).map(dot).collect()
}

fn hundredths(value: f64) -> f64 {
    (100.0 * value).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::classify;

    #[test]
    fn a_dot_compares_confidence_with_right_answers() {
        let sure = |logit: f32| vec![logit, 0.0];
        // Three answers with a confidence of 73 %, two of them right, and one that is nearly certain.
        let logits = [sure(1.0), sure(1.0), sure(1.0), sure(20.0)].concat();
        let dots = dots(&classify(&logits, 2), &[0, 1, 0, 0]);
        let [few, certain] = &dots[..] else { panic!("{}", dots.len()) };
        assert_eq!((few.confidence, few.right, certain.confidence, certain.right), (73.11, 66.67, 100.0, 100.0));
        assert_eq!(few.words, "3 answers: 73.11\u{a0}% sure on average, 66.67\u{a0}% right");
        assert!(few.radius > certain.radius && certain.words.starts_with("1 answer: "));
    }
}
