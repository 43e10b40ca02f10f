//! The pixels of a micro-batch as tiles of bf16 numbers.

use super::group::{GROUP, ImageGroup};
use super::nonzero::NonzeroPixels;
use crate::simd::tile::{Bf16Tile, DEPTH, ROWS};
use crate::simd::{LANES, Simd};

/// A left matrix: for each [`ROWS`] of its rows, two tiles a term.
pub type Left<'a> = Vec<Vec<[&'a Bf16Tile; 2]>>;

/// The pixels of a micro-batch in bf16: whole numbers, which are exact.
#[derive(Debug, Default)]
pub struct PixelTiles {
    /// The pixels that take part (P).
    list: Vec<u16>,
    /// 16 images and 32 of the pixels each: (B / 16, P / 32).
    rows: Vec<Bf16Tile>,
    /// The transpose, 16 of the pixels and 32 images each: (P / 16, B / 32).
    columns: Vec<Bf16Tile>,
    /// B / 32.
    groups: usize,
}

impl PixelTiles {
    /// Memory for `images` images of `d` pixels.
    pub fn new(images: usize, d: usize) -> Self {
        let groups = images.div_ceil(DEPTH);
        let tiles = 2 * groups * d.div_ceil(DEPTH);
        Self {
            list: Vec::with_capacity(d),
            rows: vec![Bf16Tile::ZERO; tiles],
            columns: vec![Bf16Tile::ZERO; tiles],
            groups,
        }
    }

    /// Bytes of that memory.
    pub fn memory(images: usize, d: usize) -> usize {
        4 * images.div_ceil(DEPTH) * d.div_ceil(DEPTH) * size_of::<Bf16Tile>()
    }

    /// The pixels that take part, in ascending order.
    pub fn list(&self) -> &[u16] {
        &self.list
    }

    /// Takes all pixels of `images`.
    #[inline(always)]
    pub fn fill(&mut self, nonzero: &NonzeroPixels, images: &[u32]) {
        let Self { list, rows, columns, groups } = self;
        list.clear();
        list.extend(0..nonzero.pixels() as u16);
        let depth = list.len().div_ceil(DEPTH);
        rows.fill(Bf16Tile::ZERO);
        columns.fill(Bf16Tile::ZERO);
        for (n, &image) in images.iter().enumerate() {
            nonzero.each(image as usize, |pixel, value| {
                let bits = bf16(value);
                let (row, half) = (n / LANES * depth + pixel / DEPTH, pixel % DEPTH / LANES);
                rows[row].0[n % LANES][pixel % LANES] |= bits << (16 * half);
                let (column, half) = (pixel / LANES * *groups + n / DEPTH, n % DEPTH / LANES);
                columns[column].0[pixel % LANES][n % LANES] |= bits << (16 * half);
            });
        }
    }

    /// Takes the pixels that are nonzero in any image of `group`, which is the whole batch.
    #[inline(always)]
    pub fn fill_with_group<S: Simd>(&mut self, s: S, group: &ImageGroup) {
        const ZERO: [u8; GROUP] = [0; GROUP];
        let Self { list, rows, columns, groups } = self;
        list.clear();
        list.extend_from_slice(group.pixels());
        let depth = list.len().div_ceil(DEPTH);
        for (k, pixels) in list.chunks(DEPTH).enumerate() {
            // 16 images of a pixel.
            let values = |at: usize, half: usize| {
                let values = pixels.get(at).map_or(&ZERO, |&pixel| group.values(pixel.into()));
                &values.as_chunks::<LANES>().0[half]
            };
            for half in 0..2 {
                let row = &mut rows[half * depth + k];
                let column = &mut columns[(2 * k + half) * *groups];
                for m in 0..LANES {
                    row.0[m] = pairs(values(m, half), values(LANES + m, half));
                    column.0[m] = pairs(values(half * LANES + m, 0), values(half * LANES + m, 1));
                }
                row.transpose(s);
            }
        }
    }

    /// The images, to be multiplied over the pixels.
    pub fn left_rows(&self, images: usize) -> Left<'_> {
        let depth = self.list.len().div_ceil(DEPTH);
        let tiles = |group: usize, k: usize| [0, 1].map(|half| &self.rows[(2 * group + half) * depth + k]);
        (0..images.div_ceil(ROWS)).map(|group| (0..depth).map(|k| tiles(group, k)).collect()).collect()
    }

    /// The pixels, to be multiplied over the images.
    pub fn left_columns(&self, images: usize) -> Left<'_> {
        let tiles = |k: usize, group: usize| [0, 1].map(|half| &self.columns[(2 * k + half) * self.groups + group]);
        let groups = images.div_ceil(DEPTH);
        (0..self.list.len().div_ceil(DEPTH)).map(|k| (0..groups).map(|group| tiles(k, group)).collect()).collect()
    }
}

/// The bits of a whole number as bf16.
#[inline(always)]
fn bf16(value: u8) -> u32 {
    f32::from(value).to_bits() >> 16
}

/// Two numbers in each word.
#[inline(always)]
fn pairs(low: &[u8; LANES], high: &[u8; LANES]) -> [u32; LANES] {
    let mut words = [0; LANES];
    for i in 0..LANES {
        words[i] = bf16(low[i]) | bf16(high[i]) << 16;
    }
    words
}
