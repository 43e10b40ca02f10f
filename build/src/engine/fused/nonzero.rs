//! The nonzero pixels of a set of images, listed once: the first layer reads nothing else of them.
//!
//! Four in five pixels of MNIST are zero. They add nothing to a product and have no gradient.

#![expect(unsafe_code, reason = "vector instructions that read memory")]

use std::borrow::Cow;
use std::sync::Mutex;

#[cfg(target_arch = "x86_64")]
use super::compress::Compress;
use crate::simd::{huge_pages, prefetch};
use crate::threads;

/// Pixels whose weights are used for all images of a batch before the next pixels.
///
/// The weights of the nonzero ones among them, times 64 columns, just fit into a first-level cache. Shorter stretches
/// would end more loops, each with a branch misprediction.
pub const STRETCH: usize = 158;

/// Images that are listed before their pixels give their memory back: some megabytes.
const LISTED_AT_ONCE: usize = 8192;

/// Images that a thread lists before it takes the next ones: their lists stay in its caches until they are copied.
const PART: usize = 64;

/// A nonzero pixel of an image: its index within its stretch, and its value.
#[derive(Debug, Clone, Copy)]
pub struct NonzeroPixel(pub u16);

impl NonzeroPixel {
    fn new(index: usize, value: u8) -> Self {
        Self(index as u16 | u16::from(value) << 8)
    }

    /// From 0 to `STRETCH` - 1. A filler may have `STRETCH`, the index after the last.
    #[inline(always)]
    pub fn index(self) -> usize {
        usize::from(self.0 as u8)
    }

    /// From 1 to 255. A filler has 0, and the index of a pixel that is zero.
    #[inline(always)]
    pub fn value(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

/// Which of eight bytes are not zero: byte i is bit i.
#[inline(always)]
fn nonzero_of_8(bytes: [u8; 8]) -> u8 {
    // The highest bit of each byte that is not zero. A product then brings the eight bits together.
    let x = u64::from_le_bytes(bytes);
    let high = (((x & 0x7f7f_7f7f_7f7f_7f7f) + 0x7f7f_7f7f_7f7f_7f7f) | x) & 0x8080_8080_8080_8080;
    ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// Which of 32 bytes are not zero: byte i is bit i.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn nonzero_of_32(bytes: &[u8; 32]) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    let [low, high] = [0, 16].map(|begin| {
        // SAFETY: every x86-64 processor has SSE2. The 16 bytes from `begin` on lie in the array, and need no
        // alignment.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().add(begin).cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())) as u32
        }
    });
    !(low | high << 16)
}

/// Which of 32 bytes are not zero: byte i is bit i.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn nonzero_of_32(bytes: &[u8; 32]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| nonzero_of_8(bytes.as_chunks::<8>().0[n])))
}

/// Which of up to 64 pixels are not zero: pixel i is bit i.
#[inline(always)]
fn flags_of(pixels: &[u8]) -> u64 {
    if let Some(pixels) = pixels.as_array::<64>() {
        let [low, high] = [0, 1].map(|half| u64::from(nonzero_of_32(&pixels.as_chunks::<32>().0[half])));
        return low | high << 32;
    }
    let (eights, rest) = pixels.as_chunks::<8>();
    let mut flags = 0;
    for (n, eight) in eights.iter().enumerate() {
        flags |= u64::from(nonzero_of_8(*eight)) << (8 * n);
    }
    for (i, &pixel) in rest.iter().enumerate() {
        flags |= u64::from(pixel != 0) << (8 * eights.len() + i);
    }
    flags
}

/// Room for the nonzero pixels of a stretch, a filler, and what a [`Lister`] writes after them.
const LIST: usize = 256;

/// What lists the nonzero pixels of a stretch.
#[derive(Debug, Clone, Copy)]
enum Lister {
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Compress(Compress),
    /// The flags, one after the other.
    Flags,
}

impl Lister {
    /// The fastest that this processor has.
    fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(compress) = Compress::find() {
            return Self::Compress(compress);
        }
        Self::Flags
    }
}

