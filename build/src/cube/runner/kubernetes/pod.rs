//! How a Job's pod stands, as `kubectl get pods --output=json` tells it: Kubernetes API, core/v1, PodStatus.

use serde_json::Value as Json;

/// The containers: that of the task, and those that copy its files.
pub const TASK: &str = "task";
pub const INPUTS: &str = "inputs";
pub const OUTPUTS: &str = "outputs";

/// The pod of a Job that makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pod {
    /// There is none.
    None,
    /// It has not started, and why.
    Waiting { why: Option<String> },
    /// It will not start, and why.
    Hopeless { why: String },
    /// It waits for the task's inputs.
    Receiving { name: String },
    /// It runs, or its node does not answer.
    Started { name: String },
    /// It has ended: with the task's exit code, or without where the task was not run or its result is lost; and what else is
    /// to say.
    Ended { name: String, code: Option<i32>, why: Option<String> },
}

/// Reasons for which a container waits until somebody changes something.
const HOPELESS: [&str; 6] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

impl Pod {
    /// The newest of a list in the order of their making, without those that are being deleted and may be replaced.
    pub fn of(pods: &Json) -> Self {
        let mut items = pods["items"].as_array().into_iter().flatten();
        let Some(pod) = items.rfind(|pod| pod["metadata"]["deletionTimestamp"].is_null()) else {
            return Self::None;
        };
        let (status, name) = (&pod["status"], text(&pod["metadata"]["name"]));
        let (task, inputs) = (state(status, "containerStatuses", TASK), state(status, "initContainerStatuses", INPUTS));
        let ended = &task["terminated"];
        match status["phase"].as_str() {
            // The container that keeps the outputs may go on.
            Some("Running") if !ended.is_null() => Self::ended(name, status, ended),
            Some("Succeeded" | "Failed") => {
                let why = inputs["terminated"]["exitCode"].as_i64().is_some_and(|code| code != 0);
                let why = (ended.is_null() && why).then(|| "nobody sent its inputs".to_string());
                match Self::ended(name, status, ended) {
                    Self::Ended { name, code, why: None } => Self::Ended { name, code, why },
                    ended => ended,
                }
            }
            Some("Pending") if !inputs["running"].is_null() => Self::Receiving { name },
            Some("Pending") if inputs["terminated"].is_null() => Self::pending(status, &[inputs, task]),
            Some("Pending") => Self::pending(status, &[task, state(status, "containerStatuses", OUTPUTS)]),
            _ => Self::Started { name },
        }
    }

    fn ended(name: String, status: &Json, ended: &Json) -> Self {
        let code = ended["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
        // "Error" and "Completed" say no more than the code.
        let of_the_task = reason(ended).filter(|why| !why.starts_with("Error") && !why.starts_with("Completed"));
        Self::Ended { name, code, why: reason(status).or(of_the_task) }
    }

    /// With the states of the containers that it waits for, the first one first.
    fn pending(status: &Json, states: &[&Json]) -> Self {
        let waiting = || states.iter().map(|state| &state["waiting"]);
        let is_hopeless = |waiting: &&Json| HOPELESS.contains(&waiting["reason"].as_str().unwrap_or_default());
        if let Some(waiting) = waiting().find(is_hopeless) {
            return Self::Hopeless { why: reason(waiting).unwrap_or_default() };
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let unscheduled = conditions.filter(|c| c["type"] == "PodScheduled" && c["status"] == "False").find_map(reason);
        // What every pod does.
        let usual = ["ContainerCreating", "PodInitializing"];
        let waits = waiting().filter_map(reason).find(|why| !usual.contains(&why.as_str()));
        Self::Waiting { why: unscheduled.or(waits) }
    }
}

/// The state of a container in a list of them; null if it is not there.
fn state<'a>(status: &'a Json, list: &str, name: &str) -> &'a Json {
    let containers = status[list].as_array().into_iter().flatten();
    containers
        .filter(|container| container["name"] == name)
        .map(|container| &container["state"])
        .next()
        .unwrap_or(&Json::Null)
}

/// A reason with its message.
fn reason(of: &Json) -> Option<String> {
    let (reason, message) = (text(&of["reason"]), text(&of["message"]));
    let both = [reason, message].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    (!both.is_empty()).then_some(both)
}

