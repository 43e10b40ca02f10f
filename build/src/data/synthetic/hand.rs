//! The hand: from a skeleton to the path of the pen over one image, with the variation of handwriting.

use super::strokes::{Skeleton, Stroke};
use crate::data::sets::SYNTHETIC;
use crate::rng::Stream;

/// A position: x to the right, y down; in digit heights until [`fit`], in pixels after it.
pub type Point = [f32; 2];

/// Straight pieces of the path between two points of a skeleton.
const PIECES: usize = 6;
/// Rows and columns of the grid of random shifts that the elastic warp smooths.
const GRID: usize = 5;
/// Longer side of the box that a digit fills, as in MNIST, in pixels.
const BOX: f32 = SYNTHETIC.frame.box_side as f32;
/// The position of the centre of mass in MNIST's files: the middle of the pixel right of and below the image's centre.
const CENTRE: f32 = (SYNTHETIC.frame.side / 2) as f32 + 0.5;

/// Writes `skeleton` once and returns the strokes of the pen in pixels, (strokes, points).
pub fn write(skeleton: Skeleton, stream: &mut Stream) -> Vec<Vec<Point>> {
    let corners = jitter(skeleton, stream);
    let mut path: Vec<Vec<Point>> = corners.iter().map(|stroke| smooth(stroke)).collect();
    let affine = Affine::random(stream);
    let shifts = Shifts::random(stream);
    for point in path.iter_mut().flatten() {
        *point = shifts.apply(affine.apply(*point));
    }
    fit(&mut path, stream);
    path
}

/// A random number, approximately normal with this mean and standard deviation.
pub fn near(mean: f32, spread: f32, stream: &mut Stream) -> f32 {
    mean + spread * stream.bell() as f32
}

/// Moves every point of the skeleton a little; equal points of one digit stay equal.
fn jitter(skeleton: Skeleton, stream: &mut Stream) -> Vec<Vec<Point>> {
    const SPREAD: f32 = 0.024;
    let mut moved: Vec<((i16, i16), Point)> = Vec::with_capacity(16);
    let mut place = |from: &(i16, i16)| match moved.iter().find(|(known, _)| known == from) {
        Some((_, to)) => *to,
        None => {
            let to = [near(f32::from(from.0) / 100.0, SPREAD, stream), near(f32::from(from.1) / 100.0, SPREAD, stream)];
            moved.push((*from, to));
            to
        }
    };
    skeleton.iter().map(|stroke: &Stroke| stroke.iter().map(&mut place).collect()).collect()
}

/// The smooth curve through the points of a stroke, as short straight pieces; a doubled point is a corner.
fn smooth(points: &[Point]) -> Vec<Point> {
    let mut curve = vec![points[0]];
    let mut start = 0;
    for end in 1..=points.len() {
        if end == points.len() || points[end] == points[end - 1] {
            extend(&mut curve, &points[start..end]);
            start = end;
        }
    }
    curve
}

/// Appends the curve through `points` without its first point.
///
/// The curve is a uniform Catmull-Rom spline; at either end it follows the parabola through the last three points.
/// Source: Catmull, Rom: A Class of Local Interpolating Splines, 1974.
fn extend(curve: &mut Vec<Point>, points: &[Point]) {
    let beyond = |end: Point, next: Point, third: Option<&Point>| match third {
        Some(third) => [0, 1].map(|axis| 3.0 * (end[axis] - next[axis]) + third[axis]),
        None => [0, 1].map(|axis| 2.0 * end[axis] - next[axis]),
    };
    for (i, span) in points.windows(2).enumerate() {
        let [from, to] = [span[0], span[1]];
        let before = if i > 0 { points[i - 1] } else { beyond(from, to, points.get(2)) };
        let after = match points.get(i + 2) {
            Some(after) => *after,
            None => beyond(to, from, i.checked_sub(1).map(|third| &points[third])),
        };
        for piece in 1..=PIECES {
            let t = piece as f32 / PIECES as f32;
            curve.push([0, 1].map(|axis| {
                let (p0, p1, p2, p3) = (before[axis], from[axis], to[axis], after[axis]);
                let cubic = 3.0 * (p1 - p2) + p3 - p0;
                let square = 2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3;
                p1 + 0.5 * t * (p2 - p0 + t * (square + t * cubic))
            }));
        }
    }
}

/// Width, slant and rotation of one digit, about its middle.
struct Affine {
    x: Point,
    y: Point,
}

