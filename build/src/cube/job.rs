//! A task that outlives whoever started it, for a runner on another machine: `mnist cube job`, which people do not type.
//!
//! ```text
//! start -> supervise, a process of its own -> the task, whose output goes to files
//! follow: copies the files as they grow     stop: passes a signal on     state: what there is
//! ```
//!
//! All files of a job are in its directory. The supervisor holds the directory's lock as long as it lives, so that a job
//! that was killed is not taken for a running one. The task holds a lock of its own, since it outlives a supervisor that is
//! killed.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::command::Signals;
use super::listing::{self, FileChanges, Inventory, is_below, is_inside};
use crate::error::{CubeError, Error, Result};
use crate::files::{self, lock::DirectoryLock};
use crate::{interrupt, threads};

/// The time between two looks at a job.
const TICK: Duration = Duration::from_millis(50);
/// The time in which a supervisor starts.
const START: Duration = Duration::from_secs(20);
/// A look at a lock takes no longer.
const LOOK: Duration = Duration::from_secs(2);
/// A job that ends with its connection is stopped after so many seconds without a sign of it, unless the variable, which a
/// test sets, says otherwise.
const PATIENCE: (&str, u64) = ("MLCUBE_PATIENCE_SECONDS", 60);
/// After a signal, the task has so long to end.
const STOPPING: Duration = Duration::from_secs(60);

/// What a job is, for whoever takes it up later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The task's name.
    pub task: String,
    /// Its outputs, by name, with their paths in the workspace and whether each is a file.
    pub outputs: Vec<(String, PathBuf, bool)>,
    /// Whether it is stopped once nobody has followed it for a minute.
    pub ends_alone: bool,
}

/// Where a job has the workspace: below the directory that it is started in.
const WORKSPACE: &str = "workspace";

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing was started, or what was is over and its outputs are where they belong.
    Free,
    /// The task runs.
    Running,
    /// The task has ended with this exit code.
    Ended(u8),
    /// The task has ended without an exit code: its supervisor was killed, or the machine went down.
    Killed,
}

/// What `state` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How far it is.
    pub stage: Stage,
    /// What it is; none if it is free.
    pub about: Option<About>,
    /// What it has changed in each of its outputs, once it has ended.
    #[serde(default)]
    pub changes: Vec<FileChanges>,
}

/// The directory of one job at a time.
#[derive(Debug)]
pub struct DetachedTask {
    directory: PathBuf,
}

impl DetachedTask {
    /// The job in `directory`, which need not be there.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The file that says what it is.
    fn about(&self) -> PathBuf {
        self.file("about.json")
    }

    /// The file that the exit code is written to at the end.
    fn code(&self) -> PathBuf {
        self.file("code")
    }

    /// The file with what was in its outputs when it started.
    fn before(&self) -> PathBuf {
        self.file("before.json")
    }

    /// The file with the number of a signal that waits for the task.
    fn signal(&self) -> PathBuf {
        self.file("signal")
    }

    /// The file whose time says when somebody last followed it.
    fn followed(&self) -> PathBuf {
        self.file("followed")
    }

    /// A file that the task and all that it starts have open, with a lock on it until they end. It names the task's process.
    fn alive(&self) -> PathBuf {
        self.file("alive")
    }

