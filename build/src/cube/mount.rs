//! What of the host a task sees, and its command line in there.

use std::path::{Path, PathBuf};

use super::check::Invocation;

/// A directory of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host, absolute.
    pub host: PathBuf,
    /// In the container: `/mlcube_io0` and so on.
    pub container: String,
    /// Whether the task only reads there.
    pub read_only: bool,
}

/// A parameter of a task on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, without hyphens before it.
    pub name: String,
    /// Its value: an absolute path of the host.
    pub path: PathBuf,
    /// A file; otherwise a directory.
    pub is_file: bool,
    /// An input; otherwise an output.
    pub is_input: bool,
}

impl Parameter {
    /// The directory that the task must see: of a file its parent.
    pub fn directory(&self) -> &Path {
        if self.is_file { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }
}

/// The parameters of `invocation`, with `$WORKSPACE` replaced and relative paths below `workspace`, which is absolute.
pub fn parameters(invocation: &Invocation, workspace: &Path) -> Vec<Parameter> {
    let bindings = invocation.bindings.iter();
    bindings
        .map(|binding| {
            let value = binding.value.strip_prefix("$WORKSPACE").map(|rest| rest.trim_start_matches('/'));
            // Components, so that no slash at the end remains, which would hide a file's parent.
            let path = workspace.join(value.unwrap_or(&binding.value)).components().collect();
            Parameter { name: binding.name.clone(), path, is_file: binding.is_file, is_input: binding.is_input }
        })
        .collect()
}

/// Each directory once and where it is in the container, and the command line there: the task, then its parameters.
///
/// A directory of which one parameter is an input and another an output can be written.
pub fn in_container(task: &str, parameters: &[Parameter]) -> (Vec<Mount>, Vec<String>) {
    let mut mounts: Vec<Mount> = vec![];
    let mut arguments = vec![task.to_string()];
    for parameter in parameters {
        let directory = parameter.directory();
        let nth = mounts.iter().position(|mount| mount.host == directory).unwrap_or_else(|| {
            let container = format!("/mlcube_io{}", mounts.len());
            mounts.push(Mount { host: directory.into(), container, read_only: true });
            mounts.len() - 1
        });
        let mount = &mut mounts[nth];
        mount.read_only &= parameter.is_input;
        let file = if parameter.is_file { parameter.path.file_name() } else { None };
        let file = file.map(|name| format!("/{}", name.to_string_lossy())).unwrap_or_default();
        arguments.push(format!("--{}={}{file}", parameter.name, mount.container));
    }
    (mounts, arguments)
}

/// The command line on this machine.
pub fn on_host(task: &str, parameters: &[Parameter]) -> Vec<String> {
    let flag = |parameter: &Parameter| format!("--{}={}", parameter.name, parameter.path.display());
    std::iter::once(task.to_string()).chain(parameters.iter().map(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::Binding;
    use super::*;

    fn invocation(bindings: &[(&str, bool, bool, &str)]) -> Invocation {
        let binding = |&(name, is_file, is_input, value): &(&str, bool, bool, &str)| Binding {
            name: name.into(),
            is_file,
            is_input,
            value: value.into(),
        };
        Invocation { task: "train".into(), bindings: bindings.iter().map(binding).collect() }
    }

    #[test]
    fn paths_are_the_workspaces_and_files_come_with_their_directory() {
        let train = invocation(&[
            ("data_dir", false, true, "/elsewhere/my data/"),
            ("parameters_file", true, true, "$WORKSPACE/parameters/p.yaml"),
            ("log_dir", false, false, "logs"),
        ]);
        let parameters = parameters(&train, Path::new("/w s"));
        let (mounts, arguments) = in_container("train", &parameters);
        let mount = |host: &str, container: &str, read_only| Mount {
            host: host.into(),
            container: container.into(),
            read_only,
        };
        assert_eq!(
            mounts,
            [
                mount("/elsewhere/my data", "/mlcube_io0", true),
                mount("/w s/parameters", "/mlcube_io1", true),
                mount("/w s/logs", "/mlcube_io2", false),
            ]
        );
        let expected =
            ["train", "--data_dir=/mlcube_io0", "--parameters_file=/mlcube_io1/p.yaml", "--log_dir=/mlcube_io2"];
        assert_eq!(arguments, expected);
        assert_eq!(on_host("train", &parameters)[1], "--data_dir=/elsewhere/my data");
    }

    #[test]
    fn a_directory_is_mounted_once_and_can_be_written_where_one_parameter_is_an_output() {
        let train = invocation(&[("data_dir", false, true, "d"), ("log_dir", false, false, "$WORKSPACE/d")]);
        let (mounts, arguments) = in_container("train", &parameters(&train, Path::new("/w")));
        let mount = Mount { host: "/w/d".into(), container: "/mlcube_io0".into(), read_only: false };
        assert_eq!(mounts, [mount]);
        assert_eq!(arguments, ["train", "--data_dir=/mlcube_io0", "--log_dir=/mlcube_io0"]);
    }
}
