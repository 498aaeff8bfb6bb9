//! What the fields of a configuration mean for this kubelet.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use super::{ConfigurationError, KubeletConfiguration};
use crate::eviction::{Amount, EvictionConfig, Signal, Threshold, default_hard, hard, parse_amount};
use crate::shutdown::ShutdownStep;
use crate::user_namespaces::UNIT;
use crate::{ImageConfig, KubeletConfig, VerificationPolicy, go_duration, quantities};

/// Upstream's lowest priority of a critical pod.
const CRITICAL: i32 = 2_000_000_000;
/// What `enforceNodeAllocatable` may list.
const ENFORCED: [&str; 6] = [
    "none",
    "pods",
    "system-reserved",
    "kube-reserved",
    "system-reserved-compressible",
    "kube-reserved-compressible",
];

impl KubeletConfiguration {
    /// Lays what is set over `config`.
    pub fn apply(&self, config: &mut KubeletConfig) {
        let duration = |field: &str| self.duration(&self.value[field]);
        set(&mut config.sync_frequency, duration("syncFrequency"));
        set(&mut config.file_check_frequency, duration("fileCheckFrequency"));
        set(&mut config.node_status_update_frequency, duration("nodeStatusUpdateFrequency"));
        set(&mut config.node_status_report_frequency, duration("nodeStatusReportFrequency"));
        set(&mut config.container_log_monitor_interval, duration("containerLogMonitorInterval"));
        set(&mut config.cpu_cfs_quota_period, duration("cpuCFSQuotaPeriod"));
        set(
            &mut config.max_container_restart_period,
            self.duration(&self.value["crashLoopBackOff"]["maxContainerRestartPeriod"]),
        );
        set(&mut config.node_lease_duration_seconds, self.number("nodeLeaseDurationSeconds"));
        set(&mut config.max_pods, self.number("maxPods"));
        set(&mut config.pods_per_core, self.number("podsPerCore"));
        set(&mut config.ids_per_pod, self.ids_per_pod());
        set(&mut config.pod_pids_limit, self.number("podPidsLimit"));
        set(&mut config.container_log_max_files, self.number("containerLogMaxFiles"));
        let log_size = self.value["containerLogMaxSize"].as_str().and_then(quantities::value);
        set(&mut config.container_log_max_size, log_size.and_then(|bytes| u64::try_from(bytes).ok()));
        set(&mut config.cpu_cfs_quota, self.value["cpuCFSQuota"].as_bool());
        config.single_process_oom_kill =
            self.value["singleProcessOOMKill"].as_bool().or(config.single_process_oom_kill);
        set(&mut config.seccomp_default, self.value["seccompDefault"].as_bool());
        set(&mut config.local_storage_isolation, self.value["localStorageCapacityIsolation"].as_bool());
        set(&mut config.cluster_domain, self.text("clusterDomain"));
        set(&mut config.resolv_conf, self.text("resolvConf").map(Into::into));
        set(&mut config.cgroup_root, self.text("cgroupRoot"));
        set(&mut config.allowed_unsafe_sysctls, self.texts("allowedUnsafeSysctls"));
        set(&mut config.enforce_node_allocatable, self.texts("enforceNodeAllocatable"));
        config.static_pod_path = self.text("staticPodPath").map(Into::into).or(config.static_pod_path.take());
        config.provider_id = self.text("providerID").or(config.provider_id.take());
        let servers = self.texts("clusterDNS").filter(|servers| !servers.is_empty());
        set(
            &mut config.cluster_dns,
            servers.map(|servers| servers.iter().filter_map(|server| server.parse().ok()).collect()),
        );
        let taints = self.value["registerWithTaints"].clone();
        set(&mut config.register_with_taints, serde_json::from_value::<Vec<Taint>>(taints).ok());
        set(&mut config.system_reserved, self.resources("systemReserved"));
        set(&mut config.kube_reserved, self.resources("kubeReserved"));
        config.eviction = self.eviction(config.eviction.clone());
        set(&mut config.shutdown, self.shutdown());
        self.apply_images(&mut config.images);
    }

