//! The network: its shape, its parameters in one block of memory, and how they begin.
//!
//! The letters of all shapes in this program:
//!
//! | letter | is |
//! |---|---|
//! | N | images of a set |
//! | B | images of a batch |
//! | D | inputs of the network: 784 pixels |
//! | I, O | inputs and outputs of one layer |
//! | H | width of a hidden layer |
//! | K | classes: the 10 digits |
//! | P | parameters of the network |
//!
//! A layer is `(B,I) x (I,O) + (O)`; a hidden one is followed by ReLU and dropout, the last gives logits `(B,K)`.

pub mod file;

use std::ops::Range;

use crate::rng::{Purpose, Stream};

/// D: the pixels of an image.
pub const PIXELS: usize = 28 * 28;
/// K: the digits.
pub const CLASSES: usize = 10;

/// The widths of a multi-layer perceptron, from inputs to classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlpShape {
    widths: Vec<usize>,
}

/// One layer: its widths and where its parameters stand in the flat block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// I.
    pub inputs: usize,
    /// O.
    pub outputs: usize,
    /// Where the weights stand, (I,O) row by row.
    pub weights: Range<usize>,
    /// Where the biases stand, (O).
    pub biases: Range<usize>,
}

impl MlpShape {
    /// The network for MNIST with these hidden widths.
    pub fn mnist(hidden: &[usize]) -> Self {
        Self::new(PIXELS, hidden, CLASSES)
    }

    /// A network with `inputs`, `hidden` widths and `classes`, each at least 1.
    pub fn new(inputs: usize, hidden: &[usize], classes: usize) -> Self {
        let mut widths = vec![inputs];
        widths.extend_from_slice(hidden);
        widths.push(classes);
        Self { widths }
    }

    /// All widths, from D over each H to K.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// D.
    pub fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// K.
    pub fn classes(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// The layers from the input on, with their places in the flat block.
    pub fn layers(&self) -> Vec<Layer> {
        let mut begin = 0;
        self.widths
            .windows(2)
            .map(|pair| {
                let (inputs, outputs) = (pair[0], pair[1]);
                let weights = begin..begin + inputs * outputs;
                let biases = weights.end..weights.end + outputs;
                begin = biases.end;
                Layer { inputs, outputs, weights, biases }
            })
            .collect()
    }

    /// P: the length of the flat block.
    pub fn parameter_count(&self) -> usize {
        self.layers().last().map_or(0, |layer| layer.biases.end)
    }

    /// Initial parameters (P): weights Glorot uniform, in `±sqrt(6 / (I + O))`, biases zero, as Keras' Dense begins.
    ///
    /// Source: Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks, 2010, eq. 16.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameter_count()];
        for (l, layer) in self.layers().into_iter().enumerate() {
            let limit = (6.0 / (layer.inputs + layer.outputs) as f64).sqrt();
            let mut stream = Stream::new(seed, Purpose::Weights, l as u64);
            for weight in &mut parameters[layer.weights] {
                *weight = ((2.0 * stream.uniform() - 1.0) * limit) as f32;
            }
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_has_101770_parameters_without_gaps() {
        let shape = MlpShape::mnist(&[128]);
        assert_eq!(shape.parameter_count(), 784 * 128 + 128 + 128 * 10 + 10);
        let mut end = 0;
        for layer in shape.layers() {
            assert_eq!(layer.weights.start, end);
            assert_eq!(layer.biases.start, layer.weights.end);
            end = layer.biases.end;
        }
    }

    #[test]
    fn initial_weights_fill_glorots_range_and_biases_are_zero() {
        let shape = MlpShape::mnist(&[128]);
        let parameters = shape.initial_parameters(1);
        let layer = &shape.layers()[0];
        let limit = (6.0f64 / 912.0).sqrt() as f32;
        let weights = &parameters[layer.weights.clone()];
        let largest = weights.iter().fold(0.0f32, |a, w| a.max(w.abs()));
        assert!(largest <= limit && largest > 0.999 * limit, "{largest} of {limit}");
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        assert!(mean.abs() < 0.001, "{mean}");
        assert!(parameters[layer.biases.clone()].iter().all(|b| *b == 0.0));
        assert_ne!(parameters, shape.initial_parameters(2));
    }
}
