//! The Jobs of this program in a cluster, as `kubectl get jobs --output=json` tells them: Kubernetes API, batch/v1.

use serde_json::Value as Json;

use super::manifest::{FILES, SEEN, TASK};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterJob {
    /// When it was made, to the second; such texts are in the order of time.
    created: String,
    pub name: String,
    /// The label with its task.
    pub task: String,
    /// The label that tells its files from others; empty if it has none.
    pub files: String,
    /// Whether its pod has ended, and no other one is made.
    pub is_over: bool,
}

impl ClusterJob {
    /// Those of a list whose end nobody has seen, the newest last.
    pub fn of(list: &Json) -> Vec<Self> {
        let items = list["items"].as_array().into_iter().flatten();
        let waits = items
            .filter(|job| job["metadata"]["deletionTimestamp"].is_null() && job["metadata"]["labels"][SEEN].is_null());
        let text = |of: &Json| of.as_str().unwrap_or_default().to_string();
        let mut jobs: Vec<_> = waits
            .map(|job| Self {
                created: text(&job["metadata"]["creationTimestamp"]),
                name: text(&job["metadata"]["name"]),
                task: text(&job["metadata"]["labels"][TASK]),
                files: text(&job["metadata"]["labels"][FILES]),
                is_over: is_over(job),
            })
            .collect();
        jobs.sort_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)));
        jobs
    }

    /// The one of `jobs` for which the job `name` must give way: one that runs and is not younger. Of two that are made within
    /// one second none stays, since nothing tells which one was first.
    pub fn before<'a>(jobs: &'a [Self], name: &str) -> Option<&'a Self> {
        let own = jobs.iter().find(|job| job.name == name)?;
        jobs.iter().find(|job| job.name != name && !job.is_over && job.created <= own.created)
    }
}

/// Whether a Job makes no more pods and has none.
pub fn is_over(job: &Json) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, second: u32, more: Json) -> Json {
        let mut job = json!({ "metadata": {
            "name": name, "creationTimestamp": format!("2026-11-27T20:00:{second:02}Z"), "labels": { TASK: "train" } } });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    #[test]
    fn the_jobs_that_somebody_may_take_up_are_those_that_nobody_has_seen_the_end_of() {
        let mut seen = job("seen", 1, json!({}));
        seen["metadata"]["labels"][SEEN] = json!("yes");
        let mut going = job("going", 1, json!({}));
        going["metadata"]["deletionTimestamp"] = json!("2026-11-27T20:00:09Z");
        let over = json!({ "status": { "conditions": [{ "type": "Failed", "status": "True" }] } });
        let jobs = ClusterJob::of(&json!({ "items": [job("new", 3, json!({})), seen, going, job("old", 2, over)] }));
        let names: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.is_over)).collect();
        assert_eq!(names, [("old", true), ("new", false)]);
        assert_eq!(jobs[0].task, "train");
        let not = json!({ "status": { "conditions": [{ "type": "Failed", "status": "False" }] } });
        assert!(!is_over(&not));
    }

    #[test]
    fn of_two_jobs_at_once_the_second_gives_way_and_never_none() {
        let jobs = ClusterJob::of(&json!({ "items": [job("b", 1, json!({})), job("a", 2, json!({}))] }));
        assert_eq!(ClusterJob::before(&jobs, "a").unwrap().name, "b");
        assert_eq!(ClusterJob::before(&jobs, "b"), None);
        let tie = ClusterJob::of(&json!({ "items": [job("a", 1, json!({})), job("b", 1, json!({}))] }));
        assert!(ClusterJob::before(&tie, "a").is_some() && ClusterJob::before(&tie, "b").is_some());
        assert_eq!(ClusterJob::before(&tie[..1], "a"), None);
    }
}