    fn apply_images(&self, images: &mut ImageConfig) {
        let duration = |field: &str| self.duration(&self.value[field]);
        let serial = self.value["serializeImagePulls"].as_bool();
        set(&mut images.serialize_image_pulls, serial);
        let parallel = if serial == Some(true) { Some(1) } else { self.number("maxParallelImagePulls") };
        set(&mut images.max_parallel_image_pulls, parallel);
        set(&mut images.registry_pull_qps, self.number("registryPullQPS"));
        set(&mut images.registry_burst, self.number("registryBurst"));
        set(&mut images.image_minimum_gc_age, duration("imageMinimumGCAge"));
        set(&mut images.image_maximum_gc_age, duration("imageMaximumGCAge"));
        set(&mut images.image_gc_high_threshold_percent, self.number("imageGCHighThresholdPercent"));
        set(&mut images.image_gc_low_threshold_percent, self.number("imageGCLowThresholdPercent"));
        set(&mut images.node_status_max_images, self.number("nodeStatusMaxImages"));
        let policy = self.text("imagePullCredentialsVerificationPolicy");
        set(
            &mut images.image_pull_credentials_verification_policy,
            policy.and_then(|name| VerificationPolicy::from_name(&name)),
        );
        set(
            &mut images.preloaded_images_verification_allowlist,
            self.texts("preloadedImagesVerificationAllowlist"),
        );
    }

    /// What only shows when values meet each other.
    pub(super) fn verify(&self) -> Result<(), ConfigurationError> {
        let wrong = |path: &str, problem: &str| Err(ConfigurationError::field(path, problem));
        let soft = self.amounts("evictionSoft").unwrap_or_default();
        let graces = &self.value["evictionSoftGracePeriod"];
        for signal in soft.keys() {
            if self.duration(&graces[signal.as_str()]).is_none() {
                let path = format!("evictionSoft.{signal}");
                return wrong(&path, &format!("needs evictionSoftGracePeriod.{signal}"));
            }
        }
        if self.value["serializeImagePulls"] == true
            && self.number::<i64>("maxParallelImagePulls").is_some_and(|pulls| pulls > 1)
        {
            return wrong("maxParallelImagePulls", "must be 1 when serializeImagePulls is true");
        }
        let period = self.duration(&self.value["crashLoopBackOff"]["maxContainerRestartPeriod"]);
        if period.is_some_and(|p| p < Duration::from_secs(1) || p > Duration::from_secs(300)) {
            return wrong("crashLoopBackOff.maxContainerRestartPeriod", "must be between 1s and 300s");
        }
        let enforced = self.texts("enforceNodeAllocatable").unwrap_or_default();
        for (index, name) in enforced.iter().enumerate() {
            let path = format!("enforceNodeAllocatable[{index}]");
            if !ENFORCED.contains(&name.as_str()) {
                return wrong(&path, &format!("{name:?} is not one of {}", ENFORCED.join(", ")));
            }
            if name == "none" && enforced.len() > 1 {
                return wrong(&path, "none cannot stand beside others");
            }
        }
        let [all, critical] = ["shutdownGracePeriod", "shutdownGracePeriodCriticalPods"]
            .map(|field| self.duration(&self.value[field]));
        let (all, critical) = (all.unwrap_or_default(), critical.unwrap_or_default());
        if critical > all {
            return wrong("shutdownGracePeriodCriticalPods", "must not be longer than shutdownGracePeriod");
        }
        let by_priority = self.value["shutdownGracePeriodByPodPriority"].as_array();
        if by_priority.is_some_and(|list| !list.is_empty()) && !all.is_zero() {
            return wrong("shutdownGracePeriodByPodPriority", "cannot stand beside shutdownGracePeriod");
        }
        if self.ids_per_pod().is_some_and(|ids| !ids.is_multiple_of(UNIT)) {
            return wrong("userNamespaces.idsPerPod", &format!("must be a multiple of {UNIT}"));
        }
        let period = self.duration(&self.value["cpuCFSQuotaPeriod"]);
        if period.is_some_and(|p| p < Duration::from_millis(1) || p > Duration::from_secs(1)) {
            return wrong("cpuCFSQuotaPeriod", "must be between 1ms and 1s");
        }
        Ok(())
    }

