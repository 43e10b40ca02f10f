//! What the four files are: names, sizes and hashes of MNIST and of the synthetic stand-in, and the mirrors.

use serde::{Deserialize, Serialize};

/// One of the four IDX files, with what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFile {
    /// The classic name, without `.gz`.
    pub name: &'static str,
    /// Bytes of the decompressed file.
    pub bytes: u64,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub sha256: &'static str,
}

/// The files of MNIST: training images, training labels, test images, test labels.
///
/// MNIST is by Yann LeCun, Corinna Cortes and Christopher J.C. Burges, under the Creative Commons
/// Attribution-ShareAlike 3.0 licence. The hashes are of the files that <http://yann.lecun.com/exdb/mnist/> gave.
pub const MNIST: [SourceFile; 4] = [
    SourceFile {
        name: "train-images-idx3-ubyte",
        bytes: 47_040_016,
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    SourceFile {
        name: "train-labels-idx1-ubyte",
        bytes: 60_008,
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    SourceFile {
        name: "t10k-images-idx3-ubyte",
        bytes: 7_840_016,
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    SourceFile {
        name: "t10k-labels-idx1-ubyte",
        bytes: 10_008,
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];

/// The files of the synthetic stand-in, version 1, in the order of [`MNIST`]: what [`super::synthetic::write`] leaves.
pub const SYNTHETIC: [SourceFile; 4] = [
    SourceFile {
        name: "train-images-idx3-ubyte",
        bytes: 47_040_016,
        sha256: "a7482c640952d2d2e5d797a7ecd1cdead5116ae287254561d4b394da14ab60bb",
    },
    SourceFile {
        name: "train-labels-idx1-ubyte",
        bytes: 60_008,
        sha256: "9e9179c7bd66d9ca6297c5109d5bbe8ffa5d50ff0b6ae1ca77f016f09894b841",
    },
    SourceFile {
        name: "t10k-images-idx3-ubyte",
        bytes: 7_840_016,
        sha256: "50303388097bc425b0ff5f7de81eb47d2779c0c579fbba4bc9f30fe69a1a12f0",
    },
    SourceFile {
        name: "t10k-labels-idx1-ubyte",
        bytes: 10_008,
        sha256: "468150b4caeb2cc76a4c8a65e7011266a6e2f81f4649963ce87dbed468938c88",
    },
];

/// Where MNIST is fetched from, in this order; each holds the four files as `NAME.gz`.
pub const MIRRORS: [&str; 3] = [
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://raw.githubusercontent.com/fgnt/mnist/master",
];

/// What a set of files is, as told by its hashes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// The four files of MNIST.
    Mnist,
    /// The stand-in that `mnist download --synthetic` draws.
    Synthetic,
    /// Well-formed files that are neither.
    Unknown,
}

impl DataSource {
    /// The name for people: what it is, and that it is no MNIST where it is not.
    pub fn description(self) -> &'static str {
        match self {
            DataSource::Mnist => "MNIST",
            DataSource::Synthetic => "SYNTHETIC digits (a stand-in, not MNIST)",
            DataSource::Unknown => "unknown (neither MNIST nor the synthetic digits)",
        }
    }
}

/// Tells what four files are by their SHA-256, in the order of [`MNIST`].
pub fn identify<'a>(hashes: impl Iterator<Item = &'a str> + Clone) -> DataSource {
    let are = |files: &[SourceFile]| hashes.clone().eq(files.iter().map(|file| file.sha256));
    if are(&MNIST) {
        DataSource::Mnist
    } else if are(&SYNTHETIC) {
        DataSource::Synthetic
    } else {
        DataSource::Unknown
    }
}
