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
/// S: hidden units of a cube that does a whole step.
pub const STRIP: usize = 8;

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

/// Cubes that keep a large GPU busy. Where large tiles would make fewer, tiles are small.
const BUSY: usize = 256;
/// R of large tiles.
const LARGE: usize = 4;
/// Up to this width of the only hidden layer a step is one launch, in which each cube reads the logits of all others.
const NARROW: usize = 512;

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
    /// R: each unit makes R x R numbers of a product.
    pub edge: usize,
    /// The bits of the label smoothing.
    pub smoothing: u32,
}

/// A network whose only hidden layer is narrow, for the kernel that does a whole step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StripPlan {
    /// D, at most four for each unit of a cube.
    pub inputs: usize,
    /// H.
    pub hidden: usize,
    /// K.
    pub classes: usize,
    /// Where the weights of the first and of the last layer begin in the state.
    pub weights: [usize; 2],
    /// Where their biases begin.
    pub biases: [usize; 2],
    /// Words of a record.
    pub record: usize,
    /// The bits of the label smoothing.
    pub smoothing: u32,
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

impl LayerPlan {
    /// The targets of the loss, if it is the last layer.
    pub fn targets(&self) -> Targets {
        Targets { classes: self.outputs, smoothing: self.smoothing }
    }
}

impl StripPlan {
    /// The plan for a network of `layers`, if it can be done so.
    fn new(layers: &[LayerPlan]) -> Option<Self> {
        let [first, last] = layers else { return None };
        let narrow = first.outputs <= NARROW && first.inputs <= 4 * UNITS;
        narrow.then(|| Self {
            inputs: first.inputs,
            hidden: first.outputs,
            classes: last.outputs,
            weights: [first.weights, last.weights],
            biases: [first, last].map(|layer| layer.weights + layer.inputs * layer.outputs),
            record: first.record,
            smoothing: last.smoothing,
        })
    }

    /// The targets of the loss.
    pub fn targets(&self) -> Targets {
        Targets { classes: self.classes, smoothing: self.smoothing }
    }

    /// How many cubes.
    pub fn cubes(&self) -> usize {
        self.hidden.div_ceil(STRIP)
    }

    /// Numbers of scratch memory for batches of `rows` images (B): each cube's activations, (cubes, B, S), each cube's
    /// shares of the logits, twice (cubes, B, K), the last layer's biases, twice (K).
    fn scratch(&self, rows: usize) -> usize {
        self.cubes() * rows * (STRIP + 2 * self.classes) + 2 * self.classes
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
    /// How a step is done in one launch, where it can be.
    pub strip: Option<StripPlan>,
    pub update: UpdatePlan,
    /// The largest batch that the scratch memory has space for.
    pub rows: usize,
    /// How many numbers the scratch memory has.
    pub scratch: usize,
}

impl NetworkPlan {
    /// The plan for batches of at most `rows` images.
    pub fn new(recipe: &Recipe, rows: usize) -> Self {
        let (layers, scratch) = plan_layers(recipe, rows);
        let strip = StripPlan::new(&layers);
        let scratch = scratch.max(strip.map_or(0, |strip| strip.scratch(rows)));
        let update = UpdatePlan::new(&recipe.optimizer, recipe.shape.parameter_count());
        Self { layers, strip, update, rows, scratch }
    }

    /// The record of an evaluation of `length` images: nothing is dropped.
    pub fn evaluation(&self, length: usize) -> Vec<u32> {
        let mut record = vec![0; self.layers[0].record];
        record[LENGTH] = length as u32;
        record
    }
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
    let before = |l: usize, places: &[usize]| l.checked_sub(1).map_or(0, |before| places[before]);
    let plan = |(l, layer): (usize, &Layer)| LayerPlan {
        inputs: layer.inputs,
        outputs: layer.outputs,
        weights: layer.weights.start,
        index: l,
        activations_in: before(l, &activations),
        activations_out: activations.get(l).copied().unwrap_or_default(),
        deltas_in: before(l, &deltas),
        deltas_out: deltas[l],
        record: MASK_KEYS + 2 * last,
        edge: 1,
        smoothing: (recipe.label_smoothing as f32).to_bits(),
    };
    (layers.iter().enumerate().map(plan).collect(), end)
}

/// How many cubes a product with a result (`rows`, `columns`) takes along x and y, and the layer with its tiles' size.
pub fn tiles(layer: &LayerPlan, rows: usize, columns: usize) -> ([usize; 2], LayerPlan) {
    let count = |edge: usize| [columns, rows].map(|length| length.div_ceil(SIDE * edge));
    let [x, y] = count(LARGE);
    let edge = if x * y >= BUSY { LARGE } else { 1 };
    (count(edge), LayerPlan { edge, ..*layer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MlpShape;

    fn recipe(hidden: &[usize], classes: usize) -> Recipe {
        let (shape, optimizer) = (MlpShape::new(784, hidden, classes), OptimizerSettings::sgd(0.25));
        Recipe { shape, optimizer, batch_size: 32, dropout: 0.2, label_smoothing: 0.0, seed: 1, threads: 1 }
    }

    #[test]
    fn only_a_network_with_one_narrow_hidden_layer_takes_one_launch_a_step() {
        let strip = |hidden: &[usize]| NetworkPlan::new(&recipe(hidden, 10), 32).strip;
        assert_eq!(strip(&[128]).map(|strip| strip.cubes()), Some(16));
        assert!(strip(&[512]).is_some());
        assert!([&[][..], &[513], &[64, 64]].into_iter().all(|hidden| strip(hidden).is_none()));
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
