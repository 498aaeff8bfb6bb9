//! The status of one container: what the runtime says, and why it waits when it does (POD-08 to POD-11, IMG-35).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pod_status::StatusInputs;
use crate::clock::truncate_to_seconds;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::restart::should_start;
use crate::pods::runtime_pod::{RuntimeContainer, State};

/// Bytes of all containers' termination messages together (ENV-44).
const MAX_LAST_WORDS: usize = 12 << 10;

/// Why a container could not be started the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// `ErrImagePull`, `CrashLoopBackOff`, `CreateContainerConfigError`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The statuses of `containers`, which are the pod's of `kind`.
#[must_use]
pub fn container_statuses(
    inputs: &StatusInputs<'_>,
    kind: ContainerKind,
    containers: &[Container],
    old: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let mut seen = HashSet::new();
    containers
        .iter()
        .filter(|container| seen.insert(container.name.as_str()))
        .map(|container| {
            let old = old.iter().find(|status| status.name == container.name);
            container_status(inputs, kind, container, old)
        })
        .collect()
}

fn container_status(
    inputs: &StatusInputs<'_>,
    kind: ContainerKind,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let pod = inputs.pod;
    let mut runs = inputs.runtime.containers.iter().filter(|run| run.name == container.name);
    let Some(latest) = runs.next() else {
        return status_without_run(inputs, kind, container, old);
    };
    let previous = runs.find(|run| run.state == State::Exited);
    let state = match latest.state {
        State::Running if !inputs.in_post_start.contains(&latest.id) => ContainerState {
            running: Some(ContainerStateRunning { started_at: latest.started_at.map(time) }),
            ..Default::default()
        },
        State::Running | State::Created => waiting_by_default(pod),
        State::Exited => terminated(inputs, latest),
        State::Unknown => lost(inputs, latest),
    };
    let mut last_state = previous.map(|previous| terminated(inputs, previous));
    if last_state.is_none() {
        // Its last run was forgotten with all others.
        last_state = old
            .filter(|old| old.restart_count < latest.restart_count.cast_signed())
            .and_then(|old| old.state.clone())
            .filter(|state| state.terminated.is_some());
    }
    if last_state.is_none() {
        last_state = old
            .filter(|old| old.restart_count <= latest.restart_count.cast_signed())
            .and_then(|old| old.last_state.clone());
    }
    let mut status = ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state,
        restart_count: latest.restart_count.cast_signed(),
        image: non_empty(&latest.image, container.image.as_deref().unwrap_or_default()),
        image_id: latest.image_ref.clone(),
        container_id: Some(format!("{}://{}", inputs.runtime_name, latest.id)),
        volume_mounts: volume_mounts(container),
        // Nothing is resized here: what the spec asks for is what was given.
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: Some(container.resources.clone().unwrap_or_default()),
        user: latest.user.clone(),
        stop_signal: latest.stop_signal.clone(),
        ..ContainerStatus::default()
    };
    let may_start = !inputs.terminal && may_start_again(pod, kind, container, latest);
    if latest.state != State::Running
        && may_start
        && let Some(error) = inputs.start_errors.get(&container.name)
    {
        if latest.state == State::Exited {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting(&error.reason, &error.message));
    }
    apply_readiness(inputs, kind, container, latest, &mut status);
    status
}

fn may_start_again(pod: &Pod, kind: ContainerKind, container: &Container, latest: &RuntimeContainer) -> bool {
    match kind {
        ContainerKind::Ephemeral => false,
        ContainerKind::Init if pod_ref::is_sidecar(container) => pod.metadata.deletion_timestamp.is_none(),
        ContainerKind::Init if latest.state == State::Exited && latest.exit_code == 0 => false,
        ContainerKind::Init | ContainerKind::Regular => should_start(pod, container, Some(latest)),
    }
}

