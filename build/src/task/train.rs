//! `mnist train`: checks everything that can fail, trains, and writes the files of [`artifacts::ALL`].

pub mod plan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use self::plan::Plan;
use crate::cli::Train;
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::files::OutputDirectory;
use crate::files::lock::DirectoryLock;
use crate::files::set;
use crate::model::file as model_file;
use crate::output::artifacts::{self, Written};
use crate::output::console::{self, Console};
use crate::output::event::{Evaluation, Listener, Listeners, RunEvent};
use crate::output::finished::{Finished, training_seconds};
use crate::output::logs::with_logs;
use crate::output::names;
use crate::output::tensorboard::EventFiles;
use crate::output::unfinished::UnfinishedDirectory;
use crate::sha256;
use crate::task::verdict;
use crate::text;
use crate::training::deadline::Deadline;
use crate::training::recorder::Recorder;
use crate::training::{Training, snapshots};

/// Runs the task and prints its results, also those of a training that was stopped or missed its target.
///
/// # Errors
/// See [`logged`]; the logs hold the reason too.
pub fn run(args: &Train, console: &Console) -> Result<()> {
    let mut results = String::new();
    let ended = logged(args, || Dataset::load(&args.data_dir), console, &mut results);
    verdict::end([ended, console::print(&results)].into_iter().filter_map(Result::err).collect())
}

/// Trains as `args` say on `data`, and sets `results` to a summary for people once the files are written, even if an error
/// follows. The log files of the task and its events for TensorBoard go into a LOG_DIR that no other training writes at the
/// same time.
///
/// # Errors
/// See [`plan::prepare`] and [`carry_out`]; or another training writes there, or one of these files cannot be written.
pub fn logged(
    args: &Train,
    data: impl FnOnce() -> Result<Dataset>,
    console: &Console,
    results: &mut String,
) -> Result<()> {
    let mut log_dir = OutputDirectory::open(&args.log_dir)?;
    if log_dir.is(&args.model_dir) {
        log_dir = artifacts::open(&args.log_dir)?; // before it is locked
    }
    let lock = log_dir.lock()?.map(Arc::new);
    let ended = with_logs(console, &log_dir, "train", |listener| {
        let plan = plan::prepare(args, data, lock.clone())?;
        // Not before: TensorBoard would show every mistake in the parameters as a run.
        let mut events = EventFiles::create(log_dir.path())?;
        let ended = carry_out(plan, &mut Listeners(vec![listener, &mut events]), results);
        verdict::end([ended, events.close()].into_iter().filter_map(Result::err).collect())
    });
    if !results.is_empty() {
        *results += &text::named_values(&[("logs", args.log_dir.display().to_string())]);
    }
    ended
}

/// Trains as planned, writes the files, and sets `results` to a summary for people. MODEL_DIR is touched only after the last epoch.
///
/// # Errors
/// Training failed, see [`crate::training::TrainingRun`], or a file cannot be written, or the target accuracy was not reached.
/// Files that MODEL_DIR does not take are kept in LOG_DIR.
/// What ends training after the first epoch, such as a signal or a device that fails, leaves the files of an unfinished training.
pub fn carry_out(mut plan: Plan, listener: &mut dyn Listener, results: &mut String) -> Result<()> {
    let images: Vec<_> = plan.dataset.splits().map(|(split, images)| (split, images.len())).collect();
    listener.on(RunEvent::Data { source: plan.dataset.provenance.source, images: &images });
    listener.on(RunEvent::Parameters(&plan.used));
    listener.on(RunEvent::RunStarted);
    let (before, init) = (plan.course.epochs.len(), plan.course.init.clone());
    let training = Training {
        parameters: &plan.used,
        dataset: &plan.dataset,
        trainer: plan.trainer.as_mut(),
        augmenter: plan.augmenter,
        listener,
        course: plan.course,
        deadline: (plan.used.max_seconds > 0.0).then(|| Deadline::after(plan.begin.instant, plan.used.max_seconds)),
        recorder: plan.recorder.as_mut(),
    };
    let run = training.run();
    let engine = plan.trainer.info();
    drop(plan.trainer); // the files take memory too
    let trained = run.result?;
    let weights = model_file::encode(&trained.model);
    let finished = Finished {
        parameters: &plan.parameters,
        dataset: &plan.dataset,
        engine: &engine,
        init: init.as_ref(),
        replaces_init: init.as_ref().is_some_and(|init| plan::replaces(&plan.model_dir, &init.path)),
        epochs: &run.epochs,
        before,
        trained: &trained,
        model_sha256: &sha256::of(&weights),
        weights: &weights,
        began: plan.begin.time,
        seconds: plan.begin.seconds(),
    };
    let model_dir = &plan.model_dir;
    verdict::warn_of(&finished, model_dir);
    plan.recorder.iter_mut().for_each(Recorder::settle); // one that does not fit takes space until it fails
    let written = write_files(&finished, [model_dir, &plan.log_dir], plan.lock.as_deref(), plan.unfinished);
    // Even if they cannot be written: a training that goes on from the snapshot writes them.
    let snapshots = plan.recorder.map(Recorder::close);
    let snapshot = matches!(snapshots, Some(Ok(())));
    let mut failures = vec![];
    match written {
        Ok((directory, written)) => {
            if let Some(reason) = &trained.unfinished {
                listener.on(RunEvent::Unfinished { reason });
                verdict::tell_unfinished(&trained, reason, &directory, model_dir, snapshot);
            }
            *results = summary(&finished, &written.files);
            failures.extend(written.failure);
        }
        Err(failure) => {
            tell_unwritten(&failure, model_dir, plan.parameters.snapshots > 0, snapshot);
            failures.push(failure);
        }
    }
    failures.extend(snapshots.and_then(Result::err));
    failures.extend(verdict::of(&plan.parameters, trained).err());
    verdict::end(failures)
}

