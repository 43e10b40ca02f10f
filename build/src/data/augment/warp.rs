//! One distorted image: random numbers, the place in the original of each pixel, and resampling there.
//!
//! Plain arithmetic without fused multiply-add, on rows of blocks that the compiler turns into vectors: the same bytes with
//! every instruction set.

#![expect(clippy::needless_range_loop, reason = "loops over several arrays alike, by indices that become vectors")]

use super::Augmentation;
use crate::rng::{Purpose, Stream};
use crate::simd::{InstructionSet, Job, LANES, Simd};

/// Darker shades become black, since black pixels cost training nothing.
const NEARLY_BLACK: f32 = 8.0;
/// Black rows and columns before an image. After it are twice as many, since resampling reads one beyond.
const MARGIN: usize = 1;
/// Adding it to a number from 0 to 2^22 rounds it to a whole one, which then stands in the lowest bits.
const ROUNDER: f32 = 8_388_608.0;

/// Sixteen numbers.
type Lanes = [f32; LANES];

/// Distorts images of one size.
pub struct Warper {
    augmentation: Augmentation,
    seed: u64,
    set: InstructionSet,
    side: usize,
    /// Blocks in a row of the image.
    blocks: usize,
    /// (blocks): the number of each pixel in a row.
    columns: Vec<Lanes>,
    /// Points of the grid along each axis.
    points: usize,
    /// The standard deviation of a grid point's displacement, in pixels.
    spread: f32,
    /// (points, blocks): the weight of each point for each pixel of a row, or of a column.
    basis: Vec<Lanes>,
}

/// What [`Warper::warp`] works in.
pub struct Scratch {
    /// The original with black margins.
    original: Vec<u8>,
    /// The same, each pixel with its right neighbour and the two below them.
    squares: Vec<[u8; 4]>,
    /// (2, points, points) displacements along x, then y.
    grid: Vec<f32>,
    /// (2, points, blocks): the same along the rows of the grid, for each pixel of a row.
    rows: Vec<Lanes>,
    /// (2, side, blocks): where each pixel comes from, along x, then y; then how far beyond a whole number that is.
    places: [Vec<Lanes>; 2],
    /// (side, blocks): the square that each pixel comes from.
    from: Vec<u32>,
    /// (side, blocks) shades.
    shades: Vec<u8>,
}

impl Warper {
    /// Distorts images of `side` x `side` pixels.
    pub fn new(augmentation: Augmentation, side: usize, seed: u64, set: InstructionSet) -> Self {
        let blocks = side.div_ceil(LANES);
        // A cubic B-spline has the standard deviation of its spacing by the root of 3.
        let spacing = augmentation.elastic.sigma * 3f64.sqrt();
        let cells = ((side as f64 - 1.0) / spacing).ceil().max(1.0);
        let points = cells as usize + 3;
        // The grid's middle is that of the image.
        let first = (cells - (side as f64 - 1.0) / spacing) / 2.0;
        let mut basis = vec![[0.0; LANES]; points * blocks];
        for pixel in 0..side {
            let place = first + pixel as f64 / spacing;
            for point in 0..points {
                let weight = b_spline(place - (point as f64 - 1.0));
                basis[point * blocks + pixel / LANES][pixel % LANES] = weight as f32;
            }
        }
        let spread = (augmentation.elastic.rms() / B_SPLINE_SQUARE) as f32;
        let columns = (0..blocks).map(|block| std::array::from_fn(|lane| (block * LANES + lane) as f32)).collect();
        Self { augmentation, seed, set, side, blocks, columns, points, spread, basis }
    }

    /// Space to work in.
    pub fn scratch(&self) -> Scratch {
        let (blocks, padded) = (self.side * self.blocks, self.stride() * self.stride());
        Scratch {
            original: vec![0; padded + self.stride() + 1],
            squares: vec![[0; 4]; padded],
            grid: vec![0.0; 2 * self.points * self.points],
            rows: vec![[0.0; LANES]; 2 * self.points * self.blocks],
            places: [0, 1].map(|_| vec![[0.0; LANES]; blocks]),
            from: vec![0; blocks * LANES],
            shades: vec![0; blocks * LANES],
        }
    }

    /// From row to row of the original with its margins.
    fn stride(&self) -> usize {
        self.side + 3 * MARGIN
    }

