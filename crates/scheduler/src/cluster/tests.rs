#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::filter::tests::{node, pod};

fn requested(cluster: &Cluster, name: &str) -> String {
    let (_, state) = cluster.nodes().find(|(node, _)| node.name == name).unwrap();
    format!(
        "{} pods, {} cpu",
        state.taken.pods,
        state.taken.requested.get("cpu").copied().unwrap_or_default()
    )
}

fn on(mut pod: Pod, node: Option<&str>) -> Pod {
    pod.node = node.map(ToOwned::to_owned);
    pod
}

#[test]
fn what_pods_take_follows_them() {
    let mut cluster = Cluster::default();
    let one = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
    assert_eq!(cluster.set_pod(on(one.clone(), Some("a"))), Effect::None, "before its node is known");
    assert_eq!(cluster.set_node(node("a", json!({}))), Effect::Freed);
    assert_eq!(cluster.set_node(node("a", json!({}))), Effect::None, "a heartbeat");
    assert_eq!(requested(&cluster, "a"), "1 pods, 1 cpu");
    assert_eq!(cluster.set_pod(on(one.clone(), Some("a"))), Effect::None);
    assert_eq!(requested(&cluster, "a"), "1 pods, 1 cpu");
    assert_eq!(cluster.remove_pod(&one.key), Effect::Freed);
    assert_eq!(requested(&cluster, "a"), "0 pods, 0 cpu");
    assert_eq!(cluster.remove_pod(&one.key), Effect::None);
}

#[test]
fn assumed_placement_survives_older_events_and_can_be_taken_back() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    let one = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
    cluster.set_pod(one.clone());
    cluster.assume(&one.key, "a");
    assert_eq!(requested(&cluster, "a"), "1 pods, 1 cpu");
    cluster.set_pod(one.clone());
    assert_eq!(cluster.pod(&one.key).unwrap().node.as_deref(), Some("a"));
    assert!(!cluster.forget(&one.key, "another uid"));
    assert!(cluster.forget(&one.key, &one.uid));
    assert_eq!(requested(&cluster, "a"), "0 pods, 0 cpu");
    cluster.assume(&one.key, "a");
    cluster.set_pod(on(one.clone(), Some("a")));
    assert!(!cluster.forget(&one.key, &one.uid), "the API confirmed it");
    assert_eq!(requested(&cluster, "a"), "1 pods, 1 cpu");
}

#[test]
fn pod_that_was_replaced_is_not_mistaken_for_the_old_one() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    let one = pod(json!({"containers": [{}]}));
    cluster.set_pod(one.clone());
    cluster.assume(&one.key, "a");
    let again = Pod { uid: "another".into(), ..one };
    cluster.set_pod(again.clone());
    assert_eq!(cluster.pod(&again.key).unwrap().node, None);
    assert_eq!(requested(&cluster, "a"), "0 pods, 0 cpu");
}