    /// The task's process, as long as it lives.
    fn task(&self) -> Option<u32> {
        let mut file = File::open(self.alive()).ok()?;
        if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            return None;
        }
        let mut process = String::new();
        file.read_to_string(&mut process).ok()?;
        Some(process.trim().parse().unwrap_or(0)) // just started
    }

    /// Whether the task's supervisor lives.
    fn is_supervised(&self) -> bool {
        matches!(DirectoryLock::check_free(&self.directory), Err(Error::InUse { .. }))
    }

    /// What there is.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn state(&self) -> Result<State> {
        let about = match fs::read(self.about()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(State { stage: Stage::Free, about: None, changes: vec![] });
            }
            about => about.map_err(Error::io("read", self.about()))?,
        };
        // The locks first: a job that ends between the two looks has its code.
        let held = self.is_supervised() || self.task().is_some();
        let code = fs::read_to_string(self.code()).ok().and_then(|code| code.trim().parse().ok());
        let stage = match code {
            Some(code) => Stage::Ended(code),
            None if held => Stage::Running,
            None => Stage::Killed,
        };
        Ok(State { stage, about: serde_json::from_slice(&about).ok(), changes: vec![] })
    }

    /// The same, and what it has changed if it has ended: files that a killed task left under temporary names get theirs
    /// first.
    ///
    /// # Errors
    /// An output cannot be read, or the directory.
    pub fn outcome(&self) -> Result<State> {
        let mut state = self.state()?;
        if let (Stage::Ended(_) | Stage::Killed, Some(about)) = (state.stage, &state.about) {
            about.directories().try_for_each(|below| listing::settle(&Path::new(WORKSPACE).join(below)))?;
            let now = about.inventories()?;
            // None of a job that an older program began.
            let before: Vec<Inventory> =
                fs::read(self.before()).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
            let nothing = Inventory::default();
            let before = before.iter().chain(std::iter::repeat(&nothing));
            state.changes = before.zip(&now).map(|(before, now)| before.changes_to(now)).collect();
        }
        Ok(state)
    }

    /// Starts `arguments` of this program as a process of its own, in the current directory.
    ///
    /// # Errors
    /// Another job is there, or the process cannot be started.
    pub fn start(&self, about: &About, arguments: &[OsString]) -> Result<()> {
        files::make_directory(&self.directory)?;
        let State { stage, about: other, .. } = self.state()?;
        if stage != Stage::Free {
            let found = match other {
                Some(other) if stage == Stage::Running => format!("task {}, which runs", other.task),
                Some(other) => format!("task {}, whose outputs nobody has fetched", other.task),
                None => "a file about.json that names none".into(),
            };
            let directory = self.directory.canonicalize().unwrap_or_else(|_| self.directory.clone());
            return Err(CubeError::Busy { directory, found }.into());
        }
        // By the lock a job that runs is told from one that was killed.
        if DirectoryLock::take_quietly(&self.directory)?.is_none() {
            return Err(CubeError::NoLocks { directory: self.directory.clone() }.into());
        }
        // A signal that is left would end this task at once, and what an earlier task left running may hold its lock on `alive`.
        let files =
            [self.code(), self.file("stdout"), self.file("stderr"), self.followed(), self.signal(), self.alive()];
        for file in files {
            files::remove(&file)?;
        }
        let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
        let mut command = Command::new(&program);
        command.args(["cube", "job", "supervise"]).arg(&self.directory).arg("--").args(arguments);
        let output = |name| File::create(self.file(name)).map_err(Error::io("write", self.file(name)));
        command.stdin(Stdio::null()).stdout(output("stdout")?).stderr(output("stderr")?);
        // Away from the connection's process group.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        files::write(self.before(), &json(&about.inventories()?))?;
        files::write(self.about(), &json(about))?;
        let mut supervisor = command.spawn().map_err(Error::io("start", &program))?;
        let begin = Instant::now();
        loop {
            // Asked before the state: a supervisor that has done its work has left the exit code.
            let has_ended = supervisor.try_wait().is_ok_and(|ended| ended.is_some());
            if self.state()?.stage != Stage::Killed {
                return Ok(());
            }
            if has_ended || begin.elapsed() > START {
                // Or it would begin the task when nobody waits for it any more.
                let _ = supervisor.kill();
                let _ = supervisor.wait();
                files::remove(&self.about())?;
                return Err(CubeError::NoSupervisor { directory: self.directory.clone() }.into());
            }
            thread::sleep(TICK);
        }
    }

    /// Keeps the place from other senders until standard input ends, and says so in a line.
    ///
    /// # Errors
    /// Another one has it.
    pub fn hold(&self) -> Result<()> {
        let directory = self.directory.with_file_name("sending");
        files::make_directory(&directory)?;
        let directory = directory.canonicalize().unwrap_or(directory); // as an error names it to somebody elsewhere
        let _lock = DirectoryLock::take_quietly(&directory)?;
        writeln!(io::stdout(), "held").and_then(|()| io::stdout().flush()).map_err(Error::io("write", "stdout"))?;
        io::copy(&mut io::stdin(), &mut io::sink()).map_err(Error::io("read", "stdin")).map(drop)
    }

    /// The supervisor's lock. Whoever looks whether it is held has it for a moment.
    fn lock(&self) -> Result<Option<DirectoryLock>> {
        let begin = Instant::now();
        loop {
            match DirectoryLock::take(&self.directory) {
                Err(Error::InUse { .. }) if begin.elapsed() < LOOK => thread::sleep(Duration::from_millis(1)),
                taken => return taken,
            }
        }
    }

    /// The process that [`start`](Self::start) starts: runs the task to its end and writes its exit code down.
    ///
    /// # Errors
    /// The directory is another's, or the task cannot be started.
    pub fn supervise(&self, arguments: &[OsString]) -> Result<()> {
        interrupt::acknowledge();
        let _lock = self.lock()?;
        let about: Option<About> = self.state()?.about;
        let ends_alone = about.is_some_and(|about| about.ends_alone);
        let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
        let mut task = Command::new(&program);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut task, 0);
        let alive = File::options().read(true).write(true).create(true).truncate(true).open(self.alive());
        let mut alive = alive.map_err(Error::io("write", self.alive()))?;
        alive.lock().map_err(Error::io("lock", self.alive()))?;
        #[cfg(unix)]
        rustix::io::fcntl_setfd(&alive, rustix::io::FdFlags::empty())
            .map_err(|error| Error::io("pass on", self.alive())(error.into()))?;
        let mut task = task.args(arguments).stdin(Stdio::null()).spawn().map_err(Error::io("start", &program))?;
        write!(alive, "{}", task.id()).map_err(Error::io("write", self.alive()))?;
        let status = self.wait(&mut task, ends_alone).map_err(Error::io("wait for", &program))?;
        files::write(self.code(), exit_code(status).to_string().as_bytes())
    }

    /// Waits for the task, and passes on what [`stop`](Self::stop) asks for.
    fn wait(&self, task: &mut Child, ends_alone: bool) -> io::Result<ExitStatus> {
        let signals = Signals::to(task);
        let patience = std::env::var(PATIENCE.0).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(PATIENCE.1);
        let begin = Instant::now();
        let mut stopping: Option<Instant> = None;
        loop {
            if let Some(status) = task.try_wait()? {
                return Ok(status);
            }
            let seen = fs::metadata(self.followed()).and_then(|file| file.modified()).ok();
            let alone = seen.map_or(begin.elapsed(), |seen| seen.elapsed().unwrap_or_default());
            let asked = fs::read_to_string(self.signal()).ok().and_then(|signal| signal.trim().parse().ok());
            let left = (ends_alone && alone > Duration::from_secs(patience)).then_some(signal_hook::consts::SIGTERM);
            match (asked.or(interrupt::received()).or(left), stopping) {
                (Some(signal), None) => {
                    signals.send(signal);
                    stopping = Some(Instant::now());
                }
                (_, Some(since)) if since.elapsed() > STOPPING => _ = signals.kill(),
                _ => {}
            }
            thread::sleep(TICK);
        }
    }

    /// Copies what the task has written and writes to stdout and stderr, until it has ended or the reader is gone: stdin,
    /// on which the reader sends something now and then, has ended.
    ///
    /// # Errors
    /// The files cannot be read, or the output cannot be written.
    pub fn follow(&self) -> Result<()> {
        let followed = self.followed();
        let listen = move || {
            let mut sign = [0; 64];
            while io::stdin().read(&mut sign).is_ok_and(|read| read > 0) {
                let _ = fs::write(&followed, "."); // its time is what counts
            }
            signal_hook::low_level::exit(0)
        };
        threads::start(listen).map_err(Error::io("listen to", "stdin"))?;
        self.copy_until_the_end([0, 0])
    }

    /// Sends a signal to the task, and copies what it writes until it has ended.
    ///
    /// # Errors
    /// See [`follow`](Self::follow).
    pub fn stop(&self, signal: i32) -> Result<()> {
        let written = ["stdout", "stderr"].map(|name| fs::metadata(self.file(name)).map_or(0, |file| file.len()));
        files::write(self.signal(), signal.to_string().as_bytes())?;
        // Its supervisor, which reads that, may have been killed.
        if let Some(task) = self.task().filter(|task| *task > 0 && !self.is_supervised()) {
            Signals::to_group(task).send(signal);
        }
        let copied = self.copy_until_the_end(written);
        files::remove(&self.signal())?;
        copied
    }

    fn copy_until_the_end(&self, from: [u64; 2]) -> Result<()> {
        let open = |name, from| {
            let opened =
                File::open(self.file(name)).and_then(|mut file| file.seek(SeekFrom::Start(from)).map(|_| file));
            opened.map_err(Error::io("read", self.file(name)))
        };
        let mut stdout = open("stdout", from[0])?;
        let mut stderr = open("stderr", from[1])?;
        loop {
            // Asked before the last copy, so that nothing is left out.
            let ended = self.state()?.stage != Stage::Running;
            copy(&mut stdout, &mut io::stdout(), "stdout")?;
            copy(&mut stderr, &mut io::stderr(), "stderr")?;
            if ended {
                return Ok(());
            }
            interrupt::check()?;
            thread::sleep(TICK);
        }
    }

    /// Frees the directory for the next job: the outputs are where they belong.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn free(&self) -> Result<()> {
        files::remove(&self.about())
    }
}

