//! What kernels know of a network when they are compiled, and where everything stands in the device's buffers.
//!
//! The plan of an epoch has a record for each step: a few words, at the places below.

use crate::engine::Recipe;
use crate::engine::dropout::DropoutMask;
use crate::error::{Error, Result};
use crate::model::Layer;
use crate::optim::{OptimizerKernel, OptimizerSettings};

/// Units along each side of a square cube.
pub const SIDE: usize = 16;
/// Units of a cube.
pub const UNITS: usize = SIDE * SIDE;
/// How many numbers an image's logits take in shared memory, one for each unit along a side: the largest K.
pub const LOGITS: usize = SIDE;

/// Where the batch begins in the order.
pub const BEGIN: usize = 0;
/// How many images it has.
pub const LENGTH: usize = 1;
/// From here on, the bits of the three numbers of [`crate::optim::GpuRates`].
pub const RATES: usize = 2;
/// Dropout drops the units whose hash is below.
pub const THRESHOLD: usize = 5;
/// From here on, the dropout mask's two keys for each hidden layer.
pub const MASK_KEYS: usize = 6;

/// How many numbers of an operand of a product a unit fetches at a time: the pixels of a word.
pub const FETCHED: usize = 4;
/// How many numbers a unit reads before it works on them, so that their ways from memory overlap.
pub const TOGETHER: usize = 8;

/// Up to so many images in a batch, one unit sums them up in no time.
const SMALL_BATCH: usize = 64;
/// Where a layer's gradient has fewer tiles, cubes share out the images too, until there are about so many cubes.
const SHARED_OUT: usize = 400;
/// How many stretches of images a share has, at least.
const STRETCHES: usize = 8;

/// A layer, for kernels that work on one layer at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerPlan {
    /// I and O.
    pub inputs: usize,
    pub outputs: usize,
    /// Where the weights (I,O) begin in the state; the biases (O) follow them.
    pub weights: usize,
    /// Its place among the layers. The first layer's inputs are pixels.
    pub index: usize,
    /// Where the layer's inputs begin in the scratch memory, except for the first layer.
    pub activations_in: usize,
    /// Where its outputs begin, if it is hidden.
    pub activations_out: usize,
    /// Where the loss's gradients by the layer's inputs (before ReLU and dropout) begin, except for the first layer.
    pub deltas_in: usize,
    /// The same by its outputs.
    pub deltas_out: usize,
    /// Words of a record.
    pub record: usize,
    /// How cubes share out a product.
    pub tile: TilePlan,
    /// In how many shares cubes make the gradient of the layer, each of some of the batch's images.
    pub shares: usize,
    /// Where the shares begin in the scratch memory, if there are several.
    pub gradients: usize,
    /// The bits of the label smoothing.
    pub smoothing: u32,
}

/// The square of a product's result that one cube makes. Each unit makes R x R numbers of it.
///
/// A large product has tiles of 64 x 64 or 32 x 32. In a small one of 8 x 8, four units share out the inner dimension of each
/// number, since nothing else would keep a large GPU busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TilePlan {
    /// R.
    pub edge: usize,
    /// In how many parts units share out the inner dimension.
    pub parts: usize,
}

/// In which order units fetch an operand of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Along {
    /// Neighbouring units take neighbours along the inner dimension.
    Inner,
    /// Along the outer dimension.
    Outer,
    /// A unit takes the pixels of a word, which lie along the inner dimension.
    InnerWord,
    /// The same, along the outer dimension.
    OuterWord,
}

/// The targets of the loss: `(1 - s) onehot(label) + s / K`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Targets {
    /// K.
    pub classes: usize,
    /// The bits of s, the label smoothing.
    pub smoothing: u32,
}

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpdatePlan {
    /// Which one, with its settings.
    pub optimizer: OptimizerKernel,
    /// Whether weights decay.
    pub decay: bool,
    /// How many numbers it keeps of each parameter.
    pub slots: usize,
    /// P: from a parameter to its slot in the state, and from slot to slot.
    pub parameters: usize,
}

impl TilePlan {
    /// The largest tiles first, each with the number of cubes that keeps a large GPU busy.
    const ALL: [(Self, usize); 4] = [
        (Self { edge: 4, parts: 1 }, 256),
        (Self { edge: 2, parts: 1 }, 96),
        (Self { edge: 1, parts: 1 }, 256),
        (Self { edge: 1, parts: 4 }, 0),
    ];

