//! Programs of this machine, started without a shell.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{CubeError, Error, Result};
use crate::interrupt;
use crate::text::quoted;

/// The time between two looks for a signal, or for the end of a program.
const TICK: Duration = Duration::from_millis(20);
/// The time that a program has to end after a signal, before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program with its arguments. `Display` is the command as one types it into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
}

/// The result of [`HostCommand::output`].
#[derive(Debug)]
pub struct ProgramOutput {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output, without blanks around it.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl HostCommand {
    /// `program` without arguments: a path, or a name that PATH leads to.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: vec![], environment: vec![], directory: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Adds variables to its environment.
    pub fn envs(self, variables: impl IntoIterator<Item = (&'static str, impl Into<OsString>)>) -> Self {
        variables.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Sets its working directory.
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
            io::ErrorKind::NotFound => CubeError::NoProgram { program }.into(),
            _ => Error::Io { action: "start", path: program.into(), source },
        }
    }

    /// Runs it to its end and returns its output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(&self) -> Result<ProgramOutput> {
        let output = self.command().output().map_err(self.failed())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        Ok(ProgramOutput {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// Runs it to its end; it inherits standard output and standard error. A signal that this program receives is sent
    /// once to it and to all processes that it started. Those that do not end are killed.
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
        let mut stopping = None;
        let status = loop {
            if let Some(status) = child.try_wait().transpose() {
                break status;
            }
            thread::sleep(TICK);
            match (interrupt::received(), stopping) {
                (Some(signal), None) => {
                    interrupt::acknowledge();
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

/// Sends signals to a child and to all processes that it started.
#[cfg(unix)]
struct Signals(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Signals {
    fn to(child: &Child) -> Self {
        Self(rustix::process::Pid::from_raw(child.id() as i32))
    }

    fn send(&self, signal: i32) {
        if let (Some(group), Some(signal)) = (self.0, rustix::process::Signal::from_named_raw(signal)) {
            let _ = rustix::process::kill_process_group(group, signal); // the group may have ended already
        }
    }

    fn kill(&self) {
        self.send(rustix::process::Signal::KILL.as_raw());
    }
}

/// Elsewhere the terminal sends them itself.
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
    fn a_command_reads_as_one_types_it() {
        let command = HostCommand::new("a").arg("--b=c d").args(["e", "$f"]).env("G", "h i").directory("/j k");
        assert_eq!(command.to_string(), "cd '/j k' && G='h i' a '--b=c d' e '$f'");
    }

    #[test]
    fn no_shell_reads_the_arguments() {
        let output = HostCommand::new("echo").arg("$HOME; `true` \"a\" 'b'").output().unwrap();
        assert_eq!(output.stdout, "$HOME; `true` \"a\" 'b'");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = HostCommand::new("no-such-program").run().unwrap_err();
        assert_eq!(error.to_string(), "no-such-program: expected this program in PATH, found none");
    }
}
