//! The score of a network's answers: loss, accuracy, confusion, precision and recall. The same for every engine.

use num_traits::Float;
use serde::Serialize;

use crate::threads;

/// The score of a network on a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// N.
    pub images: usize,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// The share of right answers, from 0 to 1.
    pub accuracy: f64,
    /// By how much the confidence is off on average, from 0 to 1: the expected calibration error.
    ///
    /// Answers are sorted into 15 equal ranges of confidence. In each, the mean confidence is compared with the share of
    /// right answers; the differences are averaged over all answers.
    ///
    /// Source: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 2.
    pub calibration_error: f64,
    /// (K,K) how many images of class `[row]` were classified as class `[column]`.
    pub confusion: Vec<Vec<u32>>,
}

/// The ranges of confidence of [`Score::calibration_error`].
pub const CONFIDENCE_RANGES: usize = 15;

/// Answers that a thread looks at before it takes the next ones.
const AT_ONCE: usize = 512;

impl Score {
    /// Scores `logits` (N,K) against `labels` (N) of `classes` classes (K).
    pub fn new(logits: &[f32], labels: &[u8], classes: usize) -> Self {
        Self::of_answers(&classify(logits, classes), logits, labels, classes)
    }

    /// Scores `answers` (N), those that `logits` give; sums in f64, in the order of the images.
    pub fn of_answers(answers: &[Classification], logits: &[f32], labels: &[u8], classes: usize) -> Self {
        let mut confusion = vec![vec![0; classes]; classes];
        let mut loss_sum = 0.0;
        // In each range of confidence, the sum of the confidences less the number of right answers.
        let mut differences = [0.0; CONFIDENCE_RANGES];
        for ((row, &label), answer) in logits.chunks_exact(classes).zip(labels).zip(answers) {
            confusion[usize::from(label)][answer.class] += 1;
            let (confidence, right) = (answer.confidence(), answer.class == usize::from(label));
            differences[confidence_range(confidence)] += confidence - f64::from(u8::from(right));
            loss_sum += answer.sum.ln() - (f64::from(row[usize::from(label)]) - f64::from(answer.highest));
        }
        let images = labels.len();
        let right: u32 = (0..classes).map(|k| confusion[k][k]).sum();
        let mean = |sum: f64| if images == 0 { 0.0 } else { sum / images as f64 };
        let calibration_error = mean(differences.iter().map(|difference| difference.abs()).sum());
        Self { images, loss: mean(loss_sum), accuracy: mean(right.into()), calibration_error, confusion }
    }

    /// K.
    pub fn classes(&self) -> usize {
        self.confusion.len()
    }

    /// The share of images classified as `class` that belong to it; none if no image was classified so.
    pub fn precision(&self, class: usize) -> Option<f64> {
        share(self.confusion[class][class], self.confusion.iter().map(|row| row[class]).sum())
    }

    /// The share of images of `class` that were classified as it; none if there are no such images.
    pub fn recall(&self, class: usize) -> Option<f64> {
        share(self.confusion[class][class], self.confusion[class].iter().sum())
    }
}

/// The answer of a network to an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Classification {
    /// The class that it chooses.
    pub class: usize,
    /// The logit of that class.
    highest: f32,
    /// The sum of `exp(z - highest)` over all logits z.
    sum: f64,
}

impl Classification {
    /// Of the image with these `logits` (K).
    fn new(logits: &[f32]) -> Self {
        let class = argmax(logits);
        let highest = logits[class];
        Self { class, highest, sum: sum_of_exponentials(logits, highest) }
    }

    /// The probability that the network gives to its class.
    pub fn confidence(&self) -> f64 {
        1.0 / self.sum
    }
}

/// The answers (N) that `logits` (N,K) give for `classes` classes, by all processors.
pub fn classify(logits: &[f32], classes: usize) -> Vec<Classification> {
    let part = |rows: &[f32]| -> Vec<_> { rows.chunks_exact(classes).map(Classification::new).collect() };
    threads::side_by_side(threads::most(), logits.chunks(AT_ONCE * classes), part).concat()
}

/// Which of the [`CONFIDENCE_RANGES`] a confidence is in.
pub fn confidence_range(confidence: f64) -> usize {
    ((confidence * CONFIDENCE_RANGES as f64) as usize).min(CONFIDENCE_RANGES - 1)
}

