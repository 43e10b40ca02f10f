//! The data sets that this program knows, one row each, and how to tell which of them some files are.
//!
//! To add a set, write its row and list it in [`SETS`]. Nothing else in the program names a size or a number of classes:
//! images and the shape of the network carry them.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model::MlpShape;
use crate::model::file::{self as model_file, Model};

/// One of the four IDX files of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name without `.gz`.
    pub name: &'static str,
    /// Bytes of the decompressed file.
    pub bytes: u64,
    /// SHA-256 of the decompressed file, in hexadecimal.
    pub sha256: &'static str,
    /// BLAKE3 of the same bytes, see [`super::file_digest`].
    pub blake3: &'static str,
}

/// How a digit lies in its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Width and height of an image in pixels.
    pub side: usize,
    /// Longer side of the box that a digit fills, in pixels.
    pub box_side: usize,
}

impl Frame {
    /// The frame of images with this side in which a digit fills the same share as in MNIST.
    pub const fn like_mnist(side: usize) -> Self {
        let box_side = side * MNIST.frame.box_side / MNIST.frame.side;
        Self { side, box_side: if box_side == 0 { 1 } else { box_side } }
    }
}

/// A data set that this program knows.
#[derive(Debug, PartialEq, Eq)]
pub struct SetKind {
    /// Its name in files that programs read: `model.safetensors`, `metrics.json`, MLLOG.
    pub id: &'static str,
    /// Its name within a sentence.
    pub title: &'static str,
    /// Its name where it stands alone. That of a stand-in says that it is one.
    pub description: &'static str,
    /// Authors and licence, which a download shows; none for data that this program makes.
    pub credit: Option<&'static str>,
    /// The size of its images.
    pub frame: Frame,
    /// The names of its classes, by label.
    pub classes: &'static [&'static str],
    /// Training images, training labels, test images, test labels. Sets whose files have equal names must have equal
    /// frames and numbers of classes, since the names decide what the files must hold.
    pub files: [SourceFile; 4],
    /// Where to fetch it from, in this order; each mirror holds the four files as `NAME.gz`.
    pub mirrors: &'static [&'static str],
    /// The set in whose place it is used for trying things out.
    pub stands_in_for: Option<&'static SetKind>,
}

/// All known sets. Where DATA_DIR has the files of several, the first is used.
pub static SETS: [&SetKind; 2] = [&MNIST, &SYNTHETIC];

/// MNIST. The hashes are of the files that <http://yann.lecun.com/exdb/mnist/> gave.
pub static MNIST: SetKind = SetKind {
    id: "mnist",
    title: "MNIST",
    description: "MNIST",
    credit: Some("MNIST: Yann LeCun, Corinna Cortes and Christopher J.C. Burges, CC BY-SA 3.0"),
    frame: Frame { side: 28, box_side: 20 },
    classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    files: [
        SourceFile {
            name: "train-images-idx3-ubyte",
            bytes: 47_040_016,
            sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            blake3: "c6e6fd8c67d07c8a9b7bffa7dd0413ff4b8af241607b049b7721107f379df9fd",
        },
        SourceFile {
            name: "train-labels-idx1-ubyte",
            bytes: 60_008,
            sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            blake3: "8ebcfdf2fe191516f9cb37fceb75d2d19289d91ee92026534ed45e44144b5642",
        },
        SourceFile {
            name: "t10k-images-idx3-ubyte",
            bytes: 7_840_016,
            sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            blake3: "f8d502322cd9f186e155a74a3dff598ed56c1a7b5a5c8d312749ac47c4a2bec7",
        },
        SourceFile {
            name: "t10k-labels-idx1-ubyte",
            bytes: 10_008,
            sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            blake3: "6d43ea317fa8f5851bb85404bb7358defd48b0294cf31f60cdcde8106fe2c3ad",
        },
    ],
    mirrors: &[
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://raw.githubusercontent.com/fgnt/mnist/master",
    ],
    stands_in_for: None,
};

