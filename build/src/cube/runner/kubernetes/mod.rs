//! A Kubernetes cluster, through the user's own `kubectl`: a Job runs the task in one pod. A claim there holds the
//! workspace; without one, inputs and outputs are copied.
//!
//! ```text
//! places: where each file is in the pod -> manifest: the Job -> pod: how it stands; copies: files sent and fetched
//! jobs: those of the same workspace, for `--attach` and against a second one
//! ```

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_yaml::Value;
use tracing::{info, warn};

mod copies;
mod jobs;
mod kubectl;
mod manifest;
mod places;
mod pod;
mod settings;

use self::jobs::ClusterJob;
use self::kubectl::{Kubectl, failed};
use self::manifest::Manifest;
use self::places::PodPlaces;
use self::pod::Pod;
use self::settings::Settings;
use super::super::command::{HostCommand, file_of};
use super::super::directory::CubeDir;
use super::super::invocation::Invocation;
use super::super::schema::{self, Expected, Schema, optional, required};
use super::{Platform, Runner, flag, last_line};
use crate::error::{CubeError, Error, Result};
use crate::interrupt;

/// `mlcube_k8s`. The published runner has no platform file of its own: the keys are ours.
pub const PLATFORM: Platform = Platform {
    schema: Schema {
        name: "mlcube_k8s",
        fields: &[
            required("image", Expected::Image),
            optional("pvc", Expected::Claim),
            optional("copier", Expected::Image),
            optional("fetch_minutes", Expected::Count),
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

/// The settings of the published runner, which have one of these sections.
pub const SETTINGS: Platform = Platform {
    schema: Schema {
        name: schema::SETTINGS[0],
        fields: &[optional(schema::SETTINGS[0], SECTION), optional(schema::SETTINGS[1], SECTION)],
    },
    runner: |file, cube, _| {
        let section = schema::SETTINGS.iter().find_map(|name| file.get(*name)).unwrap_or(&Value::Null);
        Box::new(Kubernetes::read(section, cube))
    },
};

const SECTION: Expected = Expected::Record(&[
    optional("runner", Expected::OneOf(&["k8s"])),
    required("pvc", Expected::Claim),
    required("image", Expected::Image),
    optional("namespace", Expected::Word),
]);

/// The time between two looks at the pod.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two looks for a signal.
const TICK: Duration = Duration::from_millis(50);
/// The time that a Job has to say that it is over, once its pod has ended, and the time after which it has counted that pod.
const VERDICT: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(5);
/// The time that a pod has to start, where the platform file says nothing.
const START: Duration = Duration::from_secs(600);
/// How often inputs are sent, or outputs fetched, before a broken connection is an error.
const TRIES: u32 = 3;

/// A cluster, as `kubectl` reaches it, and how the pod is to be.
#[derive(Debug)]
pub struct Kubernetes {
    kubectl: Kubectl,
    settings: Settings,
    /// The end of the Job's name, which no other process gives.
    id: String,
    /// The time that the pod has to start; none where it waits in a queue.
    start: Option<Duration>,
    keep: bool,
    followed: RefCell<Option<Followed>>,
}

/// The Job that this process has made or taken up.
#[derive(Debug, Clone)]
struct Followed {
    job: String,
    /// Its pod, once the task runs.
    pod: Option<String>,
    /// How the task ended.
    status: Option<ExitStatus>,
}

impl Kubernetes {
    fn read(file: &Value, cube: &CubeDir) -> Self {
        let settings = Settings::read(file, &cube.workspace);
        let flags = ["context", "namespace"].into_iter().filter_map(|name| flag(file, name)).collect();
        let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let minutes = file.get("start_minutes").and_then(Value::as_u64);
        let start = minutes.map_or(START, |minutes| Duration::from_secs(minutes.saturating_mul(60)));
        let start = (settings.queue.is_none() || minutes.is_some()).then_some(start);
        let id = format!("{seconds:x}-{:x}", std::process::id());
        let followed = RefCell::new(None);
        Self { kubectl: Kubectl { flags }, settings, id, start, keep: false, followed }
    }

    fn places(&self, invocation: &Invocation) -> Result<PodPlaces> {
        PodPlaces::of(invocation, &self.settings)
    }

    fn manifest(&self, invocation: &Invocation, places: &PodPlaces) -> Result<Manifest> {
        Manifest::of(invocation, places, &self.settings, manifest::job_name(&invocation.task, &self.id))
    }

    fn creation(&self) -> HostCommand {
        self.kubectl.command().args(["create", "--filename=-"])
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
            let job = self.kubectl.ask_json(&["get", "job", &manifest.name])?;
            let owner = manifest.owner(job["metadata"]["uid"].as_str().unwrap_or_default());
            let owned = self.kubectl.ask(&[
                "patch",
                "configmap",
                &manifest.name,
                "--type=merge",
                &format!("--patch={owner}"),
            ])?;
            if !owned.success {
                warn!("configmap {} stays when the job goes: {}", manifest.name, last_line(&owned.stderr));
            }
        }
        Ok(())
    }

    /// Ends the Job's pod as a signal would, and removes the Job and its files.
    fn delete(&self, name: &str) -> Result<()> {
        self.followed.take();
        let (job, files) = (format!("job/{name}"), format!("configmap/{name}"));
        let flags = ["--ignore-not-found", "--cascade=foreground", "--timeout=60s"];
        let deleted = self.kubectl.command().args(["delete", &job, &files]).args(flags).output()?;
        if !deleted.success {
            warn!("{job} may still be there: {}", last_line(&deleted.stderr));
        }
        Ok(())
    }

    /// The Jobs of the same workspace whose end nobody has seen, the newest last.
    fn jobs(&self, places: &PodPlaces) -> Result<Vec<ClusterJob>> {
        Ok(ClusterJob::of(&self.kubectl.ask_json(&["get", "jobs", &manifest::selector(places)])?))
    }

    fn pod(&self, job: &str) -> Result<Pod> {
        let of = format!("--selector=job-name={job}");
        Ok(Pod::of(&self.kubectl.ask_json(&["get", "pods", &of, "--sort-by=.metadata.creationTimestamp"])?))
    }

    /// Why a Job has no pod: the last warning.
    fn why_no_pod(&self, job: &str) -> Result<Option<String>> {
        let of = format!("--field-selector=involvedObject.kind=Job,involvedObject.name={job},type=Warning");
        let events = self.kubectl.ask_json(&["get", "events", &of])?;
        let last = events["items"].as_array().and_then(|events| events.last()?["message"].as_str().map(String::from));
        Ok(last)
    }

    /// Waits until the pod has started, and sends the inputs if it waits for them. A signal ends the waiting.
    fn await_start(&self, job: &str, task: &str, places: &PodPlaces) -> Result<String> {
        let mut begin = Instant::now();
        let (mut told, mut tries, mut served) = (String::new(), 0, None);
        loop {
            let waits = match self.pod(job)? {
                Pod::Started { name } | Pod::Ended { name, .. } => return Ok(name),
                Pod::Hopeless { why } => return Err(lost(task, why)),
                Pod::Waiting { why } => why,
                // It takes a moment until a pod says that it has its inputs.
                Pod::Receiving { name } if served.as_ref() == Some(&name) => None,
                Pod::Receiving { name } => {
                    let sent = places.copies.iter().try_for_each(|copies| copies.send(&self.kubectl, &name));
                    tries += 1;
                    served = sent.map(|()| Some(name)).or_else(|error| once_more(error, tries).map(|()| None))?;
                    begin = Instant::now(); // much may have been sent
                    None
                }
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

    /// The log of a pod's task.
    fn logs(&self, pod: &str) -> HostCommand {
        self.kubectl.command().args(["logs", pod, &format!("--container={}", pod::TASK)])
    }

    /// Prints what the task prints until it has ended; returns its exit code, if it is known, and what else is to say.
    fn follow(&self, job: &str, pod: &str) -> Result<(Option<i32>, Option<String>)> {
        let mut since: Option<Instant> = None;
        loop {
            // A second more than needed: a line may come twice, and none is lost.
            let since_when = since.map(|since| format!("--since={}s", since.elapsed().as_secs() + 1));
            let began = Instant::now();
            let status = self.logs(pod).arg("--follow").args(since_when).run()?;
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
            let found = self.kubectl.ask_json(&["get", "job", job])?;
            if jobs::is_over(&found) {
                return Ok(true);
            }
            if found["status"]["active"].as_u64().is_some_and(|pods| pods > 0) && begin.elapsed() > SETTLED {
                return Ok(false);
            }
            pause()?;
        }
        Ok(true)
    }

    /// From the pod's start to the task's exit code. A pod that is lost is replaced, and the task begins again there.
    fn to_the_end(&self, job: &str, task: &str, places: &PodPlaces) -> Result<ExitStatus> {
        loop {
            let pod = match self.await_start(job, task, places) {
                Err(error @ Error::Cube(CubeError::Pod { .. } | CubeError::Transfer { .. })) => {
                    self.delete(job)?; // it would wait there
                    return Err(error);
                }
                started => started?,
            };
            let followed = Followed { job: job.into(), pod: Some(pod.clone()), status: None };
            self.followed.replace(Some(followed.clone()));
            let (code, why) = self.follow(job, &pod)?;
            // A pod with outputs to fetch goes on after its task.
            let is_over = code.is_some() && places.copies.is_some() || self.is_over(job)?;
            if !is_over {
                let why = why.unwrap_or_else(|| format!("exit code {}", code.unwrap_or_default()));
                warn!("{pod} was ended ({why}); the cluster starts the task again in another pod");
                continue;
            }
            let Some(code) = code else {
                self.seen(job)?;
                let problem = why.unwrap_or_else(|| "it ended without an exit code".into());
                return Err(lost(task, problem));
            };
            if let Some(why) = why {
                warn!("{pod}: {why}");
            }
            let status = ExitStatus::from_raw(code << 8);
            self.followed.replace(Some(Followed { status: Some(status), ..followed }));
            return Ok(status);
        }
    }

    /// The same; where `kubectl` fails on the way, the Job goes on, and that is said.
    fn watch(&self, job: &str, invocation: &Invocation, places: &PodPlaces) -> Result<ExitStatus> {
        let task = &invocation.task;
        self.to_the_end(job, task, places).map_err(|error| match error {
            Error::Cube(CubeError::Kubernetes { problem }) => {
                warn!("kubectl: {problem}");
                CubeError::Lost { host: format!("job {job}"), task: task.clone(), then: "goes on there" }.into()
            }
            other => other,
        })
    }

    /// Notes that the end of a Job was seen, so that nobody takes it up.
    fn seen(&self, job: &str) -> Result<()> {
        let seen = self.kubectl.ask(&["label", "job", job, &format!("{}=yes", manifest::SEEN)])?;
        if !seen.success {
            warn!("job {job} cannot be labelled as seen: {}", last_line(&seen.stderr));
        }
        Ok(())
    }

    /// Refuses a second Job beside `other`.
    fn refuse(&self, other: &ClusterJob) -> Result<()> {
        let (host, directory) = ("kubernetes".into(), format!("job {}", other.name));
        Err(CubeError::Running { host, task: other.task.clone(), directory }.into())
    }

    /// Fetches the outputs of a task, if they are copied. Returns what could not be put in place.
    fn fetch(&self, job: &str, pod: &str, places: &PodPlaces, task: &str) -> Result<Option<CubeError>> {
        let Some(copies) = &places.copies else { return Ok(None) };
        let mut tries = 0;
        loop {
            let error = match copies.fetch(&self.kubectl, pod, &self.settings.workspace) {
                Ok(conflict) => return Ok(conflict),
                Err(error) => error,
            };
            if error.to_string().contains("completed pod") {
                self.seen(job)?;
                return Err(CubeError::OutputsGone { pod: pod.into() }.into());
            }
            tries += 1;
            if let Err(error) = once_more(error, tries) {
                let minutes = self.settings.fetch_minutes;
                warn!(
                    "{pod} keeps the outputs for {minutes} minutes; the same command with --attach, for task {task} alone, \
                     brings them"
                );
                return Err(error);
            }
        }
    }
}

/// Whether what `error` has broken is tried again after so many `tries`: only the connection to a pod may come back.
fn once_more(error: Error, tries: u32) -> Result<()> {
    if tries < TRIES && matches!(error, Error::Cube(CubeError::Transfer { .. } | CubeError::Kubernetes { .. })) {
        warn!("{error}; once more");
        return pause();
    }
    Err(error)
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

impl Runner for Kubernetes {
    /// The claim's files are not.
    fn is_here(&self, _: &Path) -> bool {
        self.settings.claim.is_none()
    }

    fn has_claims(&self) -> bool {
        true
    }

    fn command(&self, _: &Invocation) -> Result<HostCommand> {
        Ok(self.creation())
    }

    fn dry_run(&self, invocation: &Invocation) -> Result<String> {
        Ok(self.manifest(invocation, &self.places(invocation)?)?.yaml())
    }

    fn keep(&mut self) {
        self.keep = true;
    }

    fn run(&self, invocation: &Invocation) -> Result<ExitStatus> {
        let places = self.places(invocation)?;
        let manifest = self.manifest(invocation, &places)?;
        for claim in places.claims() {
            let found = self.kubectl.ask(&["get", "persistentvolumeclaim", claim, "--output=name"])?;
            if !found.success {
                return Err(failed(&found));
            }
        }
        self.jobs(&places)?.iter().filter(|job| !job.is_over).try_for_each(|job| self.refuse(job))?;
        // From here on a signal takes the Job away, which takes longer than a program has that does not say so.
        interrupt::acknowledge();
        let job = &manifest.name;
        self.followed.replace(Some(Followed { job: job.clone(), pod: None, status: None }));
        self.create(&manifest)?;
        // Another process may have made one since.
        if let Some(first) = ClusterJob::before(&self.jobs(&places)?, job) {
            self.delete(job)?;
            self.refuse(first)?;
        }
        self.watch(job, invocation, &places)
    }

    fn attach(&self, invocation: &Invocation) -> Result<ExitStatus> {
        let places = self.places(invocation)?;
        let jobs = self.jobs(&places)?;
        let task = manifest::label(&invocation.task);
        let Some(job) = jobs.iter().rfind(|job| job.task == task) else {
            jobs.iter().filter(|job| !job.is_over).try_for_each(|job| self.refuse(job))?;
            return Err(CubeError::NothingToAttach.into());
        };
        if job.files != manifest::files(invocation) {
            return Err(CubeError::OtherFiles { job: job.name.clone() }.into());
        }
        info!("taking up job {}", job.name);
        interrupt::acknowledge();
        self.followed.replace(Some(Followed { job: job.name.clone(), pod: None, status: None }));
        self.watch(&job.name, invocation, &places)
    }

    /// Ends the task alone where a container beside it keeps the outputs, and otherwise the whole Job.
    fn stop(&self, invocation: &Invocation) -> Result<()> {
        let Some(Followed { job, pod, .. }) = self.followed.borrow().clone() else { return Ok(()) };
        let Some(pod) = pod.filter(|_| self.places(invocation).is_ok_and(|places| places.copies.is_some())) else {
            return self.delete(&job);
        };
        info!("{pod}: stopping task {}", invocation.task);
        let begin = Instant::now();
        let signal = interrupt::received().unwrap_or(signal_hook::consts::SIGTERM);
        if let Err(error) = copies::end_task(&self.kubectl, &pod, signal) {
            warn!("{pod}: {error}");
            return self.delete(&job);
        }
        let since = format!("--since={}s", begin.elapsed().as_secs() + 1);
        self.logs(&pod).arg(since).output()?.stdout.lines().for_each(|line| info!("{line}"));
        Ok(())
    }

    fn collect(&self, invocation: &Invocation) -> Result<()> {
        let Some(Followed { job, pod, status }) = self.followed.borrow().clone() else { return Ok(()) };
        let places = self.places(invocation)?;
        let fetched = pod.map(|pod| self.fetch(&job, &pod, &places, &invocation.task)).transpose()?;
        match status {
            Some(status) if !status.success() || self.keep => {
                self.seen(&job)?;
                let delete = self.kubectl.command().args(["delete", "job", &job]);
                info!("job {job} stays for a day; remove it with `{delete}`");
            }
            _ => self.delete(&job)?,
        }
        if !places.outputs.is_empty() {
            info!("outputs on claims: {}", places.outputs.join(", "));
        }
        fetched.flatten().map_or(Ok(()), |conflict| Err(conflict.into()))
    }
}
