//! A file on its way over HTTP: what is there of it, how to ask for the rest, and what an answer means.

use std::fs::File;
use std::io::Seek;
use std::time::Duration;

use reqwest::header::{self, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::data::download::content::{Content, Wrong};
use crate::data::download::mirror::shown;
use crate::data::sets::SourceFile;
use crate::error::{Error, Result};
use crate::files::AtomicFile;

/// Compressed bytes that any file may have besides its own: headers, checksums.
const ALLOWANCE_BYTES: u64 = 64 * 1024;

/// A file on its way: what is there of it and how to go on.
pub struct Transfer<'a> {
    file: SourceFile,
    pub url: &'a Url,
    part: &'a mut AtomicFile,
    pub content: Content<File>,
    /// Bytes received, as sent (compressed).
    pub offset: u64,
    /// Bytes that the server will send in all, if it says so.
    pub total: Option<u64>,
    /// The server's mark of this very version of the file, for If-Range.
    version: Option<HeaderValue>,
    /// Whether `content` comes from more than one answer.
    resumed: bool,
}

impl<'a> Transfer<'a> {
    /// Nothing is there yet of `file`, which will come from `url` into `part`.
    pub fn begin(file: SourceFile, url: &'a Url, part: &'a mut AtomicFile) -> Result<Self> {
        let content = Content::new(file, handle(part)?);
        Ok(Self { file, url, part, content, offset: 0, total: None, version: None, resumed: false })
    }

    /// Forgets all that came.
    fn restart(&mut self) -> Result<()> {
        self.content = Content::new(self.file, handle(self.part)?);
        // Only now: the old content may have held decompressed bytes back, which it wrote when it was dropped.
        let file = self.part.as_file_mut();
        file.set_len(0).and_then(|()| file.rewind()).map_err(Error::io("write", self.part.target()))?;
        (self.offset, self.total, self.version, self.resumed) = (0, None, None, false);
        Ok(())
    }

    /// The request for what is still missing.
    pub fn request(&self, client: &Client) -> RequestBuilder {
        // The file is compressed already; a proxy that packs it once more would only be in the way.
        let mut request = client.get(self.url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if self.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.offset));
            if let Some(version) = &self.version {
                request = request.header(header::IF_RANGE, version);
            }
        }
        request
    }

    /// Looks at the beginning of an answer and makes ready for its bytes.
    pub fn accept(&mut self, response: &Response) -> std::result::Result<(), Stop> {
        let status = response.status();
        let resuming = self.offset > 0;
        match status {
            StatusCode::OK => {
                if resuming {
                    self.restart()?; // the server cannot resume, or has another version by now: all of it comes again
                }
                self.total = response.content_length();
                self.version = version(response);
                Ok(())
            }
            StatusCode::PARTIAL_CONTENT if resuming && first_byte(response) == Some(self.offset) => {
                self.resumed = true;
                Ok(())
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resuming => {
                let answer = format!("{status} without the bytes from {} on", self.offset);
                self.restart()?;
                Err(Fault::new(Again::Often, answer).into())
            }
            _ => {
                let answer = format!("{status}{}", self.redirected(response));
                let passes = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                let mut fault = Fault::new(if passes { Again::Often } else { Again::Never }, answer);
                fault.wait = retry_after(response);
                Err(fault.into())
            }
        }
    }

    /// Where a redirect has led, for messages.
    fn redirected(&self, response: &Response) -> String {
        let to = shown(response.url());
        if to == shown(self.url) { String::new() } else { format!(" (redirected to {to})") }
    }

    /// Takes the next bytes of an answer.
    pub fn receive(&mut self, piece: &[u8], response: &Response) -> std::result::Result<(), Stop> {
        self.offset += piece.len() as u64;
        // No compression makes a file twice as large: a stream that goes on and on and decompresses to nothing.
        let endless = self.offset > 2 * self.file.bytes + ALLOWANCE_BYTES;
        let taken = if endless { Err(Wrong::TooLong(self.file.bytes)) } else { self.content.push(piece) };
        taken.map_err(|wrong| self.wrong(wrong, response))
    }

    /// Checks what has come, after the end of an answer.
    pub fn finish(&mut self, response: &Response) -> std::result::Result<(), Stop> {
        self.content.finish().map_err(|wrong| self.wrong(wrong, response))
    }

    fn wrong(&mut self, wrong: Wrong, response: &Response) -> Stop {
        let answer = match wrong {
            Wrong::Write(error) => return Error::io("write", self.part.target())(error).into(),
            // Without a length the end of an answer and a broken connection look the same.
            Wrong::Cut { .. } if self.total.is_none() && self.offset > 0 => {
                return Fault::new(Again::Once, wrong.to_string()).into();
            }
            Wrong::Foreign(_) if is_html(response) => Wrong::Html.to_string(),
            wrong => wrong.to_string(),
        };
        let fault = Fault::new(Again::Never, format!("{answer}{}", self.redirected(response)));
        if !self.resumed {
            return fault.into();
        }
        // Perhaps the pieces are of two versions of the file; one answer alone may be right.
        match self.restart() {
            Ok(()) => Fault::new(Again::Often, fault.answer).into(),
            Err(error) => error.into(),
        }
    }
}

/// Why an attempt ended.
pub enum Stop {
    /// What the mirror did.
    Fault(Fault),
    /// The time for any mirror's first answer is over.
    Unanswered,
    /// No mirror can help.
    Run(Error),
}

/// What a mirror answered, for users, and whether asking again may help.
pub struct Fault {
    pub answer: String,
    /// Whether it may help to ask again.
    pub again: Again,
    /// The wait that the server asks for.
    pub wait: Option<Duration>,
}

/// How often a mirror is asked again after the same kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would answer the same.
    Never,
    /// It may be chance, but each attempt takes long.
    Once,
    /// As often as the limits allow.
    Often,
}

impl Fault {
    pub fn new(again: Again, answer: String) -> Self {
        Self { answer, again, wait: None }
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// A second handle of the temporary file, at the same position.
fn handle(part: &mut AtomicFile) -> Result<File> {
    part.as_file_mut().try_clone().map_err(Error::io("write", part.target()))
}

/// The mark by which the server can tell versions of the file apart; a weak one will not do for bytes.
fn version(response: &Response) -> Option<HeaderValue> {
    let strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
    let headers = response.headers();
    headers.get(header::ETAG).filter(strong).or_else(|| headers.get(header::LAST_MODIFIED)).cloned()
}

/// The first byte of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// The seconds of Retry-After; its other form, a date, is left to the back-off.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}