fn status_without_run(
    inputs: &StatusInputs<'_>,
    kind: ContainerKind,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    if let Some(old) = old {
        let old_state = old.state.as_ref();
        if old_state.is_some_and(|state| state.terminated.is_some()) {
            // Ended, and its remains are gone: what was said about it stays true.
            if !inputs.reset.contains(&container.name) || inputs.terminal {
                return old.clone();
            }
        }
        status.restart_count = old.restart_count;
        status.last_state = match old_state {
            Some(state) if state.terminated.is_some() => Some(state.clone()),
            _ => old.last_state.clone(),
        };
        if old_state.is_some_and(|state| state.running.is_some()) {
            let gone = ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_owned()),
                    message: Some(
                        "The container could not be located when the pod was deleted.  The container used to be Running"
                            .to_owned(),
                    ),
                    ..Default::default()
                }),
                ..Default::default()
            };
            if inputs.terminal {
                return ContainerStatus {
                    state: Some(gone),
                    ready: false,
                    started: Some(false),
                    ..old.clone()
                };
            }
            status.last_state = Some(gone);
            status.restart_count += 1;
        }
    }
    status.state = Some(match inputs.start_errors.get(&container.name) {
        Some(error) if !inputs.terminal => waiting(&error.reason, &error.message),
        _ if inputs.terminal && kind != ContainerKind::Ephemeral && old.is_some_and(was_started) => {
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_owned()),
                    message: Some(
                        "The container could not be located when the pod was terminated".to_owned(),
                    ),
                    ..Default::default()
                }),
                ..Default::default()
            }
        }
        _ => waiting_by_default(inputs.pod),
    });
    status
}

fn was_started(status: &ContainerStatus) -> bool {
    status.container_id.as_deref().is_some_and(|id| !id.is_empty())
}

fn apply_readiness(
    inputs: &StatusInputs<'_>,
    kind: ContainerKind,
    container: &Container,
    latest: &RuntimeContainer,
    status: &mut ContainerStatus,
) {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    match kind {
        ContainerKind::Init if !pod_ref::is_sidecar(container) => {
            let state = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            status.ready = state.is_some_and(|terminated| terminated.exit_code == 0);
            status.started = Some(running);
        }
        ContainerKind::Ephemeral => status.ready = false,
        _ => {
            let started = running && inputs.probes.started(container, latest);
            status.started = Some(started);
            status.ready = started && inputs.probes.ready(container, latest);
        }
    }
}

/// `Waiting` of a container about which nothing else is known (POD-08).
fn waiting_by_default(pod: &Pod) -> ContainerState {
    waiting(waiting_reason_by_default(pod), "")
}

/// Its reason.
pub(crate) fn waiting_reason_by_default(pod: &Pod) -> &'static str {
    if pod_ref::init_containers(pod).is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..Default::default()
    }
}

fn terminated(inputs: &StatusInputs<'_>, run: &RuntimeContainer) -> ContainerState {
    let reason = match (run.reason.as_str(), run.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: run.exit_code,
            reason: Some(reason.to_owned()),
            message: last_words(inputs.pod, &run.message),
            // What never ran (`StartError`) started at the beginning of time, as upstream shows it.
            started_at: Some(time(run.started_at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))),
            finished_at: run.finished_at.map(time),
            container_id: Some(format!("{}://{}", inputs.runtime_name, run.id)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container's last words; all containers of a pod together have 12 KiB (ENV-44).
fn last_words(pod: &Pod, message: &str) -> Option<String> {
    let containers = pod_ref::containers(pod).len()
        + pod_ref::init_containers(pod).len()
        + pod_ref::ephemeral_containers(pod).len();
    let most = message.floor_char_boundary(MAX_LAST_WORDS / containers.max(1));
    (!message.is_empty()).then(|| message[..most].to_owned())
}

fn lost(inputs: &StatusInputs<'_>, run: &RuntimeContainer) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            started_at: run.started_at.map(time),
            container_id: Some(format!("{}://{}", inputs.runtime_name, run.id)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The mounts as the status lists them (ENV-55).
fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|read_only| *read_only),
            recursive_read_only: (mount.read_only == Some(true))
                .then(|| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_owned())),
            ..Default::default()
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

fn non_empty(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn time(at: jiff::Timestamp) -> Time {
    Time(truncate_to_seconds(at))
}
