//! Removes transparency. A picture may be a drawing without paper, or a sheet of paper with transparent edges, as it is when
//! it was turned or cut out.
//!
//! Its own opaque pixels tell. Those at the edge of all opaque pixels are paper if many others differ from them: ink.
//! Otherwise all opaque pixels are ink.

use image::{DynamicImage, GenericImageView, GrayImage, Luma, Pixel};

/// Pixels with at least this alpha count as opaque. Those of a smooth edge do not.
const OPAQUE: u8 = 250;
/// Difference in brightness from paper to ink.
const CONTRAST: u8 = 40;
/// At least one in so many opaque pixels of a sheet is ink.
const PAPER_PER_INK: u64 = 200;

/// The picture in shades of grey. A sheet is continued where the picture is transparent. A drawing without paper is put on
/// white if it is dark, and on black if it is light.
pub fn on_paper(image: &DynamicImage) -> GrayImage {
    let paper = u32::from(paper(image));
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [luma, alpha] = luma_and_alpha(image, x, y).map(u32::from);
        Luma([((luma * alpha + paper * (255 - alpha) + 127) / 255) as u8])
    })
}

/// The brightness of the paper.
fn paper(image: &DynamicImage) -> u8 {
    let (width, height) = image.dimensions();
    let row = |y: u32| (0..width).map(|x| luma_and_alpha(image, x, y)).collect::<Vec<_>>();
    let is_opaque = |row: &[[u8; 2]], x: usize| row.get(x).is_some_and(|pixel| pixel[1] >= OPAQUE);
    let (mut light, mut drawn) = (0u64, 0u64);
    let (mut all, mut edge) = ([0u64; 256], [0u64; 256]);
    let (mut above, mut here) = (vec![], row(0));
    for y in 0..height {
        let below = if y + 1 < height { row(y + 1) } else { vec![] };
        for (x, &[luma, alpha]) in here.iter().enumerate() {
            light += u64::from(luma) * u64::from(alpha);
            drawn += u64::from(alpha);
            if alpha < OPAQUE {
                continue;
            }
            all[usize::from(luma)] += 1;
            let inside = x > 0 && is_opaque(&here, x - 1) && is_opaque(&here, x + 1);
            if !(inside && is_opaque(&above, x) && is_opaque(&below, x)) {
                edge[usize::from(luma)] += 1;
            }
        }
        (above, here) = (here, below);
    }
    let edge = median(&edge);
    let differ: u64 = (0..=255).filter(|luma| edge.abs_diff(*luma) > CONTRAST).map(|luma| all[usize::from(luma)]).sum();
    if differ * PAPER_PER_INK >= all.iter().sum::<u64>().max(1) {
        edge
    } else if 2 * light > 255 * drawn {
        0
    } else {
        255
    }
}

/// The brightness that half of the pixels do not exceed, from their numbers by brightness.
fn median(counts: &[u64; 256]) -> u8 {
    let half = counts.iter().sum::<u64>().div_ceil(2);
    let mut seen = 0;
    let middle = counts.iter().position(|count| {
        seen += count;
        seen >= half
    });
    middle.unwrap_or(0) as u8
}

fn luma_and_alpha(image: &DynamicImage, x: u32, y: u32) -> [u8; 2] {
    image.get_pixel(x, y).to_luma_alpha().0
}
