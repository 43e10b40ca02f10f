//! Threads, on machines that may refuse them: the work goes on with the threads there are.
//!
//! `ulimit -u`, a container's `pids.max`, a seccomp filter or a lack of memory for stacks can refuse one at any moment.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError, mpsc};
use std::thread::{self, Builder, JoinHandle, ScopedJoinHandle, available_parallelism};

use tracing::warn;

/// See [`limit`]; 0 where there is no limit.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Sets [`most`] for the rest of this process.
pub fn limit(threads: usize) {
    LIMIT.store(threads, Ordering::Relaxed);
}

/// How many threads work that divides well should take: one for each processor, unless [`limit`] says otherwise.
pub fn most() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => processors(),
        limit => limit,
    }
}

/// How many processors this process may use. Asked once: the answer takes some system calls and files of control groups.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| available_parallelism().map_or(1, |n| n.get()))
}

/// Starts `work` on a thread of its own, which nobody waits for.
///
/// # Errors
/// The system starts no more threads.
pub fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().spawn(work).map(drop)
}

/// Starts `work` on a thread of its own; the handle waits for its result.
///
/// # Errors
/// The system starts no more threads.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().spawn(work)
}

/// Waits for the result of `thread`.
pub fn end<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Calls `job` for each item, on the calling thread and as many others as the system starts, up to `threads` in all.
/// Returns the results in the order of the items.
pub fn side_by_side<T: Send, R: Send>(
    threads: usize,
    items: impl Iterator<Item = T>,
    job: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    // Each item is taken by the thread that draws its number.
    let items: Vec<_> = items.map(|item| Mutex::new(Some(item))).collect();
    let threads = threads.min(items.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break done };
            let item = lock(item).take();
            done.extend(item.map(|item| (number, job(item))));
        }
    };
    let mut done = thread::scope(|scope| {
        let others = (1..threads).map_while(|_| granted(Builder::new().spawn_scoped(scope, work)));
        let others: Vec<_> = others.collect();
        let mut done = work();
        others.into_iter().for_each(|other| done.extend(joined(other)));
        done
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Gives `produce` a function that takes pieces of work, and has `consume` work on each, in their order: on a thread of its
/// own, if [`most`] allows it and the system starts one.
pub fn one_ahead<T: Send, R>(produce: impl FnOnce(&mut dyn FnMut(T)) -> R, mut consume: impl FnMut(T) + Send) -> R {
    if most() == 1 {
        return produce(&mut consume);
    }
    let consume = Mutex::new(consume);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let work = || receiver.into_iter().for_each(|piece| lock(&consume)(piece));
        match granted(Builder::new().spawn_scoped(scope, work)) {
            Some(consumer) => {
                let result = produce(&mut |piece| _ = sender.send(piece));
                drop(sender);
                joined(consumer);
                result
            }
            None => produce(&mut |piece| lock(&consume)(piece)),
        }
    })
}

/// Calls both functions at the same time: the second on a thread of its own, if [`most`] allows it and the system starts one.
pub fn both<A, B: Send>(first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send) -> (A, B) {
    let (mut second, mut result) = (Some(second), None);
    let first_result = one_ahead(
        |begin| {
            begin(());
            first()
        },
        |()| result = second.take().map(|second| second()),
    );
    (first_result, result.unwrap_or_else(|| unreachable!("it was given one piece of work")))
}

/// Does the `work` of all members at the same time, each on a thread of its own, the first on the calling one. They may
/// wait for each other. Returns the result of the first.
///
/// # Errors
/// The system starts fewer threads: their number, the calling one included. Nobody has begun to work.
pub fn together<T: Send, R: Send>(members: Vec<T>, work: impl Fn(T) -> R + Sync) -> Result<R, usize> {
    let mut members = members.into_iter();
    let Some(first) = members.next() else { unreachable!("a team has at least one member") };
    // Whether there is a thread for each member. Locked until that is known.
    let complete = Mutex::new(true);
    thread::scope(|scope| {
        let mut undecided = lock(&complete);
        let (wanted, work, complete) = (members.len(), &work, &complete);
        let start = |member| {
            let member_work = move || {
                let complete = *lock(complete);
                complete.then(|| work(member))
            };
            granted(Builder::new().spawn_scoped(scope, member_work))
        };
        let others: Vec<_> = members.map_while(start).collect();
        let threads = others.len() + 1;
        if others.len() < wanted {
            *undecided = false;
        }
        drop(undecided);
        let result = (threads > wanted).then(|| work(first));
        others.into_iter().for_each(|other| _ = joined(other));
        result.ok_or(threads)
    })
}

/// What was started; none if the system refuses, which is said once.
fn granted<T>(started: io::Result<T>) -> Option<T> {
    started.inspect_err(|error| refused(&error.to_string())).ok()
}

/// Says, the first time, that the system starts no more threads, and that the work goes on.
pub fn refused(reason: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        warn!(
            "the system starts no more threads ({reason}): going on with those there are; the limit may be that of \
             `ulimit -u`, a container's pids.max, or memory"
        );
    });
}

fn joined<T>(thread: ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Locks `mutex`, even if a thread panicked while it held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_consumed_in_their_order() {
        let mut consumed = vec![];
        let produced = one_ahead(
            |give| {
                (0..1000).for_each(&mut *give);
                "all"
            },
            |piece| consumed.push(piece),
        );
        assert_eq!((produced, consumed), ("all", (0..1000).collect()));
    }

    #[test]
    fn both_results_come_back() {
        let mut first = 0;
        assert_eq!(both(|| first += 1, || "second"), ((), "second"));
        assert_eq!(first, 1);
    }

    #[test]
    fn results_come_in_the_order_of_the_items_whatever_the_threads() {
        for threads in [1, 3, 64] {
            assert_eq!(side_by_side(threads, 0..40, |item| item * item), Vec::from_iter((0..40).map(|n| n * n)));
        }
        assert!(side_by_side(4, 0..0, |item| item).is_empty());
    }

    #[test]
    fn a_team_works_at_the_same_time_and_the_first_answers() {
        let barrier = std::sync::Barrier::new(4);
        let meet = |member| {
            barrier.wait();
            member
        };
        assert_eq!(together(vec![5, 6, 7, 8], meet), Ok(5));
        assert_eq!(together(vec![5], |member| member), Ok(5));
    }
}
