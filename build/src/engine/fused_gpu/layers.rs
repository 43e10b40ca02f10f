//! The kernels that work on one layer at a time, for every network.
//!
//! A cube is [`SIDE`] x [`SIDE`] units. `forward`, `backward` and `update` are matrix products: a cube makes one [`Tile`] of
//! the result. Work before and after the product is fused with it: fetching the batch's images, bias, ReLU and dropout, the
//! optimizer. `loss` and `logits` are the last layer, with one image a cube.

use cubecl::prelude::*;

use super::kernels::*;
use super::plan::{FETCHED, LOGITS, LayerPlan, SIDE, TilePlan, UNITS, UpdatePlan};

/// How many numbers a unit reads before it works on them, so that their ways from memory overlap.
const TOGETHER: usize = 8;

/// A cube's part of a product, see [`super::plan::TilePlan`].
///
/// The product goes through its inner dimension in stretches, with both operands in shared memory. A unit fetches four
/// numbers of each operand, while the stretch before is multiplied.
#[derive(CubeType)]
struct Tile {
    /// The left operand's stretch, transposed: rows of the tile's side and one more, so that units write to different banks.
    left: Shared<[f32]>,
    /// The right operand's stretch, the same.
    right: Shared<[f32]>,
    /// The unit's share of the next stretch.
    next_left: Array<f32>,
    next_right: Array<f32>,
    /// The unit's sums, (R,R).
    sums: Array<f32>,
    /// Where the tile begins in the result.
    first_row: usize,
    first_column: usize,
    /// The unit's place among those that share out the tile, and which part of each stretch it works on.
    x: usize,
    y: usize,
    part: usize,
}

/// The tile of this cube, with zeros as sums.
#[cube]
fn new_tile(#[comptime] plan: TilePlan) -> Tile {
    let (edge, side, across) = comptime!((plan.edge, plan.side(), plan.across()));
    let unit = UNIT_POS as usize;
    Tile {
        left: Shared::<[f32]>::new_slice(comptime!(plan.depth() * (side + 1))),
        right: Shared::<[f32]>::new_slice(comptime!(plan.depth() * (side + 1))),
        next_left: zeros(FETCHED),
        next_right: zeros(FETCHED),
        sums: zeros(comptime!(edge * edge)),
        first_row: CUBE_POS_Y as usize * side,
        first_column: CUBE_POS_X as usize * side,
        x: unit % across,
        y: unit / across % across,
        part: unit / comptime!(across * across),
    }
}

/// Where number `r` of the unit's R rows lies in the result.
#[cube]
fn row_of(tile: &Tile, r: usize, #[comptime] plan: TilePlan) -> usize {
    tile.first_row + tile.y + r * comptime!(plan.across())
}

/// Where number `c` of the unit's R columns lies in the result.
#[cube]
fn column_of(tile: &Tile, c: usize, #[comptime] plan: TilePlan) -> usize {
    tile.first_column + tile.x + c * comptime!(plan.across())
}

/// Which number (inner, outer) of an operand's stretch is number `part` of the unit's share. Neighbouring units take
/// neighbours along the outer dimension.
#[cube]
fn along_outer(part: usize, #[comptime] plan: TilePlan) -> (usize, usize) {
    let at = UNIT_POS as usize + part * UNITS;
    (at / comptime!(plan.side()), at % comptime!(plan.side()))
}

/// The same, where neighbouring units take neighbours along the inner dimension.
#[cube]
fn along_inner(part: usize, #[comptime] plan: TilePlan) -> (usize, usize) {
    let at = UNIT_POS as usize + part * UNITS;
    (at % comptime!(plan.depth()), at / comptime!(plan.depth()))
}

/// The same for the pixels of one word, which lie along the outer dimension.
#[cube]
fn along_outer_word(part: usize, #[comptime] plan: TilePlan) -> (usize, usize) {
    let words = comptime!(plan.side() / FETCHED);
    let unit = UNIT_POS as usize;
    (unit / words, unit % words * FETCHED + part)
}

