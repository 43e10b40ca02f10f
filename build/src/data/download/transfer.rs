//! A file that arrives over HTTP: the bytes so far, how to ask for the others, and what an answer means.

use std::fs::File;
use std::io::Seek;
use std::time::Duration;

use ureq::http::StatusCode;
use ureq::http::header::{self, HeaderMap, HeaderName};
use url::Url;

use crate::data::download::client::{Head, Headers};
use crate::data::download::content::{Content, Wrong};
use crate::data::download::fault::{Again, MirrorFault, Stop};
use crate::data::download::mirror::shown;
use crate::data::sets::SourceFile;
use crate::error::{Error, Result};
use crate::files::AtomicFile;

/// Compressed bytes that any file may have besides its own: headers, checksums.
const ALLOWANCE_BYTES: u64 = 64 * 1024;

/// A file that arrives, perhaps in several answers.
pub struct Transfer<'a> {
    /// The file.
    pub file: SourceFile,
    /// Where the file comes from.
    pub url: &'a Url,
    part: &'a mut AtomicFile,
    /// The bytes so far, decompressed.
    pub content: Content<File>,
    /// Bytes received, as sent (compressed).
    pub offset: u64,
    /// Bytes that the server will send in all, if it says so.
    pub total: Option<u64>,
    /// The server's mark of this version of the file, for If-Range.
    version: Option<String>,
    /// Whether `content` comes from more than one answer.
    resumed: bool,
}

impl<'a> Transfer<'a> {
    /// Begins to receive `file` from `url` into `part`.
    ///
    /// # Errors
    /// `part` cannot be opened a second time.
    pub fn begin(file: SourceFile, url: &'a Url, part: &'a mut AtomicFile) -> Result<Self> {
        let content = Content::new(file, handle(part)?);
        Ok(Self { file, url, part, content, offset: 0, total: None, version: None, resumed: false })
    }

    /// Drops all bytes received so far.
    fn restart(&mut self) -> Result<()> {
        self.content = Content::new(self.file, handle(self.part)?);
        // Only now: the old content wrote its last decompressed bytes when it was dropped.
        let file = self.part.as_file_mut();
        file.set_len(0).and_then(|()| file.rewind()).map_err(Error::io("write", self.part.target()))?;
        (self.offset, self.total, self.version, self.resumed) = (0, None, None, false);
        Ok(())
    }

    /// The headers of a request for the missing bytes.
    pub fn headers(&self) -> Headers {
        // The file is compressed already. Compressing it again would only cost time.
        let mut headers = vec![(header::ACCEPT_ENCODING, "identity".to_string())];
        if self.offset > 0 {
            headers.push((header::RANGE, format!("bytes={}-", self.offset)));
            headers.extend(self.version.clone().map(|version| (header::IF_RANGE, version)));
        }
        headers
    }

    /// Reads the start of an answer and prepares for its bytes.
    ///
    /// # Errors
    /// The answer does not bring the missing bytes.
    pub fn accept(&mut self, head: &Head) -> std::result::Result<(), Stop> {
        let status = head.status;
        let resuming = self.offset > 0;
        match status {
            StatusCode::OK => {
                if resuming {
                    self.restart()?; // the server cannot resume, or now has another version: all bytes come again
                }
                self.total = head.length;
                self.version = version(&head.headers);
                Ok(())
            }
            StatusCode::PARTIAL_CONTENT if resuming && first_byte(&head.headers) == Some(self.offset) => {
                self.resumed = true;
                Ok(())
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resuming => {
                let answer = format!("{status} without the bytes from {} on", self.offset);
                self.restart()?;
                Err(MirrorFault::new(Again::Often, answer).into())
            }
            _ => {
                let answer = format!("{status}{}", self.redirected(head));
                let temporary = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                let mut fault = MirrorFault::new(if temporary { Again::Often } else { Again::Never }, answer);
                fault.wait = retry_after(&head.headers);
                Err(fault.into())
            }
        }
    }

    /// Where a redirect has led, for messages.
    fn redirected(&self, head: &Head) -> String {
        let to = shown(&head.url);
        if to == shown(self.url) { String::new() } else { format!(" (redirected to {to})") }
    }

    /// Takes the next bytes of the answer that began with `head`.
    ///
    /// # Errors
    /// They cannot be those of the file, or cannot be written.
    pub fn receive(&mut self, bytes: &[u8], head: &Head) -> std::result::Result<(), Stop> {
        self.offset += bytes.len() as u64;
        // No compression doubles the size. An endless stream may decompress to nothing.
        let endless = self.offset > 2 * self.file.bytes + ALLOWANCE_BYTES;
        let taken = if endless { Err(Wrong::TooLong(self.file.bytes)) } else { self.content.push(bytes) };
        taken.map_err(|wrong| self.wrong(wrong, head))
    }

    /// Whether all bytes have come and are the file: the SHA-256 decides, not how the connection ends.
    pub fn is_whole(&mut self) -> bool {
        self.content.finish().is_ok()
    }

    /// Checks the file, after the end of the answer that began with `head`.
    ///
    /// # Errors
    /// The bytes received are not the file.
    pub fn finish(&mut self, head: &Head) -> std::result::Result<(), Stop> {
        self.content.finish().map_err(|wrong| self.wrong(wrong, head))
    }

    fn wrong(&mut self, wrong: Wrong, head: &Head) -> Stop {
        let answer = match wrong {
            Wrong::Write(error) => return Error::io("write", self.part.target())(error).into(),
            // Without a length, a broken connection looks like the end of the answer.
            Wrong::Cut { .. } if self.total.is_none() && self.offset > 0 => {
                return MirrorFault::new(Again::Once, wrong.to_string()).into();
            }
            Wrong::Foreign(_) if is_html(&head.headers) => Wrong::Html.to_string(),
            wrong => wrong.to_string(),
        };
        let fault = MirrorFault::new(Again::Never, format!("{answer}{}", self.redirected(head)));
        if !self.resumed {
            return fault.into();
        }
        // The answers may be of two versions of the file. One answer alone may be right.
        match self.restart() {
            Ok(()) => MirrorFault::new(Again::Often, fault.answer).into(),
            Err(error) => error.into(),
        }
    }
}

/// A second handle of the temporary file, at the same position.
fn handle(part: &mut AtomicFile) -> Result<File> {
    part.as_file_mut().try_clone().map_err(Error::io("write", part.target()))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// The mark by which the server knows a version of the file. A weak ETag (`W/`) does not promise equal bytes.
fn version(headers: &HeaderMap) -> Option<String> {
    let strong = text(headers, header::ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or_else(|| text(headers, header::LAST_MODIFIED)).map(str::to_string)
}

/// FIRST of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// The seconds of Retry-After. Its other form, a date, is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, header::RETRY_AFTER)?.parse().ok().map(Duration::from_secs)
}

fn is_html(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}