fn copy(from: &mut File, to: &mut impl Write, name: &'static str) -> Result<()> {
    io::copy(from, to).and_then(|_| to.flush()).map_err(Error::io("write", name))
}

/// The exit code of a process as a shell gives it.
fn exit_code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    status.code().or(signal.map(|signal| 128 + signal)).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| unreachable!("plain values become JSON: {error}"))
}

impl About {
    /// What is in each of its outputs.
    fn inventories(&self) -> Result<Vec<Inventory>> {
        let only = self.outputs.iter().map(|(_, path, is_file)| path.file_name().filter(|_| *is_file).map(Path::new));
        self.directories()
            .zip(only)
            .map(|(below, only)| Inventory::of(&Path::new(WORKSPACE).join(below), only))
            .collect()
    }

    /// The directory of each output, below the workspace.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(|(_, path, is_file)| path.parent().filter(|_| *is_file).unwrap_or(path))
    }

    /// The outputs with their `changes`, without those in another output, whose changes hold theirs.
    pub fn changed<'a>(&'a self, changes: &'a [FileChanges]) -> Vec<ChangedOutput<'a>> {
        let is_in = |(name, path, _): &(String, PathBuf, bool), (other, whole, is_file): &(String, PathBuf, bool)| {
            !is_file && path.starts_with(whole) && (path != whole || other < name)
        };
        let outputs = self.outputs.iter().zip(self.directories()).zip(changes);
        let whole = outputs.filter(|((output, _), _)| !self.outputs.iter().any(|other| is_in(output, other)));
        whole.map(|(((_, path, _), directory), changes)| ChangedOutput { directory, path, changes }).collect()
    }

    /// Whether each output is below the workspace. What another machine says decides where files are written here.
    pub fn is_safe(&self) -> bool {
        let is_name = |name: &str| is_below(Path::new(name)) && !name.contains('/');
        self.outputs.iter().all(|(name, path, _)| is_name(name) && is_inside(path))
    }
}

