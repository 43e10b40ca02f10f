//! From the four files in DATA_DIR to checked images and labels in memory, and the order of an epoch.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::idx::{self, Kind, LONGEST_HEADER};
use super::sets::{self, DataSource, MNIST};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::text::hexadecimal;

/// Images with their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// (N,D), row by row; 0 black, 255 white.
    pub pixels: Vec<u8>,
    /// (N), 0 to 9.
    pub labels: Vec<u8>,
}

impl Images {
    /// N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// The name of the training images in logs and files.
pub const TRAIN: &str = "train";
/// The name of the test images there.
pub const TEST: &str = "test";

/// The data set: what to train on and what to test on.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The training images; shared, since an engine keeps them too.
    pub train: Arc<Images>,
    /// The test images.
    pub test: Images,
    /// What it is and where it came from.
    pub provenance: Provenance,
}

/// What a data set is, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// As told by the hashes.
    pub source: DataSource,
    /// Training images.
    pub train_images: usize,
    /// Test images.
    pub test_images: usize,
    /// The files that were read.
    pub files: Vec<FileHash>,
}

/// A file with the hash of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileHash {
    /// Its classic name.
    pub name: String,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub sha256: String,
}

impl Dataset {
    /// The splits that are evaluated after every epoch, with their names.
    pub fn evaluated(&self) -> impl Iterator<Item = (&'static str, &Images)> {
        [(TEST, &self.test)].into_iter()
    }

    /// Reads `data_dir`: plain or gzipped IDX files there, or in `MNIST/raw` below it as torchvision leaves them.
    ///
    /// # Errors
    /// A file is missing, unreadable, not what it should be, or does not fit the others; the message names it.
    pub fn load(data_dir: &Path) -> Result<Self> {
        match std::fs::read_dir(data_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoDataDir { data_dir: data_dir.to_path_buf() });
            }
            listed => listed.map_err(Error::io("read the directory", data_dir))?,
        };
        let paths = MNIST.iter().map(|file| find(data_dir, file.name)).collect::<Result<Vec<_>>>()?;
        let kinds = [Kind::Images, Kind::Labels, Kind::Images, Kind::Labels];
        let mut loaded = (paths.par_iter().zip(kinds).map(|(path, kind)| load_file(path, kind)))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<Vec<_>>>()?;

        for pair in [0, 2] {
            let (images, labels) = (loaded[pair].count, loaded[pair + 1].count);
            if images != labels {
                let (images_path, labels_path) = (paths[pair].clone(), paths[pair + 1].clone());
                return Err(Error::CountsDiffer { images_path, images, labels_path, labels });
            }
        }
        let files: Vec<FileHash> = (MNIST.iter().zip(&loaded))
            .map(|(file, loaded)| FileHash { name: file.name.into(), sha256: loaded.sha256.clone() })
            .collect();
        let source = sets::identify(files.iter().map(|file| file.sha256.as_str()));
        let mut set = |first: usize| {
            let mut values = |file: usize| std::mem::take(&mut loaded[file].values);
            Images { pixels: values(first), labels: values(first + 1) }
        };
        let (train, test) = (Arc::new(set(0)), set(2));
        let (train_images, test_images) = (train.len(), test.len());
        Ok(Self { train, test, provenance: Provenance { source, train_images, test_images, files } })
    }
}

/// The order in which epoch `epoch` (from 0) of `seed` shows `images` images: each once.
pub fn epoch_order(seed: u64, epoch: u64, images: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..images as u32).collect();
    let mut stream = Stream::new(seed, Purpose::Order, epoch);
    for last in (1..order.len()).rev() {
        order.swap(last, stream.below(last as u32 + 1) as usize); // Fisher-Yates
    }
    order
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

/// One file's values, with the header taken off.
struct Loaded {
    count: u32,
    values: Vec<u8>,
    sha256: String,
}

fn load_file(path: &Path, kind: Kind) -> Result<Loaded> {
    let fault = |fault: idx::Fault| Error::Idx { path: path.to_path_buf(), problem: fault.to_string() };
    let file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    let mut read = |most: u64, bytes: &mut Vec<u8>| {
        reader.by_ref().take(most).read_to_end(bytes).map_err(|source| match zipped {
            true => Error::Gzip { path: path.to_path_buf(), problem: source.to_string() },
            false => Error::io("read", path)(source),
        })
    };

    let mut header = Vec::with_capacity(LONGEST_HEADER);
    read(kind.header_bytes() as u64, &mut header)?;
    let count = kind.read_header(&header).map_err(fault)?;
    // The header's count is only believed for memory where the file is long enough to hold it.
    let expected = kind.file_bytes(count);
    let values_bytes = expected - header.len() as u64;
    if !zipped {
        kind.check_length(count, length).map_err(fault)?;
    }
    let mut values = Vec::with_capacity(if zipped { 0 } else { values_bytes as usize + 1 });
    read(values_bytes + 1, &mut values)?;
    kind.check_length(count, (header.len() + values.len()) as u64).map_err(fault)?;
    if kind == Kind::Labels {
        idx::check_labels(&values).map_err(fault)?;
    }
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
