//! The lit pixels of a set of images, listed once: all that the first layer reads of them.
//!
//! Four in five pixels of MNIST are black; they add nothing to a product and have no gradient.

use crate::simd::{Simd, lit_of_eight};

/// Pixels whose weights are worked on together while a batch's images come by: those of them that are lit, times 64
/// columns, about fit into a first-level cache; fewer would mean more loops that end unforeseen.
pub const STRETCH: usize = 158;

/// A lit pixel: its place within its stretch, and its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lit(u16);

impl Lit {
    fn new(place: usize, value: u8) -> Self {
        Self(place as u16 | u16::from(value) << 8)
    }

    /// From 0 to `STRETCH` - 1; in a filler perhaps the place after the last.
    #[inline(always)]
    pub fn place(self) -> usize {
        usize::from(self.0 as u8)
    }

    /// From 1 to 255; 0 in a filler, whose place is a black pixel's.
    #[inline(always)]
    pub fn value(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

/// Which of up to 64 pixels are lit: pixel i is bit i.
fn flags_of(pixels: &[u8]) -> u64 {
    let (eights, rest) = pixels.as_chunks::<8>();
    let mut flags = 0;
    for (n, eight) in eights.iter().enumerate() {
        flags |= u64::from(lit_of_eight(*eight)) << (8 * n);
    }
    for (i, &pixel) in rest.iter().enumerate() {
        flags |= u64::from(pixel != 0) << (8 * eights.len() + i);
    }
    flags
}

/// The lit pixels of each image, stretch by stretch, in pairs (the last of a stretch may be filled up).
#[derive(Debug, Default)]
pub struct LitPixels {
    stretches: usize,
    /// Image by image: where its stretches end, counted in pairs from here on, then its pairs.
    records: Vec<[Lit; 2]>,
    /// Where each image begins in `records` (N).
    begins: Vec<usize>,
    words: usize,
    /// Which pixels are lit: (N, `words`) of 64 each.
    flags: Vec<u64>,
}

impl LitPixels {
    /// Lists the lit ones of `pixels` (N,D), with `threads` threads.
    pub fn new(pixels: &[u8], d: usize, threads: usize) -> Self {
        let images = pixels.len() / d;
        let mut parts = pixels.chunks(images.div_ceil(threads).max(1) * d);
        let mut all = Self::default();
        let first = parts.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let others: Vec<_> = parts.map(|part| scope.spawn(move || Self::new(part, d, 1))).collect();
            all.fill(first, d);
            for part in others {
                let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.begins.extend(part.begins.iter().map(|begin| begin + all.records.len()));
                all.records.extend_from_slice(&part.records);
                all.flags.extend_from_slice(&part.flags);
            }
        });
        all
    }

    /// Lists the lit ones of `pixels` (N,D) in memory that is there.
    pub fn fill(&mut self, pixels: &[u8], d: usize) {
        self.stretches = d.div_ceil(STRETCH);
        self.words = d.div_ceil(64);
        self.records.clear();
        self.begins.clear();
        self.flags.clear();
        for image in pixels.chunks_exact(d) {
            let flags = self.flags.len();
            self.flags.extend(image.chunks(64).map(flags_of));
            self.begins.push(self.records.len());
            self.list(image, flags);
        }
    }

    /// Appends the record of `image`, whose flags begin at `flags`.
    fn list(&mut self, image: &[u8], flags: usize) {
        let begin = self.records.len();
        self.records.resize(begin + self.stretches, [Lit::default(); 2]);
        let mut list = [Lit::default(); STRETCH + 1];
        let (mut stretch, mut count) = (0, 0);
        let mut end_stretch = |stretch: usize, list: &mut [Lit], count: usize| {
            let pixels = &image[stretch * STRETCH..image.len().min((stretch + 1) * STRETCH)];
            if count % 2 == 1 {
                let black = pixels.iter().position(|&value| value == 0);
                list[count] = Lit::new(black.unwrap_or(pixels.len()), 0);
            }
            self.records.extend_from_slice(&list.as_chunks().0[..count.div_ceil(2)]);
            self.records[begin + stretch] = [Lit((self.records.len() - begin) as u16), Lit::default()];
        };
        for (word, &flags) in self.flags[flags..].iter().enumerate() {
            let mut flags = flags;
            while flags != 0 {
                let pixel = 64 * word + flags.trailing_zeros() as usize;
                flags &= flags - 1;
                while pixel >= (stretch + 1) * STRETCH {
                    end_stretch(stretch, &mut list, count);
                    (stretch, count) = (stretch + 1, 0);
                }
                list[count] = Lit::new(pixel - stretch * STRETCH, image[pixel]);
                count += 1;
            }
        }
        while stretch < self.stretches {
            end_stretch(stretch, &mut list, count);
            (stretch, count) = (stretch + 1, 0);
        }
    }

    /// How many stretches an image has.
    pub fn stretches(&self) -> usize {
        self.stretches
    }

    /// The lit pixels of stretch `stretch` of image `image`.
    #[inline(always)]
    pub fn of(&self, image: usize, stretch: usize) -> &[[Lit; 2]] {
        let record = &self.records[self.begins[image]..];
        let first = if stretch == 0 { self.stretches } else { record[stretch - 1][0].0.into() };
        &record[first..record[stretch][0].0.into()]
    }

    /// Adds to `any` the flags of the pixels that are lit in image `image`.
    #[inline(always)]
    pub fn add_flags(&self, image: usize, any: &mut [u64]) {
        for (any, flags) in any.iter_mut().zip(&self.flags[image * self.words..][..self.words]) {
            *any |= flags;
        }
    }

    /// How many numbers hold an image's flags.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Fetches what is listed of `images` in advance: of most images all of it.
    #[inline(always)]
    pub fn prefetch<S: Simd>(&self, s: S, images: &[u32]) {
        const BYTES: usize = 384;
        for &image in images {
            let begin = self.begins[image as usize];
            for offset in (0..BYTES).step_by(64) {
                s.prefetch(self.records.get(begin + offset / size_of::<[Lit; 2]>()));
            }
            let flags = image as usize * self.words;
            s.prefetch(self.flags.get(flags));
            s.prefetch(self.flags.get(flags + self.words - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn every_lit_pixel_is_listed_once_and_no_other() {
        let mut stream = Stream::new(1, Purpose::Order, 0);
        for (d, share) in [(784, 5), (784, 1), (20, 2), (STRETCH, 3), (STRETCH + 1, 3), (1, 2)] {
            let n = 7;
            let pixels: Vec<u8> = (0..n * d)
                .map(|_| if stream.below(share) == 0 { stream.below(256) as u8 } else { 0 })
                .chain(vec![0; d])
                .collect();
            let lit = LitPixels::new(&pixels, d, 3);
            let mut found = vec![0; pixels.len()];
            for image in 0..=n {
                for stretch in 0..lit.stretches() {
                    for pixel in lit.of(image, stretch).as_flattened() {
                        found[image * d + stretch * STRETCH + pixel.place()] += pixel.value();
                    }
                }
            }
            assert_eq!(found, pixels);
            let mut any = vec![0; lit.words()];
            (0..=n).for_each(|image| lit.add_flags(image, &mut any));
            for pixel in 0..d {
                let lit_in_any = (0..=n).any(|image| pixels[image * d + pixel] > 0);
                assert_eq!(any[pixel / 64] >> (pixel % 64) & 1 == 1, lit_in_any);
            }
        }
    }
}
