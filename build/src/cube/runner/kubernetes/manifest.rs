//! The Job that runs a task, and the ConfigMap with its files: Kubernetes API, batch/v1 and core/v1.

use serde_json::{Map, Value as Json, json};

use super::super::super::in_pod;
use super::super::super::invocation::{Binding, Invocation};
use super::copies::Copies;
use super::places::PodPlaces;
use super::pod;
use super::settings::Settings;
use crate::error::Result;
use crate::files::is_root;
use crate::sha256::Sha256;

/// The user of the pod where the caller is root.
const USER: (u32, u32) = (1000, 1000);

/// Labels: whose the Job is, and what it runs.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "mnist-cube");
const CUBE: &str = "mlcube/cube";
pub const TASK: &str = "mlcube/task";
const WORKSPACE: &str = "mlcube/workspace";
/// The label that tells the files of a Job from others.
pub const FILES: &str = "mlcube/files";
/// The label of a Job whose end somebody has seen.
pub const SEEN: &str = "mlcube/seen";

/// A name as Kubernetes allows it: RFC 1123's label, of at most 63 characters.
pub fn job_name(task: &str, id: &str) -> String {
    let task: String = task.chars().take(30).map(plain).collect();
    format!("mlcube-{task}-{id}")
}

/// A label's value: the same, and no hyphen at an end.
pub fn label(text: &str) -> String {
    text.chars().take(60).map(plain).collect::<String>().trim_matches('-').into()
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
}

