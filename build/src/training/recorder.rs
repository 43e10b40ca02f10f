//! When snapshots of a training are taken, and what goes into them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tracing::warn;

use super::course::{Course, Kept};
use super::snapshot::{RunId, Snapshot};
use super::snapshots::{self, SnapshotWriter};
use crate::data::dataset::{FileHash, Provenance};
use crate::engine::{EngineInfo, TrainingState};
use crate::error::{Error, Result};
use crate::files::lock::DirectoryLock;
use crate::optim::OptimizerSettings;
use crate::parameters::Parameters;

/// Takes a snapshot every so many epochs, and at last one of the state that training ends in.
#[derive(Debug)]
pub struct Recorder {
    run: RunId,
    parameters: Value,
    data: Vec<FileHash>,
    slots: Vec<String>,
    every: u32,
    instruction_set: String,
    writer: SnapshotWriter,
    /// The lock of MODEL_DIR.
    lock: Option<Arc<DirectoryLock>>,
    /// That it was lost: another directory may have the name now, and nothing is written there.
    lost: Option<Error>,
    /// The state after the last whole epoch, if it is not written.
    last: Option<Snapshot>,
}

impl Recorder {
    /// A recorder for a training with `parameters`, in which no `auto` is left; none if they ask for no snapshots. The
    /// training is `resumed`, or a new one.
    ///
    /// # Errors
    /// Their directory in `model_dir` cannot be written.
    pub fn new(
        model_dir: &Path,
        resumed: Option<RunId>,
        parameters: &Parameters,
        data: &Provenance,
        optimizer: &OptimizerSettings,
        engine: EngineInfo,
        lock: Option<Arc<DirectoryLock>>,
    ) -> Result<Option<Self>> {
        if parameters.snapshots == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            run: resumed.unwrap_or_else(|| snapshots::new_run(model_dir)),
            parameters: parameters.to_json(),
            data: data.files.clone(),
            slots: optimizer.slots().iter().map(|slot| slot.name.into()).collect(),
            every: parameters.snapshots,
            instruction_set: engine.instruction_set,
            writer: SnapshotWriter::new(model_dir)?,
            lock,
            lost: None,
            last: None,
        }))
    }

    /// Takes note of the trainer's `state` and the `course` after a whole epoch.
    pub fn epoch_done(&mut self, state: TrainingState, course: &Course) {
        self.last = None; // before the average and the best model take memory again
        let snapshot = Snapshot {
            run: self.run.clone(),
            parameters: self.parameters.clone(),
            data: self.data.clone(),
            slots: self.slots.clone(),
            state,
            average: course.average.clone(),
            kept: course.best.as_ref().map(|Kept { epoch, parameters, .. }| Kept {
                epoch: *epoch,
                parameters: parameters.clone(),
                evaluation: None,
            }),
            epochs: course.epochs.clone(),
            init: course.init.clone(),
            instruction_set: Some(self.instruction_set.clone()),
        };
        let is_due = course.whole().is_multiple_of(self.every);
        self.last = if is_due && self.may_write() { self.writer.write(snapshot) } else { Some(snapshot) };
    }

    /// Whether MODEL_DIR is still locked, with a warning when it is no more.
    fn may_write(&mut self) -> bool {
        if self.lost.is_none()
            && let Some(error) = self.lock.as_ref().and_then(|lock| lock.check_held().err())
        {
            warn!("{error}: the training goes on without snapshots");
            self.lost = Some(error);
        }
        self.lost.is_none()
    }

    /// Waits until all snapshots so far are written.
    pub fn settle(&mut self) {
        self.writer.settle();
    }

    /// Writes the state after the last whole epoch, and waits until all snapshots are written.
    ///
    /// # Errors
    /// The first that could not be written.
    pub fn close(mut self) -> Result<()> {
        let last = self.last.take().filter(|_| self.may_write());
        self.writer.close(last)?;
        self.lost.map_or(Ok(()), Err)
    }
}

impl Snapshot {
    /// The training's state for a trainer, and its course.
    pub fn into_course(self) -> (TrainingState, Course) {
        let Self { state, average, kept, epochs, init, .. } = self;
        let last = Kept {
            epoch: epochs.len() as u32,
            parameters: average.as_ref().unwrap_or(&state.parameters).clone(),
            evaluation: None,
        };
        (state, Course { epochs, average, last: Some(last), best: kept, init })
    }
}
