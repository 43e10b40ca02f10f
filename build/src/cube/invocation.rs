//! A task to run, with its parameters bound to paths of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::NAME;
use super::listing::is_inside;
use crate::error::{CubeError, Result};
use crate::files;

/// The variable by which a task learns its own name.
const TASK_NAME: &str = "MLCUBE_TASK_NAME";

/// Whether this process is a task of a cube, which has no other flags than its parameters.
pub fn is_in_cube() -> bool {
    std::env::var_os(TASK_NAME).is_some()
}

/// A run configuration in which nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The cube's name.
    pub cube: String,
    /// Whether the cube is this program's.
    pub is_ours: bool,
    /// The task's name.
    pub task: String,
    /// The words of the task's own program in the container. Without one, the image's program gets the task's name.
    pub entrypoint: Vec<String>,
    /// Its parameters, inputs before outputs, each in the file's order.
    pub bindings: Vec<Binding>,
}

/// A parameter of a task and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The parameter's name, without hyphens.
    pub name: String,
    /// Its value; absolute if the workspace is, and relative to the claim on one.
    pub path: PathBuf,
    /// The claim of a Kubernetes cluster that it is on; none of a path of this machine.
    pub claim: Option<String>,
    /// Whether the path is a file. Otherwise it is a directory.
    pub is_file: bool,
    /// Whether the task reads it. Otherwise the task writes it.
    pub is_input: bool,
    /// Whether the task may write there.
    pub is_writable: bool,
}

impl Binding {
    /// One that is on no claim, and written if it is an output.
    pub fn of(name: &str, path: impl Into<PathBuf>, is_file: bool, is_input: bool) -> Self {
        Self { name: name.into(), path: path.into(), claim: None, is_file, is_input, is_writable: !is_input }
    }

    /// The directory that the task needs: the path itself, or the directory of a file.
    pub fn directory(&self) -> &Path {
        if self.is_file { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }
}

/// The path that `value` of a run configuration stands for: `$WORKSPACE` is replaced, and a relative path is below
/// `workspace`. None where [`is_path`] refuses what remains.
pub fn resolved(value: &str, workspace: &Path) -> Option<PathBuf> {
    let rest = value.strip_prefix("$WORKSPACE").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let below = rest.map_or(value, |rest| rest.trim_start_matches('/'));
    // Collected from components, which drops a slash at the end: with it a file would have no parent.
    (rest.is_some() && !below.contains('$') || is_path(below)).then(|| workspace.join(below).components().collect())
}

/// The path on a claim that `value` of a run configuration stands for, relative to the claim. None where [`is_path`] refuses
/// it, or where it leads out.
pub fn on_claim(value: &str) -> Option<PathBuf> {
    let below: PathBuf = Path::new(value.trim_start_matches('/')).components().collect();
    (is_path(value) && is_inside(&below)).then_some(below)
}

/// Whether `text` means the same path to a person, who may think of a shell, and to this program: it holds no variable,
/// and no `~` where a shell would replace it.
pub fn is_path(text: &str) -> bool {
    !text.contains('$') && !text.starts_with('~')
}

impl Invocation {
    /// A task of this program's cube.
    pub fn of(task: &str, bindings: Vec<Binding>) -> Self {
        Self { cube: NAME.into(), is_ours: true, task: task.into(), entrypoint: vec![], bindings }
    }

    /// The command line of the program on this machine: the task, then its parameters.
    pub fn arguments(&self) -> Vec<OsString> {
        let flag = |Binding { name, path, .. }: &Binding| {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(path);
            flag
        };
        std::iter::once(OsString::from(&self.task)).chain(self.bindings.iter().map(flag)).collect()
    }

    /// The run configuration that means it, in which `value` is written for a path.
    pub fn as_configuration(&self, value: &dyn Fn(&Path) -> String) -> String {
        let bound = |is_input| -> serde_json::Map<String, serde_json::Value> {
            let bindings = self.bindings.iter().filter(|binding| binding.is_input == is_input);
            bindings.map(|binding| (binding.name.clone(), value(&binding.path).into())).collect()
        };
        // JSON is YAML.
        serde_json::json!({
            "schema_type": "mlcube_invoke",
            "schema_version": "1.0.0",
            "task_name": self.task,
            "input_binding": bound(true),
            "output_binding": bound(false),
        })
        .to_string()
    }

    /// The beginning of its command line in a container.
    pub fn words(&self) -> &[String] {
        if self.entrypoint.is_empty() { std::slice::from_ref(&self.task) } else { &self.entrypoint }
    }

    /// The variables by which a task learns what runs it.
    pub fn names(&self) -> [(&'static str, &str); 2] {
        [("MLCUBE_NAME", &self.cube), (TASK_NAME, &self.task)]
    }

    /// The parameters that are on no claim.
    pub fn here(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|binding| binding.claim.is_none())
    }

    /// Checks that those inputs exist that are here. Cubes name a file `null` in place of one that is left out, and a
    /// directory that is an output too is made.
    ///
    /// # Errors
    /// One does not, or is a file where a directory is expected or the other way round.
    pub fn check_inputs(&self, is_here: &dyn Fn(&Path) -> bool) -> Result<()> {
        let is_output = |path: &Path| self.bindings.iter().any(|binding| !binding.is_input && binding.path == path);
        let is_left_out = |path: &Path| path.file_name() == Some("null".as_ref()) || is_output(path);
        let inputs = self.here().filter(|binding| binding.is_input && is_here(&binding.path));
        let inputs = inputs.filter(|binding| !is_left_out(&binding.path));
        for Binding { name, path, is_file, .. } in inputs {
            let (exists, expected) = if *is_file { (path.is_file(), "file") } else { (path.is_dir(), "directory") };
            if !exists {
                return Err(CubeError::CubeInput { name: name.clone(), path: path.clone(), expected }.into());
            }
        }
        Ok(())
    }

    /// Makes the directories of those outputs that are here.
    ///
    /// # Errors
    /// One cannot be made or written.
    pub fn make_outputs(&self, is_here: &dyn Fn(&Path) -> bool) -> Result<()> {
        let outputs = self.here().filter(|binding| !binding.is_input && is_here(&binding.path));
        outputs.map(Binding::directory).try_for_each(files::writable_directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_a_claim_stays_there() {
        assert_eq!(on_claim("/runs/1/model/").unwrap(), Path::new("runs/1/model"));
        assert_eq!(on_claim("workspace/data").unwrap(), Path::new("workspace/data"));
        assert_eq!(on_claim("/").unwrap(), Path::new(""));
        for value in ["../data", "/a/../../b", "$WORKSPACE/data", "~/data"] {
            assert_eq!(on_claim(value), None, "{value}");
        }
    }

    #[test]
    fn values_are_below_the_workspace_unless_absolute() {
        let workspace = Path::new("/w s");
        let resolved = |value| resolved(value, workspace);
        assert_eq!(resolved("/elsewhere/my data/").unwrap(), Path::new("/elsewhere/my data"));
        assert_eq!(resolved("$WORKSPACE/parameters/p.yaml").unwrap(), Path::new("/w s/parameters/p.yaml"));
        assert_eq!(resolved("logs").unwrap(), Path::new("/w s/logs"));
        assert_eq!(resolved("$WORKSPACE").unwrap(), workspace);
        assert_eq!(resolved("$WORKSPACE/~/a~").unwrap(), Path::new("/w s/~/a~"));
        for value in ["$WORKSPACEx", "~", "~/x", "${WORKSPACE}/x", "$WORKSPACE/$HOME", "a$b"] {
            assert_eq!(resolved(value), None, "{value}");
        }
    }
}
