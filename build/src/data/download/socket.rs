//! From the name of a host to a connection: all its addresses, and the first of them that answers.
//!
//! A host may have addresses that do not answer: often those of IPv6, on machines that only seem to have it. So the
//! addresses race, as RFC 8305 (Happy Eyeballs) has it: IPv6 and IPv4 in turn, each a moment after the one before. One
//! thread waits for all of them, since a poor machine may have no more.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, time,
};

use crate::threads;

/// The next address is tried after so long, or once the one before has failed.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The addresses of `host`, which is `NAME:PORT`, in the order in which to try them.
///
/// # Errors
/// The name is unknown, nobody knows it within `patience`, or nobody can be asked.
pub fn look_up(host: &str, patience: Duration) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = sync_channel(1);
    let name = host.to_string();
    let found = match threads::start(move || _ = sender.send(name.to_socket_addrs())) {
        Ok(()) => receiver.recv_timeout(patience).map_err(|_| io::Error::from(ErrorKind::TimedOut))?,
        // Without a thread it takes as long as the system lets it.
        Err(_) => host.to_socket_addrs(),
    };
    Ok(in_turn(found?))
}

/// IPv6 and IPv4 in turn, beginning with the first; otherwise in their order, which is the system's preference.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.collect();
    let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (firsts, others): (Vec<_>, Vec<_>) = found.iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let turns = 0..firsts.len().max(others.len());
    turns.flat_map(|turn| [firsts.get(turn), others.get(turn)]).flatten().copied().collect()
}

/// Opens a TCP connection, unless there is a connection already: that to a proxy.
#[derive(Debug)]
pub struct Race;

impl<In: Transport> Connector<In> for Race {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails, there: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(there) = there {
            return Ok(Some(Either::A(there)));
        }
        let started = if let time::Instant::Exact(started) = details.now { started } else { Instant::now() };
        let end = started + (*details.timeout.after).min(Duration::from_secs(86_400));
        let stream = race(&details.addrs, end).map_err(|error| timed_out(error, details.timeout))?;
        stream.set_nodelay(true)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Socket { stream, buffers })))
    }
}

/// Connects to the first address that answers until `end`.
///
/// # Errors
/// None does: the error of the first that has failed, or of kind `TimedOut`.
fn race(addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
    let mut untried = addresses.iter();
    let mut attempts: Vec<TcpStream> = Vec::new();
    let mut failure: Option<io::Error> = None;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(ErrorKind::TimedOut.into());
        }
        if now >= next
            && let Some(address) = untried.next()
        {
            match begin(address) {
                Ok(attempt) => {
                    attempts.push(attempt);
                    next = now + NEXT_ADDRESS;
                }
                Err(error) => drop(failure.get_or_insert(error)),
            }
            continue;
        }
        if attempts.is_empty() && untried.len() == 0 {
            return Err(failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()));
        }
        let until = if untried.len() == 0 { end } else { end.min(next) };
        for index in decided(&attempts, until.saturating_duration_since(now))?.into_iter().rev() {
            let attempt = attempts.swap_remove(index);
            match attempt.take_error().unwrap_or_else(Some) {
                None => return attempt.set_nonblocking(false).map(|()| attempt),
                Some(error) => drop(failure.get_or_insert(error)),
            }
            next = now;
        }
    }
}

/// Begins to connect, without waiting for it.
fn begin(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    match connect(&stream, address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

/// Waits for any attempt to end, well or not. Returns the indices of those that have, in rising order.
fn decided(attempts: &[TcpStream], patience: Duration) -> io::Result<Vec<usize>> {
    let mut waits: Vec<PollFd> = attempts.iter().map(|attempt| PollFd::new(attempt, PollFlags::OUT)).collect();
    match poll(&mut waits, Timespec::try_from(patience).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((0..waits.len()).filter(|index| !waits[*index].revents().is_empty()).collect())
}

/// A TCP connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|after| *after))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| timed_out(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(timeout.not_zero().map(|after| *after))?;
        let count = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| timed_out(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// No connection is used a second time.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// The system says of a read or write whose time is over that it would block.
fn timed_out(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_take_turns() {
        let turns = |addresses: &[&str]| {
            let found = addresses.iter().map(|address| format!("{address}:1").parse().unwrap());
            in_turn(found).iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(turns(&["[::1]", "[::2]", "[::3]", "1.1.1.1"]), ["::1", "1.1.1.1", "::2", "::3"]);
        assert_eq!(turns(&["1.1.1.1", "2.2.2.2", "[::1]"]), ["1.1.1.1", "::1", "2.2.2.2"]);
        assert_eq!(turns(&["[::1]"]), ["::1"]);
        assert_eq!(turns(&[]), [""; 0]);
    }
}
