//! How well answers fit: loss, accuracy, confusion, precision and recall. The same for every engine.

use num_traits::Float;
use serde::Serialize;

use crate::model::CLASSES;

/// The score of a network on a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// N.
    pub images: usize,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// The share of right answers, from 0 to 1.
    pub accuracy: f64,
    /// How many images of digit `[row]` were taken for digit `[column]`.
    pub confusion: [[u32; CLASSES]; CLASSES],
}

impl Score {
    /// Scores `logits` (N,K) against `labels` (N); sums in f64, in the order of the images.
    pub fn new(logits: &[f32], labels: &[u8]) -> Self {
        let mut confusion = [[0; CLASSES]; CLASSES];
        let mut loss_sum = 0.0;
        for (row, &label) in logits.chunks_exact(CLASSES).zip(labels) {
            confusion[usize::from(label)][argmax(row)] += 1;
            let highest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            let sum: f64 = row.iter().map(|&z| f64::from(z - highest).exp()).sum();
            loss_sum += sum.ln() - f64::from(row[usize::from(label)] - highest);
        }
        let images = labels.len();
        let right: u32 = (0..CLASSES).map(|k| confusion[k][k]).sum();
        let mean = |sum: f64| if images == 0 { 0.0 } else { sum / images as f64 };
        Self { images, loss: mean(loss_sum), accuracy: mean(right.into()), confusion }
    }

    /// Of the images taken for `digit`, the share that are; none if no image was.
    pub fn precision(&self, digit: usize) -> Option<f64> {
        share(self.confusion[digit][digit], self.confusion.iter().map(|row| row[digit]).sum())
    }

    /// Of the images of `digit`, the share taken for it; none if there is no image of it.
    pub fn recall(&self, digit: usize) -> Option<f64> {
        share(self.confusion[digit][digit], self.confusion[digit].iter().sum())
    }
}

/// The probabilities that `logits` stand for; they sum to 1.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let powers: Vec<f64> = logits.iter().map(|&z| f64::from(z - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn share(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

/// The index of the largest value, the first of equals: the network's answer.
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
    fn a_score_counts_what_was_said_for_what() {
        let mut logits = vec![0.0f32; 3 * CLASSES];
        logits[3] = 5.0; // a 3, taken for 3
        logits[CLASSES + 4] = 5.0; // a 3, taken for 4
        logits[2 * CLASSES + 4] = 5.0; // a 4, taken for 4
        let score = Score::new(&logits, &[3, 3, 4]);
        assert_eq!((score.confusion[3][3], score.confusion[3][4], score.confusion[4][4]), (1, 1, 1));
        assert_eq!(score.accuracy, 2.0 / 3.0);
        assert_eq!((score.precision(3), score.recall(3)), (Some(1.0), Some(0.5)));
        assert_eq!((score.precision(4), score.recall(4)), (Some(0.5), Some(1.0)));
        assert_eq!((score.precision(0), score.recall(0)), (None, None));
        let (right, wrong) = ((5.0f64.exp() + 9.0).ln() - 5.0, (5.0f64.exp() + 9.0).ln());
        assert!((score.loss - (2.0 * right + wrong) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut logits = vec![1e30f32; CLASSES];
        logits[1] = 3e38;
        assert_eq!(Score::new(&logits, &[1]).loss, 0.0);
    }
}
