//! A Kubernetes cluster, through the user's own `kubectl`: a Job runs the task in one pod. A claim there holds the
//! workspace; inputs that are files, such as the parameters, go along with the Job from this machine.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value as Json;
use serde_yaml::Value;
use tracing::{info, warn};

mod manifest;
mod pod;

use self::manifest::{Manifest, Settings};
use self::pod::Pod;
use super::super::command::{HostCommand, ProgramOutput, file_of};
use super::super::directory::CubeDir;
use super::super::invocation::Invocation;
use super::super::schema::{Expected, Schema, optional, required};
use super::{Platform, Runner, flag, last_line};
use crate::error::{CubeError, Error, Result};
use crate::interrupt;

/// `mlcube_k8s`. The published runner has no platform file of its own: the keys are ours.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_k8s",
        fields: &[
            required("image", Expected::Image),
            required("pvc", Expected::Word),
            optional("namespace", Expected::Word),
            optional("context", Expected::Word),
            optional("cpu", Expected::Word),
            optional("memory", Expected::Word),
            optional("gpus", Expected::Count),
            optional("node_selector", Expected::Binding),
            optional("image_pull_secret", Expected::Word),
            optional("service_account", Expected::Word),
            optional("queue", Expected::Word),
            optional("env", Expected::Binding),
            optional("start_minutes", Expected::Count),
        ],
    },
    runner: |file, cube, _| Box::new(Kubernetes::read(file, cube)),
};

/// The time between two looks at the pod.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two looks for a signal.
const TICK: Duration = Duration::from_millis(50);
/// The time that a Job has to say that it is over, once its pod has ended, and the time after which it has counted that pod.
const VERDICT: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(5);
/// The time that a pod has to start, where the platform file says nothing.
const START: Duration = Duration::from_secs(600);

/// A cluster, as `kubectl` reaches it, and how the pod is to be.
#[derive(Debug)]
pub struct Kubernetes {
    /// The flags of `kubectl` that say which cluster.
    cluster: Vec<String>,
    settings: Settings,
    /// The end of the Job's name, which no other process gives.
    id: String,
    /// The time that the pod has to start; none where it waits in a queue.
    start: Option<Duration>,
    keep: bool,
}

impl Kubernetes {
    fn read(file: &Value, cube: &CubeDir) -> Self {
        let settings = Settings::read(file, &cube.workspace);
        let cluster = ["context", "namespace"].into_iter().filter_map(|name| flag(file, name)).collect();
        let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let minutes = file.get("start_minutes").and_then(Value::as_u64);
        let start = minutes.map_or(START, |minutes| Duration::from_secs(minutes.saturating_mul(60)));
        let start = (settings.queue.is_none() || minutes.is_some()).then_some(start);
        Self { cluster, settings, id: format!("{seconds:x}-{:x}", std::process::id()), start, keep: false }
    }

    fn kubectl(&self) -> HostCommand {
        HostCommand::new("kubectl").args(&self.cluster)
    }

    /// What `kubectl` answers to a question.
    fn ask(&self, question: &[&str]) -> Result<ProgramOutput> {
        self.kubectl().arg("--request-timeout=30s").args(question).output()
    }

    fn ask_json(&self, question: &[&str]) -> Result<Json> {
        let answer = self.ask(&[question, &["--output=json"]].concat())?;
        if !answer.success {
            return Err(failed(&answer));
        }
        serde_json::from_str(&answer.stdout)
            .map_err(|error| CubeError::Kubernetes { problem: error.to_string() }.into())
    }

    fn manifest(&self, invocation: &Invocation) -> Result<Manifest> {
        Manifest::of(invocation, &self.settings, manifest::job_name(&invocation.task, &self.id))
    }

    fn creation(&self) -> HostCommand {
        self.kubectl().args(["create", "--filename=-"])
    }

