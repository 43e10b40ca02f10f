//! The optimizers on blocks: [`OptimizerSettings::update`], sixteen parameters at a time.

use crate::optim::{BETA_1, BETA_2, EPSILON, OptimizerKind, OptimizerSettings, RHO};
use crate::simd::{Block, Simd};

/// Learning rates below it change no weight, and would make infinities of quotients.
const SMALLEST_RATE: f64 = 1e-25;

/// What one step does with a parameter and its gradient.
#[derive(Debug, Clone, Copy)]
pub struct StepRule {
    /// What parameters are multiplied by before; 1 where there is no weight decay.
    decay: f32,
    formula: Formula,
}

#[derive(Debug, Clone, Copy)]
enum Formula {
    Adam(Adam),
    Sgd(Sgd),
    SgdMomentum(SgdMomentum),
    SgdNesterov(SgdNesterov),
    RmsProp(RmsProp),
    RmsPropMomentum(RmsPropMomentum),
    Adagrad(Adagrad),
}

impl StepRule {
    /// The rule of step number `step` (from 1).
    pub fn new(settings: &OptimizerSettings, step: u64) -> Self {
        let rate = settings.learning_rate as f32;
        let scale = (1.0 / settings.learning_rate.max(SMALLEST_RATE)) as f32;
        let momentum = settings.momentum as f32;
        let formula = match settings.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let step_size = settings.adam_step_size(step).max(SMALLEST_RATE);
                Formula::Adam(Adam { scale: (1.0 / step_size) as f32, offset: (EPSILON / step_size) as f32 })
            }
            OptimizerKind::Sgd if settings.momentum == 0.0 => Formula::Sgd(Sgd { rate }),
            OptimizerKind::Sgd if settings.nesterov => Formula::SgdNesterov(SgdNesterov { rate, momentum }),
            OptimizerKind::Sgd => Formula::SgdMomentum(SgdMomentum { rate, momentum }),
            OptimizerKind::RmsProp if settings.momentum > 0.0 => {
                Formula::RmsPropMomentum(RmsPropMomentum { scale, momentum })
            }
            OptimizerKind::RmsProp => Formula::RmsProp(RmsProp { scale }),
            OptimizerKind::Adagrad => Formula::Adagrad(Adagrad { scale }),
        };
        Self { decay: settings.decay() as f32, formula }
    }

    /// The rule alone, where it is Adam's without weight decay: the one that is worth a loop of its own.
    pub fn adam(&self) -> Option<Adam> {
        match self.formula {
            Formula::Adam(adam) if self.decay == 1.0 => Some(adam),
            _ => None,
        }
    }
}

/// What updates weights.
pub trait Update {
    /// Updates `weights` by `gradient`; `slots` hold as many numbers each, where the optimizer has them.
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; 2], gradient: &[Block]);
}

impl Update for Adam {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; 2], gradient: &[Block]) {
        each(s, *self, weights, slots, gradient);
    }
}

impl Update for StepRule {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, weights: &mut [Block], slots: [&mut [Block]; 2], gradient: &[Block]) {
        if self.decay != 1.0 {
            for w in weights.iter_mut() {
                let decayed = s.mul(s.load(w), s.splat(self.decay));
                s.store(decayed, w);
            }
        }
        match self.formula {
            Formula::Adam(rule) => each(s, rule, weights, slots, gradient),
            Formula::Sgd(rule) => each(s, rule, weights, slots, gradient),
            Formula::SgdMomentum(rule) => each(s, rule, weights, slots, gradient),
            Formula::SgdNesterov(rule) => each(s, rule, weights, slots, gradient),
            Formula::RmsProp(rule) => each(s, rule, weights, slots, gradient),
            Formula::RmsPropMomentum(rule) => each(s, rule, weights, slots, gradient),
            Formula::Adagrad(rule) => each(s, rule, weights, slots, gradient),
        }
    }
}

/// A formula for parameter `w`, its slots and its gradient `g`.
trait Rule: Copy {
    const SLOTS: usize;
    fn next<S: Simd>(self, s: S, w: S::F, slots: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]);
}

