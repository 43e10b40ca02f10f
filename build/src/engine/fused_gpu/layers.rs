//! The kernels from the images to the gradients by all layers' sums, which work on one layer at a time.
//!
//! `forward` and `backward` are matrix products. Work before and after the product is fused with it: fetching the batch's
//! images, bias, ReLU and dropout. `loss` and `logits` are the last layer, with one image a cube.

use cubecl::prelude::*;

use super::kernels::*;
use super::plan::{Along, FETCHED, LOGITS, LayerPlan, SIDE, TOGETHER, UNITS};
use super::tile::*;

/// A hidden layer: `(B,I) x (I,O) + (O)`, ReLU, dropout. `scale` is the factor for units that dropout keeps.
#[cube(launch_unchecked)]
pub fn forward(inputs: &StepInputs, memory: &mut StepMemory, turn: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step_of(memory, turn), CUBE_POS_Z as usize, layer.members);
    let mut tile = new_tile(layer.tile);
    // Where the inputs of the image of the unit's words begin.
    let image = tile.first_row + place_of(0usize, Along::InnerWord, layer.tile).1;
    let known = select(image < batch.length, image, 0);
    let mut place = 0usize;
    if comptime!(layer.index == 0) {
        place = inputs.order[batch.begin + known] as usize * comptime!(width.div_ceil(4));
    }

    fetch_forward(inputs, memory, &batch, &mut tile, place, 0usize, layer);
    for stretch in 0..comptime!(width.div_ceil(layer.tile.depth())) {
        put_stretch(&mut tile, comptime!(images_along(&layer)), Along::Outer, layer.tile);
        fetch_forward(inputs, memory, &batch, &mut tile, place, stretch + 1, layer);
        multiply(&mut tile, layer.tile, comptime!(layer.index == 0));
        sync_cube();
    }

    let has = add_parts(&mut tile, layer.tile);
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (image, o) = (row_of(&tile, r, layer.tile), column_of(&tile, c, layer.tile));
            if has && image < batch.length && o < outputs {
                let z = tile.sums[r * edge + c]
                    + memory.state[batch.state + comptime!(layer.weights + width * outputs) + o];
                let unit = image * outputs + o;
                let number = batch.first * outputs + unit;
                let a = activation(inputs, &batch, z, number, scale, layer.index);
                memory.scratch[batch.scratch + comptime!(layer.activations_out) + unit] = a;
            }
        }
    }
}

/// How units fetch the inputs of a layer's images.
fn images_along(layer: &LayerPlan) -> Along {
    if layer.index == 0 { Along::InnerWord } else { Along::Inner }
}

/// Fetches the unit's share of a stretch of `forward`: pixels of the image at `place`, or activations; weights.
#[cube]
fn fetch_forward(
    inputs: &StepInputs,
    memory: &StepMemory,
    batch: &StepBatch,
    tile: &mut Tile,
    place: usize,
    stretch: usize,
    #[comptime] layer: LayerPlan,
) {
    let (depth, width, outputs) = comptime!((layer.tile.depth(), layer.inputs, layer.outputs));
    if comptime!(layer.index == 0) {
        let number = (stretch * depth + place_of(0usize, Along::InnerWord, layer.tile).0) / FETCHED;
        let mut word = 0u32;
        if number < comptime!(width.div_ceil(4)) {
            word = inputs.pixels[place + number];
        }
        #[unroll]
        for part in 0..FETCHED {
            tile.next_left[part] = pixel(word, part);
        }
    }
    #[unroll]
    for part in 0..FETCHED {
        if comptime!(layer.index > 0) {
            let (k, row) = place_of(part, Along::Inner, layer.tile);
            let (i, image) = (stretch * depth + k, tile.first_row + row);
            let mut value = 0.0f32;
            if i < width && image < batch.length {
                value = memory.scratch[batch.scratch + comptime!(layer.activations_in) + image * width + i];
            }
            tile.next_left[part] = value;
        }
        let (k, column) = place_of(part, Along::Outer, layer.tile);
        let (i, o) = (stretch * depth + k, tile.first_column + column);
        let mut value = 0.0f32;
        if i < width && o < outputs {
            value = memory.state[batch.state + comptime!(layer.weights) + i * outputs + o];
        }
        tile.next_right[part] = value;
    }
}

