//! Programs of this machine, started without a shell between.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::text::quoted;

/// How often a signal is looked for while a program runs.
const TICK: Duration = Duration::from_millis(50);
/// How long a program has to end after a signal.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program with its arguments. `Display` is how one would type it into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
}

/// What a program that was asked something said.
#[derive(Debug)]
pub struct Answer {
    /// Whether it ended with exit code 0.
    pub good: bool,
    /// What it wrote to stdout, without blanks around it.
    pub stdout: String,
    /// What it wrote to stderr, likewise.
    pub stderr: String,
}

impl HostCommand {
    /// `program`, a name to be found in PATH or a path, without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: vec![], environment: vec![], directory: None }
    }

    /// With one more argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With more arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// In `directory`.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error {
        let program = self.program.display().to_string();
        |source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoProgram { program },
            _ => Error::Io { action: "start", path: program.into(), source },
        }
    }

    /// Runs it to its end and returns what it wrote.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ask(&self) -> Result<Answer> {
        let output = self.command().output().map_err(self.failed())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        Ok(Answer { good: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Runs it to its end; what it writes goes where what this program writes goes. A signal that this program receives is
    /// passed on to it once, and to all that it started; who does not end then is killed.
    ///
    /// # Errors
    /// It cannot be started, or a signal arrived.
    pub fn run(&self) -> Result<ExitStatus> {
        tracing::info!("{self}");
        let mut command = self.command();
        // In a process group of its own, so that a terminal's Ctrl-C does not reach it a second time.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(self.failed())?;
        let signals = Signals::to(&child);
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait()));
        let mut stopping = None;
        let status = loop {
            match ended.recv_timeout(TICK) {
                Ok(status) => break status,
                Err(RecvTimeoutError::Disconnected) => break Err(io::ErrorKind::BrokenPipe.into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match (interrupt::received(), stopping) {
                (Some(signal), None) => {
                    signals.send(signal);
                    stopping = Some(Instant::now());
                }
                (_, Some(since)) if since.elapsed() > PATIENCE => signals.kill(),
                _ => {}
            }
        };
        interrupt::check()?;
        status.map_err(Error::io("wait for", &self.program))
    }
}

/// Signals to a child and all that it started.
#[cfg(unix)]
struct Signals(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Signals {
    fn to(child: &Child) -> Self {
        Self(rustix::process::Pid::from_raw(child.id() as i32))
    }

    fn send(&self, signal: i32) {
        if let (Some(group), Some(signal)) = (self.0, rustix::process::Signal::from_named_raw(signal)) {
            let _ = rustix::process::kill_process_group(group, signal); // it may have ended by itself
        }
    }

    fn kill(&self) {
        self.send(rustix::process::Signal::KILL.as_raw());
    }
}

/// Elsewhere a terminal tells them itself.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn to(_: &Child) -> Self {
        Self
    }
    fn send(&self, _: i32) {}
    fn kill(&self) {}
}

impl fmt::Display for HostCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.directory {
            write!(f, "cd {} && ", quoted(directory))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(Path::new(value)))?;
        }
        f.write_str(&quoted(&self.program))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(Path::new(argument))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_one_would_type_it() {
        let command = HostCommand::new("a").arg("--b=c d").args(["e", "$f"]).env("G", "h i").directory("/j k");
        assert_eq!(command.to_string(), "cd '/j k' && G='h i' a '--b=c d' e '$f'");
    }

    #[test]
    fn nothing_of_an_argument_is_a_shells() {
        let answer = HostCommand::new("echo").arg("$HOME; `true` \"a\" 'b'").ask().unwrap();
        assert_eq!(answer.stdout, "$HOME; `true` \"a\" 'b'");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = HostCommand::new("no-such-program").run().unwrap_err();
        assert_eq!(error.to_string(), "no-such-program: expected this program in PATH, found none");
    }
}
