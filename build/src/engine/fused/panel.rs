//! Matrices (B,W) that pass between layers: activations and their gradients, one for each slab.

use std::ops::Range;

use crate::simd::tile::{Bf16Tile, DEPTH, ROWS, rounded};
use crate::simd::{Block, LANES, Precision, Simd};

/// The bits of a mask: as many numbers as the widest row of a panel has.
pub const MASK: usize = u64::BITS as usize;

/// The memory of such a matrix.
#[derive(Debug)]
pub struct PanelBuffer {
    width: usize,
    blocks: Box<[Block]>,
    products: Products,
}

/// What the products that read a panel need beside its numbers.
#[derive(Debug)]
enum Products {
    Nothing,
    Masks(PanelMasks),
    Tiles(PanelTiles),
}

impl PanelBuffer {
    /// A matrix of zeros for `images` images and `width` blocks of columns, which no product reads.
    pub fn new(images: usize, width: usize) -> Self {
        Self { width, blocks: vec![Block::ZERO; images * width].into(), products: Products::Nothing }
    }

    /// The same for products of this precision, which read it as `kind` says.
    pub fn for_products(images: usize, width: usize, kind: PanelKind, precision: Precision) -> Self {
        match (precision, kind) {
            (Precision::Float32, PanelKind::Unread | PanelKind::FirstGradients) => Self::new(images, width),
            (Precision::Float32, PanelKind::Activations | PanelKind::Gradients) => {
                Self { products: Products::Masks(PanelMasks::new(images, width, kind)), ..Self::new(images, width) }
            }
            (Precision::Bf16, _) => {
                let images = images.next_multiple_of(ROWS);
                Self { products: Products::Tiles(PanelTiles::new(images, width, kind)), ..Self::new(images, width) }
            }
        }
    }

    /// The rows of some images.
    #[inline(always)]
    pub fn rows(&self, images: Range<usize>) -> Panel<'_> {
        let masks = match &self.products {
            Products::Masks(masks) => &masks.rows[images.clone()],
            _ => &[],
        };
        let blocks = &self.blocks[images.start * self.width..images.end * self.width];
        Panel { blocks, width: self.width, masks }
    }

    /// The rows of some images, to be written.
    #[inline(always)]
    pub fn rows_mut(&mut self, images: Range<usize>) -> &mut [Block] {
        &mut self.blocks[images.start * self.width..images.end * self.width]
    }

    /// For each column, which of [`MASK`] images from `first` on, a multiple of it, are not zero. Activations have these masks.
    #[inline(always)]
    pub fn column_masks(&self, first: usize) -> &[u64] {
        let Products::Masks(masks) = &self.products else { unreachable!("the panel has no masks") };
        let columns = self.width * LANES;
        &masks.columns[first / MASK * columns..][..columns]
    }

    /// The tiles of the images that were made ready last.
    pub fn tiles(&self) -> &PanelTiles {
        let Products::Tiles(tiles) = &self.products else { unreachable!("the panel has no tiles") };
        tiles
    }

    /// Makes the rows of some images ready for the products that read them. They begin with a multiple of [`MASK`].
    #[inline(always)]
    pub fn make_ready<S: Simd>(&mut self, s: S, images: Range<usize>) {
        match &mut self.products {
            Products::Nothing => {}
            Products::Masks(masks) => masks.fill(s, &self.blocks, images),
            Products::Tiles(tiles) => {
                for block in &mut self.blocks[images.start * self.width..images.end * self.width] {
                    s.store(rounded(s, s.load(block)), block);
                }
                tiles.fill(s, &self.blocks, images);
            }
        }
    }
}

/// The rows of some images in a [`PanelBuffer`].
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Row by row, `width` blocks each.
    pub blocks: &'a [Block],
    /// W in blocks.
    pub width: usize,
    /// Which numbers of each row are not zero: number i is bit i. Empty if no product of float32 numbers reads the panel.
    pub masks: &'a [u64],
}

/// Which products read a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanelKind {
    /// None.
    Unread,
    /// Activations a: `a W` and `a^T d`.
    Activations,
    /// Gradients d: `d W^T` and `a^T d`.
    Gradients,
    /// Gradients d of the first layer: `x^T d`.
    FirstGradients,
}

/// Which numbers of a panel are not zero.
#[derive(Debug)]
struct PanelMasks {
    /// W in blocks.
    width: usize,
    /// For each image (B), its columns.
    rows: Vec<u64>,
    /// For each column, some images: (B / `MASK`, W). Empty where no product reads them.
    columns: Vec<u64>,
}

impl PanelMasks {
    fn new(images: usize, width: usize, kind: PanelKind) -> Self {
        let groups = if kind == PanelKind::Activations { images.div_ceil(MASK) } else { 0 };
        Self { width, rows: vec![0; images], columns: vec![0; groups * width * LANES] }
    }

