//! The kernels that work on one layer at a time, for every network.
//!
//! A cube is [`SIDE`] x [`SIDE`] units. `forward`, `backward` and `update` are matrix products: a cube makes one [`Tile`] of
//! the result. Work before and after the product is fused with it: fetching the batch's images, bias, ReLU and dropout, the
//! optimizer. `loss` and `logits` are the last layer, with one class a unit.

use cubecl::prelude::*;

use super::kernels::*;
use super::plan::{LOGITS, LayerPlan, SIDE, UNITS, UpdatePlan};

/// A cube's part of a product: (16 R, 16 R) numbers, each unit R x R of them.
///
/// The product goes through its inner dimension 16 at a time, with both operands in shared memory.
#[derive(CubeType)]
struct Tile {
    /// The left operand's stretch, transposed: (16, 16 R).
    left: Shared<[f32]>,
    /// The right operand's stretch, (16, 16 R).
    right: Shared<[f32]>,
    /// The unit's sums, (R,R).
    sums: Array<f32>,
    /// Where the tile begins in the result.
    first_row: usize,
    first_column: usize,
}

/// The tile of this cube, with zeros as sums.
#[cube]
fn new_tile(#[comptime] edge: usize) -> Tile {
    Tile {
        left: Shared::<[f32]>::new_slice(comptime!(SIDE * SIDE * edge)),
        right: Shared::<[f32]>::new_slice(comptime!(SIDE * SIDE * edge)),
        sums: zeros(comptime!(edge * edge)),
        first_row: CUBE_POS_Y as usize * comptime!(SIDE * edge),
        first_column: CUBE_POS_X as usize * comptime!(SIDE * edge),
    }
}

/// Where number `r` of the unit's R rows lies in the result.
#[cube]
fn row_of(tile: &Tile, r: usize) -> usize {
    tile.first_row + UNIT_POS_Y as usize + r * SIDE
}

/// Where number `c` of the unit's R columns lies in the result.
#[cube]
fn column_of(tile: &Tile, c: usize) -> usize {
    tile.first_column + UNIT_POS_X as usize + c * SIDE
}

/// Adds the products of the stretch that the cube has put into `left` and `right`.
#[cube]
fn multiply(tile: &mut Tile, #[comptime] edge: usize) {
    let (x, y) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    sync_cube();
    for k in 0..SIDE {
        let row = k * SIDE * edge;
        #[unroll]
        for r in 0..edge {
            let a = tile.left[row + y + r * SIDE];
            #[unroll]
            for c in 0..edge {
                tile.sums[r * edge + c] += a * tile.right[row + x + c * SIDE];
            }
        }
    }
    sync_cube();
}

/// Input `i` of the layer for image `image` of the batch: a pixel or an activation.
#[cube]
fn layer_input(
    inputs: &StepInputs,
    memory: &StepMemory,
    batch: &StepBatch,
    image: usize,
    i: usize,
    #[comptime] layer: LayerPlan,
) -> f32 {
    if comptime!(layer.index == 0) {
        pixel(inputs, batch, image, i, layer.inputs)
    } else {
        memory.scratch[comptime!(layer.activations_in) + image * comptime!(layer.inputs) + i]
    }
}

