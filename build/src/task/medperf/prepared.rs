//! Prepared data: MNIST's test pair as plain IDX files, images and labels in directories of their own, so that a model
//! never sees a label. Beside the labels lies the SHA-256 of their images, as `sha256sum` writes it.

use std::path::Path;

use crate::data::idx::{IdxContents, encode_images, encode_labels};
use crate::data::idx_file::{IdxFile, Values};
use crate::data::sets::{DataSource, MNIST, SETS};
use crate::error::{Error, MedPerfError, Result};
use crate::files::AtomicFile;
use crate::open;
use crate::sha256;
use crate::text::{Problem, different_hashes};

/// The file of the images.
pub const IMAGES: &str = "t10k-images-idx3-ubyte";
/// The file of the labels.
pub const LABELS: &str = "t10k-labels-idx1-ubyte";
/// The file beside the labels that says which images they are of.
pub const HASH: &str = "t10k-images-idx3-ubyte.sha256";
/// A longer one is none.
const LONGEST_HASH: u64 = 1024;

/// The names of the classes (K), by label.
pub fn classes() -> &'static [&'static str] {
    MNIST.classes
}

/// D: the pixels of an image.
pub fn inputs() -> usize {
    MNIST.frame.side * MNIST.frame.side
}

/// What [`IMAGES`] must hold.
pub fn image_contents() -> IdxContents {
    IdxContents::Images { side: MNIST.frame.side }
}

/// What [`LABELS`] must hold.
pub fn label_contents() -> IdxContents {
    IdxContents::Labels { classes: classes().len() }
}

/// The next step after a fault of prepared data.
const NEXT: &str = "prepare the data again with `mnist medperf prepare`";

/// A fault of the prepared file at `path`.
pub fn fault(path: &Path, problem: impl Into<String>) -> Error {
    MedPerfError::Fault { path: path.into(), problem: Problem::of_file(problem), next: NEXT }.into()
}

/// Labels, and which images they are of.
#[derive(Debug)]
pub struct Labels {
    /// (N), each below K.
    pub labels: Vec<u8>,
    /// SHA-256 of the file of the images.
    pub images_sha256: String,
}

/// Writes `pixels` (N,D) into `data`, then `labels` (N) and the hash into `labels_directory`. Returns the hash.
///
/// All files are whole on the disk before the first gets its name. Where there was other prepared data, the hashes of both
/// stand beside the labels until the last has its name, so that nobody takes the one's labels for the other's.
///
/// # Errors
/// A file cannot be written; then the old ones stay, unless it only could not get its name.
pub fn write(data: &Path, labels_directory: &Path, pixels: &[u8], labels: &[u8]) -> Result<String> {
    let side = MNIST.frame.side as u32;
    let images = encode_images(pixels, side, side);
    let sha256 = sha256::of(&images);
    let hashes = labels_directory.join(HASH);
    let line = |sha256: &str| format!("{sha256}  {IMAGES}\n");
    // First the hashes of both, by which [`check_replaced`] knows them, should this process be killed.
    let before = known_hashes(&hashes).into_iter().filter(|before| *before != sha256);
    let both: String = [sha256.clone()].into_iter().chain(before).map(|sha256| line(&sha256)).collect();
    let files = [
        AtomicFile::with_contents(&hashes, both.as_bytes())?,
        AtomicFile::with_contents(data.join(IMAGES), &images)?,
        AtomicFile::with_contents(labels_directory.join(LABELS), &encode_labels(labels))?,
        AtomicFile::with_contents(&hashes, line(&sha256).as_bytes())?,
    ];
    files.into_iter().try_for_each(AtomicFile::place)?;
    Ok(sha256)
}

/// The hashes that the file at `path` holds, as `sha256sum` writes them; none if it is another file.
fn known_hashes(path: &Path) -> Vec<String> {
    let bytes = open::regular(path).and_then(|file| open::read_at_most(LONGEST_HASH, file)).ok().flatten();
    hashes_in(&String::from_utf8_lossy(&bytes.unwrap_or_default()))
}

/// The hashes in `text`, as `sha256sum` writes them; none if it has other lines.
fn hashes_in(text: &str) -> Vec<String> {
    let lines: Option<Vec<_>> = text.lines().map(|line| line.strip_suffix(IMAGES)?.strip_suffix("  ")).collect();
    lines.unwrap_or_default().into_iter().filter(|hash| is_sha256(hash)).map(String::from).collect()
}

