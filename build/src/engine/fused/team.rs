//! Threads that take one training step together: a barrier, memory they take turns at, and flushing of denormals.

#![expect(unsafe_code, reason = "memory that threads take turns at, and the register that says what denormals become")]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// How often a thread looks again before it sleeps: some ten microseconds, many times what a balanced step waits.
const LOOKS: u32 = 500;

/// Where each thread waits for all others: about a microsecond where each has a processor to itself.
///
/// A waiting thread looks for a while and then sleeps, so that others, perhaps those it waits for, get its processor.
#[derive(Debug)]
pub struct Barrier {
    threads: usize,
    looks: u32,
    arrived: AtomicUsize,
    /// Counts how often all have met.
    meetings: AtomicUsize,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    broken: AtomicBool,
}

impl Barrier {
    /// For `threads` threads on a machine with `processors`.
    pub fn new(threads: usize, processors: usize) -> Self {
        Self {
            threads,
            looks: if threads <= processors { LOOKS } else { 0 },
            arrived: AtomicUsize::new(0),
            meetings: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            broken: AtomicBool::new(false),
        }
    }

    /// How many threads meet here.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Returns when all threads have called it as often as this one. What any wrote before, all see after.
    ///
    /// # Panics
    /// Another thread panicked and will not come.
    #[inline]
    pub fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let meeting = self.meetings.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.meetings.store(meeting + 1, Ordering::SeqCst);
            if self.sleeping.load(Ordering::SeqCst) > 0 {
                self.wake_all();
            }
            return;
        }
        for _ in 0..self.looks {
            if self.meetings.load(Ordering::Acquire) != meeting {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleep(meeting);
    }

    #[cold]
    fn sleep(&self, meeting: usize) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before the last look: who ends the meeting sees the count, or this look sees the end.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while self.meetings.load(Ordering::SeqCst) == meeting && !self.broken.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        assert!(self.meetings.load(Ordering::SeqCst) != meeting, "another thread of the team panicked");
    }

    #[cold]
    fn wake_all(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }

    /// To be held by each thread: lets the others go with a panic when it ends in one.
    pub fn watch(&self) -> impl Drop + '_ {
        struct Watch<'a>(&'a Barrier);
        impl Drop for Watch<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.broken.store(true, Ordering::SeqCst);
                    self.0.wake_all();
                }
            }
        }
        Watch(self)
    }
}

/// Values that threads take turns at: each has an owner that writes it, and all may read it after the next barrier.
#[derive(Debug)]
pub struct Shared<T>(Box<[UnsafeCell<T>]>);

// SAFETY: who calls `read` and `write` promises what a lock would enforce.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// These values.
    pub fn new(values: Vec<T>) -> Self {
        Self(values.into_iter().map(UnsafeCell::new).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Value `index`, to be read.
    ///
    /// # Safety
    /// Nobody writes it while the result is in use: a barrier stands between this and every [`Shared::write`] of it.
    #[inline(always)]
    pub unsafe fn read(&self, index: usize) -> &T {
        // SAFETY: nobody writes it, says the caller.
        unsafe { &*self.0[index].get() }
    }

    /// Value `index`, to be written.
    ///
    /// # Safety
    /// Nobody else uses it while the result is in use: a barrier stands between this and every use by another thread.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub unsafe fn write(&self, index: usize) -> &mut T {
        // SAFETY: nobody else uses it, says the caller.
        unsafe { &mut *self.0[index].get() }
    }

    /// All of them, by the only one who has them.
    pub fn all(&mut self) -> impl ExactSizeIterator<Item = &mut T> {
        self.0.iter_mut().map(UnsafeCell::get_mut)
    }
}

/// While it lives, this thread takes numbers below 1.2e-38 for zero, in what it reads and in what it computes: Adam's
/// moments decay into that range, where arithmetic is a hundred times slower on many processors.
#[derive(Debug)]
pub struct FlushDenormals {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    before: u64,
    /// The register is this thread's: the guard stays on it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl FlushDenormals {
    /// Begins.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub fn begin() -> Self {
        let before = control();
        set_control(before | FLUSH);
        Self { before, _not_send: std::marker::PhantomData }
    }

    /// Begins (this processor's switch is not known: does nothing).
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn begin() -> Self {
        Self { _not_send: std::marker::PhantomData }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        set_control(self.before);
    }
}

/// MXCSR: flush to zero (bit 15), denormals are zero (bit 6).
#[cfg(target_arch = "x86_64")]
const FLUSH: u64 = 1 << 15 | 1 << 6;

/// FPCR: FZ (bit 24).
#[cfg(target_arch = "aarch64")]
const FLUSH: u64 = 1 << 24;

#[cfg(target_arch = "x86_64")]
fn control() -> u64 {
    let mut value = 0u32;
    // SAFETY: stores MXCSR, which every x86-64 processor has, where it may.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
    value.into()
}

#[cfg(target_arch = "x86_64")]
fn set_control(value: u64) {
    let value = value as u32;
    // SAFETY: a value that `control` gave, with two bits that every x86-64 processor allows. Rust takes the default
    // floating-point environment for granted; what differs is only that tiny numbers become zero, which is wanted.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn control() -> u64 {
    let value: u64;
    // SAFETY: reads FPCR, which every AArch64 processor has.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn set_control(value: u64) {
    // SAFETY: as for x86-64: only the flushing of tiny numbers changes.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

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

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn denormals_are_zero_while_the_guard_lives_and_only_on_its_thread() {
        let halved = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(halved() > 0.0);
        let (began, ended) = (&Barrier::new(2, 1), &Barrier::new(2, 1));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let guard = FlushDenormals::begin();
                assert_eq!(halved(), 0.0);
                began.wait();
                ended.wait();
                drop(guard);
                assert!(halved() > 0.0);
            });
            began.wait();
            assert!(halved() > 0.0);
            ended.wait();
        });
    }
}
