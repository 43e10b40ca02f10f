//! How the HTTP client connects. It differs from the client's own way in five points:
//!
//! - The addresses of a host race: see [`socket`].
//! - The client asks every proxy for a tunnel (CONNECT). Many proxies allow tunnels to port 443 alone, so a plain http
//!   URL is sent to its proxy whole, as the target of the request.
//! - An error says whether there was a connection: see [`Unconnected`].
//! - A connection that breaks is an error. The client takes it for the end of an answer without a length.
//! - Answers that only announce another (status 1xx) are skipped, up to a number. The client refuses one with headers, and
//!   reads the others without end.

use std::fmt;
use std::io;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};

use crate::data::download::cause::cause;
use crate::data::download::socket;

/// The start of the first line of every request that this program makes.
const START: &[u8] = b"GET /";
/// How many addresses of a host the client's array holds.
const MOST_ADDRESSES: usize = 16;
/// The start of an answer that announces another.
const ANNOUNCEMENT: &[u8] = b"HTTP/1.1 1";
/// The only answer with 1xx that announces no other: the server goes on in another protocol.
const SWITCH: &[u8] = b"HTTP/1.1 101";
/// How many announcements a server may send.
const MOST_ANNOUNCEMENTS: u32 = 10;

/// An error from before the connection, TLS and tunnel included.
#[derive(Debug)]
pub struct Unconnected(pub Error);

impl std::error::Error for Unconnected {}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error of a server that announces its answer and does not give it.
#[derive(Debug)]
pub struct OnlyAnnounced;

impl std::error::Error for OnlyAnnounced {}

impl fmt::Display for OnlyAnnounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer, only announcements of one (status 1xx)")
    }
}

fn unconnected(error: Error) -> Error {
    match error {
        // Connecting to a proxy is a part of connecting.
        Error::Other(inner) if inner.is::<Unconnected>() => Error::Other(inner),
        error => Error::Other(Box::new(Unconnected(error))),
    }
}

/// Looks up names. Its errors are [`Unconnected`].
#[derive(Debug)]
pub struct LookUp;

impl Resolver for LookUp {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.scheme().zip(uri.authority()).and_then(|(s, a)| DefaultResolver::host_and_port(s, a));
        let host = host.ok_or_else(|| Error::BadUri("a host is missing".to_string()))?;
        let found = socket::look_up(&host, *timeout.after).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => unconnected(Error::Timeout(timeout.reason)),
            _ => unconnected(Error::Io(error)),
        })?;
        let mut addresses = self.empty();
        found.into_iter().take(MOST_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(unconnected(Error::HostNotFound)) } else { Ok(addresses) }
    }
}

/// Connects to the host of a URL, or to the proxy of an http URL.
#[derive(Debug)]
struct Connect<C> {
    /// From the tunnel of a proxy to TLS.
    steps: C,
    /// The client's settings, but without a proxy.
    direct: Config,
}

/// The connector of a client. `direct` are the client's settings, but without a proxy.
pub fn connector(direct: Config) -> impl Connector<Out = Line> {
    let tunnel = ().chain(ConnectProxyConnector::default());
    Connect { steps: tunnel.chain(socket::Race).chain(RustlsConnector::default()), direct }
}

impl<C: Connector> Connect<C> {
    fn line(&self, details: &ConnectionDetails) -> Result<Option<Line>, Error> {
        let proxy = details.config.proxy().filter(|_| details.uri.scheme() == Some(&Scheme::HTTP));
        let (transport, prefix) = match proxy {
            None => (self.steps.connect(details, None)?, None),
            Some(proxy) => {
                let to_proxy = ConnectionDetails {
                    uri: proxy.uri(),
                    addrs: details.resolver.resolve(proxy.uri(), &self.direct, details.timeout)?,
                    resolver: details.resolver,
                    config: &self.direct,
                    request_level: false,
                    now: details.now,
                    timeout: details.timeout,
                    current_time: details.current_time.clone(),
                    run_connector: details.run_connector.clone(),
                    register_shutdown: details.register_shutdown.clone(),
                };
                let authority = details.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                (self.steps.connect(&to_proxy, None)?, Some(format!("http://{host}")))
            }
        };
        Ok(transport.map(|inner| Line { inner: Box::new(inner), prefix, announcements: 0, begun: false }))
    }
}

