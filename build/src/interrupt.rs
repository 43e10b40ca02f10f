//! SIGINT and SIGTERM as a flag that long work asks between steps. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Starts listening. Called once, by `main`, before any work.
pub fn install() -> Result<()> {
    let received = RECEIVED.get_or_init(Arc::default);
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Order matters: on the first signal `again` is still false and the process lives on.
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone())
            .and_then(|_| flag::register(signal, again.clone()))
            .and_then(|_| flag::register_usize(signal, received.clone(), signal as usize))
            .map_err(Error::io("listen for signals to", "this process"))?;
    }
    Ok(())
}

/// The signal received so far, if any.
pub fn received() -> Option<i32> {
    RECEIVED.get().map(|signal| signal.load(Ordering::Relaxed) as i32).filter(|signal| *signal != 0)
}

/// Returns [`Error::Interrupted`] once a signal has been received.
pub fn check() -> Result<()> {
    match received() {
        None => Ok(()),
        Some(signal) => Err(Error::Interrupted { signal }),
    }
}
