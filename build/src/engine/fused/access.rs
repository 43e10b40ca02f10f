//! Which thread may use which memory in which phase of a step.
//!
//! All threads of a team go through the same phases for each micro-batch, with a barrier between most of them:
//!
//! | phase | each thread writes, for its own columns | all threads read |
//! |---|---|---|
//! | forward through hidden layer l | activations of l, its part of the logits | activations before l, dense weights |
//! | loss | gradients of the last hidden layer | parts of the logits |
//! | backward through hidden layer l | gradients of l - 1 | gradients of l, dense weights, activations |
//! | update | dense weights | gradients, activations |
//!
//! Dense layers are the hidden layers after the first. No thread uses another's weights and gradients of the first
//! layer, its activations of the last hidden layer, or its weights of the output layer, in any phase.

#![expect(unsafe_code, reason = "makes views, see the table above")]

use std::ops::Range;

use super::barrier::{Barrier, Watch};
use super::panel::{PanelBuffer, PanelKind};
use super::shared::{Shared, View};
use super::weights::{Columns, LayerLayout, Slab, SplitLayer, Weights};
use crate::simd::Precision;
use crate::threads;

/// The memory that values pass through in a step, from layer to layer and from thread to thread.
#[derive(Debug)]
pub struct Exchange {
    layers: Vec<LayerExchange>,
    /// The logits' parts (B), one for each `grain` columns of the last hidden layer. Micro-batches take turns at the two, so
    /// that one thread may write the next one's parts while another still reads.
    logit_parts: [Shared<PanelBuffer>; 2],
    barrier: Barrier,
}

#[derive(Debug)]
struct LayerExchange {
    /// The layer's output (B,W), per slab.
    activations: Shared<PanelBuffer>,
    /// The gradient of `a W + b` (B,W), per slab; empty without training.
    gradients: Shared<PanelBuffer>,
}

impl Exchange {
    /// For `images` images at a time and the team that `weights` are laid out for, which trains.
    pub fn for_training(weights: &Weights, images: usize) -> Self {
        Self::new(weights, weights.precision, images, images, weights.threads())
    }

    /// For `images` images at a time and one thread, which only answers, in float32.
    pub fn for_answers(weights: &Weights, images: usize) -> Self {
        Self::new(weights, Precision::Float32, images, 0, 1)
    }

    fn new(weights: &Weights, precision: Precision, images: usize, gradients: usize, threads: usize) -> Self {
        let panels = |layout: &LayerLayout, images: usize, kind: PanelKind| {
            let panel = |columns: &Columns| PanelBuffer::for_products(images, columns.width, kind, precision);
            Shared::new(layout.slabs.iter().map(panel).collect())
        };
        let last = weights.layers.len() - 1;
        let layers = weights.layers.iter().enumerate().map(|(l, SplitLayer { layout, .. })| LayerExchange {
            activations: panels(layout, images, if l < last { PanelKind::Activations } else { PanelKind::Unread }),
            gradients: panels(layout, gradients, if l > 0 { PanelKind::Gradients } else { PanelKind::FirstGradients }),
        });
        let parts = logit_parts(weights, 0..weights.layers[weights.layers.len() - 1].layout.slabs.len()).end;
        Self {
            layers: layers.collect(),
            logit_parts: [0; 2].map(|_| Shared::new((0..parts).map(|_| PanelBuffer::new(images, 1)).collect())),
            barrier: Barrier::new(threads, threads::processors()),
        }
    }

    /// Goes on with fewer threads.
    pub fn reduce_threads(&mut self, threads: usize) {
        self.barrier = Barrier::new(threads, threads::processors());
    }
}

