//! A process beside each one that a runner starts: where the runner is killed, and can do nothing any more, it ends the
//! other. `mnist cube job guard`, which people do not type.
//!
//! The guard's standard input is a pipe from the runner. A byte says that all is over; its end without one says that the
//! runner is gone, however it went.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::interrupt;

/// The time between two looks.
const TICK: Duration = Duration::from_millis(100);
/// The time that a program has to end after a signal, before it is killed: a task writes its model.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that a program may take to bring a signal to another one.
const MESSAGE: Duration = Duration::from_secs(10);

/// A guard, until it is dropped.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Guards `child`, which has a process group of its own. Signals come to it by `messenger`, a program and its
    /// arguments, if there is one. None where no guard can be started, and in a process that does not listen for signals: such a
    /// one is not this program.
    pub fn over<'a>(child: &Child, messenger: impl Iterator<Item = &'a OsStr>) -> Option<Self> {
        if !interrupt::is_installed() {
            return None;
        }
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.args(["cube", "job", "guard", &child.id().to_string()]);
        command.arg("--").args(messenger);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What ends the runner's group must not end the guard.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn().ok()?;
        let pipe = process.stdin.take()?;
        Some(Self { process, pipe })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.pipe.write_all(b".");
        let _ = self.process.wait(); // it ends at once
    }
}

/// The guard's work: ends the process group `group` when standard input ends without a byte, by a signal that `messenger`
/// brings, if there is one.
pub fn watch(group: i32, messenger: &[OsString]) {
    interrupt::acknowledge(); // it ends with its runner, and with nothing else
    let mut byte = [0];
    let is_over = loop {
        match io::stdin().read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.is_ok_and(|read| read > 0),
        }
    };
    let Some(group) = Pid::from_raw(group).filter(|_| !is_over) else { return };
    if !bring(messenger, Signal::TERM) {
        let _ = kill_process_group(group, Signal::TERM); // it may have ended
    }
    let begin = Instant::now();
    // Another user's lives too, as root's by sudo.
    while test_kill_process_group(group) != Err(Errno::SRCH) {
        if begin.elapsed() > PATIENCE {
            let _ = bring(messenger, Signal::KILL);
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
        thread::sleep(TICK);
    }
}

/// Has `messenger`, a program with its arguments, bring `signal`. Returns whether it did; false where there is none.
fn bring(messenger: &[OsString], signal: Signal) -> bool {
    messenger.split_first().is_some_and(|(program, arguments)| {
        let signal = format!("--signal={}", signal.as_raw());
        let Ok(mut told) = Command::new(program).args(arguments).arg(signal).stdin(Stdio::null()).spawn() else {
            return false;
        };
        let begin = Instant::now();
        while begin.elapsed() < MESSAGE {
            if let Ok(Some(status)) = told.try_wait() {
                return status.success();
            }
            thread::sleep(TICK);
        }
        let _ = told.kill(); // which may be root's, and stay
        false
    })
}
