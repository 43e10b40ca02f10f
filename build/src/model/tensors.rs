//! Safetensors files of this program: how models and snapshots are read, which may be damaged or hostile, and written.
//!
//! The metadata entry `mnist` holds JSON that describes the tensors. It is the only entry, since the format fixes no order
//! of several, and equal runs must give equal bytes. In what [`write`] writes it ends with a SHA-256: that of the
//! description before it and of the tensors. Format: <https://github.com/huggingface/safetensors#format>.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::sha256::Sha256;
use crate::text::different_hashes;

/// The name of the metadata entry.
pub(crate) const ENTRY: &str = "mnist";
/// Bytes at the start of a file that say how long the header is. The header's length is a multiple of as many.
const LENGTH_BYTES: usize = 8;
/// Values that are read or written at once.
const PIECE: usize = 4096;
/// What stands before and after the SHA-256 at the end of a description.
const HASH: (&str, &str) = (",\"sha256\":\"", "\"}");
/// A description without a kind is a model's.
const MODEL: &str = "model";

/// Why a file is not what it should be.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// Its contents are wrong: the end of a sentence that begins with its name.
    Wrong(String),
    /// Its contents are of a later version: the same.
    Newer(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Wrong(problem)
    }
}

/// The header of a file: what it says of itself, and where its tensors are.
#[derive(Debug)]
pub(crate) struct Header {
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    data: u64,
}

/// Whether a file that begins with these bytes has a description, or had one before it was damaged.
pub(crate) fn begin_described(begin: &[u8]) -> bool {
    let entry = format!("\"{ENTRY}\":");
    begin.windows(entry.len()).any(|window| window == entry.as_bytes())
}

/// The part of every description that says how to read the others.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
    format_version: Option<u64>,
    program_version: Option<String>,
}

impl Header {
    /// Reads the header, of at most `longest` bytes, of a file of `length` bytes. It is checked, against that length too,
    /// before memory is taken for the tensors: a sparse file takes no disk.
    pub(crate) fn read(from: &mut impl Read, length: u64, longest: u64) -> Result<Self, Fault> {
        let wrong = |error: SafeTensorError| Fault::Wrong(format!("is not a safetensors file: {error}"));
        if length < LENGTH_BYTES as u64 {
            return Err(wrong(SafeTensorError::HeaderTooSmall));
        }
        let mut bytes = [0; LENGTH_BYTES];
        from.read_exact(&mut bytes)?;
        let header_bytes = u64::from_le_bytes(bytes);
        if header_bytes > longest {
            return Err(wrong(SafeTensorError::HeaderTooLarge));
        }
        let data = LENGTH_BYTES as u64 + header_bytes;
        if data > length {
            return Err(wrong(SafeTensorError::InvalidHeaderLength));
        }
        let mut bytes = vec![0; header_bytes as usize];
        from.read_exact(&mut bytes)?;
        let metadata: Metadata = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        match (metadata.data_len() as u64).checked_add(data) {
            Some(end) if end == length => Ok(Self { metadata, data }),
            _ => Err(wrong(SafeTensorError::MetadataIncompleteBuffer)),
        }
    }

    /// The description, which must be of this kind and version; a `thing` says so in messages.
    pub(crate) fn describe<T: DeserializeOwned>(&self, kind: &str, version: u32, thing: &str) -> Result<T, Fault> {
        let text = (self.metadata.metadata().as_ref().and_then(|metadata| metadata.get(ENTRY)))
            .ok_or_else(|| format!("expected the metadata entry `{ENTRY}` of {thing}, found none"))?;
        let unreadable = |e: serde_json::Error| format!("cannot read the metadata entry `{ENTRY}`: {e}");
        let Kind { kind: found, format_version, program_version } = serde_json::from_str(text).map_err(unreadable)?;
        let found = found.as_deref().unwrap_or(MODEL);
        if found != kind {
            let found = crate::text::shortened(found);
            return Err(format!("expected the metadata entry `{ENTRY}` of {thing}, found that of a {found}").into());
        }
        let found = format_version
            .ok_or_else(|| format!("expected a format_version in the metadata entry `{ENTRY}`, found none"))?;
        let expected = format!("expected format_version {version}, found {found}");
        if found > u64::from(version) {
            let writer = program_version.map(|version| crate::text::shortened(&version));
            return Err(Fault::Newer(match writer {
                Some(writer) => format!("{expected}, written by version {writer} of this program"),
                None => format!("{expected}: was it written by a newer program?"),
            }));
        } else if found < u64::from(version) {
            return Err(expected.into());
        }
        Ok(serde_json::from_str(text).map_err(unreadable)?)
    }

