//! The Job that runs a task, and the ConfigMap with its files: Kubernetes API, batch/v1 and core/v1.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};
use serde_yaml::Value;

use super::super::super::invocation::{Binding, Invocation};
use super::super::super::job::is_inside;
use super::super::{text, word};
use crate::error::{CubeError, Error, Result};
use crate::files::is_root;

/// Where the claim is in the container, for inputs and for outputs, and where the files are.
const INPUTS: &str = "/mlcube/inputs";
const OUTPUTS: &str = "/mlcube/outputs";
const FILES: &str = "/mlcube/files";
/// The most bytes of all files: a ConfigMap holds 1 MiB.
const MOST_BYTES: u64 = 1_000_000;
/// The user of the pod where the caller is root.
const USER: (u32, u32) = (1000, 1000);

/// How the pod is to be. The platform file's keys.
#[derive(Debug)]
pub struct Settings {
    /// The image.
    pub image: String,
    /// The claim that holds the workspace.
    pub claim: String,
    /// The workspace here.
    pub workspace: PathBuf,
    /// The queue of Kueue that the Job waits in.
    pub queue: Option<String>,
    cpu: String,
    memory: String,
    gpus: Option<String>,
    node_selector: Json,
    environment: Vec<(String, String)>,
    pull_secret: Option<String>,
    service_account: Option<String>,
}

impl Settings {
    /// Reads a platform file that follows the schema.
    pub fn read(file: &Value, workspace: &Path) -> Self {
        let or = |name: &str, usual: &str| word(file, name).unwrap_or_else(|| usual.into());
        let pairs = |name: &str| -> Vec<(String, String)> {
            let pairs = file.get(name).and_then(Value::as_mapping).into_iter().flatten();
            pairs.filter_map(|(name, value)| Some((name.as_str()?.into(), value.as_str()?.into()))).collect()
        };
        Self {
            image: text(file, "image"),
            claim: or("pvc", ""),
            workspace: workspace.into(),
            queue: word(file, "queue"),
            cpu: or("cpu", "1"),
            memory: or("memory", "1Gi"),
            gpus: word(file, "gpus"), // a quantity, which is a text in a manifest
            node_selector: pairs("node_selector").into_iter().map(|(name, value)| (name, json!(value))).collect(),
            environment: pairs("env"),
            pull_secret: word(file, "image_pull_secret"),
            service_account: word(file, "service_account"),
        }
    }
}

/// A name as Kubernetes allows it: RFC 1123's label, of at most 63 characters.
pub fn job_name(task: &str, id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let task: String = task.chars().take(30).map(plain).collect();
    format!("mlcube-{task}-{id}")
}

/// What is created in the cluster for one run.
#[derive(Debug)]
pub struct Manifest {
    /// The name of the Job and of the ConfigMap.
    pub name: String,
    files: Option<Json>,
    job: Json,
}

impl Manifest {
    /// The Job, called `name`, that runs a task.
    ///
    /// # Errors
    /// A path is outside the workspace, which the claim holds; a file is missing or too large.
    pub fn of(invocation: &Invocation, settings: &Settings, name: String) -> Result<Self> {
        let mut arguments = invocation.words().to_vec();
        for binding in &invocation.bindings {
            let path =
                if goes_along(binding) { in_files(binding) } else { on_the_claim(binding, &settings.workspace)? };
            arguments.push(format!("--{}={path}", binding.name));
        }
        let labels = labels(invocation, settings);
        let files = config_map(invocation, &name, &labels)?;
        let pod = pod(invocation, settings, &arguments, files.is_some().then_some(&name));
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": 86400,
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        });
        Ok(Self { name, files, job })
    }

    /// Whether there is a ConfigMap.
    pub fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// As `kubectl` takes it.
    pub fn yaml(&self) -> String {
        let document = |document: &Json| {
            serde_yaml::to_string(document).unwrap_or_else(|error| unreachable!("plain values become YAML: {error}"))
        };
        self.files.iter().chain([&self.job]).map(document).collect::<Vec<_>>().join("---\n")
    }

    /// The change of the ConfigMap that makes the Job, whose identifier is `uid`, its owner.
    pub fn owner(&self, uid: &str) -> String {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": uid });
        json!({ "metadata": { "ownerReferences": [owner] } }).to_string()
    }
}

/// Whether a parameter is a file that is sent with the Job.
fn goes_along(binding: &Binding) -> bool {
    binding.is_file && binding.is_input
}