/// Version 1 of the synthetic digits, as [`super::synthetic::write`] writes them.
pub static SYNTHETIC: SetKind = SetKind {
    id: "synthetic",
    title: "the synthetic digits",
    description: "SYNTHETIC digits (a stand-in, not MNIST)",
    credit: None,
    frame: MNIST.frame,
    classes: MNIST.classes,
    files: [
        SourceFile {
            name: "train-images-idx3-ubyte",
            bytes: 47_040_016,
            sha256: "a7482c640952d2d2e5d797a7ecd1cdead5116ae287254561d4b394da14ab60bb",
            blake3: "5f1e718c4024fcc60a408b035188d84b83c46f584db44f0bc3c55289412f91d4",
        },
        SourceFile {
            name: "train-labels-idx1-ubyte",
            bytes: 60_008,
            sha256: "9e9179c7bd66d9ca6297c5109d5bbe8ffa5d50ff0b6ae1ca77f016f09894b841",
            blake3: "8741185e2eda829267e634d0f98b9efb9c7984f9c0af1d8a40d320fa84c9a09d",
        },
        SourceFile {
            name: "t10k-images-idx3-ubyte",
            bytes: 7_840_016,
            sha256: "50303388097bc425b0ff5f7de81eb47d2779c0c579fbba4bc9f30fe69a1a12f0",
            blake3: "36bf69245f94d110b473caccf87c81b34dd4e72c0b4b16d5e887773dfc976b5c",
        },
        SourceFile {
            name: "t10k-labels-idx1-ubyte",
            bytes: 10_008,
            sha256: "468150b4caeb2cc76a4c8a65e7011266a6e2f81f4649963ce87dbed468938c88",
            blake3: "10500770146c0e2448ec521fd08627835537a0aff28cf25b513cad2269b22478",
        },
    ],
    mirrors: &[],
    stands_in_for: Some(&MNIST),
};

/// The set among `sets` whose files, from number `from` on, have these SHA-256, in the order of [`SetKind::files`].
pub fn identify<'a>(
    sets: &[&'static SetKind],
    from: usize,
    hashes: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static SetKind> {
    sets.iter().copied().find(|set| hashes.clone().eq(set.files[from..].iter().map(|file| file.sha256)))
}

/// The name of each file, from number `from` on, and the title of its set, if all are of known sets and not all of the same.
pub fn mixture<'a>(
    sets: &[&'static SetKind],
    from: usize,
    hashes: impl Iterator<Item = &'a str>,
) -> Option<Vec<(&'static str, &'static str)>> {
    let known = |(nth, hash): (usize, &str)| {
        sets.iter().map(|set| (&set.files[from + nth], set.title)).find(|(file, _)| file.sha256 == hash)
    };
    let found: Option<Vec<_>> = hashes.enumerate().map(known).collect();
    let found: Vec<_> = found?.into_iter().map(|(file, title)| (file.name, title)).collect();
    found.iter().any(|(_, title)| *title != found[0].1).then_some(found)
}

/// A known set, or none where well-formed files are of no known set. Files that programs read hold its [`id`](Self::id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSource(pub Option<&'static SetKind>);

impl DataSource {
    /// The id of data that is of no known set.
    const UNKNOWN: &str = "unknown";

    /// The source with this id.
    ///
    /// # Errors
    /// No source has it, as a sentence.
    pub fn named(id: &str) -> std::result::Result<Self, String> {
        let sources = || SETS.into_iter().map(|set| Self(Some(set))).chain([Self(None)]);
        sources().find(|source| source.id() == id).ok_or_else(|| {
            let known: Vec<String> = sources().map(|source| format!("`{}`", source.id())).collect();
            format!("unknown variant `{id}`, expected one of {}", known.join(", "))
        })
    }

    /// The source of the data that `model` was trained on; `model_dir` is for the message.
    ///
    /// # Errors
    /// The model names a source that does not exist, or does not fit the images of its source.
    pub fn of_model(model_dir: &Path, model: &Model) -> Result<Self> {
        let problem = |problem| Error::Model { path: model_dir.join(model_file::FILE_NAME), problem };
        let source = Self::named(&model.data)
            .map_err(|unknown| problem(format!("cannot read the metadata entry `mnist`: {unknown}")))?;
        if let Some(set) = source.0 {
            check_fit(&model.shape, set.frame.side, set.classes.len()).map_err(problem)?;
        }
        Ok(source)
    }

    /// Its name in files that programs read.
    pub fn id(self) -> &'static str {
        self.0.map_or(Self::UNKNOWN, |set| set.id)
    }

    /// Its name for people.
    pub fn description(self) -> String {
        let titles = || SETS.map(|set| set.title).join(" nor ");
        self.0.map_or_else(|| format!("unknown (neither {})", titles()), |set| set.description.into())
    }

    /// The set in whose place it is used, if it is a stand-in.
    pub fn stands_in_for(self) -> Option<&'static SetKind> {
        self.0?.stands_in_for
    }
}

