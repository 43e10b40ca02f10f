//! A small HTTP/1.1 server (and proxy) on this machine that misbehaves on demand and records its requests.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How one request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The file, with an ETag; honours Range and If-Range.
    File(Vec<u8>),
    /// The whole file, ignoring Range.
    Whole(Vec<u8>),
    /// The file without a Content-Length, then the end of the connection; honours Range.
    NoLength(Vec<u8>),
    /// As `NoLength`, but the connection ends after so many bytes.
    NoLengthCut(Vec<u8>, usize),
    /// As `File`, but the connection is reset after so many bytes.
    ResetAfter(Vec<u8>, usize),
    /// As `File`, but nothing more comes after so many bytes.
    HangAfter(Vec<u8>, usize),
    /// As `File`, but in pieces of so many bytes, each after a wait.
    Trickle(Vec<u8>, usize, Duration),
    /// A part that begins one byte before the requested range.
    WrongPart(Vec<u8>),
    /// Headers and nothing else.
    Status(u16, &'static str, Vec<(&'static str, String)>),
    /// A body of some type.
    Typed(&'static str, Vec<u8>),
    /// These bytes, head included, then the end of the connection.
    Raw(Vec<u8>),
    /// No answer at all.
    Hang,
}

impl Reply {
    /// A status without headers of its own.
    pub fn status(code: u16, reason: &'static str) -> Self {
        Self::Status(code, reason, Vec::new())
    }

    /// A redirect.
    pub fn redirect(to: impl Into<String>) -> Self {
        Self::Status(302, "Found", vec![("Location", to.into())])
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The second word of its first line: a path, or a whole URL if this server is used as a proxy.
    pub target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The path, without the host if this is a proxy.
    fn path(&self) -> &str {
        match self.target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => &self.target,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Replies still to be given by path; the last one is given again and again.
    replies: Mutex<HashMap<String, Vec<Reply>>>,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// The server; it stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts on a free port. Every path is answered with 404 until [`Server::on`] sets a reply.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let server = Self { address, shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                // A client that goes away early is no concern of the server.
                thread::spawn(move || stream.and_then(|stream| answer(stream, &shared)).ok());
            }
        });
        server
    }

    /// Sets how requests for `path` are answered, one after the other; the last reply stays.
    pub fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        let replies = replies.into_iter().collect();
        self.shared.replies.lock().unwrap().insert(path.to_string(), replies);
        self
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes it up
    }
}

/// Reads one request, answers it, closes the connection.
fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let request = read_request(&mut stream)?;
    shared.requests.lock().unwrap().push(request.clone());
    let reply = {
        let mut replies = shared.replies.lock().unwrap();
        match replies.get_mut(request.path()) {
            Some(queue) if queue.len() > 1 => queue.remove(0),
            Some(queue) => queue[0].clone(),
            None => Reply::status(404, "Not Found"),
        }
    };
    match send(&mut stream, &request, &reply)? {
        // Once everything is read, closing the connection does not reset it.
        Then::Close => stream.read_exact(&mut [0]),
        // A reset also discards bytes that the client has not read yet.
        Then::Reset => {
            thread::sleep(Duration::from_millis(50));
            Ok(())
        }
        Then::Hang => {
            while !shared.stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
    }
}

/// Reads the head of a request but for its last byte: a socket closed with bytes unread resets the connection.
fn read_request(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text.lines();
    let target = lines.next().unwrap_or("").split(' ').nth(1).unwrap_or("").to_string();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Ok(Request { target, headers })
}

/// How a connection ends after its reply.
enum Then {
    Close,
    Reset,
    Hang,
}

/// Sends `reply`.
fn send(stream: &mut TcpStream, request: &Request, reply: &Reply) -> std::io::Result<Then> {
    let with_length = !matches!(reply, Reply::NoLength(_) | Reply::NoLengthCut(..));
    match reply {
        Reply::File(file) | Reply::NoLength(file) => send_part(stream, request, file, with_length, usize::MAX)?,
        Reply::NoLengthCut(file, bytes) | Reply::ResetAfter(file, bytes) | Reply::HangAfter(file, bytes) => {
            send_part(stream, request, file, with_length, *bytes)?;
        }
        Reply::Whole(file) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len())?;
            stream.write_all(file)?;
        }
        Reply::Trickle(file, bytes, wait) => {
            let (head, body) = part(request, file, true);
            stream.write_all(head.as_bytes())?;
            for piece in body.chunks(*bytes) {
                thread::sleep(*wait);
                stream.write_all(piece)?;
            }
        }
        Reply::WrongPart(file) => {
            let from = asked_from(request).unwrap_or(1) - 1;
            let (last, total) = (file.len() - 1, file.len());
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{total}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                total - from
            )?;
            stream.write_all(&file[from..])?;
        }
        Reply::Status(code, reason, headers) => {
            write!(stream, "HTTP/1.1 {code} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n")?;
            headers.iter().try_for_each(|(key, value)| write!(stream, "{key}: {value}\r\n"))?;
            stream.write_all(b"\r\n")?;
        }
        Reply::Typed(kind, body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")?;
            stream.write_all(body)?;
        }
        Reply::Raw(bytes) => stream.write_all(bytes)?,
        Reply::Hang => {}
    }
    Ok(match reply {
        Reply::ResetAfter(..) => Then::Reset,
        Reply::HangAfter(..) | Reply::Hang => Then::Hang,
        _ => Then::Close,
    })
}

/// Sends the requested part of `file`, at most `bytes` of it.
fn send_part(
    stream: &mut TcpStream,
    request: &Request,
    file: &[u8],
    with_length: bool,
    bytes: usize,
) -> std::io::Result<()> {
    let (head, body) = part(request, file, with_length);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body[..bytes.min(body.len())])
}

/// The head of an answer and the requested bytes. See [`etag`].
fn part<'a>(request: &Request, file: &'a [u8], with_length: bool) -> (String, &'a [u8]) {
    let tag = etag(file);
    let same = request.header("If-Range").is_none_or(|asked| asked == tag);
    let (mut head, body) = match asked_from(request) {
        Some(from) if same && from < file.len() => {
            let range = format!("bytes {from}-{}/{}", file.len() - 1, file.len());
            (format!("HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\n"), &file[from..])
        }
        Some(_) if same => return ("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".into(), &[]),
        _ => ("HTTP/1.1 200 OK\r\n".to_string(), file),
    };
    if with_length {
        head += &format!("Content-Length: {}\r\nETag: {tag}\r\n", body.len());
    }
    (head + "Connection: close\r\n\r\n", body)
}

/// The ETag that the server gives a file.
pub fn etag(file: &[u8]) -> String {
    format!("\"{}-{:?}\"", file.len(), file.last())
}

/// N of `Range: bytes=N-`.
fn asked_from(request: &Request) -> Option<usize> {
    request.header("Range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}
