//! The HTTP client: each request in a thread of its own, whose answer comes through a channel.
//!
//! Nothing interrupts a thread that looks up a name or waits for a connection. The thread at the other end of the
//! channel can stop waiting at any time. The thread of the request then ends by its timeouts.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{CONTROLS, percent_decode_str, percent_encode};
use ureq::config::Config;
use ureq::http::header::{self, HeaderMap, HeaderName};
use ureq::http::{Request, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, BodyReader, Proxy};
use url::Url;

use crate::data::download::cause::{cause, of_tls};
use crate::data::download::connection::{LookUp, OnlyAnnounced, Unconnected, connector};
use crate::data::download::fault::{Again, MirrorFault};
use crate::data::download::mirror::shown;
use crate::data::download::proxy::Proxies;
use crate::threads;

const MOST_REDIRECTS: usize = 10;
/// Bytes read from a connection at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that the channel holds.
const PIECES: usize = 4;

/// The headers of a request, besides those that the client adds.
pub type Headers = Vec<(HeaderName, String)>;

/// The start of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The number of bytes that follow, if the server says it.
    pub length: Option<u64>,
    /// The URL that answered: after a redirect, the last one.
    pub url: Url,
}

/// The parts of an answer, in the order in which they come.
#[derive(Debug)]
pub enum Part {
    /// There is no answer.
    Failed(MirrorFault),
    Head(Head),
    Bytes(Vec<u8>),
    /// The connection broke, for this reason.
    Broken(String),
    End,
}

/// Where the parts of an answer come from.
pub enum Parts {
    /// Another thread.
    There(Receiver<Part>),
    /// This one. The client's own timeouts end a wait then, and no other.
    Here(Box<Answer>),
}

impl Parts {
    /// The next part.
    ///
    /// # Errors
    /// It does not come within `wait`, or there is none any more.
    pub fn next(&mut self, wait: Duration) -> std::result::Result<Part, RecvTimeoutError> {
        match self {
            Self::There(receiver) => receiver.recv_timeout(wait),
            Self::Here(answer) => answer.next().ok_or(RecvTimeoutError::Disconnected),
        }
    }
}

/// A request, then the parts of its answer.
pub struct Answer {
    client: Arc<Client>,
    request: Option<(Url, Headers)>,
    reader: Option<BodyReader<'static>>,
}

impl Iterator for Answer {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if let Some((url, headers)) = self.request.take() {
            return Some(match self.client.follow(url, &headers) {
                Ok((head, body)) => {
                    self.reader = Some(body.into_reader());
                    Part::Head(head)
                }
                Err(fault) => Part::Failed(fault),
            });
        }
        let mut piece = vec![0; PIECE_BYTES];
        let part = match self.reader.as_mut()?.read(&mut piece) {
            Ok(0) => Part::End,
            Ok(count) => {
                piece.truncate(count);
                return Some(Part::Bytes(piece));
            }
            Err(error) => Part::Broken(cause(&error.into())),
        };
        self.reader = None;
        Some(part)
    }
}

/// The client that all files share.
#[derive(Debug)]
pub struct Client {
    proxies: Proxies,
    /// One for each proxy, and one that connects directly.
    agents: Vec<(Option<Url>, Agent)>,
    connect: Duration,
}

impl Client {
    /// Sets up the client. It trusts the certificates of this system, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    /// `connect` is the time for a name's look-up, and again for a connection; `idle` for one read or write.
    pub fn new(connect: Duration, idle: Duration) -> Arc<Self> {
        let proxies = Proxies::read(|name| std::env::var_os(name));
        let config = |proxy| config(proxy, connect, idle);
        let agent = |proxy| Agent::with_parts(config(proxy), connector(config(None)), LookUp);
        let mut agents = vec![(None, agent(None))];
        for url in proxies.all() {
            agents.extend(Proxy::new(url.as_str()).ok().map(|proxy| (Some(url.clone()), agent(Some(proxy)))));
        }
        Arc::new(Self { proxies, agents, connect })
    }

    /// Asks for `url`, in another thread where the system starts one.
    pub fn get(self: &Arc<Self>, url: &Url, headers: &Headers) -> Parts {
        let answer = || Answer { client: self.clone(), request: Some((url.clone(), headers.clone())), reader: None };
        let (sender, receiver) = sync_channel(PIECES);
        let mut there = answer();
        // If nobody receives the parts any more, the rest is not read.
        let sent = threads::start(move || _ = there.try_for_each(|part| sender.send(part).ok()));
        match sent {
            Ok(()) => Parts::There(receiver),
            Err(error) => {
                threads::refused(&error.to_string());
                Parts::Here(Box::new(answer()))
            }
        }
    }

