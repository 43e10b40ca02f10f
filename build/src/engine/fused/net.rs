//! The network as the team shares it: its weights in slabs of columns, and what passes between them in a step.

use super::group::GROUP;
use super::hidden_layer::{self, Panel};
use super::lit::LitPixels;
use super::team::{Barrier, Shared};
use crate::data::dataset::Images;
use crate::engine::Recipe;
use crate::model::Layer;
use crate::optim::vectors::BlockUpdate;
use crate::optim::{MAX_SLOTS, Slot};
use crate::simd::{Block, InstructionSet, LANES, Simd};
use std::ops::Range;
use std::sync::Arc;

/// The widest slab in blocks: 64 columns, whose sums stay in registers.
pub const WIDEST: usize = 4;

/// What the team shares.
pub struct Net {
    pub recipe: Recipe,
    pub train: Arc<Images>,
    pub lit: LitPixels,
    /// Every hidden layer, or the output layer where there is none.
    pub layers: Vec<SplitLayer>,
    /// The output layer's rows for each slab of the last hidden layer; none without hidden layers.
    pub outputs: Shared<Slab>,
    /// The logits' parts (B), one for each `grain` columns of the last hidden layer; twice, for alternate steps.
    pub parts: Shared<Vec<Block>>,
    /// Columns of the last hidden layer, in blocks, whose products are summed before those of others.
    pub grain: usize,
    pub barrier: Barrier,
}

/// A layer whose columns are split over the threads.
pub struct SplitLayer {
    /// I, padded to whole blocks but for the first layer, and one for the biases.
    pub rows: usize,
    /// O.
    pub outputs: usize,
    /// Where each slab begins, in blocks of columns, and how wide it is.
    pub places: Vec<(usize, usize)>,
    pub slabs: Shared<Slab>,
    /// What comes out (B,W), per slab.
    pub activations: Shared<Vec<Block>>,
    /// The gradient of what goes in there: of `a W + b` (B,W), per slab.
    pub gradients: Shared<Vec<Block>>,
}

/// Some columns of a layer with what the optimizer remembers of them.
#[derive(Debug, Clone)]
pub struct Slab {
    /// Columns in blocks.
    pub width: usize,
    /// Row by row; a split layer's last row holds the biases.
    pub weights: Vec<Block>,
    /// As many each, where the optimizer has them.
    slots: [Vec<Block>; MAX_SLOTS],
    /// Of the first layer: since which step of the period each row waits, see [`crate::optim::lazy`].
    pub since: Vec<u8>,
}

impl Slab {
    pub fn new(rows: usize, width: usize, slots: &[Slot]) -> Self {
        let slot = |s: usize| slots.get(s).map_or(vec![], |slot| vec![Block([slot.initial; LANES]); rows * width]);
        Self { width, weights: vec![Block::ZERO; rows * width], slots: [slot(0), slot(1)], since: vec![] }
    }

    pub fn rows(&self) -> usize {
        self.weights.len() / self.width
    }

    /// Weights and slots of some rows.
    #[inline(always)]
    pub fn rows_mut(&mut self, rows: Range<usize>) -> (&mut [Block], [&mut [Block]; MAX_SLOTS]) {
        let range = rows.start * self.width..rows.end * self.width;
        let slots = self.slots.each_mut().map(|slot| match slot.len() {
            0 => &mut [][..],
            _ => &mut slot[range.clone()],
        });
        (&mut self.weights[range], slots)
    }

    /// Updates some rows by their gradient.
    #[inline(always)]
    pub fn update<S: Simd>(&mut self, s: S, rule: &impl BlockUpdate, rows: Range<usize>, gradient: &[Block]) {
        let (weights, slots) = self.rows_mut(rows);
        rule.apply(s, weights, slots, gradient);
    }

    /// The number in `row` and `column` of the weights (array 0), or of the optimizer's first or second slot.
    fn at(&mut self, array: usize, row: usize, column: usize) -> &mut f32 {
        let blocks = match array {
            0 => &mut self.weights,
            slot => &mut self.slots[slot - 1],
        };
        &mut blocks[row * self.width + column / LANES].0[column % LANES]
    }
}

