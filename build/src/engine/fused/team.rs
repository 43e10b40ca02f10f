//! How many threads train a small network fastest: found out by measuring steps, while they train.
//!
//! In a step of few microseconds the team's barriers cost more than another thread gains. No bit of the result depends on
//! the number of threads, so it may change between two periods of the lazy update, when all weights are up to date.

use std::time::Duration;

use crate::optim::lazy::PERIOD;

/// The steps of a measurement.
pub const STEPS: usize = PERIOD;
/// Measurements of each number of threads. The fastest counts.
const TRIES: usize = 3;
/// A step that takes longer than this gains by every thread.
const LONG: Duration = Duration::from_micros(30);
/// A measurement that is slower than another number of threads by this factor needs no other.
const CLEARLY: f64 = 1.3;

/// The search for the number of threads: half as many, as long as that is faster.
#[derive(Debug)]
pub struct TeamSearch {
    /// The threads that are measured.
    threads: usize,
    /// The fastest measurement of them, and how many there were.
    seconds: f64,
    tries: usize,
    /// The fastest number before, and its measurement.
    best: Option<(usize, f64)>,
}

/// What comes after a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Search {
    /// A measurement of this many threads.
    Measure(usize),
    /// This many threads are the fastest.
    Over(usize),
}

impl TeamSearch {
    /// Beginning with `threads`; none where there is nothing to choose.
    pub fn among(threads: usize) -> Option<Self> {
        (threads > 1).then_some(Self { threads, seconds: f64::INFINITY, tries: 0, best: None })
    }

    /// After [`STEPS`] steps of the threads that were to be measured.
    pub fn measured(&mut self, took: Duration) -> Search {
        self.seconds = self.seconds.min(took.as_secs_f64());
        self.tries += 1;
        let best = self.best.unwrap_or((self.threads, f64::INFINITY));
        if self.seconds > CLEARLY * best.1 {
            return Search::Over(best.0);
        }
        if self.tries < TRIES {
            return Search::Measure(self.threads);
        }
        if self.seconds >= best.1 {
            return Search::Over(best.0);
        }
        if self.threads == 1 || self.seconds > LONG.as_secs_f64() * STEPS as f64 {
            return Search::Over(self.threads);
        }
        let half = self.threads / 2;
        let best = Some((self.threads, self.seconds));
        *self = Self { threads: half, seconds: f64::INFINITY, tries: 0, best };
        Search::Measure(half)
    }
}

#[cfg(test)]
mod tests {
    use super::super::valgrind_tests::engine;
    use super::*;
    use crate::engine::{EpochTotals, Trainer};
    use crate::simd::InstructionSet;

    #[test]
    fn another_number_of_threads_between_two_periods_changes_no_bit() {
        let images: Vec<u32> = (0..5 * 3 * STEPS as u32).map(|i| i % 15).collect();
        for set in InstructionSet::available() {
            let results = [[2, 2, 2], [2, 1, 2], [1, 3, 1]].map(|threads| {
                let (mut engine, _) = engine(set, &[37, 20], 5, 15, threads[0]);
                let mut totals = EpochTotals::default();
                for (part, threads) in images.chunks(5 * STEPS).zip(threads) {
                    engine.set_threads(threads).unwrap();
                    totals = engine.train_round(part, false, totals);
                }
                engine.train_round(&[], true, totals);
                (engine.state().unwrap(), totals.loss_sum)
            });
            assert!(results[0] == results[1] && results[1] == results[2]);
        }
    }

    #[test]
    fn fewer_threads_than_the_network_was_laid_out_for_change_no_bit() {
        // Batches of one group, of several, and of several micro-batches.
        for (batch_size, images) in [(5, 15), (70, 100), (270, 300)] {
            for set in InstructionSet::available() {
                let order: Vec<u32> = (0..images as u32).collect();
                let results = [3, 2, 1].map(|threads| {
                    let (mut engine, _) = engine(set, &[37, 40], batch_size, images, 3);
                    if threads < 3 {
                        engine.reduce_threads(threads);
                    }
                    let totals = engine.train_round(&order, true, EpochTotals::default());
                    (engine.state().unwrap(), totals.loss_sum)
                });
                assert!(results[0] == results[1] && results[1] == results[2], "{set:?}, batches of {batch_size}");
            }
        }
    }

    /// What the search finds, and the threads of all its measurements, if a step of so many threads takes so many
    /// microseconds.
    fn found(threads: usize, micros: impl Fn(usize) -> u64) -> (usize, Vec<usize>) {
        let mut search = TeamSearch::among(threads).unwrap();
        let (mut next, mut measured) = (threads, vec![]);
        loop {
            measured.push(next);
            match search.measured(Duration::from_micros(micros(next) * STEPS as u64)) {
                Search::Measure(threads) => next = threads,
                Search::Over(threads) => return (threads, measured),
            }
        }
    }

    #[test]
    fn the_fastest_number_of_threads_is_found() {
        assert_eq!(found(16, |threads| 4 + threads as u64), (1, [[16; 3], [8; 3], [4; 3], [2; 3], [1; 3]].concat()));
        assert_eq!(found(2, |threads| 12 / threads as u64), (2, vec![2, 2, 2, 1]));
        assert_eq!(found(2, |threads| 11 - threads as u64), (2, vec![2, 2, 2, 1, 1, 1]));
        assert_eq!(
            found(16, |threads| 12u64.abs_diff(3 * threads as u64) / 2 + 5),
            (4, [[16; 3], [8; 3], [4; 3]].concat().into_iter().chain([2]).collect())
        );
        assert!(TeamSearch::among(1).is_none());
    }

    #[test]
    fn long_steps_keep_all_threads() {
        assert_eq!(found(2, |_| 40), (2, vec![2, 2, 2]));
    }

    #[test]
    fn one_slow_measurement_decides_nothing() {
        let mut search = TeamSearch::among(2).unwrap();
        let micros = |micros: u64| Duration::from_micros(micros * STEPS as u64);
        assert_eq!([9, 6, 7].map(|took| search.measured(micros(took)))[2], Search::Measure(1));
        assert_eq!([7, 4, 7].map(|took| search.measured(micros(took)))[2], Search::Over(1));
    }
}