/// The same for the pixels of one word, which lie along the inner dimension.
#[cube]
fn along_inner_word(part: usize, #[comptime] plan: TilePlan) -> (usize, usize) {
    let words = comptime!(plan.depth() / FETCHED);
    let unit = UNIT_POS as usize;
    (unit % words * FETCHED + part, unit / words)
}

/// Adds the products of the unit's part of the stretch in `left` and `right`. Where the left operand is images, four of five
/// numbers are zero.
#[cube]
fn multiply(tile: &mut Tile, #[comptime] plan: TilePlan, #[comptime] images: bool) {
    let (edge, line, across) = comptime!((plan.edge, plan.side() + 1, plan.across()));
    let length = comptime!(plan.depth() / plan.parts);
    let first = tile.part * length;
    for group in 0..comptime!(length / SIDE) {
        #[unroll]
        for number in 0..SIDE {
            let row = (first + group * SIDE + number) * line;
            #[unroll]
            for r in 0..edge {
                let a = tile.left[row + tile.y + r * across];
                if comptime!(!images) || a != 0.0 {
                    #[unroll]
                    for c in 0..edge {
                        tile.sums[r * edge + c] += a * tile.right[row + tile.x + c * across];
                    }
                }
            }
        }
    }
}

/// Adds up the parts' sums, where there are several; returns whether this unit has the result.
#[cube]
fn add_parts(tile: &mut Tile, #[comptime] plan: TilePlan) -> bool {
    if comptime!(plan.parts > 1) {
        let numbers = comptime!(plan.across() * plan.across());
        tile.left[UNIT_POS as usize] = tile.sums[0];
        sync_cube();
        if tile.part == 0 {
            #[unroll]
            for other in 1..comptime!(plan.parts) {
                tile.sums[0] += tile.left[other * numbers + UNIT_POS as usize];
            }
        }
    }
    tile.part == 0
}

/// A hidden layer: `(B,I) x (I,O) + (O)`, ReLU, dropout. `scale` is the factor for units that dropout keeps.
#[cube(launch_unchecked)]
pub fn forward(inputs: &StepInputs, memory: &mut StepMemory, turn: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step_of(memory, turn), layer.record);
    let mut tile = new_tile(layer.tile);
    // Where the inputs of the image of the unit's words begin.
    let image = tile.first_row + along_inner_word(0usize, layer.tile).1;
    let known = select(image < batch.length, image, 0);
    let mut place = 0usize;
    if comptime!(layer.index == 0) {
        place = inputs.order[batch.begin + known] as usize * comptime!(width.div_ceil(4));
    }

    fetch_forward(inputs, memory, &batch, &mut tile, place, 0usize, layer);
    for stretch in 0..comptime!(width.div_ceil(layer.tile.depth())) {
        #[unroll]
        for part in 0..FETCHED {
            let (k, row) = if comptime!(layer.index == 0) {
                along_inner_word(part, layer.tile)
            } else {
                along_inner(part, layer.tile)
            };
            tile.left[k * comptime!(layer.tile.side() + 1) + row] = tile.next_left[part];
            let (k, column) = along_outer(part, layer.tile);
            tile.right[k * comptime!(layer.tile.side() + 1) + column] = tile.next_right[part];
        }
        sync_cube();
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
                let z = tile.sums[r * edge + c] + memory.state[comptime!(layer.weights + width * outputs) + o];
                let unit = image * outputs + o;
                let a = activation(inputs, &batch, z, unit, scale, layer.index);
                memory.scratch[comptime!(layer.activations_out) + unit] = a;
            }
        }
    }
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
        let number = (stretch * depth + along_inner_word(0usize, layer.tile).0) / FETCHED;
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
            let (k, row) = along_inner(part, layer.tile);
            let (i, image) = (stretch * depth + k, tile.first_row + row);
            let mut value = 0.0f32;
            if i < width && image < batch.length {
                value = memory.scratch[comptime!(layer.activations_in) + image * width + i];
            }
            tile.next_left[part] = value;
        }
        let (k, column) = along_outer(part, layer.tile);
        let (i, o) = (stretch * depth + k, tile.first_column + column);
        let mut value = 0.0f32;
        if i < width && o < outputs {
            value = memory.state[comptime!(layer.weights) + i * outputs + o];
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
    let mut place = comptime!(layer.activations_in) + image * width;
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
                    sum += a * memory.state[comptime!(layer.weights) + i * classes + class];
                }
            }
        }
    }
    parts[share * LOGITS + class] = sum;
    sync_cube();
    if share == 0 {
        let mut logit = 0.0f32;
        if class < classes {
            logit = memory.state[comptime!(layer.weights + width * classes) + class];
            #[unroll]
            for other in 0..SIDE {
                logit += parts[other * LOGITS + class];
            }
        }
        logits[class] = logit;
    }
    sync_cube();
}

