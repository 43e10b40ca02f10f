//! The synthetic digits: a stand-in for MNIST that the program draws (`mnist download --synthetic`).
//!
//! `strokes` has several skeletons of each class. `hand` writes one of them with random jitter, width, slant, rotation,
//! elastic warp, size and position. `ink` draws the path with a random pen width, pressure, blur, strength and grain. As in
//! MNIST, digits are white on black, about 20 x 20 of 28 x 28 pixels in size, with the centre of mass near the middle; 18.0 %
//! of the pixels are nonzero (MNIST: 19.1 %). Training and test digits come from the same distribution.
//!
//! How hard the set is, as test accuracy after 5 epochs in PyTorch (Adam with Keras' settings, batch size 32):
//!
//! | network | synthetic, seeds 1 to 5 | MNIST, seed 1 |
//! |---|---|---|
//! | default: one hidden layer of 128, dropout 0.2 | 97.96 to 98.08 % | 97.72 % |
//! | linear softmax classifier | 90.89 to 91.02 % | 92.45 % |
//!
//! It does not replace MNIST: the default network trained on synthetic digits (seed 1) reads 90.7 % of MNIST's test digits.
//!
//! The bytes are the same on every machine and for any number of threads. Each digit has its own random stream. The
//! arithmetic is integers and single additions, subtractions, multiplications, divisions and square roots, all exactly
//! specified by IEEE 754. Do not use `mul_add` or functions of the platform's mathematics library here.

mod hand;
mod ink;
mod strokes;

use std::path::Path;

use super::dataset::Images;
use super::idx;
use super::sets::{SYNTHETIC, SourceFile};
use crate::error::Result;
use crate::files;
use crate::interrupt;
use crate::memory;
use crate::rng::{Purpose, Stream};
use crate::threads;

use ink::{PIXELS, SIDE};

/// Training images of the complete set.
pub const TRAIN: usize = 60_000;
/// Test images of the complete set.
pub const TEST: usize = 10_000;

/// Digits that a thread draws before it takes the next ones: some milliseconds.
const PART: usize = 64;

/// The seed of version 1 of the set. Its bytes never change: the hashes of [`SYNTHETIC`] pin them.
const SEED: u64 = 1;

/// One of the two sets of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// For testing.
    Test,
}

/// Draws the first `count` digits of `split`. After a signal most stay black.
///
/// Digits do not depend on `count`, which may exceed [`TRAIN`] and [`TEST`].
pub fn draw(split: Split, count: usize) -> Images {
    draw_by(threads::most(), split, count)
}

/// [`draw`] with at most `threads` threads.
fn draw_by(threads: usize, split: Split, count: usize) -> Images {
    let purpose = match split {
        Split::Train => Purpose::SyntheticTrain,
        Split::Test => Purpose::SyntheticTest,
    };
    let mut pixels = vec![0; count * PIXELS];
    let mut labels = vec![0; count];
    let parts = pixels.chunks_mut(PART * PIXELS).zip(labels.chunks_mut(PART)).enumerate();
    threads::side_by_side(threads, parts, |(part, (pixels, labels))| {
        if interrupt::is_received() {
            return;
        }
        for (index, (image, label)) in (part * PART..).zip(pixels.chunks_exact_mut(PIXELS).zip(labels)) {
            *label = draw_one(image, &mut Stream::new(SEED, purpose, index as u64));
        }
    });
    Images { side: SIDE, classes: SYNTHETIC.classes, pixels, labels }
}

/// Draws one digit into `image` (D, all zero) and returns its label.
fn draw_one(image: &mut [u8], stream: &mut Stream) -> u8 {
    let label = stream.below(strokes::SKELETONS.len() as u32);
    let skeletons = strokes::SKELETONS[label as usize];
    let skeleton = skeletons[stream.below(skeletons.len() as u32) as usize];
    ink::draw(&hand::write(skeleton, stream), image, stream);
    label as u8
}

/// Writes the first `train` training digits and `test` test digits into the four files of the set in `directory`.
///
/// # Errors
/// A file cannot be written, there is too little memory, or a signal arrived. Each file is either complete or missing.
pub fn write(directory: &Path, train: usize, test: usize) -> Result<()> {
    each_file(train, test, |file, bytes| files::write(directory.join(file.name), bytes))
}