    /// Asks for `url` and follows redirects, unless one leads in a circle, too far, or out of https.
    fn follow(&self, url: Url, headers: &Headers) -> std::result::Result<(Head, Body), MirrorFault> {
        let mut visited = vec![url];
        loop {
            let url = &visited[visited.len() - 1];
            let (parts, body) = self.request(url, headers)?.into_parts();
            if parts.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && self.proxies.for_url(url)?.is_some() {
                return Err(self.refusal(parts.status, url));
            }
            let Some(next) = redirect(parts.status, &parts.headers, url) else {
                let head = Head {
                    status: parts.status,
                    headers: parts.headers,
                    length: body.content_length(),
                    url: url.clone(),
                };
                return Ok((head, body));
            };
            let (to, from) = (shown(&next), url.scheme());
            let refused = if visited.contains(&next) {
                format!("redirected in a circle, back to {to}")
            } else if visited.len() > MOST_REDIRECTS {
                format!("redirected more than {MOST_REDIRECTS} times, lastly to {to}")
            } else if next.scheme() == "https" || (next.scheme() == "http" && from == "http") {
                visited.push(next);
                continue;
            } else {
                format!("redirected from {from} to {to}")
            };
            return Err(MirrorFault::new(Again::Never, refused));
        }
    }

    /// One request to one server.
    fn request(&self, url: &Url, headers: &Headers) -> std::result::Result<Response<Body>, MirrorFault> {
        let proxy = self.proxies.for_url(url)?;
        let mut request = Request::get(url.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(login) = login(url) {
            request = request.header(header::AUTHORIZATION, login);
        }
        // For a tunnel, the client sends it itself.
        if let Some(login) = proxy.filter(|_| url.scheme() == "http").and_then(login) {
            request = request.header(header::PROXY_AUTHORIZATION, login);
        }
        let wrong = |error: ureq::http::Error| MirrorFault::new(Again::Never, format!("cannot be asked: {error}"));
        let request = request.body(()).map_err(wrong)?;
        let agent =
            self.agents.iter().find(|(of, _)| of.as_ref() == proxy).map_or(&self.agents[0].1, |(_, agent)| agent);
        agent.run(request).map_err(|error| self.fault(error, url))
    }

    /// An error from before an answer.
    fn fault(&self, error: ureq::Error, url: &Url) -> MirrorFault {
        let proxy = self.through(url);
        let error = match error {
            ureq::Error::Other(inner) if inner.is::<Unconnected>() => inner,
            ureq::Error::Other(inner) if inner.is::<OnlyAnnounced>() => {
                return MirrorFault::new(Again::Never, inner.to_string());
            }
            error => {
                let answer = format!("connection broken before an answer: {}{proxy}", cause(&error));
                return MirrorFault::new(Again::Often, answer);
            }
        };
        let Some(Unconnected(error)) = error.downcast_ref() else { unreachable!("just tested") };
        let cause = cause(error);
        match error {
            ureq::Error::Timeout(_) => {
                MirrorFault::new(Again::Never, format!("no connection within {:?}{proxy}", self.connect))
            }
            ureq::Error::ConnectProxyFailed(text) => match status(text) {
                Some(status) => self.refusal(status, url),
                None => MirrorFault::new(Again::Once, format!("no answer from the proxy{proxy}")),
            },
            error if of_tls(error).is_some() => {
                MirrorFault::new(Again::Never, format!("no secure connection: {cause}{proxy}"))
            }
            _ => MirrorFault::new(Again::Once, format!("cannot connect: {cause}{proxy}")),
        }
    }

    /// A proxy that does not pass the request on.
    fn refusal(&self, status: StatusCode, url: &Url) -> MirrorFault {
        let mut answer = format!("the proxy answers {status}{}", self.through(url));
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(login) = self.proxies.wanted_login(url)
        {
            answer += &format!("; {login}");
        }
        MirrorFault::new(if status.is_server_error() { Again::Once } else { Again::Never }, answer)
    }

    /// The settings of the proxy on the way to `url`, for messages.
    fn through(&self, url: &Url) -> String {
        self.proxies.described(url).map(|settings| format!(" ({settings})")).unwrap_or_default()
    }
}

/// The status in the client's text about a proxy that refuses a tunnel: `proxy server responded 403/403`.
fn status(text: &str) -> Option<StatusCode> {
    StatusCode::from_bytes(text.rsplit_once('/')?.1.as_bytes()).ok()
}

fn config(proxy: Option<Proxy>, connect: Duration, idle: Duration) -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .user_agent(concat!("mnist/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy)
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_per_read(Some(idle))
        .timeout_per_write(Some(idle))
        .build()
}

/// Where a redirect leads. The user and password of `from` go along to the same server.
fn redirect(status: StatusCode, headers: &HeaderMap, from: &Url) -> Option<Url> {
    if ![301, 302, 303, 307, 308].contains(&status.as_u16()) {
        return None;
    }
    // Some servers send letters beyond ASCII as they are.
    let location = percent_encode(headers.get(header::LOCATION)?.as_bytes(), CONTROLS).to_string();
    let mut to = from.join(&location).ok()?;
    if to.origin() == from.origin() && to.username().is_empty() && to.password().is_none() {
        // These fail only for URLs without a host.
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    Some(to)
}

/// The user and password in a URL, as a header's value.
fn login(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut login: Vec<u8> = percent_decode_str(url.username()).collect();
    login.push(b':');
    login.extend(percent_decode_str(url.password().unwrap_or_default()));
    Some(format!("Basic {}", BASE64.encode(login)))
}
