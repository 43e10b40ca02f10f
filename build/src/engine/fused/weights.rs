//! The network's weights, cut into slabs of columns, with the optimizer's slots.

use std::ops::Range;

use super::shared::Shared;
use crate::error::Result;
use crate::interrupt;
use crate::model::MlpShape;
use crate::optim::vectors::{BlockUpdate, StepRule};
use crate::optim::{MAX_SLOTS, OptimizerSettings};
use crate::simd::tile::DEPTH;
use crate::simd::{Block, LANES, Precision, Simd, add};

/// The widest slab in blocks: 64 columns, whose sums stay in registers.
pub const WIDEST: usize = 4;

/// The most slabs that are worked on together.
pub const TOGETHER: usize = 2;

/// Some columns of a layer, with the optimizer's slots for them.
#[derive(Debug, Clone)]
pub struct Slab {
    /// Columns in blocks.
    pub width: usize,
    /// Row by row. In a [`SplitLayer`] the last row holds the biases.
    pub weights: Box<[Block]>,
    /// As many each, where the optimizer has them.
    slots: [Box<[Block]>; MAX_SLOTS],
    /// Of the first layer in training: the step of the lazy update's period up to which each row is up to date.
    pub up_to: Vec<u8>,
}

impl Slab {
    fn new(rows: usize, width: usize, optimizer: Option<&OptimizerSettings>) -> Self {
        let blocks = rows * width;
        let mut slots: [Box<[Block]>; MAX_SLOTS] = Default::default();
        for (slot, memory) in optimizer.map(OptimizerSettings::slots).iter().flatten().zip(&mut slots) {
            *memory = vec![Block([slot.initial; LANES]); blocks].into();
        }
        Self { width, weights: vec![Block::ZERO; blocks].into(), slots, up_to: vec![] }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.weights.len() / self.width
    }

    /// Weights and slots of some rows.
    #[inline(always)]
    pub fn rows_mut(&mut self, rows: Range<usize>) -> (&mut [Block], [&mut [Block]; MAX_SLOTS]) {
        let range = rows.start * self.width..rows.end * self.width;
        let [first, second] = &mut self.slots;
        let slots = [slot_rows(first, &range), slot_rows(second, &range)];
        (&mut self.weights[range], slots)
    }

    /// Updates some rows by their gradient.
    #[inline(always)]
    pub fn update<S: Simd>(&mut self, s: S, rule: &impl BlockUpdate, rows: Range<usize>, gradient: &[Block]) {
        let (weights, slots) = self.rows_mut(rows);
        rule.apply(s, weights, slots, gradient);
    }

    /// Adds to the `gradient` of the biases that of some images, the sum of their rows of d (B,W). The last images have the
    /// `rule` of the update.
    #[inline(always)]
    pub fn update_biases<S: Simd>(&mut self, s: S, d: &[Block], rule: Option<&StepRule>, gradient: &mut [Block]) {
        for d in d.chunks_exact(self.width) {
            add(s, gradient, d);
        }
        if let Some(rule) = rule {
            let rows = self.rows();
            self.update(s, rule, rows - 1..rows, gradient);
        }
    }

    /// Updates row `row` of a slab of `W` blocks by its gradient, which stays in registers since `W` is a constant.
    #[inline(always)]
    pub fn update_row<S: Simd, const W: usize>(
        &mut self,
        s: S,
        rule: &impl BlockUpdate,
        row: usize,
        gradient: &[Block; W],
    ) {
        let [first, second] = &mut self.slots;
        let slots = [slot_row::<W>(first, row), slot_row::<W>(second, row)];
        rule.apply(s, &mut self.weights.as_chunks_mut::<W>().0[row], slots, gradient);
    }
}

/// The `W` blocks of row `row` of a slot; none if the optimizer does not have the slot.
#[inline(always)]
fn slot_row<const W: usize>(slot: &mut [Block], row: usize) -> &mut [Block] {
    slot.as_chunks_mut::<W>().0.get_mut(row).map_or(&mut [], |row| row)
}

/// The blocks of a slot in `range`; none if the optimizer does not have the slot.
#[inline(always)]
fn slot_rows<'a>(slot: &'a mut [Block], range: &Range<usize>) -> &'a mut [Block] {
    if slot.is_empty() { slot } else { &mut slot[range.start..range.end] }
}

/// Where some neighbouring parameters lie in a slab, at most a block.
pub struct ParameterPlace<'a> {
    slab: &'a mut Slab,
    block: usize,
    count: usize,
}

impl ParameterPlace<'_> {
    /// The parameters.
    pub fn weights(&mut self) -> &mut [f32] {
        &mut self.slab.weights[self.block].0[..self.count]
    }

    /// The optimizer's slot number `slot` for them.
    pub fn slot(&mut self, slot: usize) -> &mut [f32] {
        &mut self.slab.slots[slot][self.block].0[..self.count]
    }
}

