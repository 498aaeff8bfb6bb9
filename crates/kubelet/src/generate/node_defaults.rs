//! What the node's configuration changes in a container's: `cpuCFSQuota`, `cpuCFSQuotaPeriod`, `seccompDefault`.

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_cri::v1;
use sampan_cri::v1::security_profile::ProfileType;

use crate::config::KubeletConfig;
use crate::pod_ref;

/// Applies the node's settings to what was made from the pod alone.
pub(crate) fn apply(
    config: &KubeletConfig,
    pod: &Pod,
    container: &Container,
    made: &mut v1::ContainerConfig,
) {
    let Some(linux) = &mut made.linux else { return };
    if let Some(resources) = &mut linux.resources {
        apply_to_resources(config, resources);
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

/// Applies those that are about resources.
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
        apply(config, &pod, &pod_ref::containers(&pod)[0], &mut made);
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
}
