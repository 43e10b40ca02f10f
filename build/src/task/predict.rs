//! `mnist predict`: what digits images show, by a trained model.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use tracing::{error, warn};

use crate::cli::Predict;
use crate::data::picture::{self, prepare};
use crate::data::sets::DataSource;
use crate::engine;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::file as weights;
use crate::model::{CLASSES, PIXELS};
use crate::output::console;
use crate::score::softmax;

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;
/// How many candidates are told besides the answer.
const OTHERS: usize = 2;

/// What an image shows.
#[derive(Debug, Serialize)]
struct Answer<'a> {
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

/// Answers for every image and prints the answers.
///
/// # Errors
/// The model is not what it should be, or an image could not be read; the others are answered nevertheless.
pub fn run(args: &Predict) -> Result<()> {
    interrupt::end_at_once(); // nothing is written, and stdin may be a terminal at which nobody types
    interrupt::check()?;
    let model = weights::load(&args.model_dir)?;
    if model.data == DataSource::Synthetic {
        warn!("the model was trained on {}", model.data.description());
    }
    let mut engine = engine::choice::network(&model.shape, &model.parameters)?;

    let names: Vec<String> = args.images.iter().map(|path| path.display().to_string()).collect();
    let prepared: Vec<_> = args.images.iter().map(|path| read(path)).collect();
    let pixels: Vec<u8> = prepared.iter().flatten().flatten().copied().collect();
    debug_assert_eq!(pixels.len() % PIXELS, 0);
    let logits = engine.logits(&pixels)?;
    let mut logits = logits.chunks_exact(CLASSES);
    let answers: Vec<Answer> = names
        .iter()
        .zip(&prepared)
        .map(|(image, prepared)| {
            let outcome = match prepared {
                Ok(_) => outcome(logits.next().unwrap_or_default()),
                Err(problem) => Outcome::Unread { error: problem.to_string() },
            };
            Answer { image, outcome }
        })
        .collect();

    console::print(&if args.json { json(&answers) } else { table(&answers) })?;
    let unread = prepared.iter().filter(|image| image.is_err()).count();
    for problem in prepared.iter().filter_map(|image| image.as_ref().err()) {
        error!("{problem}");
    }
    if unread > 0 { Err(Error::Pictures { unread, images: answers.len() }) } else { Ok(()) }
}

/// The image at `path`, or on stdin if it is `-`, prepared.
fn read(path: &Path) -> Result<[u8; PIXELS]> {
    let mut bytes = Vec::new();
    let stdin = path == Path::new("-");
    let read = match stdin {
        true => io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)),
    };
    let path = if stdin { Path::new("stdin") } else { path };
    let size = read.map_err(Error::io("read", path))?;
    let picture = match size as u64 {
        ..=MOST_BYTES => picture::decode(&bytes),
        _ => Err(format!("expected a file of at most {} MiB, found a larger one", MOST_BYTES >> 20)),
    };
    picture
        .and_then(|picture| prepare::prepare(&picture))
        .map_err(|problem| Error::Picture { path: path.to_path_buf(), problem })
}

/// The answer that `logits` (K) are.
fn outcome(logits: &[f32]) -> Outcome {
    let shares = softmax(logits);
    let mut candidates: Vec<Candidate> =
        shares.into_iter().enumerate().map(|(digit, confidence)| Candidate { digit, confidence }).collect();
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let Candidate { digit, confidence } = candidates[0];
    Outcome::Digit { digit, confidence, others: candidates[1..=OTHERS].to_vec() }
}

fn json(answers: &[Answer]) -> String {
    let line = |answer| serde_json::to_string(answer).unwrap_or_else(|e| unreachable!("fields become JSON: {e}"));
    answers.iter().map(|answer| line(answer) + "\n").collect()
}

/// One line an image; those that could not be read have none.
fn table(answers: &[Answer]) -> String {
    let width = answers.iter().map(|answer| answer.image.chars().count()).max().unwrap_or(0).max("image".len());
    let mut text = String::new();
    for answer in answers {
        let Outcome::Digit { digit, confidence, others } = &answer.outcome else { continue };
        if text.is_empty() {
            let _ = writeln!(text, "{:<width$}  digit  confidence  or else", "image");
        }
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let others: Vec<String> =
            others.iter().map(|other| format!("{} {:>7}", other.digit, percent(other.confidence))).collect();
        let name = answer.image;
        let _ = writeln!(text, "{name:<width$}  {digit:>5}  {:>10}  {}", percent(*confidence), others.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first_and_the_next_two_after_it() {
        let mut logits = [0.0f32; CLASSES];
        (logits[3], logits[7], logits[1]) = (9.0, 8.0, 7.0);
        let Outcome::Digit { digit, confidence, others } = outcome(&logits) else { panic!() };
        assert_eq!((digit, others[0].digit, others[1].digit), (3, 7, 1));
        assert!(confidence > others[0].confidence && others[0].confidence > others[1].confidence);
    }
}
