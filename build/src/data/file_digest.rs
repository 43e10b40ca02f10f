//! The SHA-256 of a data file, found without computing it where the file is of a known set.
//!
//! BLAKE3 takes a tenth of the time of SHA-256 on processors without instructions for that, and a quarter with them. Nobody
//! knows two contents with the same hash of either kind, so a file with the BLAKE3 of a known file has its SHA-256 too.
//!
//! Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn: BLAKE3: one function, fast everywhere, 2020.

use super::sets::{MNIST, SYNTHETIC, SetKind};
use crate::sha256::Sha256;

/// The BLAKE3 of each file of known sets, in hexadecimal, in the order of [`SetKind::files`].
static KNOWN: [(&SetKind, [&str; 4]); 2] = [
    (
        &MNIST,
        [
            "c6e6fd8c67d07c8a9b7bffa7dd0413ff4b8af241607b049b7721107f379df9fd",
            "8ebcfdf2fe191516f9cb37fceb75d2d19289d91ee92026534ed45e44144b5642",
            "f8d502322cd9f186e155a74a3dff598ed56c1a7b5a5c8d312749ac47c4a2bec7",
            "6d43ea317fa8f5851bb85404bb7358defd48b0294cf31f60cdcde8106fe2c3ad",
        ],
    ),
    (
        &SYNTHETIC,
        [
            "5f1e718c4024fcc60a408b035188d84b83c46f584db44f0bc3c55289412f91d4",
            "8741185e2eda829267e634d0f98b9efb9c7984f9c0af1d8a40d320fa84c9a09d",
            "36bf69245f94d110b473caccf87c81b34dd4e72c0b4b16d5e887773dfc976b5c",
            "10500770146c0e2448ec521fd08627835537a0aff28cf25b513cad2269b22478",
        ],
    ),
];

/// The known files of `length` bytes: BLAKE3 and SHA-256 of each.
fn known(length: u64) -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = KNOWN.iter().flat_map(|(set, hashes)| set.files.iter().zip(hashes));
    files.filter(move |(file, _)| file.bytes == length).map(|(file, blake3)| (*blake3, file.sha256))
}

/// The SHA-256 of the known file that has `hash`.
fn recognized(hash: &blake3::Hasher) -> Option<&'static str> {
    let found = hash.finalize().to_hex();
    known(hash.count()).find(|(blake3, _)| *blake3 == found.as_str()).map(|(_, sha256)| sha256)
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
        let mut all: Vec<_> = KNOWN.iter().flat_map(|(_, hashes)| hashes).collect();
        all.sort();
        all.dedup();
        assert!(all.len() == 8 && all.iter().all(|hash| hash.len() == 64));
    }
}