/// Which columns of its layer a slab holds, in blocks.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// The first.
    pub begin: usize,
    /// How many.
    pub width: usize,
}

impl Columns {
    /// Their numbers in a layer of `outputs` columns, single ones.
    fn numbers(self, outputs: usize) -> Range<usize> {
        self.begin * LANES..((self.begin + self.width) * LANES).min(outputs)
    }
}

/// How the columns of a layer are split.
#[derive(Debug)]
pub struct LayerLayout {
    /// I, padded to whole blocks but for the first layer, and one for the biases.
    pub rows: usize,
    /// O.
    pub outputs: usize,
    /// The columns of each slab.
    pub slabs: Vec<Columns>,
}

impl LayerLayout {
    /// In slabs of `width` blocks.
    fn new(rows: usize, outputs: usize, width: usize) -> Self {
        let blocks = outputs.div_ceil(LANES);
        let slabs = (0..blocks).step_by(width).map(|begin| Columns { begin, width: width.min(blocks - begin) });
        Self { rows, outputs, slabs: slabs.collect() }
    }

    /// The slabs that thread `rank` of `threads` owns.
    pub fn own(&self, rank: usize, threads: usize) -> Range<usize> {
        let n = self.slabs.len();
        rank * n / threads..(rank + 1) * n / threads
    }

    /// The slabs `own`, two neighbours together where both are as wide as can be and the registers hold the sums of both.
    #[inline(always)]
    pub fn together<S: Simd>(&self, own: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<'_, S> {
        let is_wide = |q: usize| S::MANY_REGISTERS && self.slabs[q].width == WIDEST;
        let Range { mut start, end } = own;
        std::iter::from_fn(move || {
            let count = if start + 1 < end && is_wide(start) && is_wide(start + 1) { TOGETHER } else { 1 };
            let slabs = start..start + count;
            start += count;
            (slabs.end <= end).then_some(slabs)
        })
    }

    /// How many blocks of columns the slabs `slabs` have.
    pub fn width(&self, slabs: Range<usize>) -> usize {
        self.slabs[slabs].iter().map(|columns| columns.width).sum()
    }
}

/// Calls a function that is generic over the blocks of columns in a slab and the number of slabs, see
/// [`LayerLayout::together`].
macro_rules! for_slabs {
    ($layout:expr, $slabs:expr, $function:ident::<$S:ident>($($argument:expr),*)) => {
        match ($layout.slabs[$slabs.start].width, $slabs.len()) {
            (WIDEST, TOGETHER) => $function::<$S, WIDEST, TOGETHER>($($argument),*),
            (1, _) => $function::<$S, 1, 1>($($argument),*),
            (2, _) => $function::<$S, 2, 1>($($argument),*),
            (3, _) => $function::<$S, 3, 1>($($argument),*),
            (_, _) => $function::<$S, WIDEST, 1>($($argument),*),
        }
    };
}
pub(super) use for_slabs;

/// A layer whose columns are split over the threads.
#[derive(Debug)]
pub struct SplitLayer {
    /// How.
    pub layout: LayerLayout,
    /// Its weights and biases.
    pub slabs: Shared<Slab>,
}

/// Smallest share of a layer's columns that one thread gets, in blocks. Narrow layers use smaller shares.
pub fn grain(outputs: usize) -> usize {
    match outputs {
        ..=256 => 1,
        257..=512 => 2,
        _ => WIDEST,
    }
}

/// The width of a slab of a dense layer for products of bf16 numbers, in blocks: what a tile sums over.
const TILED_WIDTH: usize = DEPTH / LANES;

/// All weights of a network, and in training the optimizer's slots for them.
#[derive(Debug)]
pub struct Weights {
    shape: MlpShape,
    threads: usize,
    /// Every hidden layer, or the output layer where there is none.
    pub layers: Vec<SplitLayer>,
    /// The rows of the output layer for each slab of the last hidden layer; none without hidden layers.
    pub outputs: Shared<Slab>,
    /// The output layer's biases: each thread has and updates a copy.
    pub output_biases: Shared<Slab>,
    /// Columns of the last hidden layer, in blocks, whose products are summed before those of others.
    pub grain: usize,
    /// What the products of training are made of.
    pub precision: Precision,
}

