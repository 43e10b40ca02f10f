//! `predictions.json`: the probabilities of every class for every image, with the hashes of model and images.
//!
//! Any model may write it. The evaluator believes nothing in it that it can check.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::prepared::{self, Labels};
use crate::error::{Error, MedPerfError, Result};
use crate::open;
use crate::text::{Problem, counted, different_hashes, quoted, shortened};

/// The name of the file.
pub const FILE_NAME: &str = "predictions.json";
/// How a file of this program begins.
pub const BEGINNING: &str = "{\n\"model_sha256\": ";
/// The most bytes that a probability takes, and the rest of the file.
const BYTES_EACH: usize = 40;
const BYTES_BESIDES: usize = 1 << 16;
/// What is wrong with its JSON takes fewer bytes, unless it quotes the file.
const LONGEST_PROBLEM: usize = 200;
/// How far the sum of an image's probabilities may be from 1.
const TOLERANCE: f64 = 1e-3;
/// The next step after a fault.
const NEXT: &str = "let the model infer again on the data that these labels are of; docs/medperf.md has the format";

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictions {
    /// SHA-256 of the model's file.
    pub model_sha256: String,
    /// SHA-256 of the file of the images.
    pub images_sha256: String,
    /// (K) the names of the classes.
    pub classes: Vec<String>,
    /// (N,K) in the order of the images, each from 0 to 1.
    pub probabilities: Vec<Vec<f64>>,
}

impl Predictions {
    /// The file's bytes: a line for each image.
    pub fn encode(&self) -> Vec<u8> {
        let rows: Vec<String> = self.probabilities.iter().map(json).collect();
        let [model, images] = [&self.model_sha256, &self.images_sha256].map(json);
        let classes = json(&self.classes);
        let head = format!("{BEGINNING}{model},\n\"images_sha256\": {images},\n\"classes\": {classes},\n");
        format!("{head}\"probabilities\": [\n{}\n]\n}}\n", rows.join(",\n")).into_bytes()
    }

    /// Reads the file in `directory`, and checks that it is about the images of `labels`.
    ///
    /// # Errors
    /// It is missing, damaged, of other images, or holds no probabilities.
    pub fn read(directory: &Path, labels: &Labels) -> Result<Self> {
        if directory.is_file() {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Err(Error::Argument {
                flag: "predictions",
                given: directory.into(),
                expected: "the directory with predictions.json",
                found: "a file",
                next: Some(format!("give the directory of predictions, such as {}", quoted(parent))),
            });
        }
        let path = directory.join(FILE_NAME);
        let fault = |problem: Problem| Error::from(MedPerfError::Fault { path: path.clone(), problem, next: NEXT });
        let most = labels.labels.len() * prepared::classes().len() * BYTES_EACH + BYTES_BESIDES;
        let bytes = open::regular(&path).and_then(|file| open::read_at_most(most as u64, file));
        let bytes = bytes.map_err(Error::io("read", &path)).map_err(|error| MedPerfError::input(error, NEXT))?;
        let bytes = bytes.ok_or_else(|| fault(Problem::of_file(too_long(&path, labels, most))))?;
        let read: Self = serde_json::from_slice(&bytes)
            .map_err(|error| fault(Problem { line: Some(error.line()), text: without_place(&error) }))?;
        read.check(labels).map_err(|problem| fault(Problem::of_file(problem)))?;
        Ok(read)
    }

    fn check(&self, labels: &Labels) -> std::result::Result<(), String> {
        if !prepared::is_sha256(&self.model_sha256) {
            return Err("model_sha256: expected a SHA-256 in hexadecimal".into());
        } else if self.images_sha256 != labels.images_sha256 {
            return Err(of_other_images(labels, &self.images_sha256));
        } else if self.classes != prepared::classes() {
            return Err(format!(
                "classes: expected {}, found {}",
                prepared::classes().join(", "),
                shortened(&self.classes.join(", "))
            ));
        }
        let (expected, found) = (labels.labels.len(), self.probabilities.len());
        if found != expected {
            return Err(format!("probabilities: expected those of {expected} images, found {found}"));
        }
        let wrong = |row: &[f64]| {
            let sum: f64 = row.iter().sum();
            if row.len() != self.classes.len() {
                Some(format!("expected {} numbers, found {}", self.classes.len(), row.len()))
            } else if let Some(number) = row.iter().find(|p| !(0.0..=1.0).contains(*p)) {
                Some(format!("expected numbers from 0 to 1, found {number}"))
            } else {
                ((sum - 1.0).abs() > TOLERANCE).then(|| format!("expected a sum of 1, found {sum}"))
            }
        };
        let first = self.probabilities.iter().enumerate().find_map(|(image, row)| Some((image, wrong(row)?)));
        first.map_or(Ok(()), |(image, problem)| Err(format!("probabilities of image {image}: {problem}")))
    }

    /// The logarithms of the probabilities (N,K), which are logits. That of 0 is finite.
    pub fn logits(&self) -> Vec<f32> {
        self.probabilities.iter().flatten().map(|p| p.max(f64::MIN_POSITIVE).ln() as f32).collect()
    }
}

/// What is wrong with the file at `path`, which has more than `most` bytes: more images perhaps, which are other ones.
fn too_long(path: &Path, labels: &Labels, most: usize) -> String {
    match images_sha256(path).filter(|found| *found != labels.images_sha256) {
        Some(found) => of_other_images(labels, &found),
        None => format!("expected at most {most} bytes for {}, found more", counted(labels.labels.len(), "image")),
    }
}

fn of_other_images(labels: &Labels, found: &str) -> String {
    let problem = different_hashes(&labels.images_sha256, found);
    format!("images_sha256: are predictions of other images: {problem}")
}

/// The SHA-256 of the images, if the file at `path` has it near its beginning, as this program writes it.
fn images_sha256(path: &Path) -> Option<String> {
    let mut head = vec![];
    open::regular(path).ok()?.take(BYTES_BESIDES as u64).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let (_, value) = head.split_once("\"images_sha256\":")?;
    let (hash, _) = value.trim_start().strip_prefix('"')?.split_once('"')?;
    prepared::is_sha256(hash).then(|| hash.into())
}

/// What `error` says, without the line, which the message has already. A long text is one of the file's.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
    if text.len() > LONGEST_PROBLEM { shortened(text) } else { text.to_string() }
}

fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|e| unreachable!("texts and numbers become JSON: {e}"))
}