    /// The largest tiles of a result (`rows`, `columns`) that keep the GPU busy, and in how many shares of the inner dimension
    /// cubes make each of them: at most as many as `most` returns for such tiles.
    fn of(rows: usize, columns: usize, most: impl Fn(Self) -> usize) -> (Self, usize) {
        let shares = |tile: Self| SHARED_OUT.div_ceil(tile.count(rows, columns)).min(most(tile)).max(1);
        let tile = |tile: Self| (tile, shares(tile));
        let busy = |&(tile, least): &(Self, usize)| tile.count(rows, columns) * shares(tile) >= least;
        tile(Self::ALL.iter().find(|all| busy(all)).unwrap_or(&Self::ALL[3]).0)
    }

    /// How many tiles a result (`rows`, `columns`) has.
    fn count(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.side()) * columns.div_ceil(self.side())
    }

    /// Units along a side of the tile.
    pub fn across(self) -> usize {
        if self.parts > 1 { SIDE / 2 } else { SIDE }
    }

    /// Rows and columns of the tile.
    pub fn side(self) -> usize {
        self.across() * self.edge
    }

    /// Length of a stretch of the inner dimension.
    pub fn depth(self) -> usize {
        FETCHED * UNITS / self.side()
    }
}

impl LayerPlan {
    /// How many parameters the layer has: weights (I,O), then biases (O).
    pub fn parameters(&self) -> usize {
        (self.inputs + 1) * self.outputs
    }

    /// The targets of the loss, if it is the last layer.
    pub fn targets(&self) -> Targets {
        Targets { classes: self.outputs, smoothing: self.smoothing }
    }
}

impl UpdatePlan {
    /// The plan for `parameters` (P) parameters.
    pub fn new(settings: &OptimizerSettings, parameters: usize) -> Self {
        Self {
            optimizer: settings.kernel(),
            decay: settings.weight_decay > 0.0,
            slots: settings.slots().len(),
            parameters,
        }
    }
}

/// The network and how its steps are done.
pub struct NetworkPlan {
    pub layers: Vec<LayerPlan>,
    pub update: UpdatePlan,
    /// Whether the last layer is updated in the launch of the hidden layer before it, by one unit for each parameter.
    pub last_together: bool,
    /// The largest batch that the scratch memory has space for.
    pub rows: usize,
    /// How many numbers the scratch memory has.
    pub scratch: usize,
}

impl NetworkPlan {
    /// The plan for batches of at most `rows` images.
    pub fn new(recipe: &Recipe, rows: usize) -> Self {
        let (layers, scratch) = plan_layers(recipe, rows);
        let update = UpdatePlan::new(&recipe.optimizer, recipe.shape.parameter_count());
        let last_together = recipe.batch_size <= SMALL_BATCH && last_fits(&layers);
        Self { layers, update, last_together, rows, scratch }
    }

    /// The record of an evaluation of `length` images: nothing is dropped.
    pub fn evaluation(&self, length: usize) -> Vec<u32> {
        let mut record = vec![0; self.layers[0].record];
        record[LENGTH] = length as u32;
        record
    }
}

/// Whether the cubes of the last hidden layer's update have a unit for each parameter of the last layer.
fn last_fits(layers: &[LayerPlan]) -> bool {
    let [.., hidden, last] = layers else { return false };
    let units = UNITS * hidden.tile.count(hidden.inputs + 1, hidden.outputs);
    hidden.shares == 1 && last.parameters() <= units
}

/// Whether the kernels can train `recipe`.
///
/// # Errors
/// They cannot, with the reason.
pub fn supports(recipe: &Recipe) -> Result<()> {
    let classes = recipe.shape.classes();
    if classes > LOGITS {
        let reason = format!("expected at most {LOGITS} classes, found {classes}");
        return Err(Error::Unsupported { engine: "fused", reason });
    }
    Ok(())
}

/// The records of the steps from number `first_step` on, whose batches lie in `images` images one after the other.
pub fn records(recipe: &Recipe, first_step: u64, images: usize) -> Vec<u32> {
    let hidden_layers = recipe.shape.layers().len() - 1;
    let mut plan = Vec::new();
    for (step, begin) in (first_step..).zip((0..images).step_by(recipe.batch_size)) {
        let mask = |layer| DropoutMask::new(recipe.seed, step, layer, recipe.dropout);
        plan.extend([begin, recipe.batch_size.min(images - begin)].map(|number| number as u32));
        plan.extend(recipe.optimizer.kernel_rates(step + 1).map(f32::to_bits));
        plan.push(mask(0).threshold);
        plan.extend((0..hidden_layers).flat_map(|layer| mask(layer).key));
    }
    plan
}

