//! Configuration 2.0, which the runners 0.0.4 to 0.0.9 read: a cube whose tasks and platforms are in one file.
//!
//! ```text
//! file -> overrides: -Pkey=value, name=path -> effective: defaults, runner -> interpolation: ${...} -> Configuration
//! ```

use std::path::Path;

use serde_yaml::Value;

mod effective;
mod interpolation;
mod overrides;
mod task;
mod workspace;

pub use self::effective::{Effective, Section, effective, printed};
pub use self::interpolation::uses;
pub use self::overrides::{Changes, Override, TaskArgument};

use self::task::read_task;
pub use self::task::{ConfiguredParameter, ConfiguredTask};
use super::invocation::Invocation;
use super::locate::key;
use super::schema::{Mismatch, scalar};
use crate::error::{CubeError, Error, Result};
use crate::text::suggestion;

/// A cube of configuration 2.0 in which nothing is wrong.
#[derive(Debug)]
pub struct Configuration {
    /// The cube's name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Whether the cube is this program's.
    pub is_ours: bool,
    /// In the file's order.
    pub tasks: Vec<ConfiguredTask>,
    /// What the tasks were read from.
    pub effective: Effective,
}

impl Configuration {
    /// Reads the tasks of an effective configuration. What is wrong with one is left in `faults`.
    pub fn read(effective: Effective, workspace: &Path, faults: &mut Vec<Mismatch>) -> Self {
        let text = |name: &str| effective.resolved.get(name).and_then(scalar);
        let (name, version) = (text("name").unwrap_or_default(), text("version"));
        let listed = effective.resolved.get("tasks").and_then(Value::as_mapping).into_iter().flatten();
        let tasks: Vec<_> = listed.filter_map(|(name, task)| read_task(name, task, workspace, faults)).collect();
        if tasks.is_empty() && faults.is_empty() {
            faults.push(Mismatch::new(&[key("tasks")], "the cube's tasks", "none"));
        }
        Self { name, version, is_ours: false, tasks, effective }
    }

    /// The task `name`, with its parameters bound to what they are on this machine now.
    ///
    /// # Errors
    /// There is no such task, or an input of an unknown type is missing.
    pub fn invocation(&self, name: &Path) -> Result<Invocation> {
        let task = self.task(name)?;
        let is_missing =
            |one: &&ConfiguredParameter| one.is_file.is_none() && !one.path.is_file() && !one.path.is_dir();
        if let Some(ConfiguredParameter { name, path, .. }) = task.parameters.iter().find(is_missing) {
            let (name, path) = (name.clone(), path.clone());
            return Err(CubeError::CubeInput { name, path, expected: "file or directory" }.into());
        }
        Ok(Invocation {
            cube: self.name.clone(),
            is_ours: self.is_ours,
            task: task.name.clone(),
            entrypoint: task.entrypoint.clone(),
            bindings: task.bindings(),
        })
    }

    /// The task `name`.
    ///
    /// # Errors
    /// There is no such task.
    pub fn task(&self, name: &Path) -> Result<&ConfiguredTask> {
        let names: Vec<&str> = self.tasks.iter().map(|task| &*task.name).collect();
        self.tasks.iter().find(|task| Path::new(&task.name) == name).ok_or_else(|| Error::Argument {
            flag: "task",
            given: name.into(),
            expected: "a task of the cube",
            found: "none of this name",
            next: Some(suggestion(&name.to_string_lossy(), names.iter().copied(), &names)),
        })
    }

    /// The names of the sections that it has.
    pub fn sections(&self) -> Vec<&'static str> {
        let names = [Section::Docker, Section::Singularity].map(Section::name);
        let has = |name: &&str| self.effective.resolved.get(*name).is_some_and(Value::is_mapping);
        names.into_iter().filter(has).collect()
    }

    /// The names of the platforms that follow from these.
    pub fn platforms(&self) -> Vec<&'static str> {
        let sections = self.sections();
        // Singularity without a section follows from that of Docker.
        if sections.contains(&Section::Docker.name()) {
            return [Section::Docker, Section::Singularity].map(Section::name).into();
        }
        sections
    }

    /// The values of `runner`.
    pub fn runner(&self) -> &Value {
        self.effective.resolved.get("runner").unwrap_or(&Value::Null)
    }

    /// Whether the cube asks for accelerators.
    pub fn has_accelerators(&self) -> bool {
        let count = self.effective.resolved.get("platform").and_then(|platform| platform.get("accelerator_count"));
        count.and_then(Value::as_u64).is_some_and(|count| count > 0)
    }
}
