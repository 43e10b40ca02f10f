//! The nonzero pixels of a set of images, listed once: the first layer reads nothing else of them.
//!
//! Four in five pixels of MNIST are zero. They add nothing to a product and have no gradient.

use std::borrow::Cow;
use std::sync::Mutex;

use super::lister::Lister;
use super::lists::{self, Lists, NonzeroPixel, STRETCH};
use crate::error::Result;
use crate::memory;
use crate::simd::{huge_pages, prefetch};
use crate::threads;

/// Images that are listed before their pixels give their memory back: some megabytes.
const LISTED_AT_ONCE: usize = 8192;

/// What the memory is for, in errors.
const PURPOSE: &str = "the nonzero pixels of the training images";

const RECORD_BYTES: usize = size_of::<[u16; 2]>();

/// Images that a thread lists before it takes the next ones: their lists stay in its caches until they are copied.
const PART: usize = 64;

/// The nonzero pixels of each image, stretch by stretch, in pairs. A filler completes the last pair of a stretch.
#[derive(Debug, Default)]
pub struct NonzeroPixels {
    /// D.
    pixels: usize,
    stretches: usize,
    /// Image by image and stretch by stretch: the number of pairs, then the pairs.
    records: Vec<[u16; 2]>,
    /// Where the lists of each image begin in `records` (N).
    begins: Vec<usize>,
    words: usize,
    /// Which pixels are not zero: (N, `words`) of 64 each.
    flags: Vec<u64>,
}

impl NonzeroPixels {
    /// Lists the nonzero ones of `pixels` (N,D), with `threads` threads. Pixels that are nobody else's give their memory
    /// back as they are listed: from the last to the first.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(mut pixels: Cow<[u8]>, d: usize, threads: usize) -> Result<Self> {
        let images = pixels.len() / d;
        let expected = expected_records(&pixels, d);
        memory::require(bytes(expected, images, d) as u64, PURPOSE)?;
        let mut all = Self::default();
        all.set_pixels(d);
        let most = lists::most_records(d);
        all.begins = vec![0; images];
        all.flags = vec![0; images * all.words];
        // The system gives memory that is zero where it is used first: by all threads, and none for what stays unused.
        all.records = vec![[0; 2]; expected];
        huge_pages(all.flags.as_ptr_range());
        huge_pages(all.records.as_ptr_range());
        let (mut used, mut end) = (0, images);
        while end > 0 {
            let first = end.saturating_sub(LISTED_AT_ONCE);
            let room = used + most * (end - first);
            if all.records.len() < room {
                // Until the records are moved, there are both.
                memory::require((room * RECORD_BYTES) as u64, PURPOSE)?;
                all.records.resize(room, [0; 2]);
            }
            used = all.insert(first, &pixels[first * d..end * d], used, threads);
            end = first;
            if let Cow::Owned(pixels) = &mut pixels {
                pixels.truncate(end * d);
                pixels.shrink_to_fit();
            }
        }
        all.records.truncate(used);
        Ok(all)
    }

    /// Says that an image has `d` pixels.
    fn set_pixels(&mut self, d: usize) {
        (self.pixels, self.stretches, self.words) = (d, d.div_ceil(STRETCH), d.div_ceil(64));
    }

    /// Lists `pixels` (N,D), those of the images from number `first` on, with `threads` threads. The records before `used` are
    /// used; returns the number of those that are used now.
    fn insert(&mut self, first: usize, pixels: &[u8], used: usize, threads: usize) -> usize {
        let (d, words) = (self.pixels, self.words);
        let parts = pixels.chunks(PART * d);
        let parts = parts.zip(self.flags[first * words..].chunks_mut(PART * words));
        let parts = parts.zip(self.begins[first..].chunks_mut(PART));
        // Whoever has listed a part takes the next records, whichever part that is.
        let free = Mutex::new((used, &mut self.records[used..]));
        // Memory for a part, which the next one uses again.
        let spare = Mutex::new(vec![]);
        threads::side_by_side(threads, parts, |((pixels, flags), begins)| {
            let mut part: Self = threads::lock(&spare).pop().unwrap_or_default();
            part.fill(pixels, d);
            flags[..part.flags.len()].copy_from_slice(&part.flags);
            let (begin, records) = take(&free, part.records.len());
            records.copy_from_slice(&part.records);
            for (to, of_part) in begins.iter_mut().zip(&part.begins) {
                *to = begin + of_part;
            }
            threads::lock(&spare).push(part);
        });
        threads::lock(&free).0
    }

    /// About how many bytes the lists of `pixels` (N,D) take at most.
    pub fn memory(pixels: &[u8], d: usize) -> usize {
        bytes(expected_records(pixels, d), pixels.len() / d, d)
    }

    /// Replaces the lists by those of `pixels` (N,D), in the same memory.
    pub fn fill(&mut self, pixels: &[u8], d: usize) {
        self.set_pixels(d);
        self.begins.clear();
        self.flags.resize(pixels.len() / d * self.words, 0);
        let (lister, room, mut used) = (Lister::fastest(), lists::room(d), 0);
        for (image, flags) in pixels.chunks_exact(d).zip(self.flags.chunks_exact_mut(self.words)) {
            self.begins.push(used);
            if self.records.len() < used + room {
                self.records.resize(used + room, [0; 2]);
            }
            used += lister.list(image, flags, &mut self.records[used..][..room]);
        }
        self.records.truncate(used);
    }

    /// How many pixels an image has.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// How many stretches an image has.
    pub fn stretches(&self) -> usize {
        self.stretches
    }

    /// The lists of image `image`, from that of its first stretch on.
    #[inline(always)]
    pub fn lists(&self, image: usize) -> Lists<'_> {
        Lists::new(&self.records[self.begins[image]..])
    }

    /// Calls `visit` with the number and the value of each nonzero pixel of image `image`.
    #[inline(always)]
    pub fn each(&self, image: usize, mut visit: impl FnMut(usize, u8)) {
        let mut lists = self.lists(image);
        for stretch in 0..self.stretches {
            for &pixel in lists.next_stretch().as_flattened() {
                let pixel = NonzeroPixel(pixel);
                if pixel.value() != 0 {
                    visit(stretch * STRETCH + pixel.index(), pixel.value());
                }
            }
        }
    }

    /// Adds to `any` the flags of the nonzero pixels of image `image`.
    #[inline(always)]
    pub fn add_flags(&self, image: usize, any: &mut [u64]) {
        for (any, flags) in any.iter_mut().zip(&self.flags[image * self.words..][..self.words]) {
            *any |= flags;
        }
    }

    /// How many 64-bit words hold the flags of an image.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Prefetches the lists of `images`: of most images all of it.
    #[inline(always)]
    pub fn prefetch(&self, images: &[u32]) {
        const BYTES: usize = 384;
        for &image in images {
            let begin = self.begins[image as usize];
            for offset in (0..BYTES).step_by(64) {
                prefetch(self.records.get(begin + offset / size_of::<[u16; 2]>()));
            }
            let flags = image as usize * self.words;
            prefetch(self.flags.get(flags));
            prefetch(self.flags.get(flags + self.words - 1));
        }
    }
}

