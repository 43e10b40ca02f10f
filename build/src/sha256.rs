//! SHA-256 of files and texts, in hexadecimal.
//!
//! By ring, which the TLS of downloads has brought already: on processors without instructions for it, its code is about
//! twice as fast as portable code.

use std::fmt;

use ring::digest::{Context, SHA256, digest};

use crate::text::hexadecimal;

/// A hash that grows by pieces.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// That of nothing.
    #[expect(clippy::new_without_default, reason = "the hash of nothing is no default of anything")]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// The hash of all bytes so far: 64 digits.
    pub fn finish(self) -> String {
        hexadecimal(self.0.finish().as_ref())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Sha256({})", self.clone().finish())
    }
}

/// The hash of `bytes`: 64 digits.
pub fn of(bytes: impl AsRef<[u8]>) -> String {
    hexadecimal(digest(&SHA256, bytes.as_ref()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FIPS 180-4, in "SHA-256 Example (One-Block Message)".
    #[test]
    fn the_standards_example_in_one_and_in_two_pieces() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of("abc"), expected);
        let mut hash = Sha256::new();
        hash.update("a");
        hash.update("bc");
        assert_eq!(hash.finish(), expected);
    }
}
