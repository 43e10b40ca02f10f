//! Which model a file in MODEL_DIR was made from: each holds the SHA-256 of `model.safetensors` after [`MODEL_SHA256`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::files::set;
use crate::output::artifact::MODEL_SHA256;

/// The hash is in the first or the last bytes of a file, this many.
const WINDOW: u64 = 1 << 16;
/// Hexadecimal digits of a hash.
const DIGITS: usize = 64;

/// The SHA-256 of the model that the file `name` in `model_dir` was made from. None without one, or if it cannot be read.
pub fn model_sha256(model_dir: &Path, name: &str) -> Option<String> {
    set::open(model_dir, name).ok().and_then(hash_in)
}

/// The SHA-256 of the model that `file` was made from.
pub fn hash_in(mut file: File) -> Option<String> {
    let length = file.metadata().ok()?.len();
    let mut ends = Vec::with_capacity(length.min(WINDOW) as usize);
    file.by_ref().take(WINDOW).read_to_end(&mut ends).ok()?;
    let found = find(&ends);
    if found.is_some() || length <= WINDOW {
        return found;
    }
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW).max(WINDOW))).ok()?;
    file.take(WINDOW).read_to_end(&mut ends).ok()?;
    find(&ends)
}

/// The hash after [`MODEL_SHA256`]; what stands between the two is the format's.
fn find(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(MODEL_SHA256.len()).position(|window| window == MODEL_SHA256.as_bytes())?;
    let after = &bytes[at + MODEL_SHA256.len()..];
    // At most 14 bytes are between them, in HTML.
    let begin = (0..20).find(|&begin| {
        after
            .get(begin..begin + DIGITS)
            .is_some_and(|digits| digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    })?;
    after.get(begin..begin + DIGITS).map(|digits| String::from_utf8_lossy(digits).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_found_in_every_format() {
        let hash = "0123456789abcdef".repeat(4);
        for text in [
            format!("{{\n  \"{MODEL_SHA256}\": \"{hash}\",\n"),
            format!("# {MODEL_SHA256}: {hash}\n"),
            format!("<meta name=\"{MODEL_SHA256}\" content=\"{hash}\">"),
            format!("\n\x0c{MODEL_SHA256}\x12\x40{hash}"),
        ] {
            assert_eq!(find(text.as_bytes()).as_deref(), Some(&*hash), "{text}");
        }
        assert_eq!(find(b"optimizer: adam"), None);
        assert_eq!(find(format!("{MODEL_SHA256}: none").as_bytes()), None);
    }

    #[test]
    fn the_end_of_a_long_file_is_searched_too() {
        let dir = tempfile::tempdir().unwrap();
        let hash = "ab".repeat(32);
        for filling in [0, 65_000, 70_000, 140_000] {
            let path = dir.path().join("file");
            std::fs::write(&path, ".".repeat(filling) + &format!("{MODEL_SHA256} {hash}")).unwrap();
            assert_eq!(hash_in(File::open(&path).unwrap()), Some(hash.clone()), "{filling}");
        }
    }
}