fn text(of: &Json) -> String {
    of.as_str().unwrap_or_default().trim().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &Json) -> Pod {
        Pod::of(&json!({ "items": [{ "metadata": { "name": "p" }, "status": status }] }))
    }

    fn container(phase: &str, state: &Json) -> Pod {
        pod(&json!({ "phase": phase, "containerStatuses": [{ "name": "task", "state": state }] }))
    }

    #[test]
    fn a_pod_that_copies_waits_for_its_inputs_and_ends_with_its_task() {
        let with = |phase: &str, inputs: Json, task: Json| {
            let status = |name: &str, state: Json| json!([{ "name": name, "state": state }]);
            pod(&json!({ "phase": phase, "initContainerStatuses": status("inputs", inputs),
                         "containerStatuses": status("task", task) }))
        };
        let (running, starting) = (json!({ "running": {} }), json!({ "waiting": { "reason": "PodInitializing" } }));
        let ended = |code: i32| json!({ "terminated": { "exitCode": code, "reason": "Completed" } });
        let pulling = json!({ "waiting": { "reason": "ImagePullBackOff" } });
        assert_eq!(with("Pending", running.clone(), starting.clone()), Pod::Receiving { name: "p".into() });
        assert_eq!(with("Pending", starting.clone(), starting.clone()), Pod::Waiting { why: None });
        assert_eq!(with("Pending", ended(0), starting.clone()), Pod::Waiting { why: None });
        let hopeless = Pod::Hopeless { why: "ImagePullBackOff".into() };
        assert_eq!(with("Pending", pulling.clone(), starting.clone()), hopeless);
        assert_eq!(with("Pending", ended(0), pulling), hopeless);
        assert_eq!(with("Running", ended(0), running), Pod::Started { name: "p".into() });
        assert_eq!(with("Running", ended(0), ended(3)), Pod::Ended { name: "p".into(), code: Some(3), why: None });
        let nobody = Some("nobody sent its inputs".into());
        assert_eq!(with("Failed", ended(1), starting), Pod::Ended { name: "p".into(), code: None, why: nobody });
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        assert_eq!(Pod::of(&json!({ "items": [] })), Pod::None);
        let deleted = json!({ "metadata": { "name": "p", "deletionTimestamp": "2026-11-27T20:00:00Z" } });
        assert_eq!(Pod::of(&json!({ "items": [deleted] })), Pod::None);
        let [old, new] = ["old", "new"].map(|name| json!({ "metadata": { "name": name } }));
        assert_eq!(Pod::of(&json!({ "items": [old, new] })), Pod::Started { name: "new".into() });
        let message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.";
        let unscheduled = json!({ "phase": "Pending", "conditions":
            [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message }] });
        assert_eq!(pod(&unscheduled), Pod::Waiting { why: Some(format!("Unschedulable: {message}")) });
        let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
        assert_eq!(container("Pending", &creating), Pod::Waiting { why: None });
        let once = json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } });
        assert_eq!(container("Pending", &once), Pod::Waiting { why: Some("ErrImagePull: not found".into()) });
        let again = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off" } });
        assert_eq!(container("Pending", &again), Pod::Hopeless { why: "ImagePullBackOff: Back-off".into() });
    }

    #[test]
    fn a_pod_that_ended_has_the_tasks_exit_code() {
        let ended = |code: i32, reason: &str| json!({ "terminated": { "exitCode": code, "reason": reason } });
        let is = |code, why: Option<&str>| Pod::Ended { name: "p".into(), code, why: why.map(String::from) };
        assert_eq!(container("Succeeded", &ended(0, "Completed")), is(Some(0), None));
        assert_eq!(container("Failed", &ended(1, "Error")), is(Some(1), None));
        assert_eq!(container("Failed", &ended(137, "OOMKilled")), is(Some(137), Some("OOMKilled")));
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." });
        assert_eq!(pod(&evicted), is(None, Some("Evicted: The node was low on memory.")));
        assert_eq!(container("Running", &json!({ "running": {} })), Pod::Started { name: "p".into() });
    }
}