/// The parts of the logits that come from the slabs `own` of the last hidden layer.
fn logit_parts(weights: &Weights, own: Range<usize>) -> Range<usize> {
    if weights.hidden() == 0 {
        return 0..0;
    }
    let slabs = &weights.layers[weights.layers.len() - 1].layout.slabs;
    let part_of = |slab: usize| match slabs.get(slab) {
        Some(columns) => columns.begin / weights.grain,
        None => slabs.last().map_or(0, |last| (last.begin + last.width).div_ceil(weights.grain)),
    };
    part_of(own.start)..part_of(own.end)
}

/// Where a thread is in a micro-batch. The layers are hidden layers, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Forward(usize),
    Loss,
    Backward(usize),
    Update,
}

/// One thread's access to weights and exchange. It holds for a phase: [`Access::next`] ends all borrows.
pub struct Access<'n> {
    weights: &'n Weights,
    exchange: &'n Exchange,
    rank: usize,
    threads: usize,
    trains: bool,
    phase: Phase,
    /// Which of the two sets of the logits' parts this micro-batch uses.
    turn: usize,
}

/// A layer in a phase.
pub struct LayerAccess<'p> {
    /// How its columns are split.
    pub layout: &'p LayerLayout,
    /// The slabs of this thread.
    pub own: Range<usize>,
    /// Weights and biases.
    pub weights: View<'p, Slab>,
    /// The output (B,W), per slab.
    pub activations: View<'p, PanelBuffer>,
    /// The gradient of `a W + b` (B,W), per slab.
    pub gradients: View<'p, PanelBuffer>,
}

/// The output layer in a phase.
pub struct OutputAccess<'p> {
    /// The rows of the weights for each slab of the last hidden layer.
    pub weights: View<'p, Slab>,
    /// A copy of the biases for each thread.
    pub biases: View<'p, Slab>,
    /// This thread's copy.
    pub rank: usize,
    /// The parts of the logits, one for each [`Weights::grain`] columns of the last hidden layer.
    pub logit_parts: View<'p, PanelBuffer>,
    /// How many parts there are, of all threads.
    pub part_count: usize,
    /// See [`Weights::grain`].
    pub grain: usize,
}

impl<'n> Access<'n> {
    /// One access for each thread of the team, at the beginning of a micro-batch.
    pub fn for_team(weights: &'n mut Weights, exchange: &'n mut Exchange) -> Vec<Self> {
        let threads = weights.threads();
        assert_eq!(threads, exchange.barrier.threads());
        let (weights, exchange) = (&*weights, &*exchange);
        let access = |rank| Self { weights, exchange, rank, threads, trains: true, phase: Phase::Forward(0), turn: 0 };
        (0..threads).map(access).collect()
    }

    /// Access for a thread that answers by itself. Nobody trains meanwhile: that would take a mutable reference.
    pub fn alone(weights: &'n Weights, exchange: &'n mut Exchange) -> Self {
        assert_eq!(exchange.barrier.threads(), 1);
        Self { weights, exchange, rank: 0, threads: 1, trains: false, phase: Phase::Forward(0), turn: 0 }
    }

    /// How many hidden layers there are.
    #[inline(always)]
    pub fn hidden(&self) -> usize {
        self.weights.hidden()
    }