/// A hidden layer: `(B,I) x (I,O) + (O)`, ReLU, dropout. `scale` is the factor for units that dropout keeps.
#[cube(launch_unchecked)]
pub fn forward(inputs: &StepInputs, memory: &mut StepMemory, step: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, side, width, outputs) = comptime!((layer.edge, SIDE * layer.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step, layer.record);
    let mut tile = new_tile(edge);

    for stretch in 0..comptime!(width.div_ceil(SIDE)) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            // Neighbouring units read neighbouring inputs of an image, and neighbouring outputs' weights.
            let (k, row) = (at % SIDE, at / SIDE);
            let (i, image) = (stretch * SIDE + k, tile.first_row + row);
            let mut value = 0.0f32;
            if i < width && image < batch.length {
                value = layer_input(inputs, memory, &batch, image, i, layer);
            }
            tile.left[k * side + row] = value;
            let (k, column) = (at / side, at % side);
            let (i, o) = (stretch * SIDE + k, tile.first_column + column);
            let mut value = 0.0f32;
            if i < width && o < outputs {
                value = memory.state[comptime!(layer.weights) + i * outputs + o];
            }
            tile.right[k * side + column] = value;
        }
        multiply(&mut tile, edge);
    }

    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (image, o) = (row_of(&tile, r), column_of(&tile, c));
            if image < batch.length && o < outputs {
                let z = tile.sums[r * edge + c] + memory.state[comptime!(layer.weights + width * outputs) + o];
                let unit = image * outputs + o;
                let a = activation(inputs, &batch, z, unit, scale, layer.index);
                memory.scratch[comptime!(layer.activations_out) + unit] = a;
            }
        }
    }
}

/// The last layer's logit of `class` for image `image` of the batch; zero where there is no such class or image.
#[cube]
fn logit(
    inputs: &StepInputs,
    memory: &StepMemory,
    batch: &StepBatch,
    image: usize,
    class: usize,
    #[comptime] layer: LayerPlan,
) -> f32 {
    let (width, classes) = comptime!((layer.inputs, layer.outputs));
    let mut logit = 0.0f32;
    if image < batch.length && class < classes {
        for i in 0..width {
            let a = layer_input(inputs, memory, batch, image, i, layer);
            logit += a * memory.state[comptime!(layer.weights) + i * classes + class];
        }
        logit += memory.state[comptime!(layer.weights + width * classes) + class];
    }
    logit
}

/// The last layer of an evaluation for 16 images a cube: logits, (N,K) into the scores.
#[cube(launch_unchecked)]
pub fn logits(inputs: &StepInputs, memory: &mut StepMemory, #[comptime] layer: LayerPlan) {
    let batch = batch_of(inputs, 0, layer.record);
    let (class, image) = (UNIT_POS_X as usize, CUBE_POS_X as usize * SIDE + UNIT_POS_Y as usize);
    let logit = logit(inputs, memory, &batch, image, class, layer);
    if image < batch.length && class < comptime!(layer.outputs) {
        memory.scores[image * comptime!(layer.outputs) + class] = logit;
    }
}

/// The last layer of a training step for 16 images a cube: logits, softmax, loss, the gradient by the logits, and the
/// gradient by the last hidden layer's sums.
#[cube(launch_unchecked)]
pub fn loss(inputs: &StepInputs, memory: &mut StepMemory, step: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let classes = comptime!(layer.outputs);
    let mut logits = Shared::<[f32]>::new_slice(SIDE * LOGITS);
    let mut deltas = Shared::<[f32]>::new_slice(SIDE * LOGITS);
    let batch = batch_of(inputs, step, layer.record);
    let (class, row) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let (image, at) = (CUBE_POS_X as usize * SIDE + row, row * LOGITS + class);

    logits[at] = logit(inputs, memory, &batch, image, class, layer);
    sync_cube();

    let mut delta = 0.0f32;
    if image < batch.length && class < classes {
        delta = softmax_loss(inputs, memory, &batch, &logits, image, at, true, comptime!(layer.targets()));
        memory.scratch[comptime!(layer.deltas_out) + image * classes + class] = delta;
    }
    deltas[at] = delta;
    sync_cube();

    if comptime!(layer.index > 0) {
        output_backward(memory, &batch, &deltas, scale, layer);
    }
}

