//! What kernels know of a network when they are compiled, and where everything stands in the device's buffers.
//!
//! The plan of an epoch has a record for each step: a few words, at the places below.

use std::ops::Range;

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

/// Where the batch, or this GPU's share of it, begins in the order.
pub const BEGIN: usize = 0;
/// How many images that has.
pub const LENGTH: usize = 1;
/// The place of its first image in the whole batch.
pub const FIRST: usize = 2;
/// How many images the whole batch has.
pub const WHOLE: usize = 3;
/// From here on, the bits of the three numbers of [`crate::optim::GpuRates`].
pub const RATES: usize = 4;
/// Dropout drops the units whose hash is below.
pub const THRESHOLD: usize = 7;
/// From here on, the dropout mask's two keys for each hidden layer, network by network.
pub const MASK_KEYS: usize = 8;

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

/// The networks of an ensemble that the same launches train, each with cubes of its own. They read the same images. In each
/// buffer that kernels change, they stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MembersPlan {
    /// How many there are.
    pub count: usize,
    /// P: from a network's parameters to the next one's.
    pub parameters: usize,
    /// From a network's place in the scratch memory to the next one's.
    pub scratch: usize,
    /// From a network's dropout keys in a record to the next one's.
    pub keys: usize,
    /// Words of a record.
    pub record: usize,
}

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
    /// The networks that have such a layer.
    pub members: MembersPlan,
    /// How cubes share out a product.
    pub tile: TilePlan,
    /// In how many shares cubes make the gradient of the layer, each of some of the batch's images.
    pub shares: usize,
    /// Where the shares begin in the scratch memory, if there are several.
    pub gradients: usize,
    /// The bits of the label smoothing.
    pub smoothing: u32,
    /// The bits of the probability from which on an image has no gradient.
    pub skip_confident: u32,
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
    /// The bits of the label's probability from which on an image has no gradient; 0 if all have one.
    pub skip_confident: u32,
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
    /// The parameters of all networks: from a parameter to its slot in the state, and from slot to slot.
    pub parameters: usize,
    /// Where GPUs share out the batch: the place of the gradient (P) in the scratch memory. Otherwise nothing, and each number
    /// of it is used up where it is made.
    pub gradient: Option<usize>,
}

/// Which of the images of each batch a GPU takes: as many as the others, or one more, all in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShare {
    /// The GPU's number, from 0.
    pub number: usize,
    /// How many GPUs there are.
    pub gpus: usize,
}

impl BatchShare {
    /// The share's images in a batch of `length`. A batch with fewer images than GPUs leaves some without any.
    pub fn of(self, length: usize) -> Range<usize> {
        let begin = |number: usize| length * number / self.gpus;
        begin(self.number)..begin(self.number + 1)
    }
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

    /// How many planes of cubes update the layer of a network: one for each share, and one for the last layer `with` it.
    pub fn planes(&self, with: bool) -> usize {
        self.shares + usize::from(with)
    }

    /// The targets of the loss, if it is the last layer.
    pub fn targets(&self) -> Targets {
        Targets { classes: self.outputs, smoothing: self.smoothing, skip_confident: self.skip_confident }
    }
}

