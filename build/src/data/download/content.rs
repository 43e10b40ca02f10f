//! The contents of one of the four files as they arrive: decompressed if they are gzip, counted, hashed and written, in
//! one pass.
//!
//! Bytes are pushed in pieces of any size, from a disk or a network. So a broken transfer can be resumed where it
//! stopped. Memory holds only the decoder's window.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use crate::data::sets::SourceFile;
use crate::sha256::Sha256;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// IDX begins with two zero bytes and the type of its elements: 8, unsigned bytes.
const IDX_MAGIC: [u8; 3] = [0, 0, 8];
/// Bytes needed to recognize the format. An IDX header has at least 8, a gzip stream at least 18.
const HEAD_BYTES: usize = 8;

/// Why bytes are not the wanted file.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// A page of a captive portal, a proxy or an error handler, served in place of the file.
    #[error("an HTML page instead of the file")]
    Html,
    /// Neither gzip nor IDX.
    #[error("neither gzip nor IDX: it begins with {}", bytes_in_hex(.0))]
    Foreign(Vec<u8>),
    /// The gzip stream is damaged.
    #[error("corrupt gzip after {found} of {expected} decompressed bytes")]
    Corrupt {
        /// Bytes decompressed so far.
        found: u64,
        /// Bytes that the file has.
        expected: u64,
    },
    /// The bytes end too early.
    #[error("cut short: {found} of {expected} decompressed bytes")]
    Cut {
        /// Bytes decompressed so far.
        found: u64,
        /// Bytes that the file has.
        expected: u64,
    },
    /// More bytes than the file has, perhaps without end. Decompression stopped there.
    #[error("longer than the {0} bytes that the file has")]
    TooLong(u64),
    /// The size is right, but the contents are wrong.
    #[error("wrong hash: expected SHA-256 {expected}, found {found}")]
    Hash {
        /// The file's SHA-256, in hexadecimal.
        expected: &'static str,
        /// The SHA-256 of these bytes.
        found: String,
    },
    /// The bytes cannot be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
}

/// One of the four files as it arrives. Decompressed bytes go to `W`.
#[derive(Debug)]
pub struct Content<W: Write> {
    wanted: SourceFile,
    /// The first bytes, until there are enough to recognize the format.
    head: Vec<u8>,
    form: Form<W>,
    /// The gzip stream has ended and the file is complete. Further bytes are ignored.
    ended: bool,
}

#[derive(Debug)]
enum Form<W: Write> {
    Unknown(Option<Sink<W>>),
    Plain(Sink<W>),
    Gzip(Box<MultiGzDecoder<Sink<W>>>),
}

impl<W: Write> Content<W> {
    /// Begins to receive `wanted`. Its decompressed bytes go to `out`.
    pub fn new(wanted: SourceFile, out: W) -> Self {
        let sink = Sink { out, hash: Sha256::new(), bytes: 0, limit: wanted.bytes, overflow: false, failure: None };
        Self { wanted, head: Vec::with_capacity(HEAD_BYTES), form: Form::Unknown(Some(sink)), ended: false }
    }

    /// Decompressed bytes so far.
    pub fn bytes(&self) -> u64 {
        match &self.form {
            Form::Unknown(_) => 0,
            Form::Plain(sink) => sink.bytes,
            Form::Gzip(decoder) => decoder.get_ref().bytes,
        }
    }

    /// Whether the bytes are gzip.
    pub fn is_gzip(&self) -> bool {
        matches!(self.form, Form::Gzip(_))
    }

