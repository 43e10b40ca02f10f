//! From a picture of a digit, of any size, dark on light or light on dark, to an image as MNIST's makers prepared theirs.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>: "the images were size normalized to fit in a 20x20 pixel box while
//! preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique [...]
//! the images were centered in a 28x28 image by computing the center of mass of the pixels".
//!
//! ```text
//! paper    a plane of brightness through the border of the picture, since light falls unevenly on paper
//! ink      how far a pixel is from the paper, on the side where most of what is far lies; 0 paper to 1 ink
//! digit    the ink without specks; thin pens drawn as thick as MNIST's
//! image    the digit's box scaled to 20 pixels, its centre of mass at the image's centre
//! ```

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma};

use super::picture::Picture;
use crate::model::PIXELS;

/// Width and height of an image.
const SIDE: usize = 28;
/// The longer side of the box that a digit fills.
const BOX: f32 = 20.0;
/// The least difference between ink and paper, of 1 between black and white.
const LEAST_CONTRAST: f32 = 0.08;
/// How wide a stroke is at least, in pixels of the image; MNIST's are about 2 to 3 wide.
const PEN: f32 = 2.0;

/// The image (D) of the digit in `picture`.
///
/// An image that is as MNIST's are already, of 28 x 28 pixels and light on black (or the reverse) with its digit in the
/// right place, is taken as it is.
///
/// # Errors
/// There is nothing in the picture, as the end of a sentence that begins with its name.
pub fn prepare(picture: &Picture) -> Result<[u8; PIXELS], String> {
    if let Some(image) = as_it_is(picture) {
        return Ok(image);
    }
    let (width, height) = (picture.width, picture.height);
    let mut ink = Ink { width, height, values: ink(picture)? };
    ink.remove_specks();
    let thickness = ink.stroke_width() * BOX / ink.bounds().longer_side();
    if thickness < PEN {
        ink.thicken((PEN - thickness) / 2.0 * ink.bounds().longer_side() / BOX);
    }
    Ok(ink.centred())
}

/// The picture's bytes, light on black, if its digit is where MNIST has it, within a pixel.
fn as_it_is(picture: &Picture) -> Option<[u8; PIXELS]> {
    if (picture.width, picture.height) != (SIDE, SIDE) {
        return None;
    }
    let border = |at: usize| [0, SIDE - 1].contains(&(at % SIDE)) || [0, SIDE - 1].contains(&(at / SIDE));
    [picture.pixels.clone(), picture.pixels.iter().map(|value| 1.0 - value).collect()].into_iter().find_map(|values| {
        let black_border = (0..PIXELS).filter(|&at| border(at)).all(|at| values[at] < 0.1);
        let ink = Ink { width: SIDE, height: SIDE, values };
        if !black_border || ink.values.iter().all(|&ink| ink < 0.5) {
            return None;
        }
        let near = ink.centre_of_mass().iter().all(|centre| (centre - (SIDE / 2) as f32).abs() <= 1.0);
        let fits = (BOX - 2.0..=BOX).contains(&ink.bounds().longer_side());
        (near && fits).then(|| std::array::from_fn(|at| (ink.values[at] * 255.0).round() as u8))
    })
}

