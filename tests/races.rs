//! Threads that pass plain memory to each other through the barrier of the fused engine. A program of its own, built with
//! ThreadSanitizer by `just races`: it must find no data race here, and one in a barrier without memory orders.

#[path = "../build/src/engine/fused/barrier.rs"]
mod barrier;

use std::cell::UnsafeCell;
use std::thread;

/// Memory that the barrier alone protects.
struct Cell(UnsafeCell<u64>);

// SAFETY: only its owner writes it, and a barrier stands between that and every other use.
unsafe impl Sync for Cell {}

const ROUNDS: u64 = 2000;

fn main() {
    // Waiting threads spin with a processor for each thread, and sleep with fewer.
    for (threads, processors) in [(2, 8), (3, 8), (3, 1)] {
        let barrier = &barrier::Barrier::new(threads, processors);
        let cells: &Vec<Cell> = &(0..threads).map(|_| Cell(UnsafeCell::new(0))).collect();
        thread::scope(|scope| {
            let run = |rank: usize| {
                move || {
                    for round in 0..ROUNDS {
                        // SAFETY: all others read it only after the barrier.
                        unsafe { *cells[rank].0.get() = round };
                        barrier.wait();
                        // SAFETY: nobody writes before the next barrier.
                        let sum: u64 = cells.iter().map(|cell| unsafe { *cell.0.get() }).sum();
                        assert_eq!(sum, round * threads as u64);
                        barrier.wait();
                    }
                }
            };
            let handles: Vec<_> = (0..threads).map(|rank| scope.spawn(run(rank))).collect();
            // Joined one by one: the sanitizer does not see into the standard library, where a scope counts its threads.
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        });
    }
}
