//! The nonzero pixels of some images of a batch, pixel by pixel: the input of the first layer's gradient.

#![expect(unsafe_code, reason = "the innermost loop writes to places that the lists are known to stay within")]

use super::lister::nonzero_of_32;
use super::lists::{NonzeroPixel, STRETCH};
use super::nonzero::NonzeroPixels;

/// The most images in a group: a mask has one bit for each.
pub const GROUP: usize = 32;

/// Some images of a batch, pixel by pixel.
#[derive(Debug)]
pub struct ImageGroup {
    /// Each pixel's values in the images of the group (D,`GROUP`).
    values: Vec<[u8; GROUP]>,
    /// The pixels that are nonzero in any image, in ascending order.
    pixels: Vec<u16>,
    /// For each of them, the images in which it is nonzero: image i is bit i.
    masks: Vec<u32>,
    flags: Vec<u64>,
}

impl ImageGroup {
    /// Memory for images of `d` pixels.
    pub fn new(d: usize) -> Self {
        // `put` does not check its place: a whole last stretch and the place after it must be there.
        let places = d.next_multiple_of(STRETCH) + 1;
        Self {
            values: vec![[0; GROUP]; places],
            pixels: Vec::with_capacity(d),
            masks: Vec::with_capacity(d),
            flags: vec![0; d.div_ceil(64)],
        }
    }

    /// Begins a group of up to [`GROUP`] images, indices into `nonzero`, and lists their nonzero pixels.
    ///
    /// [`ImageGroup::put`] adds the values afterwards.
    #[inline(always)]
    pub fn begin(&mut self, nonzero: &NonzeroPixels, images: &[u32]) {
        assert!(images.len() <= GROUP && nonzero.stretches() * STRETCH < self.values.len());
        for &pixel in &self.pixels {
            self.values[usize::from(pixel)] = [0; GROUP];
        }
        self.flags.resize(nonzero.words(), 0);
        self.flags.fill(0);
        for &image in images {
            nonzero.add_flags(image as usize, &mut self.flags);
        }
        self.pixels.resize(64 * nonzero.words(), 0);
        let mut count = 0;
        for (word, &flags) in self.flags.iter().enumerate() {
            let mut flags = flags;
            while flags != 0 {
                self.pixels[count] = (64 * word) as u16 + flags.trailing_zeros() as u16;
                count += 1;
                flags &= flags - 1;
            }
        }
        self.pixels.truncate(count);
    }

    /// Puts the value of a pixel of stretch `stretch` in the group's image `image`.
    ///
    /// # Safety
    /// The [`NonzeroPixels`] that the group began with list the pixel in that stretch, and `image` is below [`GROUP`].
    #[inline(always)]
    pub unsafe fn put(&mut self, image: usize, stretch: usize, pixel: NonzeroPixel) {
        let place = stretch * STRETCH + pixel.index();
        // SAFETY: `begin` asserted that `values` has a place for each pixel of every stretch and one more. A row of it
        // has `GROUP` values, and the caller promises that `image` is below that.
        unsafe { *self.values.get_unchecked_mut(place).get_unchecked_mut(image) = pixel.value() };
    }

    /// Ends the group, when all values are put.
    #[inline(always)]
    pub fn end(&mut self) {
        self.masks.resize(self.pixels.len(), 0);
        for (mask, &pixel) in self.masks.iter_mut().zip(&self.pixels) {
            *mask = nonzero_of_32(&self.values[usize::from(pixel)]);
        }
    }

    /// Begins a group, puts all values and ends it.
    #[inline(always)]
    pub fn fill(&mut self, nonzero: &NonzeroPixels, images: &[u32]) {
        self.begin(nonzero, images);
        self.put_all(nonzero, images);
        self.end();
    }

    /// Puts the values of all pixels of the `images` that the group began with.
    #[inline(always)]
    pub fn put_all(&mut self, nonzero: &NonzeroPixels, images: &[u32]) {
        assert!(images.len() <= GROUP && nonzero.stretches() * STRETCH < self.values.len());
        for (i, &image) in images.iter().enumerate() {
            let mut lists = nonzero.lists(image as usize);
            for stretch in 0..nonzero.stretches() {
                for &pixel in lists.next_stretch().as_flattened() {
                    // SAFETY: the pixel comes from that list, and there are at most `GROUP` images, as asserted.
                    unsafe { self.put(i, stretch, NonzeroPixel(pixel)) };
                }
            }
        }
    }

    /// Goes on with some of the images alone: image i is bit i. Pixels that are zero in these are no longer the group's.
    #[inline(always)]
    pub fn keep(&mut self, images: u32) {
        let mut count = 0;
        for n in 0..self.pixels.len() {
            let (pixel, mask) = (self.pixels[n], self.masks[n] & images);
            if mask == 0 {
                self.values[usize::from(pixel)] = [0; GROUP];
            } else {
                (self.pixels[count], self.masks[count]) = (pixel, mask);
                count += 1;
            }
        }
        self.pixels.truncate(count);
        self.masks.truncate(count);
    }

    /// The pixels that are nonzero in any image, in ascending order.
    pub fn pixels(&self) -> &[u16] {
        &self.pixels
    }

    /// For each of [`ImageGroup::pixels`], the images in which it is nonzero: image i is bit i.
    pub fn masks(&self) -> &[u32] {
        &self.masks
    }

    /// The values of `pixel` in all images.
    #[inline(always)]
    pub fn values(&self, pixel: usize) -> &[u8; GROUP] {
        &self.values[pixel]
    }
}