    fn create(&self, manifest: &Manifest) -> Result<()> {
        let command = self.creation();
        info!("{command}: {}", manifest.name);
        let answer = command.complete(file_of(manifest.yaml().as_bytes())?.into())?;
        if !answer.success {
            self.delete(&manifest.name)?; // the files may be there without the Job
            return Err(failed(&answer));
        }
        if manifest.has_files() {
            // The files go when the Job goes.
            let job = self.ask_json(&["get", "job", &manifest.name])?;
            let owner = manifest.owner(job["metadata"]["uid"].as_str().unwrap_or_default());
            let owned =
                self.ask(&["patch", "configmap", &manifest.name, "--type=merge", &format!("--patch={owner}")])?;
            if !owned.success {
                warn!("configmap {} stays when the job goes: {}", manifest.name, last_line(&owned.stderr));
            }
        }
        Ok(())
    }

    /// Ends the Job's pod as a signal would, and removes the Job and its files.
    fn delete(&self, name: &str) -> Result<()> {
        let (job, files) = (format!("job/{name}"), format!("configmap/{name}"));
        let flags = ["--ignore-not-found", "--cascade=foreground", "--timeout=60s"];
        let deleted = self.kubectl().args(["delete", &job, &files]).args(flags).output()?;
        if !deleted.success {
            warn!("{job} may still be there: {}", last_line(&deleted.stderr));
        }
        Ok(())
    }

    fn pod(&self, job: &str) -> Result<Pod> {
        let of = format!("--selector=job-name={job}");
        Ok(Pod::of(&self.ask_json(&["get", "pods", &of, "--sort-by=.metadata.creationTimestamp"])?))
    }

    /// Why a Job has no pod: the last warning.
    fn why_no_pod(&self, job: &str) -> Result<Option<String>> {
        let of = format!("--field-selector=involvedObject.kind=Job,involvedObject.name={job},type=Warning");
        let events = self.ask_json(&["get", "events", &of])?;
        let last = events["items"].as_array().and_then(|events| events.last()?["message"].as_str().map(String::from));
        Ok(last)
    }

    /// Waits until the pod has started. A signal ends the waiting.
    fn await_start(&self, job: &str, task: &str) -> Result<String> {
        let begin = Instant::now();
        let mut told = String::new();
        loop {
            let waits = match self.pod(job)? {
                Pod::Started { name } | Pod::Ended { name, .. } => return Ok(name),
                Pod::Hopeless { why } => return Err(lost(task, why)),
                Pod::Waiting { why } => why,
                Pod::None => match self.why_no_pod(job)? {
                    // A quota, or an admission rule of the cluster: it would wait for ever.
                    Some(why) if why.contains("forbidden") && self.settings.queue.is_none() => {
                        return Err(lost(task, why));
                    }
                    why => why,
                },
            };
            if let Some(why) = waits.clone().filter(|why| *why != told) {
                info!("{job} waits: {why}");
                told = why;
            }
            if self.start.is_some_and(|most| begin.elapsed() > most) {
                let minutes = begin.elapsed().as_secs() / 60;
                let why = waits.unwrap_or_else(|| "no reason given".into());
                let problem = format!("it did not start within {minutes} minutes: {why}");
                return Err(lost(task, problem));
            }
            pause()?;
        }
    }

    /// Prints what the task prints until the pod has ended; returns its exit code, if it is known, and what else is to say.
    fn follow(&self, job: &str, pod: &str) -> Result<(Option<i32>, Option<String>)> {
        let mut since: Option<Instant> = None;
        loop {
            let logs = self.kubectl().args(["logs", "--follow", pod]);
            // A second more than needed: a line may come twice, and none is lost.
            let since_when = since.map(|since| format!("--since={}s", since.elapsed().as_secs() + 1));
            let began = Instant::now();
            let status = logs.args(since_when).run()?;
            since = Some(if status.success() { Instant::now() } else { since.unwrap_or(began) });
            match self.pod(job)? {
                Pod::Ended { name, code, why } if name == pod => return Ok((code, why)),
                Pod::Started { name } if name == pod => pause()?,
                _ => return Ok((None, Some("it is gone: it was deleted or evicted, or its node went down".into()))),
            }
        }
    }

