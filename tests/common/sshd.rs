//! A machine to log in to: OpenSSH's server on loopback, as this user, with another home directory; and a wire to it that
//! can be cut.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Sandbox, end, skipped};

const SSHD: &str = "/usr/sbin/sshd";

/// The server, and the client's configuration for the host `far`.
pub struct Sshd {
    server: Child,
    pub wire: Wire,
    directory: PathBuf,
}

impl Sshd {
    /// Starts it with its files in the sandbox; `environment` is what its sessions get. None without OpenSSH.
    pub fn start(sandbox: &Sandbox, environment: &str) -> Option<Self> {
        if !Path::new(SSHD).exists() || Command::new("ssh").arg("-V").output().is_err() {
            skipped("no OpenSSH server and client");
            return None;
        }
        let directory = sandbox.path("ssh");
        fs::create_dir_all(directory.join("bin")).unwrap();
        fs::create_dir_all(sandbox.path("far home")).unwrap();
        let here = directory.display().to_string();
        for key in ["host", "user"] {
            let file = directory.join(key);
            end(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file)).done();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home = sandbox.path("far home");
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n\
             SetEnv \"HOME={}\" {environment}\n",
            home.display()
        );
        fs::write(directory.join("sshd_config"), configuration).unwrap();
        let _ = fs::create_dir_all("/run/sshd"); // root's server wants it
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f"]).arg(directory.join("sshd_config"));
        let log = fs::File::create(directory.join("log")).unwrap();
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let wire = Wire::to(port);
        let sshd = Self { server, wire, directory };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(sshd.directory.join("log")).unwrap();
            assert!(begin.elapsed() < Duration::from_secs(20), "no server: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        let user = end(Command::new("id").arg("-un")).done().stdout;
        let client = format!(
            "Host far\n HostName 127.0.0.1\n Port {}\n User {user} IdentityFile {here}/user\n IdentitiesOnly yes\n \
             UserKnownHostsFile {here}/known\n StrictHostKeyChecking yes\n",
            sshd.wire.port
        );
        fs::write(sshd.directory.join("config"), client).unwrap();
        sshd.knows(&fs::read_to_string(sshd.directory.join("host.pub")).unwrap());
        // The client finds its configuration by the password file, not by HOME.
        sshd.program("ssh", &format!("exec /usr/bin/ssh -F '{here}/config' \"$@\""));
        Some(sshd)
    }

    /// Makes `key` the one that the client knows.
    pub fn knows(&self, key: &str) {
        let key: Vec<&str> = key.split(' ').take(2).collect();
        let line =
            if key.len() < 2 { String::new() } else { format!("[127.0.0.1]:{} {}\n", self.wire.port, key.join(" ")) };
        fs::write(self.directory.join("known"), line).unwrap();
    }

    /// Puts a script in front of the programs in [`Sshd::path`].
    pub fn program(&self, name: &str, script: &str) {
        let file = self.directory.join("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The value of PATH with the client that knows the host.
    pub fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.directory.join("bin").display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A proxy to a port of this machine.
pub struct Wire {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    open: Mutex<Vec<TcpStream>>,
    /// The bytes that went through, in both directions.
    bytes: AtomicU64,
    /// After so many it is cut, once.
    cut_after: AtomicU64,
}

impl Wire {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().port();
        let state =
            Arc::new(State { open: Mutex::default(), bytes: AtomicU64::new(0), cut_after: AtomicU64::new(u64::MAX) });
        let shared = state.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                shared.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shared.clone());
                    thread::spawn(move || carry(from, to, &state));
                }
            }
        });
        Self { port: here, state }
    }

    /// Cuts all connections. New ones are let through.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Cuts all connections once so many more bytes have gone through.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_after.store(self.bytes() + bytes, Ordering::Relaxed);
    }

    /// The bytes that went through so far.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }
}

impl State {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = state.bytes.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        if bytes >= state.cut_after.load(Ordering::Relaxed) {
            state.cut_after.store(u64::MAX, Ordering::Relaxed);
            return state.cut();
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
