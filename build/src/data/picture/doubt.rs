//! Looks at what a network is shown, since a network also answers where there is no digit.
//!
//! Each rule is a figure that few digits exceed. Behind each: how many of the 10,000 test images of MNIST exceed it, and how
//! many of 4,000 that were drawn as photographs. Together they doubt 0.7 % and 0.8 %.

use std::ops::Range;

use serde::{Serialize, Serializer};

use super::ink::{Ink, Patch, regions};

/// A second patch with this part of the first one's ink is a digit of its own if it stands beside it: 8 and 6.
const SECOND_DIGIT: f64 = 0.2;
/// Patches stand side by side if at most this part of the narrower one is above or below the other.
const OVERLAP: f64 = 0.3;
/// The most patches of a digit: 2 and 1.
const PATCHES: usize = 2;
/// More patches are no digits either, but noise.
const SHAPES: usize = 6;
/// The most ink in specks, as a share of all ink: none and none; noise has 0.27 to 0.45.
const SPECKS: f64 = 0.15;
/// The largest square within the ink has less than this part of the box's side: 6 and 0.
const SQUARE: f64 = 0.45;
/// The most width, in heights: none and none.
const WIDE: f64 = 2.5;
/// The most holes: 17 and 5.
const HOLES: usize = 2;
/// A smaller hole, as a part of the image, is a gap between strokes.
const LEAST_HOLE: f64 = 2.0 / 784.0;
/// The most strokes in a row or column, but for few of them.
const STROKES: usize = 3;
/// Fewer than this part of all rows and columns have more strokes: 12 and 5.
const CROWDED: f64 = 0.125;
/// No digit stands on two legs that are longer than this part of its height, such as an A: 29 and 14.
const LEGS: f64 = 0.25;
/// The legs have a gap of this part of the width between them.
const BETWEEN_LEGS: f64 = 0.25;
/// One leg may end this much higher than the other, in parts of the height.
const UNEVEN: f64 = 0.15;
/// A stroke that ends at the picture's edge covers less than this part of it: none and none.
const EDGE: f64 = 0.05;
/// Strokes whose largest square has this part of the box's side are broad; if they are cut by the edge, they are shadows.
const BROAD: f64 = 0.25;

/// Why not to trust the answer for a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// More than one shape, such as a number of two digits.
    SeveralShapes,
    /// Something around the digit was taken away: a printed box, ruled lines.
    Framed,
    /// A shape that no digit has.
    UnlikeADigit,
}

impl Doubt {
    /// The phrase for people and programs.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::SeveralShapes => "several shapes",
            Self::Framed => "framed",
            Self::UnlikeADigit => "unlike a digit",
        }
    }
}

impl Serialize for Doubt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.phrase())
    }
}

/// The doubt about ink that has these patches besides `specks`, a share of all ink, and that may be cut off by the picture's
/// edge. `image` is what the network sees of it, in a box with this side.
pub fn of(patches: &[Patch], specks: f64, is_cut_off: bool, image: &Ink, box_side: usize) -> Option<Doubt> {
    let shape = Shape::new(image);
    let square = shape.largest_square() as f64 / box_side as f64;
    if patches.len() > SHAPES || specks > SPECKS {
        Some(Doubt::UnlikeADigit)
    } else if patches.len() > PATCHES || stand_side_by_side(patches) {
        Some(Doubt::SeveralShapes)
    } else if square >= if is_cut_off { BROAD } else { SQUARE }
        || shape.width as f64 > WIDE * shape.height as f64
        || holes(image) > HOLES
        || shape.crowded() >= CROWDED
        || shape.legs() >= LEGS
    {
        Some(Doubt::UnlikeADigit)
    } else {
        None
    }
}

/// Whether a patch stands beside the largest one.
fn stand_side_by_side(patches: &[Patch]) -> bool {
    let Some((first, others)) = patches.split_first() else { return false };
    others.iter().filter(|other| other.mass >= SECOND_DIGIT * first.mass).any(|other| {
        let common = (first.x.1.min(other.x.1) + 1).saturating_sub(first.x.0.max(other.x.0));
        common as f64 <= OVERLAP * first.width().min(other.width()) as f64
    })
}

