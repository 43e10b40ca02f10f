//! From a picture of a digit to an image prepared as in MNIST. The picture may have any size, and be dark on light or light
//! on dark.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>: "the images were size normalized to fit in a 20x20 pixel box while
//! preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique [...]
//! the images were centered in a 28x28 image by computing the center of mass of the pixels".
//!
//! ```text
//! paper    a plane of brightness fitted to the border of the picture, since paper is lit unevenly
//! ink      the difference of each pixel from the paper, darker or lighter, scaled to 0 (paper) to 1 (ink)
//! digit    the ink without specks, cut out; strokes thinner than MNIST's are thickened
//! image    the digit scaled into its box, with the centre of mass at the image's centre
//! ```

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma};

use super::Picture;
use crate::data::sets::Frame;

/// Smallest difference between ink and paper; black and white differ by 1.
const LEAST_CONTRAST: f32 = 0.08;
/// Box side per stroke width. Thinner strokes are thickened; those of MNIST are 2 to 3 pixels wide in a box of 20.
const STROKES_PER_BOX: f32 = 10.0;
/// Before its strokes are thickened, a digit is shrunk to this many times the box: thickening takes longer for large ones.
const SHRUNK_BOXES: f32 = 8.0;
/// Largest deviation that counts as grain of the paper; black and white differ by 1. Ink at the border deviates more.
const MOST_GRAIN: f32 = 0.15;

/// The image (D) of the digit in `picture`, with the digit placed as `frame` says.
///
/// A picture that already is such an image (light on black or the reverse) is not changed.
///
/// # Errors
/// The picture shows nothing, as the end of a sentence that begins with its name.
pub fn prepare(picture: &Picture, frame: Frame) -> Result<Vec<u8>, String> {
    if let Some(image) = already_prepared(picture, frame) {
        return Ok(image);
    }
    let box_side = frame.box_side as f32;
    let least_stroke = box_side / STROKES_PER_BOX;
    let mut ink = Ink { width: picture.width, height: picture.height, values: ink(picture)? };
    ink.remove_specks();
    let mut digit = ink.cut_out();
    if digit.longer_side() > SHRUNK_BOXES * box_side {
        digit = digit.scaled(SHRUNK_BOXES * box_side);
    }
    let scale = box_side / digit.longer_side();
    let thickness = digit.stroke_width() * scale;
    if thickness < least_stroke {
        digit = digit.thickened((least_stroke - thickness) / 2.0 / scale);
    }
    Ok(digit.cut_out().scaled(box_side).centred(frame.side))
}

/// The picture's bytes, light on black, if it has the frame's size and its digit is in place, within a pixel.
fn already_prepared(picture: &Picture, Frame { side, box_side }: Frame) -> Option<Vec<u8>> {
    if (picture.width, picture.height) != (side, side) {
        return None;
    }
    let box_side = box_side as f32;
    let border = |at: usize| [0, side - 1].contains(&(at % side)) || [0, side - 1].contains(&(at / side));
    [picture.pixels.clone(), picture.pixels.iter().map(|value| 1.0 - value).collect()].into_iter().find_map(|values| {
        let black_border = (0..side * side).filter(|&at| border(at)).all(|at| values[at] < 0.1);
        let ink = Ink { width: side, height: side, values };
        if !black_border || ink.values.iter().all(|&ink| ink < 0.5) {
            return None;
        }
        let near = ink.centre_of_mass().iter().all(|centre| (centre - (side / 2) as f32).abs() <= 1.0);
        let fits = (box_side - 2.0..=box_side).contains(&ink.cut_out().longer_side());
        (near && fits).then(|| ink.values.iter().map(|ink| (ink * 255.0).round() as u8).collect())
    })
}