/// Checks that what [`write`] would replace is prepared data: images with the hash beside the labels, and labels.
///
/// # Errors
/// It is something else.
pub fn check_replaced(data: &Path, labels_directory: &Path) -> Result<()> {
    let [images, labels, hashes] = [data.join(IMAGES), labels_directory.join(LABELS), labels_directory.join(HASH)];
    let known = known_hashes(&hashes);
    let are_ours = |path: &Path| values(path, image_contents()).is_ok_and(|images| known.contains(&images.sha256));
    let are_labels = |path: &Path| !known.is_empty() && IdxFile::open(path, label_contents()).is_ok();
    let is_something = |path: &Path| path.symlink_metadata().is_ok();
    let strange = if is_something(&images) && !are_ours(&images) {
        images
    } else if is_something(&labels) && !are_labels(&labels) {
        labels
    } else if is_something(&hashes) && known.is_empty() {
        hashes
    } else {
        return Ok(());
    };
    Err(Error::Occupied { path: strange, found: "another file" })
}

/// Reads the images (N,D) in the directory `data`.
///
/// # Errors
/// They are missing or damaged.
pub fn images(data: &Path) -> Result<Values> {
    values(&data.join(IMAGES), image_contents())
}

/// Reads the labels in `directory`.
///
/// # Errors
/// They or the hash are missing or damaged.
pub fn labels(directory: &Path) -> Result<Labels> {
    let labels = values(&directory.join(LABELS), label_contents())?.bytes;
    let path = directory.join(HASH);
    let next = |error| MedPerfError::input(error, NEXT);
    let text = open::regular(&path).and_then(|file| open::read_at_most(LONGEST_HASH, file));
    let text = text.map_err(Error::io("read", &path)).map_err(next)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if hashes_in(&text).len() > 1 {
        return Err(fault(&path, "has the hashes of several preparations: the last one was interrupted"));
    }
    let images_sha256 = text.split_whitespace().next().unwrap_or_default().to_string();
    if !is_sha256(&images_sha256) {
        return Err(fault(&path, format!("expected a SHA-256 and the name {IMAGES}, as sha256sum writes them")));
    }
    Ok(Labels { labels, images_sha256 })
}

/// Reads images and labels that belong together.
///
/// # Errors
/// One of them is missing or damaged, or the labels are of other images.
pub fn read(data: &Path, labels_directory: &Path) -> Result<(Values, Labels)> {
    let (images, labels) = (images(data)?, labels(labels_directory)?);
    let (count, expected) = (images.bytes.len() / inputs(), labels.labels.len());
    if count != expected {
        let differ = Error::CountsDiffer {
            images_path: data.join(IMAGES),
            images: count as u32,
            labels_path: labels_directory.join(LABELS),
            labels: expected as u32,
        };
        return Err(MedPerfError::input(differ, NEXT));
    }
    if images.sha256 != labels.images_sha256 {
        let problem = different_hashes(&labels.images_sha256, &images.sha256);
        let of = labels_directory.display();
        return Err(fault(&data.join(IMAGES), format!("is not of the labels in {of}: {problem}")));
    }
    Ok((images, labels))
}

/// Whether `text` is a SHA-256 in hexadecimal, lower case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The known set whose test images have this SHA-256.
pub fn source(images_sha256: &str) -> DataSource {
    DataSource(SETS.into_iter().find(|set| set.files[2].sha256 == images_sha256))
}

fn values(path: &Path, contents: IdxContents) -> Result<Values> {
    IdxFile::open(path, contents).and_then(IdxFile::values).map_err(|error| MedPerfError::input(error, NEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_data_is_mnists_test_pair() {
        assert_eq!([MNIST.files[2].name, MNIST.files[3].name], [IMAGES, LABELS]);
        assert_eq!(source(MNIST.files[2].sha256).id(), "mnist");
        assert_eq!(source(MNIST.files[0].sha256).id(), "unknown");
    }

    #[test]
    fn a_hash_has_64_digits() {
        assert!(is_sha256(MNIST.files[2].sha256));
        for text in ["", "0", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert!(!is_sha256(text), "{text}");
        }
    }
}