/// How much each pixel is ink, 0 to 1.
fn ink(picture: &Picture) -> Result<Vec<f32>, String> {
    let (width, height) = (picture.width, picture.height);
    let rim = (width.min(height) / 40).max(1);
    let at_rim = |x: usize, y: usize| x < rim || y < rim || x + rim >= width || y + rim >= height;
    let places = || (0..width * height).map(|at| (at % width, at / width));
    let mut border: Vec<(usize, usize)> = places().filter(|&(x, y)| at_rim(x, y)).collect();
    // A digit may run into the border: the plane is fitted again without what is far from it.
    let mut paper = Plane::through(&border, picture);
    for _ in 0..3 {
        let off = |&(x, y): &(usize, usize)| (picture.pixels[y * width + x] - paper.at(x, y)).abs();
        let mut distances: Vec<f32> = border.iter().map(off).collect();
        distances.sort_unstable_by(f32::total_cmp);
        let far = distances[distances.len() * 3 / 4] * 2.0 + 1e-3;
        border.retain(|place| off(place) <= far);
        paper = Plane::through(&border, picture);
    }

    let mut difference: Vec<f32> =
        places().zip(&picture.pixels).map(|((x, y), value)| value - paper.at(x, y)).collect();
    let sum_of_cubes: f64 = difference.iter().map(|&d| f64::from(d).powi(3)).sum();
    if sum_of_cubes < 0.0 {
        difference.iter_mut().for_each(|d| *d = -*d); // dark on light
    }
    // Full ink: what the darkest hundredth of the picture, or a tenth of what is not paper, reaches.
    let mut strongest: Vec<f32> = difference.iter().copied().filter(|&d| d > LEAST_CONTRAST / 2.0).collect();
    strongest.sort_unstable_by(|a, b| b.total_cmp(a));
    let full = strongest.get(strongest.len() / 10).copied().unwrap_or(0.0);
    if full < LEAST_CONTRAST {
        return Err("has no digit in it: expected dark on light or light on dark".into());
    }
    let (low, high) = (0.25 * full, 0.85 * full);
    Ok(difference.into_iter().map(|d| ((d - low) / (high - low)).clamp(0.0, 1.0)).collect())
}

/// `a + b x + c y`.
struct Plane([f64; 3]);

impl Plane {
    /// The plane with the least sum of squared distances to the brightness of `places`.
    fn through(places: &[(usize, usize)], picture: &Picture) -> Self {
        // The normal equations, about the picture's middle to keep them well conditioned.
        let middle = [picture.width as f64 / 2.0, picture.height as f64 / 2.0];
        let mut matrix = [[0.0; 4]; 3];
        for &(x, y) in places {
            let row = [1.0, x as f64 - middle[0], y as f64 - middle[1]];
            let value = f64::from(picture.pixels[y * picture.width + x]);
            for i in 0..3 {
                for j in 0..3 {
                    matrix[i][j] += row[i] * row[j];
                }
                matrix[i][3] += row[i] * value;
            }
        }
        let mut solution = [0.0; 3];
        for i in 0..3 {
            // A slope about which the places say nothing (a picture of one row) is none.
            if matrix[i][i].abs() < 1e-9 {
                matrix[i] = [0.0; 4];
                matrix[i][i] = 1.0;
            }
            for other in 0..3 {
                if other != i {
                    let share = matrix[other][i] / matrix[i][i];
                    for column in 0..4 {
                        matrix[other][column] -= share * matrix[i][column];
                    }
                }
            }
        }
        for i in 0..3 {
            solution[i] = matrix[i][3] / matrix[i][i];
        }
        solution[0] -= solution[1] * middle[0] + solution[2] * middle[1];
        Self(solution)
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        (self.0[0] + self.0[1] * x as f64 + self.0[2] * y as f64) as f32
    }
}

/// How much each pixel is ink.
struct Ink {
    width: usize,
    height: usize,
    /// (height, width), 0 to 1.
    values: Vec<f32>,
}

/// The first and last column and row that have ink.
struct Bounds {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Bounds {
    fn longer_side(&self) -> f32 {
        (self.right - self.left + 1).max(self.bottom - self.top + 1) as f32
    }
}

impl Ink {
    /// The neighbours of a pixel, as far as there are any.
    fn neighbours(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, height) = (self.width as isize, self.height as isize);
        let (x, y) = (at as isize % width, at as isize / width);
        (-1..=1).flat_map(move |dy| (-1..=1).map(move |dx| (x + dx, y + dy))).filter_map(move |(nx, ny)| {
            let inside = (0..width).contains(&nx) && (0..height).contains(&ny) && (nx, ny) != (x, y);
            inside.then_some((ny * width + nx) as usize)
        })
    }

