//! An ensemble: networks of one shape that differ in their initial weights and dropout masks, and answer together.
//!
//! An answer has the mean of the members' probabilities. All members see the same batches. Their parameters stand one member
//! after the other: (members, P).
//!
//! Source: Lakshminarayanan, Pritzel, Blundell: Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles,
//! 2017.

use std::sync::{Arc, Mutex, PoisonError};

use super::{EngineInfo, EpochTotals, Network, Progress, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::error::{Error, Result};
use crate::score::mean_of_answers;
use crate::threads;

/// Several networks that answer, or train, as one.
pub struct Ensemble<N: ?Sized> {
    /// At least one; or groups of as many networks each, which answer as one.
    members: Vec<Box<N>>,
    /// How many of them work at the same time.
    at_once: usize,
    /// K.
    classes: usize,
}

impl<N: Network + ?Sized> Ensemble<N> {
    /// Makes `members` answer as one. `classes` is K; `at_once` members work at the same time.
    pub fn new(members: Vec<Box<N>>, at_once: usize, classes: usize) -> Self {
        Self { members, at_once, classes }
    }

    /// Has every member do `work`; the results are in the members' order.
    fn each<R: Send>(&mut self, work: impl Fn(&mut N) -> Result<R> + Sync) -> Result<Vec<R>> {
        let members = self.members.iter_mut();
        threads::side_by_side(self.at_once, members, |member| work(member)).into_iter().collect()
    }
}

/// How `members` share `threads`: how many work at the same time, and with how many threads each. As many threads as can be
/// have work all the time.
pub fn share_out(members: usize, threads: usize) -> (usize, usize) {
    let at_once = largest_group(members, threads);
    (at_once, threads / at_once)
}

/// The size of the largest groups of at most `most` into which `members` can be divided without a rest.
pub fn largest_group(members: usize, most: usize) -> usize {
    (1..=members.min(most)).rev().find(|size| members.is_multiple_of(*size)).unwrap_or(1)
}

impl<N: Network + ?Sized> Network for Ensemble<N> {
    fn info(&self) -> EngineInfo {
        let one = self.members[0].info();
        EngineInfo { threads: one.threads * self.at_once, ..one }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let answers = self.each(|member| member.logits(pixels))?;
        Ok(mean_of_answers(&answers, self.classes))
    }
}

impl Trainer for Ensemble<dyn Trainer> {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let shared = Mutex::new(Reports { progress, members: vec![None; self.members.len()], failure: None });
        let numbered = self.members.iter_mut().enumerate();
        let totals = threads::side_by_side(self.at_once, numbered, |(number, member)| {
            member.train_epoch(order, &mut |progress| threads::lock(&shared).report(number, progress))
        });
        if let Some(failure) = shared.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
            return Err(failure);
        }
        let totals = totals.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(EpochTotals::mean(&totals))
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        self.each(|member| member.set_images(train.clone())).map(drop)
    }

    fn state(&mut self) -> Result<TrainingState> {
        let mut states = self.each(|member| member.state())?.into_iter();
        let Some(mut all) = states.next() else { unreachable!("an ensemble has members") };
        for state in states {
            all.parameters.extend(state.parameters);
            all.slots.iter_mut().zip(state.slots).for_each(|(all, slot)| all.extend(slot));
        }
        Ok(all)
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        Ok(self.each(|member| member.parameters())?.concat())
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        let one = state.parameters.len() / self.members.len();
        for (number, member) in self.members.iter_mut().enumerate() {
            let own = |values: &[f32]| values[number * one..(number + 1) * one].to_vec();
            let slots = state.slots.iter().map(|slot| own(slot)).collect();
            member.load_state(&TrainingState { parameters: own(&state.parameters), slots, step: state.step })?;
        }
        Ok(())
    }
}

/// What the members of an epoch share: they report as one.
struct Reports<'a, 'b> {
    progress: &'a mut Report<'b>,
    /// What each member reported last.
    members: Vec<Option<Progress>>,
    /// Why the epoch ends early.
    failure: Option<Error>,
}

impl Reports<'_, '_> {
    /// Reports the mean of the members after number `member` made `progress`.
    ///
    /// # Errors
    /// The epoch ends here. The reason is kept in `failure`.
    fn report(&mut self, member: usize, progress: Progress) -> Result<()> {
        self.members[member] = Some(progress);
        let known: Vec<_> = self.members.iter().flatten().collect();
        let images: usize = known.iter().map(|progress| progress.images).sum();
        let mean = |value: fn(&Progress) -> Option<f64>| {
            let weighted = known.iter().map(|&progress| Some(value(progress)? * progress.images as f64));
            Some(weighted.sum::<Option<f64>>()? / images as f64)
        };
        let (loss, accuracy) = (mean(|progress| progress.loss), mean(|progress| progress.accuracy));
        let all = Progress { images: images / self.members.len(), loss, accuracy };
        if self.failure.is_none() && all.images > 0 {
            self.failure = (self.progress)(all).err();
        }
        // The others end with an error that nobody sees.
        self.failure.as_ref().map_or(Ok(()), |_| Err(Error::Interrupted { signal: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out_so_that_all_have_work() {
        let shares = [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (5, 16), (6, 4), (20, 8)];
        let expected = [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2), (5, 3), (3, 1), (5, 1)];
        assert_eq!(shares.map(|(members, threads)| share_out(members, threads)), expected);
    }

    #[test]
    fn members_report_as_one_and_the_first_failure_ends_all() {
        let mut heard = vec![];
        let mut progress = |progress: Progress| {
            heard.push(progress);
            if progress.images > 10 { Err(Error::OutOfTime { seconds: 1.0 }) } else { Ok(()) }
        };
        let mut shared = Reports { progress: &mut progress, members: vec![None; 2], failure: None };
        let at = |images, loss| Progress { images, loss: Some(loss), accuracy: None };
        assert!(shared.report(0, at(10, 1.0)).is_ok());
        assert!(shared.report(1, at(5, 4.0)).is_ok());
        assert!(shared.report(1, at(20, 4.0)).is_err());
        assert!(shared.report(0, at(20, 1.0)).is_err());
        assert!(matches!(shared.failure, Some(Error::OutOfTime { .. })));
        assert_eq!(heard, [at(5, 1.0), at(7, 2.0), at(15, 3.0)]);
    }
}
