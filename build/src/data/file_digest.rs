//! The SHA-256 of a data file, found without computing it where the file is of a known set.
//!
//! BLAKE3 takes a tenth of the time of SHA-256 on processors without instructions for that, and a quarter with them. Nobody
//! knows two contents with the same hash of either kind, so a file with the BLAKE3 of a known file has its SHA-256 too.
//!
//! Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn: BLAKE3: one function, fast everywhere, 2020.

use super::sets::{SETS, SourceFile};
use crate::sha256::Sha256;

/// The files of `length` bytes of known sets.
fn known(length: u64) -> impl Iterator<Item = &'static SourceFile> {
    SETS.iter().flat_map(|set| &set.files).filter(move |file| file.bytes == length)
}

/// The SHA-256 of the known file that has `hash`.
fn recognized(hash: &blake3::Hasher) -> Option<&'static str> {
    let found = hash.finalize().to_hex();
    known(hash.count()).find(|file| file.blake3 == found.as_str()).map(|file| file.sha256)
}

/// The SHA-256 of a known file with these bytes, found by its BLAKE3.
pub fn sha256_of_known(bytes: &[u8]) -> Option<&'static str> {
    recognized(blake3::Hasher::new().update(bytes))
}

/// The hash of a file that is read piece by piece.
pub struct FileDigest(Hash);

enum Hash {
    /// Of a file that may be known by its length.
    Blake3(Box<blake3::Hasher>),
    Sha256(Box<Sha256>),
}

impl FileDigest {
    /// That of nothing so far, for a file of `length` bytes.
    pub fn new(length: u64) -> Self {
        Self(match known(length).next() {
            Some(_) => Hash::Blake3(Box::default()),
            None => Hash::Sha256(Box::new(Sha256::new())),
        })
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hash::Blake3(hash) => _ = hash.update(bytes),
            Hash::Sha256(hash) => hash.update(bytes),
        }
    }

    /// SHA-256 of all bytes so far, in hexadecimal; they are those of `pieces`, one after the other.
    pub fn sha256(self, pieces: [&[u8]; 2]) -> String {
        match self.0 {
            Hash::Sha256(hash) => hash.finish(),
            Hash::Blake3(hash) => match recognized(&hash) {
                Some(sha256) => sha256.into(),
                None => {
                    let mut hash = Sha256::new();
                    pieces.into_iter().for_each(|piece| hash.update(piece));
                    hash.finish()
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sets::MNIST;
    use crate::sha256;

    fn digest(length: u64, pieces: [&[u8]; 2]) -> String {
        let mut digest = FileDigest::new(length);
        pieces.into_iter().for_each(|piece| digest.update(piece));
        digest.sha256(pieces)
    }

    #[test]
    fn unknown_files_have_their_sha256_whatever_their_length() {
        let bytes: Vec<u8> = (0..MNIST.files[3].bytes).map(|at| (at % 251) as u8).collect();
        for length in [bytes.len(), 100] {
            let (first, rest) = bytes[..length].split_at(8);
            assert_eq!(digest(length as u64, [first, rest]), sha256::of(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn every_known_file_has_hashes_of_its_own() {
        let mut all: Vec<_> = SETS.iter().flat_map(|set| &set.files).map(|file| file.blake3).collect();
        all.sort();
        all.dedup();
        assert!(all.len() == 8 && all.iter().all(|hash| hash.len() == 64));
    }
}
