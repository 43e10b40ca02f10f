//! How the HTTP client connects. It differs from the client's own way in three points:
//!
//! - The client asks every proxy for a tunnel (CONNECT). Many proxies allow tunnels to port 443 alone, so a plain http
//!   URL is sent to its proxy whole, as the target of the request.
//! - An error says whether there was a connection: see [`Unconnected`].
//! - A connection that breaks is an error. The client takes it for the end of an answer without a length.

use std::fmt;
use std::io;
use std::sync::mpsc::sync_channel;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

use crate::threads;

/// The start of the first line of every request that this program makes.
const START: &[u8] = b"GET /";

/// An error from before the connection, TLS and tunnel included.
#[derive(Debug)]
pub struct Unconnected(pub Error);

impl std::error::Error for Unconnected {}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn unconnected(error: Error) -> Error {
    match error {
        // Connecting to a proxy is a part of connecting.
        Error::Other(inner) if inner.is::<Unconnected>() => Error::Other(inner),
        error => Error::Other(Box::new(Unconnected(error))),
    }
}

/// The client's own look-up of names, with its errors as [`Unconnected`]. The client panics if the system starts no thread
/// for it; this one then looks up the name without a timeout.
#[derive(Debug, Default)]
pub struct LookUp;

impl Resolver for LookUp {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let look_up =
            |uri: &Uri, config: &Config| DefaultResolver::default().resolve(uri, config, NextTimeout::default());
        let (sender, receiver) = sync_channel(1);
        let (of, with) = (uri.clone(), config.clone());
        let found = match threads::start(move || _ = sender.send(look_up(&of, &with))) {
            Err(_) => look_up(uri, config),
            Ok(()) => receiver.recv_timeout(*timeout.after).unwrap_or(Err(Error::Timeout(timeout.reason))),
        };
        found.map_err(unconnected)
    }
}

/// Connects to the host of a URL, or to the proxy of an http URL.
#[derive(Debug)]
pub struct Connect {
    connector: DefaultConnector,
    /// The client's settings, but without a proxy.
    direct: Config,
}

impl Connect {
    /// Connects with the settings `direct`, which name no proxy.
    pub fn new(direct: Config) -> Self {
        Self { connector: DefaultConnector::new(), direct }
    }

    fn line(&self, details: &ConnectionDetails) -> Result<Option<Line>, Error> {
        let proxy = details.config.proxy().filter(|_| details.uri.scheme() == Some(&Scheme::HTTP));
        let (transport, prefix) = match proxy {
            None => (self.connector.connect(details, None)?, None),
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
                (self.connector.connect(&to_proxy, None)?, Some(format!("http://{host}")))
            }
        };
        Ok(transport.map(|inner| Line { inner, prefix }))
    }
}

impl Connector<()> for Connect {
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
        self.inner.await_input(timeout).map_err(broken)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Hides the kind of an error, by which the client knows the ends of answers; the text stays.
fn broken(error: Error) -> Error {
    match error {
        Error::Io(error) if error.kind() != io::ErrorKind::TimedOut => Error::Io(io::Error::other(error.to_string())),
        error => error,
    }
}