/// About how many records the lists of `pixels` (N,D) have, and room for those of the last images that are listed at once.
fn expected_records(pixels: &[u8], d: usize) -> usize {
    // Every so many pixels tell the share of all; no divisor of the usual D, so that all places are seen.
    const APART: usize = 4999;
    let nonzero = pixels.iter().step_by(APART).filter(|&&pixel| pixel > 0).count() * APART;
    let images = pixels.len() / d;
    // The share is not exact.
    let pairs = (nonzero + nonzero / 16) / 2;
    pairs + images * 2 * d.div_ceil(STRETCH) + lists::most_records(d) * images.min(LISTED_AT_ONCE)
}

/// The bytes of so many `records` of `images` of `d` pixels, with their places and flags.
fn bytes(records: usize, images: usize, d: usize) -> usize {
    records * RECORD_BYTES + images * (size_of::<usize>() + d.div_ceil(64) * size_of::<u64>())
}

/// The first `count` of the free records, no longer free, and the number of the first.
fn take<'a>(free: &Mutex<(usize, &'a mut [[u16; 2]])>, count: usize) -> (usize, &'a mut [[u16; 2]]) {
    let (begin, records) = &mut *threads::lock(free);
    let (taken, rest) = std::mem::take(records).split_at_mut(count);
    *records = rest;
    (std::mem::replace(begin, *begin + count), taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn every_nonzero_pixel_is_listed_once_and_no_other() {
        let mut stream = Stream::new(1, Purpose::Order, 0);
        for (d, share) in [(784, 5), (784, 1), (20, 2), (STRETCH, 3), (STRETCH + 1, 3), (1, 2)] {
            let n = 7;
            let pixels: Vec<u8> = (0..n * d)
                .map(|_| if stream.below(share) == 0 { stream.below(256) as u8 } else { 0 })
                .chain(vec![0; d])
                .collect();
            let nonzero = NonzeroPixels::new((&pixels).into(), d, 3).unwrap();
            let mut found = vec![0; pixels.len()];
            for image in 0..=n {
                let mut lists = nonzero.lists(image);
                for stretch in 0..nonzero.stretches() {
                    for pixel in lists.next_stretch().as_flattened().iter().copied().map(NonzeroPixel) {
                        found[image * d + stretch * STRETCH + pixel.index()] += pixel.value();
                    }
                }
            }
            assert_eq!(found, pixels);
            let mut any = vec![0; nonzero.words()];
            (0..=n).for_each(|image| nonzero.add_flags(image, &mut any));
            for pixel in 0..d {
                let nonzero_in_any = (0..=n).any(|image| pixels[image * d + pixel] > 0);
                assert_eq!(any[pixel / 64] >> (pixel % 64) & 1 == 1, nonzero_in_any);
            }
        }
    }

    #[test]
    fn lists_in_several_parts_are_those_of_one() {
        let images = 2 * LISTED_AT_ONCE + 5;
        let usual: fn(usize) -> u8 = |at| (at % 7 * (at % 5)) as u8;
        // More pairs than those few pixels let expect that tell the share of all.
        let unexpected: fn(usize) -> u8 = |at| u8::from(at % 4999 > 0);
        for (d, pixel) in [(3, usual), (64, unexpected)] {
            let pixels: Vec<u8> = (0..images * d).map(pixel).collect();
            let mut whole = NonzeroPixels::default();
            whole.fill(&pixels, d);
            for threads in [1, 2, 5] {
                for pixels in [Cow::Borrowed(&pixels[..]), Cow::Owned(pixels.clone())] {
                    let listed = NonzeroPixels::new(pixels, d, threads).unwrap();
                    let same = |image| listed.lists(image).next_stretch() == whole.lists(image).next_stretch();
                    assert!((0..images).all(same), "{threads}");
                    assert!(listed.flags == whole.flags, "{threads}");
                    assert_eq!(listed.records.len(), whole.records.len(), "{threads}");
                }
            }
        }
    }
}
