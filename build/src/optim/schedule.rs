//! Learning rate schedules: the rate of every step.
//!
//! With t steps done before (t = 0 in the first step), W steps of warmup, T steps after it, the rate r and the final rate f:
//!
//! | schedule | rate for t >= W, with p = (t - W) / T, at most 1 | source |
//! |---|---|---|
//! | constant | r | |
//! | linear | f + (r - f) (1 - p) | Keras' `PolynomialDecay`, `power` 1 |
//! | cosine | f + (r - f) (1 + cos(pi p)) / 2 | Keras' `CosineDecay`, `alpha` f / r; Loshchilov, Hutter: SGDR, 2016 |
//! | exponential | r (f / r)^p | Keras' `ExponentialDecay`, `decay_rate` f / r |
//! | step | r; r sqrt(f / r) from step T / 2 on; f from step 3 T / 4 on | PyTorch's `MultiStepLR`, `gamma` sqrt(f / r) |
//!
//! Before, for t < W, the rate is `r t / W`, as in the warmup of Keras' `CosineDecay` with `initial_learning_rate` 0: it is 0
//! in the first step. The places of the schedule step are rounded down.
//!
//! The schedule one_cycle is PyTorch's `OneCycleLR` with `anneal_strategy` cos and `div_factor` 25 (Smith, Topin:
//! Super-Convergence, 2017). The rate goes from r / 25 up to r, where t = W - 1, and then down to f, in the last step; both
//! times by half a cosine. PyTorch divides by zero where the first half has one step; here, that step has the rate r.
//!
//! After the last planned step every schedule stays at its end.

use serde::{Serialize, Serializer};

/// A learning rate schedule by its name in the parameters file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduleKind {
    /// The same rate for all steps.
    Constant,
    /// A straight line to the final rate.
    Linear,
    /// Half a cosine to the final rate.
    Cosine,
    /// Half a cosine up to the rate, and half a cosine down to the final one.
    OneCycle,
    /// The rate in three steps, at equal ratios.
    Step,
    /// Equal ratios from step to step.
    Exponential,
}

impl ScheduleKind {
    /// All schedules by their names in the parameters file.
    pub const ALL: [(&'static str, Self); 6] = [
        ("constant", Self::Constant),
        ("linear", Self::Linear),
        ("cosine", Self::Cosine),
        ("one_cycle", Self::OneCycle),
        ("step", Self::Step),
        ("exponential", Self::Exponential),
    ];

    /// The name in the parameters file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::OneCycle => "one_cycle",
            Self::Step => "step",
            Self::Exponential => "exponential",
        }
    }

    /// Whether it ends at a final rate.
    pub fn takes_final(self) -> bool {
        self != Self::Constant
    }

    /// The final rate for `learning_rate`, unless another one is set. For one_cycle it is PyTorch's.
    pub fn default_final(self, learning_rate: f64) -> f64 {
        match self {
            Self::Constant => learning_rate,
            Self::Linear | Self::Cosine => 0.0,
            Self::Step | Self::Exponential => learning_rate / 100.0,
            Self::OneCycle => learning_rate / (DIV_FACTOR * 1e4),
        }
    }

    /// The share of all steps that warmup takes, unless another one is set. For one_cycle it is PyTorch's `pct_start`.
    pub fn default_warmup(self) -> f64 {
        if self == Self::OneCycle { 0.3 } else { 0.0 }
    }
}

impl Serialize for ScheduleKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// PyTorch's `div_factor`: how many times the highest rate of one_cycle is the first one.
const DIV_FACTOR: f64 = 25.0;

/// A learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Which one.
    pub kind: ScheduleKind,
    /// The highest rate: r.
    pub learning_rate: f64,
    /// The rate at the end: f. The schedule constant has none.
    pub final_learning_rate: f64,
    /// The first steps, in which the rate rises: W.
    pub warmup_steps: u64,
    /// All planned steps: W + T.
    pub steps: u64,
}

impl Schedule {
    /// The same rate for all steps.
    pub const fn constant(learning_rate: f64) -> Self {
        let kind = ScheduleKind::Constant;
        Self { kind, learning_rate, final_learning_rate: learning_rate, warmup_steps: 0, steps: 0 }
    }

    /// Whether all steps have the same rate.
    pub fn is_constant(&self) -> bool {
        self.kind == ScheduleKind::Constant && self.warmup_steps == 0
    }