    /// Writes `original` (D), distorted as image number `index` is in `epoch`, to `to` (D).
    pub fn warp(&self, original: &[u8], epoch: u64, index: u64, scratch: &mut Scratch, to: &mut [u8]) {
        let rows = scratch.original.chunks_mut(self.stride()).skip(MARGIN);
        for (row, from) in rows.zip(original.chunks(self.side)) {
            row[MARGIN..MARGIN + self.side].copy_from_slice(from);
        }
        // One stream an image and epoch; 2^32 images are more than files of a set hold.
        let mut stream = Stream::new(self.seed, Purpose::Augmentation, epoch << 32 | index);
        let affine = self.affine(&mut stream);
        if self.spread > 0.0 {
            scratch.grid.iter_mut().for_each(|point| *point = self.spread * stream.bell() as f32);
        }
        self.set.run(Resampling { warper: self, affine, scratch, to });
    }

    /// The places in the original: for pixel (x, y) those of the returned rows times (x, y, 1).
    fn affine(&self, stream: &mut Stream) -> [[f32; 3]; 2] {
        let Augmentation { rotation, scale, shear, shift, .. } = self.augmentation;
        let mut within = |most: f64| most * (2.0 * stream.uniform() - 1.0);
        let (sin, cos) = sin_cos(within(rotation).to_radians());
        let [width, height] = [1.0 + within(scale), 1.0 + within(scale)];
        let slant = within(shear);
        let [right, down] = [within(shift), within(shift)];
        // Scale, then shear, then rotate, about the middle.
        let x = [cos * width, (cos * slant - sin) * height];
        let y = [sin * width, (sin * slant + cos) * height];
        let middle = (self.side as f64 - 1.0) / 2.0;
        let margin = MARGIN as f64;
        let row = |[a, b]: [f64; 2], shift: f64| [a, b, middle - middle * (a + b) + shift + margin].map(|c| c as f32);
        [row(x, right), row(y, down)]
    }
}

/// The resampling of one image.
struct Resampling<'a> {
    warper: &'a Warper,
    affine: [[f32; 3]; 2],
    scratch: &'a mut Scratch,
    to: &'a mut [u8],
}

impl Job for Resampling<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { warper, affine, scratch, to } = self;
        let Scratch { original, squares, grid, rows, places, from, shades } = scratch;
        make_squares(original, warper.stride(), squares);
        affine_places(affine, warper, places);
        if warper.spread > 0.0 {
            spread_along_rows(grid, warper, rows);
            displace(rows, warper, places);
        }
        let [x, y] = places.each_mut().map(|places| places.as_flattened_mut());
        find_squares(x, y, warper, from);
        interpolate(squares, from, x, y, shades);
        for (to, shades) in to.chunks_mut(warper.side).zip(shades.chunks(warper.blocks * LANES)) {
            to.copy_from_slice(&shades[..to.len()]);
        }
    }
}

/// Puts each pixel of `original`, whose rows lie `stride` apart, together with its right neighbour and the two below them.
#[inline(always)]
fn make_squares(original: &[u8], stride: usize, squares: &mut [[u8; 4]]) {
    let count = squares.len();
    let [a, b, c, d] = [0, 1, stride, stride + 1].map(|at| &original[at..at + count]);
    for at in 0..count {
        squares[at] = [a[at], b[at], c[at], d[at]];
    }
}

/// Where each pixel comes from without elastic distortion.
#[inline(always)]
fn affine_places(affine: [[f32; 3]; 2], warper: &Warper, places: &mut [Vec<Lanes>; 2]) {
    for axis in 0..2 {
        let [a, b, c] = affine[axis];
        for y in 0..warper.side {
            for block in 0..warper.blocks {
                let begin = b * y as f32 + c;
                let lanes = &mut places[axis][y * warper.blocks + block];
                for lane in 0..LANES {
                    lanes[lane] = a * warper.columns[block][lane] + begin;
                }
            }
        }
    }
}

/// For each row of `grid` (2, points, points), the displacement of each pixel along it: `rows` (2, points, blocks).
#[inline(always)]
fn spread_along_rows(grid: &[f32], warper: &Warper, rows: &mut [Lanes]) {
    let Warper { blocks, points, ref basis, .. } = *warper;
    for row in 0..2 * points {
        for block in 0..blocks {
            let mut sum = [0.0; LANES];
            for point in 0..points {
                add_scaled(&mut sum, grid[row * points + point], &basis[point * blocks + block]);
            }
            rows[row * blocks + block] = sum;
        }
    }
}

