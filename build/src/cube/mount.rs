//! The directories of this machine that a container gets, and the task's command line inside it.

use std::ffi::OsString;
use std::path::Path;

use super::invocation::Invocation;
use crate::data::download::environment;
use crate::data::download::mirror::Mirror;
use crate::error::{CubeError, Error, Result};
use crate::host_paths;

/// A directory of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host, absolute. A text, since the runners' programs send it on as one.
    pub host: String,
    /// In the container: `/mlcube_io0` and so on.
    pub container: String,
    /// Whether the task only reads it.
    pub read_only: bool,
}

/// The mounts for `invocation`, and its command line in the container: the task or its own program, then its parameters.
///
/// Each directory is mounted once. It is writable if one of its parameters is.
///
/// # Errors
/// A path cannot be handed to a container.
pub fn in_container(invocation: &Invocation) -> Result<(Vec<Mount>, Vec<String>)> {
    let mut mounts: Vec<Mount> = vec![];
    let mut arguments = invocation.words().to_vec();
    for binding in &invocation.bindings {
        let directory = mountable(binding.directory())?;
        let nth = mounts.iter().position(|mount| mount.host == directory).unwrap_or_else(|| {
            let container = format!("/mlcube_io{}", mounts.len());
            mounts.push(Mount { host: directory.into(), container, read_only: true });
            mounts.len() - 1
        });
        let mount = &mut mounts[nth];
        mount.read_only &= !binding.is_writable;
        let file = if binding.is_file { binding.path.file_name() } else { None };
        let file = file.map(|name| mountable(Path::new(name))).transpose()?;
        let file = file.map(|name| format!("/{name}")).unwrap_or_default();
        arguments.push(format!("--{}={}{file}", binding.name, mount.container));
    }
    Ok((mounts, arguments))
}

/// The variables that a task in a container gets: what runs it, and the host's names of its directories.
pub fn environment(invocation: &Invocation, mounts: &[Mount]) -> Vec<(&'static str, String)> {
    let hosts = host_paths::value(mounts.iter().map(|mount| (&*mount.container, &*mount.host)));
    let names = invocation.names().map(|(name, value)| (name, value.to_string()));
    names.into_iter().chain([(host_paths::VARIABLE, hosts)]).collect()
}

/// The mirror that the environment names for a task of this program. Another program's task does not read it.
fn named_mirror(invocation: &Invocation) -> Option<OsString> {
    std::env::var_os(environment::MIRROR).filter(|_| invocation.is_ours)
}

/// Whether there is one.
pub fn has_mirror(invocation: &Invocation) -> bool {
    named_mirror(invocation).is_some()
}

/// That mirror, if it is a directory of this machine: a container sees it only when mounted.
///
/// # Errors
/// It cannot be handed to a container.
pub fn mirror(invocation: &Invocation) -> Result<Option<Mount>> {
    let Some(given) = named_mirror(invocation) else { return Ok(None) };
    let Ok(Mirror::Directory(directory)) = Mirror::parse(mountable(Path::new(&given))?.as_ref()) else {
        return Ok(None);
    };
    let host = std::path::absolute(&directory).map_err(Error::io("find", &directory))?;
    let host = mountable(&host)?.to_string();
    Ok(Some(Mount { host, container: "/mlcube_mirror".into(), read_only: true }))
}

/// `path` as a text that reaches a container unchanged. The programs of Docker and Singularity replace what is not UTF-8,
/// and their syntax for mounts changes some line breaks.
fn mountable(path: &Path) -> Result<&str> {
    let refuse = |problem| CubeError::NotMountable { path: path.into(), problem }.into();
    let text = path.to_str().ok_or_else(|| refuse("is not UTF-8"))?;
    if text.contains(char::is_control) { Err(refuse("holds control characters")) } else { Ok(text) }
}

/// A field of a CSV record in quotes, as `--mount` of Docker and of Singularity reads it.
pub fn csv_quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::invocation::Binding;
    use super::*;

    fn invocation(bindings: &[(&str, bool, bool, &str)]) -> Invocation {
        let binding =
            |&(name, is_file, is_input, path): &(&str, bool, bool, &str)| Binding::of(name, path, is_file, is_input);
        Invocation::of("train", bindings.iter().map(binding).collect())
    }

    #[test]
    fn a_file_comes_with_its_directory() {
        let train = invocation(&[
            ("data_dir", false, true, "/elsewhere/my data"),
            ("parameters_file", true, true, "/w s/parameters/p.yaml"),
            ("log_dir", false, false, "/w s/logs"),
        ]);
        let (mounts, arguments) = in_container(&train).unwrap();
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
        assert_eq!(train.arguments()[1], "--data_dir=/elsewhere/my data");
    }

    #[test]
    fn a_directory_is_mounted_once_and_is_writable_if_one_parameter_is_an_output() {
        let (mounts, arguments) =
            in_container(&invocation(&[("data_dir", false, true, "/w/d"), ("log_dir", false, false, "/w/d")])).unwrap();
        let mount = Mount { host: "/w/d".into(), container: "/mlcube_io0".into(), read_only: false };
        assert_eq!(mounts, [mount]);
        assert_eq!(arguments, ["train", "--data_dir=/mlcube_io0", "--log_dir=/mlcube_io0"]);
    }
}
