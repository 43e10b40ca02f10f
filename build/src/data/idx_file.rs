//! An IDX file, plain or gzipped: its header first, then its values. A set's headers are judged together before any values
//! are read, and memory for values is taken as they arrive: a small file may promise much.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::file_digest::FileDigest;
use super::idx::{IdxContents, IdxFault, LONGEST_HEADER};
use crate::error::{Error, Result};
use crate::memory;
use crate::open;
use crate::simd::huge_pages;
use crate::threads;

/// A byte of a gzip file becomes at most so many: deflate's shortest code of 2 bits stands for 258 bytes.
const MOST_PER_GZIP_BYTE: u64 = 1032;
/// Memory that is taken for the first values of a gzip file. It is doubled whenever it is full.
const FIRST_BYTES: usize = 1 << 20;

/// Bytes of a plain file that are read, then hashed, at once: few enough for a second-level cache.
const PIECE_BYTES: usize = 1 << 19;

/// An open IDX file whose header is sound.
pub struct IdxFile {
    path: PathBuf,
    contents: IdxContents,
    header: Vec<u8>,
    /// The number of images or labels.
    pub count: u32,
    zipped: bool,
    reader: Box<dyn Read + Send>,
}

/// The values of a file, without its header.
pub struct Values {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub sha256: String,
}

impl IdxFile {
    /// Opens the file and reads its header. The file's length must fit it.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub fn open(path: &Path, contents: IdxContents) -> Result<Self> {
        let file = open::regular(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let zipped = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read + Send> =
            if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
        let header = Vec::with_capacity(LONGEST_HEADER);
        let mut file = Self { path: path.to_path_buf(), contents, header, count: 0, zipped, reader };

        let read = file.reader.by_ref().take(contents.header_bytes() as u64).read_to_end(&mut file.header);
        read.map_err(|source| file.unreadable(source))?;
        file.count = contents.read_header(&file.header).map_err(|fault| file.fault(&fault))?;
        let least = contents.file_bytes(file.count).div_ceil(MOST_PER_GZIP_BYTE);
        if zipped && length < least {
            let problem =
                format!("expected at least {least} bytes for {} {}, found {length}", file.count, contents.name());
            return Err(Error::Gzip { path: file.path, problem });
        }
        if !zipped {
            contents.check_length(file.count, length).map_err(|fault| file.fault(&fault))?;
        }
        Ok(file)
    }

    /// Reads and checks the values.
    ///
    /// # Errors
    /// They cannot be read, are fewer or more than the header says, or not all allowed.
    pub fn values(mut self) -> Result<Values> {
        let mut digest = FileDigest::new(self.contents.file_bytes(self.count));
        digest.update(&self.header);
        let bytes = if self.zipped { self.unzip(&mut digest) } else { self.read(&mut digest) }?;
        let length = (self.header.len() + bytes.len()) as u64;
        self.contents.check_length(self.count, length).map_err(|fault| self.fault(&fault))?;
        self.contents.check_values(&bytes).map_err(|fault| self.fault(&fault))?;
        let sha256 = digest.sha256([&self.header, &bytes]);
        Ok(Values { bytes, sha256 })
    }

    /// How many bytes of values the file should have.
    fn expected(&self) -> usize {
        (self.contents.file_bytes(self.count) - self.header.len() as u64) as usize
    }

    /// The bytes after the header of a plain file, at most one more than expected, to notice a file that is too long. Each
    /// piece goes into `digest` while the next is read.
    fn read(&mut self, digest: &mut FileDigest) -> Result<Vec<u8>> {
        let mut bytes = memory::zeroed(self.expected() + 1, &self.path.display().to_string())?;
        huge_pages(bytes.as_ptr_range());
        let is_long = bytes.len() > PIECE_BYTES;
        let pieces = bytes.chunks_mut(PIECE_BYTES);
        let read_all = |into_digest: &mut dyn FnMut(_)| {
            let mut read = 0;
            for piece in pieces {
                let length = fill(&mut self.reader, piece)?;
                read += length;
                into_digest(&piece[..length]);
                if length < piece.len() {
                    break;
                }
            }
            Ok(read)
        };
        let mut into_digest = |piece: &[u8]| digest.update(piece);
        let read = if is_long { threads::one_ahead(read_all, into_digest) } else { read_all(&mut into_digest) };
        bytes.truncate(read.map_err(|source| self.unreadable(source))?);
        Ok(bytes)
    }

    /// [`read`](Self::read) for a gzip file.
    fn unzip(&mut self, digest: &mut FileDigest) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let left = self.expected() + 1 - bytes.len();
            let next = left.min(bytes.len().max(FIRST_BYTES));
            memory::reserve(&mut bytes, next, &self.path.display().to_string())?;
            let read = self.reader.by_ref().take(next as u64).read_to_end(&mut bytes);
            if read.map_err(|source| self.unreadable(source))? < next || next == left {
                break;
            }
        }
        digest.update(&bytes);
        Ok(bytes)
    }

    /// Checks that `self` has as many images as `labels` has labels.
    ///
    /// # Errors
    /// It has more or fewer.
    pub fn check_pair(&self, labels: &Self) -> Result<()> {
        if self.count == labels.count {
            return Ok(());
        }
        let (images_path, labels_path) = (self.path.clone(), labels.path.clone());
        Err(Error::CountsDiffer { images_path, images: self.count, labels_path, labels: labels.count })
    }

    fn fault(&self, fault: &IdxFault) -> Error {
        let (path, problem) = (self.path.clone(), fault.to_string());
        if fault.is_another_sets() { Error::OtherSet { path, problem } } else { Error::Idx { path, problem } }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        if !self.zipped {
            return Error::io("read", &self.path)(source);
        }
        let problem = match source.to_string() {
            // That of a member after the first.
            text if text == "invalid gzip header" && !self.header.is_empty() => {
                "bytes follow the compressed data that are not gzip".into()
            }
            text => text,
        };
        Error::Gzip { path: self.path.clone(), problem }
    }
}

/// Fills `piece` from `reader`, as far as it goes. Returns how many bytes there were.
fn fill(reader: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::sha256;

    #[test]
    fn long_files_are_read_and_hashed_in_pieces_whether_plain_or_zipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let labels: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at % 10) as u8).collect();
        let file = super::super::idx::encode_labels(&labels);
        std::fs::write(path("plain"), &file).unwrap();
        let mut zipped = GzEncoder::new(std::fs::File::create(path("zipped.gz")).unwrap(), Compression::fast());
        zipped.write_all(&file).unwrap();
        zipped.finish().unwrap();
        for name in ["plain", "zipped.gz"] {
            let values = IdxFile::open(&path(name), IdxContents::Labels { classes: 10 }).unwrap().values().unwrap();
            assert!(values.bytes == labels, "{name}");
            assert_eq!(values.sha256, sha256::of(&file), "{name}");
        }
    }

    #[test]
    fn a_file_that_changes_after_its_length_was_checked_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels");
        let labels = vec![1; 3 * PIECE_BYTES];
        for (length, problem) in [(PIECE_BYTES, "is truncated"), (labels.len() + 100, "is too long")] {
            std::fs::write(&path, super::super::idx::encode_labels(&labels)).unwrap();
            let opened = IdxFile::open(&path, IdxContents::Labels { classes: 10 }).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
            let error = opened.values().err().unwrap().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
