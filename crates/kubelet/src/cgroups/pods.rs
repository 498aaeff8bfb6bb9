//! The values of the kubelet's cgroups: what the node keeps from pods, what each class may weigh, what a pod
//! may use altogether.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use sampan_api::resources::{self, ResourceList};
use serde_json::Value;

use super::{Hierarchy, Limits, Usage};
use crate::config::KubeletConfig;
use crate::generate::resources::{QosClass, cgroup_parent, cpu_shares, page_size_name, qos_class};
use crate::node::capacity::{Resources, huge_pages};
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
    /// Of the machine, as cgroups write them.
    page_sizes: Vec<String>,
    v2: bool,
}

impl PodCgroups {
    /// Looks at the machine; `systemd` when the runtime makes cgroups through systemd.
    pub(crate) fn new(config: &KubeletConfig, systemd: bool) -> Self {
        let mount = config.cgroup_mount.as_deref().filter(|mount| mount.is_dir());
        let hierarchy = mount.map(Hierarchy::detect);
        let page_sizes = mount.map(|_| huge_pages()).unwrap_or_default();
        Self {
            page_sizes: page_sizes.into_iter().map(|(bytes, _)| page_size_name(bytes)).collect(),
            v2: matches!(hierarchy, Some(Hierarchy::V2(_))),
            hierarchy: hierarchy.filter(|_| !systemd),
            root: config.cgroup_root.trim_end_matches('/').to_owned(),
            pids: config.pod_pids_limit,
            cpu_quota: config.cpu_cfs_quota,
            period: config.cpu_cfs_quota_period,
        }
    }

    /// The sizes of huge pages that the machine has (`2MB`).
    pub(crate) fn page_sizes(&self) -> &[String] {
        &self.page_sizes
    }

    /// Whether the machine has version 2 and nothing else.
    pub(crate) fn is_v2(&self) -> bool {
        self.v2
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
            hugepages: self.hugepages(&limits),
        }
    }

    /// What a pod may use of each size of huge pages: nothing of those it does not ask for.
    fn hugepages(&self, limits: &ResourceList) -> Vec<(String, i64)> {
        let asked: Vec<(String, i64)> = limits
            .iter()
            .filter_map(|(name, limit)| {
                let size = quantities::value(name.strip_prefix("hugepages-")?)?;
                Some((page_size_name(size), limit.value()))
            })
            .collect();
        let of = |size: &String| {
            let asked = asked.iter().find(|(name, _)| name == size);
            (size.clone(), asked.map_or(0, |(_, bytes)| *bytes))
        };
        self.page_sizes.iter().map(of).collect()
    }

    /// Removes the pod's cgroup; what still has processes stays.
    pub(crate) async fn remove(&self, pod: &Pod) {
        let cgroup = self.of(pod);
        self.aside(move |hierarchy| hierarchy.remove(&cgroup)).await;
    }

    /// Removes beside the tasks of the node: the kernel may take a moment to let go of a cgroup.
    async fn aside(&self, work: impl FnOnce(&Hierarchy) + Send + 'static) {
        let Some(hierarchy) = self.hierarchy.clone() else { return };
        let _ = tokio::task::spawn_blocking(move || work(&hierarchy)).await;
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
    pub(crate) async fn remove_orphans(&self, known: impl Fn(&str) -> bool + Send + 'static) {
        let kubepods = self.kubepods();
        self.aside(move |hierarchy| {
            for class in ["", "/burstable", "/besteffort"] {
                let parent = format!("{kubepods}{class}");
                for name in hierarchy.children(&parent) {
                    let Some(uid) = name.strip_prefix("pod") else { continue };
                    let cgroup = format!("{parent}/{name}");
                    if !known(uid) && !hierarchy.is_populated(&cgroup) {
                        tracing::info!(cgroup, "the cgroup of a pod that is no more is removed");
                        hierarchy.remove(&cgroup);
                    }
                }
            }
        })
        .await;
    }
}

/// The pod as the API writes it.
pub(crate) fn as_value(pod: &Pod) -> Value {
    serde_json::to_value(pod).unwrap_or_default()
}

#[cfg(test)]
impl PodCgroups {
    /// Of a machine with these huge pages.
    pub(crate) fn with_page_sizes(sizes: &[&str]) -> Self {
        Self {
            hierarchy: None,
            root: String::new(),
            pids: 100,
            cpu_quota: true,
            period: Duration::from_millis(100),
            page_sizes: sizes.iter().map(|size| (*size).to_owned()).collect(),
            v2: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn cgroups() -> PodCgroups {
        PodCgroups::with_page_sizes(&["1GB", "2MB"])
    }

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_gets_the_huge_pages_that_it_asks_for_and_no_others() {
        let asks = |name: &str| json!({"name": name, "resources": {"limits": {"hugepages-2Mi": "4Mi"}}});
        let limits = cgroups().limits(&pod(json!([asks("a"), asks("b"), {"name": "c"}])));
        assert_eq!(limits.hugepages, [("1GB".to_owned(), 0), ("2MB".to_owned(), 8 << 20)]);
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