#[inline(always)]
fn each<S: Simd, R: Rule>(s: S, rule: R, weights: &mut [Block], slots: [&mut [Block]; 2], gradient: &[Block]) {
    let n = weights.len();
    let gradient = &gradient[..n];
    let [first, second] = slots;
    let first = &mut first[..if R::SLOTS > 0 { n } else { 0 }];
    let second = &mut second[..if R::SLOTS > 1 { n } else { 0 }];
    for i in 0..n {
        let mut old = [s.splat(0.0); 2];
        if R::SLOTS > 0 {
            old[0] = s.load(&first[i]);
        }
        if R::SLOTS > 1 {
            old[1] = s.load(&second[i]);
        }
        let (w, new) = rule.next(s, s.load(&weights[i]), old, s.load(&gradient[i]));
        s.store(w, &mut weights[i]);
        if R::SLOTS > 0 {
            s.store(new[0], &mut first[i]);
        }
        if R::SLOTS > 1 {
            s.store(new[1], &mut second[i]);
        }
    }
}

/// Added to a squared gradient: keeps the root of the second moment a normal number, and is far too small for the sum with
/// epsilon to notice.
const TINY: f32 = 1e-30;

/// Adam, see [`OptimizerSettings::update`].
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// 1 / step size: one multiplication less for each parameter.
    scale: f32,
    /// Epsilon / step size.
    offset: f32,
}

impl Rule for Adam {
    const SLOTS: usize = 2;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, v]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let m = s.mul_add(s.sub(g, m), s.splat((1.0 - BETA_1) as f32), m);
        let v = s.mul_add(s.sub(s.mul_add(g, g, s.splat(TINY)), v), s.splat((1.0 - BETA_2) as f32), v);
        (s.sub(w, s.over_root(m, v, self.scale, self.offset)), [m, v])
    }
}

#[derive(Debug, Clone, Copy)]
struct Sgd {
    rate: f32,
}

impl Rule for Sgd {
    const SLOTS: usize = 0;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, slots: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        (s.neg_mul_add(g, s.splat(self.rate), w), slots)
    }
}

#[derive(Debug, Clone, Copy)]
struct SgdMomentum {
    rate: f32,
    momentum: f32,
}

impl Rule for SgdMomentum {
    const SLOTS: usize = 1;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, none]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let m = s.neg_mul_add(g, s.splat(self.rate), s.mul(m, s.splat(self.momentum)));
        (s.add(w, m), [m, none])
    }
}

#[derive(Debug, Clone, Copy)]
struct SgdNesterov {
    rate: f32,
    momentum: f32,
}

impl Rule for SgdNesterov {
    const SLOTS: usize = 1;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [m, none]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let (rate, momentum) = (s.splat(self.rate), s.splat(self.momentum));
        let m = s.neg_mul_add(g, rate, s.mul(m, momentum));
        (s.neg_mul_add(g, rate, s.mul_add(m, momentum, w)), [m, none])
    }
}

#[derive(Debug, Clone, Copy)]
struct RmsProp {
    /// 1 / learning rate.
    scale: f32,
}

impl RmsProp {
    /// The change of `w`, and the new mean square.
    #[inline(always)]
    fn change<S: Simd>(self, s: S, v: S::F, g: S::F) -> (S::F, S::F) {
        let v = s.mul_add(s.sub(s.mul(g, g), v), s.splat((1.0 - RHO) as f32), v);
        (s.over_root(g, s.add(v, s.splat(EPSILON as f32)), self.scale, 0.0), v)
    }
}

impl Rule for RmsProp {
    const SLOTS: usize = 1;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [v, none]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let (change, v) = self.change(s, v, g);
        (s.sub(w, change), [v, none])
    }
}

#[derive(Debug, Clone, Copy)]
struct RmsPropMomentum {
    scale: f32,
    momentum: f32,
}

impl Rule for RmsPropMomentum {
    const SLOTS: usize = 2;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [v, m]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let (change, v) = RmsProp { scale: self.scale }.change(s, v, g);
        let m = s.mul_add(m, s.splat(self.momentum), change);
        (s.sub(w, m), [v, m])
    }
}

#[derive(Debug, Clone, Copy)]
struct Adagrad {
    scale: f32,
}

impl Rule for Adagrad {
    const SLOTS: usize = 1;
    #[inline(always)]
    fn next<S: Simd>(self, s: S, w: S::F, [sum, none]: [S::F; 2], g: S::F) -> (S::F, [S::F; 2]) {
        let sum = s.mul_add(g, g, sum);
        let change = s.over_root(g, s.add(sum, s.splat(EPSILON as f32)), self.scale, 0.0);
        (s.sub(w, change), [sum, none])
    }
}
