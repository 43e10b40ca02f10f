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

use std::path::Path;

use crate::cli::{MedPerf, VOLUMES};
use crate::error::{Error, Result};

/// Runs one task.
///
/// # Errors
/// The task failed; or a volume that was not given is not mounted.
pub fn run(task: &MedPerf) -> Result<()> {
    check_mounts(task)?;
    match task {
        MedPerf::Prepare(args) => prepare::run(args),
        MedPerf::SanityCheck(args) => sanity_check::run(args),
        MedPerf::Statistics(args) => statistics::run(args),
        MedPerf::Infer(args) => infer::run(args),
        MedPerf::Evaluate(args) => evaluate::run(args),
    }
}

/// Checks that there are volumes where paths are those that MedPerf mounts: elsewhere each must be given.
fn check_mounts(task: &MedPerf) -> Result<()> {
    let (name, volumes) = task.volumes();
    let mounts = Path::new(VOLUMES);
    match volumes.iter().find(|(_, path)| path.starts_with(mounts) && !mounts.exists()) {
        None => Ok(()),
        Some((flag, path)) => {
            let flags: Vec<String> = volumes.iter().map(|(flag, _)| format!("--{flag}=PATH")).collect();
            Err(Error::Argument {
                flag,
                given: path.to_path_buf(),
                expected: "a volume that MedPerf mounts there",
                found: "none",
                next: Some(format!("outside of its containers, give each: `mnist medperf {name} {}`", flags.join(" "))),
            })
        }
    }
}
