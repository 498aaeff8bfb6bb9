//! Whether an ended container is started again: restart policy of pod and container, and the container's
//! exit-code rules (POD-03, POD-29).

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::runtime_pod::{RuntimeContainer, RuntimePod, State};
use crate::pod_ref;

/// The action that restarts the whole pod in place.
pub const RESTART_ALL: &str = "RestartAllContainers";

/// The action of the first of the container's rules that this exit code matches.
#[must_use]
pub fn rule_action(container: &Container, exit_code: i32) -> Option<&str> {
    let matches = |rule: &&ContainerRestartRule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    container.restart_policy_rules.iter().flatten().find(matches).map(|rule| rule.action.as_str())
}

/// Whether one of the pod's containers has a rule that restarts them all.
#[must_use]
pub fn may_restart_all(pod: &Pod) -> bool {
    let containers = pod_ref::init_containers(pod).iter().chain(pod_ref::containers(pod));
    containers
        .flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == RESTART_ALL)
}

/// The container whose end restarts the whole pod, if one ended so (POD-29).
#[must_use]
pub fn restart_all_trigger<'a>(pod: &'a Pod, runtime: &RuntimePod) -> Option<&'a Container> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pod_ref::init_containers(pod).iter().chain(pod_ref::containers(pod)).find(|container| {
        runtime.container_in_sandbox(&container.name).is_some_and(|run| {
            run.state == State::Exited && rule_action(container, run.exit_code) == Some(RESTART_ALL)
        })
    })
}

/// Whether `container`, which ended with `exit_code`, is to be started again.
#[must_use]
pub fn restarts_after_exit(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if matches!(rule_action(container, exit_code), Some("Restart" | RESTART_ALL)) {
        return true;
    }
    let policy = container.restart_policy.as_deref().unwrap_or(pod_ref::restart_policy(pod));
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether a regular container is to be started, given its newest run (none: it never ran).
#[must_use]
pub fn should_start(pod: &Pod, container: &Container, latest: Option<&RuntimeContainer>) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match latest {
        None => true,
        Some(run) => match run.state {
            State::Running => false,
            State::Created | State::Unknown => true,
            State::Exited => run.replaced || restarts_after_exit(pod, container, run.exit_code),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn pod_03_29_restart_matrix() {
        let decide = |policy: &str, container: serde_json::Value, code: i32| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"restartPolicy": policy, "containers": [container]}}))
                    .unwrap();
            restarts_after_exit(&pod, &pod_ref::containers(&pod)[0], code)
        };
        let plain = json!({"name": "c"});
        assert_eq!([0, 1].map(|code| decide("Always", plain.clone(), code)), [true, true]);
        assert_eq!([0, 1].map(|code| decide("OnFailure", plain.clone(), code)), [false, true]);
        assert_eq!([0, 1].map(|code| decide("Never", plain.clone(), code)), [false, false]);
        let ruled = json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
        assert_eq!([0, 1, 42].map(|code| decide("Always", ruled.clone(), code)), [false, false, true]);
    }
}
