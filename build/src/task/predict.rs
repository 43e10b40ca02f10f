//! `mnist predict`: has a trained model read digits from images.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::{error, warn};

use crate::cli::Predict;
use crate::data::picture::prepare::{self, Prepared};
use crate::data::picture::{self, Doubt};
use crate::data::sets::{DataSource, Frame};
use crate::engine::{self, Network};
use crate::error::{Error, Result};
use crate::files;
use crate::interrupt::{self, EndAtOnce};
use crate::model::file::{self as weights, Model};
use crate::open;
use crate::output::artifacts;
use crate::output::console;
use crate::score::softmax;
use crate::task::verdict;
use crate::text;

/// The largest file that is read. Uncompressed, it takes as much again when it is decoded.
const MOST_BYTES: u64 = 100 << 20;
/// How many candidates are named besides the answer.
const OTHERS: usize = 2;

/// The answer for one image.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    image: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Digit {
        digit: usize,
        /// From 0 to 1.
        confidence: f64,
        /// The next best.
        others: Vec<Candidate>,
        /// Why not to trust the answer.
        doubt: Option<Doubt>,
    },
    Unread {
        error: String,
    },
}

#[derive(Debug, Clone, Serialize)]
struct Candidate {
    digit: usize,
    confidence: f64,
}

/// Reads every image and prints the answers.
///
/// # Errors
/// The model is missing or damaged, or an image could not be read. The others are answered nevertheless.
pub fn run(args: &Predict) -> Result<()> {
    let reading = EndAtOnce::begin(); // it may wait for stdin for ever
    interrupt::check()?;
    let (model, model_sha256) = weights::load_hashed(&args.model_dir)?;
    artifacts::warn_of_other_origin(&args.model_dir, &model_sha256);
    let trained_on = DataSource::of_model(&args.model_dir, &model)?;
    let frame = frame(&args.model_dir, &model, trained_on)?;
    if let Some(unfinished) = &model.unfinished {
        warn!("{}: the model is {unfinished}", args.model_dir.display());
    }
    if trained_on.stands_in_for().is_some() {
        warn!("the model was trained on {}", trained_on.description());
    }
    let mut engine = engine::checked::network(&args.model_dir, &model)?;

    let prepared: Vec<_> = args.images.iter().map(|path| read(path, frame)).collect();
    drop(reading);
    // A directory that cannot take them costs no answer.
    let shown = args.show.as_ref().map_or(Ok(()), |directory| show(directory, &args.images, &prepared, frame));
    let names: Vec<String> = args.images.iter().map(|path| path.display().to_string()).collect();
    let answers = answers(engine.as_mut(), model.shape.classes(), &names, &prepared)?;

    let printed = console::print(&if args.json { json(&answers) } else { table(&answers, trained_on) });
    let unread = prepared.iter().filter(|image| image.is_err()).count();
    for problem in prepared.iter().filter_map(|image| image.as_ref().err()) {
        error!("{problem}");
    }
    let doubtful = prepared.iter().flatten().filter(|image| image.doubt.is_some()).count();
    let images = answers.len();
    let mut failures = vec![];
    failures.extend((unread > 0).then_some(Error::Pictures { unread, images }));
    failures.extend((args.strict && doubtful > 0).then_some(Error::Doubtful { doubtful, images }));
    failures.extend([shown, printed].into_iter().filter_map(Result::err));
    verdict::end(failures)
}

/// Writes each image that the network sees into `directory`, as a PNG with the name of its file.
///
/// # Errors
/// A file cannot be written, or would replace one of `images` or anything but a file. All others are written.
fn show(directory: &Path, images: &[PathBuf], prepared: &[Result<Prepared>], frame: Frame) -> Result<()> {
    files::writable_directory(directory)?;
    let inputs: HashSet<PathBuf> = images.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut taken = HashSet::new();
    let mut result = Ok(());
    for (path, prepared) in images.iter().zip(prepared) {
        let Ok(prepared) = prepared else { continue };
        interrupt::check()?;
        let target = directory.join(shown_name(path, frame, &mut taken));
        let is_input = target.canonicalize().is_ok_and(|target| inputs.contains(&target));
        let written = match is_input {
            true => Err(Error::Occupied { path: target, found: "one of the images" }),
            false => files::write_named(&target, &picture::png(&prepared.image, frame.side)),
        };
        result = result.and(written);
    }
    result
}

/// A file name for what the network sees of the image at `path`, other than those in `taken`, to which it is added.
fn shown_name(path: &Path, Frame { side, .. }: Frame, taken: &mut HashSet<String>) -> String {
    let own = path.file_name().filter(|name| *name != "-").map_or("stdin".into(), |name| name.to_string_lossy());
    let mut name = format!("{own}.{side}x{side}.png");
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{own}.{number}.{side}x{side}.png");
    }
    name
}