    /// The learning rate of step number `step` (from 1). Finite for every step, however few are planned.
    pub fn rate(&self, step: u64) -> f64 {
        let Self { kind, learning_rate: high, final_learning_rate: last, warmup_steps, steps } = *self;
        let done = step.saturating_sub(1);
        if kind == ScheduleKind::OneCycle {
            return self.one_cycle(done as f64);
        }
        if done < warmup_steps {
            return high * share(done as f64, warmup_steps as f64);
        }
        let (done, steps) = (done - warmup_steps, steps.saturating_sub(warmup_steps));
        let part = share(done as f64, steps as f64);
        match kind {
            ScheduleKind::Constant | ScheduleKind::OneCycle => high,
            ScheduleKind::Linear => line(high, last, part),
            ScheduleKind::Cosine => half_cosine(high, last, part),
            ScheduleKind::Exponential => between(high, last, part),
            ScheduleKind::Step => {
                let milestones = [steps / 2, (u128::from(steps) * 3 / 4) as u64];
                let passed = milestones.into_iter().filter(|&milestone| done >= milestone).count();
                between(high, last, passed as f64 / 2.0)
            }
        }
    }

    /// The rate of one_cycle after `done` steps, by PyTorch's phases: each ends one step before the next begins.
    fn one_cycle(&self, done: f64) -> f64 {
        let high = self.learning_rate;
        let [top, end] = [self.warmup_steps, self.steps].map(|steps| steps as f64 - 1.0);
        if done <= top {
            half_cosine(high / DIV_FACTOR, high, share(done, top))
        } else {
            half_cosine(high, self.final_learning_rate, share(done - top, end - top))
        }
    }
}

/// The share `part` of `whole`, at most 1. All of nothing is done.
fn share(part: f64, whole: f64) -> f64 {
    if part < whole { part / whole } else { 1.0 }
}

/// From `first` to `last` by a straight line, at `part` of the way. Both ends are exact.
fn line(first: f64, last: f64, part: f64) -> f64 {
    first * (1.0 - part) + last * part
}

/// The same by half a cosine.
fn half_cosine(first: f64, last: f64, part: f64) -> f64 {
    line(first, last, (1.0 - (std::f64::consts::PI * part).cos()) / 2.0)
}

/// From `first` to `last` by equal ratios, at `part` of the way: `first (last / first)^part`, without the quotient, which may
/// overflow.
fn between(first: f64, last: f64, part: f64) -> f64 {
    first.powf(1.0 - part) * last.powf(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_has_its_name() {
        assert!(ScheduleKind::ALL.iter().all(|(name, kind)| kind.name() == *name));
    }

    #[test]
    fn a_constant_schedule_has_one_rate() {
        let schedule = Schedule::constant(0.1);
        assert!(schedule.is_constant());
        assert!((0..300).all(|step| schedule.rate(step) == 0.1));
        let warm = Schedule { warmup_steps: 4, steps: 10, ..schedule };
        assert!(!warm.is_constant());
        assert_eq!([1, 2, 3, 4, 5, 11].map(|step| warm.rate(step)), [0.0, 0.025, 0.05, 0.1 * 3.0 / 4.0, 0.1, 0.1]);
    }

    #[test]
    fn every_rate_is_finite_and_the_last_one_stays() {
        for (name, kind) in ScheduleKind::ALL {
            for steps in [0, 1, 2, 3, 4, 7, 100, u64::MAX] {
                for warmup_steps in [0, 1, 2, 3, 5, 100, u64::MAX] {
                    for (learning_rate, final_learning_rate) in
                        [(0.1, 0.0), (0.1, 0.001), (0.0, 0.0), (1e-300, 1e300), (f64::MAX, f64::MIN_POSITIVE)]
                    {
                        let schedule = Schedule { kind, learning_rate, final_learning_rate, warmup_steps, steps };
                        let case = format!("{name}: {schedule:?}");
                        let largest = learning_rate.max(final_learning_rate) * (1.0 + 1e-12);
                        for step in (0..130).chain([steps, u64::MAX]) {
                            let rate = schedule.rate(step);
                            assert!(rate.is_finite() && rate >= 0.0 && rate <= largest, "{case} {step}: {rate}");
                        }
                        let end = if kind.takes_final() { final_learning_rate } else { learning_rate };
                        if steps < 130 && warmup_steps < 130 {
                            let after = steps.max(warmup_steps) + 1;
                            assert!((after..200).all(|step| schedule.rate(step) == end), "{case}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_rate_of_one_cycle_follows_from_how_many_steps_rise() {
        let first = |warmup_steps, steps| {
            let kind = ScheduleKind::OneCycle;
            Schedule { kind, learning_rate: 1.0, final_learning_rate: 0.5, warmup_steps, steps }.rate(1)
        };
        assert_eq!(first(3, 10), 1.0 / 25.0);
        assert_eq!(first(1, 10), 1.0);
        // The phase that falls has begun a step before.
        assert!((first(0, 2) - 0.75).abs() < 1e-15);
        assert_eq!(first(0, 1), 0.5);
    }
}
