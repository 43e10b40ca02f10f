//! Matrix products by cubes of [`SIDE`] x [`SIDE`] units: a cube makes one [`Tile`] of the result.

use cubecl::prelude::*;

use super::kernels::zeros;
use super::plan::{Along, FETCHED, SIDE, TilePlan, UNITS};

/// A cube's part of a product, see [`super::plan::TilePlan`].
///
/// The product goes through its inner dimension in stretches, with both operands in shared memory. A unit fetches four
/// numbers of each operand, while the stretch before is multiplied.
#[derive(CubeType)]
pub struct Tile {
    /// The left operand's stretch, transposed: rows of the tile's side and one more, so that units write to different banks.
    pub left: Shared<[f32]>,
    /// The right operand's stretch, the same.
    pub right: Shared<[f32]>,
    /// The unit's share of the next stretch.
    pub next_left: Array<f32>,
    pub next_right: Array<f32>,
    /// The unit's sums, (R,R).
    pub sums: Array<f32>,
    /// Where the tile begins in the result.
    pub first_row: usize,
    pub first_column: usize,
    /// The unit's place among those that share out the tile, and which part of each stretch it works on.
    pub x: usize,
    pub y: usize,
    pub part: usize,
}

/// The tile of this cube, with zeros as sums.
#[cube]
pub fn new_tile(#[comptime] plan: TilePlan) -> Tile {
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
pub fn row_of(tile: &Tile, r: usize, #[comptime] plan: TilePlan) -> usize {
    tile.first_row + tile.y + r * comptime!(plan.across())
}

/// Where number `c` of the unit's R columns lies in the result.
#[cube]
pub fn column_of(tile: &Tile, c: usize, #[comptime] plan: TilePlan) -> usize {
    tile.first_column + tile.x + c * comptime!(plan.across())
}

/// Which number (inner, outer) of an operand's stretch is number `part` of the unit's share.
#[cube]
pub fn place_of(part: usize, #[comptime] along: Along, #[comptime] plan: TilePlan) -> (usize, usize) {
    let (side, depth, unit) = (comptime!(plan.side()), comptime!(plan.depth()), UNIT_POS as usize);
    if comptime!(along == Along::Inner) {
        let at = unit + part * UNITS;
        (at % depth, at / depth)
    } else if comptime!(along == Along::Outer) {
        let at = unit + part * UNITS;
        (at / side, at % side)
    } else if comptime!(along == Along::InnerWord) {
        let words = comptime!(depth / FETCHED);
        (unit % words * FETCHED + part, unit / words)
    } else {
        let words = comptime!(side / FETCHED);
        (unit / words, unit % words * FETCHED + part)
    }
}

/// Puts the unit's share of the stretch that it has fetched into shared memory, and waits until all units have.
#[cube]
pub fn put_stretch(tile: &mut Tile, #[comptime] left: Along, #[comptime] right: Along, #[comptime] plan: TilePlan) {
    let line = comptime!(plan.side() + 1);
    #[unroll]
    for part in 0..FETCHED {
        let (k, outer) = place_of(part, left, plan);
        tile.left[k * line + outer] = tile.next_left[part];
        let (k, outer) = place_of(part, right, plan);
        tile.right[k * line + outer] = tile.next_right[part];
    }
    sync_cube();
}

/// Adds the products of the unit's part of the stretch in `left` and `right`. Where the left operand is images, four of five
/// numbers are zero.
#[cube]
pub fn multiply(tile: &mut Tile, #[comptime] plan: TilePlan, #[comptime] images: bool) {
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
pub fn add_parts(tile: &mut Tile, #[comptime] plan: TilePlan) -> bool {
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
