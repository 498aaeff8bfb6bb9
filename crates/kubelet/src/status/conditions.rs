//! A pod's conditions as the node sets them (POD-04 to POD-07).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod_ref;
use crate::pods::restart::may_restart_all;

/// The types that the kubelet owns; all others are somebody else's and stay as they are.
pub const OWNED: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    "PodResizePending",
    "PodResizeInProgress",
];

/// What conditions are made from.
pub struct ConditionInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its new phase.
    pub phase: &'a str,
    /// New statuses of init containers.
    pub init_statuses: &'a [ContainerStatus],
    /// New statuses of regular containers.
    pub statuses: &'a [ContainerStatus],
    /// Whether sandbox, network and volumes are there.
    pub ready_to_start: bool,
    /// Whether a container's end is just restarting all of them (POD-29).
    pub restarting_all: bool,
    /// Conditions about a resize, with the generation that each is about.
    pub resize: &'a [PodCondition],
    /// The conditions so far, foreign ones included.
    pub old: &'a [PodCondition],
    /// Now.
    pub now: Timestamp,
}

/// The new conditions: the kubelet's own, then the foreign ones.
#[must_use]
pub fn conditions(inputs: &ConditionInputs<'_>) -> Vec<PodCondition> {
    let containers_ready = containers_ready(inputs);
    let own = vec![
        condition("PodReadyToStartContainers", inputs.ready_to_start, None),
        initialized(inputs),
        ready(inputs, &containers_ready),
        containers_ready,
        condition("PodScheduled", true, None),
    ];
    let own = own.into_iter().chain(all_containers_restarting(inputs)).chain(inputs.resize.iter().cloned());
    let generation = inputs.pod.metadata.generation;
    let mut all: Vec<PodCondition> = own
        .map(|mut new| {
            let old = inputs.old.iter().find(|old| old.type_ == new.type_);
            new.last_transition_time = match old {
                Some(old) if old.status == new.status && old.last_transition_time.is_some() => {
                    old.last_transition_time.clone()
                }
                _ => Some(Time(inputs.now)),
            };
            new.observed_generation = new.observed_generation.or(generation);
            new
        })
        .collect();
    all.extend(inputs.old.iter().filter(|old| !OWNED.contains(&old.type_.as_str())).cloned());
    all
}

fn condition(type_: &str, status: bool, why: Option<(&str, String)>) -> PodCondition {
    let (reason, message) = match why {
        Some((reason, message)) => (Some(reason.to_owned()), (!message.is_empty()).then_some(message)),
        None => (None, None),
    };
    PodCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason,
        message,
        ..PodCondition::default()
    }
}

/// Only pods with such a rule have it.
fn all_containers_restarting(inputs: &ConditionInputs<'_>) -> Option<PodCondition> {
    if !may_restart_all(inputs.pod) {
        return None;
    }
    let why = match inputs.phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if inputs.restarting_all => {
            let message = "container exited with restart policy rule".to_owned();
            return Some(condition(
                "AllContainersRestarting",
                true,
                Some(("RestartAllContainersStarted", message)),
            ));
        }
        _ => None,
    };
    Some(condition("AllContainersRestarting", false, why))
}

fn initialized(inputs: &ConditionInputs<'_>) -> PodCondition {
    if inputs.phase == "Succeeded" {
        return condition("Initialized", true, Some(("PodCompleted", String::new())));
    }
    let started = inputs.statuses.iter().any(|status| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
    });
    let incomplete: Vec<&str> = pod_ref::init_containers(inputs.pod)
        .iter()
        .filter(|container| {
            let status = inputs.init_statuses.iter().find(|status| status.name == container.name);
            let done = if pod_ref::is_sidecar(container) {
                status.is_some_and(|status| status.started == Some(true))
            } else {
                status.is_some_and(|status| status.ready)
            };
            !done
        })
        .map(|container| container.name.as_str())
        .collect();
    if started || incomplete.is_empty() {
        return condition("Initialized", true, None);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    condition("Initialized", false, Some(("ContainersNotInitialized", message)))
}

fn containers_ready(inputs: &ConditionInputs<'_>) -> PodCondition {
    let type_ = "ContainersReady";
    match inputs.phase {
        "Succeeded" => return condition(type_, false, Some(("PodCompleted", String::new()))),
        "Failed" => return condition(type_, false, Some(("PodFailed", String::new()))),
        _ => {}
    }
    let sidecars = pod_ref::init_containers(inputs.pod)
        .iter()
        .filter(|container| pod_ref::is_sidecar(container))
        .map(|container| (container, inputs.init_statuses));
    let regular = pod_ref::containers(inputs.pod).iter().map(|container| (container, inputs.statuses));
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    for (container, statuses) in sidecars.chain(regular) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !unready.is_empty() {
        parts.push(format!("containers with unready status: [{}]", unready.join(" ")));
    }
    if parts.is_empty() {
        return condition(type_, true, None);
    }
    condition(type_, false, Some(("ContainersNotReady", parts.join(", "))))
}

