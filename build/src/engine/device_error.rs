//! Failures of a device's runtime as errors of one line.

#[cfg(feature = "gpu")]
use crate::error::{Error, Result};

/// The `message` of a runtime without line breaks, and without the backtrace at its end.
pub fn one_line(message: &str) -> String {
    let message = message.split("Backtrace:").next().unwrap_or(message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs `work` on a device. The runtime panics when a device is lost, for instance: this makes an error of it.
///
/// # Errors
/// The work's own, or the panic's message.
#[cfg(feature = "gpu")]
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Device { problem: one_line(message.unwrap_or("the runtime gave no reason")) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_message_takes_one_line_and_loses_its_backtrace() {
        assert_eq!(one_line("Out of\n   memory\nBacktrace:\n  0: main"), "Out of memory");
        assert_eq!(one_line(""), "");
    }

    #[test]
    #[cfg(feature = "gpu")]
    fn a_panic_of_the_runtime_becomes_an_error() {
        let error = guarded::<()>(|| panic!("the device\nis lost")).unwrap_err();
        assert_eq!(error.to_string(), Error::Device { problem: "the device is lost".into() }.to_string());
        assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
    }
}
