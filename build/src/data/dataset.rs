//! The data set in memory: checked images and labels from the four files in DATA_DIR, and the order of an epoch.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::idx::IdxContents;
use super::idx_file::IdxFile;
use super::places;
use super::sets::{self, DataSource, SETS, SetKind};
use crate::error::{Error, Result};
use crate::model::file::{self as model_file, Model};
use crate::rng::{Purpose, Stream};
use crate::threads;

/// Images with their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// Width and height of an image; D is `side * side`.
    pub side: usize,
    /// (K) names of the classes, by label.
    pub classes: &'static [&'static str],
    /// (N,D), row by row; 0 black, 255 white.
    pub pixels: Vec<u8>,
    /// (N), each below K.
    pub labels: Vec<u8>,
}

impl Images {
    /// N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// D: the pixels of one image.
    pub fn inputs(&self) -> usize {
        self.side * self.side
    }

    /// The pixels (D) of image `index`.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.inputs()..(index + 1) * self.inputs()]
    }
}

/// The name of the training images in logs and files.
pub const TRAIN: &str = "train";
/// The name of the validation images there.
pub const VALIDATION: &str = "validation";
/// The name of the test images there.
pub const TEST: &str = "test";

/// A data set: training images and test images.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The training images, shared with the engine.
    pub train: Arc<Images>,
    /// The test images.
    pub test: Images,
    /// Which set it is and which files it was read from.
    pub provenance: Provenance,
}

/// Description of a data set for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Which known set it is, by the hashes of its files.
    pub source: DataSource,
    /// Number of training images.
    pub train_images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// The four files.
    pub files: Vec<FileHash>,
}

/// A file and the hash of its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its name in the set, without `.gz`.
    pub name: String,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub sha256: String,
}

impl Dataset {
    /// The splits that are evaluated after every epoch, with their names.
    pub fn evaluated(&self) -> impl Iterator<Item = (&'static str, &Images)> {
        [(TEST, &self.test)].into_iter()
    }

    /// Reads the data set in `data_dir`: plain or gzipped IDX files, in any of their [`places`].
    ///
    /// # Errors
    /// A file is missing, cannot be read, is damaged, or does not fit the others; the message names it.
    pub fn load(data_dir: &Path) -> Result<Self> {
        Self::load_one_of(&SETS, data_dir)
    }

    /// Like [`load`](Self::load), with the known sets given (at least one).
    ///
    /// The names of the files decide which images and labels are expected, so that they can be checked before they are
    /// read. The hashes then tell whether it is a known set.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn load_one_of(known: &[&'static SetKind], data_dir: &Path) -> Result<Self> {
        match std::fs::read_dir(data_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoDataDir { data_dir: data_dir.to_path_buf() });
            }
            listed => listed.map_err(Error::io("read the directory", data_dir))?,
        };
        let (expected, paths) = locate(known, data_dir)?;
        let (side, classes) = (expected.frame.side, expected.classes);
        let (images, labels) = (IdxContents::Images { side }, IdxContents::Labels { classes: classes.len() });
        let contents = [images, labels, images, labels];
        let files = paths.iter().zip(contents).map(|(path, contents)| IdxFile::open(path, contents));
        let files = files.collect::<Result<Vec<_>>>()?;
        for pair in files.chunks_exact(2) {
            pair[0].check_pair(&pair[1])?;
        }
        let loaded = threads::side_by_side(threads::most(), files.into_iter(), IdxFile::values);
        let mut loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?;

        let files: Vec<FileHash> = (expected.files.iter().zip(&loaded))
            .map(|(file, loaded)| FileHash { name: file.name.into(), sha256: loaded.sha256.clone() })
            .collect();
        let source = DataSource(sets::identify(known, files.iter().map(|file| file.sha256.as_str())));
        let classes = source.0.map_or(classes, |set| set.classes);
        let mut images = |first: usize| {
            let mut values = |file: usize| std::mem::take(&mut loaded[file].bytes);
            Images { side, classes, pixels: values(first), labels: values(first + 1) }
        };
        let (train, test) = (Arc::new(images(0)), images(2));
        let (train_images, test_images) = (train.len(), test.len());
        Ok(Self { train, test, provenance: Provenance { source, train_images, test_images, files } })
    }

    /// Checks that `model` takes these images and tells their classes apart; `model_dir` is for the message.
    ///
    /// # Errors
    /// It does not.
    pub fn check_fit(&self, model_dir: &Path, model: &Model) -> Result<()> {
        sets::check_fit(&model.shape, self.test.side, self.test.classes.len())
            .map_err(|problem| Error::Model { path: model_dir.join(model_file::FILE_NAME), problem })
    }
}

/// The order of `images` images in epoch `epoch` (from 0) with `seed`; every index occurs once.
pub fn epoch_order(seed: u64, epoch: u64, images: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..images as u32).collect();
    let mut stream = Stream::new(seed, Purpose::Order, epoch);
    for last in (1..order.len()).rev() {
        order.swap(last, stream.below(last as u32 + 1) as usize); // Fisher-Yates
    }
    order
}

/// The first of `known` whose four files are all in `data_dir`, and their paths.
fn locate(known: &[&'static SetKind], data_dir: &Path) -> Result<(&'static SetKind, Vec<PathBuf>)> {
    let mut attempts = known.iter().map(|set| {
        let paths = set.files.iter().map(|file| find(data_dir, file.name)).collect::<Result<Vec<_>>>();
        paths.map(|paths| (*set, paths))
    });
    let first = attempts.next().unwrap_or_else(|| unreachable!("at least one set is known"));
    first.or_else(|failure| attempts.find_map(Result::ok).ok_or(failure))
}

fn find(data_dir: &Path, name: &str) -> Result<PathBuf> {
    let missing = || Error::DataMissing { data_dir: data_dir.to_path_buf(), name: name.to_string() };
    places::existing(data_dir, name).next().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_image_once_and_each_epoch_in_another_order() {
        let order = epoch_order(42, 0, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_ne!(order, epoch_order(42, 1, 1000));
        assert_ne!(order, epoch_order(43, 0, 1000));
        assert_eq!(order, epoch_order(42, 0, 1000));
    }
}