/// The number of this cube among those of its plane.
#[cube]
fn number_of_cube() -> usize {
    CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize
}

/// The last layer of an evaluation: logits, (N,K) into the scores.
#[cube(launch_unchecked)]
pub fn logits(inputs: &StepInputs, memory: &mut StepMemory, #[comptime] layer: LayerPlan) {
    let mut parts = Shared::<[f32]>::new_slice(UNITS);
    let mut logits = Shared::<[f32]>::new_slice(LOGITS);
    let batch = batch_of(inputs, 0, layer.record);
    let image = number_of_cube();
    if image < batch.length {
        logits_of(inputs, memory, &batch, image, &mut parts, &mut logits, layer);
        if UNIT_POS < comptime!(layer.outputs as u32) {
            memory.scores[image * comptime!(layer.outputs) + UNIT_POS as usize] = logits[UNIT_POS as usize];
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
    let batch = batch_of(inputs, now, layer.record);
    let (image, unit) = (number_of_cube(), UNIT_POS as usize);
    if image < batch.length {
        logits_of(inputs, memory, &batch, image, &mut parts, &mut logits, layer);
        if unit < classes {
            let label = inputs.labels[inputs.order[batch.begin + image] as usize] as usize;
            let of = LossOf { image, label, report: true };
            let delta = softmax_loss(memory, &batch, &logits, unit, &of, comptime!(layer.targets()));
            memory.scratch[comptime!(layer.deltas_out) + image * classes + unit] = delta;
            deltas[unit] = delta;
        }
        sync_cube();
        if comptime!(layer.index > 0) {
            output_backward(memory, image, &deltas, scale, layer);
        }
    }
    if image == 0 && unit == 0 {
        set_next_step(memory, turn, now);
    }
}

/// From the gradient by an image's logits to that by the last hidden layer's sums.
#[cube]
fn output_backward(
    memory: &mut StepMemory,
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
            let a = memory.scratch[comptime!(layer.activations_in) + unit];
            let mut sum = 0.0f32;
            #[unroll]
            for k in 0..classes {
                sum += deltas[k] * memory.state[comptime!(layer.weights) + i * classes + k];
            }
            memory.scratch[comptime!(layer.deltas_in) + unit] = activation_backward(a, sum, scale);
        }
    }
}

