//! Where a task's files are in its pod: on claims, in a ConfigMap that goes along with the Job, or copied in and out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use super::super::super::invocation::{Binding, Invocation};
use super::super::super::listing::is_inside;
use super::copies::Copies;
use super::settings::Settings;
use crate::error::{CubeError, Error, Result};
use crate::files::lock;
use crate::sha256;

/// Where claims are in the container, for inputs and for outputs, and where the files of the ConfigMap are.
const INPUTS: &str = "/mlcube/inputs";
const OUTPUTS: &str = "/mlcube/outputs";
const FILES: &str = "/mlcube/files";
/// The most bytes of all files: a ConfigMap holds 1 MiB.
const MOST_BYTES: u64 = 1_000_000;

/// A path of a task in its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place<'a> {
    /// On a claim, below its top.
    Claim(&'a str, &'a str),
    /// A file of the ConfigMap.
    File,
    Copied,
}

/// The places of all parameters.
#[derive(Debug)]
pub struct PodPlaces {
    /// The task's command line.
    pub arguments: Vec<String>,
    /// What is copied.
    pub copies: Option<Copies>,
    /// The claims, for inputs (true) and for outputs.
    claims: BTreeSet<(String, bool)>,
    /// The outputs on claims, as people write them.
    pub outputs: Vec<String>,
    files: Vec<Binding>,
    /// What no second job may write at the same time.
    written: BTreeSet<String>,
}

impl PodPlaces {
    /// Those of `invocation`.
    ///
    /// # Errors
    /// A path is outside the workspace, which the claim holds, or cannot be handed to a container.
    pub fn of(invocation: &Invocation, settings: &Settings) -> Result<Self> {
        let is_copied = |binding: &&Binding| binding.claim.is_none() && settings.claim.is_none();
        let bindings = invocation.bindings.iter().filter(is_copied).cloned().collect();
        let copies = Copies::of(&Invocation { bindings, ..invocation.clone() })?;
        let mut places = Self {
            arguments: invocation.words().to_vec(),
            copies,
            claims: BTreeSet::new(),
            outputs: vec![],
            files: vec![],
            written: BTreeSet::from([invocation.cube.clone()]),
        };
        invocation.bindings.iter().try_for_each(|binding| places.add(binding, settings))?;
        Ok(places)
    }

    fn add(&mut self, binding: &Binding, settings: &Settings) -> Result<()> {
        let Binding { name, path, is_input, .. } = binding;
        let path = match place(binding, settings)? {
            Place::Claim(claim, below) => {
                self.claims.insert((claim.into(), *is_input));
                if !is_input {
                    self.outputs.push(format!("{claim}/{below}"));
                    self.written.insert(format!("claim {claim}"));
                }
                let top = if *is_input { INPUTS } else { OUTPUTS };
                format!("{top}/{claim}/{below}").trim_end_matches('/').to_string()
            }
            Place::File => {
                if !path.is_file() {
                    return Err(
                        CubeError::CubeInput { name: name.clone(), path: path.clone(), expected: "file" }.into()
                    );
                }
                self.files.push(binding.clone());
                format!("{FILES}/{}", file_name(binding))
            }
            Place::Copied => {
                self.written.insert(format!("{}:{}", lock::host(), settings.workspace.display()));
                self.copies.as_ref().and_then(|copies| copies.path(name)).unwrap_or_default().to_string()
            }
        };
        self.arguments.push(format!("--{name}={path}"));
        Ok(())
    }

    /// The claims.
    pub fn claims(&self) -> BTreeSet<&str> {
        self.claims.iter().map(|(claim, _)| claim.as_str()).collect()
    }

    /// Short for the cube and the places where its outputs go: two tasks with the same one must not run at once.
    pub fn workspace(&self) -> String {
        let written: Vec<&str> = self.written.iter().map(String::as_str).collect();
        sha256::of(written.join("\n").as_bytes())[..16].into()
    }

    /// The volumes of the pod, and their mounts in the task's container; `config_map` is the name of the ConfigMap.
    pub fn volumes(&self, config_map: &str) -> (Vec<Json>, Vec<Json>) {
        let (mut volumes, mut mounts) = (vec![], vec![]);
        for (nth, claim) in self.claims().into_iter().enumerate() {
            let name = format!("claim-{nth}"); // a claim's own name may be too long for a volume
            volumes.push(json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }));
            for (of, is_input) in self.claims.iter().filter(|(of, _)| of == claim) {
                let top = if *is_input { INPUTS } else { OUTPUTS };
                mounts.push(json!({ "name": name, "mountPath": format!("{top}/{of}"), "readOnly": is_input }));
            }
        }
        if !self.files.is_empty() {
            volumes.push(json!({ "name": "files", "configMap": { "name": config_map } }));
            mounts.push(json!({ "name": "files", "mountPath": FILES, "readOnly": true }));
        }
        if let Some(copies) = &self.copies {
            volumes.push(json!({ "name": "copied", "emptyDir": {} }));
            mounts.extend(copies.mounts());
        }
        (volumes, mounts)
    }

    /// The ConfigMap with the files; none if there are none.
    ///
    /// # Errors
    /// A file cannot be read, or they are too large.
    pub fn config_map(&self, name: &str, labels: &Json) -> Result<Option<Json>> {
        let mut map =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels } });
        let mut bytes = 0;
        for binding in &self.files {
            let Binding { name, path, .. } = binding;
            bytes += fs::metadata(path).map_or(0, |metadata| metadata.len());
            if bytes > MOST_BYTES {
                let problem = format!("files of at most {MOST_BYTES} bytes, which go along with the job");
                let next = "put it on a claim, and name it in the run configuration as {path: PATH, k8s: {pvc: CLAIM}}";
                return Err(CubeError::Claim { name: name.clone(), problem, path: path.clone(), next }.into());
            }
            match String::from_utf8(fs::read(path).map_err(Error::io("read", path))?) {
                Ok(text) => map["data"][file_name(binding)] = json!(text),
                Err(other) => map["binaryData"][file_name(binding)] = json!(BASE64.encode(other.as_bytes())),
            }
        }
        Ok((!self.files.is_empty()).then_some(map))
    }
}

/// The place of one parameter.
fn place<'a>(binding: &'a Binding, settings: &'a Settings) -> Result<Place<'a>> {
    let refused =
        |problem, next| CubeError::Claim { name: binding.name.clone(), problem, path: binding.path.clone(), next };
    let text = |path: &'a Path| path.to_str().ok_or_else(|| refused("a path in UTF-8".into(), "give it another name"));
    let outside = |problem| refused(problem, "put it there, and name that path in the run configuration");
    match (&binding.claim, &settings.claim) {
        (Some(claim), _) => Ok(Place::Claim(claim, text(&binding.path)?)),
        (None, None) => Ok(Place::Copied),
        (None, Some(_)) if binding.is_file && binding.is_input => Ok(Place::File),
        (None, Some(claim)) => {
            let workspace = &settings.workspace;
            let below = binding.path.strip_prefix(workspace).ok().filter(|path| is_inside(path));
            let expected = || format!("a path below the workspace {}, which the claim holds", workspace.display());
            Ok(Place::Claim(claim, text(below.ok_or_else(|| outside(expected()))?)?))
        }
    }
}

/// The name of a file in the ConfigMap, which takes few characters.
fn file_name(Binding { name, path, .. }: &Binding) -> String {
    let plain = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let extension = path.extension().and_then(|text| text.to_str()).filter(plain);
    extension.map_or_else(|| name.clone(), |extension| format!("{name}.{extension}"))
}
