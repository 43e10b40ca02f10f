//! Rows at rest: weights of the first layer whose pixel is black in all images of a batch.
//!
//! They have no gradient, but most optimizers move them on by what they remember. Instead of doing so in every step, a row
//! rests, and is brought up to date when its pixel is lit again: four in ten rows of MNIST rest in a batch of 32, eight in
//! ten in a batch of one. What k steps without gradient do has a closed form. With momentum, `m` decays by `mu` a step:
//!
//! ```text
//! w += m (mu + mu^2 + ... + mu^k)
//! ```
//!
//! Adam's `m` decays by beta_1, the root of its `v` by the root of beta_2, and its step size a_j changes with each step:
//!
//! ```text
//! w -= sum over j of  a_j beta_1^j m / (beta_2^(j/2) sqrt(v) + epsilon)
//!    = m / (sqrt(v) + epsilon)  sum of  a_j r^j / (1 + f t_j)         r = beta_1 / sqrt(beta_2), t_j = beta_2^(-j/2) - 1,
//!    ~ m / (sqrt(v) + epsilon) (S_0 - f S_1 + f^2 S_2)                f = epsilon / (sqrt(v) + epsilon)
//!                                                                     S_i = sum of a_j r^j t_j^i
//! ```
//!
//! Since f is at most 1 and t_j some j / 2000, what is left out is less than a millionth of the move.

use crate::optim::{BETA_1, BETA_2, EPSILON, OptimizerKind, OptimizerSettings, RHO};
use crate::simd::{Block, Simd};

/// After so many steps all rows are brought up to date, so that none rests longer.
pub const PERIOD: usize = 128;

/// What rest does to a row, for each step of the current period since when it may have rested.
#[derive(Debug)]
pub struct Rest {
    settings: OptimizerSettings,
    moves: Moves,
    /// Steps of the current period.
    steps: usize,
    /// `S_i` for rows that rest since each step of the period, from the first on.
    sums: [Box<[f32; PERIOD]>; 3],
    /// `r^j t_j^i` for j from `PERIOD` down to 1.
    terms: [Box<[f32; PERIOD]>; 3],
    /// What weights and slots are multiplied by after each number of steps.
    factors: Vec<Factors>,
}

/// What moves the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moves {
    Nothing,
    /// Adam's moments.
    Moments,
    /// The momentum in this slot.
    Momentum(usize),
}

#[derive(Debug, Clone, Copy)]
struct Factors {
    weights: f32,
    slots: [f32; 2],
}

