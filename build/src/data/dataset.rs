//! The data set in memory: checked images and labels from the four files in DATA_DIR, and the order of an epoch.

use std::io::{self, ErrorKind};
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
/// The name of the images that were taken from the training images to validate with.
pub const VALIDATION: &str = "validation";
/// The name of the test images.
pub const TEST: &str = "test";

/// A data set: training images, perhaps validation images, and test images.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The training images, shared with the engine.
    pub train: Arc<Images>,
    /// The validation split, if there is one.
    pub validation: Option<Images>,
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
    /// Number of training images, without those of the validation split; 0 where only the test images were read.
    #[serde(skip_serializing_if = "is_zero")]
    pub train_images: usize,
    /// Number of images in the validation split.
    #[serde(skip_serializing_if = "is_zero")]
    pub validation_images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// The files: four, or those of the test images.
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
    /// The split that is evaluated after every epoch, with its name: the validation split if there is one.
    pub fn watched(&self) -> (&'static str, &Images) {
        self.validation.as_ref().map_or((TEST, &self.test), |validation| (VALIDATION, validation))
    }

    /// All splits with their names.
    pub fn splits(&self) -> impl Iterator<Item = (&'static str, &Images)> {
        let validation = self.validation.as_ref().map(|images| (VALIDATION, images));
        [(TRAIN, &*self.train)].into_iter().chain(validation).chain([(TEST, &self.test)])
    }

    /// The training images, for whoever needs no copy: their pixels are not here any more.
    pub fn give_train(&mut self) -> Arc<Images> {
        let Images { side, classes, ref labels, .. } = *self.train;
        let without_pixels = Images { side, classes, pixels: vec![], labels: labels.clone() };
        std::mem::replace(&mut self.train, Arc::new(without_pixels))
    }

    /// Takes the validation split from the end of the training images, as Keras' `validation_split` does: `part` is a share
    /// of them if it is below 1, else a number of images; 0 takes none.
    ///
    /// # Errors
    /// That leaves no training image, or none of a class that had some, or no validation image.
    pub fn split(&mut self, part: f64) -> Result<()> {
        if part == 0.0 {
            return Ok(());
        }
        let images = self.train.len();
        // Keras' rounding.
        let left = if part < 1.0 {
            (images as f64 * (1.0 - part)).floor() as usize
        } else {
            images.saturating_sub(part as usize)
        };
        let refused = |problem: String| Err(Error::Validation { part, images, problem });
        if left == 0 {
            return refused("leaves none to train on".into());
        } else if left == images {
            return refused("takes none".into());
        }
        let before = &self.train.labels;
        let lost = before[left..].iter().find(|label| !before[..left].contains(label));
        if let Some(&label) = lost {
            return refused(format!("leaves none of class {}", self.train.classes[usize::from(label)]));
        }
        let train = Arc::make_mut(&mut self.train);
        let inputs = train.inputs();
        let pixels = moved_end(&mut train.pixels, left * inputs);
        let labels = moved_end(&mut train.labels, left);
        (self.provenance.train_images, self.provenance.validation_images) = (left, labels.len());
        self.validation = Some(Images { side: train.side, classes: train.classes, pixels, labels });
        Ok(())
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
        let Loaded { mut images, source, files } = load(known, data_dir, 0)?;
        let (test, train) = (images.remove(1), Arc::new(images.remove(0)));
        let (train_images, test_images) = (train.len(), test.len());
        let provenance = Provenance { source, train_images, validation_images: 0, test_images, files };
        Ok(Self { train, validation: None, test, provenance })
    }

    /// The test images.
    pub fn test_set(&self) -> TestSet {
        TestSet { images: self.test.clone(), provenance: self.provenance.clone() }
    }
}

/// The test images of a data set, without the others.
#[derive(Debug, Clone)]
pub struct TestSet {
    /// The images.
    pub images: Images,
    /// Which set it is and which files it was read from.
    pub provenance: Provenance,
}

impl TestSet {
    /// Reads the test images in `data_dir`, as [`Dataset::load`] does. The other files need not be there.
    ///
    /// # Errors
    /// See there.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let Loaded { mut images, source, files } = load(&SETS, data_dir, TEST_FILES)?;
        let images = images.remove(0);
        let provenance = Provenance { source, train_images: 0, validation_images: 0, test_images: images.len(), files };
        Ok(Self { images, provenance })
    }

    /// Checks that `model` takes these images and tells their classes apart; `model_dir` is for the message.
    ///
    /// # Errors
    /// It does not.
    pub fn check_fit(&self, model_dir: &Path, model: &Model) -> Result<()> {
        sets::check_fit(&model.shape, self.images.side, self.images.classes.len())
            .map_err(|problem| Error::Model { path: model_dir.join(model_file::FILE_NAME), problem })
    }
}

/// Bytes that are moved before their memory is given back.
const MOVED_AT_ONCE: usize = 4 << 20;

/// The bytes from `begin` on, which `bytes` loses together with their memory. Hardly a byte has memory twice at any time, as it
/// would in `split_off`.
fn moved_end(bytes: &mut Vec<u8>, begin: usize) -> Vec<u8> {
    let mut end = vec![0; bytes.len() - begin]; // takes memory where it is written
    for piece in end.rchunks_mut(MOVED_AT_ONCE) {
        let left = bytes.len() - piece.len();
        piece.copy_from_slice(&bytes[left..]);
        bytes.truncate(left);
        bytes.shrink_to_fit();
    }
    end
}

