//! A sheet of training images and their distorted copies, to look at.

use super::Warper;
use crate::data::dataset::Images;

/// Pixels between two images.
const GAP: usize = 2;
/// More pixels between an original and its copies.
const AFTER_ORIGINAL: usize = 2 * GAP;
/// The shade of both.
const GREY: u8 = 128;

/// Images in rows. Each row begins with an original; its copies of the first epochs follow.
pub struct Sheet {
    /// How many images are originals.
    pub originals: usize,
    /// How many images there are.
    pub images: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// (height, width), 0 black, 255 white.
    pub pixels: Vec<u8>,
}

impl Sheet {
    /// At most `count` images, in rows of `columns`: the first of the training images `train`, classes in turns, and what
    /// `warper` makes of them.
    pub fn new(warper: &Warper, train: &Images, count: usize, columns: usize) -> Self {
        let side = train.side;
        let originals = first_of_each_class(train, count.div_ceil(columns));
        let images = count.min(originals.len() * columns);
        let step = side + GAP;
        let (width, height) = (GAP + columns * step + AFTER_ORIGINAL, GAP + originals.len() * step);
        let mut pixels = vec![GREY; width * height];
        let (mut scratch, mut copy) = (warper.scratch(), vec![0; train.inputs()]);
        for (row, &index) in originals.iter().enumerate() {
            let original = train.image(index);
            for column in 0..columns.min(images - row * columns) {
                copy.copy_from_slice(original);
                let mut left = GAP + column * step;
                if column > 0 {
                    left += AFTER_ORIGINAL;
                    warper.warp(original, column as u64 - 1, index as u64, &mut scratch, &mut copy);
                }
                let lines = pixels.chunks_mut(width).skip(GAP + row * step);
                for (line, copy) in lines.zip(copy.chunks(side)) {
                    line[left..left + side].copy_from_slice(copy);
                }
            }
        }
        Self { originals: originals.len(), images, width, height, pixels }
    }
}

/// The numbers of the first `count` images, classes in turns. A class that has no more is passed over.
fn first_of_each_class(train: &Images, count: usize) -> Vec<usize> {
    let mut classes = vec![vec![]; train.classes.len()];
    for (index, &label) in train.labels.iter().enumerate() {
        classes[usize::from(label)].push(index);
    }
    let most = classes.iter().map(Vec::len).max().unwrap_or(0);
    let in_turns = (0..most).flat_map(|nth| classes.iter().filter_map(move |class| class.get(nth)));
    in_turns.take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::augment::Augmentation;
    use crate::data::augment::augmenter::Augmenter;
    use crate::simd::InstructionSet;

    /// The image in a place of `sheet`.
    fn image(sheet: &Sheet, side: usize, row: usize, column: usize) -> Vec<u8> {
        let left = 2 + column * (side + 2) + if column > 0 { 4 } else { 0 };
        let lines = sheet.pixels.chunks(sheet.width).skip(2 + row * (side + 2)).take(side);
        lines.flat_map(|line| line[left..left + side].to_vec()).collect()
    }

    #[test]
    fn it_shows_what_training_sees() {
        let labels = vec![1, 1, 0, 1, 1];
        let side = 12;
        let pixels = (0..labels.len() * side * side).map(|at| (at * 7 % 250) as u8).collect();
        let train = Images { side, classes: &["0", "1"], pixels, labels };
        let set = InstructionSet::available()[0];
        let warper = Warper::new(Augmentation::DEFAULT, side, 5, set);
        let mut augmenter = Augmenter::new(Augmentation::DEFAULT, 5, Arc::new(train.clone()), set, [1, 0]);
        let epochs = [0, 1].map(|epoch| augmenter.images(epoch));

        // A zero, a one, and no other zero.
        let expected = [2, 0, 1, 3];
        let sheet = Sheet::new(&warper, &train, 11, 3);
        assert_eq!((sheet.originals, sheet.images, sheet.width, sheet.height), (4, 11, 48, 58));
        for (row, index) in expected.into_iter().enumerate() {
            assert!(image(&sheet, side, row, 0) == train.image(index), "{index}");
            for (epoch, images) in epochs.iter().enumerate().filter(|(epoch, _)| (row, *epoch) != (3, 1)) {
                assert!(image(&sheet, side, row, 1 + epoch) == images.image(index), "{index} in epoch {epoch}");
            }
        }
        assert!(image(&sheet, side, 3, 2).iter().all(|&shade| shade == GREY));
        let all = Sheet::new(&warper, &train, 1000, 3);
        assert_eq!((all.originals, all.images), (5, 15));
    }
}