/// The layers with their places in the scratch memory for `rows` images, and how many numbers that takes.
fn plan_layers(recipe: &Recipe, rows: usize) -> (Vec<LayerPlan>, usize) {
    let layers = recipe.shape.layers();
    let last = layers.len() - 1;
    let mut end = 0;
    let mut place = |layer: &Layer| {
        end += rows * layer.outputs;
        end - rows * layer.outputs
    };
    let activations: Vec<usize> = layers[..last].iter().map(&mut place).collect();
    let deltas: Vec<usize> = layers.iter().map(&mut place).collect();
    let batch = recipe.batch_size.min(rows);
    let gradient =
        |layer: &Layer| TilePlan::of(layer.inputs + 1, layer.outputs, |tile| batch / (STRETCHES * tile.depth()));
    let before = |l: usize, places: &[usize]| l.checked_sub(1).map_or(0, |before| places[before]);
    let plan = |(l, layer): (usize, &Layer)| {
        let (tile, shares) = gradient(layer);
        LayerPlan {
            inputs: layer.inputs,
            outputs: layer.outputs,
            weights: layer.weights.start,
            index: l,
            activations_in: before(l, &activations),
            activations_out: activations.get(l).copied().unwrap_or_default(),
            deltas_in: before(l, &deltas),
            deltas_out: deltas[l],
            record: MASK_KEYS + 2 * last,
            tile,
            shares,
            gradients: end,
            smoothing: (recipe.label_smoothing as f32).to_bits(),
        }
    };
    let plans: Vec<LayerPlan> = layers.iter().enumerate().map(plan).collect();
    let gradients = |layer: &LayerPlan| if layer.shares > 1 { layer.shares * layer.parameters() } else { 0 };
    // The layers' shares take turns at one place.
    let most = plans.iter().map(gradients).max().unwrap_or_default();
    (plans, end + most)
}

/// `layer` with the tiles of a product with a result (`rows`, `columns`), which every cube makes as a whole.
pub fn whole_tiles(layer: &LayerPlan, rows: usize, columns: usize) -> LayerPlan {
    let (tile, shares) = TilePlan::of(rows, columns, |_| 1);
    LayerPlan { tile, shares, ..*layer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MlpShape;

    fn recipe(hidden: &[usize], classes: usize) -> Recipe {
        let (shape, optimizer) = (MlpShape::new(784, hidden, classes), OptimizerSettings::sgd(0.25));
        Recipe {
            shape,
            optimizer,
            batch_size: 32,
            dropout: 0.2,
            label_smoothing: 0.0,
            ensemble: 1,
            seed: 1,
            threads: 1,
        }
    }

    #[test]
    fn few_tiles_are_small_or_shared_out() {
        let plan =
            |batch: usize| NetworkPlan::new(&Recipe { batch_size: batch, ..recipe(&[128], 10) }, batch).layers[0];
        let forward = |batch: usize| whole_tiles(&plan(batch), batch, 128).tile;
        assert_eq!([32, 512, 1024, 8192].map(|batch| forward(batch).side()), [8, 16, 32, 64]);
        let shares = [32, 1024, 4096].map(|batch| (plan(batch).tile.side(), plan(batch).shares));
        assert_eq!(shares, [(32, 1), (32, 4), (64, 16)]);
        for (tile, _) in TilePlan::ALL {
            assert_eq!(tile.side() * tile.depth(), FETCHED * UNITS);
        }
    }

    #[test]
    fn layers_share_no_scratch_memory() {
        let plan = NetworkPlan::new(&recipe(&[50, 40], 10), 3);
        let mut parts: Vec<[usize; 2]> =
            plan.layers.iter().map(|layer| [layer.deltas_out, 3 * layer.outputs]).collect();
        parts.extend(plan.layers[..2].iter().map(|layer| [layer.activations_out, 3 * layer.outputs]));
        parts.sort();
        assert!(parts.windows(2).all(|pair| pair[0][0] + pair[0][1] == pair[1][0]), "{parts:?}");
        assert_eq!(parts[4][0] + parts[4][1], plan.scratch);
        for pair in plan.layers.windows(2) {
            assert_eq!((pair[0].activations_out, pair[0].deltas_out), (pair[1].activations_in, pair[1].deltas_in));
        }
    }

    #[test]
    fn the_record_of_the_last_step_has_the_short_batch() {
        let records = records(&recipe(&[128], 10), 5, 70);
        let size = MASK_KEYS + 2;
        assert_eq!(records.len(), 3 * size);
        let batches: Vec<&[u32]> = records.chunks(size).map(|record| &record[BEGIN..=LENGTH]).collect();
        assert_eq!(batches, [[0, 32], [32, 32], [64, 6]]);
        assert_eq!(records[RATES..THRESHOLD], [1.0f32, 0.25, 0.0].map(f32::to_bits));
        let mask = DropoutMask::new(1, 7, 0, 0.2);
        assert_eq!(records[2 * size + THRESHOLD..], [&[mask.threshold][..], &mask.key].concat());
    }
}
