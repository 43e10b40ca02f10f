//! Training steps on several GPUs.
//!
//! Each GPU has all images and the whole network, and makes the gradient of its share of the batch. The host adds up the
//! gradients in the order of the GPUs, and every GPU does the optimizer's step with the sum. So they have the same parameters
//! to the last bit, and need not send them to each other:
//!
//! ```text
//! each GPU    forward, loss, backward of its share of the batch    gradient -> host
//! the host    the sum of the gradients, in the order of the GPUs   sum -> each GPU
//! each GPU    the optimizer's step by the sum
//! ```
//!
//! GPUs work at the same time, since the host asks all of them before it waits for any. Each step waits for the way of the
//! gradient to the host and back: 0.4 MB a GPU for the default network. So several GPUs are faster only with large batches or
//! large networks.

use std::ops::Range;

use super::memory::{GpuEpoch, PendingRead};
use super::network::{GpuNetwork, add_scores};
use super::queue::StepQueue;
use crate::engine::device_error::guarded;
use crate::engine::{EpochTotals, Recipe, Report};
use crate::error::Result;

/// Trains on the batches of `order` from step number `first_step` on, and counts those that are `done`.
///
/// # Errors
/// What `progress` returned, or a device failed.
pub fn train(
    gpus: &[GpuNetwork],
    recipe: &Recipe,
    first_step: u64,
    order: &[u32],
    done: &mut usize,
    progress: &mut Report,
) -> Result<EpochTotals> {
    let epochs = guarded(|| gpus.iter().map(|gpu| gpu.epoch(recipe, first_step, order)).collect::<Result<Vec<_>>>())?;
    let members = gpus.iter().zip(&epochs).map(|(gpu, epoch)| Member {
        gpu,
        epoch,
        queue: gpu.steps(epoch),
        rows: gpu.rows(recipe, order),
        seen: 0,
    });
    let mut members: Vec<Member> = members.collect();
    let mut totals = EpochTotals::default();
    for batch in order.chunks(recipe.batch_size) {
        guarded(|| step(&mut members, *done % 2, batch.len(), &mut totals))?;
        *done += 1;
        progress(totals.progress())?;
    }
    Ok(totals)
}

/// A GPU in an epoch.
struct Member<'a> {
    gpu: &'a GpuNetwork,
    epoch: &'a GpuEpoch,
    queue: StepQueue<'a>,
    /// How many images its share of a batch has, at most.
    rows: usize,
    /// How many of its images of the epoch are done.
    seen: usize,
}

impl<'a> Member<'a> {
    /// Has the GPU make the gradient of its share of a batch of `length` images, and send it with their scores. Nothing if the
    /// batch has fewer images than there are GPUs, and none for this one.
    fn begin(&mut self, turn: usize, length: usize) -> Option<PendingRead<'a, 2>> {
        let share = self.gpu.share.of(length).len();
        if share == 0 {
            return None;
        }
        self.queue.step(turn, self.rows);
        let scores = 2 * self.seen..2 * (self.seen + share);
        self.seen += share;
        Some(self.gpu.memory.begin_read([(&self.gpu.scratch, self.gradient()), (&self.epoch.scores, scores)]))
    }

    /// Has the GPU do the optimizer's step by the gradient `sum`.
    fn end(&self, turn: usize, sum: &[f32]) {
        self.gpu.memory.write(&self.gpu.scratch, self.gradient().start, sum.to_vec());
        self.queue.update_by_sum(turn);
    }

    /// Where the gradient stands in the scratch memory, behind all else.
    fn gradient(&self) -> Range<usize> {
        let end = self.gpu.plan.scratch();
        end - self.gpu.plan.update.parameters..end
    }
}

/// One step on a batch of `length` images, which are added to `totals` in their order. The `turn` is that of the clocks.
fn step(members: &mut [Member], turn: usize, length: usize, totals: &mut EpochTotals) -> Result<()> {
    // All of them work before the host waits for the first.
    let pending: Vec<_> = members.iter_mut().filter_map(|member| member.begin(turn, length)).collect();
    // Every read is waited for, even if one fails: the runtime must not use its memory again before.
    let read: Vec<_> = pending.into_iter().map(PendingRead::wait).collect();
    let mut sum: Vec<f32> = vec![];
    for parts in read {
        let [gradient, scores] = parts?;
        if sum.is_empty() {
            sum = gradient;
        } else {
            sum.iter_mut().zip(&gradient).for_each(|(sum, number)| *sum += number);
        }
        add_scores(std::slice::from_mut(totals), &scores);
    }
    members.iter().for_each(|member| member.end(turn, &sum));
    Ok(())
}
