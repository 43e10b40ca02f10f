//! Takes away what surrounds a digit: a printed box, ruled lines, the edge of the sheet, the table that it lies on.

use super::Picture;
use super::doubt::Doubt;
use super::ink::{Ink, Patch, regions};
use super::paper;

/// A patch that is not smaller than this part of its surroundings may be the digit.
const LEAST_DIGIT: usize = 4;
/// A sheet fills this part of the box around it, even if it is turned by some degrees. A thick 0 fills less.
const SQUARE: f32 = 0.85;
/// Lines of a box cover at least this share of each side. A digit covers less of at least one side.
const COVERED: f32 = 0.9;
/// The lines of a box lie within this part of its sides: it may be turned by a degree.
const BAND: usize = 25;

/// The ink of `picture` without the digit's surroundings, and the doubt that they leave, if there were any.
///
/// # Errors
/// The picture shows nothing, as the end of a sentence that begins with its name.
pub fn ink_without(picture: &Picture) -> Result<(Ink, Option<Doubt>), String> {
    let mut ink = paper::ink(picture)?;
    let mut patches = ink.patches();
    let on_sheet = sheet(&ink, &patches).and_then(|sheet| paper::ink(&crop(picture, sheet)).ok());
    let mut is_framed = on_sheet.is_some();
    if let Some(on_sheet) = on_sheet {
        ink = on_sheet;
        patches = ink.patches();
    }
    for remove in [remove_at_edges, remove_enclosure] {
        if remove(&mut ink, &patches) {
            is_framed = true;
            patches = ink.patches();
        }
    }
    let box_doubt = remove_box(&mut ink, &patches);
    Ok((ink, box_doubt.or(is_framed.then_some(Doubt::Framed))))
}

/// The patch that is a sheet of paper, on something else, if there is one: it covers more than half of the picture, does
/// not reach the picture's edge, and is square but for what is on it.
fn sheet<'a>(ink: &Ink, patches: &'a [Patch]) -> Option<&'a Patch> {
    let sheet = patches.first()?;
    if 2 * sheet.pixels.len() <= ink.values.len() || ink.reaches_edge(&sheet.pixels) {
        return None;
    }
    let inside = outside(ink, sheet).into_iter().filter(|is_outside| !is_outside).count();
    (inside as f32 >= SQUARE * (sheet.width() * sheet.height()) as f32).then_some(sheet)
}

/// Which pixels of the picture are around `patch`: not of it, and not enclosed by it.
fn outside(ink: &Ink, patch: &Patch) -> Vec<bool> {
    let mut is_patch = vec![false; ink.values.len()];
    patch.pixels.iter().for_each(|&at| is_patch[at] = true);
    let mut is_outside = vec![false; ink.values.len()];
    let others = regions(ink.width, ink.values.len(), false, |at| !is_patch[at]);
    for region in others.filter(|region| ink.reaches_edge(region)) {
        region.into_iter().for_each(|at| is_outside[at] = true);
    }
    is_outside
}

/// The part of `picture` that is within `patch`, without its blurred edge.
fn crop(picture: &Picture, patch: &Patch) -> Picture {
    let edge = 1 + patch.longer_side() / 100;
    let inside = |(low, high): (usize, usize)| (low + edge, (high + 1).saturating_sub(edge).max(low + edge + 1));
    let ((left, right), (top, bottom)) = (inside(patch.x), inside(patch.y));
    let (right, bottom) = (right.min(picture.width), bottom.min(picture.height));
    let rows = picture.pixels.chunks(picture.width).take(bottom).skip(top);
    let pixels = rows.flat_map(|row| row.get(left..right).unwrap_or_default()).copied().collect();
    Picture { width: right - left, height: bottom - top, pixels }
}

