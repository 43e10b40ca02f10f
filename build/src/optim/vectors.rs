//! The update of vectors: sixteen parameters at a time, on every instruction set.

use super::{Formula, MAX_SLOTS, Optimizer, OptimizerRule, OptimizerSettings};
use crate::simd::{Block, LANES, Simd};

/// A smaller step size changes hardly a weight, and its inverse would be infinite.
pub const SMALLEST_RATE: f64 = 1e-25;

/// Updates blocks of weights.
pub trait BlockUpdate {
    /// Updates `weights` by `gradient`. Each slot has as many blocks; a slot that the optimizer does not have is empty.
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]);
}

/// What one step does with a parameter and its gradient.
#[derive(Debug, Clone, Copy)]
pub struct StepRule {
    /// The factor of every parameter before the update; 1 without weight decay.
    decay: f32,
    rule: OptimizerRule,
    /// The optimizer, in a step with learning rate 0. Vectors are divided by the rate, and a weight that is 0 would move.
    still: Option<Still>,
}

/// An optimizer's step with learning rate 0.
#[derive(Debug, Clone, Copy)]
struct Still {
    method: Optimizer,
    step: u64,
}

impl StepRule {
    /// The rule of step number `step` (from 1).
    pub fn new(settings: &OptimizerSettings, step: u64) -> Self {
        let rate = settings.rate(step);
        let still = (rate == 0.0).then_some(Still { method: settings.method, step });
        Self { decay: settings.decay(rate) as f32, rule: settings.method.rule(rate, step), still }
    }

    /// Adam's rule, if it is this one and there is no weight decay: the default, for which a loop of its own pays.
    pub fn adam(&self) -> Option<impl BlockUpdate + use<>> {
        match self {
            Self { rule: OptimizerRule::Adam(adam), still: None, decay: 1.0 } => Some(*adam),
            _ => None,
        }
    }
}

impl BlockUpdate for StepRule {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]) {
        if self.decay != 1.0 {
            for w in weights.iter_mut() {
                let decayed = s.mul(s.load(w), s.splat(self.decay));
                s.store(decayed, w);
            }
        }
        match self.still {
            None => self.rule.apply(s, weights, slots, gradient),
            Some(Still { method, step }) => method.stand_still(step, weights, slots, gradient),
        }
    }
}

/// Step number `step` (from 1) of `formula` with learning rate 0, number by number. It is seldom: the first step of warmup.
pub(crate) fn stand_still<F: Formula>(
    formula: &F,
    step: u64,
    weights: &mut [Block],
    [first, second]: [&mut [Block]; MAX_SLOTS],
    gradient: &[Block],
) {
    for (i, (w, g)) in weights.iter_mut().zip(gradient).enumerate() {
        let mut slots = [first.get_mut(i), second.get_mut(i)];
        for lane in 0..LANES {
            let old = slots.each_ref().map(|slot| slot.as_ref().map_or(0.0, |slot| slot.0[lane]));
            let new;
            (w.0[lane], new) = formula.update(0.0, step, w.0[lane], old, g.0[lane]);
            for (slot, new) in slots.iter_mut().flatten().zip(new) {
                slot.0[lane] = new;
            }
        }
    }
}

/// A formula for a vector of parameters. An optimizer has one, or one for each way to set its options.
pub trait Rule: Copy {
    /// How many slots it has.
    const SLOTS: usize;

    /// The parameters `w` and their slots after a step with gradient `g`. Slots that it does not have are ignored.
    fn next<S: Simd>(self, s: S, w: S::F, slots: [S::F; MAX_SLOTS], g: S::F) -> (S::F, [S::F; MAX_SLOTS]);
}