/// Says how to come to the files that `failure` kept from being written: from a `snapshot`, for which older ones may have to
/// give up their place in `model_dir` where the training `takes` some.
fn tell_unwritten(failure: &Error, model_dir: &Path, takes: bool, snapshot: bool) {
    let again = verdict::again_by_resume(model_dir);
    if snapshot {
        info!("the state of this training is in a snapshot: to write the files, {again}");
    }
    let problem = if let Error::Kept { problem, .. } = failure { problem } else { failure };
    let Error::Io { source, .. } = problem else { return };
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        && takes
        && snapshots::exist(model_dir)
    {
        let directory = model_dir.join(names::SNAPSHOTS);
        warn!("{}: takes space on that disk: move older snapshots elsewhere, then {again}", directory.display());
    }
}

/// Writes the files of `finished` into `model_dir`, or into `unfinished` if a finished model stands there and it is not. One that
/// diverged never takes the place of another model.
///
/// # Errors
/// See [`artifacts::write_all`]; or `unfinished` cannot be used any more. What these directories do not take is kept in
/// `log_dir`.
fn write_files(
    finished: &Finished,
    [model_dir, log_dir]: [&Path; 2],
    lock: Option<&DirectoryLock>,
    unfinished: UnfinishedDirectory,
) -> Result<(PathBuf, Written)> {
    let state = finished.trained.model.unfinished;
    let beside = state.is_some() && artifacts::is_finished(model_dir);
    let unfinished = match beside {
        true => unfinished.make().map_err(|problem| artifacts::keep_all(finished, model_dir, problem))?,
        false => unfinished,
    };
    let (directory, lock) = if beside { (unfinished.path(), unfinished.lock()) } else { (model_dir, lock) };
    let there = set::locate(directory, model_file::FILE_NAME);
    if matches!(finished.trained.unfinished, Some(Error::Diverged { .. })) && there.exists() {
        let problem = Error::io("replace", there)(io::Error::other("the new model is of a training that diverged"));
        return Err(artifacts::keep_all(finished, directory, problem));
    }
    let written = artifacts::write_all(finished, directory, lock).map_err(|problem| match problem {
        // With a journal, the new files count already.
        Error::Kept { .. } => problem,
        _ if set::has_journal(directory) => problem,
        _ => artifacts::keep_all(finished, log_dir, problem),
    })?;
    if written.failure.is_some() {
        warn!("{}: holds the model, but not all files that are made from it", directory.display());
    }
    let directory = directory.to_path_buf();
    if state.is_none() {
        unfinished.remove().unwrap_or_else(|problem| warn!("{problem}"));
    }
    Ok((directory, written))
}

fn summary(finished: &Finished, files: &[(&str, PathBuf)]) -> String {
    let mut lines = String::new();
    for Evaluation { split, score, .. } in &finished.trained.evaluations {
        lines += &text::named_values(&[
            (&format!("{split} accuracy"), text::percent(score.accuracy)),
            (&format!("{split} loss"), format!("{:.4}", score.loss)),
        ]);
    }
    let (count, training, all) = (finished.epochs.len(), training_seconds(finished.epochs), finished.seconds);
    let epochs = match count - finished.before {
        now if now < count => format!("{count} in {training:.1} s, {now} of them now; this run {all:.1} s"),
        _ => format!("{count} in {training:.1} s, {all:.1} s with everything"),
    };
    lines += &text::named_values(&[("data", finished.dataset.provenance.source.description()), ("epochs", epochs)]);
    if finished.has_choice() {
        lines += &text::named_values(&[("kept", format!("the model of epoch {}", finished.trained.epoch))]);
    }
    let files: Vec<_> = files.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    lines + &text::named_values(&files)
}