/// Whether the largest patch covers a part of the picture's edge, and not because the picture was cut out around it.
pub fn is_cut_off(ink: &Ink, patches: &[Patch]) -> bool {
    let (width, height) = (ink.width, ink.height);
    let Some(patch) = patches.first() else { return false };
    let fills = (patch.width(), patch.height()) == (width, height);
    let on_edge = patch.pixels.iter().filter(|&&at| ink.is_at_edge(at) && ink.values[at] > 0.5).count();
    !fills && on_edge as f64 >= EDGE * (2 * (width + height)) as f64
}

/// The number of patches of paper within the ink.
fn holes(image: &Ink) -> usize {
    let least = LEAST_HOLE * image.values.len() as f64;
    let paper = regions(image.width, image.values.len(), false, |at| image.values[at] < 0.5);
    paper.filter(|region| region.len() as f64 >= least && !image.reaches_edge(region)).count()
}

/// A digit in its box, as ink and paper without shades.
struct Shape {
    width: usize,
    height: usize,
    /// (height, width).
    is_ink: Vec<bool>,
}

impl Shape {
    fn new(image: &Ink) -> Self {
        let Ink { width, height, values } = image.cut_out();
        Self { width, height, is_ink: values.iter().map(|&ink| ink >= 0.5).collect() }
    }

    fn row(&self, y: usize) -> Vec<Range<usize>> {
        strokes(self.width, |x| self.is_ink[y * self.width + x])
    }

    fn column(&self, x: usize) -> Vec<Range<usize>> {
        strokes(self.height, |y| self.is_ink[y * self.width + x])
    }

    /// The side of the largest square of ink.
    fn largest_square(&self) -> usize {
        // The side of the largest one whose last row and column are those of a pixel.
        let mut sides = vec![0; self.is_ink.len()];
        for at in (0..sides.len()).filter(|&at| self.is_ink[at]) {
            let has_neighbours = at >= self.width && at % self.width > 0;
            let neighbours = || [at - 1, at - self.width, at - self.width - 1].map(|near| sides[near]);
            sides[at] = 1 + if has_neighbours { neighbours().into_iter().min().unwrap_or(0) } else { 0 };
        }
        sides.into_iter().max().unwrap_or(0)
    }

    /// The share of rows and columns with too many strokes, of those in a square box.
    fn crowded(&self) -> f64 {
        let rows = (0..self.height).filter(|&y| self.row(y).len() > STROKES).count();
        let columns = (0..self.width).filter(|&x| self.column(x).len() > STROKES).count();
        (rows + columns) as f64 / (2 * self.width.max(self.height)) as f64
    }

    /// The length of two legs, as a part of the height: of the rows at the bottom that have two strokes far apart.
    fn legs(&self) -> f64 {
        let is_pair = |row: &[Range<usize>]| match row {
            [left, right] => (right.start - left.end) as f64 >= BETWEEN_LEGS * self.width as f64,
            _ => false,
        };
        let is_longer_leg = |row: &[Range<usize>]| row.len() == 1 && 5 * row[0].len() <= 2 * self.width;
        let rows: Vec<_> = (0..self.height).rev().map(|y| self.row(y)).collect();
        let below = rows.iter().take_while(|row| is_longer_leg(row)).count();
        let pairs = rows[below..].iter().take_while(|row| is_pair(row)).count();
        if below as f64 > UNEVEN * self.height as f64 { 0.0 } else { pairs as f64 / self.height as f64 }
    }
}

/// Where a line of `length` pixels has ink.
fn strokes(length: usize, is_ink: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut strokes: Vec<Range<usize>> = Vec::new();
    for at in (0..length).filter(|&at| is_ink(at)) {
        match strokes.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => strokes.push(at..at + 1),
        }
    }
    strokes
}
