//! How the HTTP client connects. It differs from the client's own way in four points:
//!
//! - The client asks every proxy for a tunnel (CONNECT). Many proxies allow tunnels to port 443 alone, so a plain http
//!   URL is sent to its proxy whole, as the target of the request.
//! - An error says whether there was a connection: see [`Unconnected`].
//! - A connection that breaks is an error. The client takes it for the end of an answer without a length.
//! - A server may announce its answer only so often, by others with a status of 1xx. The client reads these without end.

use std::fmt;
use std::io;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

/// The start of the first line of every request that this program makes.
const START: &[u8] = b"GET /";
/// The start of an answer that announces another.
const ANNOUNCEMENT: &[u8] = b"HTTP/1.1 1";
/// The most announcements. One that arrives in parts counts more than once.
const MOST_ANNOUNCEMENTS: usize = 8;

/// An error from before the connection, TLS and tunnel included.
#[derive(Debug)]
pub struct Unconnected(pub Error);

impl std::error::Error for Unconnected {}

/// The error of a server that announces its answer and does not give it.
#[derive(Debug)]
pub struct OnlyAnnounced;

impl std::error::Error for OnlyAnnounced {}

impl fmt::Display for OnlyAnnounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer, only announcements of one (status 1xx)")
    }
}

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

/// The client's own look-up of names, with its errors as [`Unconnected`].
#[derive(Debug, Default)]
pub struct LookUp(DefaultResolver);

impl Resolver for LookUp {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.0.resolve(uri, config, timeout).map_err(unconnected)
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
        Ok(transport.map(|inner| Line { inner, prefix, announcements: 0 }))
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
    /// Announcements so far.
    announcements: usize,
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
        let progress = self.inner.await_input(timeout).map_err(broken)?;
        let input = self.inner.buffers().input();
        if input.starts_with(ANNOUNCEMENT) {
            self.announcements += input.windows(ANNOUNCEMENT.len()).filter(|bytes| *bytes == ANNOUNCEMENT).count();
            if self.announcements > MOST_ANNOUNCEMENTS {
                return Err(Error::Other(Box::new(OnlyAnnounced)));
            }
        }
        Ok(progress)
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
