//! `mnist medperf`: the tasks of MedPerf's three containers, a file each, on one image: `prepare`, `sanity_check` and
//! `statistics` of the data preparator, `infer` of the model, `evaluate` of the evaluator.
//!
//! A container has no network, cannot write its inputs, and runs as a user without a name.
//!
//! Source: `docs/containers/containers.md` of <https://github.com/mlcommons/medperf>.

mod evaluate;
mod infer;
mod output;
mod pictures;
mod predictions;
mod prepare;
mod prepared;
mod sanity_check;
mod statistics;

use crate::cli::MedPerf;
use crate::error::Result;

/// Runs one task.
///
/// # Errors
/// The task failed.
pub fn run(task: &MedPerf) -> Result<()> {
    match task {
        MedPerf::Prepare(args) => prepare::run(args),
        MedPerf::SanityCheck(args) => sanity_check::run(args),
        MedPerf::Statistics(args) => statistics::run(args),
        MedPerf::Infer(args) => infer::run(args),
        MedPerf::Evaluate(args) => evaluate::run(args),
    }
}
