//! The values of the kubelet's cgroups: what the node keeps from pods, what each class may weigh, what a pod
//! may use altogether.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use sampan_api::resources;
use serde_json::Value;

use super::{Hierarchy, Limits, Usage};
use crate::config::KubeletConfig;
use crate::generate::resources::{QosClass, cgroup_parent, cpu_shares, qos_class};
use crate::node::capacity::Resources;
use crate::pod_ref;
use crate::quantities;

/// The kernel's least quota, in microseconds.
const MIN_QUOTA: i64 = 1_000;

/// The kubelet's part of the cgroups. Without a mount it does nothing: there are none, or systemd owns them.
#[derive(Clone, Debug)]
pub(crate) struct PodCgroups {
    hierarchy: Option<Hierarchy>,
    root: String,
    pids: i64,
    cpu_quota: bool,
    period: Duration,
}

impl PodCgroups {
    /// Looks at the machine; `systemd` when the runtime makes cgroups through systemd.
    pub(crate) fn new(config: &KubeletConfig, systemd: bool) -> Self {
        let mount = config.cgroup_mount.as_deref().filter(|mount| !systemd && mount.is_dir());
        Self {
            hierarchy: mount.map(Hierarchy::detect),
            root: config.cgroup_root.trim_end_matches('/').to_owned(),
            pids: config.pod_pids_limit,
            cpu_quota: config.cpu_cfs_quota,
            period: config.cpu_cfs_quota_period,
        }
    }

    fn kubepods(&self) -> String {
        format!("{}/kubepods", self.root)
    }

    fn of(&self, pod: &Pod) -> String {
        cgroup_parent(pod, &self.root, false)
    }

    /// Makes `kubepods` and its classes; with `enforced` all pods together get no more than `available`.
    pub(crate) fn set_up(&self, available: &Resources, enforced: bool) {
        let Some(hierarchy) = &self.hierarchy else { return };
        let kubepods = self.kubepods();
        for class in ["", "/burstable", "/besteffort"] {
            if let Err(error) = hierarchy.create(&format!("{kubepods}{class}")) {
                tracing::warn!(%error, cgroup = %format!("{kubepods}{class}"), "cgroup not made");
                return;
            }
        }
        let memory = quantities::listed(Some(available), "memory").filter(|_| enforced).unwrap_or(-1);
        let limits = Limits {
            cpu_shares: quantities::listed_milli(Some(available), "cpu").map(cpu_shares),
            memory: Some(memory),
            ..Limits::default()
        };
        let besteffort = Limits { cpu_shares: Some(2), ..Limits::default() };
        for (cgroup, limits) in [(kubepods.clone(), limits), (format!("{kubepods}/besteffort"), besteffort)] {
            if let Err(error) = hierarchy.set(&cgroup, &limits) {
                tracing::warn!(error, "node allocatable");
            }
        }
    }

    /// Removes a root of our own with the classes below it, as far as no pod is in them. `/` is everybody's.
    pub(crate) fn tear_down(&self) {
        let Some(hierarchy) = self.hierarchy.as_ref().filter(|_| !self.root.is_empty()) else { return };
        let kubepods = self.kubepods();
        for cgroup in
            [&format!("{kubepods}/burstable"), &format!("{kubepods}/besteffort"), &kubepods, &self.root]
        {
            hierarchy.remove_empty(cgroup);
        }
    }

    /// Gives the burstable class the weight of what its pods ask for.
    pub(crate) fn weigh_burstable(&self, pods: &[Arc<Pod>]) {
        let Some(hierarchy) = &self.hierarchy else { return };
        let milli: i64 = pods
            .iter()
            .filter(|pod| qos_class(pod) == QosClass::Burstable)
            .flat_map(|pod| pod_ref::containers(pod))
            .filter_map(|container| {
                quantities::listed_milli(container.resources.as_ref()?.requests.as_ref(), "cpu")
            })
            .sum();
        let limits = Limits { cpu_shares: Some(cpu_shares(milli)), ..Limits::default() };
        if let Err(error) = hierarchy.set(&format!("{}/burstable", self.kubepods()), &limits) {
            tracing::debug!(error, "weight of the burstable pods");
        }
    }

