//! The score of a network on a set of images.

use super::deadline::{self, Deadline};
use crate::data::dataset::Images;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::output::event::{Evaluation, Listener, RunEvent};

/// As many images are evaluated between two looks at the clock and at signals. Burn takes as many at a time, and the other
/// engines answer for each image alone.
pub const EVALUATED_AT_ONCE: usize = 2_000;

/// Scores `network` on the images of `split`, after `epoch` or by itself, before `deadline`.
///
/// # Errors
/// SIGINT or SIGTERM arrived, the time is over, the device failed, or after an epoch the loss is infinite or NaN.
pub fn evaluate<N: Network + ?Sized>(
    network: &mut N,
    split: &'static str,
    images: &Images,
    epoch: Option<u32>,
    deadline: Option<Deadline>,
    listener: &mut dyn Listener,
) -> Result<Evaluation> {
    listener.on(RunEvent::EvaluationStarted { split, epoch });
    let logits = logits(network, &images.pixels, images.inputs(), || deadline::check(deadline))?;
    let evaluation = Evaluation::new(split, logits, &images.labels, images.classes.len());
    if let Some(epoch) = epoch {
        check_finite(epoch, "the loss", evaluation.score.loss)?;
    }
    listener.on(RunEvent::Evaluated { evaluation: &evaluation, epoch });
    Ok(evaluation)
}

/// The logits (N,K) of `network` for `pixels` (N,D), where `inputs` is D. `go_on` is asked between two parts.
///
/// # Errors
/// That of `go_on`, or the device failed.
pub fn logits<N: Network + ?Sized>(
    network: &mut N,
    pixels: &[u8],
    inputs: usize,
    go_on: impl Fn() -> Result<()>,
) -> Result<Vec<f32>> {
    let mut logits = vec![];
    for part in pixels.chunks(EVALUATED_AT_ONCE * inputs) {
        go_on()?;
        logits.extend(network.logits(part)?);
    }
    Ok(logits)
}

/// Checks a `value` of `epoch`.
///
/// # Errors
/// It is infinite or NaN.
pub fn check_finite(epoch: u32, what: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::Diverged { epoch, what, value }) }
}