impl Rest {
    /// At the beginning of a period.
    pub fn new(settings: OptimizerSettings) -> Self {
        let momentum = settings.momentum;
        let (moves, ratio, slots) = match settings.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => (Moves::Moments, BETA_1 / BETA_2.sqrt(), [BETA_1, BETA_2]),
            OptimizerKind::Sgd if momentum > 0.0 => (Moves::Momentum(0), momentum, [momentum, 1.0]),
            OptimizerKind::RmsProp if momentum > 0.0 => (Moves::Momentum(1), momentum, [RHO, momentum]),
            OptimizerKind::RmsProp => (Moves::Nothing, 0.0, [RHO, 1.0]),
            OptimizerKind::Sgd | OptimizerKind::Adagrad => (Moves::Nothing, 0.0, [1.0; 2]),
        };
        let term = |i: i32| {
            Box::new(std::array::from_fn(|at| {
                let j = (PERIOD - at) as i32;
                (ratio.powi(j) * (BETA_2.powf(f64::from(j) / -2.0) - 1.0).powi(i)) as f32
            }))
        };
        let factors = (0..=PERIOD as i32).map(|steps| Factors {
            weights: settings.decay().powi(steps) as f32,
            slots: slots.map(|factor| factor.powi(steps) as f32),
        });
        Self {
            settings,
            moves,
            steps: 0,
            sums: std::array::from_fn(|_| Box::new([0.0; PERIOD])),
            terms: [term(0), term(1), term(2)],
            factors: factors.collect(),
        }
    }

    /// Steps of the current period: rows up to date now rest since this one.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Takes note of step number `step` (from 1), which is done.
    #[inline(always)]
    pub fn step(&mut self, step: u64) {
        self.steps += 1;
        // The minus sign: what sgd's momentum does is added.
        let size = match (self.moves, self.settings.kind) {
            (Moves::Nothing, _) => return,
            (Moves::Moments, _) => self.settings.adam_step_size(step),
            (Moves::Momentum(_), OptimizerKind::Sgd) if self.settings.nesterov => -self.settings.momentum,
            (Moves::Momentum(_), OptimizerKind::Sgd) => -1.0,
            (Moves::Momentum(_), _) => 1.0,
        } as f32;
        let decay = self.factors[1].weights;
        let sums = if self.moves == Moves::Moments { 3 } else { 1 };
        for (sums, terms) in self.sums.iter_mut().zip(&self.terms).take(sums) {
            for (sum, term) in sums[..self.steps].iter_mut().zip(&terms[PERIOD - self.steps..]) {
                *sum = *sum * decay + size * term;
            }
        }
    }

    /// Whether the period is over, and [`Rest::begin`] is due.
    pub fn is_over(&self) -> bool {
        self.steps == PERIOD
    }

    /// Begins a period, all rows being up to date.
    pub fn begin(&mut self) {
        self.steps = 0;
        self.sums.iter_mut().for_each(|sums| sums.fill(0.0));
    }

    /// Brings weights up to date that rest since step `since` of the period.
    #[inline(always)]
    pub fn wake<S: Simd>(&self, s: S, since: usize, weights: &mut [Block], slots: [&mut [Block]; 2]) {
        let factors = &self.factors[self.steps - since];
        let [s0, s1, s2] = [0, 1, 2].map(|i| self.sums[i][since]);
        match self.moves {
            Moves::Moments => {
                for ((w, m), v) in weights.iter_mut().zip(&*slots[0]).zip(&*slots[1]) {
                    let v = s.max(s.splat(1e-36), s.load(v)); // whose root is a normal number
                    let over = s.over_root(s.splat(1.0), v, 1.0, EPSILON as f32);
                    let f = s.mul(over, s.splat(EPSILON as f32));
                    let sum = s.mul_add(s.mul_add(f, s.splat(s2), s.splat(-s1)), f, s.splat(s0));
                    let moved = s.mul(s.mul(s.load(m), over), sum);
                    s.store(s.sub(s.mul(s.load(w), s.splat(factors.weights)), moved), w);
                }
            }
            Moves::Momentum(slot) => {
                for (w, m) in weights.iter_mut().zip(&*slots[slot]) {
                    let decayed = s.mul(s.load(w), s.splat(factors.weights));
                    s.store(s.neg_mul_add(s.load(m), s.splat(s0), decayed), w);
                }
            }
            Moves::Nothing if factors.weights != 1.0 => {
                for w in weights {
                    s.store(s.mul(s.load(w), s.splat(factors.weights)), w);
                }
            }
            Moves::Nothing => {}
        }
        for (slot, factor) in slots.into_iter().zip(factors.slots) {
            if factor != 1.0 {
                for value in slot {
                    s.store(s.mul(s.load(value), s.splat(factor)), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::update::{StepRule, Update};
    use super::*;
    use crate::simd::FlushDenormals;
    use crate::simd::{InstructionSet, Job};

    /// A block of weights and slots that rests since step `since` of a period, in one go and step by step.
    struct Both {
        settings: OptimizerSettings,
        since: usize,
        steps: usize,
    }

    impl Job for Both {
        type Output = [[Block; 3]; 2];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let _flush = FlushDenormals::begin();
            let row = |scale: f32| Block(std::array::from_fn(|i| scale * (i as f32 - 4.5)));
            // Roots of second moments around epsilon, where each part of Adam's closed form counts.
            let begin = [row(1e-3), row(1e-7), Block(std::array::from_fn(|i| 1e-17 * 10f32.powi(i as i32 / 2)))];
            let (mut one, mut other) = (begin, begin);
            let mut rest = Rest::new(self.settings);
            for step in 1..=(self.since + self.steps) as u64 {
                rest.step(step);
                if step > self.since as u64 {
                    let [w, m, v] = &mut one;
                    let rule = StepRule::new(&self.settings, step);
                    rule.apply(s, std::slice::from_mut(w), slots(&self.settings, m, v), &[Block::ZERO]);
                }
            }
            let [w, m, v] = &mut other;
            rest.wake(s, self.since, std::slice::from_mut(w), slots(&self.settings, m, v));
            [one, other]
        }
    }

    fn slots<'a>(settings: &OptimizerSettings, m: &'a mut Block, v: &'a mut Block) -> [&'a mut [Block]; 2] {
        let [m, v] = [m, v].map(std::slice::from_mut);
        match (settings.kind, settings.momentum > 0.0) {
            (OptimizerKind::Adam | OptimizerKind::AdamW, _) => [m, v],
            (OptimizerKind::Sgd, true) => [m, &mut []],
            (OptimizerKind::Sgd, false) => [&mut [], &mut []],
            (OptimizerKind::RmsProp, true) => [v, m],
            (OptimizerKind::RmsProp | OptimizerKind::Adagrad, _) => [v, &mut []],
        }
    }

    #[test]
    fn a_rest_is_as_many_steps_without_gradient() {
        let plain = |kind: OptimizerKind| OptimizerSettings {
            kind,
            learning_rate: 0.01,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        };
        let sgd = plain(OptimizerKind::Sgd);
        let cases = [
            plain(OptimizerKind::Adam),
            OptimizerSettings { weight_decay: 0.1, ..plain(OptimizerKind::AdamW) },
            sgd,
            OptimizerSettings { weight_decay: 0.1, ..sgd },
            OptimizerSettings { momentum: 0.9, ..sgd },
            OptimizerSettings { momentum: 0.9, nesterov: true, weight_decay: 0.1, ..sgd },
            plain(OptimizerKind::RmsProp),
            OptimizerSettings { momentum: 0.9, ..plain(OptimizerKind::RmsProp) },
            OptimizerSettings { weight_decay: 0.1, ..plain(OptimizerKind::Adagrad) },
        ];
        for set in InstructionSet::available() {
            for settings in cases {
                for (since, steps) in [(0, 1), (5, 2), (40, 10), (3, 60), (0, PERIOD), (PERIOD - 1, 1)] {
                    let [one, other] = set.run(Both { settings, since, steps });
                    for (array, (one, other)) in one.iter().zip(&other).enumerate() {
                        let largest = one.0.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                        for (i, (one, other)) in one.0.iter().zip(&other.0).enumerate() {
                            let near = (one - other).abs() <= 2e-5 * one.abs().max(1e-3 * largest);
                            assert!(near, "{settings:?} {since} {steps} array {array}[{i}]: {one}, at once {other}");
                        }
                    }
                }
            }
        }
    }
}