impl SplitLayer {
    /// Layer `layer` with `rows` rows (inputs, and one of biases), in slabs of `width` blocks, for `images` images at a time.
    fn new(layer: &Layer, rows: usize, width: usize, recipe: &Recipe, images: usize) -> Self {
        let blocks = layer.outputs.div_ceil(LANES);
        let places: Vec<_> = (0..blocks).step_by(width).map(|begin| (begin, width.min(blocks - begin))).collect();
        let slab = |&(_, width): &(usize, usize)| Slab::new(rows, width, &recipe.optimizer.slots());
        let panel = |&(_, width): &(usize, usize)| vec![Block::ZERO; images * width];
        Self {
            rows,
            outputs: layer.outputs,
            slabs: Shared::new(places.iter().map(slab).collect()),
            activations: Shared::new(places.iter().map(panel).collect()),
            gradients: Shared::new(places.iter().map(panel).collect()),
            places,
        }
    }

    /// The rows of `images` of each slab's matrix, which `matrix` gives.
    #[inline(always)]
    pub fn panels<'a>(
        &'a self,
        matrix: impl Fn(usize) -> &'a Vec<Block> + Clone,
        images: &Range<usize>,
    ) -> impl Iterator<Item = Panel<'a>> + Clone {
        let images = images.clone();
        self.places
            .iter()
            .enumerate()
            .map(move |(q, &(_, width))| Panel { blocks: &matrix(q)[images.start * width..images.end * width], width })
    }

    /// The slab that holds a block of columns, and which of the slab's it is.
    pub fn slab_of(&self, block: usize) -> (usize, usize) {
        let (_, width) = self.places[0];
        (block / width, block % width)
    }

    /// The slabs of thread `rank` of `threads`.
    pub fn own(&self, rank: usize, threads: usize) -> Range<usize> {
        let n = self.places.len();
        rank * n / threads..(rank + 1) * n / threads
    }
}

/// The least columns that a thread gets of a layer of `outputs`, in blocks: few where there are few.
fn grain(outputs: usize) -> usize {
    match outputs {
        ..=256 => 1,
        257..=512 => 2,
        _ => WIDEST,
    }
}

/// Where a parameter stands.
pub struct Place<'a> {
    slab: &'a mut Slab,
    row: usize,
    column: usize,
}

impl Place<'_> {
    /// The parameter (array 0), or what the optimizer remembers of it.
    pub fn value(&mut self, array: usize) -> &mut f32 {
        self.slab.at(array, self.row, self.column)
    }
}

