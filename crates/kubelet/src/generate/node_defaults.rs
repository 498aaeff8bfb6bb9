//! What the node changes in a container's configuration: `cpuCFSQuota`, `cpuCFSQuotaPeriod`, `seccompDefault`,
//! `singleProcessOOMKill`, and the huge pages that the container did not ask for.

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_cri::v1;
use sampan_cri::v1::security_profile::ProfileType;

use crate::cgroups::PodCgroups;
use crate::config::KubeletConfig;
use crate::pod_ref;

/// Applies the node's settings to what was made from the pod alone.
pub(crate) fn apply(
    config: &KubeletConfig,
    cgroups: &PodCgroups,
    pod: &Pod,
    container: &Container,
    made: &mut v1::ContainerConfig,
) {
    let Some(linux) = &mut made.linux else { return };
    if let Some(resources) = &mut linux.resources {
        apply_to_resources(config, resources);
        // Those of other pods; they are counted by the scheduler.
        for size in cgroups.page_sizes() {
            if !resources.hugepage_limits.iter().any(|limit| limit.page_size == *size) {
                let none = v1::HugepageLimit { page_size: size.clone(), limit: 0 };
                resources.hugepage_limits.push(none);
            }
        }
        if cgroups.is_v2() && config.single_process_oom_kill != Some(true) {
            resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
        }
    }
    if config.seccomp_default
        && let Some(security) = &mut linux.security_context
        && !security.privileged
        && !names_a_profile(pod, container)
    {
        security.seccomp = Some(v1::SecurityProfile {
            profile_type: ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        });
    }
}

/// Applies those that are about CPU time.
pub(crate) fn apply_to_resources(config: &KubeletConfig, resources: &mut v1::LinuxContainerResources) {
    let period = i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(resources.cpu_period);
    if !config.cpu_cfs_quota {
        resources.cpu_quota = 0;
    } else if resources.cpu_period > 0 && period != resources.cpu_period {
        resources.cpu_quota = resources.cpu_quota * period / resources.cpu_period;
        resources.cpu_period = period;
    }
}

fn names_a_profile(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let pods =
        pod_ref::spec(pod).security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    own.or(pods).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn made(config: &KubeletConfig, spec: serde_json::Value) -> v1::LinuxContainerConfig {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let resources =
            v1::LinuxContainerResources { cpu_period: 100_000, cpu_quota: 50_000, ..Default::default() };
        let linux = v1::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(v1::LinuxContainerSecurityContext::default()),
        };
        let mut made = v1::ContainerConfig { linux: Some(linux), ..Default::default() };
        let cgroups = PodCgroups::new(config, false);
        apply(config, &cgroups, &pod, &pod_ref::containers(&pod)[0], &mut made);
        made.linux.unwrap()
    }

    #[tokio::test]
    async fn the_node_decides_about_quotas_and_unnamed_profiles() {
        let plain = json!({"containers": [{"name": "c"}]});
        let defaults = crate::config::tests::config();
        let linux = made(&defaults, plain.clone());
        assert_eq!(linux.resources.unwrap().cpu_quota, 50_000);
        assert_eq!(linux.security_context.unwrap().seccomp, None);

        let config = KubeletConfig {
            cpu_cfs_quota_period: Duration::from_millis(10),
            seccomp_default: true,
            ..defaults.clone()
        };
        let linux = made(&config, plain.clone());
        let resources = linux.resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_period), (5_000, 10_000));
        assert_eq!(
            linux.security_context.unwrap().seccomp.unwrap().profile_type,
            ProfileType::RuntimeDefault as i32
        );
        let named = json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]});
        assert_eq!(made(&config, named).security_context.unwrap().seccomp, None);

        let config = KubeletConfig { cpu_cfs_quota: false, ..defaults };
        assert_eq!(made(&config, plain).resources.unwrap().cpu_quota, 0);
    }

    #[tokio::test]
    async fn a_container_out_of_memory_is_killed_as_a_whole_where_the_machine_can() {
        let together = |single: Option<bool>, file: &str| {
            let mount = tempfile::tempdir().unwrap();
            std::fs::write(mount.path().join(file), "").unwrap();
            let config = KubeletConfig {
                single_process_oom_kill: single,
                cgroup_mount: Some(mount.path().to_owned()),
                ..crate::config::tests::config()
            };
            let linux = made(&config, json!({"containers": [{"name": "c"}]}));
            linux.resources.unwrap().unified.get("memory.oom.group").cloned()
        };
        let v2 = "cgroup.controllers";
        assert_eq!(together(None, v2).as_deref(), Some("1"));
        assert_eq!(together(Some(false), v2).as_deref(), Some("1"));
        assert_eq!(together(Some(true), v2), None);
        assert_eq!(together(None, "v1"), None);
    }

    #[tokio::test]
    async fn huge_pages_that_are_not_asked_for_are_forbidden() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}]}}))
        .unwrap();
        let container = &pod_ref::containers(&pod)[0];
        let resources = crate::generate::resources::container_resources(&pod, container, 1 << 30);
        let linux = v1::LinuxContainerConfig { resources: Some(resources), ..Default::default() };
        let mut made = v1::ContainerConfig { linux: Some(linux), ..Default::default() };
        let config = crate::config::tests::config();
        apply(&config, &PodCgroups::with_page_sizes(&["1GB", "2MB"]), &pod, container, &mut made);
        let limits = made.linux.unwrap().resources.unwrap().hugepage_limits;
        let limits: Vec<_> = limits.iter().map(|limit| (limit.page_size.as_str(), limit.limit)).collect();
        assert_eq!(limits, [("2MB", 4 << 20), ("1GB", 0)]);
    }
}
