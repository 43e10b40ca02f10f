//! `mnist medperf prepare`: raw data of two kinds, MNIST's test pair or labelled pictures, becomes prepared data.

use std::path::Path;

use super::{pictures, prepared};
use crate::cli::PrepareArgs;
use crate::data::idx::IdxContents;
use crate::data::idx_file::IdxFile;
use crate::data::places;
use crate::error::{Error, MedPerfError, Result};
use crate::files::{self, OutputDirectory};
use crate::output::console;
use crate::text::{self, Problem};

/// The next step after a fault of raw data.
const NEXT: &str = "bring MNIST's test images and labels, plain or gzipped, or pictures with a labels.csv";

/// Runs the task and says what was prepared.
///
/// # Errors
/// The raw data is missing, damaged or does not fit together, or an output cannot be written or would replace other
/// files than prepared ones.
pub fn run(args: &PrepareArgs) -> Result<()> {
    let data = OutputDirectory::open(&args.output_path)?;
    let labels_directory = OutputDirectory::open(&args.output_labels_path)?;
    apart(args, &data, &labels_directory)?;
    data.check([prepared::IMAGES])?;
    labels_directory.check([prepared::LABELS, prepared::HASH])?;
    prepared::check_replaced(data.path(), labels_directory.path())?;

    let (pixels, labels) = raw(&args.data_path, &args.labels_path)?;
    let sha256 = prepared::write(data.path(), labels_directory.path(), &pixels, &labels)?;
    let written = [data.path().join(prepared::IMAGES), labels_directory.path().join(prepared::LABELS)];
    let [images, labels_file] = written.map(|path| path.display().to_string());
    let source = prepared::source(&sha256).description();
    let rows = [("prepared", format!("{} from {source}", text::counted(labels.len(), "image")))];
    console::print(&text::named_values(&[&rows[..], &[("images", images), ("labels", labels_file)]].concat()))
}

/// Checks that outputs lie apart from inputs, and that neither prepared nor raw labels are in the directory of the images,
/// which a model is given.
fn apart(args: &PrepareArgs, data: &OutputDirectory, labels: &OutputDirectory) -> Result<()> {
    let refused = |flag, given: &Path, expected, found, next: &str| {
        Err(Error::Argument { flag, given: given.into(), expected, found, next: Some(next.to_string()) })
    };
    if data.is(labels.path()) || is_nested(data.path(), labels.path()) {
        let found = if data.is(labels.path()) { "the same" } else { "one in the other" };
        let next = "labels go into a directory of their own, which no model is given";
        let expected = "another directory than --output_path";
        return refused("output_labels_path", labels.path(), expected, found, next);
    }
    let raw = [&args.data_path, &args.labels_path];
    let next = "prepared data goes into directories of its own";
    for (flag, output) in [("output_path", data), ("output_labels_path", labels)] {
        if raw.iter().any(|input| files::lies_in(output.path(), input)) {
            let expected = "a directory outside of those of the raw data";
            let found = if raw.iter().any(|input| output.is(input)) { "one of them" } else { "one in them" };
            return refused(flag, output.path(), expected, found, next);
        }
    }
    if raw.iter().any(|input| files::lies_in(input, data.path())) {
        let expected = "a directory without raw data, which a model sees there";
        return refused("output_path", data.path(), expected, "raw data below it", next);
    }
    Ok(())
}

/// Whether one of two directories lies in the other.
fn is_nested(one: &Path, other: &Path) -> bool {
    files::lies_in(one, other) || files::lies_in(other, one)
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
