//! A pod's phase (POD-02).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pod_ref;
use crate::pods::restart::restarts_after_exit;

/// The phase that follows from the containers' statuses; `terminal` once nothing will be started any more.
#[must_use]
pub fn phase(
    pod: &Pod,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
    terminal: bool,
) -> &'static str {
    let started_before = statuses.iter().any(has_run);
    let mut pending_init = 0;
    let mut failed_init = false;
    for container in pod_ref::init_containers(pod) {
        let status = init_statuses.iter().find(|status| status.name == container.name);
        if pod_ref::is_sidecar(container) {
            let started = status
                .is_some_and(|status| status.started == Some(true) || has_run(status) && started_before);
            if !started && !started_before {
                pending_init += 1;
            }
            continue;
        }
        match status.and_then(exit_code) {
            Some(0) => {}
            Some(code) => {
                if restarts_after_exit(pod, container, code) {
                    pending_init += 1;
                } else {
                    failed_init = true;
                }
            }
            None if started_before => {}
            None => pending_init += 1,
        }
    }
    if failed_init {
        return "Failed";
    }
    let (mut unknown, mut waiting, mut running, mut stopped, mut succeeded, mut restartable) =
        (0, 0, 0, 0, 0, 0);
    for container in pod_ref::containers(pod) {
        let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
            unknown += 1;
            continue;
        };
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            running += 1;
        } else if let Some(code) = exit_code(status) {
            stopped += 1;
            if code == 0 {
                succeeded += 1;
            }
            if restarts_after_exit(pod, container, code) {
                restartable += 1;
            }
        } else {
            waiting += 1;
        }
    }
    if pending_init > 0 && !terminal {
        return "Pending";
    }
    if terminal && running == 0 {
        // Deleted before it ever ran, killed, or finished: it ends as what its containers ended as (POD-34).
        let all_succeeded = stopped > 0 && stopped == succeeded && waiting == 0 && unknown == 0;
        return if all_succeeded { "Succeeded" } else { "Failed" };
    }
    match () {
        () if waiting > 0 => "Pending",
        () if running > 0 && unknown == 0 => "Running",
        () if running == 0 && stopped > 0 && unknown == 0 => {
            if restartable > 0 {
                "Running"
            } else if stopped == succeeded {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        () => "Pending",
    }
}

/// The exit code of an ended container: now ended, or waiting for its next start.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    if let Some(terminated) = &state.terminated {
        return Some(terminated.exit_code);
    }
    state.waiting.as_ref()?;
    status.last_state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

fn has_run(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some()) || exit_code(status).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn status(name: &str, state: Value, last: Value) -> ContainerStatus {
        serde_json::from_value(
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "started": state.get("running").is_some(), "state": state, "lastState": last}),
        )
        .unwrap()
    }

    fn pod(policy: &str, init: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"restartPolicy": policy, "initContainers": init,
            "containers": [{"name": "a"}, {"name": "b"}]}}))
        .unwrap()
    }

    #[test]
    fn pod_02_phase_table() {
        let running = || json!({"running": {}});
        let waiting = || json!({"waiting": {}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let none = || json!({});
        let case = |policy: &str, a: (Value, Value), b: (Value, Value), terminal: bool| {
            let statuses = [status("a", a.0, a.1), status("b", b.0, b.1)];
            phase(&pod(policy, json!([])), &[], &statuses, terminal)
        };
        for (policy, a, b, terminal, expected) in [
            ("Always", (waiting(), none()), (waiting(), none()), false, "Pending"),
            ("Always", (running(), none()), (waiting(), none()), false, "Pending"),
            ("Always", (running(), none()), (running(), none()), false, "Running"),
            ("Always", (running(), none()), (ended(1), none()), false, "Running"),
            ("Always", (ended(0), none()), (ended(0), none()), false, "Running"),
            ("Always", (waiting(), ended(1)), (running(), none()), false, "Running"),
            ("Always", (waiting(), ended(1)), (waiting(), ended(1)), false, "Running"),
            ("OnFailure", (ended(0), none()), (ended(0), none()), false, "Succeeded"),
            ("OnFailure", (ended(0), none()), (ended(1), none()), false, "Running"),
            ("Never", (ended(0), none()), (ended(0), none()), false, "Succeeded"),
            ("Never", (ended(0), none()), (ended(1), none()), false, "Failed"),
            ("Never", (ended(1), none()), (running(), none()), false, "Running"),
            ("Always", (ended(0), none()), (ended(0), none()), true, "Succeeded"),
            ("Always", (ended(137), none()), (ended(0), none()), true, "Failed"),
            ("Always", (waiting(), none()), (waiting(), none()), true, "Failed"),
            ("Always", (running(), none()), (running(), none()), true, "Running"),
        ] {
            assert_eq!(
                case(policy, a.clone(), b.clone(), terminal),
                expected,
                "{policy} {a:?} {b:?} {terminal}"
            );
        }
    }

    #[test]
    fn pod_23_25_26_init_containers_and_sidecars() {
        let waiting = || {
            [status("a", json!({"waiting": {}}), json!({})), status("b", json!({"waiting": {}}), json!({}))]
        };
        let init = json!([{"name": "i"}]);
        let of = |policy: &str, state: Value| {
            phase(&pod(policy, init.clone()), &[status("i", state, json!({}))], &waiting(), false)
        };
        assert_eq!(of("Always", json!({"running": {}})), "Pending");
        assert_eq!(of("Always", json!({"terminated": {"exitCode": 1}})), "Pending");
        assert_eq!(of("Never", json!({"terminated": {"exitCode": 1}})), "Failed");
        let sidecar = pod("Never", json!([{"name": "s", "restartPolicy": "Always"}]));
        let done = [
            status("a", json!({"terminated": {"exitCode": 0}}), json!({})),
            status("b", json!({"terminated": {"exitCode": 0}}), json!({})),
        ];
        let failed_sidecar = [status("s", json!({"terminated": {"exitCode": 9}}), json!({}))];
        assert_eq!(phase(&sidecar, &failed_sidecar, &done, true), "Succeeded");
        assert_eq!(phase(&sidecar, &failed_sidecar, &waiting(), false), "Pending");
    }
}
