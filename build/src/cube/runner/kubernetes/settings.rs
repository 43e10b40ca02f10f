//! The keys of a Kubernetes platform file: how the pod is to be.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use serde_yaml::Value;

use super::super::super::NAME;
use super::super::{text, word};
use crate::error::{CubeError, Result};

/// The minutes that a pod keeps outputs that nobody fetches, where the file says nothing.
const FETCH_MINUTES: u64 = 60;

/// Their values, or their defaults.
#[derive(Debug)]
pub struct Settings {
    /// The image.
    pub image: String,
    /// The claim that holds the workspace; without one, files are copied.
    pub claim: Option<String>,
    /// The workspace here.
    pub workspace: PathBuf,
    /// The queue of Kueue that the Job waits in.
    pub queue: Option<String>,
    /// The minutes that it keeps outputs that nobody fetches.
    pub fetch_minutes: u64,
    /// The image of this program that copies files.
    copier: Option<String>,
    pub cpu: String,
    pub memory: String,
    pub gpus: Option<String>,
    pub node_selector: Json,
    pub environment: Vec<(String, String)>,
    pub pull_secret: Option<String>,
    pub service_account: Option<String>,
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
            claim: word(file, "pvc"),
            workspace: workspace.into(),
            queue: word(file, "queue"),
            fetch_minutes: file.get("fetch_minutes").and_then(Value::as_u64).unwrap_or(FETCH_MINUTES),
            copier: word(file, "copier"),
            cpu: or("cpu", "1"),
            memory: or("memory", "1Gi"),
            gpus: word(file, "gpus"), // a quantity, which is a text in a manifest
            node_selector: pairs("node_selector").into_iter().map(|(name, value)| (name, json!(value))).collect(),
            environment: pairs("env"),
            pull_secret: word(file, "image_pull_secret"),
            service_account: word(file, "service_account"),
        }
    }

    /// The image that copies: the task's own if it is this program's.
    ///
    /// # Errors
    /// It is not, and the file names no other one.
    pub fn copier(&self, cube: &str) -> Result<&str> {
        let own = (cube == NAME).then_some(&self.image);
        self.copier.as_ref().or(own).map(String::as_str).ok_or_else(|| CubeError::NoCopier.into())
    }
}