impl UpdatePlan {
    /// The plan for `parameters` (P) parameters, whose `gradient` is kept there, if it is.
    pub fn new(settings: &OptimizerSettings, parameters: usize, gradient: Option<usize>) -> Self {
        Self {
            optimizer: settings.kernel(),
            decay: settings.weight_decay > 0.0,
            slots: settings.slots().len(),
            parameters,
            gradient,
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
}

impl NetworkPlan {
    /// The plan for each of so many `gpus`, whose share of a batch has at most `rows` images. Several GPUs train one network.
    pub fn new(recipe: &Recipe, rows: usize, gpus: usize) -> Self {
        assert!(gpus == 1 || recipe.ensemble == 1, "expected one GPU or one network");
        let share = recipe.batch_size.div_ceil(gpus);
        let (mut layers, end) = plan_layers(recipe, rows, share);
        let gradient = (gpus > 1).then_some(end);
        let update = UpdatePlan::new(&recipe.optimizer, recipe.parameter_count(), gradient);
        let last_together = share <= SMALL_BATCH && last_fits(&layers);
        let scratch = end + gradient.map_or(0, |_| update.parameters);
        let members = MembersPlan { scratch, ..layers[0].members };
        layers.iter_mut().for_each(|layer| layer.members = members);
        Self { layers, update, last_together, rows }
    }

    /// The networks that have these layers.
    pub fn members(&self) -> MembersPlan {
        self.layers[0].members
    }

    /// How many numbers the scratch memory has.
    pub fn scratch(&self) -> usize {
        self.members().count * self.members().scratch
    }

    /// The record of an evaluation of `length` images: nothing is dropped.
    pub fn evaluation(&self, length: usize) -> Vec<u32> {
        let mut record = vec![0; self.members().record];
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

/// The records of the steps from number `first_step` on, whose batches lie in `images` images one after the other, for the GPU
/// that takes `share` of each.
pub fn records(recipe: &Recipe, first_step: u64, images: usize, share: BatchShare) -> Vec<u32> {
    let hidden_layers = recipe.shape.layers().len() - 1;
    let mut plan = Vec::new();
    let mut begin = 0;
    for (step, before) in (first_step..).zip((0..images).step_by(recipe.batch_size)) {
        let mask = |seed, layer| DropoutMask::new(seed, step, layer, recipe.dropout);
        let whole = recipe.batch_size.min(images - before);
        let own = share.of(whole);
        plan.extend([begin, own.len(), own.start, whole].map(|number| number as u32));
        begin += own.len();
        plan.extend(recipe.optimizer.kernel_rates(step + 1).map(f32::to_bits));
        plan.push(mask(recipe.seed, 0).threshold);
        for member in 0..recipe.ensemble {
            plan.extend((0..hidden_layers).flat_map(|layer| mask(recipe.member_seed(member), layer).key));
        }
    }
    plan
}

/// The layers with their places in a network's scratch memory for `rows` images, and how many numbers that takes. A `share` of
/// so many images, if that is less, makes a gradient.
fn plan_layers(recipe: &Recipe, rows: usize, share: usize) -> (Vec<LayerPlan>, usize) {
    let layers = recipe.shape.layers();
    let last = layers.len() - 1;
    let mut end = 0;
    let mut place = |layer: &Layer| {
        end += rows * layer.outputs;
        end - rows * layer.outputs
    };
    let activations: Vec<usize> = layers[..last].iter().map(&mut place).collect();
    let deltas: Vec<usize> = layers.iter().map(&mut place).collect();
    let batch = share.min(rows);
    let gradient =
        |layer: &Layer| TilePlan::of(layer.inputs + 1, layer.outputs, |tile| batch / (STRETCHES * tile.depth()));
    let keys = 2 * last;
    let members = MembersPlan {
        count: recipe.ensemble,
        parameters: recipe.shape.parameter_count(),
        scratch: 0,
        keys,
        record: MASK_KEYS + recipe.ensemble * keys,
    };
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
            members,
            tile,
            shares,
            gradients: end,
            smoothing: (recipe.label_smoothing as f32).to_bits(),
            skip_confident: (recipe.skip_confident as f32).to_bits(),
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
    use crate::simd::Precision;

    fn recipe(hidden: &[usize], classes: usize) -> Recipe {
        let (shape, optimizer) = (MlpShape::new(784, hidden, classes), OptimizerSettings::sgd(0.25));
        Recipe {
            shape,
            optimizer,
            batch_size: 32,
            dropout: 0.2,
            label_smoothing: 0.0,
            skip_confident: 0.0,
            precision: Precision::Float32,
            fewer_threads: false,
            ensemble: 1,
            seed: 1,
            threads: 1,
        }
    }

    #[test]
    fn few_tiles_are_small_or_shared_out() {
        let plan =
            |batch: usize| NetworkPlan::new(&Recipe { batch_size: batch, ..recipe(&[128], 10) }, batch, 1).layers[0];
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
        let plan = NetworkPlan::new(&recipe(&[50, 40], 10), 3, 1);
        let mut parts: Vec<[usize; 2]> =
            plan.layers.iter().map(|layer| [layer.deltas_out, 3 * layer.outputs]).collect();
        parts.extend(plan.layers[..2].iter().map(|layer| [layer.activations_out, 3 * layer.outputs]));
        parts.sort();
        assert!(parts.windows(2).all(|pair| pair[0][0] + pair[0][1] == pair[1][0]), "{parts:?}");
        assert_eq!((parts[4][0] + parts[4][1], plan.update.gradient), (plan.scratch(), None));
        let shared = NetworkPlan::new(&recipe(&[50, 40], 10), 3, 2);
        assert_eq!(shared.update.gradient, Some(plan.scratch()));
        assert_eq!(shared.scratch(), plan.scratch() + 785 * 50 + 51 * 40 + 41 * 10);
        for pair in plan.layers.windows(2) {
            assert_eq!((pair[0].activations_out, pair[0].deltas_out), (pair[1].activations_in, pair[1].deltas_in));
        }
    }

    #[test]
    fn the_record_of_the_last_step_has_the_short_batch() {
        let records = records(&recipe(&[128], 10), 5, 70, BatchShare { number: 0, gpus: 1 });
        let size = MASK_KEYS + 2;
        assert_eq!(records.len(), 3 * size);
        let batches: Vec<&[u32]> = records.chunks(size).map(|record| &record[BEGIN..=WHOLE]).collect();
        assert_eq!(batches, [[0, 32, 0, 32], [32, 32, 0, 32], [64, 6, 0, 6]]);
        assert_eq!(records[RATES..THRESHOLD], [1.0f32, 0.25, 0.0].map(f32::to_bits));
        let mask = DropoutMask::new(1, 7, 0, 0.2);
        assert_eq!(records[2 * size + THRESHOLD..], [&[mask.threshold][..], &mask.key].concat());
    }

    #[test]
    fn gpus_share_out_a_batch_in_its_order() {
        let shares = |length, gpus| (0..gpus).map(|number| BatchShare { number, gpus }.of(length)).collect::<Vec<_>>();
        assert_eq!(shares(32, 3), [0..10, 10..21, 21..32]);
        assert_eq!(shares(2, 4), [0..0, 0..1, 1..1, 1..2]);
        // 70 images: the second of four GPUs has its own in a row, of the last batch of 6 those from the second on.
        let records = records(&recipe(&[128], 10), 5, 70, BatchShare { number: 1, gpus: 4 });
        let batches: Vec<&[u32]> = records.chunks(MASK_KEYS + 2).map(|record| &record[BEGIN..=WHOLE]).collect();
        assert_eq!(batches, [[0, 8, 8, 32], [8, 8, 8, 32], [16, 2, 1, 6]]);
    }
}