    /// Checks the description and the tensors in `from` against the SHA-256 at the description's end.
    pub(crate) fn check_hash(&self, from: &mut (impl Read + Seek)) -> Result<(), Fault> {
        let text = self.metadata.metadata().as_ref().and_then(|metadata| metadata.get(ENTRY));
        let parts = text.and_then(|text| text.strip_suffix(HASH.1)?.rsplit_once(HASH.0));
        let (description, expected) = parts
            .ok_or_else(|| format!("expected a SHA-256 at the end of the metadata entry `{ENTRY}`, found none"))?;
        let mut hash = Sha256::new();
        hash.update(description);
        from.seek(SeekFrom::Start(self.data))?;
        let mut piece = [0; 4 * PIECE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => hash.update(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let found = hash.finish();
        match found == expected {
            true => Ok(()),
            false => Err(format!("is damaged: {}", different_hashes(expected, &found)).into()),
        }
    }

    /// How many tensors there are.
    pub(crate) fn count(&self) -> usize {
        self.metadata.offset_keys().len()
    }

    /// The length of the tensor `name`, if there is one and it has one dimension.
    pub(crate) fn length(&self, name: &str) -> Option<usize> {
        self.metadata.info(name).and_then(|tensor| <[usize; 1]>::try_from(tensor.shape.as_slice()).ok()).map(|[n]| n)
    }

    /// Where the values of the tensor `name` begin, which must have this shape.
    pub(crate) fn place(&self, name: &str, shape: &[usize]) -> Result<u64, String> {
        let tensor = self.metadata.info(name).ok_or_else(|| format!("expected a tensor {name}, found none"))?;
        if (tensor.dtype, tensor.shape.as_slice()) != (Dtype::F32, shape) {
            return Err(format!("{name}: expected F32 {shape:?}, found {:?} {:?}", tensor.dtype, tensor.shape));
        }
        Ok(self.data + tensor.data_offsets.0 as u64)
    }
}

/// Calls `each` with the `count` values at `place` and their numbers.
pub(crate) fn read_values(
    from: &mut (impl Read + Seek),
    place: u64,
    count: usize,
    mut each: impl FnMut(usize, f32),
) -> io::Result<()> {
    from.seek(SeekFrom::Start(place))?;
    let mut piece = [0; 4 * PIECE];
    for begin in (0..count).step_by(PIECE) {
        let values = PIECE.min(count - begin);
        from.read_exact(&mut piece[..4 * values])?;
        let (values, _) = piece[..4 * values].as_chunks::<4>();
        values.iter().enumerate().for_each(|(at, bytes)| each(begin + at, f32::from_le_bytes(*bytes)));
    }
    Ok(())
}

/// Writes a file with this description, a JSON object, and these tensors, each of one dimension, without a copy of them all.
pub(crate) fn write(to: &mut impl Write, description: &str, tensors: &[(String, &[f32])]) -> io::Result<()> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, values)| {
        let begin = end;
        end += size_of_val(*values);
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: vec![values.len()], data_offsets: (begin, end) })
    });
    let description = description.strip_suffix('}').unwrap_or_else(|| unreachable!("an object ends with a brace"));
    let mut hash = Sha256::new();
    hash.update(description);
    in_pieces(tensors, |piece| {
        hash.update(piece);
        Ok(())
    })?;
    let description = format!("{description}{}{}{}", HASH.0, hash.finish(), HASH.1);
    let metadata = Metadata::new(Some(HashMap::from([(ENTRY.to_string(), description)])), infos.collect())
        .unwrap_or_else(|e| unreachable!("the tensors lie side by side: {e}"));
    let mut header = serde_json::to_vec(&metadata).unwrap_or_else(|e| unreachable!("plain fields become JSON: {e}"));
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    in_pieces(tensors, |piece| to.write_all(piece))
}

/// Calls `each` with the bytes of `tensors`, some at a time.
fn in_pieces(tensors: &[(String, &[f32])], mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = [0; 4 * PIECE];
    for values in tensors.iter().flat_map(|(_, values)| values.chunks(PIECE)) {
        let bytes = &mut piece[..4 * values.len()];
        put_bytes(values, bytes);
        each(bytes)?;
    }
    Ok(())
}

/// Puts the bytes of `values` into `bytes`, as all files of this program have them: little-endian.
pub fn put_bytes(values: &[f32], bytes: &mut [u8]) {
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
}