/// The share of ink in each pixel (height, width), 0 to 1.
fn ink(picture: &Picture) -> Result<Vec<f32>, String> {
    let (width, height) = (picture.width, picture.height);
    let rim = (width.min(height) / 40).max(1);
    let at_rim = |x: usize, y: usize| x < rim || y < rim || x + rim >= width || y + rim >= height;
    let places = || (0..width * height).map(|at| (at % width, at / width));
    let border: Vec<(usize, usize)> = places().filter(|&(x, y)| at_rim(x, y)).collect();
    let paper = Plane::of_paper(&border, picture);
    let grain = median(border.iter().map(|&place| paper.below(place, picture).abs()).collect());
    let grain = (3.0 * grain).min(MOST_GRAIN);

    let mut difference: Vec<f32> = places().map(|place| paper.below(place, picture)).collect();
    let sum_of_cubes: f64 = difference.iter().map(|&d| f64::from(d).powi(3)).sum();
    if sum_of_cubes < 0.0 {
        difference.iter_mut().for_each(|d| *d = -*d); // light on dark
    }
    // Full ink is the value that a tenth of the pixels reach, of those that clearly are not paper.
    let mut strongest: Vec<f32> =
        difference.iter().copied().filter(|&d| d > (LEAST_CONTRAST / 2.0).max(grain)).collect();
    strongest.sort_unstable_by(|a, b| b.total_cmp(a));
    let full = strongest.get(strongest.len() / 10).copied().unwrap_or(0.0);
    if full < LEAST_CONTRAST.max(1.5 * grain) {
        return Err("has no digit in it: expected dark on light or light on dark".into());
    }
    let (low, high) = ((0.25 * full).max(grain), 0.85 * full);
    Ok(difference.into_iter().map(|d| ((d - low) / (high - low)).clamp(0.0, 1.0)).collect())
}

/// The median; 0 for no values.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The plane `a + b x + c y`.
struct Plane([f64; 3]);

impl Plane {
    /// The brightness of the paper, from the `border` of a picture. Less than half of the border may be ink.
    ///
    /// Iteratively reweighted least squares: the further a place is from the last plane, the smaller its weight. Ink of a
    /// digit that touches the border thus loses its weight.
    fn of_paper(border: &[(usize, usize)], picture: &Picture) -> Self {
        const ROUNDS: usize = 10;
        let level = median(border.iter().map(|&(x, y)| picture.pixels[y * picture.width + x]).collect());
        let mut paper = Self([level.into(), 0.0, 0.0]);
        for _ in 0..ROUNDS {
            paper = Self::through(border, picture, |place| (paper.below(place, picture).abs() + 0.01).powi(-2));
        }
        paper
    }

    /// The plane with the smallest weighted sum of squared distances to the brightness of `places`.
    fn through(places: &[(usize, usize)], picture: &Picture, weight: impl Fn((usize, usize)) -> f32) -> Self {
        // The normal equations, with the picture's middle as the origin to keep them well conditioned.
        let middle = [picture.width as f64 / 2.0, picture.height as f64 / 2.0];
        let mut matrix = [[0.0; 4]; 3];
        for &(x, y) in places {
            let row = [1.0, x as f64 - middle[0], y as f64 - middle[1]];
            let (value, weight) = (f64::from(picture.pixels[y * picture.width + x]), f64::from(weight((x, y))));
            for i in 0..3 {
                for j in 0..3 {
                    matrix[i][j] += weight * row[i] * row[j];
                }
                matrix[i][3] += weight * row[i] * value;
            }
        }
        for i in 0..3 {
            // If the places do not determine a slope (a picture of one row), it is 0.
            if matrix[i][i].abs() < 1e-9 {
                matrix[i] = [0.0; 4];
                matrix[i][i] = 1.0;
            }
            let pivot = matrix[i];
            for (_, row) in matrix.iter_mut().enumerate().filter(|(other, _)| *other != i) {
                let share = row[i] / pivot[i];
                row.iter_mut().zip(pivot).for_each(|(value, pivot)| *value -= share * pivot);
            }
        }
        let mut solution: [f64; 3] = std::array::from_fn(|i| matrix[i][3] / matrix[i][i]);
        solution[0] -= solution[1] * middle[0] + solution[2] * middle[1];
        Self(solution)
    }

    /// The paper's brightness at a place less the picture's.
    fn below(&self, (x, y): (usize, usize), picture: &Picture) -> f32 {
        self.at(x, y) - picture.pixels[y * picture.width + x]
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        (self.0[0] + self.0[1] * x as f64 + self.0[2] * y as f64) as f32
    }
}

/// The share of ink in each pixel.
struct Ink {
    width: usize,
    height: usize,
    /// (height, width), 0 to 1.
    values: Vec<f32>,
}