/// Removes patches that touch the picture's edge if another one does not: lines, shadows, neighbours.
fn remove_at_edges(ink: &mut Ink, patches: &[Patch]) -> bool {
    let least = ink.width.min(ink.height) / LEAST_DIGIT;
    let patches = patches.iter().filter(|patch| patch.longer_side() >= least);
    let (outer, inner): (Vec<_>, Vec<_>) = patches.partition(|patch| ink.reaches_edge(&patch.pixels));
    if inner.is_empty() || outer.is_empty() {
        return false;
    }
    outer.iter().for_each(|patch| ink.remove(patch));
    true
}

/// Removes a patch that encloses another one: a box or a circle around the digit.
fn remove_enclosure(ink: &mut Ink, patches: &[Patch]) -> bool {
    let Some(outer) = patches.iter().max_by_key(|patch| patch.longer_side()) else { return false };
    let least = outer.longer_side() / LEAST_DIGIT;
    let within = |(low, high): (usize, usize), (first, last): (usize, usize)| low < first && last < high;
    let inner: Vec<&Patch> = patches
        .iter()
        .filter(|patch| patch.longer_side() >= least && within(outer.x, patch.x) && within(outer.y, patch.y))
        .collect();
    if inner.is_empty() {
        return false;
    }
    let is_outside = outside(ink, outer);
    let found = inner.iter().any(|patch| !is_outside[patch.pixels[0]]);
    if found {
        ink.remove(outer);
    }
    found
}

/// Removes the lines of a box that the digit touches, so that box and digit are one patch. A box without a digit stays.
fn remove_box(ink: &mut Ink, patches: &[Patch]) -> Option<Doubt> {
    let outer = patches.first()?;
    let sides = [Side::Top, Side::Bottom, Side::Left, Side::Right];
    let lines = sides.into_iter().map(|side| line(ink, outer, side)).collect::<Option<Vec<_>>>()?;
    let mut inside = ink.clone();
    lines.into_iter().flatten().for_each(|at| inside.values[at] = 0.0);
    let digit = inside.patches().into_iter().next();
    if digit.is_none_or(|digit| digit.longer_side() < outer.longer_side() / LEAST_DIGIT) {
        return Some(Doubt::UnlikeADigit);
    }
    *ink = inside;
    Some(Doubt::Framed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Top,
    Bottom,
    Left,
    Right,
}

/// The pixels of the line along one side of the box around `patch`, if there is one.
fn line(ink: &Ink, patch: &Patch, side: Side) -> Option<Vec<usize>> {
    let (along, across) = match side {
        Side::Top | Side::Bottom => (patch.x, patch.y),
        Side::Left | Side::Right => (patch.y, patch.x),
    };
    let (length, most) = (along.1 + 1 - along.0, across.1 + 1 - across.0);
    let band = 2 + patch.longer_side() / BAND;
    if most < 4 * band {
        return None;
    }
    // From each place along the side one looks inwards for the line.
    let at = |place: usize, depth: usize| match side {
        Side::Top => (across.0 + depth) * ink.width + place,
        Side::Bottom => (across.1 - depth) * ink.width + place,
        Side::Left => place * ink.width + across.0 + depth,
        Side::Right => place * ink.width + across.1 - depth,
    };
    let crossing = |place: usize| {
        let first = (0..band).find(|&depth| ink.values[at(place, depth)] > 0.0)?;
        let end = (first..most).find(|&depth| ink.values[at(place, depth)] == 0.0)?;
        Some((place, first, end))
    };
    let crossings: Vec<_> = (along.0..=along.1).filter_map(crossing).collect();
    let mut widths: Vec<usize> = crossings.iter().map(|(_, first, end)| end - first).collect();
    widths.sort_unstable();
    let width = widths.get(widths.len() / 2).copied().filter(|width| *width <= 2 * band)?;
    // Where the digit touches the line, only the line's own width goes.
    let pixels = crossings
        .iter()
        .flat_map(|&(place, first, end)| (first..end.min(first + width + 1)).map(move |depth| at(place, depth)));
    (crossings.len() as f32 >= COVERED * length as f32).then(|| pixels.collect())
}
