//! Where a task runs, as a platform file says: the documents', those of the runners 0.0.1 to 0.0.3, and our native one.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

/// Where a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// In a Docker container.
    Docker {
        /// The image's name.
        image: String,
        /// What gives it a GPU, or the runtime asked for: an argument of `docker run`.
        runtime: Option<String>,
    },
    /// In a Singularity container.
    Singularity {
        /// The image's file.
        image: PathBuf,
        /// Whether it gets the host's NVIDIA GPUs (`--nv`).
        nv: bool,
    },
    /// On this machine, without a container.
    Native,
}

impl Platform {
    /// Reads a platform file that was held against its schema ([`super::check::platform`]). A relative path of an image is
    /// below `workspace`.
    pub fn new(file: &Value, workspace: &Path) -> Self {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let singularity = |image: &str, nv| Self::Singularity { image: workspace.join(image), nv };
        match text(file, "schema_type").as_str() {
            "mlcube_docker" => {
                // Since Docker 19.03 the command of this name is an argument.
                let gpus = text(file, "docker_runtime") == "nvidia-docker";
                Self::Docker { image: text(file, "image"), runtime: gpus.then(|| "--gpus=all".into()) }
            }
            "mlcube_singularity" => {
                singularity(&text(file, "image"), file.get("nv").and_then(Value::as_bool).unwrap_or_default())
            }
            "mlcube_platform" => {
                let container = file.get("container").unwrap_or(&Value::Null);
                let (image, runtime) = (text(container, "image"), text(container, "runtime"));
                if text(file.get("platform").unwrap_or(&Value::Null), "name") == "docker" {
                    let runtime = (!runtime.is_empty()).then(|| format!("--runtime={runtime}"));
                    Self::Docker { image, runtime }
                } else {
                    singularity(&image, runtime == "nvidia")
                }
            }
            _ => Self::Native,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::new(&serde_yaml::from_str(text).unwrap(), Path::new("/w"))
    }

    #[test]
    fn each_schema_says_where_and_whether_with_a_gpu() {
        let docker =
            |runtime: Option<&str>| Platform::Docker { image: "a/b:c".into(), runtime: runtime.map(Into::into) };
        let of =
            |runtime: &str| platform(&format!("schema_type: mlcube_docker\nimage: a/b:c\ndocker_runtime: {runtime}"));
        assert_eq!(of("docker"), docker(None));
        assert_eq!(of("nvidia-docker"), docker(Some("--gpus=all")));
        let of = |name: &str, more: &str| {
            platform(&format!(
                "schema_type: mlcube_platform\nplatform: {{name: {name}}}\ncontainer: {{image: 'a/b:c'{more}}}"
            ))
        };
        assert_eq!(of("docker", ""), docker(None));
        assert_eq!(of("docker", ", runtime: nvidia"), docker(Some("--runtime=nvidia")));
        let singularity = |nv| Platform::Singularity { image: "/w/a/b:c".into(), nv };
        assert_eq!(of("singularity", ""), singularity(false));
        assert_eq!(of("singularity", ", runtime: nvidia"), singularity(true));
        assert_eq!(platform("schema_type: mlcube_singularity\nimage: a/b:c\nnv: true"), singularity(true));
        assert_eq!(
            platform("schema_type: mlcube_singularity\nimage: /opt/i.simg"),
            Platform::Singularity { image: "/opt/i.simg".into(), nv: false }
        );
        assert_eq!(platform("schema_type: mlcube_native"), Platform::Native);
    }
}
