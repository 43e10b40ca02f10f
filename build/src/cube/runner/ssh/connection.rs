//! Another machine, by the user's own `ssh`: his configuration, keys, agent and known hosts. One connection serves all
//! commands, so that a password is asked for once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::super::super::command::{HostCommand, ProgramOutput, text_of};
use crate::error::{CubeError, Error, Result};
use crate::text::shortened;

/// The connection ends by itself when it was not used for so long, should this program be killed.
const IDLE_SECONDS: u32 = 120;
/// A socket's path may not be longer.
const LONGEST_SOCKET: usize = 90;
/// Begins the lines of an answer, by which those are told that a shell prints of its own.
const ANSWER: &str = "mlcube:";
/// The exit code of `ssh` if it fails itself.
pub const LOST: i32 = 255;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub user: Option<String>,
    /// The file of the private key.
    pub key: Option<PathBuf>,
}

impl Address {
    /// As people write it.
    pub fn shown(&self) -> String {
        self.user.as_ref().map(|user| format!("{user}@{}", self.host)).unwrap_or_else(|| self.host.clone())
    }

    /// `ssh` with what leads there. Host keys are checked as the user's configuration says.
    fn ssh(&self) -> HostCommand {
        let command = HostCommand::new("ssh").args(["-o", "ServerAliveInterval=15", "-x", "-T"]);
        let command = command.args(self.user.iter().flat_map(|user| ["-l", user]));
        command.args(self.key.iter().flat_map(|key| ["-i".as_ref(), key.as_os_str()]))
    }

    /// The command that runs `words` there, without a connection of ours.
    pub fn command(&self, words: &[impl AsRef<str>]) -> HostCommand {
        self.ssh().args(["--", &self.host]).arg(remote(words))
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    /// Holds the socket.
    directory: TempDir,
    /// What the machine is.
    pub machine: Machine,
}

/// What the other machine says about itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Machine {
    pub home: String,
    /// As `uname -s` and `uname -m` say.
    pub system: String,
    pub processor: String,
    pub has_rsync: bool,
}

impl Connection {
    /// Connects, and asks what is there.
    ///
    /// # Errors
    /// There is no `ssh`, the host cannot be reached or refuses, or a signal arrived.
    pub fn open(address: &Address) -> Result<Self> {
        let directory = socket_directory().map_err(Error::io("make", "a directory for a socket"))?;
        let script = format!(
            "printf '{ANSWER}%s\\n' \"$HOME\" \"$(uname -s)\" \"$(uname -m)\" \"$(command -v rsync || echo none)\""
        );
        let persist = format!("ControlPersist={IDLE_SECONDS}");
        let command = address.ssh().args(["-o", "ControlMaster=yes", "-o", &persist, "-o", &control(&directory)]);
        let command = command.args(["--", &address.host]).arg(remote(&["sh", "-c", &script]));
        // In the terminal's own process group, since it may ask for a password there.
        let answer = command.complete_in_foreground()?;
        if !answer.success {
            return Err(CubeError::Connection { host: address.shown(), problem: problem(&answer.stderr) }.into());
        }
        let lines: Vec<Option<&str>> = answer.stdout.lines().map(|line| line.strip_prefix(ANSWER)).collect();
        let [Some(home), Some(system), Some(processor), Some(rsync)] = lines[..] else {
            // It would be taken for the first bytes of a file.
            let line = answer.stdout.lines().find(|line| !line.starts_with(ANSWER)).unwrap_or_default();
            return Err(CubeError::NoisyShell { host: address.shown(), found: shortened(line) }.into());
        };
        let machine = Machine {
            home: home.into(),
            system: system.into(),
            processor: processor.into(),
            has_rsync: rsync.starts_with('/'),
        };
        Ok(Self { address: address.clone(), directory, machine })
    }

    /// The machine, as people write it.
    pub fn host(&self) -> String {
        self.address.shown()
    }

    /// Checks that this program runs there.
    ///
    /// # Errors
    /// It is another system or processor.
    pub fn check_same_machine(&self) -> Result<()> {
        let Machine { system, processor, .. } = &self.machine;
        let there = format!("{system} on {processor}").to_lowercase().replace("darwin", "macos");
        let there = there.replace("amd64", "x86_64").replace("arm64", "aarch64");
        let here = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
        if there == here {
            return Ok(());
        }
        let problem = format!("expected {here}, found {there}");
        Err(CubeError::OtherMachine { host: self.host(), problem }.into())
    }

    /// The command that runs `words` there.
    pub fn command(&self, words: &[impl AsRef<str>]) -> HostCommand {
        let options = ["-x", "-T", "-o", "ControlMaster=no", "-o", &control(&self.directory)];
        HostCommand::new("ssh").args(options).args(["--", &self.address.host]).arg(remote(words))
    }

    /// The command line that `rsync` takes for ssh, and the name of the machine.
    pub fn for_rsync(&self) -> (String, String) {
        let host = &self.address.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        (format!("ssh -x -T -o ControlMaster=no -o {}", control(&self.directory)), host)
    }

    /// Runs `words` there to their end.
    ///
    /// # Errors
    /// The connection is lost, or a signal arrived.
    pub fn output(&self, words: &[impl AsRef<str>]) -> Result<ProgramOutput> {
        self.output_of(words, Stdio::null())
    }

