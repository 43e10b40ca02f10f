//! One file from one URL: streamed, resumed where it broke, tried again while that may help.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, ClientBuilder, Url, redirect};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::data::download::mirror::shown;
use crate::data::download::proxy::Proxies;
use crate::data::download::transfer::{Again, Fault, Stop, Transfer};
use crate::data::sets::SourceFile;
use crate::error::{Error, Result};
use crate::files::AtomicFile;
use crate::interrupt;

/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(50);
const MOST_REDIRECTS: usize = 10;
/// An attempt that brought this much more than all before it makes earlier failures forgotten.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// How long and how often a mirror is given a chance.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a connection: name, TCP, TLS and proxy together.
    pub connect: Duration,
    /// For the answer to begin once connected, and between two pieces of it.
    pub idle: Duration,
    /// A transfer slower than this many bytes per second ...
    pub slowest_bytes_per_s: u64,
    /// ... over this time is given up.
    pub slowest_over: Duration,
    /// Times a mirror is asked again after a failure that may pass.
    pub retries: u32,
    /// Wait before the first retry; doubled for each one after it, and up to half of it left out by chance.
    pub back_off: Duration,
    /// The longest wait, also where a server asks for more by Retry-After.
    pub longest_wait: Duration,
    /// If no URL has delivered any bytes of any file within this time, the download ends.
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

/// What happens during a transfer, for progress bars and logs.
#[derive(Debug)]
pub enum Step<'a> {
    /// The bytes begin to arrive.
    Started {
        /// Their number, as sent, if the server says so.
        total: Option<u64>,
    },
    /// Bytes have arrived.
    Received {
        /// Their number so far, as sent.
        bytes: u64,
    },
    /// Another attempt follows.
    Retry {
        /// What the mirror answered to the last one.
        answer: &'a str,
        /// The time until the next one.
        wait: Duration,
    },
}

/// Why a file did not come.
#[derive(Debug)]
pub enum Failure {
    /// What the mirror answered; another mirror may do better.
    Mirror(String),
    /// What the mirror answered when the time for any mirror's first answer was over.
    Unanswered(String),
    /// No mirror can help: a full disk, a signal.
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// The HTTP client that all files share.
#[derive(Debug)]
pub struct Fetcher<'a> {
    client: Client,
    proxies: Proxies,
    limits: &'a Limits,
    started: Instant,
    /// Whether any mirror has delivered bytes that may be those of a file.
    answered: AtomicBool,
}

