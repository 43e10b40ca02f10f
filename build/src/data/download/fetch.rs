//! One file from one URL: received piece by piece, resumed after a broken connection, tried again while that may help.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use url::Url;

use crate::data::download::client::{Client, Part, Parts};
use crate::data::download::events::DownloadEvent;
use crate::data::download::fault::{Again, MirrorFault, Stop};
use crate::data::download::transfer::Transfer;
use crate::data::sets::SourceFile;
use crate::error::Error;
use crate::files::AtomicFile;
use crate::interrupt;
use crate::threads;

/// How often a wait checks for a signal.
const TICK: Duration = Duration::from_millis(50);
/// After an attempt that brought this much more than all before it, earlier failures no longer count.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// How long to wait for a mirror, and how often to ask it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the look-up of a name, and again for the connection: TCP, TLS and proxy together.
    pub connect: Duration,
    /// For the answer to begin once connected, and between two pieces of it.
    pub idle: Duration,
    /// A transfer is given up if it brings fewer bytes per second than this ...
    pub slowest_bytes_per_s: u64,
    /// ... over this time.
    pub slowest_over: Duration,
    /// How often a mirror is asked again after a failure that may be temporary.
    pub retries: u32,
    /// Wait before the first retry. It doubles for each further one, minus a random part of up to half.
    pub back_off: Duration,
    /// The longest wait, also where a server asks for more by Retry-After.
    pub longest_wait: Duration,
    /// The download ends if no mirror has delivered a byte of any file within this time.
    pub first_answer: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(20),
            slowest_bytes_per_s: 1024,
            slowest_over: Duration::from_secs(30),
            retries: 3,
            back_off: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            first_answer: None,
        }
    }
}

impl Limits {
    /// The answer gets the time for a connection too, since the client connects first.
    fn answer(&self) -> Duration {
        self.connect + self.idle
    }
}

/// Why a file did not come.
#[derive(Debug)]
pub enum Failure {
    /// What this mirror did wrong. Another one may do better.
    Mirror(String),
    /// What this mirror did until the time for a first answer was over.
    Unanswered(String),
    /// No mirror can help: a full disk, a signal.
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// Receives events of one file.
type ReportEvent<'a> = dyn Fn(&DownloadEvent) + 'a;

/// Fetches files with one HTTP client.
#[derive(Debug)]
pub struct Fetcher<'a> {
    client: Arc<Client>,
    limits: &'a Limits,
    /// When the first URL was asked.
    started: OnceLock<Instant>,
    /// How far each file has come, by mirror and file. None at all: no mirror has answered.
    delivered: Mutex<HashMap<(String, &'static str), u64>>,
}

impl<'a> Fetcher<'a> {
    /// Sets up the client. The time for a first answer begins with the first request.
    pub fn new(limits: &'a Limits) -> Self {
        let client = Client::new(limits.connect, limits.answer());
        Self { client, limits, started: OnceLock::new(), delivered: Mutex::default() }
    }

    /// Fetches `file` from `url` into `part`. Afterwards `part` holds every byte and may be committed. Events name the
    /// mirror as `shown`.
    ///
    /// # Errors
    /// See [`Failure`]. The contents of `part` are then useless.
    pub fn fetch(
        &self,
        (url, shown): (&Url, &str),
        file: &SourceFile,
        part: &mut AtomicFile,
        report: &ReportEvent,
    ) -> std::result::Result<(), Failure> {
        let mut transfer = Transfer::begin(*file, url, part)?;
        let (mut retries, mut slow_retries, mut waits, mut furthest) = (0, 0, 0, 0);
        let mut alive = 0;
        let mut last: Option<String> = None;
        loop {
            let fault = match self.attempt(&mut transfer, shown, report) {
                Ok(()) => return Ok(()),
                Err(Stop::Fault(fault)) => fault,
                Err(Stop::Unanswered) => return Err(self.unanswered(last)),
                Err(Stop::Run(error)) => return Err(Failure::Run(error)),
            };
            if transfer.offset >= furthest + PROGRESS_BYTES {
                (retries, slow_retries, waits, furthest) = (0, 0, 0, transfer.offset);
            }
            // A mirror that meanwhile delivers other files is only busy.
            let others = self.delivered_besides(shown, file);
            if others > alive {
                (retries, slow_retries, alive) = (0, 0, others);
            }
            let once_more = match fault.again {
                Again::Never => false,
                Again::Once => slow_retries == 0,
                Again::Often => true,
            };
            if !once_more || retries == self.limits.retries {
                return Err(Failure::Mirror(fault.answer));
            }
            let wait = fault.wait.unwrap_or_else(|| back_off(self.limits, waits)).min(self.limits.longest_wait);
            report(&DownloadEvent::Retry { mirror: shown, answer: &fault.answer, wait });
            match self.sleep(wait) {
                Ok(()) => {}
                Err(Stop::Run(error)) => return Err(Failure::Run(error)),
                Err(_) => return Err(self.unanswered(Some(fault.answer))),
            }
            (retries, waits) = (retries + 1, waits + 1);
            slow_retries += u32::from(fault.again == Again::Once);
            last = Some(fault.answer);
        }
    }

