//! Evaluated images in the page: the worst mistakes, and one image of each digit to try.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::data::dataset::Images;
use crate::data::picture;
use crate::score::{argmax, softmax};
use crate::text::percent;

/// How many mistakes are shown.
const MISTAKES: usize = 24;

/// A mistake as the page shows it.
#[derive(Serialize)]
pub struct Mistake {
    index: usize,
    image: String,
    said: &'static str,
    confidence: String,
    label: &'static str,
    right_share: String,
}

/// An image that visitors of the page can give to the network.
#[derive(Serialize)]
pub struct Sample {
    index: usize,
    label: &'static str,
    /// (D), in base64.
    pixels: String,
    image: String,
}

/// An image that was taken for another digit.
pub struct Mistaken {
    index: usize,
    said: usize,
    /// (K) probabilities.
    shares: Vec<f64>,
}

/// All mistakes of `logits` (N,K) against `labels` (N) of `classes` classes (K), those with the most confidence first.
pub fn mistaken(logits: &[f32], labels: &[u8], classes: usize) -> Vec<Mistaken> {
    let mut all: Vec<Mistaken> = (logits.chunks_exact(classes).zip(labels).enumerate())
        .map(|(index, (row, &label))| (index, row, argmax(row), label))
        .filter(|&(_, _, said, label)| said != usize::from(label))
        .map(|(index, row, said, _)| Mistaken { index, said, shares: softmax(row) })
        .collect();
    all.sort_by(|a, b| b.shares[b.said].total_cmp(&a.shares[a.said]));
    all
}

/// The first of `mistaken` as the page shows them.
pub fn worst(mistaken: &[Mistaken], test: &Images) -> Vec<Mistake> {
    let mistake = |&Mistaken { index, said, ref shares }: &Mistaken| {
        let label = usize::from(test.labels[index]);
        Mistake {
            index,
            image: png(test.image(index), test.side),
            said: test.classes[said],
            confidence: percent(shares[said]),
            label: test.classes[label],
            right_share: percent(shares[label]),
        }
    };
    mistaken.iter().take(MISTAKES).map(mistake).collect()
}

/// The first test image of each digit.
pub fn samples(test: &Images) -> Vec<Sample> {
    let sample = |(class, &label): (usize, &&'static str)| {
        let index = test.labels.iter().position(|&other| usize::from(other) == class)?;
        let pixels = test.image(index);
        Some(Sample { index, label, pixels: BASE64.encode(pixels), image: png(pixels, test.side) })
    };
    test.classes.iter().enumerate().filter_map(sample).collect()
}

/// A `data:` URL of an image (D).
fn png(pixels: &[u8], side: usize) -> String {
    format!("data:image/png;base64,{}", BASE64.encode(picture::png(pixels, side)))
}