impl<'a> Fetcher<'a> {
    /// Sets up the client: certificates of the machine's own store, proxies of the environment. The time for a first
    /// answer begins.
    ///
    /// # Errors
    /// A proxy variable is of no use, or the client cannot be set up.
    pub fn new(limits: &'a Limits) -> Result<Self> {
        let proxies = Proxies::read(|name| std::env::var(name).ok())?;
        let rules = proxies.for_client()?;
        let builder = || {
            let builder = Client::builder()
                .user_agent(concat!("mnist/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .redirect(redirect::Policy::custom(follow))
                .no_proxy();
            rules.iter().cloned().fold(builder, ClientBuilder::proxy)
        };
        let client = builder().build().or_else(|error| {
            // A container may be without certificates; mirrors with http:// still work.
            let reason = innermost(&error);
            warn!("https mirrors will fail, install certificates (package ca-certificates): {reason}");
            builder().tls_certs_only([]).build()
        });
        let client = client.map_err(|e| Error::HttpClient { reason: innermost(&e) })?;
        Ok(Self { client, proxies, limits, started: Instant::now(), answered: AtomicBool::new(false) })
    }

    /// From now on slow mirrors get the time they need.
    fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Fetches `file` from `url` into `part`, which afterwards holds every byte and is ready to be committed.
    ///
    /// # Errors
    /// See [`Failure`]. What `part` then holds is of no use.
    pub async fn fetch(
        &self,
        url: &Url,
        file: &SourceFile,
        part: &mut AtomicFile,
        tell: &(dyn Fn(Step) + Sync),
    ) -> std::result::Result<(), Failure> {
        let mut transfer = Transfer::begin(*file, url, part)?;
        let (mut retries, mut slow_retries, mut furthest) = (0, 0, 0);
        let mut last: Option<String> = None;
        loop {
            let fault = match self.attempt(&mut transfer, tell).await {
                Ok(()) => return Ok(()),
                Err(Stop::Fault(fault)) => fault,
                Err(Stop::Unanswered) => return Err(Failure::Unanswered(self.unanswered(last))),
                Err(Stop::Run(error)) => return Err(Failure::Run(error)),
            };
            if transfer.offset >= furthest + PROGRESS_BYTES {
                (retries, slow_retries, furthest) = (0, 0, transfer.offset);
            }
            let once_more = match fault.again {
                Again::Never => false,
                Again::Once => slow_retries == 0,
                Again::Often => true,
            };
            if !once_more || retries == self.limits.retries {
                return Err(Failure::Mirror(fault.answer));
            }
            let wait = fault.wait.unwrap_or_else(|| back_off(self.limits, retries)).min(self.limits.longest_wait);
            tell(Step::Retry { answer: &fault.answer, wait });
            match self.unless_stopped(sleep(wait)).await {
                Ok(()) => {}
                Err(Stop::Run(error)) => return Err(Failure::Run(error)),
                Err(_) => return Err(Failure::Unanswered(self.unanswered(Some(fault.answer)))),
            }
            retries += 1;
            slow_retries += u32::from(fault.again == Again::Once);
            last = Some(fault.answer);
        }
    }

    /// One request, and all that its answer brings.
    async fn attempt(
        &self,
        transfer: &mut Transfer<'_>,
        tell: &(dyn Fn(Step) + Sync),
    ) -> std::result::Result<(), Stop> {
        let limits = self.limits;
        // The answer to begin with is given the time for a connection too, since the client makes one where needed.
        let patience = limits.connect + limits.idle;
        let answer = self.unless_stopped(timeout(patience, transfer.request(&self.client).send())).await?;
        let mut response = answer
            .map_err(|_| Fault::new(Again::Once, format!("no answer within {patience:?}")))?
            .map_err(|error| self.connection_fault(error, transfer.url))?;
        transfer.accept(&response)?;
        tell(Step::Started { total: transfer.total });

        let (mut since, mut bytes_since) = (Instant::now(), 0);
        while !transfer.content.ended() {
            let piece = self.unless_stopped(timeout(limits.idle, response.chunk())).await?;
            let piece = piece
                .map_err(|_| {
                    let at = transfer.offset;
                    Fault::new(Again::Once, format!("nothing more within {:?} after {at} bytes", limits.idle))
                })?
                .map_err(|error| {
                    let at = transfer.offset;
                    Fault::new(Again::Often, format!("connection broken after {at} bytes: {}", innermost(&error)))
                })?;
            let Some(piece) = piece else { break };
            transfer.receive(&piece, &response)?;
            if transfer.content.bytes() > 0 {
                self.set_answered();
            }
            tell(Step::Received { bytes: transfer.offset });
            bytes_since += piece.len() as u64;
            let elapsed = since.elapsed();
            if elapsed >= limits.slowest_over {
                let per_second = bytes_since as f64 / elapsed.as_secs_f64();
                if per_second < limits.slowest_bytes_per_s as f64 {
                    let over = limits.slowest_over;
                    let answer = format!("too slow: {per_second:.0} bytes per second over {over:?}");
                    return Err(Fault::new(Again::Never, answer).into());
                }
                (since, bytes_since) = (Instant::now(), 0);
            }
        }
        transfer.finish(&response)?;
        self.set_answered();
        Ok(())
    }

    /// Waits for `future`, but not for longer than a signal or the time for the first answer.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> std::result::Result<T, Stop> {
        let stopped = async {
            loop {
                interrupt::check()?;
                let over = self.limits.first_answer.is_some_and(|most| self.started.elapsed() >= most);
                if over && !self.answered.load(Ordering::Relaxed) {
                    return Err::<T, Stop>(Stop::Unanswered);
                }
                sleep(TICK).await;
            }
        };
        tokio::select! {
            biased;
            stopped = stopped => stopped,
            value = future => Ok(value),
        }
    }

    fn unanswered(&self, last: Option<String>) -> String {
        let most = self.limits.first_answer.unwrap_or_default();
        let last = last.map(|answer| format!("{answer}; ")).unwrap_or_default();
        format!("{last}given up, since no mirror has delivered anything within {most:?}")
    }

    fn connection_fault(&self, error: reqwest::Error, url: &Url) -> Fault {
        let error = error.without_url(); // it may hold a password
        let cause = innermost(&error);
        if error.is_redirect() {
            return Fault::new(Again::Never, cause);
        }
        let proxy = self.proxies.for_url(url).map(|settings| format!(" ({settings})")).unwrap_or_default();
        if error.is_connect() {
            return if error.is_timeout() {
                Fault::new(Again::Never, format!("no connection within {:?}{proxy}", self.limits.connect))
            } else if cause.contains("certificate") {
                let trust = "SSL_CERT_FILE names a file of certificates to trust";
                Fault::new(Again::Never, format!("no secure connection: {cause}{proxy}; {trust}"))
            } else {
                Fault::new(Again::Once, format!("cannot connect: {cause}{proxy}"))
            };
        }
        Fault::new(Again::Often, format!("connection broken before an answer: {cause}{proxy}"))
    }
}

/// Follows a redirect unless it leads in a circle, too far, or out of https.
fn follow(attempt: redirect::Attempt) -> redirect::Action {
    let (next, previous) = (attempt.url(), attempt.previous());
    let (to, from) = (shown(next), previous.last().map_or("", |url| url.scheme()));
    let fault = if previous.contains(next) {
        format!("redirected in a circle, back to {to}")
    } else if previous.len() > MOST_REDIRECTS {
        format!("redirected more than {MOST_REDIRECTS} times, lastly to {to}")
    } else if next.scheme() == "https" || (next.scheme() == "http" && from == "http") {
        return attempt.follow();
    } else {
        format!("redirected from {from} to {to}")
    };
    attempt.error(fault)
}

/// What an error of the client comes down to, without the layers around it.
fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The wait before the next attempt, with up to half of it left out by chance, so that the machines of a cluster do not come
/// back all at once.
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
