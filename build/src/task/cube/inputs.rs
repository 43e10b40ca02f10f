//! How an input that a task lacks comes to be there.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::{PROGRAM, PlatformOfCube};
use crate::cli;
use crate::cube::check;
use crate::cube::invocation::Binding;
use crate::error::{CubeError, Error, found_at};
use crate::text::quoted;

impl PlatformOfCube {
    /// `error` of `task`, with the next step if it names an input that is not there.
    pub(super) fn advised(&self, error: Error, task: &Path) -> Error {
        match error {
            Error::Cube(problem @ CubeError::CubeInput { .. }) => {
                let CubeError::CubeInput { path, .. } = &problem else { return problem.into() };
                let next = self.way_to_input(path, task);
                CubeError::Advised { problem: Box::new(problem), next }.into()
            }
            other => other,
        }
    }

    /// Warns of the inputs that keep `tasks` from running now, one after the other.
    pub(super) fn warn_of_missing(&self, tasks: &[PathBuf]) {
        let mut made: Vec<PathBuf> = vec![];
        for task in tasks {
            let bindings = self.bindings(task);
            for Binding { name, path, claim, .. } in bindings.iter().filter(|binding| binding.is_input) {
                let is_made = made.iter().any(|output| path.starts_with(output));
                let is_brought = self.configuration.is_some() && self.source(path).is_some();
                let is_optional = path.file_name() == Some("null".as_ref()); // as in a run
                if claim.is_none()
                    && !path.exists()
                    && !is_made
                    && !is_brought
                    && !is_optional
                    && self.runner.is_here(path)
                {
                    let found = found_at(path);
                    warn!("{name}: a run will not start: expected {}, found {found}", path.display());
                }
            }
            made.extend(bindings.into_iter().filter(|binding| !binding.is_input).map(|binding| binding.path));
        }
    }

    /// How the input `path` of `task` comes to be there.
    fn way_to_input(&self, path: &Path, task: &Path) -> String {
        let workspace = &self.cube.workspace;
        let is_missing = path.symlink_metadata().is_err();
        if path.starts_with(workspace) && !workspace.exists() {
            let ways = self.ways_to_all(task);
            let make =
                if ways.is_empty() { "make it with the inputs of the task".into() } else { ways.join(", then ") };
            format!("the workspace {} is not there: see --workspace, or {make}", workspace.display())
        } else if let Some(task) = self.maker(path).filter(|_| is_missing) {
            let command = self.command(&task).map(|command| format!(": `{command}`")).unwrap_or_default();
            format!("run the task {task} first, which makes it{command}")
        } else if let Some(source) = self.source(path).filter(|_| is_missing) {
            format!("copy {} there, which comes with the cube", source.display())
        } else if self.configuration.is_some() {
            let below =
                if is_missing && path.starts_with(workspace) { "; a relative path is below the workspace" } else { "" };
            format!("name the right path in the cube's file, or give it as NAME=PATH{below}")
        } else {
            "name the right path in the run configuration".into()
        }
    }

    /// What brings the inputs of `task` into a new workspace.
    fn ways_to_all(&self, task: &Path) -> Vec<String> {
        let inputs = self.bindings(task).into_iter().filter(|binding| binding.is_input && binding.claim.is_none());
        let way = |Binding { name, path, .. }: Binding| {
            let made = self.maker(&path).map(|task| match self.command(&task) {
                Some(command) => format!("run the task {task}, which makes {name}: `{command}`"),
                None => format!("run the task {task}, which makes {name}"),
            });
            made.or_else(|| Some(format!("copy {} to {}", self.source(&path)?.display(), path.display())))
        };
        inputs.filter_map(way).collect()
    }

    /// The command that runs the cube's `task` in the same place, where one is known.
    fn command(&self, task: &str) -> Option<String> {
        let has_name = self.configuration.is_some() || self.cube.names_in("run").iter().any(|name| name == task);
        has_name.then(|| format!("{} cube run --task={} {}", cli::started_as(), quoted(Path::new(task)), self.flags))
    }

    /// What comes with the cube for `path` in another workspace.
    fn source(&self, path: &Path) -> Option<PathBuf> {
        let (workspace, own) = (&self.cube.workspace, self.cube.own_workspace());
        let below = path.strip_prefix(workspace).ok().filter(|_| *workspace != own)?;
        Some(own.join(below)).filter(|source| source.exists())
    }

    /// The parameters of a task that was found before.
    fn bindings(&self, task: &Path) -> Vec<Binding> {
        let bindings = match &self.configuration {
            Some(configuration) => configuration.task(task).map(|task| task.bindings()),
            None => self.invocation(task).map(|invocation| invocation.bindings),
        };
        bindings.unwrap_or_default()
    }

    /// A task of the cube with an output in which `path` is.
    fn maker(&self, path: &Path) -> Option<String> {
        let tasks: Vec<(String, Vec<Binding>)> = match &self.configuration {
            Some(configuration) => {
                configuration.tasks.iter().map(|task| (task.name.clone(), task.bindings())).collect()
            }
            None => {
                let configurations = check::configurations(&self.cube, &PROGRAM).ok()?;
                configurations.invocations.into_iter().map(|one| (one.task, one.bindings)).collect()
            }
        };
        let makes = |binding: &Binding| !binding.is_input && binding.claim.is_none() && path.starts_with(&binding.path);
        let reads = |binding: &Binding| binding.is_input && binding.path == path;
        let is_maker = |bindings: &[Binding]| bindings.iter().any(makes) && !bindings.iter().any(reads);
        tasks.into_iter().find(|(_, bindings)| is_maker(bindings)).map(|(task, _)| task)
    }
}
