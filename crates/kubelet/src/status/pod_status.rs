//! The whole status of a pod.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{ConditionInputs, conditions};
use super::container_status::{StartError, container_statuses, end_all};
use super::phase::phase;
use crate::generate::resources::qos_class;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::allocation::Allocation;
use crate::pods::restart::restart_all_trigger;
use crate::pods::runtime_pod::RuntimePod;
use crate::probes::ProbeResults;

/// What a status is made from.
pub struct StatusInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What the runtime says.
    pub runtime: &'a RuntimePod,
    /// The status so far.
    pub old: &'a PodStatus,
    /// Why containers could not be started, by name.
    pub start_errors: &'a HashMap<String, StartError>,
    /// Probe results.
    pub probes: &'a ProbeResults,
    /// Ids of containers whose postStart hook has not returned (HOOK-04).
    pub in_post_start: &'a HashSet<String>,
    /// Containers that begin again with all others (POD-29).
    pub reset: &'a HashSet<String>,
    /// The prefix of container ids.
    pub runtime_name: &'a str,
    /// Whether nothing of the pod will be started any more.
    pub terminal: bool,
    /// Whether the volumes are mounted.
    pub volumes_ready: bool,
    /// What the node has given the pod, and what its containers have of it.
    pub allocation: Option<&'a Allocation>,
    /// Conditions about a resize, as long as there is one.
    pub resize: &'a [PodCondition],
    /// Whether the runtime makes mounts read-only with what is mounted in them.
    pub recursive_read_only: bool,
    /// Phase, reason and message that the kubelet itself decided (deadline, eviction, rejection): the pod's when nothing
    /// of it runs any more.
    pub verdict: Option<&'a Verdict>,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// A decision of the kubelet about a pod, whatever its containers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `DeadlineExceeded`, `Evicted`, `OutOfcpu`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Computes the status.
#[must_use]
pub fn pod_status(inputs: &StatusInputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let old = inputs.old;
    let empty: &[ContainerStatus] = &[];
    let statuses_of = |kind, containers: &[Container], old: Option<&Vec<ContainerStatus>>| {
        container_statuses(inputs, kind, containers, old.map_or(empty, Vec::as_slice))
    };
    let mut init_statuses =
        statuses_of(ContainerKind::Init, pod_ref::init_containers(pod), old.init_container_statuses.as_ref());
    let mut statuses =
        statuses_of(ContainerKind::Regular, pod_ref::containers(pod), old.container_statuses.as_ref());
    if inputs.terminal {
        end_all(pod, &mut init_statuses, &mut statuses);
    }
    let ephemeral: Vec<Container> =
        pod_ref::ephemeral_containers(pod).iter().map(pod_ref::ephemeral_as_container).collect();
    let ephemeral_statuses =
        statuses_of(ContainerKind::Ephemeral, &ephemeral, old.ephemeral_container_statuses.as_ref());

    // As long as something runs the pod has what it asked for: whoever sees it Failed gives that to somebody else.
    let runs = inputs.runtime.running().next().is_some();
    let verdict = inputs.verdict.filter(|_| inputs.terminal || !runs);
    let computed = match old.phase.as_deref() {
        // A finished pod stays what it is (POD-02).
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ if verdict.is_some() => "Failed",
        _ => match phase(pod, &init_statuses, &statuses, inputs.terminal) {
            // What ended is about to begin again, or sidecars still end.
            "Succeeded" | "Failed"
                if !inputs.terminal
                    && (!inputs.reset.is_empty() || inputs.runtime.is_replacing() || runs) =>
            {
                match old.phase.as_deref() {
                    Some("Pending") => "Pending",
                    _ => "Running",
                }
            }
            phase => phase,
        },
    };
    let sandbox = inputs.runtime.ready_sandbox();
    let host_network = pod_ref::is_host_network(pod);
    let pod_ips: Vec<String> = match sandbox {
        Some(_) if host_network => inputs.host_ips.to_vec(),
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        // The addresses of a finished pod stay in its status (POD-53).
        _ => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    };
    let ready_to_start =
        inputs.volumes_ready && sandbox.is_some_and(|sandbox| host_network || !sandbox.ips.is_empty());
    let old_conditions = old.conditions.as_deref().unwrap_or_default();
    let conditions = conditions(&ConditionInputs {
        pod,
        phase: computed,
        init_statuses: &init_statuses,
        statuses: &statuses,
        ready_to_start,
        restarting_all: restart_all_trigger(pod, inputs.runtime).is_some(),
        resize: inputs.resize,
        old: old_conditions,
        now: inputs.now,
    });
    let level = pod_ref::spec(pod).resources.as_ref();
    let has_level = inputs.allocation.map_or(level, |allocation| allocation.actuated_pod.as_ref());
    PodStatus {
        phase: Some(computed.to_owned()),
        conditions: Some(conditions),
        reason: verdict.map(|verdict| verdict.reason.clone()).or_else(|| old.reason.clone()),
        message: verdict.map(|verdict| verdict.message.clone()).or_else(|| old.message.clone()),
        host_ip: inputs.host_ips.first().cloned(),
        host_ips: Some(inputs.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old.start_time.clone().or(Some(Time(inputs.now))),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(statuses),
        ephemeral_container_statuses: (!ephemeral_statuses.is_empty()).then_some(ephemeral_statuses),
        qos_class: Some(qos_class(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        allocated_resources: level.and_then(|resources| resources.requests.clone()),
        resources: has_level.cloned(),
        ..old.clone()
    }
}

#[cfg(test)]
mod tests;
