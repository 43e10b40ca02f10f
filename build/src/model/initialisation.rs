//! The parameters before training.

use crate::interrupt;
use crate::model::MlpShape;
use crate::rng::{Purpose, Stream};

impl MlpShape {
    /// Initial parameters (P), as those of Keras' Dense layers: weights Glorot uniform, in `±sqrt(6 / (I + O))`; biases
    /// zero. Each layer has its own random stream. After a signal the last layers stay zero.
    ///
    /// Source: Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks, 2010, eq. 16.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameter_count()];
        for (l, layer) in self.layers().into_iter().enumerate() {
            if interrupt::is_received() {
                break;
            }
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
    fn initial_weights_fill_glorots_range_and_biases_are_zero() {
        let shape = MlpShape::new(784, &[128], 10);
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
