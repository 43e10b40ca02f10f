//! The data set in memory: checked images and labels from the four files in DATA_DIR, and the order of an epoch.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::idx::{IdxContents, IdxFault, LONGEST_HEADER};
use super::sets::{self, DataSource, SETS, SetKind};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::file::{self as model_file, Model};
use crate::rng::{Purpose, Stream};
use crate::text::hexadecimal;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

    /// Reads the data set in `data_dir`: plain or gzipped IDX files, there or in `MNIST/raw` below it, where torchvision
    /// puts them.
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
        let files = paths.iter().zip([images, labels, images, labels]);
        let loaded = threads::side_by_side(threads::most(), files, |(path, contents)| load_file(path, contents));
        let mut loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?;

        for pair in [0, 2] {
            let (images, labels) = (loaded[pair].count, loaded[pair + 1].count);
            if images != labels {
                let (images_path, labels_path) = (paths[pair].clone(), paths[pair + 1].clone());
                return Err(Error::CountsDiffer { images_path, images, labels_path, labels });
            }
        }
        let files: Vec<FileHash> = (expected.files.iter().zip(&loaded))
            .map(|(file, loaded)| FileHash { name: file.name.into(), sha256: loaded.sha256.clone() })
            .collect();
        let source = DataSource(sets::identify(known, files.iter().map(|file| file.sha256.as_str())));
        let classes = source.0.map_or(classes, |set| set.classes);
        let mut images = |first: usize| {
            let mut values = |file: usize| std::mem::take(&mut loaded[file].values);
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
    let zipped = format!("{name}.gz");
    let torchvision = Path::new("MNIST").join("raw");
    let places = [PathBuf::from(name), PathBuf::from(&zipped), torchvision.join(name), torchvision.join(&zipped)];
    for path in places.iter().map(|place| data_dir.join(place)) {
        match path.metadata() {
            Ok(_) => return Ok(path),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    Err(Error::DataMissing { data_dir: data_dir.to_path_buf(), name: name.to_string() })
}

/// The values of one file, without its header.
struct Loaded {
    count: u32,
    values: Vec<u8>,
    sha256: String,
}

fn load_file(path: &Path, contents: IdxContents) -> Result<Loaded> {
    let fault = |fault: IdxFault| Error::Idx { path: path.to_path_buf(), problem: fault.to_string() };
    let file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    let mut read = |most: u64, bytes: &mut Vec<u8>| {
        reader.by_ref().take(most).read_to_end(bytes).map_err(|source| {
            if zipped {
                Error::Gzip { path: path.to_path_buf(), problem: source.to_string() }
            } else {
                Error::io("read", path)(source)
            }
        })
    };

    let mut header = Vec::with_capacity(LONGEST_HEADER);
    read(contents.header_bytes() as u64, &mut header)?;
    let count = contents.read_header(&header).map_err(fault)?;
    // Memory for the values is reserved only if the file is long enough to hold them: the header may be wrong.
    let expected = contents.file_bytes(count);
    let values_bytes = expected - header.len() as u64;
    if !zipped {
        contents.check_length(count, length).map_err(fault)?;
    }
    let mut values = memory::reserve(if zipped { 0 } else { values_bytes as usize + 1 }, path.display())?;
    read(values_bytes + 1, &mut values)?;
    contents.check_length(count, (header.len() + values.len()) as u64).map_err(fault)?;
    contents.check_values(&values).map_err(fault)?;
    let mut hash = Sha256::new();
    hash.update(&header);
    hash.update(&values);
    Ok(Loaded { count, values, sha256: hexadecimal(&hash.finalize()) })
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