    /// Whether further bytes would be ignored.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They cannot be the wanted file, or cannot be written. After an error the content is useless.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        if self.ended {
            return Ok(());
        }
        if let Form::Unknown(_) = self.form {
            self.head.extend_from_slice(bytes);
            if self.head.len() < HEAD_BYTES {
                return Ok(());
            }
            let head = std::mem::take(&mut self.head);
            self.recognize(&head)?;
            return self.decode(&head);
        }
        self.decode(bytes)
    }

    /// Ends the content, and checks that it is the wanted file.
    ///
    /// Bytes after a gzip stream are ignored, as gunzip does. So is a missing or wrong checksum at its end: the SHA-256
    /// of the contents is the stricter test.
    ///
    /// # Errors
    /// It is not the wanted file. If only bytes are missing, they may still be pushed.
    pub fn finish(&mut self) -> Result<(), Wrong> {
        if let Form::Unknown(_) = self.form {
            let head = &self.head;
            let cut = Wrong::Cut { found: 0, expected: self.wanted.bytes };
            return Err(if head.starts_with(&GZIP_MAGIC) || head.is_empty() { cut } else { foreign(head) });
        }
        if let Form::Gzip(decoder) = &mut self.form {
            // The decoder's own error (a missing or wrong checksum) is ignored, see above.
            let _ = decoder.flush();
        }
        let expected = self.wanted.bytes;
        let sink = match &mut self.form {
            Form::Plain(sink) => sink,
            Form::Gzip(decoder) => decoder.get_mut(),
            Form::Unknown(_) => return Err(Wrong::Cut { found: 0, expected }),
        };
        if let Some(failure) = sink.failure.take() {
            return Err(Wrong::Write(failure));
        }
        if sink.overflow {
            return Err(Wrong::TooLong(expected));
        }
        if sink.bytes < expected {
            return Err(Wrong::Cut { found: sink.bytes, expected });
        }
        let found = sink.hash.clone().finish();
        if found != self.wanted.sha256 {
            return Err(Wrong::Hash { expected: self.wanted.sha256, found });
        }
        Ok(())
    }

    fn recognize(&mut self, head: &[u8]) -> Result<(), Wrong> {
        if let Form::Unknown(sink) = &mut self.form
            && let Some(sink) = sink.take()
        {
            self.form = if head.starts_with(&GZIP_MAGIC) {
                Form::Gzip(Box::new(MultiGzDecoder::new(sink)))
            } else if head.starts_with(&IDX_MAGIC) {
                Form::Plain(sink)
            } else {
                return Err(foreign(head));
            };
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let (outcome, sink) = match &mut self.form {
            Form::Unknown(_) => return Ok(()),
            Form::Plain(sink) => (sink.write_all(bytes), sink),
            Form::Gzip(decoder) => (decoder.write_all(bytes), decoder.get_mut()),
        };
        let expected = self.wanted.bytes;
        match outcome {
            Ok(()) => Ok(()),
            Err(_) if sink.failure.is_some() => sink.failure.take().map_or(Ok(()), |e| Err(Wrong::Write(e))),
            Err(_) if sink.overflow => Err(Wrong::TooLong(expected)),
            // The file is complete: these bytes follow the gzip stream.
            Err(_) if sink.bytes == expected => {
                self.ended = true;
                Ok(())
            }
            Err(_) => Err(Wrong::Corrupt { found: sink.bytes, expected }),
        }
    }
}