    /// Removes patches of ink, however faint, that hold less than a twentieth of the largest one's: dust, noise, a
    /// neighbour's stroke at the edge.
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
        // The outline's length is the sum of the gradient's.
        let mut outline = 0.0;
        for y in 0..=self.height {
            for x in 0..=self.width {
                let [a, b, c, d] = [value(x, y), value(x + 1, y), value(x, y + 1), value(x + 1, y + 1)];
                outline += (0.5 * (b + d - a - c)).hypot(0.5 * (c + d - a - b));
            }
        }
        2.0 * area / outline.max(1e-6)
    }

    /// Widens every stroke by `radius` pixels on each side.
    fn thicken(&mut self, radius: f32) {
        let reach = radius.ceil() as isize;
        // Where the ink may go, there must be room for it.
        let room = reach as usize;
        let (width, height) = (self.width + 2 * room, self.height + 2 * room);
        let mut values = vec![0.0f32; width * height];
        let disc: Vec<(isize, isize, f32)> = (-reach..=reach)
            .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
            .map(|(dx, dy)| (dx, dy, (radius + 0.5 - (dx as f32).hypot(dy as f32)).clamp(0.0, 1.0)))
            .filter(|&(dx, dy, share)| share > 0.0 || (dx, dy) == (0, 0))
            .collect();
        for (at, &ink) in self.values.iter().enumerate().filter(|(_, ink)| **ink > 0.0) {
            let (x, y) = (at % self.width + room, at / self.width + room);
            for &(dx, dy, share) in &disc {
                let to = &mut values[(y as isize + dy) as usize * width + (x as isize + dx) as usize];
                let share = if (dx, dy) == (0, 0) { 1.0 } else { share };
                *to = to.max(ink * share);
            }
        }
        *self = Self { width, height, values };
    }

    /// Where the ink is that is at least half as strong as the strongest; there must be some.
    fn bounds(&self) -> Bounds {
        let half = self.values.iter().fold(0.0f32, |a, &b| a.max(b)) / 2.0;
        let mut bounds = Bounds { left: usize::MAX, right: 0, top: usize::MAX, bottom: 0 };
        for (at, _) in self.values.iter().enumerate().filter(|(_, ink)| **ink >= half) {
            let (x, y) = (at % self.width, at / self.width);
            bounds.left = bounds.left.min(x);
            bounds.right = bounds.right.max(x);
            bounds.top = bounds.top.min(y);
            bounds.bottom = bounds.bottom.max(y);
        }
        bounds
    }

    /// x and y of the centre of mass, the first pixel's being 0.
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

    /// The digit scaled into its box and put into an image by its centre of mass, to the nearest whole pixel.
    fn centred(&self) -> [u8; PIXELS] {
        let bounds = self.bounds();
        let (width, height) = (bounds.right - bounds.left + 1, bounds.bottom - bounds.top + 1);
        let digit = ImageBuffer::from_fn(width as u32, height as u32, |x, y| {
            Luma([self.values[(bounds.top + y as usize) * self.width + bounds.left + x as usize]])
        });
        let scale = BOX / width.max(height) as f32;
        let scaled = |side: usize| ((side as f32 * scale).round() as u32).max(1);
        let small = imageops::resize(&digit, scaled(width), scaled(height), FilterType::Triangle);
        let small = Ink { width: small.width() as usize, height: small.height() as usize, values: small.into_raw() };

        let [x_shift, y_shift] = small.centre_of_mass().map(|centre| ((SIDE / 2) as f32 - centre).round() as isize);
        let mut image = [0; PIXELS];
        for (at, &ink) in small.values.iter().enumerate() {
            let (x, y) = ((at % small.width) as isize + x_shift, (at / small.width) as isize + y_shift);
            if (0..SIDE as isize).contains(&x) && (0..SIDE as isize).contains(&y) {
                image[y as usize * SIDE + x as usize] = (255.0 * ink.clamp(0.0, 1.0)).round() as u8;
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::{self, Split};

    /// `image`, each of its pixels `size` wide, `left` and `top` of the picture's corner, on paper that grows brighter to
    /// the right.
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
    fn what_is_prepared_stays_as_it_is() {
        for image in synthetic::draw(Split::Test, 20).images.chunks(PIXELS) {
            let prepared = prepare(&picture(image)).unwrap();
            assert_eq!(prepare(&picture(&prepared)).unwrap(), prepared);
        }
    }

    #[test]
    fn size_place_and_light_do_not_matter() {
        for image in synthetic::draw(Split::Test, 20).images.chunks(PIXELS) {
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
        fn no_picture_makes_it_panic(width in 1usize..40, height in 1usize..40, seed: u64) {
            let mut state = seed | 1;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32
            };
            let pixels = (0..width * height).map(|_| random()).collect();
            let _ = prepare(&Picture { width, height, pixels });
        }
    }
}
