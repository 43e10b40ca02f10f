//! The distorted images of each epoch, made ahead where processors are free.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::{Augmentation, Warper};
use crate::data::dataset::Images;
use crate::interrupt;
use crate::simd::InstructionSet;
use crate::threads;

/// How many images a thread distorts at a time.
const AT_ONCE: usize = 256;

/// Makes the training images of each epoch.
pub struct Augmenter {
    warper: Arc<Warper>,
    originals: Arc<Images>,
    /// How many threads work while nothing trains.
    threads: usize,
    /// How many processors are free while the engine trains.
    free: usize,
    /// The images of the last two epochs, whose memory is used again.
    made: Vec<Arc<Images>>,
    /// Those of this epoch, in the making.
    ahead: Option<(u64, JoinHandle<Images>)>,
}

impl Augmenter {
    /// Distorts `originals` by `threads` threads, or while an engine trains by as many as processors are `free`.
    pub fn new(
        augmentation: Augmentation,
        seed: u64,
        originals: Arc<Images>,
        set: InstructionSet,
        [threads, free]: [usize; 2],
    ) -> Self {
        let warper = Arc::new(Warper::new(augmentation, originals.side, seed, set));
        Self { warper, originals, threads, free, made: vec![], ahead: None }
    }

    /// About how many bytes it takes at most.
    pub fn memory(train: &Images) -> u64 {
        2 * train.pixels.len() as u64
    }

    /// The images of `epoch`; worthless after a signal.
    pub fn images(&mut self, epoch: u64) -> Arc<Images> {
        let images = match self.ahead.take() {
            Some((of, images)) if of == epoch => threads::end(images),
            _ => {
                let mut images = self.space();
                distort(&self.warper, &self.originals, epoch, self.threads, &mut images);
                images
            }
        };
        let images = Arc::new(images);
        self.made.push(images.clone());
        images
    }

    /// Begins with the images of `epoch` where processors are free. The engine has those of the epoch before.
    pub fn go_ahead(&mut self, epoch: u64) {
        if self.free == 0 || self.ahead.is_some() {
            return;
        }
        let (warper, originals, free) = (self.warper.clone(), self.originals.clone(), self.free);
        let mut images = self.space();
        let work = move || {
            distort(&warper, &originals, epoch, free, &mut images);
            images
        };
        // Without a thread, they are made when they are needed.
        self.ahead = threads::begin(work).ok().map(|images| (epoch, images));
    }

    /// Images to write over: those of an epoch that the engine no longer has.
    fn space(&mut self) -> Images {
        let unused = self.made.iter().position(|images| Arc::strong_count(images) == 1);
        let unused = unused.and_then(|at| Arc::into_inner(self.made.swap_remove(at)));
        unused.unwrap_or_else(|| Images { pixels: vec![0; self.originals.pixels.len()], ..self.without_pixels() })
    }

    fn without_pixels(&self) -> Images {
        let Images { side, classes, ref labels, .. } = *self.originals;
        Images { side, classes, pixels: vec![], labels: labels.clone() }
    }
}

/// Writes all of `originals`, distorted as they are in `epoch`, over the pixels of `images`. Ends early after a signal.
fn distort(warper: &Warper, originals: &Images, epoch: u64, threads: usize, images: &mut Images) {
    let bytes = AT_ONCE * originals.inputs();
    let parts = originals.pixels.chunks(bytes).zip(images.pixels.chunks_mut(bytes)).enumerate();
    threads::side_by_side(threads, parts, |(part, (from, to))| {
        if interrupt::is_received() {
            return;
        }
        let mut scratch = warper.scratch();
        let pairs = from.chunks(originals.inputs()).zip(to.chunks_mut(originals.inputs()));
        for (index, (from, to)) in (part * AT_ONCE..).zip(pairs) {
            warper.warp(from, epoch, index as u64, &mut scratch, to);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::Elastic;

    #[test]
    fn images_are_the_same_with_any_number_of_threads_and_made_ahead_or_not() {
        let count = 3 * AT_ONCE + 7;
        let pixels = (0..count * 784).map(|at| (at * 7 % 256) as u8).collect();
        let originals = Images { side: 28, classes: &["0"], pixels, labels: vec![0; count] };
        let elastic = Elastic { sigma: 4.0, alpha: 34.0 };
        let augmentation = Augmentation { rotation: 10.0, scale: 0.1, shear: 0.1, shift: 1.0, elastic };
        let set = InstructionSet::available()[0];
        let made = |threads: [usize; 2]| {
            let mut augmenter = Augmenter::new(augmentation, 1, Arc::new(originals.clone()), set, threads);
            let epochs = [7, 8, 9].map(|epoch| {
                let images = augmenter.images(epoch);
                augmenter.go_ahead(epoch + 1);
                images.pixels.clone()
            });
            assert!(augmenter.made.len() <= 2);
            epochs
        };
        let alone = made([1, 0]);
        assert_ne!(alone[0], alone[1]);
        assert_ne!(alone[0], originals.pixels);
        for threads in [[3, 0], [1, 1], [2, 3]] {
            assert!(made(threads) == alone, "{threads:?}");
        }
    }
}