/// The name of such a file in the ConfigMap, which takes few characters.
fn file_name(Binding { name, path, .. }: &Binding) -> String {
    let plain = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let extension = path.extension().and_then(|text| text.to_str()).filter(plain);
    extension.map_or_else(|| name.clone(), |extension| format!("{name}.{extension}"))
}

/// Its path in the container.
fn in_files(binding: &Binding) -> String {
    format!("{FILES}/{}", file_name(binding))
}

/// The files that are sent with the Job; none if there are none.
fn config_map(invocation: &Invocation, name: &str, labels: &Json) -> Result<Option<Json>> {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels } });
    let mut bytes = 0;
    for binding in invocation.bindings.iter().filter(|binding| goes_along(binding)) {
        let Binding { name, path, .. } = binding;
        if !path.is_file() {
            return Err(CubeError::CubeInput { name: name.clone(), path: path.clone(), expected: "file" }.into());
        }
        bytes += fs::metadata(path).map_or(0, |metadata| metadata.len());
        if bytes > MOST_BYTES {
            let problem = format!("files of at most {MOST_BYTES} bytes, which go along with the job");
            return Err(CubeError::Claim { name: name.clone(), problem, path: path.clone() }.into());
        }
        match String::from_utf8(fs::read(path).map_err(Error::io("read", path))?) {
            Ok(text) => map["data"][file_name(binding)] = json!(text),
            Err(other) => map["binaryData"][file_name(binding)] = json!(BASE64.encode(other.as_bytes())),
        }
    }
    Ok(invocation.bindings.iter().any(goes_along).then_some(map))
}

/// The outputs, as paths on the claim.
pub fn outputs(invocation: &Invocation, workspace: &Path) -> Vec<String> {
    let outputs = invocation.bindings.iter().filter(|binding| !binding.is_input);
    outputs.filter_map(|binding| below(binding, workspace)).map(String::from).collect()
}

/// The path of a parameter below the workspace.
fn below<'a>(binding: &'a Binding, workspace: &Path) -> Option<&'a str> {
    binding.path.strip_prefix(workspace).ok().filter(|path| is_inside(path)).and_then(Path::to_str)
}

/// The path in the container of a directory or an output, which the claim holds.
fn on_the_claim(binding: &Binding, workspace: &Path) -> Result<String> {
    let Some(below) = below(binding, workspace) else {
        let problem = format!("a path below the workspace {}, which the claim holds", workspace.display());
        return Err(CubeError::Claim { name: binding.name.clone(), problem, path: binding.path.clone() }.into());
    };
    let top = if binding.is_input { INPUTS } else { OUTPUTS };
    Ok(format!("{top}/{below}").trim_end_matches('/').into())
}

fn labels(invocation: &Invocation, settings: &Settings) -> Json {
    let mut labels = Map::new();
    labels.insert("app.kubernetes.io/managed-by".into(), json!("mnist-cube"));
    labels.insert("mlcube/task".into(), json!(job_name(&invocation.task, "").trim_matches('-')));
    if let Some(queue) = &settings.queue {
        labels.insert("kueue.x-k8s.io/queue-name".into(), json!(queue));
    }
    labels.into()
}

/// The user and the group that the pod runs as: the caller, whose files then are on a shared disk; never root.
fn user() -> (u32, u32) {
    let caller = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if is_root() || caller.1 == 0 { USER } else { caller }
}

