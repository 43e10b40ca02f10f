//! Programs of this machine, started without a shell.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::guard::Guard;
use crate::error::{CubeError, Error, Result};
use crate::interrupt::{self, EndAtOnce};
use crate::text::quoted;
use crate::{host_paths, threads};

/// The time between two looks for a signal, or for the end of a program.
const TICK: Duration = Duration::from_millis(20);
/// The time that a program has to end after a signal, before it is killed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that a program may take to bring a signal to another one.
const MESSAGE: Duration = Duration::from_secs(10);
/// The time between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A program with its arguments. `Display` is the command as one types it into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
    /// What brings a signal to what it started, in place of the signal itself.
    messenger: Option<Box<HostCommand>>,
    /// The longest that it may take; then it is killed.
    limit: Option<Duration>,
}

/// The result of [`HostCommand::output`] and [`HostCommand::complete`].
#[derive(Debug)]
pub struct ProgramOutput {
    /// Whether the exit code was 0.
    pub success: bool,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output, without blanks around it.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl HostCommand {
    /// `program` without arguments: a path, or a name that PATH leads to.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: vec![],
            environment: vec![],
            directory: None,
            messenger: None,
            limit: None,
        }
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

    /// It, started by `wrapper`, whose last arguments it becomes.
    pub fn under(self, wrapper: HostCommand) -> Self {
        let words = std::iter::once(self.program.into_os_string()).chain(self.arguments);
        let arguments = wrapper.arguments.into_iter().chain(words).collect();
        Self { program: wrapper.program, arguments, ..self }
    }

    /// Has signals brought by `messenger`, with `--signal=NUMBER` as its last argument.
    pub fn signalled_by(self, messenger: HostCommand) -> Self {
        Self { messenger: Some(Box::new(messenger)), ..self }
    }

    /// The program and its arguments.
    fn words(&self) -> impl Iterator<Item = &OsStr> {
        std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str))
    }

    /// Kills it after so long.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
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

    /// Has it bring `signal`.
    ///
    /// # Errors
    /// It fails, or takes too long: what it or the system said last.
    fn bring(&self, signal: i32) -> std::result::Result<(), String> {
        let told = self.clone().arg(format!("--signal={signal}")).within(MESSAGE).output();
        match told.map_err(|error| error.to_string())? {
            told if told.success => Ok(()),
            told => Err(told.stderr.lines().last().unwrap_or("no answer").to_string()),
        }
    }

    /// Runs it to its end and returns its output. See [`complete`](Self::complete) for signals.
    ///
    /// # Errors
    /// It cannot be started, or a signal arrived.
    pub fn output(&self) -> Result<ProgramOutput> {
        self.complete(Stdio::null())
    }

    /// Runs it to its end with `input` as standard input, and returns its output. What it starts in the background may keep
    /// its standard error open. A signal is sent on as by [`run`](Self::run); after one, it is run undisturbed, to tidy up.
    ///
    /// # Errors
    /// It cannot be started, or a signal arrived.
    pub fn complete(&self, input: Stdio) -> Result<ProgramOutput> {
        self.with_output_in_files(input, |command| self.wait(command, interrupt::is_received(), false))
    }

    /// The same for a program that may ask the user something on the terminal, which then sends it signals as well.
    ///
    /// # Errors
    /// It cannot be started, or a signal arrived.
    pub fn complete_in_foreground(&self) -> Result<ProgramOutput> {
        let output = self.with_output_in_files(Stdio::null(), |command| {
            let _waiting = EndAtOnce::begin();
            command.status().map_err(self.failed())
        });
        interrupt::check()?;
        output
    }

    /// Starts it with pipes to its standard input and output; what it writes to standard error goes to the file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn listening(&self) -> Result<(Child, File)> {
        let errors = tempfile::tempfile().map_err(Error::io("make", "a temporary file"))?;
        let own = errors.try_clone().map_err(Error::io("open", "a temporary file"))?;
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(own);
        // A terminal's Ctrl-C does not reach it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok((command.spawn().map_err(self.failed())?, errors))
    }

    /// Runs it with `input` as standard input and its output as that of `receiver`; returns the results of both.
    ///
    /// # Errors
    /// One cannot be started, or a signal arrived.
    pub fn pipe(&self, input: Stdio, receiver: &HostCommand) -> Result<(ProgramOutput, ProgramOutput)> {
        let (output, sent) = io::pipe().map_err(Error::io("make", "a pipe"))?;
        let errors = tempfile::tempfile().map_err(Error::io("make", "a temporary file"))?;
        let mut command = self.command();
        let own = errors.try_clone().map_err(Error::io("open", "a temporary file"))?;
        command.stdin(input).stdout(sent).stderr(own);
        let child = command.spawn();
        drop(command); // holds an end of the pipe
        let mut child = child.map_err(self.failed())?;
        let received = receiver.complete(output.into());
        if received.is_err() {
            let _ = child.kill(); // it may have ended
        }
        let status = child.wait().map_err(Error::io("wait for", &self.program))?;
        Ok((ProgramOutput::new(status, b"", &contents(errors)?), received?))
    }

    /// Not in pipes, which would not end before what the program leaves in the background does.
    fn with_output_in_files(
        &self,
        input: Stdio,
        run: impl FnOnce(&mut Command) -> Result<ExitStatus>,
    ) -> Result<ProgramOutput> {
        let failed = Error::io("make", "a temporary file");
        let files = || Ok::<_, io::Error>((tempfile::tempfile()?, tempfile::tempfile()?));
        let (stdout, stderr) = files().map_err(failed)?;
        let mut command = self.command();
        let own = |file: &File| file.try_clone().map_err(Error::io("open", "a temporary file"));
        command.stdin(input).stdout(own(&stdout)?).stderr(own(&stderr)?);
        let status = run(&mut command)?;
        Ok(ProgramOutput::new(status, &contents(stdout)?, &contents(stderr)?))
    }

    /// Runs it to its end; it inherits standard output and standard error. A signal that this program receives is sent
    /// once to it and to all processes that it started. Those that do not end are killed. Where this program is killed itself,
    /// a guard ends them.
    ///
    /// # Errors
    /// It cannot be started, or a signal arrived.
    pub fn run(&self) -> Result<ExitStatus> {
        if !host_paths::are_set() {
            tracing::info!("{self}"); // else nobody could type it, with the names of one machine on another
        }
        self.wait(&mut self.command(), false, true)
    }

    /// As [`run`](Self::run), without a word, and with a line on its standard input now and then as long as this program
    /// lives.
    ///
    /// # Errors
    /// See there.
    pub fn run_with_signs_of_life(&self) -> Result<ExitStatus> {
        let (input, mut output) = io::pipe().map_err(Error::io("make", "a pipe"))?;
        let signs = move || {
            while output.write_all(b"\n").is_ok() {
                thread::sleep(SIGN_OF_LIFE);
            }
        };
        threads::start(signs).map_err(Error::io("start", "a thread"))?;
        let mut command = self.command();
        command.stdin(input);
        self.wait(&mut command, false, false)
    }

    /// Whether it is `undisturbed` by signals, and `guarded` where this program is killed.
    fn wait(&self, command: &mut Command, undisturbed: bool, guarded: bool) -> Result<ExitStatus> {
        // In a process group of its own, so that a terminal's Ctrl-C does not reach it a second time.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut child = command.spawn().map_err(self.failed())?;
        #[cfg(not(unix))]
        let _ = guarded;
        #[cfg(unix)]
        let _guard =
            guarded.then(|| Guard::over(&child, self.messenger.iter().flat_map(|messenger| messenger.words())));
        let signals = Signals::to(&child);
        let begin = Instant::now();
        let mut stopping = None;
        let status = loop {
            if let Some(status) = child.try_wait().transpose() {
                break status;
            }
            thread::sleep(TICK);
            match (interrupt::received().filter(|_| !undisturbed), stopping) {
                (Some(signal), None) => {
                    interrupt::acknowledge();
                    match &self.messenger {
                        None => _ = signals.send(signal),
                        Some(messenger) => {
                            if let Err(problem) = messenger.bring(signal) {
                                tracing::warn!("the signal may not reach the task: {messenger}: {problem}");
                                signals.send(signal);
                            }
                        }
                    }
                    stopping = Some(Instant::now());
                }
                (_, Some(since)) if since.elapsed() <= PATIENCE => {}
                (_, None) if self.limit.is_none_or(|limit| begin.elapsed() <= limit) => {}
                _ if signals.kill() => {}
                // Root's, by sudo; or on some systems one that has just ended.
                _ => break child.try_wait().and_then(|ended| ended.ok_or(io::ErrorKind::PermissionDenied.into())),
            }
        };
        if !undisturbed {
            interrupt::check()?;
        }
        status.map_err(Error::io("wait for", &self.program))
    }
}

