//! What happens during training, told to whoever listens; engines and the training loop print nothing themselves.

use serde::Serialize;

use crate::engine::Progress;
use crate::score::Score;

/// One epoch as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// Mean training loss while the epoch ran, dropout on.
    pub loss: f64,
    /// Training accuracy while the epoch ran, dropout on; from 0 to 1.
    pub accuracy: f64,
    /// How long training took, without the evaluation after it.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Loss on the test set after the epoch.
    pub test_loss: f64,
    /// Accuracy on the test set after the epoch, from 0 to 1.
    pub test_accuracy: f64,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Event<'a> {
    /// An epoch (from 1) of `epochs` begins, over `images` images.
    EpochStarted { epoch: u32, epochs: u32, images: usize },
    /// Some steps are done.
    Progress(Progress),
    /// All steps of the epoch are done.
    EpochTrained { epoch: u32 },
    /// The test set was evaluated.
    Evaluated { epoch: u32, score: &'a Score },
    /// The epoch is over.
    EpochFinished { epochs: u32, record: &'a EpochRecord },
}

/// Someone who is told.
pub trait Listener {
    /// Takes note of `event`.
    fn on(&mut self, event: Event);
}
