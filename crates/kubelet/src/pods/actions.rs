//! What is to be done for a pod now, computed from its spec and from what the runtime says: a pure function,
//! so every case of it is a row in a table (`tests.rs`).

use k8s_openapi::api::core::v1::{Container, Pod};

use super::restart::{restart_all_trigger, restarts_after_exit, should_start};
use super::runtime_pod::{RuntimeContainer, RuntimePod, State};
use crate::labels::container_hash;
use crate::pod_ref;
use crate::probes::ProbeResults;

/// The exit code of what SIGKILL ends: a failure, which only `Never` leaves so.
const KILLED: i32 = 137;

/// A container that is to be stopped although the pod goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's id.
    pub id: String,
    /// The name in the spec.
    pub name: String,
    /// The text of the `Killing` event (POD-18).
    pub message: String,
    /// Which probe asked for it, if one did: it may bring its own grace period (POD-42).
    pub probe: Option<crate::probes::ProbeKind>,
}

/// What to do, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Stop everything: the sandbox is unusable, or nothing in it has anything left to do.
    pub kill_pod: bool,
    /// Make a sandbox.
    pub create_sandbox: bool,
    /// Everything begins again in the same sandbox, because this container ended as a rule of it says (POD-29);
    /// then nothing else is to be done.
    pub restart_all: Option<String>,
    /// How many sandboxes were made before the one to be made.
    pub attempt: u32,
    /// Containers to stop first.
    pub kill: Vec<Kill>,
    /// Ephemeral containers to start, by index.
    pub start_ephemeral: Vec<usize>,
    /// Init containers to start, by index, in order.
    pub start_init: Vec<usize>,
    /// Regular containers to start, by index, in order.
    pub start: Vec<usize>,
}

/// Computes the actions for `pod`.
#[must_use]
pub fn pod_actions(pod: &Pod, runtime: &RuntimePod, probes: &ProbeResults) -> PodActions {
    let mut actions = PodActions::default();
    let (sandbox_changed, attempt) = sandbox_change(pod, runtime);
    if sandbox_changed {
        plan_new_sandbox(pod, runtime, attempt, &mut actions);
        return actions;
    }
    if let Some(trigger) = restart_all_trigger(pod, runtime) {
        actions.restart_all = Some(trigger.name.clone());
        return actions;
    }
    for (index, ephemeral) in pod_ref::ephemeral_containers(pod).iter().enumerate() {
        if runtime.container(&ephemeral.name).is_none() {
            actions.start_ephemeral.push(index);
        }
    }
    if !plan_init_containers(pod, runtime, probes, &mut actions) {
        return actions;
    }
    plan_containers(pod, runtime, probes, &mut actions);
    actions
}

/// Whether a new sandbox is needed, and its attempt number.
#[must_use]
pub fn sandbox_change(pod: &Pod, runtime: &RuntimePod) -> (bool, u32) {
    let Some(newest) = runtime.sandboxes.first() else { return (true, 0) };
    let next = newest.attempt + 1;
    let ready = runtime.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    if ready > 1 || !newest.ready {
        return (true, next);
    }
    let host_network = pod_ref::is_host_network(pod);
    if newest.host_network != host_network {
        return (true, next);
    }
    // A sandbox that lost its address is of no use.
    if !host_network && newest.ips.is_empty() {
        return (true, next);
    }
    (false, newest.attempt)
}

fn plan_new_sandbox(pod: &Pod, runtime: &RuntimePod, attempt: u32, actions: &mut PodActions) {
    actions.kill_pod = true;
    actions.attempt = attempt;
    if attempt > 0 && ends_with_its_sandbox(pod, runtime) {
        return;
    }
    let start: Vec<usize> = pod_ref::containers(pod)
        .iter()
        .enumerate()
        .filter(|(_, container)| starts_in_a_new_sandbox(pod, container, runtime))
        .map(|(index, _)| index)
        .collect();
    // Nothing would run in it: no sandbox only for the sandbox's sake (POD-20).
    let initialized = init_was_done(pod, runtime);
    if start.is_empty() && (initialized || pod.metadata.deletion_timestamp.is_some()) {
        return;
    }
    if attempt > 0 && failed_init_for_good(pod, runtime) {
        return;
    }
    actions.create_sandbox = true;
    if pod_ref::init_containers(pod).is_empty() {
        actions.start = start;
    } else {
        actions.start_init = vec![0];
    }
}

/// Whether a regular container is started in the sandbox that replaces this one: what still runs is killed with it.
fn starts_in_a_new_sandbox(pod: &Pod, container: &Container, runtime: &RuntimePod) -> bool {
    let latest = runtime.container(&container.name);
    if latest.is_some_and(|run| run.state == State::Running) {
        return pod.metadata.deletion_timestamp.is_none() && restarts_after_exit(pod, container, KILLED);
    }
    should_start(pod, container, latest)
}

/// Whether the pod is over when its sandbox is: it has had containers, and none of its own may begin twice.
fn ends_with_its_sandbox(pod: &Pod, runtime: &RuntimePod) -> bool {
    let begins_twice = |container: &Container| {
        let ended = runtime.container(&container.name).filter(|run| run.state == State::Exited);
        restarts_after_exit(pod, container, ended.map_or(KILLED, |run| run.exit_code))
    };
    pod_ref::restart_policy(pod) == "Never"
        && !runtime.containers.is_empty()
        && !runtime.is_replacing()
        && !pod_ref::init_containers(pod)
            .iter()
            .filter(|container| !pod_ref::is_sidecar(container))
            .chain(pod_ref::containers(pod))
            .any(begins_twice)
}