    fn eviction(&self, old: EvictionConfig) -> EvictionConfig {
        let mut thresholds: Vec<Threshold> = old.thresholds.iter().filter(|t| !t.soft).copied().collect();
        if let Some(given) = self.amounts("evictionHard") {
            let merge = self.value["mergeDefaultEvictionSettings"] == true;
            let mut amounts = if merge { default_hard() } else { BTreeMap::new() };
            amounts.extend(given);
            thresholds = hard(amounts);
        }
        let graces = &self.value["evictionSoftGracePeriod"];
        let soft = self.amounts("evictionSoft").unwrap_or_default();
        thresholds.extend(soft.into_iter().filter(|(_, least)| !least.is_off()).map(|(signal, least)| {
            let grace_period = self.duration(&graces[signal.as_str()]).unwrap_or_default();
            Threshold { signal, least, grace_period, soft: true }
        }));
        EvictionConfig {
            thresholds,
            pressure_transition_period: self
                .duration(&self.value["evictionPressureTransitionPeriod"])
                .filter(|period| !period.is_zero())
                .unwrap_or(old.pressure_transition_period),
            max_pod_grace_period: self
                .number("evictionMaxPodGracePeriod")
                .unwrap_or(old.max_pod_grace_period),
            minimum_reclaim: self.amounts("evictionMinimumReclaim").unwrap_or(old.minimum_reclaim),
        }
    }

    /// The order in which a shutdown ends pods; `None` when nothing is said.
    fn shutdown(&self) -> Option<Vec<ShutdownStep>> {
        let list = self.value["shutdownGracePeriodByPodPriority"].as_array();
        if let Some(list) = list.filter(|list| !list.is_empty()) {
            let mut steps: Vec<ShutdownStep> = list
                .iter()
                .map(|item| ShutdownStep {
                    priority: item["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
                    grace_period: Duration::from_secs(
                        item["shutdownGracePeriodSeconds"].as_u64().unwrap_or_default(),
                    ),
                })
                .collect();
            steps.sort_by_key(|step| step.priority);
            return Some(steps);
        }
        let all = self.duration(&self.value["shutdownGracePeriod"]).filter(|period| !period.is_zero())?;
        let critical = self.duration(&self.value["shutdownGracePeriodCriticalPods"]).unwrap_or_default();
        Some(vec![
            ShutdownStep { priority: 0, grace_period: all.saturating_sub(critical) },
            ShutdownStep { priority: CRITICAL, grace_period: critical },
        ])
    }

    fn duration(&self, value: &Value) -> Option<Duration> {
        // In upstream's file a zero is "the default", but for the periods of shutdown and ages of images.
        value.as_str().and_then(go_duration::parse)
    }

    fn ids_per_pod(&self) -> Option<u32> {
        u32::try_from(self.value["userNamespaces"]["idsPerPod"].as_u64()?).ok()
    }

    fn texts(&self, field: &str) -> Option<Vec<String>> {
        let list = self.value[field].as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    fn resources(&self, field: &str) -> Option<BTreeMap<String, String>> {
        let map = self.value[field].as_object()?;
        Some(
            map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        )
    }

    fn amounts(&self, field: &str) -> Option<BTreeMap<Signal, Amount>> {
        let map = self.value[field].as_object()?;
        Some(
            map.iter()
                .filter_map(|(name, amount)| Some((Signal::named(name)?, parse_amount(amount.as_str()?)?)))
                .collect(),
        )
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
