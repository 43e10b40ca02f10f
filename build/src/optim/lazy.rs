//! Lazy updates: weights of the first layer whose pixel is zero in all images of a batch.
//!
//! They have no gradient, but most optimizers change them by what they keep in their slots. The fused engine leaves such a
//! row of weights alone and notes since which step. When its pixel is nonzero again, the row catches up, with all these
//! steps at once. Four in ten rows of MNIST have no gradient in a batch of 32, eight in ten in a batch of one.
//!
//! Many optimizers have a closed form for `k` steps without gradient ([`ClosedForm`]). With momentum, `m` decays by `mu` a
//! step:
//!
//! ```text
//! w += m (mu + mu^2 + ... + mu^k)
//! ```
//!
//! In general, the move is a function of the slots and of a few sums over the steps. The sums are the same for all rows that
//! wait since the same step, so they are kept here, one for each such step. An optimizer without a closed form says
//! so with the type [`Infallible`]: its rows catch up step by step, by the rules that are kept here.
//!
//! After [`PERIOD`] steps all rows catch up, and a new period begins. So no row falls further behind, and few sums are kept.
//!
//! With one learning rate for all steps, the factors of the weights are powers of one weight decay. With a schedule they are
//! products over the steps, kept beside the sums: [`WeightFactors`].

use std::convert::Infallible;

use super::vectors::{BlockUpdate, StepRule};
use super::{MAX_SLOTS, OptimizerSettings};
use crate::simd::{Block, Simd};

/// Steps after which all rows catch up.
pub const PERIOD: usize = 128;

/// The most sums that a closed form can have.
pub const MAX_SUMS: usize = 3;

/// What `k` steps without gradient do, all at once.
pub trait ClosedForm {
    /// The numbers that do not change during training.
    fn coefficients(&self) -> Coefficients;

    /// The size of step number `step` (from 1) with learning rate `rate`: the factor of its terms in the sums.
    fn size(&self, rate: f64, step: u64) -> f64;

    /// Decays `weights` and moves them; `slots` are those before the steps.
    fn move_weights<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&[Block]; MAX_SLOTS], by: Move);
}

/// A closed form's numbers that do not change during training.
pub struct Coefficients {
    /// The factor of each slot in a step without gradient; 1 if it stays, or there is no such slot.
    pub slot_factors: [f64; MAX_SLOTS],
    /// How many sums there are.
    pub sums: usize,
    /// The term of sum `i` for the step that is `j` steps after the last gradient (from 1), apart from the step's size.
    pub term: Box<dyn Fn(usize, i32) -> f64>,
}

/// How far some rows move.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// The factor of the weights before.
    pub decay: f32,
    /// Sums over the steps: size of each step, times its term, times the weight decay after it.
    pub sums: [f32; MAX_SUMS],
}

impl Move {
    /// Weight decay alone.
    #[inline(always)]
    pub fn decay<S: Simd>(self, s: S, weights: &mut [Block]) {
        if self.decay != 1.0 {
            for w in weights {
                s.store(s.mul(s.load(w), s.splat(self.decay)), w);
            }
        }
    }

    /// Weight decay, then the first sum times `momentum`, subtracted.
    #[inline(always)]
    pub fn by_momentum<S: Simd>(self, s: S, weights: &mut [Block], momentum: &[Block]) {
        for (w, m) in weights.iter_mut().zip(momentum) {
            let decayed = s.mul(s.load(w), s.splat(self.decay));
            s.store(s.neg_mul_add(s.load(m), s.splat(self.sums[0]), decayed), w);
        }
    }
}

/// The type of a closed form that does not exist.
impl ClosedForm for Infallible {
    fn coefficients(&self) -> Coefficients {
        match *self {}
    }
    fn size(&self, _: f64, _: u64) -> f64 {
        match *self {}
    }
    fn move_weights<S: Simd>(&self, _: S, _: &mut [Block], _: [&[Block]; MAX_SLOTS], _: Move) {
        match *self {}
    }
}

/// How rows catch up, for each step of the current period since which they may wait.
#[derive(Debug)]
pub struct LazyUpdates {
    settings: OptimizerSettings,
    /// Steps of the current period.
    steps: usize,
    by: CatchUp,
}

#[derive(Debug)]
enum CatchUp {
    AtOnce(Sums),
    /// The rules of the period's steps.
    StepByStep(Vec<StepRule>),
}