impl Serialize for DataSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Checks that a network of `shape` takes images of `side` x `side` pixels and tells `classes` classes apart.
///
/// # Errors
/// It does not, as a sentence.
pub fn check_fit(shape: &MlpShape, side: usize, classes: usize) -> std::result::Result<(), String> {
    let inputs = side * side;
    if (shape.inputs(), shape.classes()) == (inputs, classes) {
        Ok(())
    } else {
        Err(format!("expected layers from {inputs} to {classes}, found {:?}", shape.widths()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::idx::IdxContents;
    use crate::simd::LANES;

    #[test]
    fn every_row_is_sound() {
        for (index, set) in SETS.iter().enumerate() {
            assert_eq!(DataSource::named(set.id), Ok(DataSource(Some(set))), "ids differ");
            assert_ne!(set.id, DataSource::UNKNOWN);
            assert!((2..=LANES).contains(&set.classes.len()), "more than the kernels have");
            let images = IdxContents::Images { side: set.frame.side };
            let labels = IdxContents::Labels { classes: set.classes.len() };
            for pair in set.files.chunks(2) {
                let count = (pair[1].bytes - labels.header_bytes() as u64) as u32;
                assert_eq!([images, labels].map(|contents| contents.file_bytes(count)), [pair[0].bytes, pair[1].bytes]);
            }
            for other in &SETS[..index] {
                if set.files.iter().any(|file| other.files.iter().any(|theirs| theirs.name == file.name)) {
                    assert_eq!((set.frame, set.classes.len()), (other.frame, other.classes.len()), "equal names");
                }
            }
        }
    }

    #[test]
    fn sets_are_told_apart_by_all_four_hashes() {
        let hashes = |set: &SetKind| set.files.map(|file| file.sha256);
        for set in SETS {
            assert_eq!(identify(&SETS, 0, hashes(set).into_iter()), Some(set));
        }
        let mut mixed = hashes(&MNIST);
        mixed[3] = SYNTHETIC.files[3].sha256;
        assert_eq!(identify(&SETS, 0, mixed.into_iter()), None);
        assert_eq!(identify(&SETS, 0, hashes(&MNIST).into_iter().take(3)), None);
        assert_eq!(identify(&SETS, 2, hashes(&MNIST).into_iter().skip(2)), Some(&MNIST));
        assert_eq!(identify(&SETS, 2, mixed.into_iter().skip(2)), None);
        let found: Vec<_> = mixture(&SETS, 0, mixed.into_iter()).unwrap().into_iter().map(|(_, title)| title).collect();
        assert_eq!(found, [MNIST.title, MNIST.title, MNIST.title, SYNTHETIC.title]);
        mixed[0] = "of no known file";
        assert_eq!(mixture(&SETS, 0, mixed.into_iter()), None);
        assert_eq!(mixture(&SETS, 0, hashes(&MNIST).into_iter()), None);
    }

    #[test]
    fn names_in_files_stay() {
        let names = [DataSource(Some(&MNIST)), DataSource(Some(&SYNTHETIC)), DataSource(None)];
        assert_eq!(serde_json::to_string(&names).unwrap(), r#"["mnist","synthetic","unknown"]"#);
        assert_eq!(
            DataSource::named("letters").unwrap_err(),
            "unknown variant `letters`, expected one of `mnist`, `synthetic`, `unknown`"
        );
        assert_eq!(DataSource(None).description(), "unknown (neither MNIST nor the synthetic digits)");
    }

    #[test]
    fn a_model_that_does_not_fit_its_data_is_refused() {
        let model = |inputs, data: &str| {
            let shape = MlpShape::new(inputs, &[3], 10);
            Model { parameters: vec![0.0; shape.parameter_count()], shape, data: data.into(), unfinished: None }
        };
        let refused = |model| DataSource::of_model(Path::new("models"), &model).unwrap_err().to_string();
        assert_eq!(
            refused(model(783, "mnist")),
            "models/model.safetensors: expected layers from 784 to 10, found [783, 3, 10]"
        );
        assert_eq!(
            refused(model(784, "letters")),
            "models/model.safetensors: cannot read the metadata entry `mnist`: unknown variant `letters`, expected one \
             of `mnist`, `synthetic`, `unknown`"
        );
        assert_eq!(DataSource::of_model(Path::new(""), &model(100, "unknown")).unwrap(), DataSource(None));
    }
}