impl<C: Connector> Connector for Connect<C> {
    type Out = Line;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Line>, Error> {
        self.line(details).map_err(unconnected)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    inner: Box<dyn Transport>,
    /// Scheme and host, to be put before the path in the request to a proxy.
    prefix: Option<String>,
    /// How many announcements have come.
    announcements: u32,
    /// Whether the answer itself has begun.
    begun: bool,
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut amount = amount;
        if let Some(prefix) = self.prefix.take() {
            let output = self.inner.buffers().output();
            let (path, longer) = (START.len() - 1, amount + prefix.len());
            if !output[..amount].starts_with(START) || longer > output.len() {
                return Err(Error::Io(io::Error::other("the request is too long for a proxy")));
            }
            output.copy_within(path..amount, path + prefix.len());
            output[path..path + prefix.len()].copy_from_slice(prefix.as_bytes());
            amount = longer;
        }
        self.inner.transmit_output(amount, timeout).map_err(broken)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let mut more = self.inner.await_input(timeout).map_err(broken)?;
        while more && !self.begun {
            match announcement(self.inner.buffers().input()) {
                None => self.begun = true,
                Some(0) => more = self.inner.await_input(timeout).map_err(broken)?,
                Some(_) if self.announcements == MOST_ANNOUNCEMENTS => {
                    return Err(Error::Other(Box::new(OnlyAnnounced)));
                }
                Some(length) => {
                    self.inner.buffers().input_consume(length);
                    self.announcements += 1;
                }
            }
        }
        Ok(more)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The length of the announcement at the start of `input`, 0 if there may be more of it; `None` if another answer begins.
fn announcement(input: &[u8]) -> Option<usize> {
    let begins = |start: &[u8]| input.iter().zip(start).all(|(found, expected)| found == expected);
    if !begins(ANNOUNCEMENT) || (input.len() >= SWITCH.len() && begins(SWITCH)) {
        return None;
    }
    let mut length = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        length += line.len();
        if line == b"\r\n" || line == b"\n" {
            return Some(length);
        }
    }
    Some(0)
}

/// Hides the kind of an error, by which the client knows the ends of answers; the text stays.
fn broken(error: Error) -> Error {
    match error {
        Error::Timeout(_) => error,
        error => Error::Io(io::Error::other(cause(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketType};
    use ureq::Agent;

    use super::*;

    /// Finds the same addresses for every name.
    #[derive(Debug)]
    struct Known(Vec<SocketAddr>);

    impl Resolver for Known {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut found = self.empty();
            self.0.iter().for_each(|address| found.push(*address));
            Ok(found)
        }
    }

    /// An address of this machine that does not answer: as many connections as fit wait there for somebody to take them.
    fn dead(address: impl Into<std::net::IpAddr>) -> (SocketAddr, Vec<TcpStream>, std::os::fd::OwnedFd) {
        let address = SocketAddr::new(address.into(), 0);
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
        (address, std::iter::from_fn(|| connect().ok()).collect(), socket)
    }

    /// Asks a host with these addresses. Returns the outcome and the time it took.
    fn ask(addresses: Vec<SocketAddr>) -> (Result<u16, Error>, Duration) {
        let config = || Agent::config_builder().proxy(None).timeout_connect(Some(Duration::from_secs(3))).build();
        let agent = Agent::with_parts(config(), connector(config()), Known(addresses));
        let started = Instant::now();
        let outcome = agent.get("http://host.invalid/").call().map(|answer| answer.status().as_u16());
        (outcome, started.elapsed())
    }

    #[test]
    fn addresses_that_do_not_answer_cost_a_quarter_of_a_second_each() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map(Result::unwrap) {
                let _ = io::Read::read(&mut stream, &mut [0; 1000]);
                io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
        });
        let (v4, _queue, _socket) = dead(Ipv4Addr::LOCALHOST);
        let mut silent = vec![v4];
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok().then(|| dead(Ipv6Addr::LOCALHOST));
        match &v6 {
            Some((v6, ..)) => silent.insert(0, *v6),
            None => println!("skipped: an address of IPv6, which this machine lacks"),
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

        let (outcome, elapsed) = ask([&silent[..], &[live]].concat());
        assert_eq!(outcome.unwrap(), 204);
        assert!(elapsed < Duration::from_millis(1000), "{elapsed:?}");
        // One that refuses costs nothing.
        let (outcome, elapsed) = ask(vec![closed, closed, live]);
        assert_eq!(outcome.unwrap(), 204);
        assert!(elapsed < Duration::from_millis(200), "{elapsed:?}");
        let (outcome, elapsed) = ask(vec![closed, closed]);
        assert!(outcome.unwrap_err().to_string().contains("Connection refused"));
        assert!(elapsed < Duration::from_millis(200), "{elapsed:?}");
        // All share the time for a connection.
        let (outcome, elapsed) = ask([&silent[..], &[closed]].concat());
        assert!(matches!(outcome.unwrap_err(), Error::Other(inner) if inner.to_string() == "timeout: connect"));
        assert!(elapsed >= Duration::from_secs(3) && elapsed < Duration::from_millis(3500), "{elapsed:?}");
    }
}