/// Counts, hashes and writes decompressed bytes, but never more than the file has.
#[derive(Debug)]
struct Sink<W: Write> {
    out: W,
    hash: Sha256,
    bytes: u64,
    limit: u64,
    overflow: bool,
    /// The error of `out`, kept apart from the errors of the decoder.
    failure: Option<io::Error>,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.overflow || self.failure.is_some() || self.bytes + bytes.len() as u64 > self.limit {
            self.overflow |= self.failure.is_none();
            return Err(io::Error::other("no more bytes are wanted"));
        }
        if let Err(error) = self.out.write_all(bytes) {
            self.failure = Some(error);
            return Err(io::Error::other("the bytes cannot be written"));
        }
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn foreign(head: &[u8]) -> Wrong {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let html = [&b"<!doctype"[..], b"<html", b"<head", b"<!--", b"<?xml"].iter().any(|start| {
        let length = start.len().min(text.len());
        length > 1 && text[..length].eq_ignore_ascii_case(&start[..length])
    });
    if html { Wrong::Html } else { Wrong::Foreign(head[..head.len().min(HEAD_BYTES)].to_vec()) }
}

/// `1f 8b 08`
fn bytes_in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::sha256;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// 5000 bytes that begin as IDX does.
    fn idx() -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 1];
        bytes.extend((0..4996u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
        bytes
    }

    fn receive(bytes: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let sha256 = Box::leak(sha256::of(idx()).into_boxed_str());
        let mut out = Vec::new();
        let mut content = Content::new(SourceFile { name: "idx", bytes: 5000, sha256, blake3: "" }, &mut out);
        bytes.chunks(piece).try_for_each(|piece| content.push(piece)).map_err(|e| e.to_string())?;
        content.finish().map_err(|e| e.to_string())?;
        drop(content);
        Ok(out)
    }

    #[test]
    fn every_way_to_send_the_file_in_pieces_of_any_size() {
        let whole = gzip(&idx());
        let members = [gzip(&idx()[..700]), gzip(&idx()[700..])].concat();
        let followed = [&whole[..], b"something else, which gunzip ignores too"].concat();
        let bad_checksum = [&whole[..whole.len() - 8], &[0; 8]].concat();
        let no_checksum = whole[..whole.len() - 8].to_vec();
        for bytes in [idx(), whole, members, followed, bad_checksum, no_checksum] {
            for piece in [1, 2, 7, 64, 1000, 1 << 20] {
                assert!(receive(&bytes, piece) == Ok(idx()), "{} bytes in pieces of {piece}", bytes.len());
            }
        }
    }

    #[test]
    fn every_way_to_send_something_else() {
        let whole = gzip(&idx());
        let longer = [&idx()[..], b"1"].concat();
        let mut corrupt = whole.clone();
        corrupt[20..40].fill(0xff);
        let mut other = idx();
        other[4999] ^= 1;
        let hash = |bytes: &[u8]| sha256::of(bytes);
        let wrong = format!("wrong hash: expected SHA-256 {}, found {}", hash(&idx()), hash(&other));
        let cases: [(&[u8], &str); 13] = [
            (b"", "cut short: 0 of 5000 decompressed bytes"),
            (&whole[..4], "cut short: 0 of 5000 decompressed bytes"),
            (&whole[..12], "cut short: 0 of 5000 decompressed bytes"),
            (&idx()[..4999], "cut short: 4999 of 5000 decompressed bytes"),
            (&longer, "longer than the 5000 bytes that the file has"),
            (&gzip(&longer), "longer than the 5000 bytes that the file has"),
            (&gzip(&[0; 10_000_000]), "longer than the 5000 bytes that the file has"),
            (&[whole.clone(), gzip(b"1")].concat(), "longer than the 5000 bytes that the file has"),
            (&gzip(&other), &wrong),
            (&other, &wrong),
            (b" \n<!DOCTYPE html><html>Please log in</html>", "an HTML page instead of the file"),
            (b"<HTML><body>Please log in</body></html>", "an HTML page instead of the file"),
            (b"{\"error\": 1}", "neither gzip nor IDX: it begins with 7b 22 65 72 72 6f 72 22"),
        ];
        for (bytes, expected) in cases {
            for piece in [64, 1000, 1 << 20] {
                assert_eq!(receive(bytes, piece).unwrap_err(), expected, "in pieces of {piece}");
            }
        }
        let message = receive(&corrupt, 100).unwrap_err();
        assert!(message.starts_with("corrupt gzip after "), "{message}");
    }

    #[test]
    fn a_full_disk_is_not_the_fault_of_the_bytes() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut content = Content::new(SourceFile { name: "idx", bytes: 5000, sha256: "", blake3: "" }, Full);
        let error = content.push(&gzip(&idx())).and_then(|()| content.finish()).unwrap_err();
        assert!(matches!(&error, Wrong::Write(e) if e.kind() == io::ErrorKind::StorageFull), "{error}");
    }
}
