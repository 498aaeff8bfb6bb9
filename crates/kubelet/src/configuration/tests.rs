#![allow(clippy::unwrap_used)]
//! Files as people write them, and mistakes as people make them.

use std::time::Duration;

use super::KubeletConfiguration;
use crate::KubeletConfig;
use crate::eviction::{Amount, Signal};

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn parse(text: &str) -> Result<KubeletConfiguration, String> {
    KubeletConfiguration::parse(&format!("{HEAD}{text}")).map_err(|error| error.to_string())
}

fn applied(text: &str) -> KubeletConfig {
    let mut config = crate::config::tests::config();
    parse(text).unwrap().apply(&mut config);
    config
}

#[tokio::test]
async fn what_is_set_takes_effect_and_the_rest_keeps_upstreams_defaults() {
    let config = applied(
        "maxPods: 7\npodPidsLimit: 100\nclusterDNS: [10.0.0.10]\nsyncFrequency: 30s\nstaticPodPath: /etc/m\n\
         containerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 3\nserializeImagePulls: true\ncpuCFSQuota: false\nsingleProcessOOMKill: true\n\
         crashLoopBackOff: {maxContainerRestartPeriod: 20s}\nsystemReserved: {cpu: 100m}\n\
         registerWithTaints: [{key: a, effect: NoSchedule}]\nuserNamespaces: {idsPerPod: 131072}\n",
    );
    assert_eq!((config.max_pods, config.pod_pids_limit, config.images.max_parallel_image_pulls), (7, 100, 1));
    assert_eq!(config.cluster_dns, ["10.0.0.10".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(config.sync_frequency, Duration::from_secs(30));
    assert_eq!(config.static_pod_path.as_deref(), Some("/etc/m".as_ref()));
    assert_eq!((config.container_log_max_size, config.container_log_max_files), (1 << 20, 3));
    assert_eq!(config.max_container_restart_period, Duration::from_secs(20));
    assert_eq!(config.system_reserved["cpu"], "100m");
    assert_eq!(config.register_with_taints[0].key, "a");
    assert_eq!(config.ids_per_pod, 131_072);
    assert!(!config.cpu_cfs_quota);
    assert_eq!(config.single_process_oom_kill, Some(true));
    assert_eq!(config.node_status_update_frequency, Duration::from_secs(10));
}

#[test]
fn pod_15_the_restart_period_is_within_upstreams_bounds() {
    for period in ["500ms", "301s"] {
        let error =
            parse(&format!("crashLoopBackOff: {{maxContainerRestartPeriod: {period}}}\n")).unwrap_err();
        assert!(error.contains("crashLoopBackOff.maxContainerRestartPeriod"), "{error}");
    }
}

#[tokio::test]
async fn given_hard_thresholds_replace_the_defaults_unless_they_are_to_be_merged() {
    let signals =
        |config: &KubeletConfig| config.eviction.thresholds.iter().map(|t| t.signal).collect::<Vec<_>>();
    let replaced = applied("evictionHard: {memory.available: 200Mi, nodefs.available: '0'}\n");
    assert_eq!(signals(&replaced), [Signal::MemoryAvailable]);
    let merged = applied("mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 5%}\n");
    assert_eq!(merged.eviction.thresholds.len(), 5);
    assert_eq!(merged.eviction.hard_threshold(Signal::MemoryAvailable), Some(Amount::Part(0.05)));
    let soft = applied(
        "evictionSoft: {memory.available: 1Gi}\nevictionSoftGracePeriod: {memory.available: 1m30s}\n",
    );
    let threshold = soft.eviction.thresholds.iter().find(|t| t.soft).unwrap();
    assert_eq!(threshold.grace_period, Duration::from_secs(90));
    assert_eq!(soft.eviction.thresholds.len(), 6, "the hard defaults stay");
}

#[tokio::test]
async fn a_shutdown_ends_critical_pods_last() {
    let steps = applied("shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n").shutdown;
    assert_eq!(
        steps.iter().map(|s| (s.priority, s.grace_period.as_secs())).collect::<Vec<_>>(),
        [(0, 20), (2_000_000_000, 10)]
    );
    let by_priority = applied(
        "shutdownGracePeriodByPodPriority: [{priority: 100, shutdownGracePeriodSeconds: 5}, {priority: 0, shutdownGracePeriodSeconds: 3}]\n",
    );
    assert_eq!(by_priority.shutdown[0].grace_period.as_secs(), 3);
}

#[test]
fn what_is_not_supported_is_named_unless_it_says_what_is_so_anyway() {
    let warnings = parse("cpuManagerPolicy: static\ntopologyManagerPolicy: none\nlogging: {format: json}\nauthentication: {anonymous: {enabled: true}}\n")
        .unwrap();
    let warnings = warnings.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (warning, field) in
        warnings.iter().zip(["authentication.anonymous.enabled", "cpuManagerPolicy", "logging"])
    {
        assert!(warning.contains(field), "{warning}");
    }
}

#[test]
fn mistakes_are_errors_with_their_path() {
    for (text, part) in [
        ("maxPod: 1\n", "maxPod: unknown field"),
        ("maxPods: many\n", "maxPods: \"many\" is not a whole number"),
        ("maxPods: -1\n", "maxPods: -1 is not between"),
        ("syncFrequency: 10\n", "syncFrequency: 10 is not a duration"),
        ("clusterDNS: [10.0.0.10, x]\n", "clusterDNS[1]"),
        ("evictionHard: {memory.availble: 1Mi}\n", "evictionHard.memory.availble: unknown signal"),
        ("evictionHard: {memory.available: much}\n", "evictionHard.memory.available"),
        ("evictionSoft: {memory.available: 1Gi}\n", "evictionSoftGracePeriod.memory.available"),
        ("memorySwap: {swapBehaviour: NoSwap}\n", "memorySwap.swapBehaviour: unknown field"),
        ("registerWithTaints: [{key: a, effect: Never}]\n", "registerWithTaints[0].effect"),
        ("shutdownGracePeriod: 1s\nshutdownGracePeriodCriticalPods: 2s\n", "shutdownGracePeriodCriticalPods"),
        ("enforceNodeAllocatable: [pods, none]\n", "enforceNodeAllocatable[1]"),
        ("userNamespaces: {idsPerPod: 65537}\n", "userNamespaces.idsPerPod: must be a multiple of 65536"),
        ("userNamespaces: {idsPerPod: 1}\n", "userNamespaces.idsPerPod: 1 is not between"),
        ("maxPods: 1\nmaxPods: 2\n", "maxPods: given twice"),
        ("maxPods: [\n", "kubelet configuration"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(part), "{text} -> {error}");
    }
    let other = KubeletConfiguration::parse("apiVersion: v1\nkind: Pod\n").unwrap_err().to_string();
    assert!(other.contains("apiVersion: must be kubelet.config.k8s.io/v1beta1"), "{other}");
}