/// The last layer's logits of image `image` of the batch, one for each class and zeros behind them, into `logits`. `parts`
/// takes 16 shares of each.
#[cube]
fn logits_of(
    inputs: &StepInputs,
    memory: &StepMemory,
    batch: &StepBatch,
    image: usize,
    parts: &mut Shared<[f32]>,
    logits: &mut Shared<[f32]>,
    #[comptime] layer: LayerPlan,
) {
    let (width, classes) = comptime!((layer.inputs, layer.outputs));
    let (class, share) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let mut place = batch.scratch + comptime!(layer.activations_in) + image * width;
    if comptime!(layer.index == 0) {
        place = inputs.order[batch.begin + image] as usize * comptime!(width.div_ceil(4));
    }
    let mut sum = 0.0f32;
    if class < classes {
        for group in 0..comptime!(width.div_ceil(SIDE).div_ceil(TOGETHER)) {
            #[unroll]
            for number in 0..TOGETHER {
                let i = (group * TOGETHER + number) * SIDE + share;
                if i < width {
                    let a = if comptime!(layer.index == 0) {
                        pixel(inputs.pixels[place + i / 4], i % 4)
                    } else {
                        memory.scratch[place + i]
                    };
                    sum += a * memory.state[batch.state + comptime!(layer.weights) + i * classes + class];
                }
            }
        }
    }
    parts[share * LOGITS + class] = sum;
    sync_cube();
    if share == 0 {
        let mut logit = 0.0f32;
        if class < classes {
            logit = memory.state[batch.state + comptime!(layer.weights + width * classes) + class];
            #[unroll]
            for other in 0..SIDE {
                logit += parts[other * LOGITS + class];
            }
        }
        logits[class] = logit;
    }
    sync_cube();
}

/// The last layer of an evaluation: logits, (N, networks, K) into the scores.
#[cube(launch_unchecked)]
pub fn logits(inputs: &StepInputs, memory: &mut StepMemory, #[comptime] layer: LayerPlan) {
    let mut parts = Shared::<[f32]>::new_slice(UNITS);
    let mut logits = Shared::<[f32]>::new_slice(LOGITS);
    let batch = batch_of(inputs, 0, CUBE_POS_Z as usize, layer.members);
    let image = number_of_cube();
    if image < batch.length {
        logits_of(inputs, memory, &batch, image, &mut parts, &mut logits, layer);
        if UNIT_POS < comptime!(layer.outputs as u32) {
            let place = image * comptime!(layer.members.count) + batch.member;
            memory.scores[place * comptime!(layer.outputs) + UNIT_POS as usize] = logits[UNIT_POS as usize];
        }
    }
}

/// The last layer of a training step: logits, softmax, loss, the gradient by the logits, and the gradient by the last hidden
/// layer's sums. It also sets the clock to the next step.
#[cube(launch_unchecked)]
pub fn loss(inputs: &StepInputs, memory: &mut StepMemory, turn: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let classes = comptime!(layer.outputs);
    let mut parts = Shared::<[f32]>::new_slice(UNITS);
    let mut logits = Shared::<[f32]>::new_slice(LOGITS);
    let mut deltas = Shared::<[f32]>::new_slice(LOGITS);
    let now = step_of(memory, turn);
    let batch = batch_of(inputs, now, CUBE_POS_Z as usize, layer.members);
    let (image, unit) = (number_of_cube(), UNIT_POS as usize);
    if image < batch.length {
        logits_of(inputs, memory, &batch, image, &mut parts, &mut logits, layer);
        if unit < classes {
            let label = inputs.labels[inputs.order[batch.begin + image] as usize] as usize;
            let targets = comptime!(layer.targets());
            let delta = softmax_loss(memory, &batch, &logits, unit, image, label, targets, layer.members);
            memory.scratch[batch.scratch + comptime!(layer.deltas_out) + image * classes + unit] = delta;
            deltas[unit] = delta;
        }
        sync_cube();
        if comptime!(layer.index > 0) {
            output_backward(memory, &batch, image, &deltas, scale, layer);
        }
    }
    if image == 0 && unit == 0 && batch.member == 0 {
        set_next_step(memory, turn, now);
    }
}