/// A temporary file with these contents, to be read from its beginning.
///
/// # Errors
/// It cannot be made or written.
pub fn file_of(contents: &[u8]) -> Result<File> {
    let made = tempfile::tempfile().and_then(|mut file| {
        file.write_all(contents)?;
        file.rewind()?;
        Ok(file)
    });
    made.map_err(Error::io("write", "a temporary file"))
}

/// The text of a temporary file.
///
/// # Errors
/// It cannot be read.
pub fn text_of(file: File) -> Result<String> {
    contents(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// All that a file holds.
fn contents(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(Error::io("read", "a temporary file"))?;
    Ok(bytes)
}

impl ProgramOutput {
    fn new(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        Self { success: status.success(), code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// Sends signals to a child and to all processes that it started.
#[cfg(unix)]
pub struct Signals(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Signals {
    /// To `child`, which has a process group of its own.
    pub fn to(child: &Child) -> Self {
        Self::to_group(child.id())
    }

    /// To a process group.
    pub fn to_group(group: u32) -> Self {
        Self(i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw))
    }

    /// Sends `signal`. Returns whether this user may; the group may have ended already.
    pub fn send(&self, signal: i32) -> bool {
        let (Some(group), Some(signal)) = (self.0, rustix::process::Signal::from_named_raw(signal)) else {
            return false;
        };
        rustix::process::kill_process_group(group, signal) != Err(rustix::io::Errno::PERM)
    }

    /// Ends them at once. Returns whether this user may.
    pub fn kill(&self) -> bool {
        self.send(rustix::process::Signal::KILL.as_raw())
    }
}

/// Elsewhere the terminal sends them itself.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub fn to(_: &Child) -> Self {
        Self
    }
    pub fn to_group(_: u32) -> Self {
        Self
    }
    pub fn send(&self, _: i32) -> bool {
        true
    }
    pub fn kill(&self) -> bool {
        true
    }
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
