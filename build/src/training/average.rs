//! The exponential moving average of the weights over the steps, which is evaluated and kept in place of the weights.
//!
//! Sources: Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging, 1992; the
//! `ExponentialMovingAverage` of torchvision's reference for classification, which moves every few steps too; Keras'
//! `use_ema`.

/// The average moves every so many steps, and at the end of an epoch: in between it would cost as much as a step.
pub const INTERVAL: usize = 128;

/// Moves `average` (P) towards `parameters` (P) after `steps` more steps: `a = d a + (1 - d) w` with `d = decay^steps`.
///
/// The first time it becomes equal to them: the initial weights have no part in it.
pub fn update(average: &mut Option<Vec<f32>>, parameters: &[f32], decay: f64, steps: usize) {
    let Some(average) = average else {
        *average = Some(parameters.to_vec());
        return;
    };
    let towards = (1.0 - decay.powi(steps as i32)) as f32;
    for (average, parameter) in average.iter_mut().zip(parameters) {
        *average += towards * (parameter - *average);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_as_if_it_had_moved_after_every_step() {
        // Constant weights: many steps at once are as many single ones.
        let (mut at_once, mut singly) = (Some(vec![1.0, -2.0]), Some(vec![1.0, -2.0]));
        update(&mut at_once, &[3.0, 4.0], 0.99, 50);
        (0..50).for_each(|_| update(&mut singly, &[3.0, 4.0], 0.99, 1));
        for (a, b) in at_once.unwrap().iter().zip(singly.unwrap()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        let mut first = None;
        update(&mut first, &[3.0], 0.99, 1);
        assert_eq!(first, Some(vec![3.0]));
    }
}