/// Adds to each place its displacement.
#[inline(always)]
fn displace(rows: &[Lanes], warper: &Warper, places: &mut [Vec<Lanes>; 2]) {
    let Warper { side, blocks, points, ref basis, .. } = *warper;
    for y in 0..side {
        for point in 0..points {
            let weight = basis[point * blocks + y / LANES][y % LANES];
            if weight != 0.0 {
                for axis in 0..2 {
                    for block in 0..blocks {
                        let row = &rows[(axis * points + point) * blocks + block];
                        add_scaled(&mut places[axis][y * blocks + block], weight, row);
                    }
                }
            }
        }
    }
}

/// `sum += weight * lanes`.
#[inline(always)]
fn add_scaled(sum: &mut Lanes, weight: f32, lanes: &Lanes) {
    for lane in 0..LANES {
        sum[lane] += weight * lanes[lane];
    }
}

/// The number of the square that each place (`x`, `y`) lies in, and in `x` and `y` how far into it.
#[inline(always)]
fn find_squares(x: &mut [f32], y: &mut [f32], warper: &Warper, from: &mut [u32]) {
    let (last, stride) = ((warper.side + MARGIN) as f32, warper.stride() as u32);
    let count = from.len();
    let (x, y) = (&mut x[..count], &mut y[..count]);
    for at in 0..count {
        // Beyond the margin all is black. At a whole number the part before it may be one less; the rest is then 1.
        let split = |place: f32| {
            let place = if place > 0.0 { place } else { 0.0 };
            let place = if place < last { place } else { last };
            let whole = (if place > 0.5 { place - 0.5 } else { 0.0 }) + ROUNDER;
            (whole.to_bits() & 0x7f_ffff, place - (whole - ROUNDER))
        };
        let ((column, right), (row, down)) = (split(x[at]), split(y[at]));
        from[at] = row * stride + column;
        (x[at], y[at]) = (right, down);
    }
}

/// The shade of each pixel: the bilinear interpolation in the square `from` at `x` and `y`.
#[inline(always)]
fn interpolate(squares: &[[u8; 4]], from: &mut [u32], x: &[f32], y: &[f32], shades: &mut [u8]) {
    for place in from.iter_mut() {
        *place = squares.get(*place as usize).map_or(0, |square| u32::from_le_bytes(*square));
    }
    let count = shades.len();
    let (from, x, y) = (&from[..count], &x[..count], &y[..count]);
    for at in 0..count {
        let corner = |corner: u32| (from[at] >> (8 * corner) & 0xff) as i32 as f32;
        let above = corner(0) + x[at] * (corner(1) - corner(0));
        let below = corner(2) + x[at] * (corner(3) - corner(2));
        let shade = above + y[at] * (below - above);
        let shade = if shade < NEARLY_BLACK { 0.0 } else { shade };
        shades[at] = (shade + ROUNDER).to_bits() as u8;
    }
}

/// The cubic B-spline with knots at whole numbers.
fn b_spline(x: f64) -> f64 {
    let x = x.abs();
    if x >= 2.0 {
        0.0
    } else if x >= 1.0 {
        (2.0 - x).powi(3) / 6.0
    } else {
        2.0 / 3.0 - x * x + x * x * x / 2.0
    }
}

/// The integral of the squared B-spline. A displacement sums over the grid with B-splines of x times those of y, so that its
/// mean square is that of a grid point times the square of this number.
const B_SPLINE_SQUARE: f64 = 151.0 / 315.0;

