//! The kernels that compute a layer's gradient and do the optimizer's step on it, a matrix product fused with the optimizer.
//! Where GPUs share out a batch, the product ends with the gradient, and the optimizer's step follows in a kernel of its own.

use cubecl::prelude::*;

use super::kernels::*;
use super::plan::{Along, FETCHED, LayerPlan, MembersPlan, TOGETHER, UNITS, UpdatePlan};
use super::tile::*;

/// A layer's gradient, `(I+1,B) x (B,O)`, and the optimizer's step on it in place. Row I is the biases', as if they had an
/// input that is always 1; they follow the weights in the state too. Where cubes share out the images, their sums go to the
/// scratch memory instead, for [`update_by_shares`]. A second plane of each network's cubes does the `last` layer, if there is
/// one.
#[cube(launch_unchecked)]
pub fn update(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    turn: usize,
    #[comptime] layer: LayerPlan,
    #[comptime] last: Option<LayerPlan>,
    #[comptime] plan: UpdatePlan,
) {
    let planes = comptime!(layer.planes(last.is_some()));
    let (member, plane) = (CUBE_POS_Z as usize / planes, CUBE_POS_Z as usize % planes);
    let batch = batch_of(inputs, step_of(memory, turn), member, layer.members);
    if comptime!(last.is_none()) || plane == 0 {
        update_tile(inputs, memory, &batch, plane, layer, plan);
    } else {
        update_last(inputs, memory, &batch, comptime!(last.unwrap_or(layer)), plan);
    }
}

/// [`update`] of one tile, by its `share` of the images.
#[cube]
fn update_tile(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    batch: &StepBatch,
    share: usize,
    #[comptime] layer: LayerPlan,
    #[comptime] plan: UpdatePlan,
) {
    let (edge, width, outputs) = comptime!((layer.tile.edge, layer.inputs, layer.outputs));
    let mut tile = new_tile(layer.tile);

    let each = batch.length.div_ceil(comptime!(layer.tile.depth() * layer.shares));
    let first = share * each;
    fetch_update(inputs, memory, batch, &mut tile, first, layer);
    for stretch in first..first + each {
        put_stretch(&mut tile, comptime!(inputs_along(&layer)), Along::Outer, layer.tile);
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
                    let place = comptime!(layer.gradients) + share * comptime!(layer.parameters());
                    memory.scratch[batch.scratch + place + at] = sum;
                } else {
                    run.places[r * edge + c] = batch.state + comptime!(layer.weights) + at;
                    run.gradients[r * edge + c] = sum;
                }
            }
        }
    }
    if comptime!(layer.shares == 1) {
        finish_run(memory, &mut run, &rates_of(inputs, batch), comptime!(edge * edge), plan);
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
    if at < comptime!(layer.parameters()) {
        let (i, o) = (at / outputs, at % outputs);
        let mut run = new_run(1usize);
        run.places[0] = batch.state + comptime!(layer.weights) + at;
        for group in 0..batch.length.div_ceil(TOGETHER) {
            #[unroll]
            for number in 0..TOGETHER {
                let image = group * TOGETHER + number;
                if image < batch.length {
                    let mut a = 1.0f32;
                    if i < width {
                        a = memory.scratch[batch.scratch + comptime!(layer.activations_in) + image * width + i];
                    }
                    run.gradients[0] +=
                        a * memory.scratch[batch.scratch + comptime!(layer.deltas_out) + image * outputs + o];
                }
            }
        }
        finish_run(memory, &mut run, &rates_of(inputs, batch), 1usize, plan);
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
    let parameters = comptime!(layer.parameters());
    let batch = batch_of(inputs, step_of(memory, turn), CUBE_POS_Z as usize, layer.members);
    let at = number_of_cube() * UNITS + UNIT_POS as usize;
    if at < parameters {
        let mut gradient = 0.0f32;
        #[unroll]
        for share in 0..comptime!(layer.shares) {
            gradient += memory.scratch[batch.scratch + comptime!(layer.gradients) + share * parameters + at];
        }
        let mut run = new_run(1usize);
        run.places[0] = batch.state + comptime!(layer.weights) + at;
        run.gradients[0] = gradient;
        finish_run(memory, &mut run, &rates_of(inputs, &batch), 1usize, plan);
    }
}

/// The optimizer's step on all parameters by the gradient of the whole batch, which the host has put into the scratch memory
/// in the place of this GPU's. It also sets the clock to the next step, for a GPU that had no image of the batch.
#[cube(launch_unchecked)]
pub fn update_by_sum(
    inputs: &StepInputs,
    memory: &mut StepMemory,
    turn: usize,
    #[comptime] members: MembersPlan,
    #[comptime] plan: UpdatePlan,
) {
    let now = step_of(memory, turn);
    let batch = batch_of(inputs, now, 0, members);
    let at = number_of_cube() * UNITS + UNIT_POS as usize;
    if at < comptime!(plan.parameters) {
        let mut run = new_run(1usize);
        run.places[0] = at;
        run.gradients[0] = memory.scratch[comptime!(plan.gradient.unwrap_or_default()) + at];
        optimize_run(memory, &mut run, &rates_of(inputs, &batch), 1usize, plan);
    }
    if at == 0 {
        set_next_step(memory, turn, now);
    }
}

/// How units fetch a layer's inputs, transposed.
fn inputs_along(layer: &LayerPlan) -> Along {
    if layer.index == 0 { Along::OuterWord } else { Along::Outer }
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
        let (k, row) = place_of(0usize, Along::OuterWord, layer.tile);
        let (image, number) = (stretch * depth + k, (tile.first_row + row) / FETCHED);
        if image < batch.length && number < words {
            word = inputs.pixels[inputs.order[batch.begin + image] as usize * words + number];
        }
    }
    #[unroll]
    for part in 0..FETCHED {
        let (k, row) = place_of(part, comptime!(inputs_along(&layer)), layer.tile);
        let (image, i) = (stretch * depth + k, tile.first_row + row);
        let mut value = 0.0f32;
        if image < batch.length {
            if i < width {
                value = if comptime!(layer.index == 0) {
                    pixel(word, part)
                } else {
                    memory.scratch[batch.scratch + comptime!(layer.activations_in) + image * width + i]
                };
            }
            if i == width {
                value = 1.0;
            }
        }
        tile.next_left[part] = value;
        let (k, column) = place_of(part, Along::Outer, layer.tile);
        let (image, o) = (stretch * depth + k, tile.first_column + column);
        let mut value = 0.0f32;
        if image < batch.length && o < outputs {
            value = memory.scratch[batch.scratch + comptime!(layer.deltas_out) + image * outputs + o];
        }
        tile.next_right[part] = value;
    }
}