    /// Whether a Job whose pod has ended makes no other one: it does where somebody deleted the pod, or drained its node.
    fn is_over(&self, job: &str) -> Result<bool> {
        let begin = Instant::now();
        while begin.elapsed() < VERDICT {
            let status = &self.ask_json(&["get", "job", job])?["status"];
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let over = |c: &Json| (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True";
            if conditions.into_iter().any(over) {
                return Ok(true);
            }
            if status["active"].as_u64().is_some_and(|pods| pods > 0) && begin.elapsed() > SETTLED {
                return Ok(false);
            }
            pause()?;
        }
        Ok(true)
    }

    /// From the pod's start to the task's exit code. A pod that is lost is replaced, and the task begins again there.
    fn to_the_end(&self, job: &str, task: &str) -> Result<ExitStatus> {
        loop {
            let pod = match self.await_start(job, task) {
                Err(error) if !matches!(error, Error::Interrupted { .. }) => {
                    self.delete(job)?; // it would wait there
                    return Err(error);
                }
                started => started?,
            };
            let (code, why) = self.follow(job, &pod)?;
            if !self.is_over(job)? {
                let why = why.unwrap_or_else(|| format!("exit code {}", code.unwrap_or_default()));
                warn!("{pod} was ended ({why}); the cluster starts the task again in another pod");
                continue;
            }
            let Some(code) = code else {
                let problem = why.unwrap_or_else(|| "it ended without an exit code".into());
                return Err(lost(task, problem));
            };
            if let Some(why) = why {
                warn!("{pod}: {why}");
            }
            return Ok(ExitStatus::from_raw(code << 8));
        }
    }
}

/// Waits between two looks, unless a signal arrives.
fn pause() -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LOOK {
        interrupt::check()?;
        thread::sleep(TICK);
    }
    interrupt::check()
}

/// A task whose pod did not start, or whose result is not known.
fn lost(task: &str, problem: String) -> Error {
    CubeError::Pod { task: task.into(), problem }.into()
}

/// Why `kubectl` did not do it.
fn failed(answer: &ProgramOutput) -> Error {
    CubeError::Kubernetes { problem: last_line(&answer.stderr) }.into()
}

impl Runner for Kubernetes {
    fn find(&mut self) -> Result<()> {
        let claim = self.ask(&["get", "persistentvolumeclaim", &self.settings.claim, "--output=name"])?;
        if claim.success { Ok(()) } else { Err(failed(&claim)) }
    }

    /// The claim's files are not.
    fn is_here(&self, _: &Path) -> bool {
        false
    }

    fn command(&self, _: &Invocation) -> Result<HostCommand> {
        Ok(self.creation())
    }

    fn dry_run(&self, invocation: &Invocation) -> Result<String> {
        Ok(self.manifest(invocation)?.yaml())
    }

    fn keep(&mut self) {
        self.keep = true;
    }

    fn run(&self, invocation: &Invocation) -> Result<ExitStatus> {
        let manifest = self.manifest(invocation)?;
        // From here on a signal takes the Job away, which takes longer than a program has that does not say so.
        interrupt::acknowledge();
        self.create(&manifest)?;
        let job = &manifest.name;
        let status = self.to_the_end(job, &invocation.task)?;
        if status.success() && !self.keep {
            self.delete(job)?;
        } else {
            info!("job {job} stays for a day; remove it with `{}`", self.kubectl().args(["delete", "job", job]));
        }
        let outputs = manifest::outputs(invocation, &self.settings.workspace);
        info!("outputs are on the claim {}: {}", self.settings.claim, outputs.join(", "));
        Ok(status)
    }

    fn stop(&self, invocation: &Invocation) -> Result<()> {
        self.delete(&manifest::job_name(&invocation.task, &self.id))
    }
}
