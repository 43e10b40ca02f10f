//! The checks after a training: is the model better than chance and than the one before, and is the target reached?

use std::path::Path;

use tracing::{info, warn};

use crate::cube::invocation;
use crate::data::dataset::TEST;
use crate::error::{Error, Result};
use crate::output::console;
use crate::output::event::SplitScore;
use crate::output::finished::{Finished, Trained};
use crate::output::metrics;
use crate::parameters::Parameters;
use crate::text;

/// A model whose accuracy is lower by more than this than that of the one that it replaces deserves a warning. Seeds alone
/// make a third of it.
const MUCH_WORSE: f64 = 0.003;

/// Warns of a model that is no better than chance, or worse than the one in `model_dir`.
pub fn warn_of(finished: &Finished, model_dir: &Path) {
    let evaluation = finished.trained.final_evaluation();
    let (split, accuracy) = (evaluation.split, evaluation.score.accuracy);
    let images = |class: &Vec<u32>| class.iter().sum::<u32>();
    let confusion = &evaluation.score.confusion;
    let largest = confusion.iter().map(images).max().unwrap_or(0);
    let all = confusion.iter().map(images).sum::<u32>();
    // Who always answers with the most frequent class is right as often. Where all are of one class, that says nothing.
    if largest < all && accuracy <= f64::from(largest) / f64::from(all) {
        let accuracy = text::percent(accuracy);
        warn!("the model is no better than chance: {split} accuracy {accuracy}; try another learning_rate");
    }
    let replaces = split == TEST && finished.trained.model.unfinished.is_none();
    let before = replaces.then(|| accuracy_before(model_dir, finished)).flatten();
    if let Some(before) = before.filter(|before| before - accuracy > MUCH_WORSE) {
        let [accuracy, before] = [accuracy, before].map(text::percent);
        warn!(
            "the model is worse than the one in {}, which had a test accuracy of {before}: {accuracy}",
            model_dir.display()
        );
    }
}

/// The test accuracy of the finished model in `model_dir`, if it had the same data as the `finished` training.
fn accuracy_before(model_dir: &Path, finished: &Finished) -> Option<f64> {
    let metrics = metrics::read(model_dir)?;
    let files = serde_json::to_value(&finished.dataset.provenance.files).ok()?;
    (metrics["data"]["files"] == files).then(|| metrics[TEST]["accuracy"].as_f64()).flatten()
}

/// Says how far the training came whose model is now in `directory`, what ended it, and how to go on: from the snapshot in
/// `model_dir` if there is one, else from the model.
pub fn tell_unfinished(trained: &Trained, reason: &Error, directory: &Path, model_dir: &Path, snapshot: bool) {
    let Some(unfinished) = &trained.model.unfinished else { return };
    warn!("{}: holds a model that is {unfinished}: {reason}", directory.display());
    if directory != model_dir {
        warn!("{}: still holds the finished model of before", model_dir.display());
    }
    let model = text::quoted(directory);
    // What diverged does so again from its snapshot.
    match snapshot && !matches!(reason, Error::Diverged { .. }) {
        true => info!("to go on, {}", again_by_resume(model_dir)),
        false => info!("to begin with this model, {}", again(&format!("--init={model}"), "")),
    }
    if trained.final_evaluation().split != TEST {
        info!("the test set was not scored: `mnist evaluate` with --model_dir={model} does it");
    }
}

/// How to go on from the snapshot in `model_dir`.
pub fn again_by_resume(model_dir: &Path) -> String {
    again("--resume", &format!(" --model_dir={}", text::quoted(model_dir)))
}

/// How to train again with `flag`, which the tasks of a cube do not have; `place` is the flag that is given for them.
fn again(flag: &str, place: &str) -> String {
    match invocation::is_in_cube() {
        true => format!("train outside the cube: mnist train {flag}{place}"),
        false => format!("train again with {flag}"),
    }
}

/// Ends a task that had `failures`. All are named: one by what this returns, which is the signal, since its exit code is
/// awaited, or else the first.
///
/// # Errors
/// There is one.
pub fn end(mut failures: Vec<Error>) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let signal = failures.iter().position(|failure| matches!(failure, Error::Interrupted { .. }));
    let named_last = failures.remove(signal.unwrap_or(0));
    failures.iter().for_each(console::report);
    Err(named_last)
}

/// Checks that the training came to its end and reached its target.
///
/// # Errors
/// A signal stopped it, it failed, or it did not reach its target.
pub fn of(parameters: &Parameters, trained: Trained) -> Result<()> {
    match trained.unfinished {
        // The end that was asked for.
        None | Some(Error::OutOfTime { .. }) => {}
        Some(failure) => return Err(failure),
    }
    match trained.target_reached(parameters) {
        Some(false) => {
            let (expected, SplitScore { split, accuracy: found, .. }) = (parameters.target_accuracy, trained.watched);
            Err(Error::TargetMissed { split, expected, found })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CubeError;

    #[test]
    fn a_signal_is_the_end_whatever_else_failed() {
        assert!(end(vec![]).is_ok());
        let failures = || vec![Error::OutOfTime { seconds: 1.0 }, CubeError::Unconfirmed.into()];
        assert!(matches!(end(failures()), Err(Error::OutOfTime { .. })));
        for at in 0..=2 {
            let mut failures = failures();
            failures.insert(at, Error::Interrupted { signal: 15 });
            assert_eq!(end(failures).unwrap_err().exit_code(), 143);
        }
    }
}
