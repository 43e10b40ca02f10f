//! The lists of an image's nonzero pixels: one for each stretch of the image. Each is a record with the number of pairs, then
//! the pairs. A filler completes the last pair.

/// Pixels whose weights are used for all images of a batch before the next pixels.
///
/// The weights of the nonzero ones among them, times 64 columns, just fit into a first-level cache. Shorter stretches
/// would end more loops, each with a branch misprediction.
pub const STRETCH: usize = 158;

/// A nonzero pixel of an image: its index within its stretch, and its value.
#[derive(Debug, Clone, Copy)]
pub struct NonzeroPixel(pub u16);

impl NonzeroPixel {
    /// The pixel at `index`.
    #[inline(always)]
    pub fn new(index: usize, value: u8) -> Self {
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

/// Records after the last list: a lister may write so many before it knows how many pixels there are.
const BEYOND: usize = 64;

/// At most how many pairs and lengths the lists of an image of `d` pixels have: every pixel, and a filler in each stretch.
pub fn most_records(d: usize) -> usize {
    let stretches = d.div_ceil(STRETCH);
    (d + stretches) / 2 + stretches
}

/// For how many records [`write`] must have room.
pub fn room(d: usize) -> usize {
    most_records(d) + BEYOND
}

/// Writes the lists of `image`, from the first of `records` on, and returns how many records they take; those after them
/// change too. `list_one` lists the pixels of a stretch, whose first has this number in the image: it writes the number of
/// each as that in a [`NonzeroPixel`], and returns how many there are.
#[inline(always)]
pub fn write(image: &[u8], records: &mut [[u16; 2]], list_one: impl Fn(usize, &[u8], &mut [u16]) -> usize) -> usize {
    let mut used = 0;
    for (stretch, pixels) in image.chunks(STRETCH).enumerate() {
        let list = records[used + 1..].as_flattened_mut();
        let count = list_one(stretch * STRETCH, pixels, list);
        // The filler, if the last pair lacks one. Written always: whether it does is as good as random.
        let zero = pixels.iter().position(|&value| value == 0).unwrap_or(pixels.len());
        list[count] = NonzeroPixel::new(zero, 0).0;
        let pairs = count.div_ceil(2);
        records[used] = [pairs as u16, 0];
        used += 1 + pairs;
    }
    used
}

/// An image's lists that are not read yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lists<'a>(&'a [[u16; 2]]);

impl<'a> Lists<'a> {
    /// Those that begin with the first of `records`.
    #[inline(always)]
    pub fn new(records: &'a [[u16; 2]]) -> Self {
        Self(records)
    }

    /// The nonzero pixels of the next stretch, in pairs: the number of each is that in a [`NonzeroPixel`].
    #[inline(always)]
    pub fn next_stretch(&mut self) -> &'a [[u16; 2]] {
        let (count, rest) = self.0.split_first().expect("an image has a list for each stretch");
        let list;
        (list, self.0) = rest.split_at(count[0].into());
        list
    }
}
