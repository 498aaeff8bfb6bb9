//! Requests and limits as cgroup values, OOM score adjustments and the cgroup a pod lives in.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sampan_cri::v1;

use crate::pod_ref;
use crate::quantities::{listed, listed_milli};

/// The CFS period that quotas are set for, in microseconds.
const CPU_PERIOD: i64 = 100_000;
/// The kernel's least quota, in microseconds.
const MIN_QUOTA: i64 = 1_000;
/// The kernel's least and greatest shares.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// A pod's quality of service (POD-52).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits equal to its requests, for CPU and memory.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of `pod`: what the API server stored, else computed.
#[must_use]
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return QosClass::Guaranteed,
        Some("Burstable") => return QosClass::Burstable,
        Some("BestEffort") => return QosClass::BestEffort,
        _ => {}
    }
    let mut any = false;
    let mut guaranteed = true;
    for container in pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)) {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for resource in ["cpu", "memory"] {
            let limit = listed_milli(limits, resource).filter(|value| *value != 0);
            let request = listed_milli(requests, resource).filter(|value| *value != 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// CPU shares of `milli` thousandths of a core.
#[must_use]
pub fn cpu_shares(milli: i64) -> i64 {
    if milli <= 0 { MIN_SHARES } else { (milli * 1_024 / 1_000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CFS quota of `milli` thousandths of a core, in microseconds per period; 0 for no limit.
#[must_use]
pub fn cpu_quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli * CPU_PERIOD / 1_000).max(MIN_QUOTA) }
}

/// How likely the kernel is to kill the container when memory runs out.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if matches!(
        pod_ref::spec(pod).priority_class_name.as_deref(),
        Some("system-node-critical" | "system-cluster-critical")
    ) {
        return -997;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1_000,
        QosClass::Burstable => {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request = listed(requests, "memory").unwrap_or(0);
            let score = 1_000 - (1_000 * request) / memory_capacity.max(1);
            // Above the guaranteed ones, below the best-effort ones.
            if score < 3 {
                3
            } else if score == 1_000 {
                999
            } else {
                score
            }
        }
    }
}

/// The cgroup values of one container.
#[must_use]
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> v1::LinuxContainerResources {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let cpu_limit = listed_milli(limits, "cpu").unwrap_or(0);
    let cpu_request = listed_milli(requests, "cpu").unwrap_or(cpu_limit);
    let memory_limit = listed(limits, "memory").unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        // Memory plus swap: equal to the memory limit, so no swap.
        memory_swap_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        hugepage_limits: hugepage_limits(limits),
        ..Default::default()
    }
}

/// A size of huge pages as cgroups and the CRI write it: `2MB`, `1GB`.
pub(crate) fn page_size_name(bytes: i64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    }
}

fn hugepage_limits(limits: Option<&BTreeMap<String, Quantity>>) -> Vec<v1::HugepageLimit> {
    limits
        .into_iter()
        .flatten()
        .filter_map(|(resource, quantity)| {
            let size = resource.strip_prefix("hugepages-")?;
            let page_size = page_size_name(crate::quantities::value(size)?);
            let limit = u64::try_from(crate::quantities::value(&quantity.0)?).ok()?;
            Some(v1::HugepageLimit { page_size, limit })
        })
        .collect()
}

/// Sums of a pod's containers, for its sandbox: (resources, overhead).
#[must_use]
pub fn pod_resources(pod: &Pod) -> (v1::LinuxContainerResources, v1::LinuxContainerResources) {
    let running = || {
        pod_ref::containers(pod)
            .iter()
            .chain(pod_ref::init_containers(pod).iter().filter(|container| pod_ref::is_sidecar(container)))
    };
    let sum = |limits: bool, resource: &str, milli: bool| -> Option<i64> {
        let mut total = 0;
        for container in running() {
            let resources = container.resources.as_ref();
            let list = resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
            let value = if milli { listed_milli(list, resource) } else { listed(list, resource) };
            match value {
                Some(value) => total += value,
                // One container without a limit makes the pod unlimited; without a request it adds nothing.
                None if limits => return None,
                None => {}
            }
        }
        Some(total)
    };
    let memory = sum(true, "memory", false).unwrap_or(0);
    let resources = v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: cpu_quota(sum(true, "cpu", true).unwrap_or(0)),
        cpu_shares: cpu_shares(sum(false, "cpu", true).unwrap_or(0)),
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    let overhead_list = pod_ref::spec(pod).overhead.as_ref();
    let overhead = match overhead_list {
        None => v1::LinuxContainerResources::default(),
        list => v1::LinuxContainerResources {
            cpu_period: CPU_PERIOD,
            cpu_quota: cpu_quota(listed_milli(list, "cpu").unwrap_or(0)),
            cpu_shares: cpu_shares(listed_milli(list, "cpu").unwrap_or(0)),
            memory_limit_in_bytes: listed(list, "memory").unwrap_or(0),
            ..Default::default()
        },
    };
    (resources, overhead)
}

/// The cgroup of a pod, below the kubelet's root: `/kubepods/burstable/pod<uid>`.
#[must_use]
pub fn cgroup_parent(pod: &Pod, root: &str, driver_systemd: bool) -> String {
    let uid = pod_ref::uid(pod);
    if driver_systemd {
        let uid = uid.replace('-', "_");
        return match qos_class(pod) {
            QosClass::Guaranteed => format!("kubepods-pod{uid}.slice"),
            QosClass::Burstable => format!("kubepods-burstable-pod{uid}.slice"),
            QosClass::BestEffort => format!("kubepods-besteffort-pod{uid}.slice"),
        };
    }
    let root = root.trim_end_matches('/');
    match qos_class(pod) {
        QosClass::Guaranteed => format!("{root}/kubepods/pod{uid}"),
        QosClass::Burstable => format!("{root}/kubepods/burstable/pod{uid}"),
        QosClass::BestEffort => format!("{root}/kubepods/besteffort/pod{uid}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u-1"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    #[test]
    fn pod_52_qos_classes() {
        assert_eq!(qos_class(&pod(json!({}))), QosClass::BestEffort);
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), QosClass::Burstable);
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"limits": both, "requests": both}))), QosClass::Guaranteed);
        assert_eq!(qos_class(&pod(json!({"limits": {"memory": "1Gi"}}))), QosClass::Burstable);
    }

    #[test]
    fn cgroup_values_follow_requests_and_limits() {
        let pod = pod(
            json!({"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "250m", "memory": "64Mi"}}),
        );
        let resources = container_resources(&pod, &pod_ref::containers(&pod)[0], 1 << 30);
        assert_eq!(resources.cpu_quota, 50_000);
        assert_eq!(resources.cpu_shares, 256);
        assert_eq!(resources.memory_limit_in_bytes, 128 << 20);
        assert_eq!(resources.memory_swap_limit_in_bytes, 128 << 20);
        assert_eq!(resources.oom_score_adj, 1_000 - 62);
        assert_eq!(cgroup_parent(&pod, "/", false), "/kubepods/burstable/podu-1");
        assert_eq!(cgroup_parent(&pod, "/", true), "kubepods-burstable-podu_1.slice");
    }

    #[test]
    fn the_least_values_are_the_kernels() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(1), 2);
        assert_eq!(cpu_quota(1), 1_000);
        assert_eq!(cpu_quota(0), 0);
    }
}