/// Passes the contents of the four files of that many digits to `take`, one after the other.
///
/// # Errors
/// Those of `take`. There is too little memory, or a signal arrived.
pub fn each_file(train: usize, test: usize, take: impl Fn(&SourceFile, &[u8]) -> Result<()>) -> Result<()> {
    let [train_images, train_labels, test_images, test_labels] = &SYNTHETIC.files;
    for (split, count, images_file, labels_file) in
        [(Split::Train, train, train_images, train_labels), (Split::Test, test, test_images, test_labels)]
    {
        memory::require((2 * count * PIXELS) as u64, "drawing the digits")?;
        let drawn = draw(split, count);
        interrupt::check()?;
        let images = idx::encode_images(&drawn.pixels, SIDE as u32, SIDE as u32);
        take(images_file, &images)?;
        take(labels_file, &idx::encode_labels(&drawn.labels))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::file_digest::sha256_of_known;
    use crate::sha256;

    /// If this fails, undo the change and keep the hashes: others have the set with these bytes.
    #[test]
    fn the_complete_set_has_the_pinned_bytes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), TRAIN, TEST).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), SYNTHETIC.files.len());
        for file in &SYNTHETIC.files {
            let bytes = std::fs::read(dir.path().join(file.name)).unwrap();
            let sha256 = sha256::of(&bytes);
            assert_eq!((bytes.len() as u64, sha256.as_str()), (file.bytes, file.sha256), "{}", file.name);
            assert_eq!(sha256_of_known(&bytes), Some(file.sha256), "{}", file.name);
        }
    }

    #[test]
    fn a_prefix_is_the_same_digits() {
        let (few, many) = (draw(Split::Train, 37), draw(Split::Train, 300));
        assert_eq!(few.pixels, many.pixels[..37 * PIXELS]);
        assert_eq!(few.labels, many.labels[..37]);
        assert!(draw(Split::Test, 0).is_empty());
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let by = |threads| draw_by(threads, Split::Train, 1000);
        assert!(by(1) == by(3));
    }

    #[test]
    fn no_digit_is_drawn_twice() {
        let (train, test) = (draw(Split::Train, 5000), draw(Split::Test, 5000));
        let images: std::collections::HashSet<&[u8]> =
            train.pixels.chunks(PIXELS).chain(test.pixels.chunks(PIXELS)).collect();
        assert_eq!(images.len(), 10_000);
    }

    #[test]
    fn classes_are_balanced_and_in_no_fixed_order() {
        for split in [Split::Train, Split::Test] {
            let labels = draw(split, 5000).labels;
            for class in 0..10 {
                let count = labels.iter().filter(|label| **label == class).count();
                assert!((400..600).contains(&count), "{class}: {count}");
            }
            let in_turn = labels.windows(2).filter(|pair| pair[1] == (pair[0] + 1) % 10).count();
            assert!((400..600).contains(&in_turn), "{in_turn}");
        }
    }

    #[test]
    fn images_have_about_as_much_ink_as_mnist_and_are_centred() {
        let n = 5000;
        let images = draw(Split::Test, n).pixels;
        let inked = images.iter().filter(|pixel| **pixel > 0).count() as f64 / images.len() as f64;
        assert!((0.16..0.21).contains(&inked), "{inked}");
        let mut mean = [0.0; 2];
        for image in images.chunks(PIXELS) {
            let ink: u32 = image.iter().copied().map(u32::from).sum();
            assert!(ink > 20 * 255 && image.iter().any(|pixel| *pixel > 150), "an empty image");
            let centre = [0, 1].map(|axis| {
                let place = |i: usize| (if axis == 0 { i % SIDE } else { i / SIDE }) as f64 + 0.5;
                image.iter().enumerate().map(|(i, pixel)| place(i) * f64::from(*pixel)).sum::<f64>() / f64::from(ink)
            });
            for axis in [0, 1] {
                assert!((centre[axis] - 14.5).abs() < 4.0, "{centre:?}");
                mean[axis] += centre[axis] / n as f64;
            }
        }
        assert!(mean.iter().all(|centre| (centre - 14.5).abs() < 0.15), "{mean:?}");
    }
}
