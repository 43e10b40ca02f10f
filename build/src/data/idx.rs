//! The IDX format of MNIST's files: a big-endian header, then one byte a value. No I/O, no panics.
//!
//! Source: "The IDX file format" on <http://yann.lecun.com/exdb/mnist/>: two zero bytes, the type (8: unsigned byte), the
//! number of dimensions, each dimension as a 32-bit number, the values row by row.

use crate::model::PIXELS;

/// The longest header of the two kinds, in bytes.
pub const LONGEST_HEADER: usize = 16;
/// More images than this are taken for a damaged header; 100 times MNIST.
pub const MOST_IMAGES: u32 = 6_000_000;

const MAGIC_IMAGES: u32 = 0x0000_0803;
const MAGIC_LABELS: u32 = 0x0000_0801;
const SIDE: u32 = 28;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// (N,28,28) pixels, 0 black, 255 white.
    Images,
    /// (N) digits.
    Labels,
}

/// What is wrong with an IDX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum Fault {
    /// Shorter than a header.
    #[error("expected an IDX file of at least {header} bytes, found {found}")]
    NoHeader { header: usize, found: u64 },
    /// Not IDX, or IDX of something else.
    #[error("expected the magic number {expected:#010x} of IDX {what}, found {found:#010x}{}", described(*found))]
    Magic { what: &'static str, expected: u32, found: u32 },
    /// Images of another size.
    #[error("expected images of 28 x 28 pixels, found {rows} x {columns}")]
    Dimensions { rows: u32, columns: u32 },
    /// A number of images that no such file has.
    #[error("expected 1 to {MOST_IMAGES} {what}, found {found}")]
    Count { what: &'static str, found: u32 },
    /// The header promises more than there is.
    #[error("is truncated: expected {expected} bytes for {count} {what}, found {found}")]
    Truncated { what: &'static str, count: u32, expected: u64, found: u64 },
    /// There is more than the header promises.
    #[error("is too long: expected {expected} bytes for {count} {what}, found more")]
    TooLong { what: &'static str, count: u32, expected: u64 },
    /// Not a digit.
    #[error("expected labels from 0 to 9, found {label} at label {index}")]
    Label { label: u8, index: usize },
}

fn described(magic: u32) -> &'static str {
    match magic {
        MAGIC_IMAGES => " (images)",
        MAGIC_LABELS => " (labels)",
        _ if magic >> 16 == 0x1f8b => " (gzip: expected a name that ends in .gz)",
        _ if magic >> 24 == u32::from(b'<') => " (an HTML page?)",
        _ => "",
    }
}

impl Kind {
    /// The header's length in bytes.
    pub fn header_bytes(self) -> usize {
        match self {
            Kind::Images => 16,
            Kind::Labels => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Images => "images",
            Kind::Labels => "labels",
        }
    }

    fn value_bytes(self) -> u64 {
        match self {
            Kind::Images => PIXELS as u64,
            Kind::Labels => 1,
        }
    }

    /// The whole file's length in bytes for `count` images or labels.
    pub fn file_bytes(self, count: u32) -> u64 {
        self.header_bytes() as u64 + u64::from(count) * self.value_bytes()
    }

    /// Reads a header: how many images or labels follow.
    ///
    /// # Errors
    /// `bytes` does not begin with the header of such a file of 28 x 28 images or their labels.
    pub fn read_header(self, bytes: &[u8]) -> Result<u32, Fault> {
        let what = self.name();
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let missing = || Fault::NoHeader { header: self.header_bytes(), found: bytes.len() as u64 };
        let expected = match self {
            Kind::Images => MAGIC_IMAGES,
            Kind::Labels => MAGIC_LABELS,
        };
        let found = number(0).ok_or_else(missing)?;
        if found != expected {
            return Err(Fault::Magic { what, expected, found });
        }
        let count = number(4).ok_or_else(missing)?;
        if self == Kind::Images {
            let (rows, columns) = number(8).zip(number(12)).ok_or_else(missing)?;
            if (rows, columns) != (SIDE, SIDE) {
                return Err(Fault::Dimensions { rows, columns });
            }
        }
        if !(1..=MOST_IMAGES).contains(&count) {
            return Err(Fault::Count { what, found: count });
        }
        Ok(count)
    }

    /// Checks that a file with `count` images or labels has `found` bytes (one more than it must have stands for any
    /// number of them).
    ///
    /// # Errors
    /// It is shorter or longer.
    pub fn check_length(self, count: u32, found: u64) -> Result<(), Fault> {
        let (what, expected) = (self.name(), self.file_bytes(count));
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => Err(Fault::Truncated { what, count, expected, found }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(Fault::TooLong { what, count, expected }),
        }
    }
}

/// Checks that every label is a digit.
///
/// # Errors
/// The first that is not.
pub fn check_labels(labels: &[u8]) -> Result<(), Fault> {
    match labels.iter().position(|&label| label > 9) {
        None => Ok(()),
        Some(index) => Err(Fault::Label { label: labels[index], index }),
    }
}

/// An IDX file of `images` (N, rows, columns).
pub fn encode_images(images: &[u8], rows: u32, columns: u32) -> Vec<u8> {
    let count = images.len() as u32 / (rows * columns);
    let header = [MAGIC_IMAGES, count, rows, columns].map(u32::to_be_bytes);
    [header.as_flattened(), images].concat()
}

/// An IDX file of `labels` (N).
pub fn encode_labels(labels: &[u8]) -> Vec<u8> {
    let header = [MAGIC_LABELS, labels.len() as u32].map(u32::to_be_bytes);
    [header.as_flattened(), labels].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let file = encode_images(&[7; 3 * PIXELS], 28, 28);
        let count = Kind::Images.read_header(&file).unwrap();
        assert_eq!(count, 3);
        assert_eq!(Kind::Images.check_length(count, file.len() as u64), Ok(()));
        let file = encode_labels(&[1, 2, 3]);
        assert_eq!(file, [0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(Kind::Labels.read_header(&file), Ok(3));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length: u64) {
            for kind in [Kind::Images, Kind::Labels] {
                if let Ok(count) = kind.read_header(&bytes) {
                    let _ = kind.check_length(count, length);
                }
            }
            let _ = check_labels(&bytes);
        }
    }
}