/// Lists the same pixels as [`Compress::list`]. `first` is the number of the first of `pixels` in its image. The image's `flags`
/// tell which are not zero.
#[inline(always)]
fn list_flagged(flags: &[u64], first: usize, pixels: &[u8], list: &mut [u16; LIST]) -> usize {
    let end = first + pixels.len();
    let mut count = 0;
    for word in first / 64..end.div_ceil(64) {
        // Without the flags of other stretches.
        let (before, after) = (first.saturating_sub(64 * word), (64 * (word + 1)).saturating_sub(end));
        let mut left = flags[word] >> before << before << after >> after;
        while left != 0 {
            let index = (64 * word + left.trailing_zeros() as usize) - first;
            left &= left - 1;
            list[count] = NonzeroPixel::new(index, pixels[index]).0;
            count += 1;
        }
    }
    count
}

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
    pub fn new(mut pixels: Cow<[u8]>, d: usize, threads: usize) -> Self {
        let images = pixels.len() / d;
        let mut all = Self { pixels: d, stretches: d.div_ceil(STRETCH), words: d.div_ceil(64), ..Self::default() };
        // An image has at most so many pairs and lengths: every pixel, and a filler in each stretch.
        let most = (d + all.stretches) / 2 + all.stretches;
        let expected = Self::memory(&pixels, d) / size_of::<[u16; 2]>() + most * images.min(LISTED_AT_ONCE);
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
        all
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
        threads::side_by_side(threads, parts, |((pixels, flags), begins)| {
            let mut part = Self::default();
            part.fill(pixels, d);
            flags[..part.flags.len()].copy_from_slice(&part.flags);
            let (begin, records) = take(&free, part.records.len());
            records.copy_from_slice(&part.records);
            for (to, of_part) in begins.iter_mut().zip(&part.begins) {
                *to = begin + of_part;
            }
        });
        threads::lock(&free).0
    }

    /// About how many bytes the list of `pixels` (N,D) takes.
    pub fn memory(pixels: &[u8], d: usize) -> usize {
        // Every so many pixels tell the share of all; no divisor of the usual D, so that all places are seen.
        const APART: usize = 4999;
        let nonzero = pixels.iter().step_by(APART).filter(|&&pixel| pixel > 0).count() * APART;
        let words = 1 + d.div_ceil(64) + d.div_ceil(STRETCH);
        nonzero * size_of::<NonzeroPixel>() + pixels.len() / d * words * size_of::<u64>()
    }

    /// Replaces the list by that of `pixels` (N,D), in the same memory.
    pub fn fill(&mut self, pixels: &[u8], d: usize) {
        self.fill_by(Lister::fastest(), pixels, d);
    }

    fn fill_by(&mut self, lister: Lister, pixels: &[u8], d: usize) {
        self.pixels = d;
        self.stretches = d.div_ceil(STRETCH);
        self.words = d.div_ceil(64);
        self.records.clear();
        self.begins.clear();
        self.flags.clear();
        for image in pixels.chunks_exact(d) {
            let flags = self.flags.len();
            self.flags.extend(image.chunks(64).map(flags_of));
            self.begins.push(self.records.len());
            self.list(lister, image, flags);
        }
    }

    /// Appends the lists of `image`, whose flags begin at `flags`.
    fn list(&mut self, lister: Lister, image: &[u8], flags: usize) {
        let mut list = [0; LIST];
        for (stretch, pixels) in image.chunks(STRETCH).enumerate() {
            let count = match lister {
                #[cfg(target_arch = "x86_64")]
                Lister::Compress(compress) => compress.list(pixels, &mut list),
                Lister::Flags => list_flagged(&self.flags[flags..], stretch * STRETCH, pixels, &mut list),
            };
            if count % 2 == 1 {
                let zero = pixels.iter().position(|&value| value == 0);
                list[count] = NonzeroPixel::new(zero.unwrap_or(pixels.len()), 0).0;
            }
            let pairs = &list.as_chunks().0[..count.div_ceil(2)];
            self.records.push([pairs.len() as u16, 0]);
            self.records.extend_from_slice(pairs);
        }
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
        Lists(&self.records[self.begins[image]..])
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

/// The first `count` of the free records, no longer free, and the number of the first.
fn take<'a>(free: &Mutex<(usize, &'a mut [[u16; 2]])>, count: usize) -> (usize, &'a mut [[u16; 2]]) {
    let (begin, records) = &mut *threads::lock(free);
    let (taken, rest) = std::mem::take(records).split_at_mut(count);
    *records = rest;
    (std::mem::replace(begin, *begin + count), taken)
}

/// An image's lists that are not read yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lists<'a>(&'a [[u16; 2]]);

impl<'a> Lists<'a> {
    /// The nonzero pixels of the next stretch, in pairs: the number of each is that in a [`NonzeroPixel`].
    #[inline(always)]
    pub fn next_stretch(&mut self) -> &'a [[u16; 2]] {
        let (count, rest) = self.0.split_first().expect("an image has a list for each stretch");
        let list;
        (list, self.0) = rest.split_at(count[0].into());
        list
    }
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
            let nonzero = NonzeroPixels::new((&pixels).into(), d, 3);
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
                    let listed = NonzeroPixels::new(pixels, d, threads);
                    let same = |image| listed.lists(image).next_stretch() == whole.lists(image).next_stretch();
                    assert!((0..images).all(same), "{threads}");
                    assert!(listed.flags == whole.flags, "{threads}");
                    assert_eq!(listed.records.len(), whole.records.len(), "{threads}");
                }
            }
        }
    }

    #[test]
    fn every_lister_gives_the_same_list() {
        if let Lister::Flags = Lister::fastest() {
            return println!("skipped: this processor has no AVX-512 VBMI2");
        }
        let mut stream = Stream::new(2, Purpose::Order, 0);
        for d in [784, 1, 63, 64, 65, STRETCH, STRETCH + 1, 2 * STRETCH - 1] {
            for share in [1, 2, 5, 1000] {
                let pixels: Vec<u8> =
                    (0..9 * d).map(|_| if stream.below(share) == 0 { stream.below(256) as u8 } else { 0 }).collect();
                let [mut by_flags, mut fastest] = [NonzeroPixels::default(), NonzeroPixels::default()];
                by_flags.fill_by(Lister::Flags, &pixels, d);
                fastest.fill_by(Lister::fastest(), &pixels, d);
                assert!(by_flags.records == fastest.records && by_flags.begins == fastest.begins, "{d} {share}");
            }
        }
    }

    #[test]
    fn nonzero_bytes_are_found_among_32() {
        let bytes = std::array::from_fn(|i| if i % 3 == 0 || i == 31 { 0 } else { 7 * i as u8 + 1 });
        let expected = (0..32).filter(|i| !(i % 3 == 0 || *i == 31)).fold(0, |mask, i| mask | 1 << i);
        for (bytes, expected) in [(bytes, expected), ([0; 32], 0), ([128; 32], u32::MAX)] {
            assert_eq!(nonzero_of_32(&bytes), expected);
            let eights = bytes.as_chunks::<8>().0;
            assert_eq!(u32::from_le_bytes(std::array::from_fn(|n| nonzero_of_8(eights[n]))), expected);
        }
    }
}
