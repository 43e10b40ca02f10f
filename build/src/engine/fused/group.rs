//! The lit pixels of some images of a batch, by pixel: what the first layer's gradient works on.

#![expect(unsafe_code, reason = "the innermost loops write to places that the lists are known to keep to")]

use super::lit::{Lit, LitPixels, STRETCH};
use crate::simd::Simd;

/// The most images in a group: as many as a mask has bits.
pub const GROUP: usize = 32;

/// A group of images, by pixel.
#[derive(Debug)]
pub struct Group {
    /// Each pixel's values in the images of the group (D,`GROUP`).
    values: Vec<[u8; GROUP]>,
    /// The pixels that are lit in any image, in ascending order.
    lit: Vec<u16>,
    /// In which images each of them is lit: image i is bit i.
    masks: Vec<u32>,
    flags: Vec<u64>,
}

impl Group {
    /// Room for images of `d` pixels.
    pub fn new(d: usize) -> Self {
        // Places in stretches are used without a check, the last stretch as if it were whole, and the place after it.
        let places = d.next_multiple_of(STRETCH) + 1;
        Self {
            values: vec![[0; GROUP]; places],
            lit: Vec::with_capacity(d),
            masks: Vec::with_capacity(d),
            flags: vec![0; d.div_ceil(64)],
        }
    }

    /// Begins a group of up to [`GROUP`] images, indices into `lit`: lists the pixels lit in any. Their values are still to
    /// be put.
    #[inline(always)]
    pub fn begin(&mut self, lit: &LitPixels, images: &[u32]) {
        assert!(images.len() <= GROUP && lit.stretches() * STRETCH < self.values.len());
        for &pixel in &self.lit {
            self.values[usize::from(pixel)] = [0; GROUP];
        }
        self.flags.resize(lit.words(), 0);
        self.flags.fill(0);
        for &image in images {
            lit.add_flags(image as usize, &mut self.flags);
        }
        self.lit.resize(64 * lit.words(), 0);
        let mut count = 0;
        for (word, &flags) in self.flags.iter().enumerate() {
            let mut flags = flags;
            while flags != 0 {
                self.lit[count] = (64 * word) as u16 + flags.trailing_zeros() as u16;
                count += 1;
                flags &= flags - 1;
            }
        }
        self.lit.truncate(count);
    }

    /// Puts the value of a pixel of stretch `stretch` in the group's image `image`.
    ///
    /// # Safety
    /// The pixel is from that stretch's list of the [`LitPixels`] that the group began with, and `image` below
    /// [`GROUP`].
    #[inline(always)]
    pub unsafe fn put(&mut self, image: usize, stretch: usize, pixel: Lit) {
        let place = stretch * STRETCH + pixel.place();
        // SAFETY: a place in a stretch or the one after it, of which there are as many as `begin` asserted.
        unsafe { *self.values.get_unchecked_mut(place).get_unchecked_mut(image) = pixel.value() };
    }

    /// Ends it, with all values put.
    #[inline(always)]
    pub fn end<S: Simd>(&mut self, s: S) {
        self.masks.resize(self.lit.len(), 0);
        for (mask, &pixel) in self.masks.iter_mut().zip(&self.lit) {
            *mask = s.lit(&self.values[usize::from(pixel)]);
        }
    }

    /// Begins a group, puts all values and ends it.
    #[inline(always)]
    pub fn take<S: Simd>(&mut self, s: S, lit: &LitPixels, images: &[u32]) {
        self.begin(lit, images);
        for (i, &image) in images.iter().enumerate() {
            for stretch in 0..lit.stretches() {
                for &pixel in lit.of(image as usize, stretch).as_flattened() {
                    // SAFETY: from that list, and `begin` asserted how many images there are.
                    unsafe { self.put(i, stretch, pixel) };
                }
            }
        }
        self.end(s);
    }

    /// The pixels lit in any image, in ascending order.
    pub fn lit(&self) -> &[u16] {
        &self.lit
    }

    /// For each of those pixels, in which images it is lit: image i is bit i.
    pub fn masks(&self) -> &[u32] {
        &self.masks
    }

    /// The values of `pixel` in all images.
    #[inline(always)]
    pub fn values(&self, pixel: usize) -> &[u8; GROUP] {
        &self.values[pixel]
    }
}