/// What finds the Jobs of one workspace.
pub fn selector(places: &PodPlaces) -> String {
    format!("--selector={}={},{WORKSPACE}={}", MANAGED_BY.0, MANAGED_BY.1, places.workspace())
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
    /// A file is missing or too large, or there is nothing that copies files.
    pub fn of(invocation: &Invocation, places: &PodPlaces, settings: &Settings, name: String) -> Result<Self> {
        let labels = labels(invocation, places, settings);
        let files = places.config_map(&name, &labels)?;
        let pod = pod(invocation, places, settings, &name)?;
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

/// Short for the inputs and outputs of a task.
pub fn files(invocation: &Invocation) -> String {
    let mut hash = Sha256::new();
    for Binding { name, path, claim, .. } in &invocation.bindings {
        for part in
            [name.as_bytes(), claim.as_deref().unwrap_or_default().as_bytes(), path.as_os_str().as_encoded_bytes()]
        {
            hash.update(part);
            hash.update([0]);
        }
    }
    hash.finish()[..16].into()
}

fn labels(invocation: &Invocation, places: &PodPlaces, settings: &Settings) -> Json {
    let mut labels = Map::new();
    labels.insert(MANAGED_BY.0.into(), json!(MANAGED_BY.1));
    labels.insert(CUBE.into(), json!(label(&invocation.cube)));
    labels.insert(TASK.into(), json!(label(&invocation.task)));
    labels.insert(WORKSPACE.into(), json!(places.workspace()));
    labels.insert(FILES.into(), json!(files(invocation)));
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

/// A container that may do nothing but its work.
fn container(name: &str, image: &str, resources: &Json, mounts: &Json) -> Json {
    json!({
        "name": name,
        "image": image,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts,
    })
}

/// The container of the task.
fn task(invocation: &Invocation, places: &PodPlaces, settings: &Settings, mounts: &Json) -> Json {
    let names = || invocation.names().map(|(name, value)| (name, value.to_string())).to_vec();
    let names = places.copies.as_ref().map_or_else(names, |copies| copies.environment(invocation));
    let pair = |name: &str, value: &str| json!({ "name": name, "value": value });
    let given = settings.environment.iter().map(|(name, value)| pair(name, value));
    let mut limits = json!({ "memory": settings.memory });
    if let Some(gpus) = &settings.gpus {
        limits["nvidia.com/gpu"] = json!(gpus);
    }
    let resources = json!({ "requests": { "cpu": settings.cpu, "memory": settings.memory }, "limits": limits });
    let mut task = container(pod::TASK, &settings.image, &resources, mounts);
    task[if invocation.entrypoint.is_empty() { "args" } else { "command" }] = json!(places.arguments);
    task["env"] = names.iter().map(|(name, value)| pair(name, value)).chain(given).collect();
    task
}

/// As hardened as `cluster/kubernetes.yaml`.
fn pod(invocation: &Invocation, places: &PodPlaces, settings: &Settings, name: &str) -> Result<Json> {
    let (user, group) = user();
    let (volumes, mounts) = places.volumes(name);
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
        "containers": [task(invocation, places, settings, &json!(mounts))],
        "volumes": volumes,
    });
    if places.copies.is_some() {
        let image = settings.copier(&invocation.cube)?;
        let little = json!({ "cpu": "10m", "memory": "128Mi" });
        let resources = json!({ "requests": little, "limits": { "memory": "128Mi" } });
        let [inputs, outputs] = Copies::helpers(settings.fetch_minutes).map(|(name, command)| {
            let mut helper = container(name, image, &resources, &json!([Copies::mount()]));
            helper["command"] = json!(command);
            helper["env"] = json!([{ "name": in_pod::HELPER, "value": name }]);
            helper
        });
        pod["initContainers"] = json!([inputs]);
        pod["containers"] = json!([pod["containers"][0], outputs]);
        // By which `outputs` sees that the task has ended, and can end it.
        pod["shareProcessNamespace"] = json!(true);
    }
    if settings.node_selector.as_object().is_some_and(|labels| !labels.is_empty()) {
        pod["nodeSelector"] = settings.node_selector.clone();
    }
    if let Some(account) = &settings.service_account {
        pod["serviceAccountName"] = json!(account);
    }
    if let Some(secret) = &settings.pull_secret {
        pod["imagePullSecrets"] = json!([{ "name": secret }]);
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::super::super::invocation::Binding;
    use super::*;

    fn manifest(file: &str, bindings: Vec<Binding>) -> Result<Manifest> {
        let file = serde_yaml::from_str(&format!("image: r.example/mnist:1\n{file}")).unwrap();
        let invocation = Invocation::of("train", bindings);
        let settings = Settings::read(&file, Path::new("/w s"));
        Manifest::of(&invocation, &PodPlaces::of(&invocation, &settings)?, &settings, job_name("train", "1-2"))
    }

    #[test]
    fn the_claim_is_the_workspace() {
        let bindings =
            vec![Binding::of("data_dir", "/w s/data", false, true), Binding::of("model_dir", "/w s", false, false)];
        let made = manifest("pvc: shelf", bindings).unwrap();
        let container = &made.job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            json!(["train", "--data_dir=/mlcube/inputs/shelf/data", "--model_dir=/mlcube/outputs/shelf"])
        );
        assert!(!made.has_files());
        for path in ["/elsewhere/data", "/w s/../data"] {
            let error =
                manifest("pvc: shelf", vec![Binding::of("data_dir", path, false, true)]).unwrap_err().to_string();
            let expected = "data_dir: expected a path below the workspace /w s, which the claim holds, found";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_parameter_may_have_a_claim_of_its_own() {
        let on = |claim: &str, binding: Binding| Binding { claim: Some(claim.into()), ..binding };
        let bindings = vec![
            on("a.b", Binding::of("data_dir", "workspace/data", false, true)),
            on("a.b", Binding::of("log_dir", "logs", false, false)),
            on("c", Binding::of("model_dir", "", false, false)),
        ];
        let made = manifest("", bindings).unwrap();
        let pod = &made.job["spec"]["template"]["spec"];
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1, "nothing is copied: {pod}");
        let arguments = [
            "train",
            "--data_dir=/mlcube/inputs/a.b/workspace/data",
            "--log_dir=/mlcube/outputs/a.b/logs",
            "--model_dir=/mlcube/outputs/c",
        ];
        assert_eq!(pod["containers"][0]["args"], json!(arguments));
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mut read_only: Vec<_> = mounts.iter().filter(|mount| mount["readOnly"] == true).collect();
        assert_eq!(read_only.pop().unwrap()["mountPath"], "/mlcube/inputs/a.b", "inputs, and they alone");
        assert!(read_only.is_empty());
        let claims: Vec<_> =
            pod["volumes"].as_array().unwrap().iter().map(|v| v["persistentVolumeClaim"].clone()).collect();
        assert_eq!(claims, [json!({ "claimName": "a.b" }), json!({ "claimName": "c" })]);
    }

    #[test]
    fn without_a_claim_two_containers_copy() {
        let made = manifest("fetch_minutes: 2", vec![Binding::of("data_dir", "/w s/data", false, true)]).unwrap();
        let pod = &made.job["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["args"], json!(["train", "--data_dir=/mlcube_io0"]));
        let hosts = json!({ "name": "MLCUBE_HOST_PATHS", "value": "{\"/mlcube_io0\":\"/w s/data\"}" });
        assert_eq!(pod["containers"][0]["env"][2], hosts);
        let names = [&pod["initContainers"][0], &pod["containers"][1]].map(|helper| helper["name"].as_str().unwrap());
        assert_eq!(names, ["inputs", "outputs"]);
        let waits = json!(["mnist", "cube", "job", "wait", "/mlcube/copied/.fetched", "120"]);
        assert_eq!(pod["containers"][1]["command"], waits);
        assert_eq!(pod["shareProcessNamespace"], true);
    }

    #[test]
    fn another_program_needs_a_copier() {
        let file = serde_yaml::from_str("image: r.example/other:1").unwrap();
        let settings = Settings::read(&file, Path::new("/w"));
        let bindings = vec![Binding::of("data_dir", "/w/data", false, true)];
        let invocation = Invocation { cube: "other".into(), is_ours: false, ..Invocation::of("train", bindings) };
        let places = PodPlaces::of(&invocation, &settings).unwrap();
        let error = Manifest::of(&invocation, &places, &settings, "j".into()).unwrap_err();
        assert!(error.to_string().starts_with("kubernetes: expected `pvc`, a claim, or `copier`, "), "{error}");
        let file = serde_yaml::from_str("image: r.example/other:1\ncopier: r.example/mnist:1").unwrap();
        let settings = Settings::read(&file, Path::new("/w"));
        let made = Manifest::of(&invocation, &places, &settings, "j".into()).unwrap();
        let pod = &made.job["spec"]["template"]["spec"];
        let images = json!(["r.example/other:1", "r.example/mnist:1"]);
        assert_eq!(json!([pod["containers"][0]["image"], pod["containers"][1]["image"]]), images);
    }

    #[test]
    fn the_keys_of_the_platform_file_are_in_the_pod() {
        let file = "pvc: shelf\ngpus: 2\ncpu: 500m\nmemory: 2Gi\nnode_selector: {disk: ssd}\nimage_pull_secret: s\n\
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
    fn the_pod_may_do_nothing_but_its_work() {
        let made = manifest("", vec![Binding::of("data_dir", "/w s/data", false, true)]).unwrap();
        assert_eq!(made.job["spec"]["backoffLimit"], 0, "a failed task does not begin again");
        let pod = &made.job["spec"]["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(pod["securityContext"][id].as_u64().is_some_and(|id| id > 0), "{id}: {pod}");
        }
        let may = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
        for container in [&pod["initContainers"][0], &pod["containers"][0], &pod["containers"][1]] {
            assert_eq!(container["securityContext"], may, "{container}");
        }
    }

    #[test]
    fn two_tasks_that_write_to_one_place_know_of_each_other() {
        let file = serde_yaml::from_str("image: r.example/mnist:1").unwrap();
        let places = |claim: &str, name: &str| {
            let binding = Binding { claim: Some(claim.into()), ..Binding::of(name, "model", false, false) };
            PodPlaces::of(&Invocation::of("train", vec![binding]), &Settings::read(&file, Path::new("/w"))).unwrap()
        };
        assert_eq!(places("a", "model_dir").workspace(), places("a", "log_dir").workspace());
        assert_ne!(places("a", "model_dir").workspace(), places("b", "model_dir").workspace());
    }

    #[test]
    fn files_go_along_with_the_job() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.yaml");
        let bindings = vec![Binding::of("parameters_file", file.to_str().unwrap(), true, true)];
        let manifest = || manifest("pvc: shelf", bindings.clone());
        let error = manifest().unwrap_err().to_string();
        assert!(error.starts_with("parameters_file: expected a file "), "{error}");
        fs::write(&file, "train_epochs: 1\n").unwrap();
        let made = manifest().unwrap();
        let arguments = &made.job["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(arguments[1], "--parameters_file=/mlcube/files/parameters_file.yaml");
        let yaml = made.yaml();
        assert!(yaml.contains("parameters_file.yaml: |\n    train_epochs: 1\n---\n"), "{yaml}");
        fs::write(&file, b"\xff\xfe").unwrap();
        let yaml = manifest().unwrap().yaml();
        assert!(yaml.contains("binaryData:\n  parameters_file.yaml: //4=\n"), "{yaml}");
        fs::write(&file, vec![b' '; 1_000_001]).unwrap();
        let error = manifest().unwrap_err().to_string();
        assert!(error.contains("expected files of at most 1000000 bytes"), "{error}");
    }

    #[test]
    fn a_name_is_a_label() {
        assert_eq!(job_name("Sanity_check", "6a-1f"), "mlcube-sanity-check-6a-1f");
        assert!(job_name(&"x".repeat(100), "ffffffffff-ffffffff").len() <= 63);
        assert_eq!(label("_My cube_"), "my-cube");
    }
}