/// An output, and what the task has done with it. Paths are below the workspace.
#[derive(Debug, Clone, Copy)]
pub struct ChangedOutput<'a> {
    /// What the changes are below: the output itself, or the directory of a file.
    pub directory: &'a Path,
    /// The output.
    pub path: &'a Path,
    /// The changes.
    pub changes: &'a FileChanges,
}

impl ChangedOutput<'_> {
    /// The files that the task has written, below the workspace.
    pub fn written(&self) -> impl Iterator<Item = PathBuf> {
        self.changes.written.iter().map(|(path, _)| self.directory.join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_in_another_is_brought_with_it() {
        let output = |name: &str, path: &str, is_file| (name.to_string(), PathBuf::from(path), is_file);
        let outputs = vec![
            output("a", "out/sub", false),
            output("b", "out", false),
            output("c", "out", false),
            output("d", "outer", false),
            output("e", "out/file", true),
            output("f", "score", true),
        ];
        let about = About { task: "t".into(), outputs, ends_alone: false };
        let changes = vec![FileChanges::default(); 6];
        let brought: Vec<_> = about.changed(&changes).into_iter().map(|output| output.path).collect();
        assert_eq!(brought, ["out", "outer", "score"].map(Path::new));
        assert_eq!(about.changed(&changes)[2].directory, Path::new(""));
    }

    #[test]
    fn another_machine_does_not_say_where_files_go_outside_the_workspace() {
        let about = |name: &str, path: &str| About {
            task: "train".into(),
            outputs: vec![(name.into(), path.into(), false)],
            ends_alone: false,
        };
        assert!(about("model_dir", "runs/1/model").is_safe() && about("all", "").is_safe());
        for (name, path) in [
            ("model_dir", "../.ssh"),
            ("model_dir", "/etc"),
            ("model_dir", "a/../../b"),
            ("..", "model"),
            ("/etc", "model"),
            ("a/b", "model"),
        ] {
            assert!(!about(name, path).is_safe(), "{name} {path}");
        }
    }
}
