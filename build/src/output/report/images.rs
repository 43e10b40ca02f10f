//! Images in the page: the worst mistakes, one image of each digit to try, and distorted training images.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::percent;
use crate::data::augment::Warper;
use crate::data::augment::sheet::Sheet;
use crate::data::dataset::Images;
use crate::data::picture;
use crate::output::finished::Finished;
use crate::score::{Classification, softmax};
use crate::simd::InstructionSet;

/// How many mistakes are shown.
const MISTAKES: usize = 24;
/// How many training images are shown with their distorted copies.
const ORIGINALS: usize = 5;
/// How many copies of each, at most.
const COPIES: usize = 9;

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

/// Training images and their distorted copies.
#[derive(Serialize)]
pub struct Augmented {
    /// The distortions, as the end of a sentence.
    how: String,
    /// How many copies of each image are shown, one an epoch.
    copies: usize,
    image: String,
    width: usize,
    height: usize,
}

impl Augmented {
    /// None where training saw the images as they are.
    pub fn new(finished: &Finished) -> Option<Self> {
        let (parameters, train) = (finished.parameters, &*finished.dataset.train);
        let augmentation = parameters.augmentation()?;
        let copies = COPIES.min(finished.epochs.len());
        // Every instruction set gives the same bytes.
        let warper = Warper::new(augmentation, train.side, parameters.seed, InstructionSet::available()[0]);
        let sheet = Sheet::new(&warper, train, ORIGINALS * (1 + copies), 1 + copies);
        let Sheet { width, height, .. } = sheet;
        Some(Self { how: augmentation.in_words(), copies, image: png(&sheet.pixels, width), width, height })
    }
}

/// An image that was taken for another digit.
pub struct Mistaken {
    /// Its number among the images.
    pub index: usize,
    /// What the network answered.
    pub answer: Classification,
}

/// All mistakes among the `answers` (N), against `labels` (N): those with the most confidence first.
pub fn mistaken(answers: &[Classification], labels: &[u8]) -> Vec<Mistaken> {
    let mut all: Vec<Mistaken> = (answers.iter().zip(labels).enumerate())
        .filter(|(_, (answer, label))| answer.class != usize::from(**label))
        .map(|(index, (&answer, _))| Mistaken { index, answer })
        .collect();
    all.sort_by(|a, b| b.answer.confidence().total_cmp(&a.answer.confidence()));
    all
}

/// The first of `mistaken` as the page shows them. `logits` (N,K) are those of all `test` images.
pub fn worst(mistaken: &[Mistaken], logits: &[f32], test: &Images) -> Vec<Mistake> {
    let classes = test.classes.len();
    let mistake = |&Mistaken { index, answer }: &Mistaken| {
        let label = usize::from(test.labels[index]);
        Mistake {
            index,
            image: png(test.image(index), test.side),
            said: test.classes[answer.class],
            confidence: percent(answer.confidence()),
            label: test.classes[label],
            right_share: percent(softmax(&logits[index * classes..][..classes])[label]),
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

/// A `data:` URL of an image (H,W).
pub fn png(pixels: &[u8], width: usize) -> String {
    format!("data:image/png;base64,{}", BASE64.encode(picture::png(pixels, width)))
}
