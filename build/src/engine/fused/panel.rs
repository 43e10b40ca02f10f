//! Matrices (B,W) that pass between layers: activations and their gradients, one for each slab.

use std::ops::Range;

use crate::simd::tile::{Bf16Tile, DEPTH, ROWS, rounded};
use crate::simd::{Block, LANES, Simd};

/// The memory of such a matrix.
#[derive(Debug)]
pub struct PanelBuffer {
    width: usize,
    blocks: Box<[Block]>,
    /// The same numbers in bf16.
    tiles: PanelTiles,
}

impl PanelBuffer {
    /// A matrix of zeros for `images` images and `width` blocks of columns.
    pub fn new(images: usize, width: usize) -> Self {
        Self { width, blocks: vec![Block::ZERO; images * width].into(), tiles: PanelTiles::default() }
    }

    /// The same for products of bf16 numbers, which read it as `kind` says.
    pub fn tiled(images: usize, width: usize, kind: TileKind) -> Self {
        let images = images.next_multiple_of(ROWS);
        Self { tiles: PanelTiles::new(images, width, kind), ..Self::new(images, width) }
    }

    /// The rows of some images.
    #[inline(always)]
    pub fn rows(&self, images: Range<usize>) -> Panel<'_> {
        let blocks = &self.blocks[images.start * self.width..images.end * self.width];
        Panel { blocks, width: self.width }
    }

    /// The rows of some images, to be written.
    #[inline(always)]
    pub fn rows_mut(&mut self, images: Range<usize>) -> &mut [Block] {
        &mut self.blocks[images.start * self.width..images.end * self.width]
    }

    /// The tiles of the images that were rounded last.
    pub fn tiles(&self) -> &PanelTiles {
        &self.tiles
    }

    /// Rounds the rows of some images to bf16, and makes their tiles. They begin with a multiple of [`ROWS`].
    #[inline(always)]
    pub fn round<S: Simd>(&mut self, s: S, images: Range<usize>) {
        for block in self.rows_mut(images.clone()) {
            s.store(rounded(s, s.load(block)), block);
        }
        self.tiles.fill(s, &self.blocks, images);
    }
}

/// The rows of some images in a [`PanelBuffer`].
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Row by row, `width` blocks each.
    pub blocks: &'a [Block],
    /// W in blocks.
    pub width: usize,
}

/// Which products read a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileKind {
    /// None.
    Unread,
    /// Activations a: `a W` and `a^T d`.
    Activations,
    /// Gradients d: `d W^T` and `a^T d`.
    Gradients,
    /// Gradients d of the first layer: `x^T d`.
    FirstGradients,
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
    fn new(images: usize, width: usize, kind: TileKind) -> Self {
        let groups = images / DEPTH;
        let has_rows = matches!(kind, TileKind::Activations | TileKind::Gradients);
        let rows = if has_rows { images / LANES * width.div_ceil(2) } else { 0 };
        let columns = if kind == TileKind::Unread { 0 } else { width * groups };
        Self {
            width,
            is_transposed: kind == TileKind::Activations,
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
