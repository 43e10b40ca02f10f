//! Files sent to another machine and brought back: by rsync, or where one side has none by tar. Both send only what differs
//! in size or time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use super::super::super::command::{HostCommand, file_of};
use super::super::super::job::{self, Listed};
use super::super::super::stream::LEFT_OUT;
use super::connection::{Connection, problem};
use crate::error::{CubeError, Error, Result};

/// More paths than this are not given as arguments.
const MOST_ARGUMENTS: usize = 500;

/// Files between this machine and another.
#[derive(Debug)]
pub struct FileTransfer<'a> {
    pub connection: &'a Connection,
    /// This program over there.
    pub program: &'a str,
    pub has_rsync: bool,
}

/// What goes there.
#[derive(Debug)]
pub struct Sent<'a> {
    /// The directory here that all names are in.
    pub from: &'a Path,
    /// Files and directories.
    pub names: &'a [PathBuf],
    /// Names that stay here, below each directory.
    pub without: &'a [&'a str],
    /// The directory there.
    pub to: &'a str,
}

impl FileTransfer<'_> {
    /// Makes what is there equal to what is here.
    ///
    /// # Errors
    /// A file cannot be read or written, the connection is lost, or a signal arrived.
    pub fn send(&self, what: &'static str, sent: &Sent) -> Result<()> {
        self.connection.succeed("make a directory", &["mkdir", "-p", sent.to], Stdio::null())?;
        if self.has_rsync { self.send_by_rsync(what, sent) } else { self.send_by_tar(what, sent) }
    }

    fn rsync(&self) -> HostCommand {
        let (ssh, _) = self.connection.for_rsync();
        // -s: no shell takes paths apart. --no-implied-dirs: a link on the way there stays one.
        let command = HostCommand::new("rsync").args(["-rtps", "--stats", "-e", &ssh]);
        command.args(LEFT_OUT.map(|name| format!("--exclude=*{name}")))
    }

    fn send_by_rsync(&self, what: &'static str, sent: &Sent) -> Result<()> {
        let (_, host) = self.connection.for_rsync();
        let command = self.rsync().args(["-LR", "--no-implied-dirs", "--delete"]).directory(sent.from);
        let command = command.args(sent.without.iter().map(|name| format!("--exclude=/{name}")));
        let command = command.arg("--").args(sent.names.iter().map(|name| Path::new(".").join(name)));
        let output = command.arg(format!("{host}:{}/", sent.to)).complete(Stdio::null())?;
        if !output.success {
            return Err(self.failed("send", what, &output.stderr));
        }
        let sent = output.stdout.lines().find_map(|line| line.strip_prefix("Total bytes sent: "));
        tracing::info!("{}: {what}: {} bytes sent", self.connection.host(), sent.unwrap_or("some"));
        Ok(())
    }

    fn failed(&self, verb: &str, what: &str, stderr: &str) -> Error {
        if let Err(lost) = self.connection.output(&["true"]) {
            return lost; // which is what the programs stumbled over
        }
        let (host, action) = (self.connection.host(), format!("{verb} {what}"));
        CubeError::Transfer { host, action, problem: problem(stderr) }.into()
    }

    /// The files below the directory `far` there.
    ///
    /// # Errors
    /// They cannot be listed, or the connection is lost.
    pub fn list(&self, far: &str) -> Result<Vec<Listed>> {
        let json = self.connection.succeed("list files", &[self.program, "cube", "job", "list", far], Stdio::null())?;
        let listed: Vec<Listed> =
            serde_json::from_str(&json).map_err(|error| self.failed("list", far, &error.to_string()))?;
        match listed.iter().find(|(path, ..)| !job::is_below(path)) {
            None => Ok(listed),
            Some((path, ..)) => {
                Err(self.failed("list", far, &format!("expected paths below it, found {}", path.display())))
            }
        }
    }

    fn send_by_tar(&self, what: &'static str, sent: &Sent) -> Result<()> {
        let mut here = vec![];
        for name in sent.names {
            let path = sent.from.join(name);
            if path.is_dir() {
                here.extend(job::list(&path)?.into_iter().map(|(below, size, time)| (name.join(below), size, time)));
            } else if let Ok(metadata) = fs::metadata(&path) {
                here.push(job::listed(name.clone(), &metadata));
            }
        }
        here.retain(|(path, ..)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !sent.without.iter().any(|name| path.starts_with(name)) && !LEFT_OUT.iter().any(|end| name.ends_with(end))
        });
        let there = self.list(sent.to)?;
        let known: BTreeMap<&PathBuf, (u64, u64)> =
            there.iter().map(|(path, size, time)| (path, (*size, *time))).collect();
        let changed = here.iter().filter(|(path, size, time)| known.get(path) != Some(&(*size, *time)));
        let changed: Vec<&PathBuf> = changed.map(|(path, ..)| path).collect();
        let directories = sent.names.iter().filter(|name| sent.from.join(name).is_dir());
        let directories: Vec<&PathBuf> = directories.collect();
        let gone = there.iter().map(|(path, ..)| path).filter(|path| {
            directories.iter().any(|directory| path.starts_with(directory))
                && !sent.without.iter().any(|name| path.starts_with(name))
                && !here.iter().any(|(name, ..)| name == *path)
        });
        let gone: Vec<String> = gone.map(|path| path.display().to_string()).collect();
        for some in gone.chunks(MOST_ARGUMENTS) {
            let script = "cd \"$1\" && shift && rm -f -- \"$@\"";
            let words = ["sh", "-c", script, "sh", sent.to].into_iter().chain(some.iter().map(String::as_str));
            self.connection.succeed("tidy up", &words.collect::<Vec<_>>(), Stdio::null())?;
        }
        tracing::info!(
            "{}: {what}: {} files sent, {} there",
            self.connection.host(),
            changed.len(),
            here.len() - changed.len()
        );
        if changed.is_empty() {
            return Ok(());
        }
        let names = names_file(&changed)?;
        let pack = HostCommand::new("tar").args(["--null", "-chf", "-", "-T", "-"]).directory(sent.from);
        let unpack = self.connection.command(&["tar", "-xpf", "-", "-C", sent.to]);
        let (packed, unpacked) = pack.pipe(names.into(), &unpack)?;
        if packed.success && unpacked.success {
            return Ok(());
        }
        Err(self.failed("send", what, if unpacked.success { &packed.stderr } else { &unpacked.stderr }))
    }

    /// Brings the files below `far` there into the directory `stage`, which is empty, or the one file `only`. What is equal
    /// to a file in `existing` is copied from there.
    ///
    /// # Errors
    /// A file cannot be read or written, the connection is lost, or a signal arrived.
    pub fn fetch(&self, far: &str, only: Option<&str>, stage: &Path, existing: &Path) -> Result<()> {
        let mut there = self.list(far)?;
        there.retain(|(path, ..)| only.is_none_or(|only| path == Path::new(only)));
        if there.is_empty() {
            return Ok(()); // the task had no time to write any
        }
        if !self.has_rsync {
            return self.fetch_by_tar(far, &there, stage, existing);
        }
        let (ssh, host) = self.connection.for_rsync();
        let command = HostCommand::new("rsync").args(["-rltps", "--stats", "-e", &ssh]);
        let mut copy_from = OsString::from("--copy-dest=");
        copy_from.push(existing);
        let command = command.args(existing.is_dir().then_some(copy_from));
        let command = command.arg("--").arg(format!("{host}:{far}/{}", only.unwrap_or_default()));
        let mut to = stage.as_os_str().to_os_string();
        to.push("/");
        let output = command.arg(to).complete(Stdio::null())?;
        if output.success { Ok(()) } else { Err(self.failed("bring", far, &output.stderr)) }
    }

    fn fetch_by_tar(&self, far: &str, there: &[Listed], stage: &Path, existing: &Path) -> Result<()> {
        let here: BTreeMap<PathBuf, (u64, u64)> =
            job::list(existing)?.into_iter().map(|(path, size, time)| (path, (size, time))).collect();
        let (same, other): (Vec<_>, Vec<_>) =
            there.iter().partition(|(path, size, time)| here.get(path) == Some(&(*size, *time)));
        for (path, _, time) in same {
            let (from, to) = (existing.join(path), stage.join(path));
            let copied = fs::create_dir_all(to.parent().unwrap_or(stage)).and_then(|()| fs::copy(&from, &to));
            let timed = copied.and_then(|_| {
                File::options().write(true).open(&to)?.set_modified(UNIX_EPOCH + Duration::from_secs(*time))
            });
            timed.map_err(Error::io("copy", &from))?;
        }
        let names: Vec<String> = other.iter().map(|(path, ..)| format!("./{}", path.display())).collect();
        for some in names.chunks(MOST_ARGUMENTS) {
            let script = "cd \"$1\" && shift && tar -cf - \"$@\"";
            let words = ["sh", "-c", script, "sh", far].into_iter().chain(some.iter().map(String::as_str));
            let pack = self.connection.command(&words.collect::<Vec<_>>());
            let unpack = HostCommand::new("tar").args(["-xpf", "-"]).directory(stage);
            let (packed, unpacked) = pack.pipe(Stdio::null(), &unpack)?;
            if !packed.success || !unpacked.success {
                return Err(self.failed("bring", far, if packed.success { &unpacked.stderr } else { &packed.stderr }));
            }
        }
        Ok(())
    }
}

/// The names, each with a zero after it, as `tar --null -T` reads them.
fn names_file(names: &[&PathBuf]) -> Result<File> {
    let lines = names.iter().map(|name| [b"./", name.as_os_str().as_encoded_bytes(), b"\0"].concat());
    file_of(&lines.collect::<Vec<_>>().concat())
}