impl Net {
    /// Memory for the network of `recipe`, all of it zero, laid out for `set`.
    pub fn new(recipe: Recipe, train: Arc<Images>, set: InstructionSet) -> Self {
        let layers = recipe.shape.layers();
        let inputs = recipe.shape.inputs();
        let hidden = layers.len() - 1;
        let split = &layers[..hidden.max(1)];
        // More threads than slabs would have nothing to do.
        let useful = split.iter().map(|layer| layer.outputs.div_ceil(LANES * grain(layer.outputs))).max().unwrap_or(1);
        let threads = recipe.threads.clamp(1, useful);
        let images = recipe.batch_size.min(train.len());

        let mut rows = inputs;
        let mut split: Vec<SplitLayer> = (split.iter())
            .enumerate()
            .map(|(l, layer)| {
                let grain = grain(layer.outputs);
                let widest = layer.outputs.div_ceil(LANES).div_ceil(threads).next_multiple_of(grain).min(WIDEST);
                let width = if l == 0 { widest } else { hidden_layer::tile_width(set.registers()) };
                let split = SplitLayer::new(layer, rows + 1, width, &recipe, images);
                rows = layer.outputs.next_multiple_of(LANES);
                split
            })
            .collect();
        split[0].slabs.all().for_each(|slab| slab.since = vec![0; inputs]);
        let last = &split[split.len() - 1];
        let slots = recipe.optimizer.slots();
        let output_rows = if hidden > 0 { &last.places[..] } else { &[] };
        let outputs = Shared::new(output_rows.iter().map(|(_, width)| Slab::new(width * LANES, 1, &slots)).collect());
        let grain = if hidden > 1 { hidden_layer::tile_width(set.registers()) } else { grain(last.outputs) };
        let parts = if hidden > 0 { last.outputs.div_ceil(LANES * grain) } else { 0 };
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            lit: LitPixels::new(&train.pixels, inputs, threads),
            layers: split,
            outputs,
            parts: Shared::new(vec![vec![Block::ZERO; images]; 2 * parts]),
            grain,
            barrier: Barrier::new(threads, processors),
            train,
            recipe,
        }
    }

    /// Replaces the training images by `train`, of the same number and size.
    pub fn set_images(&mut self, train: Arc<Images>) {
        debug_assert_eq!(train.len(), self.train.len());
        self.lit = LitPixels::new(&train.pixels, self.inputs(), self.barrier.threads());
        self.train = train;
    }

    /// D.
    pub fn inputs(&self) -> usize {
        self.recipe.shape.inputs()
    }

    /// How many hidden layers there are.
    pub fn hidden(&self) -> usize {
        self.recipe.shape.widths().len() - 2
    }

    /// The most images that a step can have.
    pub fn batch(&self) -> usize {
        self.recipe.batch_size.min(self.train.len())
    }

    /// Room, in blocks, for the largest gradient that thread `rank` of `threads` keeps: of a slab of a layer after the first
    /// or, for batches in several parts, all its slabs of a layer; or a slab's rows of the output layer.
    pub fn largest_gradient(&self, rank: usize, threads: usize) -> usize {
        let own = |layer: &SplitLayer| layer.own(rank, threads).map(|q| layer.places[q].1).sum::<usize>();
        let first = if self.batch() > GROUP { self.inputs() * own(&self.layers[0]) } else { 0 };
        let several = self.batch() > hidden_layer::IMAGES_AT_A_TIME;
        let other = |layer: &SplitLayer| layer.rows * if several { own(layer) } else { WIDEST };
        let others = self.layers[1..].iter().map(other).max().unwrap_or(0);
        first.max(others).max(WIDEST * LANES)
    }

    /// Calls `visit` with each parameter's index in the flat block and its place here.
    pub fn each_parameter<'a>(
        &'a mut self,
        biases: impl Iterator<Item = &'a mut Slab>,
        mut visit: impl FnMut(usize, Place),
    ) {
        let layers = self.recipe.shape.layers();
        let hidden = layers.len() - 1;
        for (layer, split) in layers.iter().zip(&mut self.layers) {
            let places = split.places.clone();
            for (slab, (begin, width)) in split.slabs.all().zip(places) {
                let bias_row = slab.rows() - 1;
                for column in begin * LANES..((begin + width) * LANES).min(layer.outputs) {
                    for row in 0..layer.inputs {
                        let index = layer.weights.start + row * layer.outputs + column;
                        visit(index, Place { slab, row, column: column - begin * LANES });
                    }
                    visit(layer.biases.start + column, Place { slab, row: bias_row, column: column - begin * LANES });
                }
            }
        }
        if hidden == 0 {
            return;
        }
        let layer = &layers[hidden];
        let places = self.layers[hidden - 1].places.clone();
        for (slab, (begin, width)) in self.outputs.all().zip(places) {
            for row in begin * LANES..((begin + width) * LANES).min(layer.inputs) {
                for column in 0..layer.outputs {
                    let index = layer.weights.start + row * layer.outputs + column;
                    visit(index, Place { slab, row: row - begin * LANES, column });
                }
            }
        }
        for slab in biases {
            for column in 0..layer.outputs {
                visit(layer.biases.start + column, Place { slab, row: 0, column });
            }
        }
    }
}
