//! One node, one pod, one question at a time.
#![allow(clippy::unwrap_used)]

use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;

/// A pod with this spec.
pub(crate) fn pod(spec: Value) -> Pod {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": "web", "uid": "uid-web"},
        "spec": spec,
    });
    Pod::read(&serde_json::from_value::<DynamicObject>(object).unwrap()).unwrap()
}

/// A node with 2 CPUs, 4 GiB and room for 3 pods; `spec` and `labels` may be given.
pub(crate) fn node(name: &str, more: Value) -> Node {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": more["labels"]},
        "spec": more["spec"],
        "status": {"allocatable": {
            "cpu": "2", "memory": "4Gi", "pods": "3", "ephemeral-storage": "10Gi", "example.com/gpu": "1",
        }},
    });
    Node::read(&serde_json::from_value::<DynamicObject>(object).unwrap())
}

fn check_on(pod: &Pod, node: Node, others: &[Pod]) -> Result<(), Rejection> {
    let mut cluster = Cluster::default();
    let name = node.name.clone();
    cluster.set_node(node);
    for (number, other) in others.iter().enumerate() {
        let mut other = other.clone();
        other.key.name = format!("other-{number}");
        other.node = Some(name.clone());
        cluster.set_pod(other);
    }
    let (node, _) = cluster.nodes().next().unwrap();
    Question::new(&cluster, pod, pod.wishes.as_ref().unwrap()).check(node)
}

fn reasons(result: Result<(), Rejection>) -> Vec<String> {
    result.err().map(|rejection| rejection.reasons).unwrap_or_default()
}

fn requests(amounts: Value) -> Pod {
    pod(json!({"containers": [{"resources": {"requests": amounts}}]}))
}

#[test]
fn cordoned_node_takes_only_who_tolerates_it() {
    let cordoned = || node("a", json!({"spec": {"unschedulable": true}}));
    assert_eq!(reasons(check_on(&pod(json!({})), cordoned(), &[])), ["node(s) were unschedulable"]);
    let tolerant = pod(json!({"tolerations": [{"operator": "Exists"}]}));
    check_on(&tolerant, cordoned(), &[]).unwrap();
}

#[test]
fn taints_have_to_be_tolerated() {
    let taint = |effect| json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": effect}]}});
    let plain = pod(json!({}));
    for effect in ["NoSchedule", "NoExecute"] {
        let rejection = check_on(&plain, node("a", taint(effect)), &[]).unwrap_err();
        assert_eq!(rejection.reasons, ["node(s) had untolerated taint(s)"]);
        assert!(!rejection.preemptible);
    }
    check_on(&plain, node("a", taint("PreferNoSchedule")), &[]).unwrap();
    let tolerant = pod(json!({"tolerations": [{"key": "gpu", "operator": "Equal", "value": "yes"}]}));
    check_on(&tolerant, node("a", taint("NoSchedule")), &[]).unwrap();
}

#[test]
fn selector_and_affinity() {
    let labelled = || node("a", json!({"labels": {"disk": "ssd", "cores": "8"}}));
    let mismatch = ["node(s) didn't match Pod's node affinity/selector"];
    check_on(&pod(json!({"nodeSelector": {"disk": "ssd"}})), labelled(), &[]).unwrap();
    assert_eq!(reasons(check_on(&pod(json!({"nodeSelector": {"disk": "hdd"}})), labelled(), &[])), mismatch);
    let affinity = |terms: Value| {
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod(json!({"affinity": {"nodeAffinity": required}}))
    };
    let label = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let cases = [
        (label("disk", "In", &["ssd", "nvme"]), true),
        (label("disk", "In", &["hdd"]), false),
        (label("none", "In", &["x"]), false),
        (label("disk", "NotIn", &["hdd"]), true),
        (label("none", "NotIn", &["hdd"]), true),
        (label("disk", "NotIn", &["ssd"]), false),
        (label("disk", "Exists", &[]), true),
        (label("none", "Exists", &[]), false),
        (label("none", "DoesNotExist", &[]), true),
        (label("cores", "Gt", &["7"]), true),
        (label("cores", "Gt", &["8"]), false),
        (label("cores", "Lt", &["9"]), true),
        (label("disk", "Gt", &["1"]), false),
        (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}), true),
        (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}), false),
        (json!({}), false),
    ];
    for (term, fits) in cases {
        let either = affinity(json!([label("none", "Exists", &[]), term]));
        assert_eq!(check_on(&either, labelled(), &[]).is_ok(), fits, "{term}");
    }
    assert_eq!(reasons(check_on(&affinity(json!([])), labelled(), &[])), mismatch);
}

#[test]
fn host_ports_are_taken_once() {
    let port = |ip: &str, protocol: &str| {
        pod(json!({"containers": [{"ports": [{"hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}))
    };
    let taken = [port("127.0.0.1", "TCP")];
    check_on(&port("127.0.0.2", "TCP"), node("a", json!({})), &taken).unwrap();
    check_on(&port("", "UDP"), node("a", json!({})), &taken).unwrap();
    for ip in ["127.0.0.1", "", "0.0.0.0"] {
        let rejection = check_on(&port(ip, "TCP"), node("a", json!({})), &taken).unwrap_err();
        assert_eq!(rejection.reasons, ["node(s) didn't have free ports for the requested pod ports"]);
        assert!(rejection.preemptible);
    }
    check_on(&pod(json!({"containers": [{"ports": [{"containerPort": 80}]}]})), node("a", json!({})), &taken)
        .unwrap();
}

#[test]
fn rtc_22_what_lacks_is_named() {
    let free = || node("a", json!({}));
    check_on(&requests(json!({"cpu": "2", "memory": "4Gi"})), free(), &[]).unwrap();
    let others = [requests(json!({"cpu": "500m", "example.com/gpu": "1"}))];
    let rejection =
        check_on(&requests(json!({"cpu": "1600m", "memory": "1Gi"})), free(), &others).unwrap_err();
    assert_eq!((rejection.reasons, rejection.preemptible), (vec!["Insufficient cpu".to_owned()], true));
    let all =
        requests(json!({"cpu": "3", "memory": "5Gi", "ephemeral-storage": "11Gi", "example.com/gpu": "1"}));
    let rejection = check_on(&all, free(), &others).unwrap_err();
    assert_eq!(
        rejection.reasons,
        [
            "Insufficient cpu",
            "Insufficient memory",
            "Insufficient ephemeral-storage",
            "Insufficient example.com/gpu"
        ]
    );
    assert!(!rejection.preemptible, "no victim makes the node larger");
    let three = [pod(json!({})), pod(json!({})), pod(json!({}))];
    assert_eq!(reasons(check_on(&pod(json!({})), free(), &three)), ["Too many pods"]);
    assert_eq!(
        reasons(check_on(&requests(json!({"example.com/none": "1"})), free(), &[])),
        ["Insufficient example.com/none"]
    );
}

#[test]
fn rtc_22_overhead_counts() {
    let mut spec = json!({"containers": [{"resources": {"requests": {"cpu": "1900m"}}}]});
    check_on(&pod(spec.clone()), node("a", json!({})), &[]).unwrap();
    spec["overhead"] = json!({"cpu": "250m"});
    assert_eq!(reasons(check_on(&pod(spec), node("a", json!({})), &[])), ["Insufficient cpu"]);
}
