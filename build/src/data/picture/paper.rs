//! Tells ink from paper, which is lit unevenly.

use super::Picture;
use super::ink::Ink;

/// Smallest difference between ink and paper; black and white differ by 1.
const LEAST_CONTRAST: f32 = 0.08;
/// Largest deviation that counts as grain of the paper; black and white differ by 1. Ink at the border deviates more.
const MOST_GRAIN: f32 = 0.15;

/// The ink of `picture`.
///
/// # Errors
/// There is none, as the end of a sentence that begins with the picture's name.
pub fn ink(picture: &Picture) -> Result<Ink, String> {
    let (width, height) = (picture.width, picture.height);
    let rim = (width.min(height) / 40).max(1);
    let at_rim = |x: usize, y: usize| x < rim || y < rim || x + rim >= width || y + rim >= height;
    let row = |y: usize| (0..width).map(move |x| (x, y));
    let border: Vec<(usize, usize)> = (0..height).flat_map(row).filter(|&(x, y)| at_rim(x, y)).collect();
    let paper = Plane::of_paper(&border, picture);
    let grain = median(border.iter().map(|&place| paper.below(place, picture).abs()).collect());
    let grain = (3.0 * grain).min(MOST_GRAIN);

    let mut difference = Vec::with_capacity(width * height);
    (0..height).for_each(|y| difference.extend(row(y).map(|place| paper.below(place, picture))));
    let sum_of_cubes: f64 = difference.iter().map(|&d| f64::from(d).powi(3)).sum();
    if sum_of_cubes < 0.0 {
        difference.iter_mut().for_each(|d| *d = -*d); // light on dark
    }
    // Full ink is the value that a tenth of the pixels reach, of those that clearly are not paper.
    let strong = difference.iter().copied().filter(|&d| d > (LEAST_CONTRAST / 2.0).max(grain)).collect();
    let full = in_order(strong, |count| count.saturating_sub(1 + count / 10));
    if full < LEAST_CONTRAST.max(1.5 * grain) {
        return Err("has no digit in it: expected dark on light or light on dark".into());
    }
    let (low, high) = ((0.25 * full).max(grain), 0.85 * full);
    let values = difference.into_iter().map(|d| ((d - low) / (high - low)).clamp(0.0, 1.0)).collect();
    Ok(Ink { width, height, values })
}

/// The median; 0 for no values.
fn median(values: Vec<f32>) -> f32 {
    in_order(values, |count| count / 2)
}

/// The value that has the number `number` of their count, from the lowest on; 0 for no values.
fn in_order(mut values: Vec<f32>, number: impl Fn(usize) -> usize) -> f32 {
    match values.len() {
        0 => 0.0,
        count => *values.select_nth_unstable_by(number(count), f32::total_cmp).1,
    }
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