/// The answers of `network`, which knows `classes` classes, for the images `names`; `prepared` holds their pixels.
fn answers<'a>(
    network: &mut dyn Network,
    classes: usize,
    names: &'a [String],
    prepared: &[Result<Prepared>],
) -> Result<Vec<Prediction<'a>>> {
    let pixels: Vec<u8> = prepared.iter().flatten().flat_map(|prepared| &prepared.image).copied().collect();
    let logits = network.logits(&pixels)?;
    let mut logits = logits.chunks_exact(classes);
    let answer = |(image, prepared): (&'a String, &Result<Prepared>)| {
        let outcome = match prepared {
            Ok(prepared) => outcome(logits.next().unwrap_or_default(), prepared.doubt),
            Err(problem) => Outcome::Unread { error: problem.to_string() },
        };
        Prediction { image, outcome }
    };
    Ok(names.iter().zip(prepared).map(answer).collect())
}

/// The frame of the images that `model` was trained on.
fn frame(model_dir: &Path, model: &Model, trained_on: DataSource) -> Result<Frame> {
    let like_mnist = || model.shape.image_side().map(Frame::like_mnist);
    trained_on.0.map(|set| set.frame).or_else(like_mnist).ok_or_else(|| {
        let problem = format!("expected inputs for a square image, found {}", model.shape.inputs());
        Error::Model { path: model_dir.join(weights::FILE_NAME), problem }
    })
}

/// The image at `path`, or on stdin if that is `-`, prepared for the network.
pub(super) fn read(path: &Path, frame: Frame) -> Result<Prepared> {
    let (read, path) = if path == Path::new("-") {
        if io::stdin().is_terminal() {
            tracing::info!("reading a picture from stdin");
        }
        (open::read_at_most(MOST_BYTES, io::stdin().lock()), Path::new("stdin"))
    } else {
        (open::regular_or_pipe(path).and_then(|file| open::read_at_most(MOST_BYTES, file)), path)
    };
    decoded(read, path, frame)
}

/// The same in the regular file at `path`: from anything else, nothing is read.
pub(super) fn read_regular(path: &Path, frame: Frame) -> Result<Prepared> {
    decoded(open::regular(path).and_then(|file| open::read_at_most(MOST_BYTES, file)), path, frame)
}

/// The image whose file at `path` holds the bytes in `read`, if these are not too many.
fn decoded(read: io::Result<Option<Vec<u8>>>, path: &Path, frame: Frame) -> Result<Prepared> {
    let bytes = read.map_err(Error::io("read", path))?;
    let too_large = || format!("expected a file of at most {} MiB, found a larger one", MOST_BYTES >> 20);
    (bytes.ok_or_else(too_large).and_then(|bytes| picture::decode(&bytes)))
        .and_then(|picture| prepare::prepare(&picture, frame))
        .map_err(|problem| Error::Picture { path: path.to_path_buf(), problem })
}

/// The answer in `logits` (K).
fn outcome(logits: &[f32], doubt: Option<Doubt>) -> Outcome {
    let shares = softmax(logits);
    let mut candidates: Vec<Candidate> =
        shares.into_iter().enumerate().map(|(digit, confidence)| Candidate { digit, confidence }).collect();
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let Candidate { digit, confidence } = candidates[0]; // a network has at least one class
    Outcome::Digit { digit, confidence, others: candidates.into_iter().skip(1).take(OTHERS).collect(), doubt }
}

fn json(answers: &[Prediction]) -> String {
    let line = |answer| serde_json::to_string(answer).unwrap_or_else(|e| unreachable!("fields become JSON: {e}"));
    answers.iter().map(|answer| line(answer) + "\n").collect()
}

/// A line for each image that could be read. If there are doubts, the last column names them.
fn table(answers: &[Prediction], trained_on: DataSource) -> String {
    let class = |label: usize| trained_on.0.map_or_else(|| label.to_string(), |set| set.classes[label].into());
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |answer: &Prediction| match &answer.outcome {
        Outcome::Unread { .. } => None,
        Outcome::Digit { digit, confidence, others, doubt } => {
            let others = others.iter().map(|other| format!("{} {:>7}", class(other.digit), percent(other.confidence)));
            let others = others.collect::<Vec<_>>().join(", ");
            let doubt = doubt.map_or("", Doubt::phrase).to_string();
            Some([answer.image.to_string(), class(*digit), percent(*confidence), others, doubt])
        }
    };
    let mut rows: Vec<_> = answers.iter().filter_map(row).collect();
    if !rows.is_empty() {
        let doubt = if rows.iter().all(|row| row[4].is_empty()) { "" } else { "doubt" };
        rows.insert(0, ["image", "digit", "confidence", "or else", doubt].map(String::from));
    }
    text::table(['<', '>', '>', '<', '<'], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first_and_the_next_two_after_it() {
        let mut logits = [0.0f32; 10];
        (logits[3], logits[7], logits[1]) = (9.0, 8.0, 7.0);
        let Outcome::Digit { digit, confidence, others, .. } = outcome(&logits, None) else { panic!() };
        assert_eq!((digit, others[0].digit, others[1].digit), (3, 7, 1));
        assert!(confidence > others[0].confidence && others[0].confidence > others[1].confidence);
    }
}
