//! From a picture of a digit to an image prepared as in MNIST. The picture may have any size from 8 x 8, and be dark on light
//! or light on dark.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>: "the images were size normalized to fit in a 20x20 pixel box while
//! preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique [...]
//! the images were centered in a 28x28 image by computing the center of mass of the pixels".
//!
//! ```text
//! small    a picture smaller than the image is enlarged
//! paper    a plane of brightness fitted to the border of the picture, since paper is lit unevenly
//! ink      the difference of each pixel from the paper, darker or lighter, scaled to 0 (paper) to 1 (ink)
//! frame    printed boxes, ruled lines and what lies around the sheet are taken away
//! digit    the ink without specks, cut out; strokes thinner than MNIST's are thickened
//! image    the digit scaled into its box, with the centre of mass at the image's centre
//! doubt    a phrase if the ink is unlike that of one digit
//! ```

use std::borrow::Cow;

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma};

use super::doubt::{self, Doubt};
use super::ink::Ink;
use super::{Picture, surround};
use crate::data::sets::Frame;

/// Box side per stroke width. Thinner strokes are thickened; those of MNIST are 2 to 3 pixels wide in a box of 20.
const STROKES_PER_BOX: f32 = 10.0;
/// Before its strokes are thickened, a digit is shrunk to this many times the box: thickening takes longer for large ones.
const SHRUNK_BOXES: f32 = 8.0;

/// A picture whose longer side is shorter holds no digit that anyone could read.
const LEAST_SIDE: usize = 8;
/// A smaller picture is enlarged to this many times the image's side.
const ENLARGED_SIDES: usize = 4;

/// What the network sees of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The image (D).
    pub image: Vec<u8>,
    /// Why not to trust the answer, if there is a reason.
    pub doubt: Option<Doubt>,
}

/// The image of the digit in `picture`, with the digit placed as `frame` says, and what makes it doubtful.
///
/// A picture that already is such an image (light on black or the reverse) is not changed.
///
/// # Errors
/// The picture shows nothing or is tiny, as the end of a sentence that begins with its name.
pub fn prepare(picture: &Picture, frame: Frame) -> Result<Prepared, String> {
    let Picture { width, height, .. } = picture;
    if *width.max(height) < LEAST_SIDE {
        return Err(format!(
            "expected a picture of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, found one of {width} x {height}"
        ));
    }
    let (mut ink, surroundings, prepared) = match already_prepared(picture, frame) {
        Some(ink) => (ink.clone(), None, Some(ink)),
        None => {
            let (ink, surroundings) = surround::ink_without(&enlarged(picture, frame))?;
            (ink, surroundings, None)
        }
    };
    let (patches, specks) = ink.remove_specks();
    // In a small picture, the edge is as wide as a stroke.
    let is_cut_off = !is_small(picture, frame) && doubt::is_cut_off(&ink, &patches);
    let image = prepared.unwrap_or_else(|| placed(&ink, frame));
    let doubt = doubt::of(&patches, specks, is_cut_off, &image, frame.box_side).or(surroundings);
    Ok(Prepared { image: image.bytes(), doubt })
}

fn is_small(picture: &Picture, frame: Frame) -> bool {
    picture.width.max(picture.height) < frame.side
}

/// The picture, enlarged if it is smaller than the image: its shades say where within a pixel the ink ends.
fn enlarged(picture: &Picture, frame: Frame) -> Cow<'_, Picture> {
    if !is_small(picture, frame) {
        return Cow::Borrowed(picture);
    }
    let times = (ENLARGED_SIDES * frame.side).div_ceil(picture.width.max(picture.height)) as u32;
    let from: ImageBuffer<Luma<f32>, &[f32]> =
        ImageBuffer::from_raw(picture.width as u32, picture.height as u32, picture.pixels.as_slice())
            .unwrap_or_else(|| unreachable!("a picture has width x height pixels"));
    let to = imageops::resize(&from, from.width() * times, from.height() * times, FilterType::CatmullRom);
    Cow::Owned(Picture { width: to.width() as usize, height: to.height() as usize, pixels: to.into_raw() })
}

/// The image of `ink`, scaled into the box of `frame`, its thin strokes thickened.
fn placed(ink: &Ink, frame: Frame) -> Ink {
    let box_side = frame.box_side as f32;
    let least_stroke = box_side / STROKES_PER_BOX;
    let mut digit = ink.cut_out();
    if digit.longer_side() > SHRUNK_BOXES * box_side {
        digit = digit.scaled(SHRUNK_BOXES * box_side);
    }
    let scale = box_side / digit.longer_side();
    let thickness = digit.stroke_width() * scale;
    if thickness < least_stroke {
        digit = digit.thickened((least_stroke - thickness) / 2.0 / scale);
    }
    digit.cut_out().scaled(box_side).centred(frame.side)
}

/// The picture as ink, light on black, if it has the frame's size and its digit is in place, within a pixel.
fn already_prepared(picture: &Picture, Frame { side, box_side }: Frame) -> Option<Ink> {
    if (picture.width, picture.height) != (side, side) {
        return None;
    }
    let box_side = box_side as f32;
    [picture.pixels.clone(), picture.pixels.iter().map(|value| 1.0 - value).collect()].into_iter().find_map(|values| {
        let ink = Ink { width: side, height: side, values };
        let black_border = (0..side * side).filter(|&at| ink.is_at_edge(at)).all(|at| ink.values[at] < 0.1);
        if !black_border || ink.values.iter().all(|&ink| ink < 0.5) {
            return None;
        }
        let near = ink.centre_of_mass().iter().all(|centre| (centre - (side / 2) as f32).abs() <= 1.0);
        let fits = (box_side - 2.0..=box_side).contains(&ink.cut_out().longer_side());
        (near && fits).then_some(ink)
    })
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
        super::prepare(picture, MNIST.frame).map(|prepared| prepared.image)
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
            let prepared = super::prepare(&large, Frame::like_mnist(side)).unwrap().image;
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
            let refused =
                |width, height| prepare(&Picture { width, height, pixels: vec![value; width * height] }).unwrap_err();
            for (width, height) in [(1, 8), (28, 28), (300, 2)] {
                assert!(refused(width, height).starts_with("has no digit in it"), "{width} x {height}");
            }
            let tiny = "expected a picture of at least 8 x 8 pixels, found one of 7 x 1";
            assert_eq!(refused(7, 1), tiny);
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
