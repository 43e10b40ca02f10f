//! `mnist medperf prepare`: raw data of two kinds, MNIST's test pair or labelled pictures, becomes prepared data.

use std::path::Path;

use super::{pictures, prepared};
use crate::cli::PrepareArgs;
use crate::data::idx::IdxContents;
use crate::data::idx_file::IdxFile;
use crate::data::places;
use crate::error::{Error, MedPerfError, Result};
use crate::files::OutputDirectory;
use crate::output::console;
use crate::text::{self, Problem};

/// The next step after a fault of raw data.
const NEXT: &str = "bring MNIST's test images and labels, plain or gzipped, or pictures with a labels.csv";

/// Runs the task and says what was prepared.
///
/// # Errors
/// The raw data is missing, damaged or does not fit together, or an output cannot be written.
pub fn run(args: &PrepareArgs) -> Result<()> {
    let data = OutputDirectory::open(&args.output_path)?;
    let labels_directory = OutputDirectory::open(&args.output_labels_path)?;
    apart(args, &data, &labels_directory)?;
    data.check([prepared::IMAGES])?;
    labels_directory.check([prepared::LABELS, prepared::HASH])?;

    let (pixels, labels) = raw(&args.data_path, &args.labels_path)?;
    let sha256 = prepared::write(data.path(), labels_directory.path(), &pixels, &labels)?;
    let written = [data.path().join(prepared::IMAGES), labels_directory.path().join(prepared::LABELS)];
    let [images, labels_file] = written.map(|path| path.display().to_string());
    let source = prepared::source(&sha256).description();
    let rows = [("prepared", format!("{} from {source}", text::counted(labels.len(), "image")))];
    console::print(&text::named_values(&[&rows[..], &[("images", images), ("labels", labels_file)]].concat()))
}

/// Checks that outputs lie apart from inputs, and labels from images: a model is given the directory of the images.
fn apart(args: &PrepareArgs, data: &OutputDirectory, labels: &OutputDirectory) -> Result<()> {
    let same = |flag, given: &Path, expected, next: &str| {
        let next = Some(next.to_string());
        Err(Error::Argument { flag, given: given.into(), expected, found: "the same", next })
    };
    if labels.is(data.path()) {
        let next = "labels go into a directory of their own, which no model is given";
        return same("output_labels_path", labels.path(), "another directory than --output_path", next);
    }
    for (flag, output) in [("output_path", data), ("output_labels_path", labels)] {
        if output.is(&args.data_path) || output.is(&args.labels_path) {
            let next = "prepared data goes into directories of its own";
            return same(flag, output.path(), "another directory than those of the raw data", next);
        }
    }
    Ok(())
}

/// Reads the raw data: pixels (N,D) and labels (N).
fn raw(data: &Path, labels: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let missing = |path: &Path, problem| {
        Err(MedPerfError::Fault { path: path.into(), problem: Problem::of_file(problem), next: NEXT }.into())
    };
    let Some(images_path) = places::existing(data, prepared::IMAGES).next() else {
        let list = labels.join(pictures::FILE_NAME);
        if list.exists() {
            return pictures::read(data, &list);
        }
        let form =
            format!("expected {}, plain or gzipped, or {} beside the labels", prepared::IMAGES, pictures::FILE_NAME);
        return missing(data, format!("{form} in {}, found neither", labels.display()));
    };
    let Some(labels_path) = places::existing(labels, prepared::LABELS).next() else {
        return missing(labels, format!("expected {}, plain or gzipped, found none", prepared::LABELS));
    };
    let open = |path: &Path, contents: IdxContents| IdxFile::open(path, contents);
    let read = || {
        let images = open(&images_path, prepared::image_contents())?;
        let labels = open(&labels_path, prepared::label_contents())?;
        images.check_pair(&labels)?;
        Ok((images.values()?.bytes, labels.values()?.bytes))
    };
    read().map_err(|error| MedPerfError::input(error, NEXT))
}