/// From the gradient by a hidden layer's sums (B,O) to that by the sums of the hidden layer before it, (B,I).
#[cube(launch_unchecked)]
pub fn backward(inputs: &StepInputs, memory: &mut StepMemory, turn: usize, scale: f32, #[comptime] layer: LayerPlan) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let batch = batch_of(inputs, step_of(memory, turn), layer.record);
    let mut tile = new_tile(layer.tile);

    fetch_backward(memory, &batch, &mut tile, 0usize, layer);
    for stretch in 0..comptime!(outputs.div_ceil(layer.tile.depth())) {
        #[unroll]
        for part in 0..FETCHED {
            let (k, outer) = along_inner(part, layer.tile);
            tile.left[k * comptime!(layer.tile.side() + 1) + outer] = tile.next_left[part];
            tile.right[k * comptime!(layer.tile.side() + 1) + outer] = tile.next_right[part];
        }
        sync_cube();
        fetch_backward(memory, &batch, &mut tile, stretch + 1, layer);
        multiply(&mut tile, layer.tile, comptime!(layer.index == 0));
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
                let a = memory.scratch[comptime!(layer.activations_in) + unit];
                let delta = activation_backward(a, tile.sums[r * edge + c], scale);
                memory.scratch[comptime!(layer.deltas_in) + unit] = delta;
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
        let (k, outer) = along_inner(part, layer.tile);
        let o = stretch * comptime!(layer.tile.depth()) + k;
        let (image, i) = (tile.first_row + outer, tile.first_column + outer);
        let mut value = 0.0f32;
        if o < outputs && image < batch.length {
            value = memory.scratch[comptime!(layer.deltas_out) + image * outputs + o];
        }
        tile.next_left[part] = value;
        let mut value = 0.0f32;
        if o < outputs && i < width {
            value = memory.state[comptime!(layer.weights) + i * outputs + o];
        }
        tile.next_right[part] = value;
    }
}

/// A layer's gradient, `(I+1,B) x (B,O)`, and the optimizer's step on it in place. Row I is the biases', as if they had an
/// input that is always 1; they follow the weights in the state too. Where cubes share out the images, their sums go to the
/// scratch memory instead, for [`update_by_shares`]. A second plane of cubes does the `last` layer, if there is one.
#[cube(launch_unchecked)]
pub fn update(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    turn: usize,
    #[comptime] layer: LayerPlan,
    #[comptime] last: Option<LayerPlan>,
    #[comptime] plan: UpdatePlan,
) {
    let batch = batch_of(inputs, step_of(memory, turn), layer.record);
    if comptime!(last.is_none()) || CUBE_POS_Z == 0 {
        update_tile(inputs, memory, &batch, layer, plan);
    } else {
        update_last(inputs, memory, &batch, comptime!(last.unwrap_or(layer)), plan);
    }
}

/// [`update`] of one tile.
#[cube]
fn update_tile(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    batch: &StepBatch,
    #[comptime] layer: LayerPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let mut tile = new_tile(layer.tile);

    let each = batch.length.div_ceil(comptime!(layer.tile.depth() * layer.shares));
    let first = CUBE_POS_Z as usize * each;
    fetch_update(inputs, memory, batch, &mut tile, first, layer);
    for stretch in first..first + each {
        #[unroll]
        for part in 0..FETCHED {
            let (k, row) = if comptime!(layer.index == 0) {
                along_outer_word(part, layer.tile)
            } else {
                along_outer(part, layer.tile)
            };
            tile.left[k * comptime!(layer.tile.side() + 1) + row] = tile.next_left[part];
            let (k, column) = along_outer(part, layer.tile);
            tile.right[k * comptime!(layer.tile.side() + 1) + column] = tile.next_right[part];
        }
        sync_cube();
        fetch_update(inputs, memory, batch, &mut tile, stretch + 1, layer);
        multiply(&mut tile, layer.tile, comptime!(layer.index == 0));
        sync_cube();
    }

    let has = add_parts(&mut tile, layer.tile);
    let mut run = new_run(comptime!(edge * edge));
    #[unroll]
    for r in 0..edge {
        #[unroll]
        for c in 0..edge {
            let (i, o) = (row_of(&tile, r, layer.tile), column_of(&tile, c, layer.tile));
            if has && i <= width && o < outputs {
                let at = i * outputs + o;
                let sum = tile.sums[r * edge + c];
                if comptime!(layer.shares > 1) {
                    let share = CUBE_POS_Z as usize * comptime!((width + 1) * outputs);
                    memory.scratch[comptime!(layer.gradients) + share + at] = sum;
                } else {
                    run.places[r * edge + c] = comptime!(layer.weights) + at;
                    run.gradients[r * edge + c] = sum;
                }
            }
        }
    }
    if comptime!(layer.shares == 1) {
        optimize_run(memory, &mut run, &rates_of(inputs, batch), comptime!(edge * edge), plan);
    }
}