impl Affine {
    fn random(stream: &mut Stream) -> Self {
        let width = near(0.9, 0.17, stream).max(0.55);
        let slant = near(0.10, 0.20, stream);
        // t is the tangent of half the angle: cosine and sine follow from it without trigonometric functions.
        let t = near(0.0, 0.07, stream);
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        // Widen, then slant (x falls as y grows downwards), then rotate.
        Self { x: [cos * width, -cos * slant - sin], y: [sin * width, cos - sin * slant] }
    }

    fn apply(&self, point: Point) -> Point {
        let [x, y] = [point[0] - 0.5, point[1] - 0.5];
        [0.5 + self.x[0] * x + self.x[1] * y, 0.5 + self.y[0] * x + self.y[1] * y]
    }
}

/// A smooth random field of shifts: cubic B-splines over a grid that covers the digit.
///
/// After Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis,
/// ICDAR 2003, who use a Gaussian filter where this uses splines.
struct Shifts {
    grid: [[Point; GRID]; GRID],
}

impl Shifts {
    fn random(stream: &mut Stream) -> Self {
        const SPREAD: f32 = 0.18;
        let mut grid = [[[0.0; 2]; GRID]; GRID];
        for shift in grid.iter_mut().flatten().flatten() {
            *shift = near(0.0, SPREAD, stream);
        }
        Self { grid }
    }

    fn apply(&self, point: Point) -> Point {
        let [(column, across), (row, down)] = point.map(cell);
        let mut moved = point;
        for (i, weight_y) in down.into_iter().enumerate() {
            for (j, weight_x) in across.into_iter().enumerate() {
                let shift = self.grid[row + i][column + j];
                moved[0] += weight_y * weight_x * shift[0];
                moved[1] += weight_y * weight_x * shift[1];
            }
        }
        moved
    }
}

/// The first of the four grid lines that influence `place`, and their weights.
fn cell(place: f32) -> (usize, [f32; 4]) {
    const CELLS: f32 = (GRID - 3) as f32;
    let scaled = (place * CELLS).clamp(0.0, CELLS);
    let first = (scaled as usize).min(GRID - 4);
    let t = scaled - first as f32;
    let s = 1.0 - t;
    let inner = |u: f32| (3.0 * u * u * u - 6.0 * u * u + 4.0) / 6.0;
    (first, [s * s * s / 6.0, inner(t), inner(s), t * t * t / 6.0])
}

/// Scales the path into the box and moves its centre of mass to the image's centre, both with a small random error.
fn fit(path: &mut [Vec<Point>], stream: &mut Stream) {
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    let (mut mass, mut moment) = (0.0, [0.0; 2]);
    for stroke in path.iter() {
        for point in stroke {
            for axis in [0, 1] {
                low[axis] = low[axis].min(point[axis]);
                high[axis] = high[axis].max(point[axis]);
            }
        }
        for piece in stroke.windows(2) {
            let [x, y] = [piece[1][0] - piece[0][0], piece[1][1] - piece[0][1]];
            let length = (x * x + y * y).sqrt();
            mass += length;
            for axis in [0, 1] {
                moment[axis] += length * 0.5 * (piece[0][axis] + piece[1][axis]);
            }
        }
    }
    // The ink fills the box, so the path keeps about the pen's radius away from its border.
    let size = (high[0] - low[0]).max(high[1] - low[1]);
    let scale = near(BOX - 3.2, 0.8, stream) / size;
    let centre = [0, 1].map(|_| near(CENTRE, 0.5, stream));
    for point in path.iter_mut().flatten() {
        *point = [0, 1].map(|axis| centre[axis] + scale * (point[axis] - moment[axis] / mass));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_pass_through_their_points_and_keep_their_corners() {
        let corner = [0.5, 0.0];
        let curve = smooth(&[[0.0, 0.3], corner, corner, [0.5, 1.0], [0.7, 1.2]]);
        assert_eq!(curve.len(), 1 + 3 * PIECES);
        for (place, point) in [(PIECES, corner), (2 * PIECES, [0.5, 1.0])] {
            assert!((0..2).all(|axis| (curve[place][axis] - point[axis]).abs() < 1e-6), "{:?}", curve[place]);
        }
        // The line before the corner is straight: it does not bend towards the points after the corner.
        for point in &curve[..PIECES] {
            assert!((point[1] - (0.3 - 0.6 * point[0])).abs() < 1e-6, "{point:?}");
        }
    }

    #[test]
    fn the_weights_of_the_warp_sum_to_one_everywhere() {
        for step in -5..=25 {
            let (first, weights) = cell(step as f32 / 20.0);
            assert!(first + 4 <= GRID);
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(weights.iter().all(|weight| *weight >= 0.0));
        }
    }
}
