//! The IDX format of MNIST's files: a big-endian header, then one byte per value. No I/O, no panics.
//!
//! Source: "The IDX file format" on <http://yann.lecun.com/exdb/mnist/>: two zero bytes, the type (8: unsigned byte), the
//! number of dimensions, each dimension as a 32-bit number, the values row by row.

/// Length of the longer of the two headers, in bytes.
pub const LONGEST_HEADER: usize = 16;
/// A header with more images than this counts as damaged. MNIST has 60,000.
pub const MOST_IMAGES: u32 = 6_000_000;

const MAGIC_IMAGES: u32 = 0x0000_0803;
const MAGIC_LABELS: u32 = 0x0000_0801;

/// Contents that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdxContents {
    /// (N,side,side) pixels, 0 black, 255 white.
    Images {
        /// Width and height in pixels.
        side: usize,
    },
    /// (N) labels, from 0 to below `classes`.
    Labels {
        /// Number of classes.
        classes: usize,
    },
}

/// The first problem of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum IdxFault {
    /// Shorter than a header.
    #[error("expected an IDX file of at least {header} bytes, found {found}")]
    NoHeader { header: usize, found: u64 },
    /// Another format, or IDX with other contents.
    #[error("expected the magic number {expected:#010x} of IDX {what}, found {found:#010x}{}", described(*found))]
    Magic { what: &'static str, expected: u32, found: u32 },
    /// Images of another size.
    #[error("expected images of {side} x {side} pixels, found {rows} x {columns}")]
    Dimensions { side: usize, rows: u32, columns: u32 },
    /// An impossible number of images or labels.
    #[error("expected 1 to {MOST_IMAGES} {what}, found {found}")]
    Count { what: &'static str, found: u32 },
    /// Shorter than the header says.
    #[error("is truncated: expected {expected} bytes for {count} {what}, found {found}")]
    Truncated { what: &'static str, count: u32, expected: u64, found: u64 },
    /// Longer than the header says.
    #[error("is too long: expected {expected} bytes for {count} {what}, found more")]
    TooLong { what: &'static str, count: u32, expected: u64 },
    /// The label of no class.
    #[error("expected labels from 0 to {last}, found {label} at label {index}")]
    Label { last: usize, label: u8, index: usize },
}

impl IdxFault {
    /// Whether a sound file of another set has this fault, rather than a damaged file.
    pub fn is_another_sets(&self) -> bool {
        matches!(self, Self::Dimensions { .. } | Self::Label { .. })
    }
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

impl IdxContents {
    /// Length of the header in bytes.
    pub fn header_bytes(self) -> usize {
        match self {
            Self::Images { .. } => 16,
            Self::Labels { .. } => 8,
        }
    }

    /// What the file has a number of.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images { .. } => "images",
            Self::Labels { .. } => "labels",
        }
    }

    fn value_bytes(self) -> u64 {
        match self {
            Self::Images { side } => (side * side) as u64,
            Self::Labels { .. } => 1,
        }
    }

    /// Length in bytes of a file with `count` images or labels, header included.
    pub fn file_bytes(self, count: u32) -> u64 {
        self.header_bytes() as u64 + u64::from(count) * self.value_bytes()
    }

    /// Reads the header at the start of `bytes` and returns the number of images or labels that follow.
    ///
    /// # Errors
    /// It is not the header of a file with these contents.
    pub fn read_header(self, bytes: &[u8]) -> Result<u32, IdxFault> {
        let what = self.name();
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let missing = || IdxFault::NoHeader { header: self.header_bytes(), found: bytes.len() as u64 };
        let expected = match self {
            Self::Images { .. } => MAGIC_IMAGES,
            Self::Labels { .. } => MAGIC_LABELS,
        };
        let found = number(0).ok_or_else(missing)?;
        if found != expected {
            return Err(IdxFault::Magic { what, expected, found });
        }
        let count = number(4).ok_or_else(missing)?;
        if let Self::Images { side } = self {
            let (rows, columns) = number(8).zip(number(12)).ok_or_else(missing)?;
            if [rows, columns].map(|found| found as usize) != [side, side] {
                return Err(IdxFault::Dimensions { side, rows, columns });
            }
        }
        if !(1..=MOST_IMAGES).contains(&count) {
            return Err(IdxFault::Count { what, found: count });
        }
        Ok(count)
    }

    /// Checks that a file with `count` images or labels has `found` bytes. A reader that stops one byte after the expected
    /// end passes that length for any longer file.
    ///
    /// # Errors
    /// It is shorter or longer.
    pub fn check_length(self, count: u32, found: u64) -> Result<(), IdxFault> {
        let (what, expected) = (self.name(), self.file_bytes(count));
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => Err(IdxFault::Truncated { what, count, expected, found }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(IdxFault::TooLong { what, count, expected }),
        }
    }

    /// Checks the values behind the header: a label must be that of a class; a pixel may be any byte.
    ///
    /// # Errors
    /// The first label without a class.
    pub fn check_values(self, values: &[u8]) -> Result<(), IdxFault> {
        let Self::Labels { classes } = self else { return Ok(()) };
        match values.iter().position(|&label| usize::from(label) >= classes) {
            None => Ok(()),
            Some(index) => Err(IdxFault::Label { last: classes - 1, label: values[index], index }),
        }
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
    fn encoded_files_are_read_back() {
        let images = IdxContents::Images { side: 5 };
        let file = encode_images(&[7; 3 * 25], 5, 5);
        let count = images.read_header(&file).unwrap();
        assert_eq!(count, 3);
        assert_eq!(images.check_length(count, file.len() as u64), Ok(()));
        let labels = IdxContents::Labels { classes: 4 };
        let file = encode_labels(&[1, 2, 3]);
        assert_eq!(file, [0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(labels.read_header(&file), Ok(3));
        assert_eq!(labels.check_values(&file[8..]), Ok(()));
    }

    #[test]
    fn files_of_another_shape_are_refused() {
        let file = encode_images(&[7; 25], 5, 5);
        let refused = |side| IdxContents::Images { side }.read_header(&file).unwrap_err().to_string();
        assert_eq!(refused(28), "expected images of 28 x 28 pixels, found 5 x 5");
        assert_eq!(refused(4), "expected images of 4 x 4 pixels, found 5 x 5");
        let refused = |classes| IdxContents::Labels { classes }.check_values(&[0, 15, 16, 17]).unwrap_err().to_string();
        assert_eq!(refused(10), "expected labels from 0 to 9, found 15 at label 1");
        assert_eq!(refused(16), "expected labels from 0 to 15, found 16 at label 2");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length: u64) {
            for contents in [IdxContents::Images { side: 28 }, IdxContents::Labels { classes: 10 }] {
                if let Ok(count) = contents.read_header(&bytes) {
                    let _ = contents.check_length(count, length);
                }
                let _ = contents.check_values(&bytes);
            }
        }
    }
}
