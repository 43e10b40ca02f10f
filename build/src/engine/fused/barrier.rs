//! A barrier for the threads that take a training step together.
//!
//! It uses nothing else of this crate, so that ThreadSanitizer can be built around this file alone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How often a waiting thread polls before it sleeps: some ten microseconds, many times the wait in a balanced step.
const SPINS: u32 = 500;

/// A barrier: each thread waits here for all others, less than a microsecond where each has a processor to itself.
///
/// A waiting thread polls for a while and then sleeps, so that other threads get its processor.
#[derive(Debug)]
pub struct Barrier {
    threads: usize,
    spins: u32,
    arrived: AtomicUsize,
    /// How often all threads have met.
    meetings: AtomicUsize,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    all_met: Condvar,
    /// Whether a thread panicked.
    broken: AtomicBool,
}

impl Barrier {
    /// For `threads` threads on a machine with `processors`.
    pub fn new(threads: usize, processors: usize) -> Self {
        Self {
            threads,
            spins: if threads <= processors { SPINS } else { 0 },
            arrived: AtomicUsize::new(0),
            meetings: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            all_met: Condvar::new(),
            broken: AtomicBool::new(false),
        }
    }

    /// How many threads meet here.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Returns when all threads have called it equally often. Every thread then sees all that the others wrote before.
    ///
    /// # Panics
    /// Another thread panicked.
    #[inline]
    pub fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let meeting = self.meetings.load(Ordering::Relaxed);
        #[cfg(test)]
        super::helgrind::arrive(self, meeting);
        self.meet(meeting);
        #[cfg(test)]
        super::helgrind::leave(self, meeting);
    }

    /// Takes part in meeting number `meeting`.
    #[inline]
    fn meet(&self, meeting: usize) {
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.meetings.store(meeting + 1, Ordering::SeqCst);
            if self.sleeping.load(Ordering::SeqCst) > 0 {
                self.wake_all();
            }
            return;
        }
        for _ in 0..self.spins {
            if self.meetings.load(Ordering::Acquire) != meeting {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleep(meeting);
    }

    #[cold]
    fn sleep(&self, meeting: usize) {
        let mut guard = self.lock();
        // Counted before the last poll: either the last thread to arrive sees the count, or this poll sees the meeting.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while self.meetings.load(Ordering::SeqCst) == meeting && !self.broken.load(Ordering::SeqCst) {
            guard = self.all_met.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        assert!(self.meetings.load(Ordering::SeqCst) != meeting, "another thread of the team panicked");
    }

    #[cold]
    fn wake_all(&self) {
        let _guard = self.lock();
        self.all_met.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guard for each thread to hold: when the thread panics, it makes the waiting threads panic too.
    pub fn watch(&self) -> Watch<'_> {
        Watch(self)
    }
}

/// See [`Barrier::watch`].
#[derive(Debug)]
pub struct Watch<'a>(&'a Barrier);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::SeqCst);
            self.0.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_the_barrier_before_all_have_come() {
        for (threads, processors) in [(1, 8), (2, 8), (4, 8), (4, 1)] {
            let barrier = Barrier::new(threads, processors);
            let count = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for rank in 0..threads {
                    let (barrier, count) = (&barrier, &count);
                    scope.spawn(move || {
                        for round in 1..=500 {
                            if (round + rank) % 97 == 0 {
                                std::thread::sleep(std::time::Duration::from_micros(300));
                            }
                            count.fetch_add(1, Ordering::Relaxed);
                            barrier.wait();
                            assert_eq!(count.load(Ordering::Relaxed), round * threads);
                            barrier.wait();
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_panic_of_one_lets_the_others_go() {
        let barrier = Barrier::new(2, 2);
        let ended = std::panic::catch_unwind(|| {
            std::thread::scope(|scope| {
                for rank in 0..2 {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let _watch = barrier.watch();
                        assert!(rank == 0, "on purpose");
                        barrier.wait();
                    });
                }
            });
        });
        assert!(ended.is_err());
    }
}
