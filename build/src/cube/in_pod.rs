//! What this program does in a pod beside the task: it waits until the inputs are there, keeps the outputs until they are
//! fetched, and ends the task. `mnist cube job wait`, `mark` and `signal`, which people do not type.
//!
//! The containers of the pod share their processes, whose first one holds the pod together and is nobody's.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::listing::Inventory;
use crate::error::{CubeError, Error, Result};
use crate::{files, interrupt};

/// The time between two looks.
const TICK: Duration = Duration::from_millis(200);
/// A container stays so long after its file was made: `kubectl exec`, by which it was made, may wait for ever for what a
/// container that has ended still had to say.
const FAREWELL: Duration = Duration::from_secs(2);
/// After a signal, the task has so long to end.
const STOPPING: Duration = Duration::from_secs(60);

/// Waits until there is a file at `path`. Fails once there was nothing else at work in the pod for as long as `patience`.
///
/// # Errors
/// See above; or a signal arrived.
pub fn wait(path: &Path, patience: Duration) -> Result<()> {
    wait_while(path, patience, || processes().next().is_some())?;
    thread::sleep(FAREWELL);
    Ok(())
}

fn wait_while(path: &Path, patience: Duration, at_work: impl Fn() -> bool) -> Result<()> {
    let mut quiet = Instant::now();
    while !path.exists() {
        interrupt::check()?;
        if at_work() {
            quiet = Instant::now();
        }
        if quiet.elapsed() > patience {
            return Err(CubeError::NobodyCame { path: path.into(), seconds: patience.as_secs() }.into());
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Makes the file that another process waits for; it holds what is in its directory, for [`pack`](super::stream::pack).
///
/// # Errors
/// The directory cannot be read, or the file not made.
pub fn mark(path: &Path) -> Result<()> {
    let inventory = Inventory::of(path.parent().unwrap_or(path), None)?;
    let json = serde_json::to_vec(&inventory).map_err(|error| Error::io("write", path)(error.into()))?;
    files::write(path, &json)
}

/// The variable of containers that may end the task. Elsewhere the processes of other containers are not this program's.
pub const HELPER: &str = "MLCUBE_HELPER";

/// Sends `signal` to the processes of the pod's other containers, and waits until they have ended; those that do not are
/// killed.
///
/// # Errors
/// This is no container of a pod of ours.
pub fn signal(signal: i32) -> Result<()> {
    if std::env::var_os(HELPER).is_none() {
        return Err(CubeError::NoHelper.into());
    }
    let others = || {
        let own = container(Path::new("/proc/self"));
        // One that does not tell counts as another container's.
        processes().filter(move |(_, process)| process.exists() && container(process) != own)
    };
    let send = |signal| others().for_each(|(pid, _)| _ = kill_process(pid, signal)); // it may have ended
    if let Some(signal) = Signal::from_named_raw(signal) {
        send(signal);
    }
    let begin = Instant::now();
    while others().next().is_some() {
        if begin.elapsed() > STOPPING {
            send(Signal::KILL);
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// What tells containers apart: each has its own view of the file system.
fn container(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// The pod's processes but this one and the first, with their directories. Another user's, as those of a container that the
/// cluster adds, are left out: they do not belong to the task.
fn processes() -> impl Iterator<Item = (Pid, PathBuf)> {
    let numbered = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((Pid::from_raw(number)?, entry.path()))
    });
    let others = numbered.filter(|(pid, _)| ![Pid::INIT, rustix::process::getpid()].contains(pid));
    others.filter(|(pid, _)| test_kill_process(*pid) != Err(Errno::PERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_does_so_while_others_work_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fetched");
        let begin = Instant::now();
        let busy = || begin.elapsed() < Duration::from_millis(500);
        let error = wait_while(&file, Duration::from_millis(100), busy).unwrap_err().to_string();
        assert!(begin.elapsed() > Duration::from_millis(600), "{:?}", begin.elapsed());
        assert!(error.starts_with(&format!("{}: expected it ", file.display())), "{error}");
        mark(&file).unwrap();
        wait_while(&file, Duration::ZERO, || false).unwrap();
    }

    #[test]
    fn the_processes_of_this_machine_are_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = processes().find(|(pid, _)| pid.as_raw_nonzero().get() as u32 == child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, process) = seen.unwrap();
        assert_eq!(container(&process), None, "it has ended");
        assert!(container(Path::new("/proc/self")).is_some());
        assert!(processes().all(|(pid, _)| pid != rustix::process::getpid()));
    }
}