fn ready(inputs: &ConditionInputs<'_>, containers_ready: &PodCondition) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: "Ready".to_owned(), ..containers_ready.clone() };
    }
    let mut problems = Vec::new();
    for gate in pod_ref::spec(inputs.pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match inputs.old.iter().find(|condition| condition.type_ == *name) {
            None => problems
                .push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(condition) if condition.status != "True" => problems.push(format!(
                "the status of pod readiness gate {name:?} is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return condition("Ready", true, None);
    }
    condition("Ready", false, Some(("ReadinessGatesNotReady", problems.join(", "))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn status(name: &str, ready: bool, state: Value) -> ContainerStatus {
        serde_json::from_value(json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}))
            .unwrap()
    }

    fn texts(
        pod: Value,
        phase: &str,
        init: &[ContainerStatus],
        statuses: &[ContainerStatus],
        old: Value,
    ) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let old: Vec<PodCondition> = serde_json::from_value(old).unwrap();
        let all = conditions(&ConditionInputs {
            pod: &pod,
            phase,
            init_statuses: init,
            statuses,
            ready_to_start: true,
            restarting_all: false,
            resize: &[],
            old: &old,
            now: Timestamp::from_second(100).unwrap(),
        });
        assert!(all.iter().take(5).all(|condition| condition.observed_generation == Some(7)));
        all.into_iter()
            .map(|c| {
                format!(
                    "{}={} {} {}",
                    c.type_,
                    c.status,
                    c.reason.unwrap_or_default(),
                    c.message.unwrap_or_default()
                )
                .trim_end()
                .to_owned()
            })
            .collect()
    }

    #[test]
    fn pod_04_06_texts() {
        let pod = json!({"metadata": {"generation": 7}, "spec": {"initContainers": [{"name": "init1"}, {"name": "init2"}], "containers": [{"name": "c"}]}});
        let waiting = json!({"waiting": {}});
        let init = [status("init1", false, waiting.clone()), status("init2", false, waiting.clone())];
        assert_eq!(
            texts(pod.clone(), "Pending", &init, &[status("c", false, waiting)], json!([])),
            [
                "PodReadyToStartContainers=True",
                "Initialized=False ContainersNotInitialized containers with incomplete status: [init1 init2]",
                "Ready=False ContainersNotReady containers with unready status: [c]",
                "ContainersReady=False ContainersNotReady containers with unready status: [c]",
                "PodScheduled=True",
            ]
        );
        let done = [status("init1", true, json!({})), status("init2", true, json!({}))];
        let ended = [status("c", false, json!({"terminated": {"exitCode": 0}}))];
        let completed = texts(pod, "Succeeded", &done, &ended, json!([]));
        assert_eq!(
            completed[1..4],
            [
                "Initialized=True PodCompleted",
                "Ready=False PodCompleted",
                "ContainersReady=False PodCompleted"
            ]
        );
    }

    #[test]
    fn pod_07_readiness_gates_and_foreign_conditions() {
        let pod = json!({"metadata": {"generation": 7}, "spec": {"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x"}]}});
        let running = [status("c", true, json!({"running": {}}))];
        let missing = texts(pod.clone(), "Running", &[], &running, json!([]));
        assert_eq!(
            missing[2],
            "Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate \"x\" does not exist."
        );
        let no = texts(pod.clone(), "Running", &[], &running, json!([{"type": "x", "status": "False"}]));
        assert_eq!(
            no[2],
            "Ready=False ReadinessGatesNotReady the status of pod readiness gate \"x\" is not \"True\", but False"
        );
        assert_eq!(no[5], "x=False");
        let yes = texts(pod, "Running", &[], &running, json!([{"type": "x", "status": "True"}]));
        assert_eq!(yes[2], "Ready=True");
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": []}})).unwrap();
        let old = [PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(1).unwrap())),
            ..Default::default()
        }];
        let inputs = ConditionInputs {
            pod: &pod,
            phase: "Pending",
            init_statuses: &[],
            statuses: &[],
            ready_to_start: false,
            restarting_all: false,
            resize: &[],
            old: &old,
            now: Timestamp::from_second(9).unwrap(),
        };
        let new = conditions(&inputs);
        assert_eq!(new[4].last_transition_time, old[0].last_transition_time);
        assert_eq!(new[0].last_transition_time, Some(Time(inputs.now)));
    }
}