/// As hardened as `cluster/kubernetes.yaml`.
fn pod(invocation: &Invocation, settings: &Settings, arguments: &[String], files: Option<&String>) -> Json {
    let (user, group) = user();
    let environment = settings.environment.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let names = invocation.names().map(|(name, value)| json!({ "name": name, "value": value }));
    let mut limits = json!({ "memory": settings.memory });
    if let Some(gpus) = &settings.gpus {
        limits["nvidia.com/gpu"] = json!(gpus);
    }
    let mut mounts = vec![
        json!({ "name": "workspace", "mountPath": INPUTS, "readOnly": true }),
        json!({ "name": "workspace", "mountPath": OUTPUTS }),
    ];
    let mut volumes = vec![json!({ "name": "workspace", "persistentVolumeClaim": { "claimName": settings.claim } })];
    if let Some(files) = files {
        mounts.push(json!({ "name": "files", "mountPath": FILES, "readOnly": true }));
        volumes.push(json!({ "name": "files", "configMap": { "name": files } }));
    }
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": user,
            "runAsGroup": group,
            "fsGroup": group,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "task",
            "image": settings.image,
            (if invocation.entrypoint.is_empty() { "args" } else { "command" }): arguments,
            "env": names.into_iter().chain(environment).collect::<Vec<_>>(),
            "resources": { "requests": { "cpu": settings.cpu, "memory": settings.memory }, "limits": limits },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    if settings.node_selector.as_object().is_some_and(|labels| !labels.is_empty()) {
        pod["nodeSelector"] = settings.node_selector.clone();
    }
    if let Some(account) = &settings.service_account {
        pod["serviceAccountName"] = json!(account);
    }
    if let Some(secret) = &settings.pull_secret {
        pod["imagePullSecrets"] = json!([{ "name": secret }]);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(name: &str, path: &str, is_file: bool, is_input: bool) -> Binding {
        Binding { name: name.into(), path: path.into(), is_file, is_input, is_writable: !is_input }
    }

    fn manifest(file: &str, bindings: Vec<Binding>) -> Result<Manifest> {
        let file = serde_yaml::from_str(&format!("image: r.example/mnist:1\npvc: shelf\n{file}")).unwrap();
        let invocation = Invocation::of("train", bindings);
        Manifest::of(&invocation, &Settings::read(&file, Path::new("/w s")), job_name("train", "1-2"))
    }

    #[test]
    fn the_claim_is_the_workspace() {
        let bindings = vec![binding("data_dir", "/w s/data", false, true), binding("model_dir", "/w s", false, false)];
        let made = manifest("", bindings).unwrap();
        let container = &made.job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            json!(["train", "--data_dir=/mlcube/inputs/data", "--model_dir=/mlcube/outputs"])
        );
        assert!(!made.has_files());
        for path in ["/elsewhere/data", "/w s/../data"] {
            let error = manifest("", vec![binding("data_dir", path, false, true)]).unwrap_err().to_string();
            let expected = "data_dir: expected a path below the workspace /w s, which the claim holds, found";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_keys_of_the_platform_file_are_in_the_pod() {
        let file = "gpus: 2\ncpu: 500m\nmemory: 2Gi\nnode_selector: {disk: ssd}\nimage_pull_secret: s\n\
                    service_account: a\nqueue: q\nenv: {MNIST_MIRROR: 'https://m.example'}";
        let made = manifest(file, vec![]).unwrap();
        let pod = &made.job["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let limits = json!({ "memory": "2Gi", "nvidia.com/gpu": "2" });
        let requests = json!({ "cpu": "500m", "memory": "2Gi" });
        assert_eq!(container["resources"], json!({ "requests": requests, "limits": limits }));
        assert_eq!(container["env"][2], json!({ "name": "MNIST_MIRROR", "value": "https://m.example" }));
        assert_eq!(pod["nodeSelector"], json!({ "disk": "ssd" }));
        assert_eq!(pod["imagePullSecrets"], json!([{ "name": "s" }]));
        assert_eq!(pod["serviceAccountName"], "a");
        assert_eq!(made.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "q");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    }

    #[test]
    fn files_go_along_with_the_job() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.yaml");
        let bindings = vec![binding("parameters_file", file.to_str().unwrap(), true, true)];
        let error = manifest("", bindings.clone()).unwrap_err().to_string();
        assert!(error.starts_with("parameters_file: expected a file "), "{error}");
        fs::write(&file, "train_epochs: 1\n").unwrap();
        let made = manifest("", bindings.clone()).unwrap();
        let arguments = &made.job["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(arguments[1], "--parameters_file=/mlcube/files/parameters_file.yaml");
        let yaml = made.yaml();
        assert!(yaml.contains("parameters_file.yaml: |\n    train_epochs: 1\n---\n"), "{yaml}");
        fs::write(&file, b"\xff\xfe").unwrap();
        let yaml = manifest("", bindings.clone()).unwrap().yaml();
        assert!(yaml.contains("binaryData:\n  parameters_file.yaml: //4=\n"), "{yaml}");
        fs::write(&file, vec![b' '; MOST_BYTES as usize + 1]).unwrap();
        let error = manifest("", bindings).unwrap_err().to_string();
        assert!(error.contains("expected files of at most 1000000 bytes"), "{error}");
    }

    #[test]
    fn a_name_is_a_label() {
        assert_eq!(job_name("Train_it.now", "5-6"), "mlcube-train-it-now-5-6");
        assert!(job_name(&"x".repeat(100), "65f0a1b2-7fffffff").len() <= 63);
    }
}
