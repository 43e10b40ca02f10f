//! The terminal and the log file. Messages and progress bars go to stderr, results to stdout; the log file gets all
//! messages.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Error, Result};
use crate::files::AtomicFile;
use crate::interrupt::{self, EndAtOnce};
use crate::output::{names, terminal};
use crate::{host_paths, text, threads};

pub use crate::text::{LOG, PROGRESS, SCREEN};

/// Where messages go. Clones share the same bars and log file.
#[derive(Clone)]
pub struct Console {
    bars: MultiProgress,
    terminal: bool,
    log: Arc<Mutex<Option<LogFile>>>,
}

struct LogFile {
    file: AtomicFile,
    error: Option<io::Error>,
}

/// The log target of what belongs to an error, which is shown wherever that is.
const DETAILS: &str = "mnist::details";

/// How much stderr says. The log file always has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Messages and progress.
    Normal,
    /// What else the log file has, too.
    Verbose,
}

impl Console {
    /// Takes all messages of this process from here on. Called once, by `main`.
    pub fn install(verbosity: Verbosity) -> Self {
        let terminal = terminal::is_capable() && verbosity != Verbosity::Quiet;
        let target = if terminal { terminal::target() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        // For the bars; messages ask themselves.
        ::console::set_colors_enabled_stderr(terminal::has_colours());
        let console = Self { bars, terminal, log: Arc::default() };
        let ours = |metadata: &tracing::Metadata| {
            *metadata.level() <= Level::WARN
                || (*metadata.level() == Level::INFO && metadata.target().starts_with("mnist"))
        };
        let to_stderr = tracing_subscriber::fmt::layer()
            .event_format(MessageOnly)
            .fmt_fields(escaped_fields())
            .with_ansi(false)
            .with_writer(StderrBesideBars(console.bars.clone()))
            .with_filter(filter_fn(move |metadata| {
                ours(metadata)
                    && match metadata.target() {
                        LOG => verbosity == Verbosity::Verbose,
                        PROGRESS if terminal => false,
                        SCREEN => terminal,
                        DETAILS => true,
                        _ => verbosity != Verbosity::Quiet || *metadata.level() <= Level::WARN,
                    }
            }));
        let to_log = tracing_subscriber::fmt::layer()
            .fmt_fields(escaped_fields())
            .with_ansi(false)
            .with_target(false)
            .with_writer(Logs(console.log.clone()))
            .with_filter(filter_fn(move |metadata| ours(metadata) && metadata.target() != SCREEN));
        let subscriber = tracing_subscriber::registry().with(to_stderr).with(to_log);
        // Fails only where another subscriber was installed before; that one then keeps the messages.
        let _ = tracing::subscriber::set_global_default(subscriber);
        console
    }

    /// The bars; none where stderr is no terminal that can show them, or shall be quiet.
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.terminal.then_some(&self.bars)
    }

    /// Begins the log file of `task` in `log_dir`. From here on messages go there too.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open_log(&self, log_dir: &Path, task: &str) -> Result<()> {
        let file = AtomicFile::create(log_dir.join(names::log(task)))?;
        *threads::lock(&self.log) = Some(LogFile { file, error: None });
        Ok(())
    }

    /// Ends the log file and gives it its name.
    ///
    /// # Errors
    /// A message could not be written, or the file cannot be finished.
    pub fn close_log(&self) -> Result<()> {
        match threads::lock(&self.log).take() {
            None => Ok(()),
            Some(LogFile { file, error: None }) => file.commit(),
            Some(LogFile { file, error: Some(error) }) => Err(Error::io("write", file.target())(error)),
        }
    }
}

/// A message is one line, whatever the names and answers in it hold.
fn escaped_fields() -> impl for<'a> FormatFields<'a> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let name = if field.name() == "message" { String::new() } else { format!(" {}=", field.name()) };
        write!(writer, "{name}{}", text::escaped(&host_paths::of_host(&format!("{value:?}"))))
    })
}

/// Shows an error that ends the program, and what to do. One with several lines becomes as many messages.
pub fn report(error: &Error) {
    for (nth, line) in error.lines().iter().enumerate() {
        if nth == 0 { tracing::error!("{line}") } else { tracing::info!(target: DETAILS, "{line}") }
    }
    if let Some(hint) = error.hint() {
        tracing::info!(target: DETAILS, "hint: {hint}");
    }
}

/// Asks a question on stderr, and returns whether the answer is yes.
///
/// # Errors
/// Stderr cannot be written, or a signal arrived.
pub fn confirm(question: &str) -> Result<bool> {
    write!(io::stderr(), "{} [y/N] ", text::escaped(question)).map_err(Error::io("write", "stderr"))?;
    let is_yes = || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).is_ok() && ["y", "yes"].contains(&line.trim().to_lowercase().as_str())
    };
    let (sender, answer) = mpsc::channel();
    // In a thread, since a signal does not end the wait for a line.
    if threads::start(move || _ = sender.send(is_yes())).is_err() {
        let _waiting = EndAtOnce::begin();
        return Ok(is_yes());
    }
    loop {
        interrupt::check()?;
        match answer.recv_timeout(Duration::from_millis(50)) {
            Err(RecvTimeoutError::Timeout) => {}
            answer => return Ok(answer.unwrap_or(false)),
        }
    }
}

/// Writes `text`, whose line breaks are meant, to stdout. A closed pipe is no error: the reader has had enough.
///
/// # Errors
/// Stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text::escaped_lines(&host_paths::of_host(text)).as_bytes()).and_then(|()| stdout.flush()))
}

/// What came of writing to stdout. A closed pipe is no error.
///
/// # Errors
/// It failed for another reason.
pub fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(error)),
        _ => Ok(()),
    }
}

/// The message alone, after `warning: ` or `error: ` where it is one.
struct MessageOnly;

impl<S, N> FormatEvent<S, N> for MessageOnly
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = |word: &'static str| ::console::style(word).for_stderr().bold();
        match *event.metadata().level() {
            Level::ERROR => write!(writer, "{} ", kind("error:").red())?,
            Level::WARN => write!(writer, "{} ", kind("warning:").yellow())?,
            _ => {}
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Stderr. The bars are taken away while something is written.
struct StderrBesideBars(MultiProgress);

impl<'a> MakeWriter<'a> for StderrBesideBars {
    type Writer = StderrWriter<'a>;
    fn make_writer(&'a self) -> StderrWriter<'a> {
        StderrWriter(&self.0)
    }
}

struct StderrWriter<'a>(&'a MultiProgress);

impl Write for StderrWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log file, if one is open.
struct Logs(Arc<Mutex<Option<LogFile>>>);

impl<'a> MakeWriter<'a> for Logs {
    type Writer = LogWriter<'a>;
    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter(threads::lock(&self.0))
    }
}

struct LogWriter<'a>(MutexGuard<'a, Option<LogFile>>);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = self.0.as_mut()
            && let Err(error) = log.file.write_all(bytes)
        {
            log.error.get_or_insert(error); // returned when the file is closed: a log never stops the task
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
