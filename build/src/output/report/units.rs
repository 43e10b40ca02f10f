//! The units of the first layer: how many are shown, and which of them are never active.

use serde::Serialize;

use crate::model::MlpShape;
use crate::model::file::Model;
use crate::text::grouped;

/// The most units of the first layer whose weights are shown.
const MOST_UNITS: usize = 256;
/// So many images are looked at in turn. After the first, most units have been active, and only the others are looked at
/// on. All images would take too long where many units are silent.
const LOOKS: [usize; 3] = [50, 450, 1500];

/// The units of the first layer that are shown: those of the first network of an ensemble.
#[derive(Serialize)]
pub struct Units {
    /// Which they are, as the beginning of a sentence.
    which: String,
    shown: usize,
    /// Those that no image looked at makes active: their output is 0.
    silent: Vec<usize>,
    /// How many images were looked at.
    images: String,
}

impl Units {
    /// Of `model`, with the images `pixels` (N,D) that may make them active.
    pub fn new(model: &Model, pixels: &[u8]) -> Self {
        let width = model.shape.widths()[1];
        let shown = width.min(MOST_UNITS);
        let which = match (is_hidden(&model.shape), shown == width) {
            (false, _) => format!("The {width} outputs"),
            (true, true) => format!("The {width} units"),
            (true, false) => format!("The first {MOST_UNITS} of the {width} units"),
        };
        let silent = if is_hidden(&model.shape) { silent(model, shown, pixels) } else { vec![] };
        let images = (pixels.len() / model.shape.inputs()).min(LOOKS.iter().sum());
        Self { which, shown, silent, images: grouped(images) }
    }
}

/// Whether the first layer is a hidden one, so that its units are active or not.
fn is_hidden(shape: &MlpShape) -> bool {
    shape.widths().len() > 2
}

/// The units among the first `shown` that none of the first images in `pixels` (N,D) makes active.
fn silent(model: &Model, shown: usize, pixels: &[u8]) -> Vec<usize> {
    let inputs = model.shape.inputs();
    let mut silent: Vec<usize> = (0..shown).collect();
    let mut rest = pixels;
    for images in LOOKS {
        let (look, after) = rest.split_at(rest.len().min(images * inputs));
        rest = after;
        let mut active = active(&silent, model, look).into_iter();
        silent.retain(|_| active.next() == Some(false));
        if silent.is_empty() {
            break;
        }
    }
    silent
}

/// Which of `units` some of `pixels` (N,D) makes active.
fn active(units: &[usize], model: &Model, pixels: &[u8]) -> Vec<bool> {
    let layer = &model.shape.layers()[0];
    let of_units = |row: &[f32]| units.iter().map(|&unit| row[unit]).collect::<Vec<f32>>();
    let weights: Vec<Vec<f32>> =
        model.parameters[layer.weights.clone()].chunks_exact(layer.outputs).map(of_units).collect();
    let biases = of_units(&model.parameters[layer.biases.clone()]);
    let mut active = vec![false; units.len()];
    for image in pixels.chunks_exact(layer.inputs) {
        let mut sums = biases.clone();
        for (&pixel, row) in image.iter().zip(&weights).filter(|(pixel, _)| **pixel > 0) {
            let value = f32::from(pixel) / 255.0;
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
        }
        active.iter_mut().zip(sums).for_each(|(active, sum)| *active |= sum > 0.0);
    }
    active
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two inputs; unit 0 is active on bright first pixels, unit 1 never, unit 2 on one image of many, unit 3 always.
    fn model(hidden: &[usize]) -> Model {
        let shape = MlpShape::new(2, hidden, 4);
        let mut parameters = vec![0.0; shape.parameter_count()];
        let first = [1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, -0.5, 0.0, -0.9, 0.1];
        parameters[..first.len()].copy_from_slice(&first);
        Model { shape, parameters, data: "mnist".into(), unfinished: None }
    }

    #[test]
    fn a_unit_is_silent_if_no_image_makes_it_active() {
        let mut pixels = [200, 7].repeat(1000);
        assert_eq!(Units::new(&model(&[4]), &pixels).silent, [1, 2]);
        *pixels.last_mut().unwrap() = 255;
        let units = Units::new(&model(&[4]), &pixels);
        assert_eq!((units.silent, &*units.which, &*units.images), (vec![1], "The 4 units", "1,000"));
        // Outputs are no units that could be silent.
        let outputs = Units::new(&model(&[]), &pixels);
        assert_eq!((outputs.silent, &*outputs.which), (vec![], "The 4 outputs"));
    }
}