/// From the gradient by the logits of 16 images to that by the last hidden layer's sums.
#[cube]
fn output_backward(
    memory: &mut StepMemory,
    batch: &StepBatch,
    deltas: &Shared<[f32]>,
    scale: f32,
    #[comptime] layer: LayerPlan,
) {
    let (width, classes) = comptime!((layer.inputs, layer.outputs));
    for round in 0..comptime!((SIDE * width).div_ceil(UNITS)) {
        let at = round * UNITS + UNIT_POS as usize;
        let (row, i) = (at / width, at % width);
        let image = CUBE_POS_X as usize * SIDE + row;
        if row < SIDE && image < batch.length {
            let unit = image * width + i;
            let a = memory.scratch[comptime!(layer.activations_in) + unit];
            let mut sum = 0.0f32;
            if a > 0.0 {
                for k in 0..classes {
                    sum += deltas[row * LOGITS + k] * memory.state[comptime!(layer.weights) + i * classes + k];
                }
            }
            memory.scratch[comptime!(layer.deltas_in) + unit] = activation_backward(a, sum, scale);
        }
    }
}

/// From the gradient by a hidden layer's sums (B,O) to that by the sums of the hidden layer before it, (B,I).
#[cube(launch_unchecked)]
pub fn backward(inputs: &StepInputs, memory: &mut StepMemory, step: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, side, width, outputs) = comptime!((layer.edge, SIDE * layer.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step, layer.record);
    let mut tile = new_tile(edge);

    for stretch in 0..comptime!(outputs.div_ceil(SIDE)) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            let (k, row) = (at % SIDE, at / SIDE);
            let (o, image, i) = (stretch * SIDE + k, tile.first_row + row, tile.first_column + row);
            let mut value = 0.0f32;
            if o < outputs && image < batch.length {
                value = memory.scratch[comptime!(layer.deltas_out) + image * outputs + o];
            }
            tile.left[k * side + row] = value;
            let mut value = 0.0f32;
            if o < outputs && i < width {
                value = memory.state[comptime!(layer.weights) + i * outputs + o];
            }
            tile.right[k * side + row] = value;
        }
        multiply(&mut tile, edge);
    }

    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (image, i) = (row_of(&tile, r), column_of(&tile, c));
            if image < batch.length && i < width {
                let unit = image * width + i;
                let a = memory.scratch[comptime!(layer.activations_in) + unit];
                let delta = activation_backward(a, tile.sums[r * edge + c], scale);
                memory.scratch[comptime!(layer.deltas_in) + unit] = delta;
            }
        }
    }
}

/// A layer's gradient, `(I+1,B) x (B,O)`, and the optimizer's step on it in place. Row I is the biases', as if they had an
/// input that is always 1; they follow the weights in the state too.
#[cube(launch_unchecked)]
pub fn update(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    step: usize,
    #[comptime] layer: LayerPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (edge, side, width, outputs) = comptime!((layer.edge, SIDE * layer.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step, layer.record);
    let mut tile = new_tile(edge);

    for stretch in 0..batch.length.div_ceil(SIDE) {
        #[unroll]
        for part in 0..edge {
            let at = UNIT_POS as usize + part * UNITS;
            let (k, row) = (at / side, at % side);
            let image = stretch * SIDE + k;
            let (i, o) = (tile.first_row + row, tile.first_column + row);
            let mut value = 0.0f32;
            if image < batch.length && i < width {
                value = layer_input(inputs, memory, &batch, image, i, layer);
            }
            if image < batch.length && i == width {
                value = 1.0;
            }
            tile.left[k * side + row] = value;
            let mut value = 0.0f32;
            if image < batch.length && o < outputs {
                value = memory.scratch[comptime!(layer.deltas_out) + image * outputs + o];
            }
            tile.right[k * side + row] = value;
        }
        multiply(&mut tile, edge);
    }

    let rates = rates_of(inputs, &batch);
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (i, o) = (row_of(&tile, r), column_of(&tile, c));
            if i <= width && o < outputs {
                let at = comptime!(layer.weights) + i * outputs + o;
                optimize(memory, at, tile.sums[r * edge + c], &rates, plan);
            }
        }
    }
}