    /// Makes the pod's cgroup, or brings its values up to date.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub(crate) fn ensure(&self, pod: &Pod) -> Result<(), String> {
        let Some(hierarchy) = &self.hierarchy else { return Ok(()) };
        let cgroup = self.of(pod);
        hierarchy.create(&cgroup).map_err(|error| format!("cgroup {cgroup}: {error}"))?;
        hierarchy.set(&cgroup, &self.limits(pod))
    }

    /// Gives the pod's cgroup other limits.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub(crate) fn set(&self, pod: &Pod, limits: &Limits) -> Result<(), String> {
        self.hierarchy.as_ref().map_or(Ok(()), |hierarchy| hierarchy.set(&self.of(pod), limits))
    }

    /// What the pod may use: sums over its containers; a limit only where every container has one.
    pub(crate) fn limits(&self, pod: &Pod) -> Limits {
        let value = as_value(pod);
        let requests = resources::pod_requests(&value);
        let limits = resources::pod_limits(&value);
        let all_have = |resource: &str| {
            let pod_level = value.pointer("/spec/resources/limits").and_then(|list| list.get(resource));
            pod_level.is_some()
                || pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)).all(|container| {
                    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
                    quantities::listed_milli(limits, resource).is_some_and(|limit| limit > 0)
                })
        };
        let period = i64::try_from(self.period.as_micros()).unwrap_or(100_000);
        let quota = limits
            .get("cpu")
            .filter(|_| self.cpu_quota && all_have("cpu"))
            .map(|limit| (limit.milli_value() * period / 1_000).max(MIN_QUOTA));
        let shares = match qos_class(pod) {
            QosClass::BestEffort => 2,
            _ => cpu_shares(requests.get("cpu").map_or(0, |request| request.milli_value())),
        };
        Limits {
            cpu_shares: Some(shares),
            cpu_quota: Some(quota.unwrap_or(-1)),
            cpu_period: period,
            memory: Some(
                limits.get("memory").filter(|_| all_have("memory")).map_or(-1, |limit| limit.value()),
            ),
            pids: Some(if self.pids > 0 { self.pids } else { -1 }),
        }
    }

    /// Removes the pod's cgroup; what still has processes stays.
    pub(crate) fn remove(&self, pod: &Pod) {
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove(&self.of(pod));
        }
    }

    /// What all pods use together.
    pub(crate) fn usage_of_all(&self) -> Usage {
        self.hierarchy.as_ref().map(|hierarchy| hierarchy.usage(&self.kubepods())).unwrap_or_default()
    }

    /// What the pod uses.
    pub(crate) fn usage(&self, pod: &Pod) -> Option<Usage> {
        self.hierarchy.as_ref().map(|hierarchy| hierarchy.usage(&self.of(pod)))
    }

    /// Removes cgroups of pods that are not in `known` (by UID) and have no process: what a kubelet that was
    /// killed left behind.
    pub(crate) fn remove_orphans(&self, known: impl Fn(&str) -> bool) {
        let Some(hierarchy) = &self.hierarchy else { return };
        for class in ["", "/burstable", "/besteffort"] {
            let parent = format!("{}{class}", self.kubepods());
            for name in hierarchy.children(&parent) {
                let Some(uid) = name.strip_prefix("pod") else { continue };
                let cgroup = format!("{parent}/{name}");
                if !known(uid) && !hierarchy.is_populated(&cgroup) {
                    tracing::info!(cgroup, "the cgroup of a pod that is no more is removed");
                    hierarchy.remove(&cgroup);
                }
            }
        }
    }
}

/// The pod as the API writes it.
pub(crate) fn as_value(pod: &Pod) -> Value {
    serde_json::to_value(pod).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn cgroups() -> PodCgroups {
        PodCgroups {
            hierarchy: None,
            root: String::new(),
            pids: 100,
            cpu_quota: true,
            period: Duration::from_millis(100),
        }
    }

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    #[test]
    fn pod_52_a_pod_is_limited_only_when_all_its_containers_are() {
        let limited = json!({"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "64Mi"}}});
        let both = cgroups().limits(&pod(json!([limited, limited])));
        assert_eq!(both.cpu_shares, Some(512));
        assert_eq!(both.cpu_quota, Some(100_000));
        assert_eq!(both.memory, Some(128 << 20));
        assert_eq!(both.pids, Some(100));
        let one = cgroups().limits(&pod(json!([limited, {"name": "b"}])));
        assert_eq!((one.cpu_quota, one.memory, one.cpu_shares), (Some(-1), Some(-1), Some(256)));
        let none = cgroups().limits(&pod(json!([{"name": "b"}])));
        assert_eq!((none.cpu_shares, none.memory), (Some(2), Some(-1)));
    }
}