    /// Fills the masks of some images, which begin with a multiple of [`MASK`], from (B,W).
    #[inline(always)]
    fn fill<S: Simd>(&mut self, s: S, panel: &[Block], images: Range<usize>) {
        let columns = self.width * LANES;
        for first in images.clone().step_by(MASK) {
            let group = first..images.end.min(first + MASK);
            let panel = &panel[group.start * self.width..group.end * self.width];
            let rows = &mut self.rows[group];
            for (mask, row) in rows.iter_mut().zip(panel.chunks_exact(self.width)) {
                *mask = 0;
                for (n, block) in row.iter().enumerate() {
                    *mask |= u64::from(s.nonzero(s.load(block))) << (n * LANES);
                }
            }
            if !self.columns.is_empty() {
                let mut square = [0; MASK];
                square[..rows.len()].copy_from_slice(rows);
                transpose(&mut square);
                self.columns[first / MASK * columns..][..columns].copy_from_slice(&square[..columns]);
            }
        }
    }
}

/// Exchanges rows and columns of bits: bit m of number i becomes bit i of number m.
///
/// Source: Warren: Hacker's Delight, second edition, section 7-3.
#[inline(always)]
fn transpose(rows: &mut [u64; MASK]) {
    let mut size = MASK / 2;
    let mut mask = u64::MAX >> size;
    while size > 0 {
        for first in (0..MASK).step_by(2 * size) {
            for i in first..first + size {
                let exchanged = (rows[i] >> size ^ rows[i + size]) & mask;
                rows[i] ^= exchanged << size;
                rows[i + size] ^= exchanged;
            }
        }
        size /= 2;
        mask ^= mask << size;
    }
}

/// A panel in bf16.
#[derive(Debug, Default)]
pub struct PanelTiles {
    /// W in blocks.
    width: usize,
    /// Tiles of the panel's transpose: left tiles of a product, else they are right tiles.
    is_transposed: bool,
    /// 16 images and two blocks of columns each: (B / 16, `pairs`). None where no product reads them.
    rows: Vec<Bf16Tile>,
    /// A block of columns and 32 images each: (W, `groups`).
    columns: Vec<Bf16Tile>,
    groups: usize,
}

impl PanelTiles {
    fn new(images: usize, width: usize, kind: PanelKind) -> Self {
        let groups = images / DEPTH;
        let has_rows = matches!(kind, PanelKind::Activations | PanelKind::Gradients);
        let rows = if has_rows { images / LANES * width.div_ceil(2) } else { 0 };
        let columns = if kind == PanelKind::Unread { 0 } else { width * groups };
        Self {
            width,
            is_transposed: kind == PanelKind::Activations,
            rows: vec![Bf16Tile::ZERO; rows],
            columns: vec![Bf16Tile::ZERO; columns],
            groups,
        }
    }

    /// How many pairs of blocks the columns are; the last may have one block.
    #[inline(always)]
    pub fn pairs(&self) -> usize {
        self.width.div_ceil(2)
    }

    /// The blocks of columns of a pair.
    #[inline(always)]
    pub fn blocks(&self, pair: usize) -> Range<usize> {
        2 * pair..self.width.min(2 * pair + 2)
    }

    /// Images 32 `group` to 32 `group` + 31, and the columns of a pair of blocks.
    #[inline(always)]
    pub fn rows(&self, group: usize, pair: usize) -> [&Bf16Tile; 2] {
        [0, 1].map(|half| &self.rows[(2 * group + half) * self.pairs() + pair])
    }

    /// The same images, and a block of columns. Zero beyond the last.
    #[inline(always)]
    pub fn columns(&self, group: usize, block: usize) -> &Bf16Tile {
        static ZERO: Bf16Tile = Bf16Tile::ZERO;
        if block < self.width { &self.columns[block * self.groups + group] } else { &ZERO }
    }

    /// Fills the tiles of some images, which begin with a multiple of [`DEPTH`], from (B,W).
    #[inline(always)]
    fn fill<S: Simd>(&mut self, s: S, panel: &[Block], images: Range<usize>) {
        let (width, pairs) = (self.width, self.pairs());
        let block = |image: usize, block: usize| {
            let is_inside = image < images.end && block < width;
            if is_inside { &panel[image * width + block] } else { &Block::ZERO }
        };
        for group in images.start / DEPTH..images.end.div_ceil(DEPTH) {
            if !self.rows.is_empty() {
                let rows = &mut self.rows[2 * group * pairs..][..2 * pairs];
                for i in 0..DEPTH {
                    for pair in 0..pairs {
                        let [low, high] = [0, 1].map(|second| block(group * DEPTH + i, 2 * pair + second));
                        rows[i / LANES * pairs + pair].set_row(s, i % LANES, low, high);
                    }
                }
            }
            if !self.columns.is_empty() {
                for column in 0..width {
                    let tile = &mut self.columns[column * self.groups + group];
                    for m in 0..LANES {
                        let [low, high] = [0, LANES].map(|half| block(group * DEPTH + half + m, column));
                        tile.set_row(s, m, low, high);
                    }
                    if self.is_transposed {
                        tile.transpose(s);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_of_bits_are_exchanged() {
        let mut x = 1u64;
        let rows: [u64; MASK] = std::array::from_fn(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x
        });
        let mut columns = rows;
        transpose(&mut columns);
        for i in 0..MASK {
            for m in 0..MASK {
                assert_eq!(columns[m] >> i & 1, rows[i] >> m & 1, "row {i}, column {m}");
            }
        }
    }
}