/// Sine and cosine by their series, the same on every machine, for angles up to a half turn.
fn sin_cos(angle: f64) -> (f64, f64) {
    let (mut sin, mut cos, mut term) = (0.0, 0.0, 1.0);
    for n in 0..24 {
        match n % 4 {
            0 => cos += term,
            1 => sin += term,
            2 => cos -= term,
            _ => sin -= term,
        }
        term *= angle / f64::from(n + 1);
    }
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::Elastic;

    const NONE: Augmentation =
        Augmentation { rotation: 0.0, scale: 0.0, shear: 0.0, shift: 0.0, elastic: Elastic { sigma: 4.0, alpha: 0.0 } };
    const ALL: Augmentation = Augmentation {
        rotation: 15.0,
        scale: 0.2,
        shear: 0.1,
        shift: 2.0,
        elastic: Elastic { sigma: 4.0, alpha: 34.0 },
    };

    fn warped(augmentation: Augmentation, side: usize, original: &[u8], epoch: u64, set: InstructionSet) -> Vec<u8> {
        let warper = Warper::new(augmentation, side, 42, set);
        let mut to = vec![1; side * side];
        warper.warp(original, epoch, 3, &mut warper.scratch(), &mut to);
        to
    }

    /// A disc, white on black, about a place.
    fn disc(side: usize, x: f64, y: f64) -> Vec<u8> {
        let inside = |at: usize| ((at % side) as f64 - x).hypot((at / side) as f64 - y) < 4.0;
        (0..side * side).map(|at| if inside(at) { 250 } else { 0 }).collect()
    }

    #[test]
    fn without_distortion_an_image_stays_as_it_is() {
        for side in [28, 5, 33] {
            let original: Vec<u8> =
                (0..side * side).map(|at| if at % 3 == 0 { 0 } else { (at % 200 + 50) as u8 }).collect();
            assert_eq!(warped(NONE, side, &original, 0, InstructionSet::available()[0]), original);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bytes_and_every_epoch_others() {
        let original = disc(28, 12.0, 15.0);
        let of = |epoch, set| warped(ALL, 28, &original, epoch, set);
        let sets = InstructionSet::available();
        for set in &sets {
            assert_eq!(of(0, *set), of(0, sets[0]), "{}", set.name());
        }
        assert_ne!(of(0, sets[0]), of(1, sets[0]));
    }

    /// The displacements of many images against Simard's field: noise, filtered by a Gaussian.
    #[test]
    fn displacements_have_the_stated_size_and_smoothness() {
        let elastic = Elastic { sigma: 4.0, alpha: 34.0 };
        assert!((elastic.rms() - 1.384).abs() < 1e-3);
        let warper = Warper::new(Augmentation { elastic, ..NONE }, 28, 1, InstructionSet::available()[0]);
        let (mut square, mut product, mut fields) = (0.0, 0.0, 0);
        let mut scratch = warper.scratch();
        for index in 0..2000 {
            warper.warp(&[0; 784], 0, index, &mut scratch, &mut [0; 784]);
            for axis in 0..2 {
                let at = |x: usize, y: usize| -> f64 {
                    let weight = |point: usize| warper.basis[point * warper.blocks + y / LANES][y % LANES];
                    let row = |point: usize| {
                        scratch.rows[(axis * warper.points + point) * warper.blocks + x / LANES][x % LANES]
                    };
                    (0..warper.points).map(|point| f64::from(weight(point) * row(point))).sum()
                };
                for (x, y) in [(0, 0), (13, 9), (20, 20), (27, 14)] {
                    square += at(x, y).powi(2);
                    product += at(x, y) * at(if x < 14 { x + 4 } else { x - 4 }, y);
                    fields += 1;
                }
            }
        }
        let rms = (square / f64::from(fields)).sqrt();
        assert!((rms / elastic.rms() - 1.0).abs() < 0.03, "{rms}");
        // A Gaussian filter gives exp(-d^2 / (4 sigma^2)) = 0.779 at 4 pixels.
        let correlation = product / square;
        assert!((correlation - 0.779).abs() < 0.03, "{correlation}");
    }

    #[test]
    fn an_affine_distortion_moves_the_middle_by_at_most_the_shift() {
        let set = InstructionSet::available()[0];
        let shifted = Augmentation { shift: 2.0, ..NONE };
        let mut most = 0.0f64;
        for epoch in 0..200 {
            let image = warped(shifted, 28, &disc(28, 13.5, 13.5), epoch, set);
            let mass: f64 = image.iter().map(|&p| f64::from(p)).sum();
            let centre = |place: fn(usize) -> usize| {
                image.iter().enumerate().map(|(at, &p)| place(at) as f64 * f64::from(p)).sum::<f64>() / mass
            };
            for centre in [centre(|at| at % 28), centre(|at| at / 28)] {
                most = most.max((centre - 13.5).abs());
            }
        }
        assert!((1.8..=2.05).contains(&most), "{most}");
    }

    #[test]
    fn rotation_is_in_degrees() {
        for angle in [0.0f64, 7.0, -15.0, 45.0, 180.0] {
            let (sin, cos) = sin_cos(angle.to_radians());
            assert!((sin - angle.to_radians().sin()).abs() < 1e-9 && (cos - angle.to_radians().cos()).abs() < 1e-9);
        }
        let warper = Warper::new(Augmentation { rotation: 30.0, ..NONE }, 28, 1, InstructionSet::available()[0]);
        let angles = (0..1000).map(|n| {
            let [[cos, _, _], [sin, _, _]] = warper.affine(&mut Stream::new(1, Purpose::Augmentation, n));
            f64::from(sin).atan2(cos.into()).to_degrees().abs()
        });
        let most = angles.fold(0.0, f64::max);
        assert!((29.8..=30.0).contains(&most), "{most}");
    }
}
