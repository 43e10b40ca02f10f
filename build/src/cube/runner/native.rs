//! This machine, without a container: the task is a process of this program.

use std::process::ExitStatus;

use super::super::command::HostCommand;
use super::super::invocation::Invocation;
use super::super::schema::Schema;
use super::{Platform, Runner};
use crate::error::{CubeError, Error, Result};

/// `mlcube_native`, which only `mnist cube` knows.
pub const PLATFORM: Platform =
    Platform { schema: Schema { name: "mlcube_native", fields: &[] }, runner: |_, _, _| Box::new(Native) };

/// This program.
#[derive(Debug)]
pub struct Native;

impl Runner for Native {
    fn command(&self, invocation: &Invocation) -> Result<HostCommand> {
        if !invocation.is_ours || !invocation.entrypoint.is_empty() {
            let (cube, task) = (invocation.cube.clone(), Some(invocation.task.clone()));
            return Err(CubeError::ForeignTask { cube, task }.into());
        }
        let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
        Ok(HostCommand::new(program).envs(invocation.names()).args(invocation.arguments()))
    }

    /// The task says itself, in the same words, that a signal ended it.
    fn run(&self, invocation: &Invocation) -> Result<ExitStatus> {
        self.command(invocation)?.run().map_err(|error| match error {
            Error::Interrupted { signal } => CubeError::Told { signal }.into(),
            other => other,
        })
    }
}