    /// A guard to hold as long as this thread works, see [`Barrier::watch`].
    pub fn watch(&self) -> Watch<'n> {
        self.exchange.barrier.watch()
    }

    /// Goes to the next phase: forward through each hidden layer, loss, backward through each dense layer, update. A
    /// network without dense layers goes from the loss to the next micro-batch at once, and so does a thread that answers.
    ///
    /// Waits for the other threads, unless the two phases are the same for them.
    #[inline(always)]
    pub fn next(&mut self) {
        let last = self.exchange.layers.len() - 1;
        self.phase = match self.phase {
            Phase::Forward(l) if l < last => Phase::Forward(l + 1),
            Phase::Forward(_) => Phase::Loss,
            Phase::Loss if last > 0 && self.trains => Phase::Backward(last),
            Phase::Loss => {
                // No barrier: without dense layers the only memory that others read are the parts of the logits, and
                // the next micro-batch writes the other set. The barrier of the next loss comes before this set's next use.
                self.turn = 1 - self.turn;
                self.phase = Phase::Forward(0);
                return;
            }
            Phase::Backward(l) if l > 1 => Phase::Backward(l - 1),
            Phase::Backward(_) => Phase::Update,
            Phase::Update => {
                self.turn = 1 - self.turn;
                Phase::Forward(0)
            }
        };
        self.exchange.barrier.wait();
    }

    /// Hidden layer `l`, or the output layer where there is none.
    #[inline(always)]
    pub fn layer(&mut self, l: usize) -> LayerAccess<'_> {
        // SAFETY: `self` is borrowed as long as the views live, so no other views of this thread exist.
        unsafe { self.views(l) }
    }

    /// Hidden layers `l - 1` and `l`.
    #[inline(always)]
    pub fn pair(&mut self, l: usize) -> [LayerAccess<'_>; 2] {
        // SAFETY: as for `layer`, and the views are of two layers.
        unsafe { [self.views(l - 1), self.views(l)] }
    }

    /// The last hidden layer, or the output layer where there is none; and the output layer after it.
    #[inline(always)]
    pub fn last(&mut self) -> (LayerAccess<'_>, OutputAccess<'_>) {
        let Self { weights, exchange, rank, threads, trains, .. } = *self;
        let last = exchange.layers.len() - 1;
        let own = weights.layers[last].layout.own(rank, threads);
        let parts = &exchange.logit_parts[self.turn];
        // SAFETY: `self` is borrowed as long as the views live, so no other views of this thread exist. Training
        // threads have copies of the biases, rows of the weights and parts of the logits of their own. They read those
        // of others only in the phase of the loss, and the parts only: all were written before the barrier that begins
        // the phase, and see `next` for when they are written again. Threads that answer read the weights, and each has
        // its exchange.
        let output = unsafe {
            OutputAccess {
                weights: View::new(&weights.outputs, own.clone(), !trains),
                biases: View::new(&weights.output_biases, rank..rank + 1, !trains),
                rank,
                logit_parts: View::new(parts, logit_parts(weights, own), self.phase == Phase::Loss),
                part_count: parts.len(),
                grain: weights.grain,
            }
        };
        // SAFETY: as above, and these are views of other memory.
        (unsafe { self.views(last) }, output)
    }

    /// # Safety
    /// No other views of layer `l` that this function made are in use, nor were they made before the last call of
    /// [`Access::next`].
    #[inline(always)]
    unsafe fn views(&self, l: usize) -> LayerAccess<'_> {
        let Self { weights, exchange, rank, threads, trains, phase, .. } = *self;
        let last = exchange.layers.len() - 1;
        let SplitLayer { layout, slabs } = &weights.layers[l];
        let LayerExchange { activations, gradients } = &exchange.layers[l];
        let own = layout.own(rank, threads);
        let weights_published = !trains || (l > 0 && phase != Phase::Update);
        let activations_published = l < last
            && match phase {
                Phase::Forward(at) => at > l,
                Phase::Loss | Phase::Backward(_) | Phase::Update => true,
            };
        let gradients_published = l > 0
            && match phase {
                Phase::Forward(_) | Phase::Loss => false,
                Phase::Backward(at) => at <= l,
                Phase::Update => true,
            };
        // SAFETY: the slabs of different threads are disjoint. Whether they are published depends on the phase only, in
        // which `next` keeps all threads together: it waits at a barrier wherever one of the three conditions changes.
        // Threads that answer read the weights, and each has an exchange of its own.
        unsafe {
            LayerAccess {
                layout,
                weights: View::new(slabs, own.clone(), weights_published),
                activations: View::new(activations, own.clone(), activations_published),
                gradients: View::new(gradients, own.clone(), gradients_published),
                own,
            }
        }
    }
}