impl<R: Rule> BlockUpdate for R {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS], gradient: &[Block]) {
        let n = weights.len();
        let gradient = &gradient[..n];
        let [first, second] = slots;
        let first = &mut first[..if R::SLOTS > 0 { n } else { 0 }];
        let second = &mut second[..if R::SLOTS > 1 { n } else { 0 }];
        for i in 0..n {
            let mut old = [s.splat(0.0); MAX_SLOTS];
            if R::SLOTS > 0 {
                old[0] = s.load(&first[i]);
            }
            if R::SLOTS > 1 {
                old[1] = s.load(&second[i]);
            }
            let (w, new) = self.next(s, s.load(&weights[i]), old, s.load(&gradient[i]));
            s.store(w, &mut weights[i]);
            if R::SLOTS > 0 {
                s.store(new[0], &mut first[i]);
            }
            if R::SLOTS > 1 {
                s.store(new[1], &mut second[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Schedule;
    use crate::optim::tests::{every_setting, every_setting_and_schedule};
    use crate::simd::{InstructionSet, Job};

    /// Ten steps of one block of weights, whose gradients follow from their place and the step.
    struct TenSteps(OptimizerSettings);

    fn gradient(step: u64, lane: usize) -> f32 {
        0.1 * ((3 * lane as u64 + 7 * step) % 11) as f32 - 0.5
    }

    impl Job for TenSteps {
        type Output = [Block; 3];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let Self(settings) = self;
            let begin = settings.slots();
            let mut w = [Block(std::array::from_fn(|i| 0.1 * i as f32))];
            let mut slots: [Vec<Block>; MAX_SLOTS] =
                std::array::from_fn(|s| begin.get(s).map(|slot| Block([slot.initial; LANES])).into_iter().collect());
            for step in 1..=10 {
                let g = Block(std::array::from_fn(|i| gradient(step, i)));
                let slots = slots.each_mut().map(|slot| &mut slot[..]);
                StepRule::new(&settings, step).apply(s, &mut w, slots, &[g]);
            }
            let [first, second] = slots.map(|slot| slot.first().copied().unwrap_or_default());
            [w[0], first, second]
        }
    }

    #[test]
    fn vectors_are_updated_as_single_numbers_are() {
        for settings in every_setting_and_schedule() {
            let mut w: Vec<f64> = (0..LANES).map(|i| f64::from(0.1 * i as f32)).collect();
            let mut slots: Vec<_> = settings.slots().iter().map(|slot| vec![slot.initial.into(); LANES]).collect();
            for step in 1..=10 {
                let g: Vec<f64> = (0..LANES).map(|i| gradient(step, i).into()).collect();
                settings.update(step, &mut w, &g, &mut slots);
            }
            for set in InstructionSet::available() {
                let found = set.run(TenSteps(settings));
                for (array, (found, expected)) in found.iter().zip(std::iter::once(&w).chain(&slots)).enumerate() {
                    for (i, (found, expected)) in found.0.iter().zip(expected).enumerate() {
                        let near = (f64::from(*found) - expected).abs() <= 2e-6 * expected.abs().max(0.1);
                        assert!(near, "{} {settings:?} {array}[{i}]: {found}, expected {expected}", set.name());
                    }
                }
            }
        }
    }

    /// The first step on a block of zeros.
    struct FirstStep(OptimizerSettings);

    impl Job for FirstStep {
        type Output = Block;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Block {
            let mut w = [Block::ZERO];
            let mut slots = [[Block::ZERO]; MAX_SLOTS];
            let g = Block(std::array::from_fn(|i| gradient(1, i)));
            StepRule::new(&self.0, 1).apply(s, &mut w, slots.each_mut().map(|slot| &mut slot[..]), &[g]);
            w[0]
        }
    }

    /// A unit whose bias moved by however little would let black images through ReLU.
    #[test]
    fn a_learning_rate_of_0_moves_no_weight() {
        for settings in every_setting() {
            let still = OptimizerSettings { schedule: Schedule::constant(0.0), ..settings };
            for set in InstructionSet::available() {
                assert_eq!(set.run(FirstStep(still)), Block::ZERO, "{} {settings:?}", set.name());
                assert_ne!(set.run(FirstStep(settings)), Block::ZERO, "{} {settings:?}", set.name());
            }
        }
    }
}