    /// One request and its whole answer.
    fn attempt(&self, transfer: &mut Transfer, shown: &str, report: &ReportEvent) -> std::result::Result<(), Stop> {
        let mut parts = self.client.get(transfer.url, &transfer.headers());
        let patience = self.limits.answer();
        let head = match self.next(&mut parts, patience)? {
            Some(Part::Head(head)) => head,
            Some(Part::Failed(fault)) => return Err(fault.into()),
            _ => return Err(MirrorFault::new(Again::Once, format!("no answer within {patience:?}")).into()),
        };
        transfer.accept(&head)?;
        report(&DownloadEvent::Started { mirror: shown, total: transfer.total });

        let mut pace = Pace::new(self.limits);
        while !transfer.content.ended() {
            let at = transfer.offset;
            let bytes = match self.next(&mut parts, self.limits.idle)? {
                Some(Part::Bytes(bytes)) => bytes,
                Some(Part::Broken(_)) | None if transfer.is_whole() => break,
                Some(Part::Broken(cause)) => {
                    let answer = format!("connection broken after {at} bytes: {cause}");
                    return Err(MirrorFault::new(Again::Often, answer).into());
                }
                Some(_) => break,
                None => {
                    let answer = format!("nothing more within {:?} after {at} bytes", self.limits.idle);
                    return Err(MirrorFault::new(Again::Once, answer).into());
                }
            };
            transfer.receive(&bytes, &head)?;
            if transfer.content.bytes() > 0 {
                self.note_delivered(shown, transfer.file.name, transfer.offset);
            }
            report(&DownloadEvent::Received { bytes: transfer.offset });
            pace.check(bytes.len() as u64)?;
        }
        transfer.finish(&head)?;
        self.note_delivered(shown, transfer.file.name, 0);
        Ok(())
    }

    /// The next part of an answer; `None` if it does not come within `patience`.
    fn next(&self, parts: &mut Parts, patience: Duration) -> std::result::Result<Option<Part>, Stop> {
        let end = Instant::now() + patience;
        loop {
            self.go_on()?;
            let left = end.saturating_duration_since(Instant::now());
            match parts.next(left.min(TICK)) {
                Ok(part) => return Ok(Some(part)),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => return Ok(None),
            }
        }
    }

    fn sleep(&self, wait: Duration) -> std::result::Result<(), Stop> {
        let end = Instant::now() + wait;
        loop {
            self.go_on()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }

    /// Stops a wait after a signal, and when the time for the first answer is over.
    fn go_on(&self) -> std::result::Result<(), Stop> {
        interrupt::check()?;
        let started = self.started.get_or_init(Instant::now);
        let over = self.limits.first_answer.is_some_and(|most| started.elapsed() >= most);
        if over && self.so_far().is_empty() { Err(Stop::Unanswered) } else { Ok(()) }
    }

    /// Notes how far a file of a mirror has come; what comes once more is no progress. From now on, slow mirrors get the
    /// time they need.
    fn note_delivered(&self, shown: &str, file: &'static str, bytes: u64) {
        let mut so_far = self.so_far();
        let furthest = so_far.entry((shown.to_string(), file)).or_default();
        *furthest = bytes.max(*furthest);
    }

    /// The bytes of other files than `file` that this mirror has delivered.
    fn delivered_besides(&self, shown: &str, file: &SourceFile) -> u64 {
        let so_far = self.so_far();
        so_far.iter().filter(|((mirror, of), _)| mirror == shown && *of != file.name).map(|(_, bytes)| bytes).sum()
    }

    fn so_far(&self) -> MutexGuard<'_, HashMap<(String, &'static str), u64>> {
        threads::lock(&self.delivered)
    }

    fn unanswered(&self, last: Option<String>) -> Failure {
        let most = self.limits.first_answer.unwrap_or_default();
        let last = last.map(|answer| format!("{answer}; ")).unwrap_or_default();
        Failure::Unanswered(format!("{last}given up, since no mirror has delivered anything within {most:?}"))
    }
}

/// The speed of a transfer.
struct Pace<'a> {
    limits: &'a Limits,
    since: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, since: Instant::now(), bytes: 0 }
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// The transfer is too slow.
    fn check(&mut self, bytes: u64) -> std::result::Result<(), MirrorFault> {
        self.bytes += bytes;
        let (elapsed, over) = (self.since.elapsed(), self.limits.slowest_over);
        if elapsed >= over {
            let per_second = self.bytes as f64 / elapsed.as_secs_f64();
            if per_second < self.limits.slowest_bytes_per_s as f64 {
                let answer = format!("too slow: {per_second:.0} bytes per second over {over:?}");
                return Err(MirrorFault::new(Again::Never, answer));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(())
    }
}

/// The wait before the next attempt. A random part of up to half is left out, so that the machines of a cluster do not
/// all come back at once.
fn back_off(limits: &Limits, retries: u32) -> Duration {
    let whole = limits.back_off.saturating_mul(2u32.saturating_pow(retries)).min(limits.longest_wait);
    let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    whole.mul_f64(1.0 - chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_the_longest_and_up_to_half_of_it_is_left_out_by_chance() {
        let limits = Limits { longest_wait: Duration::from_secs(3), ..Limits::default() };
        for (retries, whole) in [(0, 500), (1, 1000), (2, 2000), (3, 3000), (40, 3000)] {
            let waits: Vec<u128> = (0..200).map(|_| back_off(&limits, retries).as_millis()).collect();
            assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)), "{retries}: {waits:?}");
            assert!(waits.iter().max().unwrap() - waits.iter().min().unwrap() > whole / 4, "{retries}: {waits:?}");
        }
    }
}