/// The probabilities (K) for `logits` (K); their sum is 1.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits[argmax(logits)];
    let sum = sum_of_exponentials(logits, highest);
    logits.iter().map(|&z| f64::from(z - highest).exp() / sum).collect()
}

/// The answer of several networks in one: for each image, the logarithms of the mean of their probabilities (N,K). `answers`
/// has the logits (N,K) of each network.
pub fn mean_of_answers(answers: &[Vec<f32>], classes: usize) -> Vec<f32> {
    let mut mean = Vec::with_capacity(answers.first().map_or(0, Vec::len));
    let mut logarithms = vec![0.0; answers.len()];
    for begin in (0..mean.capacity()).step_by(classes.max(1)) {
        let rows: Vec<_> = answers.iter().map(|logits| &logits[begin..begin + classes]).collect();
        let answers: Vec<_> = rows.iter().map(|row| Classification::new(row)).collect();
        for class in 0..classes {
            // Of logarithms, since probabilities may be too small for their numbers.
            for ((to, row), answer) in logarithms.iter_mut().zip(&rows).zip(&answers) {
                *to = f64::from(row[class]) - f64::from(answer.highest) - answer.sum.ln();
            }
            let highest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logarithms.iter().map(|logarithm| (logarithm - highest).exp()).sum();
            mean.push((highest + (sum / answers.len() as f64).ln()) as f32);
        }
    }
    mean
}

/// The sum of `exp(z - highest)` over `logits`, which does not overflow.
fn sum_of_exponentials(logits: &[f32], highest: f32) -> f64 {
    logits.iter().map(|&z| f64::from(z - highest).exp()).sum()
}

fn share(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

/// The index of the largest value, the first of equal ones: the class that the network chooses.
pub fn argmax<T: Float>(values: &[T]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_counts_answers_by_class() {
        const CLASSES: usize = 10;
        let mut logits = vec![0.0f32; 3 * CLASSES];
        logits[3] = 5.0; // a 3, classified as 3
        logits[CLASSES + 4] = 5.0; // a 3, classified as 4
        logits[2 * CLASSES + 4] = 5.0; // a 4, classified as 4
        let score = Score::new(&logits, &[3, 3, 4], CLASSES);
        assert_eq!((score.confusion[3][3], score.confusion[3][4], score.confusion[4][4]), (1, 1, 1));
        assert_eq!(score.accuracy, 2.0 / 3.0);
        assert_eq!((score.precision(3), score.recall(3)), (Some(1.0), Some(0.5)));
        assert_eq!((score.precision(4), score.recall(4)), (Some(0.5), Some(1.0)));
        assert_eq!((score.precision(0), score.recall(0)), (None, None));
        let (right, wrong) = ((5.0f64.exp() + 9.0).ln() - 5.0, (5.0f64.exp() + 9.0).ln());
        assert!((score.loss - (2.0 * right + wrong) / 3.0).abs() < 1e-12);
        // All three with the same confidence; two of them are right.
        let confidence = 5.0f64.exp() / (5.0f64.exp() + 9.0);
        assert!((score.calibration_error - (confidence - 2.0 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn the_answer_of_several_networks_has_the_mean_of_their_probabilities() {
        let answers = [vec![1.0f32, 2.0, -1.0, 0.0, 500.0, 0.0], vec![0.5, 0.0, 3.0, -400.0, 0.0, 0.0]];
        let mean = mean_of_answers(&answers, 3);
        assert!(mean.iter().all(|logarithm| logarithm.is_finite()));
        for (row, begin) in [0, 3].into_iter().enumerate() {
            let [a, b] = [0, 1].map(|network| softmax(&answers[network][begin..begin + 3]));
            for (class, p) in softmax(&mean[3 * row..3 * row + 3]).into_iter().enumerate() {
                assert!((p - (a[class] + b[class]) / 2.0).abs() < 1e-7);
            }
        }
        assert!(mean_of_answers(&[vec![], vec![]], 3).is_empty());
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = [1e30f32, 3e38, 1e30];
        assert_eq!(Score::new(&logits, &[1], 3).loss, 0.0);
        assert_eq!(softmax(&logits), [0.0, 1.0, 0.0]);
        // The difference of the two has no f32.
        assert_eq!(Score::new(&[3e38, -3e38], &[1], 2).loss, f64::from(3e38f32) * 2.0);
    }
}