/// Whether a regular container ever ran, in any sandbox: then all init containers were done once.
fn init_was_done(pod: &Pod, runtime: &RuntimePod) -> bool {
    pod_ref::init_containers(pod).is_empty()
        || pod_ref::containers(pod).iter().any(|container| runtime.container(&container.name).is_some())
}

/// Whether an init container failed and may not be tried again.
fn failed_init_for_good(pod: &Pod, runtime: &RuntimePod) -> bool {
    pod_ref::init_containers(pod).iter().filter(|container| !pod_ref::is_sidecar(container)).any(
        |container| {
            runtime.container(&container.name).is_some_and(|run| {
                run.state == State::Exited
                    && run.exit_code != 0
                    && !restarts_after_exit(pod, container, run.exit_code)
            })
        },
    )
}

/// Plans init containers and sidecars; true when the regular containers may run.
fn plan_init_containers(
    pod: &Pod,
    runtime: &RuntimePod,
    probes: &ProbeResults,
    actions: &mut PodActions,
) -> bool {
    let init = pod_ref::init_containers(pod);
    if init.is_empty() {
        return true;
    }
    let mut initialized = pod_ref::containers(pod)
        .iter()
        .any(|container| runtime.container_in_sandbox(&container.name).is_some());
    // Everything before the most advanced init container has been done; only its sidecars still matter.
    let mut passed = initialized;
    let mut start = Vec::new();
    for (index, container) in init.iter().enumerate().rev() {
        let sidecar = pod_ref::is_sidecar(container);
        if passed && !sidecar {
            continue;
        }
        let Some(run) = runtime.container_in_sandbox(&container.name) else {
            if passed {
                start.push(index);
            }
            continue;
        };
        let next = index + 1;
        match run.state {
            State::Created | State::Unknown => start.push(index),
            State::Running if sidecar => {
                if let Some(kill) = kill_reason(container, run, probes, true) {
                    actions.kill.push(kill);
                    start.push(index);
                } else if !passed && probes.started(container, run) {
                    if next < init.len() { start.push(next) } else { initialized = true }
                }
            }
            State::Running => {}
            State::Exited if sidecar => {
                if pod.metadata.deletion_timestamp.is_none() && !pod_is_finished(pod, runtime) {
                    start.push(index);
                }
            }
            State::Exited if run.exit_code == 0 => {
                if next < init.len() {
                    start.push(next)
                } else {
                    initialized = true
                }
            }
            State::Exited => {
                if restarts_after_exit(pod, container, run.exit_code) {
                    start.push(index);
                } else {
                    // A failure that is final: the pod is Failed, nothing more is started.
                    actions.kill_pod = true;
                    return false;
                }
            }
        }
        passed = true;
    }
    if !passed {
        start.push(0);
    }
    start.sort_unstable();
    start.dedup();
    actions.start_init = start;
    initialized
}

/// Whether every regular container has ended for good.
fn pod_is_finished(pod: &Pod, runtime: &RuntimePod) -> bool {
    pod_ref::containers(pod).iter().all(|container| {
        runtime
            .container(&container.name)
            .is_some_and(|run| run.state == State::Exited && !should_start(pod, container, Some(run)))
    })
}

fn plan_containers(pod: &Pod, runtime: &RuntimePod, probes: &ProbeResults, actions: &mut PodActions) {
    let mut kept = 0;
    for (index, container) in pod_ref::containers(pod).iter().enumerate() {
        match runtime.container(&container.name) {
            Some(run) if run.state == State::Running => {
                let Some(kill) = kill_reason(container, run, probes, false) else {
                    kept += 1;
                    continue;
                };
                let changed = run.hash != container_hash(container);
                let restart = changed || restarts_after_exit(pod, container, KILLED);
                let kill = if restart { restarting(kill) } else { kill };
                actions.kill.push(kill);
                if restart {
                    actions.start.push(index);
                }
            }
            latest => {
                if should_start(pod, container, latest) {
                    if let Some(run) = latest.filter(|run| run.state == State::Unknown) {
                        actions.kill.push(Kill {
                            id: run.id.clone(),
                            name: run.name.clone(),
                            message: format!(
                                "Container {} is in unknown state, try killing it before restart",
                                run.name
                            ),
                            probe: None,
                        });
                    }
                    actions.start.push(index);
                }
            }
        }
    }
    if kept == 0 && actions.start.is_empty() {
        // Sidecars have nobody left to serve (POD-26).
        actions.kill_pod = true;
        actions.start_init.clear();
    }
}

fn restarting(kill: Kill) -> Kill {
    Kill { message: format!("{}, will be restarted", kill.message), ..kill }
}

/// Why a running container has to be stopped, if it has to.
fn kill_reason(
    container: &Container,
    run: &RuntimeContainer,
    probes: &ProbeResults,
    sidecar: bool,
) -> Option<Kill> {
    use crate::probes::ProbeKind;
    let subject = if sidecar { "Init container" } else { "Container" };
    let kill =
        |message: String, probe| Some(Kill { id: run.id.clone(), name: run.name.clone(), message, probe });
    if !run.hash.is_empty() && run.hash != container_hash(container) {
        return kill(format!("{subject} {} definition changed", container.name), None);
    }
    if probes.failed(ProbeKind::Liveness, &run.id) {
        return kill(
            format!("{subject} {} failed liveness probe", container.name),
            Some(ProbeKind::Liveness),
        );
    }
    if probes.failed(ProbeKind::Startup, &run.id) {
        return kill(format!("{subject} {} failed startup probe", container.name), Some(ProbeKind::Startup));
    }
    None
}

#[cfg(test)]
mod tests;