/// From the gradient by an image's logits to that by the last hidden layer's sums.
#[cube]
fn output_backward(
    memory: &mut StepMemory,
    batch: &StepBatch,
    image: usize,
    deltas: &Shared<[f32]>,
    scale: f32,
    #[comptime] layer: LayerPlan,
) {
    let (width, classes) = comptime!((layer.inputs, layer.outputs));
    for round in 0..comptime!(width.div_ceil(UNITS)) {
        let i = round * UNITS + UNIT_POS as usize;
        if i < width {
            let unit = image * width + i;
            let a = memory.scratch[batch.scratch + comptime!(layer.activations_in) + unit];
            let mut sum = 0.0f32;
            #[unroll]
            for k in 0..classes {
                sum += deltas[k] * memory.state[batch.state + comptime!(layer.weights) + i * classes + k];
            }
            memory.scratch[batch.scratch + comptime!(layer.deltas_in) + unit] = activation_backward(a, sum, scale);
        }
    }
}

/// From the gradient by a hidden layer's sums (B,O) to that by the sums of the hidden layer before it, (B,I).
#[cube(launch_unchecked)]
pub fn backward(inputs: &StepInputs, memory: &mut StepMemory, turn: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step_of(memory, turn), CUBE_POS_Z as usize, layer.members);
    let mut tile = new_tile(layer.tile);

    fetch_backward(memory, &batch, &mut tile, 0usize, layer);
    for stretch in 0..comptime!(outputs.div_ceil(layer.tile.depth())) {
        put_stretch(&mut tile, Along::Inner, Along::Inner, layer.tile);
        fetch_backward(memory, &batch, &mut tile, stretch + 1, layer);
        multiply(&mut tile, layer.tile, false);
        sync_cube();
    }

    let has = add_parts(&mut tile, layer.tile);
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (image, i) = (row_of(&tile, r, layer.tile), column_of(&tile, c, layer.tile));
            if has && image < batch.length && i < width {
                let unit = image * width + i;
                let a = memory.scratch[batch.scratch + comptime!(layer.activations_in) + unit];
                let delta = activation_backward(a, tile.sums[r * edge + c], scale);
                memory.scratch[batch.scratch + comptime!(layer.deltas_in) + unit] = delta;
            }
        }
    }
}

/// Fetches the unit's share of a stretch of `backward`.
#[cube]
fn fetch_backward(
    memory: &StepMemory,
    batch: &StepBatch,
    tile: &mut Tile,
    stretch: usize,
    #[comptime] layer: LayerPlan,
) {
    let (width, outputs) = comptime!((layer.inputs, layer.outputs));
    #[unroll]
    for part in 0..FETCHED {
        let (k, outer) = place_of(part, Along::Inner, layer.tile);
        let o = stretch * comptime!(layer.tile.depth()) + k;
        let (image, i) = (tile.first_row + outer, tile.first_column + outer);
        let mut value = 0.0f32;
        if o < outputs && image < batch.length {
            value = memory.scratch[batch.scratch + comptime!(layer.deltas_out) + image * outputs + o];
        }
        tile.next_left[part] = value;
        let mut value = 0.0f32;
        if o < outputs && i < width {
            value = memory.state[batch.state + comptime!(layer.weights) + i * outputs + o];
        }
        tile.next_right[part] = value;
    }
}
