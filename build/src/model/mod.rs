//! The network: its shape and its parameters in one block of memory.
//!
//! The letters of all shapes in this program:
//!
//! | letter | meaning |
//! |---|---|
//! | N | images of a set |
//! | B | images of a batch |
//! | D | inputs of the network: the pixels of an image |
//! | I, O | inputs and outputs of one layer |
//! | H | width of a hidden layer |
//! | K | classes |
//! | P | parameters of the network |
//!
//! A layer is `(B,I) x (I,O) + (O)`. ReLU and dropout follow each hidden layer; the last layer gives logits `(B,K)`.

pub mod file;
mod initialisation;
pub(crate) mod tensors;

use std::ops::Range;

/// The most hidden layers of a network.
pub const MOST_HIDDEN_LAYERS: usize = 32;
/// The most units of a hidden layer.
pub const MOST_UNITS: usize = 4096;
/// The most networks of an ensemble.
pub const MOST_MEMBERS: usize = 100;
/// The most inputs of a network: images of 256 x 256 pixels.
pub const MOST_INPUTS: usize = 1 << 16;
/// The most classes of a network, since labels are bytes.
pub const MOST_CLASSES: usize = 256;

/// The widths of a multi-layer perceptron, from inputs to classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlpShape {
    widths: Vec<usize>,
}

/// One layer: its widths and the place of its parameters in the flat block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// I.
    pub inputs: usize,
    /// O.
    pub outputs: usize,
    /// The place of the weights, (I,O) row by row.
    pub weights: Range<usize>,
    /// The place of the biases, (O).
    pub biases: Range<usize>,
}

impl MlpShape {
    /// A network with `inputs`, `hidden` widths and `classes`, each at least 1.
    pub fn new(inputs: usize, hidden: &[usize], classes: usize) -> Self {
        let mut widths = vec![inputs];
        widths.extend_from_slice(hidden);
        widths.push(classes);
        Self { widths }
    }

    /// All widths: D, each H, K.
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

    /// Width and height of the square images that the network takes; none if no square has D pixels.
    pub fn image_side(&self) -> Option<usize> {
        let side = self.inputs().isqrt();
        (side * side == self.inputs()).then_some(side)
    }

    /// The layers in forward order, with their places in the flat block.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_has_101770_parameters_without_gaps() {
        let shape = MlpShape::new(784, &[128], 10);
        assert_eq!(shape.parameter_count(), 784 * 128 + 128 + 128 * 10 + 10);
        let mut end = 0;
        for layer in shape.layers() {
            assert_eq!(layer.weights.start, end);
            assert_eq!(layer.biases.start, layer.weights.end);
            end = layer.biases.end;
        }
    }

    #[test]
    fn images_are_square() {
        for (inputs, side) in [(784, Some(28)), (783, None), (785, None), (1, Some(1))] {
            assert_eq!(MlpShape::new(inputs, &[], 10).image_side(), side);
        }
    }
}
