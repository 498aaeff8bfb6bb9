#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn rows_are_unique_and_well_formed() {
    let mut seen = std::collections::HashSet::new();
    for r in resources() {
        assert!(seen.insert((r.group, r.version, r.plural)), "{}", r.group_resource());
        assert!(r.verbs.is_sorted());
        assert!(r.subresources.iter().map(|s| s.name).is_sorted(), "{}", r.plural);
    }
}

#[test]
fn known_facts_of_pods() {
    let pods = find("", "v1", "pods").unwrap();
    assert_eq!(pods.storage_version_hash, "xPOwRZ+Yhw8=");
    assert_eq!(pods.short_names, ["po"]);
    assert_eq!(pods.subresource("eviction").unwrap().group, "policy");
    assert_eq!(find("apps", "v1", "deployments").unwrap().group_resource(), "deployments.apps");
}

#[test]
fn rtc_01_runtime_classes_are_cluster_scoped_without_a_short_name() {
    let r = find("node.k8s.io", "v1", "runtimeclasses").unwrap();
    assert!(!r.namespaced && r.short_names.is_empty() && r.kind == "RuntimeClass");
}

#[test]
fn events_share_storage() {
    assert_eq!(find("events.k8s.io", "v1", "events").unwrap().storage().group, "");
    assert_eq!(find("autoscaling", "v1", "horizontalpodautoscalers").unwrap().storage().version, "v2");
}
