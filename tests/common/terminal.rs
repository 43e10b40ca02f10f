//! A pseudo-terminal with the program in it, and what a user then sees.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const ROWS: u16 = 40;

/// A program that runs in a terminal of its own.
pub struct Terminal {
    child: Child,
    keyboard: File,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// How it looks when the program has ended.
pub struct Final {
    pub code: Option<i32>,
    /// The lines, with those that were scrolled away, without blanks at their ends.
    pub lines: Vec<String>,
    /// All that was written.
    pub bytes: String,
}

impl Terminal {
    /// Starts `command` in a terminal of `columns`.
    pub fn start(command: &mut Command, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, vec![]).unwrap();
        let theirs = File::options().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.to_bytes())).unwrap();
        resize(&ours, columns);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            if !command.get_envs().any(|(given, value)| given == name && value.is_some()) {
                command.env_remove(name);
            }
        }
        let child = command.spawn().unwrap();
        // The terminal ends when its last user does: the command holds three copies of it.
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let seen = Arc::new(Mutex::new(Seen { parser: parser(columns), bytes: vec![] }));
        let keyboard = File::from(ours);
        let reader = thread::spawn({
            let (seen, mut screen) = (seen.clone(), keyboard.try_clone().unwrap());
            move || watch(&mut screen, &seen)
        });
        Self { child, keyboard, seen, reader }
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.seen.lock().unwrap().parser.screen().contents().contains(text) {
            assert!(Instant::now() < until, "no {text} in:\n{}", self.seen.lock().unwrap().parser.screen().contents());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes it so many `columns` wide.
    pub fn resize(&self, columns: u16) {
        resize(&self.keyboard, columns);
        self.seen.lock().unwrap().parser.screen_mut().set_size(of(ROWS), of(columns));
    }

    /// Ctrl-C: `^C` appears, and the program gets SIGINT.
    pub fn interrupt(&mut self) {
        self.keyboard.write_all(b"\x03").unwrap();
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for the end.
    pub fn end(mut self) -> Final {
        let code = self.child.wait().unwrap().code();
        self.reader.join().unwrap();
        let mut seen = self.seen.lock().unwrap();
        let bytes = String::from_utf8_lossy(&seen.bytes).into_owned();
        Final { code, lines: lines(&mut seen.parser), bytes }
    }
}

fn of(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

fn parser(columns: u16) -> vt100::Parser {
    vt100::Parser::new(of(ROWS), of(columns), 1000)
}

fn resize(terminal: &impl std::os::fd::AsFd, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn watch(screen: &mut File, seen: &Mutex<Seen>) {
    let mut buffer = [0; 4096];
    loop {
        match screen.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // EIO once no process has it open any more.
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let mut seen = seen.lock().unwrap();
                seen.parser.process(&buffer[..length]);
                seen.bytes.extend(&buffer[..length]);
            }
        }
    }
}

/// All lines, from the first that was scrolled away to the last with text.
fn lines(parser: &mut vt100::Parser) -> Vec<String> {
    let columns = parser.screen().size().1.get();
    parser.screen_mut().set_scrollback(usize::MAX);
    let scrolled = parser.screen().scrollback();
    let mut lines = vec![];
    for offset in (1..=scrolled).rev() {
        parser.screen_mut().set_scrollback(offset);
        lines.extend(parser.screen().rows(0, columns).next());
    }
    parser.screen_mut().set_scrollback(0);
    lines.extend(parser.screen().rows(0, columns));
    let mut lines: Vec<String> = lines.iter().map(|line| line.trim_end().to_string()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}