fn is_zero(number: &usize) -> bool {
    *number == 0
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

/// The number of the first file with test images in [`SetKind::files`].
const TEST_FILES: usize = 2;

/// What was read from DATA_DIR.
struct Loaded {
    /// The images of each pair of files.
    images: Vec<Images>,
    source: DataSource,
    files: Vec<FileHash>,
}

/// Reads the files of one of the `known` sets in `data_dir`, from number `from` on.
///
/// # Errors
/// See [`Dataset::load`].
fn load(known: &[&'static SetKind], data_dir: &Path, from: usize) -> Result<Loaded> {
    match std::fs::read_dir(data_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::NoDataDir { data_dir: data_dir.to_path_buf() });
        }
        listed => listed.map_err(Error::io("read the directory", data_dir))?,
    };
    let (expected, paths) = locate(known, data_dir, from)?;
    let (side, classes) = (expected.frame.side, expected.classes);
    let (images, labels) = (IdxContents::Images { side }, IdxContents::Labels { classes: classes.len() });
    let contents = [images, labels].into_iter().cycle();
    let files = paths.iter().zip(contents).map(|(path, contents)| IdxFile::open(path, contents));
    let files = files.collect::<Result<Vec<_>>>()?;
    for pair in files.chunks_exact(2) {
        pair[0].check_pair(&pair[1])?;
    }
    let loaded = threads::side_by_side(threads::most(), files.into_iter(), IdxFile::values);
    let loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?;

    let hashes = || loaded.iter().map(|file| file.sha256.as_str());
    let source = DataSource(sets::identify(known, from, hashes()));
    if source.0.is_none()
        && let Some(files) = sets::mixture(known, from, hashes())
    {
        return Err(Error::MixedData { data_dir: data_dir.to_path_buf(), files });
    }
    let files = (expected.files[from..].iter().zip(hashes()))
        .map(|(file, hash)| FileHash { name: file.name.into(), sha256: hash.into() })
        .collect();
    let classes = source.0.map_or(classes, |set| set.classes);
    let mut values = loaded.into_iter().map(|file| file.bytes);
    let mut images = vec![];
    while let (Some(pixels), Some(labels)) = (values.next(), values.next()) {
        images.push(Images { side, classes, pixels, labels });
    }
    Ok(Loaded { images, source, files })
}

/// The first of `known` whose files are all in `data_dir`, from number `from` on, and their paths.
fn locate(known: &[&'static SetKind], data_dir: &Path, from: usize) -> Result<(&'static SetKind, Vec<PathBuf>)> {
    let mut attempts = known.iter().map(|set| {
        let paths = set.files[from..].iter().map(|file| place_of(data_dir, file.name)).collect::<Result<Vec<_>>>();
        paths.map(|paths| (*set, paths))
    });
    let first = attempts.next().unwrap_or_else(|| unreachable!("at least one set is known"));
    first.or_else(|failure| attempts.find_map(Result::ok).ok_or(failure))
}

fn place_of(data_dir: &Path, name: &str) -> Result<PathBuf> {
    let missing = || match places::dangling(data_dir, name) {
        Some(link) => {
            let problem = "expected a file, found a link to nothing";
            Error::io("read", link)(io::Error::new(ErrorKind::NotFound, problem))
        }
        None => Error::DataMissing { data_dir: data_dir.to_path_buf(), name: name.to_string() },
    };
    places::existing(data_dir, name).next().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten images of one pixel; the label of each is its number, and the last one's is 0.
    fn ten() -> Dataset {
        let labels = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        let images = Images { side: 1, classes: sets::MNIST.classes, pixels: (0..10).collect(), labels };
        let provenance = Provenance {
            source: DataSource(None),
            train_images: 10,
            validation_images: 0,
            test_images: 10,
            files: vec![],
        };
        Dataset { train: Arc::new(images.clone()), validation: None, test: images, provenance }
    }

    #[test]
    fn the_validation_split_is_the_end_of_the_training_images() {
        for part in [1.0, 0.1, 0.01] {
            let mut dataset = ten();
            dataset.split(part).unwrap();
            let (name, validation) = dataset.watched();
            assert_eq!((name, &*validation.pixels, &*validation.labels), (VALIDATION, &[9][..], &[0][..]));
            assert_eq!((dataset.train.len(), dataset.train.pixels.len()), (9, 9));
            assert_eq!((dataset.provenance.train_images, dataset.provenance.validation_images), (9, 1));
        }
        let mut dataset = ten();
        dataset.split(0.0).unwrap();
        assert_eq!((dataset.watched().0, dataset.train.len()), (TEST, 10));
    }

    #[test]
    fn a_validation_split_that_takes_too_much_is_refused() {
        let refused = |part| ten().split(part).unwrap_err().to_string();
        assert_eq!(refused(2.0), "validation: 2 of the 10 training images leaves none of class 8");
        assert_eq!(refused(10.0), "validation: 10 of the 10 training images leaves none to train on");
        assert_eq!(refused(70_000.0), "validation: 70000 of the 10 training images leaves none to train on");
        assert_eq!(refused(0.95), "validation: 0.95 of the 10 training images leaves none to train on");
        assert_eq!(refused(1e-30), "validation: 0.000000000000000000000000000001 of the 10 training images takes none");
    }

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