impl Weights {
    /// Weights of zero for a network of `shape`, laid out for at most `threads` threads.
    ///
    /// With an `optimizer` they can be trained, with products of that precision; without one there is no memory for that.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn new(shape: &MlpShape, training: Option<(&OptimizerSettings, Precision)>, threads: usize) -> Result<Self> {
        let (optimizer, precision) =
            (training.map(|(optimizer, _)| optimizer), training.map(|(_, precision)| precision));
        let precision = precision.unwrap_or(Precision::Float32);
        // Pairs of blocks are the same with any number of threads.
        let least_width = match precision {
            Precision::Float32 => 1,
            Precision::Bf16 => TILED_WIDTH,
        };
        let all = shape.layers();
        let hidden = all.len() - 1;
        let split = &all[..hidden.max(1)];
        // More threads than shares would have nothing to do.
        let shares = split.iter().map(|layer| layer.outputs.div_ceil(LANES * grain(layer.outputs)));
        let threads = threads.clamp(1, shares.max().unwrap_or(1));
        let mut rows = shape.inputs();
        let mut layers = vec![];
        for (l, layer) in split.iter().enumerate() {
            interrupt::check()?;
            let per_thread = layer.outputs.div_ceil(LANES).div_ceil(threads);
            let width = match precision {
                Precision::Bf16 if l > 0 => TILED_WIDTH,
                _ => per_thread.next_multiple_of(grain(layer.outputs).max(least_width)).min(WIDEST),
            };
            let layout = LayerLayout::new(rows + 1, layer.outputs, width);
            let slab = |columns: &Columns| Slab::new(layout.rows, columns.width, optimizer);
            let slabs = Shared::new(layout.slabs.iter().map(slab).collect());
            layers.push(SplitLayer { layout, slabs });
            rows = layer.outputs.next_multiple_of(LANES);
        }
        if optimizer.is_some() {
            layers[0].slabs.iter_mut().for_each(|slab| slab.up_to = vec![0; shape.inputs()]);
        }
        let last = &layers[layers.len() - 1].layout;
        let output_rows = if hidden > 0 { &last.slabs[..] } else { &[] };
        let outputs = output_rows.iter().map(|columns| Slab::new(columns.width * LANES, 1, optimizer));
        Ok(Self {
            shape: shape.clone(),
            threads,
            outputs: Shared::new(outputs.collect()),
            output_biases: Shared::new(vec![Slab::new(1, 1, optimizer); threads]),
            grain: match precision {
                Precision::Bf16 if hidden > 1 => TILED_WIDTH,
                _ => grain(last.outputs),
            },
            precision,
            layers,
        })
    }

    /// The network's shape.
    pub fn shape(&self) -> &MlpShape {
        &self.shape
    }

    /// How many threads have columns to work on.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Goes on with fewer threads. The slabs stay as they are; each thread owns more of them.
    pub fn reduce_threads(&mut self, threads: usize) {
        self.threads = threads;
        self.output_biases.truncate(threads);
    }

    /// How many hidden layers there are.
    pub fn hidden(&self) -> usize {
        self.shape.widths().len() - 2
    }

    /// Calls `visit` with the indices of all parameters in the flat block, some neighbours at a time, and their place here; no
    /// more after a signal.
    pub fn each_parameter(&mut self, mut visit: impl FnMut(Range<usize>, ParameterPlace)) {
        let layers = self.shape.layers();
        for (layer, split) in layers.iter().zip(&mut self.layers) {
            for (slab, &columns) in split.slabs.iter_mut().zip(&split.layout.slabs) {
                if interrupt::is_received() {
                    return;
                }
                let (outputs, bias_row) = (columns.numbers(layer.outputs), slab.rows() - 1);
                let of_row = |start: usize| start + outputs.start..start + outputs.end;
                // Row by row, as both lie in memory.
                for row in 0..layer.inputs {
                    visit_row(slab, row, of_row(layer.weights.start + row * layer.outputs), &mut visit);
                }
                visit_row(slab, bias_row, of_row(layer.biases.start), &mut visit);
            }
        }
        let Some(layer) = layers.get(self.layers.len()) else { return };
        let last = &self.layers[self.layers.len() - 1].layout;
        for (slab, columns) in self.outputs.iter_mut().zip(&last.slabs) {
            for (row, input) in columns.numbers(layer.inputs).enumerate() {
                let start = layer.weights.start + input * layer.outputs;
                visit_row(slab, row, start..start + layer.outputs, &mut visit);
            }
        }
        for slab in self.output_biases.iter_mut() {
            visit_row(slab, 0, layer.biases.clone(), &mut visit);
        }
    }
}

/// Calls `visit` for the `parameters` in row `row` of a slab, block by block.
fn visit_row(
    slab: &mut Slab,
    row: usize,
    parameters: Range<usize>,
    visit: &mut impl FnMut(Range<usize>, ParameterPlace),
) {
    for (n, begin) in parameters.clone().step_by(LANES).enumerate() {
        let end = parameters.end.min(begin + LANES);
        let block = row * slab.width + n;
        visit(begin..end, ParameterPlace { slab, block, count: end - begin });
    }
}