impl Ink {
    /// The up to eight neighbours of a pixel.
    fn neighbours(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, height) = (self.width as isize, self.height as isize);
        let (x, y) = (at as isize % width, at as isize / width);
        (-1..=1).flat_map(move |dy| (-1..=1).map(move |dx| (x + dx, y + dy))).filter_map(move |(nx, ny)| {
            let inside = (0..width).contains(&nx) && (0..height).contains(&ny) && (nx, ny) != (x, y);
            inside.then_some((ny * width + nx) as usize)
        })
    }

    /// Removes connected patches with less than a twentieth of the ink of the largest one: dust, noise, a neighbour's
    /// stroke at the edge.
    fn remove_specks(&mut self) {
        let mut patch_of = vec![usize::MAX; self.values.len()];
        let mut masses = Vec::new();
        let mut to_visit = Vec::new();
        for start in 0..self.values.len() {
            if self.values[start] == 0.0 || patch_of[start] != usize::MAX {
                continue;
            }
            let patch = masses.len();
            masses.push(0.0f64);
            patch_of[start] = patch;
            to_visit.push(start);
            while let Some(at) = to_visit.pop() {
                masses[patch] += f64::from(self.values[at]);
                for next in self.neighbours(at) {
                    if self.values[next] > 0.0 && patch_of[next] == usize::MAX {
                        patch_of[next] = patch;
                        to_visit.push(next);
                    }
                }
            }
        }
        let largest = masses.iter().fold(0.0f64, |a, &b| a.max(b));
        for (value, patch) in self.values.iter_mut().zip(patch_of) {
            if *value > 0.0 && masses[patch] < largest / 20.0 {
                *value = 0.0;
            }
        }
    }

    /// The mean width of the strokes in pixels: twice their area over the length of their outline.
    fn stroke_width(&self) -> f32 {
        let area: f32 = self.values.iter().sum();
        let value = |x: usize, y: usize| {
            if (1..=self.width).contains(&x) && (1..=self.height).contains(&y) {
                self.values[(y - 1) * self.width + x - 1]
            } else {
                0.0
            }
        };
        // The length of the outline is the sum of the gradient's lengths.
        let mut outline = 0.0;
        for y in 0..=self.height {
            for x in 0..=self.width {
                let [a, b, c, d] = [value(x, y), value(x + 1, y), value(x, y + 1), value(x + 1, y + 1)];
                outline += (0.5 * (b + d - a - c)).hypot(0.5 * (c + d - a - b));
            }
        }
        2.0 * area / outline.max(1e-6)
    }

    /// A copy with every stroke wider by `radius` pixels on each side.
    fn thickened(&self, radius: f32) -> Self {
        let margin = radius.ceil() as usize;
        let reach = margin as isize;
        let (width, height) = (self.width + 2 * margin, self.height + 2 * margin);
        let mut values = vec![0.0f32; width * height];
        let disc: Vec<(isize, isize, f32)> = (-reach..=reach)
            .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
            .map(|(dx, dy)| (dx, dy, (radius + 0.5 - (dx as f32).hypot(dy as f32)).clamp(0.0, 1.0)))
            .map(|(dx, dy, share)| (dx, dy, if (dx, dy) == (0, 0) { 1.0 } else { share }))
            .filter(|&(_, _, share)| share > 0.0)
            .collect();
        for (at, &ink) in self.values.iter().enumerate().filter(|(_, ink)| **ink > 0.0) {
            let (x, y) = ((at % self.width + margin) as isize, (at / self.width + margin) as isize);
            for &(dx, dy, share) in &disc {
                let to = &mut values[(y + dy) as usize * width + (x + dx) as usize];
                *to = to.max(ink * share);
            }
        }
        Self { width, height, values }
    }

    /// The box around all ink that is at least half as strong as the strongest. Some ink must be left.
    fn cut_out(&self) -> Self {
        let half = self.values.iter().fold(0.0f32, |a, &b| a.max(b)) / 2.0;
        let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, usize::MAX, 0);
        for (at, _) in self.values.iter().enumerate().filter(|(_, ink)| **ink >= half) {
            let (x, y) = (at % self.width, at / self.width);
            (left, right) = (left.min(x), right.max(x));
            (top, bottom) = (top.min(y), bottom.max(y));
        }
        let rows = self.values.chunks(self.width).take(bottom + 1).skip(top);
        Self {
            width: right - left + 1,
            height: bottom - top + 1,
            values: rows.flat_map(|row| &row[left..=right]).copied().collect(),
        }
    }

    fn longer_side(&self) -> f32 {
        self.width.max(self.height) as f32
    }

    /// A copy shrunk or enlarged to this longer side.
    fn scaled(&self, longer_side: f32) -> Self {
        let scale = longer_side / self.longer_side();
        let side = |side: usize| ((side as f32 * scale).round() as u32).max(1);
        let from = ImageBuffer::from_fn(self.width as u32, self.height as u32, |x, y| {
            Luma([self.values[y as usize * self.width + x as usize]])
        });
        let to = imageops::resize(&from, side(self.width), side(self.height), FilterType::Triangle);
        Self { width: to.width() as usize, height: to.height() as usize, values: to.into_raw() }
    }

    /// x and y of the centre of mass; those of the first pixel are 0.
    fn centre_of_mass(&self) -> [f32; 2] {
        let (mut mass, mut x_moment, mut y_moment) = (0.0f64, 0.0, 0.0);
        for (at, &ink) in self.values.iter().enumerate() {
            let ink = f64::from(ink);
            mass += ink;
            x_moment += ink * (at % self.width) as f64;
            y_moment += ink * (at / self.width) as f64;
        }
        [(x_moment / mass) as f32, (y_moment / mass) as f32]
    }

    /// A square image with this side and the centre of mass at its centre, or as near as the whole digit allows.
    fn centred(&self, side: usize) -> Vec<u8> {
        let [x, y] = self.centre_of_mass();
        let shift = |centre: f32, own: usize| ((side / 2) as f32 - centre).round().clamp(0.0, (side - own) as f32);
        let (left, top) = (shift(x, self.width) as usize, shift(y, self.height) as usize);
        let mut image = vec![0; side * side];
        for (row, values) in self.values.chunks(self.width).enumerate() {
            for (to, ink) in image[(top + row) * side + left..].iter_mut().zip(values) {
                *to = (255.0 * ink.clamp(0.0, 1.0)).round() as u8;
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sets::MNIST;
    use crate::data::synthetic::{self, Split};
    use crate::rng::{Purpose, Stream};

    const SIDE: usize = 28;
    const PIXELS: usize = 784;

    fn prepare(picture: &Picture) -> Result<Vec<u8>, String> {
        super::prepare(picture, MNIST.frame)
    }

    /// `image` on paper that grows brighter to the right, each of its pixels `size` wide, its corner at (`left`, `top`).
    fn on_paper(image: &[u8], size: usize, left: usize, top: usize, side: usize) -> Picture {
        let pixels = (0..side * side).map(|at| {
            let (x, y) = (at % side, at / side);
            let paper = 0.6 + 0.3 * x as f32 / side as f32;
            let inside = x >= left && y >= top && (x - left) / size < SIDE && (y - top) / size < SIDE;
            let ink = if inside { f32::from(image[(y - top) / size * SIDE + (x - left) / size]) / 255.0 } else { 0.0 };
            paper * (1.0 - ink) + 0.15 * ink
        });
        Picture { width: side, height: side, pixels: pixels.collect() }
    }

    fn picture(image: &[u8]) -> Picture {
        Picture { width: SIDE, height: SIDE, pixels: image.iter().map(|&value| f32::from(value) / 255.0).collect() }
    }

    fn distance(a: &[u8], b: &[u8]) -> f32 {
        let sum: f32 = a.iter().zip(b).map(|(&a, &b)| (f32::from(a) - f32::from(b)).abs()).sum();
        sum / a.iter().map(|&a| f32::from(a)).sum::<f32>()
    }

    #[test]
    fn a_prepared_image_is_not_changed() {
        for image in synthetic::draw(Split::Test, 20).pixels.chunks(PIXELS) {
            let prepared = prepare(&picture(image)).unwrap();
            assert_eq!(prepare(&picture(&prepared)).unwrap(), prepared);
        }
    }

    #[test]
    fn size_place_and_light_do_not_matter() {
        for image in synthetic::draw(Split::Test, 20).pixels.chunks(PIXELS) {
            let alone = prepare(&picture(image)).unwrap();
            let negative: Vec<u8> = image.iter().map(|value| 255 - value).collect();
            assert!(distance(&alone, &prepare(&picture(&negative)).unwrap()) < 0.01);
            let large = prepare(&on_paper(image, 9, 300, 41, 640)).unwrap();
            let elsewhere = prepare(&on_paper(image, 9, 20, 350, 640)).unwrap();
            assert!(distance(&large, &elsewhere) < 0.05, "{}", distance(&large, &elsewhere));
            let larger = prepare(&on_paper(image, 14, 200, 141, 640)).unwrap();
            assert!(distance(&large, &larger) < 0.1, "{}", distance(&large, &larger));
        }
    }

    #[test]
    fn a_digit_that_fills_its_picture_is_read_as_one_with_a_margin() {
        // A 7 of two straight strokes. A quarter of its border is ink.
        let digit = |margin: usize| {
            let (width, height) = (60 + 2 * margin, 84 + 2 * margin);
            let pixels = (0..width * height).map(|at| {
                let (x, y) = (at as f32 % width as f32 - margin as f32, (at / width) as f32 - margin as f32);
                let inside = (0.0..60.0).contains(&x) && (0.0..84.0).contains(&y);
                let slash = (x - (60.0 - y * 0.55)).abs() < 7.0;
                if inside && (y < 12.0 || slash) { 0.1 } else { 0.85 }
            });
            Picture { width, height, pixels: pixels.collect() }
        };
        let (tight, wide) = (prepare(&digit(0)).unwrap(), prepare(&digit(30)).unwrap());
        assert!(distance(&tight, &wide) < 0.05, "{}", distance(&tight, &wide));
    }

    #[test]
    fn grain_is_not_ink() {
        let image = &synthetic::draw(Split::Test, 1).pixels[..PIXELS];
        let clean = on_paper(image, 2, 150, 91, 320);
        let expected = prepare(&clean).unwrap();
        let mut stream = Stream::new(1, Purpose::Order, 0);
        let pixels = clean.pixels.iter().map(|value| value + 0.1 * (2.0 * stream.uniform() - 1.0) as f32);
        let grainy = prepare(&Picture { pixels: pixels.collect(), ..clean }).unwrap();
        assert!(distance(&expected, &grainy) < 0.5, "{}", distance(&expected, &grainy));
    }

    #[test]
    fn the_digit_fills_the_same_share_of_any_frame() {
        let image = &synthetic::draw(Split::Test, 1).pixels[..PIXELS];
        let large = on_paper(image, 9, 300, 41, 640);
        for side in [14, 28, 56] {
            let prepared = super::prepare(&large, Frame::like_mnist(side)).unwrap();
            assert_eq!(prepared.len(), side * side);
            let ink = prepared.iter().filter(|&&value| value > 127).count() as f64 / prepared.len() as f64;
            let expected = image.iter().filter(|&&value| value > 127).count() as f64 / PIXELS as f64;
            assert!((ink / expected - 1.0).abs() < 0.4, "{side}: {ink} of {expected}");
        }
    }

    #[test]
    fn fine_patterns_take_no_time() {
        let side = 800;
        let pixels = (0..side * side).map(|at| ((at % side + at / side) % 2) as f32).collect();
        let begin = std::time::Instant::now();
        let _ = prepare(&Picture { width: side, height: side, pixels });
        assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_picture_without_a_digit_is_refused() {
        for value in [0.0, 0.5, 1.0] {
            for (width, height) in [(1, 1), (1, 7), (28, 28), (300, 2)] {
                let blank = Picture { width, height, pixels: vec![value; width * height] };
                assert!(prepare(&blank).unwrap_err().starts_with("has no digit in it"), "{width} x {height}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_picture_makes_it_panic(width in 1usize..40, height in 1usize..40, side in 1usize..40, seed: u64) {
            let mut state = seed | 1;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32
            };
            let pixels = (0..width * height).map(|_| random()).collect();
            let picture = Picture { width, height, pixels };
            let _ = prepare(&picture);
            let _ = super::prepare(&picture, Frame::like_mnist(side));
        }
    }
}
