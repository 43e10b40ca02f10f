//! A virtual machine of Google's cloud. The published runner makes one and then uses ssh; this program leaves the machine to
//! Google's own tools.

use super::super::command::HostCommand;
use super::super::invocation::Invocation;
use super::super::schema::{Expected, Schema, optional, required};
use super::{Platform, Runner};
use crate::error::{CubeError, Result};

/// `mlcube_gcp` of the published runner.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_gcp",
        fields: &[
            required("gcp", Expected::Any),
            required("instance", Expected::Any),
            optional("platform", Expected::Text),
        ],
    },
    runner: |_, _, _| Box::new(Gcp),
};

/// What is understood, and not run.
#[derive(Debug)]
pub struct Gcp;

impl Runner for Gcp {
    fn find(&mut self) -> Result<()> {
        Err(CubeError::Gcp.into())
    }

    fn command(&self, _: &Invocation) -> Result<HostCommand> {
        Err(CubeError::Gcp.into())
    }
}