/// [`update`] of the last layer by a small batch, one parameter a unit.
#[cube]
fn update_last(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    batch: &StepBatch,
    #[comptime] layer: LayerPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (width, outputs) = comptime!((layer.inputs, layer.outputs));
    let at = number_of_cube() * UNITS + UNIT_POS as usize;
    if at < comptime!((width + 1) * outputs) {
        let (i, o) = (at / outputs, at % outputs);
        let mut run = new_run(1usize);
        run.places[0] = comptime!(layer.weights) + at;
        for group in 0..batch.length.div_ceil(TOGETHER) {
            #[unroll]
            for number in 0..TOGETHER {
                let image = group * TOGETHER + number;
                if image < batch.length {
                    let mut a = 1.0f32;
                    if i < width {
                        a = memory.scratch[comptime!(layer.activations_in) + image * width + i];
                    }
                    run.gradients[0] += a * memory.scratch[comptime!(layer.deltas_out) + image * outputs + o];
                }
            }
        }
        optimize_run(memory, &mut run, &rates_of(inputs, batch), 1usize, plan);
    }
}

/// The optimizer's step on a layer, by the gradient that the cubes of `update` have shared out.
#[cube(launch_unchecked)]
pub fn update_by_shares(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    turn: usize,
    #[comptime] layer: LayerPlan,
    #[comptime] plan: UpdatePlan,
) {
    let parameters = comptime!((layer.inputs + 1) * layer.outputs);
    let batch = batch_of(inputs, step_of(memory, turn), layer.record);
    let at = number_of_cube() * UNITS + UNIT_POS as usize;
    if at < parameters {
        let mut gradient = 0.0f32;
        #[unroll]
        for share in 0..comptime!(layer.shares) {
            gradient += memory.scratch[comptime!(layer.gradients) + share * parameters + at];
        }
        let mut run = new_run(1usize);
        run.places[0] = comptime!(layer.weights) + at;
        run.gradients[0] = gradient;
        optimize_run(memory, &mut run, &rates_of(inputs, &batch), 1usize, plan);
    }
}

/// Fetches the unit's share of a stretch of `update`: pixels or activations, with the biases' ones behind them; deltas.
#[cube]
fn fetch_update(
    inputs: &StepInputs,
    memory: &StepMemory,
    batch: &StepBatch,
    tile: &mut Tile,
    stretch: usize,
    #[comptime] layer: LayerPlan,
) {
    let (depth, width, outputs) = comptime!((layer.tile.depth(), layer.inputs, layer.outputs));
    let words = comptime!(width.div_ceil(4));
    let mut word = 0u32;
    if comptime!(layer.index == 0) {
        let (k, row) = along_outer_word(0usize, layer.tile);
        let (image, number) = (stretch * depth + k, (tile.first_row + row) / FETCHED);
        if image < batch.length && number < words {
            word = inputs.pixels[inputs.order[batch.begin + image] as usize * words + number];
        }
    }
    #[unroll]
    for part in 0..FETCHED {
        let (k, row) = if comptime!(layer.index == 0) {
            along_outer_word(part, layer.tile)
        } else {
            along_outer(part, layer.tile)
        };
        let (image, i) = (stretch * depth + k, tile.first_row + row);
        let mut value = 0.0f32;
        if image < batch.length {
            if i < width {
                value = if comptime!(layer.index == 0) {
                    pixel(word, part)
                } else {
                    memory.scratch[comptime!(layer.activations_in) + image * width + i]
                };
            }
            if i == width {
                value = 1.0;
            }
        }
        tile.next_left[part] = value;
        let (k, column) = along_outer(part, layer.tile);
        let (image, o) = (stretch * depth + k, tile.first_column + column);
        let mut value = 0.0f32;
        if image < batch.length && o < outputs {
            value = memory.scratch[comptime!(layer.deltas_out) + image * outputs + o];
        }
        tile.next_right[part] = value;
    }
}