/// The sums of a closed form.
#[derive(Debug)]
struct Sums {
    /// For rows that wait since each step of the period, from the first on.
    sums: Vec<[f32; PERIOD]>,
    /// The terms of the steps, the last first: the one at `PERIOD - j` belongs to the step `j` steps after the gradient.
    terms: Vec<[f32; PERIOD]>,
    /// The factors of the slots after each number of steps.
    slot_factors: Vec<[f32; MAX_SLOTS]>,
    weight_factors: WeightFactors,
}

/// The factors of weights by weight decay.
#[derive(Debug)]
enum WeightFactors {
    /// Of one learning rate for all steps, or without weight decay: after each number of steps.
    Powers(Vec<f32>),
    /// Of a schedule: for rows that wait since each step of the period, from the first on.
    Products(Vec<f64>),
}

impl LazyUpdates {
    /// At the beginning of a period.
    pub fn new(settings: OptimizerSettings) -> Self {
        let by = match settings.method.coefficients() {
            Some(coefficients) => CatchUp::AtOnce(Sums::new(&settings, &coefficients)),
            None => CatchUp::StepByStep(Vec::with_capacity(PERIOD)),
        };
        Self { settings, steps: 0, by }
    }

    /// Steps of the current period: rows that are up to date now wait since this one.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Takes note of step number `step` (from 1), which is done.
    #[inline(always)]
    pub fn step(&mut self, step: u64) {
        self.steps += 1;
        match &mut self.by {
            CatchUp::AtOnce(Sums { sums, weight_factors: WeightFactors::Powers(_), .. }) if sums.is_empty() => {}
            CatchUp::AtOnce(sums) => {
                let rate = self.settings.rate(step);
                let size = self.settings.method.closed_form_size(rate, step);
                sums.step(self.steps, size as f32, self.settings.decay(rate));
            }
            CatchUp::StepByStep(rules) => rules.push(StepRule::new(&self.settings, step)),
        }
    }

    /// Whether the period is over: then all rows must catch up, and [`LazyUpdates::begin`] follows.
    pub fn is_over(&self) -> bool {
        self.steps == PERIOD
    }

    /// Begins a period. All rows are up to date.
    pub fn begin(&mut self) {
        self.steps = 0;
        match &mut self.by {
            CatchUp::AtOnce(sums) => sums.begin(),
            CatchUp::StepByStep(rules) => rules.clear(),
        }
    }

    /// Brings weights up to date that wait since step `since` of the period.
    #[inline(always)]
    pub fn catch_up<S: Simd>(&self, s: S, since: usize, weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS]) {
        match &self.by {
            CatchUp::AtOnce(sums) => {
                let steps = self.steps - since;
                let decay = match &sums.weight_factors {
                    WeightFactors::Powers(powers) => powers[steps],
                    WeightFactors::Products(products) => products[since] as f32,
                };
                let by = Move { decay, sums: sums.since(since) };
                self.settings.method.move_weights(s, weights, slots.each_ref().map(|slot| &**slot), by);
                for (slot, factor) in slots.into_iter().zip(sums.slot_factors[steps]) {
                    if factor != 1.0 {
                        for value in slot {
                            s.store(s.mul(s.load(value), s.splat(factor)), value);
                        }
                    }
                }
            }
            CatchUp::StepByStep(rules) => step_by_step(s, &rules[since..self.steps], weights, slots),
        }
    }
}

/// Takes the steps of `rules` without gradient.
#[inline(always)]
fn step_by_step<S: Simd>(s: S, rules: &[StepRule], weights: &mut [Block], slots: [&mut [Block]; MAX_SLOTS]) {
    let [first, second] = slots;
    for rule in rules {
        for (i, w) in weights.iter_mut().enumerate() {
            let slots = [&mut *first, &mut *second].map(|slot| slot.get_mut(i..=i).unwrap_or_default());
            rule.apply(s, std::slice::from_mut(w), slots, &[Block::ZERO]);
        }
    }
}

impl Sums {
    fn new(settings: &OptimizerSettings, coefficients: &Coefficients) -> Self {
        let Coefficients { slot_factors, sums, term } = coefficients;
        let terms = |i| std::array::from_fn(|at| term(i, (PERIOD - at) as i32) as f32);
        let powers = |factor: f64| (0..=PERIOD as i32).map(move |steps| factor.powi(steps) as f32);
        let decays = settings.weight_decay > 0.0 && !settings.schedule.is_constant();
        Self {
            sums: vec![[0.0; PERIOD]; *sums],
            terms: (0..*sums).map(terms).collect(),
            slot_factors: powers(slot_factors[0]).zip(powers(slot_factors[1])).map(<[f32; MAX_SLOTS]>::from).collect(),
            weight_factors: if decays {
                WeightFactors::Products(vec![1.0; PERIOD])
            } else {
                WeightFactors::Powers(powers(settings.decay(settings.rate(1))).collect())
            },
        }
    }

