//! The ink of a picture: its patches, and the steps by which a digit comes to fill its box.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma};

/// A patch with less than this part of the largest one's ink is a speck.
const SPECK: f64 = 20.0;

/// The share of ink in each pixel.
#[derive(Debug, Clone)]
pub struct Ink {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// (height, width), 0 to 1.
    pub values: Vec<f32>,
}

impl Ink {
    /// The connected patches, by descending mass. Pixels that touch at a corner are connected.
    pub fn patches(&self) -> Vec<Patch> {
        let mut patches: Vec<Patch> = regions(self.width, self.values.len(), true, |at| self.values[at] > 0.0)
            .map(|pixels| Patch::new(self, pixels))
            .collect();
        patches.sort_by(|a, b| b.mass.total_cmp(&a.mass));
        patches
    }

    /// Whether the pixel `at` is in the first or last row or column.
    pub fn is_at_edge(&self, at: usize) -> bool {
        let (x, y) = (at % self.width, at / self.width);
        x == 0 || y == 0 || x + 1 == self.width || y + 1 == self.height
    }

    /// Whether any of `pixels` is there.
    pub fn reaches_edge(&self, pixels: &[usize]) -> bool {
        pixels.iter().any(|&at| self.is_at_edge(at))
    }

    /// Removes the ink of `patch`.
    pub fn remove(&mut self, patch: &Patch) {
        patch.pixels.iter().for_each(|&at| self.values[at] = 0.0);
    }

    /// Removes patches with less than a twentieth of the ink of the largest one: dust, noise, a neighbour's stroke at the
    /// edge. Returns the patches that stay, and the share of all ink that went.
    pub fn remove_specks(&mut self) -> (Vec<Patch>, f64) {
        let mut patches = self.patches();
        let all: f64 = patches.iter().map(|patch| patch.mass).sum();
        let largest = patches.first().map_or(0.0, |patch| patch.mass);
        let specks = patches.split_off(patches.partition_point(|patch| patch.mass >= largest / SPECK));
        specks.iter().for_each(|speck| self.remove(speck));
        (patches, specks.iter().map(|speck| speck.mass).sum::<f64>() / all.max(f64::MIN_POSITIVE))
    }

    /// The mean width of the strokes in pixels: twice their area over the length of their outline.
    pub fn stroke_width(&self) -> f32 {
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
    pub fn thickened(&self, radius: f32) -> Self {
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
    pub fn cut_out(&self) -> Self {
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

    /// The longer of its sides in pixels.
    pub fn longer_side(&self) -> f32 {
        self.width.max(self.height) as f32
    }

    /// A copy shrunk or enlarged to this longer side.
    pub fn scaled(&self, longer_side: f32) -> Self {
        let scale = longer_side / self.longer_side();
        let side = |side: usize| ((side as f32 * scale).round() as u32).max(1);
        let from = ImageBuffer::from_fn(self.width as u32, self.height as u32, |x, y| {
            Luma([self.values[y as usize * self.width + x as usize]])
        });
        let to = imageops::resize(&from, side(self.width), side(self.height), FilterType::Triangle);
        Self { width: to.width() as usize, height: to.height() as usize, values: to.into_raw() }
    }

    /// x and y of the centre of mass; those of the first pixel are 0.
    pub fn centre_of_mass(&self) -> [f32; 2] {
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
    pub fn centred(&self, side: usize) -> Self {
        let [x, y] = self.centre_of_mass();
        let shift = |centre: f32, own: usize| ((side / 2) as f32 - centre).round().clamp(0.0, (side - own) as f32);
        let (left, top) = (shift(x, self.width) as usize, shift(y, self.height) as usize);
        let mut values = vec![0.0; side * side];
        for (row, from) in self.values.chunks(self.width).enumerate() {
            values[(top + row) * side + left..][..self.width].copy_from_slice(from);
        }
        Self { width: side, height: side, values }
    }

    /// The pixels as bytes, 255 for full ink.
    pub fn bytes(&self) -> Vec<u8> {
        self.values.iter().map(|ink| (255.0 * ink.clamp(0.0, 1.0)).round() as u8).collect()
    }
}

/// Pixels that are connected.
#[derive(Debug)]
pub struct Patch {
    /// Their places in [`Ink::values`].
    pub pixels: Vec<usize>,
    /// The sum of their ink.
    pub mass: f64,
    /// First and last column.
    pub x: (usize, usize),
    /// First and last row.
    pub y: (usize, usize),
}

impl Patch {
    fn new(ink: &Ink, pixels: Vec<usize>) -> Self {
        let mass = pixels.iter().map(|&at| f64::from(ink.values[at])).sum();
        let none = (usize::MAX, 0);
        let with = |(low, high): (usize, usize), at: usize| (low.min(at), high.max(at));
        let (x, y) = pixels.iter().fold((none, none), |(x, y), at| (with(x, at % ink.width), with(y, at / ink.width)));
        Self { pixels, mass, x, y }
    }

    /// The width of the box around it in pixels.
    pub fn width(&self) -> usize {
        self.x.1 + 1 - self.x.0
    }

    /// The height of that box.
    pub fn height(&self) -> usize {
        self.y.1 + 1 - self.y.0
    }

    /// The longer of the two.
    pub fn longer_side(&self) -> usize {
        self.width().max(self.height())
    }
}

/// The connected regions of the pixels that `is_in` accepts, in an image of `count` pixels with rows of `width`. Pixels that
/// only touch at a corner are connected if `by_corners`.
pub fn regions(
    width: usize,
    count: usize,
    by_corners: bool,
    is_in: impl Fn(usize) -> bool,
) -> impl Iterator<Item = Vec<usize>> {
    let mut seen = vec![false; count];
    let mut start = 0;
    std::iter::from_fn(move || {
        while start < count && (seen[start] || !is_in(start)) {
            start += 1;
        }
        if start == count {
            return None;
        }
        seen[start] = true;
        let mut region = vec![start];
        let mut next = 0;
        while let Some(&at) = region.get(next) {
            next += 1;
            let (x, y) = (at % width, at / width);
            for near_y in y.saturating_sub(1)..=(y + 1).min(count / width - 1) {
                for near_x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    let near = near_y * width + near_x;
                    if !seen[near] && (by_corners || near_x == x || near_y == y) && is_in(near) {
                        seen[near] = true;
                        region.push(near);
                    }
                }
            }
        }
        Some(region)
    })
}
