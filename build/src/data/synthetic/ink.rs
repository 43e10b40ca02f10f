//! The ink: from the path of the pen to the grey values of an image.

use super::hand::{Point, near};
use crate::data::sets::SYNTHETIC;
use crate::rng::Stream;

/// Rows and columns of an image.
pub const SIDE: usize = SYNTHETIC.frame.side;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// Draws `path` (strokes, points; in pixels) into `image`, white on black.
///
/// A pixel's depth within the stroke is the pen's radius less the distance from the pixel's centre to the path. A soft
/// edge turns the depth into grey.
pub fn draw(path: &[Vec<Point>], image: &mut [u8], stream: &mut Stream) {
    let radius = near(1.28, 0.27, stream).clamp(0.7, 1.9);
    let edge = near(1.15, 0.2, stream).max(0.6);
    let strength = near(1.08, 0.08, stream);
    let mut depth = [-edge; PIXELS];
    for stroke in path {
        // The pressure of the pen changes along a stroke.
        let mut pressure = radius * near(1.0, 0.1, stream);
        let drift = radius * near(0.0, 0.004, stream);
        for piece in stroke.windows(2) {
            deepen(&mut depth, piece[0], piece[1], pressure.clamp(0.5, 2.1), edge);
            pressure += drift;
        }
    }
    for (pixel, depth) in image.iter_mut().zip(depth) {
        let ink = (0.5 + depth / edge).clamp(0.0, 1.0);
        // Only ink is grainy; paper stays black.
        if ink > 0.0 {
            let grain = near(1.0, 0.06, stream);
            *pixel = (255.0 * ink * strength * grain + 0.5) as u8;
        }
    }
}

/// Raises the depth of the pixels near the straight piece of a stroke from `from` to `to`.
fn deepen(depth: &mut [f32; PIXELS], from: Point, to: Point, radius: f32, edge: f32) {
    let reach = radius + 0.5 * edge;
    let range = |axis: usize| {
        let low = from[axis].min(to[axis]) - reach;
        let high = from[axis].max(to[axis]) + reach;
        // Pixel i has its centre at i + 1/2. Conversion from float stops at 0.
        (low + 0.5) as usize..((high + 0.5) as usize).min(SIDE)
    };
    let [x, y] = [to[0] - from[0], to[1] - from[1]];
    let length = (x * x + y * y).max(1e-12);
    let columns = range(0);
    for row in range(1) {
        let down = row as f32 + 0.5 - from[1];
        for column in columns.clone() {
            let across = column as f32 + 0.5 - from[0];
            let t = ((across * x + down * y) / length).clamp(0.0, 1.0);
            let [off_x, off_y] = [across - t * x, down - t * y];
            let here = &mut depth[row * SIDE + column];
            *here = here.max(radius - (off_x * off_x + off_y * off_y).sqrt());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn a_bar_is_drawn_in_its_place_and_nowhere_else() {
        let mut image = [0; PIXELS];
        draw(&[vec![[14.0, 4.0], [14.0, 24.0]]], &mut image, &mut Stream::new(0, Purpose::SyntheticTrain, 0));
        for (i, pixel) in image.into_iter().enumerate() {
            let off = [(i % SIDE) as f32 + 0.5 - 14.0, (i / SIDE) as f32 + 0.5 - 14.0];
            if off[0].abs() < 1.0 && off[1].abs() < 10.0 {
                assert!(pixel > 64, "{off:?} {pixel}");
            }
            if off[0].abs() > 4.0 || off[1].abs() > 14.0 {
                assert_eq!(pixel, 0, "{off:?}");
            }
        }
    }

    #[test]
    fn strokes_beyond_the_image_are_clipped() {
        let mut image = [0; PIXELS];
        let path = [vec![[-50.0, -50.0], [-40.0, 90.0], [90.0, 90.0], [14.0, 14.0]]];
        draw(&path, &mut image, &mut Stream::new(0, Purpose::SyntheticTrain, 0));
        assert!(image[14 * SIDE + 14] > 0);
        assert_eq!(image[0], 0);
    }
}