    /// Begins a period.
    fn begin(&mut self) {
        self.sums.iter_mut().for_each(|sums| sums.fill(0.0));
        if let WeightFactors::Products(products) = &mut self.weight_factors {
            products.fill(1.0);
        }
    }

    /// Adds the step that is number `steps` of the period, with its weight decay.
    #[inline(always)]
    fn step(&mut self, steps: usize, size: f32, decay: f64) {
        let decay = match &mut self.weight_factors {
            WeightFactors::Powers(powers) => powers[1],
            WeightFactors::Products(products) => {
                for product in &mut products[..steps] {
                    *product *= decay;
                }
                decay as f32
            }
        };
        for (sums, terms) in self.sums.iter_mut().zip(&self.terms) {
            for (sum, term) in sums[..steps].iter_mut().zip(&terms[PERIOD - steps..]) {
                *sum = *sum * decay + size * term;
            }
        }
    }

    /// The sums for rows that wait since step `since`; 0 for those that the closed form does not have.
    #[inline(always)]
    fn since(&self, since: usize) -> [f32; MAX_SUMS] {
        std::array::from_fn(|i| self.sums.get(i).map_or(0.0, |sums| sums[since]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::tests::every_setting_and_schedule;
    use crate::simd::{InstructionSet, Job};

    /// Takes weights and slots.
    type Work<'a> = dyn FnMut(&mut [Block], [&mut [Block]; MAX_SLOTS]) + 'a;

    /// A block of weights and slots that waits since step `since` of a period: each step taken on its own, in closed form
    /// if there is one, and by the kept rules.
    struct Waiting {
        settings: OptimizerSettings,
        since: usize,
        steps: usize,
    }

    impl Job for Waiting {
        type Output = [[Block; 3]; 3];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let row = |scale: f32| Block(std::array::from_fn(|i| scale * (i as f32 - 4.5)));
            let second_moments = Block(std::array::from_fn(|i| 1e-17 * 10f32.powi(i as i32 / 2)));
            // Roots of second moments around epsilon, where each part of Adam's closed form counts.
            let slots = self.settings.slots();
            let slot = |s: usize| match slots.get(s).map(|slot| slot.name) {
                Some("first_moment" | "momentum") => row(1e-7),
                _ => second_moments,
            };
            let begin = [row(1e-3), slot(0), slot(1)];
            let used = slots.len();
            let each = |blocks: &mut [Block; 3], work: &mut Work| {
                let [w, first, second] = blocks.each_mut().map(std::slice::from_mut);
                let [first, second] = [(first, 0), (second, 1)].map(|(slot, s)| if s < used { slot } else { &mut [] });
                work(w, [first, second]);
            };
            let mut lazy = LazyUpdates::new(self.settings);
            let rules = CatchUp::StepByStep(vec![]);
            let mut kept = LazyUpdates { settings: self.settings, steps: 0, by: rules };
            let [mut expected, mut at_once, mut step_by_step] = [begin; 3];
            for step in 1..=(self.since + self.steps) as u64 {
                lazy.step(step);
                kept.step(step);
                if step > self.since as u64 {
                    let rule = StepRule::new(&self.settings, step);
                    each(&mut expected, &mut |w, slots| rule.apply(s, w, slots, &[Block::ZERO]));
                }
            }
            each(&mut at_once, &mut |w, slots| lazy.catch_up(s, self.since, w, slots));
            each(&mut step_by_step, &mut |w, slots| kept.catch_up(s, self.since, w, slots));
            [expected, at_once, step_by_step]
        }
    }

    #[test]
    fn catching_up_is_as_many_steps_without_gradient() {
        for set in InstructionSet::available() {
            for settings in every_setting_and_schedule() {
                for (since, steps) in [(0, 1), (5, 2), (40, 10), (3, 60), (0, PERIOD), (PERIOD - 1, 1)] {
                    let [expected, at_once, step_by_step] = set.run(Waiting { settings, since, steps });
                    assert_eq!(step_by_step, expected, "{settings:?} {since} {steps}");
                    for (array, (expected, found)) in expected.iter().zip(&at_once).enumerate() {
                        let largest = expected.0.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                        for (i, (expected, found)) in expected.0.iter().zip(&found.0).enumerate() {
                            let near = (expected - found).abs() <= 2e-5 * expected.abs().max(1e-3 * largest);
                            assert!(near, "{settings:?} {since} {steps} {array}[{i}]: {found}, expected {expected}");
                        }
                    }
                }
            }
        }
    }
}
