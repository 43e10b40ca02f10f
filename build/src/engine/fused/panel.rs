//! Matrices (B,W) that pass between layers: activations and their gradients, one for each slab.

use std::ops::Range;

use crate::simd::Block;

/// The memory of such a matrix.
#[derive(Debug)]
pub struct PanelBuffer {
    width: usize,
    blocks: Box<[Block]>,
}

impl PanelBuffer {
    /// A matrix of zeros for `images` images and `width` blocks of columns.
    pub fn new(images: usize, width: usize) -> Self {
        Self { width, blocks: vec![Block::ZERO; images * width].into() }
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
}

/// The rows of some images in a [`PanelBuffer`].
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Row by row, `width` blocks each.
    pub blocks: &'a [Block],
    /// W in blocks.
    pub width: usize,
}