    /// The same with something as standard input.
    ///
    /// # Errors
    /// The connection is lost, or a signal arrived.
    pub fn output_of(&self, words: &[impl AsRef<str>], input: Stdio) -> Result<ProgramOutput> {
        let output = self.command(words).complete(input)?;
        // None: ssh was killed.
        if matches!(output.code, None | Some(LOST)) {
            return Err(CubeError::Connection { host: self.host(), problem: problem(&output.stderr) }.into());
        }
        Ok(output)
    }

    /// Starts `words` there, and waits until they have printed a line.
    ///
    /// # Errors
    /// They end before, with `action` as what was tried; or the connection is lost.
    pub fn hold(&self, action: &'static str, words: &[impl AsRef<str>]) -> Result<Held> {
        let (mut held, errors) = self.command(words).listening()?;
        let mut line = String::new();
        let read = held.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        let held = Held(held);
        if read.is_some_and(|read| read.is_ok_and(|bytes| bytes > 0)) {
            return Ok(held);
        }
        drop(held);
        self.output(&["true"])?; // where the connection is lost, that is why
        Err(self.failed(action, &text_of(errors)?))
    }

    /// Runs `words` there, which must succeed.
    ///
    /// # Errors
    /// They fail, with `action` as what was tried; or see [`output`](Self::output).
    pub fn succeed(&self, action: &'static str, words: &[impl AsRef<str>], input: Stdio) -> Result<String> {
        let output = self.output_of(words, input)?;
        if output.success {
            return Ok(output.stdout);
        }
        Err(self.failed(action, &output.stderr))
    }

    fn failed(&self, action: &'static str, stderr: &str) -> Error {
        let (problem, next) = said(stderr);
        CubeError::Far { host: self.host(), action, problem, next }.into()
    }
}

/// A command there that goes on until this is dropped: its standard input then ends.
#[derive(Debug)]
pub struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill(); // what is there ends without this one
        let _ = self.0.wait();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let options = ["-O", "exit", "-o", &control(&self.directory)];
        let _ = HostCommand::new("ssh").args(options).args(["--", &self.address.host]).output(); // or it ends when idle
    }
}

fn control(directory: &TempDir) -> String {
    format!("ControlPath={}", directory.path().join("s").display())
}

/// A directory whose name is short and has no blanks: rsync splits its command at them, and sockets have short names.
fn socket_directory() -> std::io::Result<TempDir> {
    let usual = std::env::temp_dir();
    let fits = usual.as_os_str().len() + 20 < LONGEST_SOCKET
        && usual.to_str().is_some_and(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)));
    tempfile::tempdir_in(if fits { &usual } else { Path::new("/tmp") })
}

/// `words` as one text that any login shell there takes apart into them again.
fn remote(words: &[impl AsRef<str>]) -> String {
    let quoted = |word: &str| match word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c)) {
        true if !word.is_empty() => word.to_string(),
        _ => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// What matters of the messages of a program, which may be this one: the problem, and the next step.
fn said(stderr: &str) -> (String, Option<String>) {
    let line = |start| stderr.lines().rev().find_map(|line| line.strip_prefix(start)).map(String::from);
    (line("error: ").unwrap_or_else(|| problem(stderr)), line("hint: "))
}

/// What matters of the messages of a program: the last line, after the one that says what is behind it.
pub fn problem(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let noise =
        |line: &&str| !line.starts_with('@') && !line.starts_with("rsync error:") && !line.contains("closed by");
    let last = lines().rfind(noise).or_else(|| lines().next_back()).unwrap_or("no answer");
    if stderr.contains("IDENTIFICATION HAS CHANGED") {
        format!("{last} The key of this host has changed")
    } else {
        last.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_shell_finds_the_same_words() {
        let words =
            ["sh", "-c", "printf '%s|' \"$@\"", "sh", "a b", "it's", "$HOME `x`", "", "*", "\\", "line\nbreak", "ä;&"];
        let output = std::process::Command::new("sh").arg("-c").arg(remote(&words)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words[4..].join("|") + "|");
    }

    #[test]
    fn the_line_that_matters_is_found() {
        assert_eq!(problem("banner\n\nu@h: Permission denied (publickey).\n"), "u@h: Permission denied (publickey).");
        let changed = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n";
        assert_eq!(problem(changed), "Host key verification failed. The key of this host has changed");
        assert_eq!(
            problem("rsync: write failed: No space left on device (28)\nrsync error: x\n"),
            "rsync: write failed: No space left on device (28)"
        );
        assert_eq!(problem(""), "no answer");
        let of_ours = "warning: slow\nerror: job: expected no task, found train\nhint: wait\n";
        assert_eq!(said(of_ours), ("job: expected no task, found train".into(), Some("wait".into())));
        assert_eq!(said("sh: 1: cannot create x\n"), ("sh: 1: cannot create x".into(), None));
    }

    #[test]
    fn the_users_own_ssh_is_asked() {
        let address = Address { host: "h".into(), user: Some("u".into()), key: Some("/k y".into()) };
        assert_eq!(
            address.command(&["true"]).to_string(),
            "ssh -o ServerAliveInterval=15 -x -T -l u -i '/k y' -- h true"
        );
        assert_eq!(address.shown(), "u@h");
    }
}
