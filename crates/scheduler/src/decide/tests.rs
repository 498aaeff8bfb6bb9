//! Several nodes, several pods, one decision at a time.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::budget::Budget;
use crate::filter::tests::{node, pod};
use crate::message;
use crate::pod::PodKey;

fn decide_for(cluster: &Cluster, pod: &Pod) -> Result<String, Refusal> {
    decide(cluster, pod, pod.wishes.as_ref().unwrap())
}

fn refused(cluster: &Cluster, pod: &Pod) -> String {
    message::unschedulable(&decide_for(cluster, pod).unwrap_err())
}

fn labelled(spec: Value, labels: Value) -> Pod {
    let mut pod = pod(spec.clone());
    pod.labels = labels.as_object().unwrap().clone();
    // Terms may look at the pod's own labels.
    let again = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": "web", "uid": "uid-web", "labels": labels},
        "spec": spec,
    });
    Pod::read(&serde_json::from_value(again).unwrap()).unwrap()
}

/// Puts a copy of a pod on a node.
fn place(cluster: &mut Cluster, name: &str, mut pod: Pod, node: &str) {
    pod.key.name = name.to_owned();
    pod.uid = format!("uid-{name}");
    pod.node = Some(node.to_owned());
    cluster.set_pod(pod);
}

/// Three nodes: two in zone `east`, one in `west`.
fn three() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a", "east"), ("b", "east"), ("c", "west")] {
        cluster.set_node(node(name, json!({"labels": {"zone": zone, "kubernetes.io/hostname": name}})));
    }
    cluster
}

fn affinity(kind: &str, key: &str, app: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn emptiest_node_wins_unless_something_speaks_against_it() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    cluster.set_node(node("b", json!({"labels": {"zone": "near"}})));
    let soft = json!({"spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}});
    cluster.set_node(node("c", soft));
    let busy = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
    place(&mut cluster, "busy", busy, "a");
    assert_eq!(decide_for(&cluster, &pod(json!({}))).unwrap(), "b");
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}}
    ]}}});
    assert_eq!(decide_for(&cluster, &pod(preferred)).unwrap(), "a");
}

#[test]
fn no_node_is_told_apart_from_no_fitting_node() {
    let mut cluster = Cluster::default();
    assert_eq!(refused(&cluster, &pod(json!({}))), "no nodes available to schedule pods");
    cluster.set_node(node("a", json!({"spec": {"unschedulable": true}})));
    assert_eq!(decide_for(&cluster, &pod(json!({}))).unwrap_err().rejections.len(), 1);
}

#[test]
fn pod_affinity_goes_where_the_others_are() {
    let mut cluster = three();
    let near = labelled(affinity("podAffinity", "zone", "db"), json!({"app": "web"}));
    assert_eq!(
        refused(&cluster, &near),
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: \
         3 Preemption is not helpful for scheduling."
    );
    place(&mut cluster, "db", labelled(json!({}), json!({"app": "db"})), "c");
    assert_eq!(decide_for(&cluster, &near).unwrap(), "c");
    let mut elsewhere = near.clone();
    elsewhere.key.namespace = "other".to_owned();
    assert_eq!(decide_for(&cluster, &elsewhere).unwrap(), "c", "the term was read for the pod's namespace");
    // The first of a group that wants to be together may be anywhere.
    let first = labelled(affinity("podAffinity", "zone", "peer"), json!({"app": "peer"}));
    let chosen = decide_for(&cluster, &first).unwrap();
    place(&mut cluster, "peer-0", first.clone(), "b");
    assert!(chosen != "c" || decide_for(&cluster, &first).unwrap() != "c");
    assert_ne!(decide_for(&cluster, &first).unwrap(), "c", "the second follows the first into its zone");
}

#[test]
fn pod_affinity_may_look_into_other_namespaces() {
    let mut cluster = three();
    let mut other = labelled(json!({}), json!({"app": "db"}));
    other.key.namespace = "data".to_owned();
    place(&mut cluster, "db", other, "c");
    let term = |extra: Value| {
        let mut term = json!({"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"});
        term.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        pod(json!({"affinity": {"podAffinity": required}}))
    };
    assert!(decide_for(&cluster, &term(json!({}))).is_err());
    assert_eq!(decide_for(&cluster, &term(json!({"namespaces": ["data"]}))).unwrap(), "c");
    assert_eq!(decide_for(&cluster, &term(json!({"namespaceSelector": {}}))).unwrap(), "c");
    let selected = term(json!({"namespaceSelector": {"matchLabels": {"kind": "data"}}}));
    assert!(decide_for(&cluster, &selected).is_err());
    cluster.set_namespace("data".into(), Some(json!({"kind": "data"}).as_object().unwrap().clone()));
    assert_eq!(decide_for(&cluster, &selected).unwrap(), "c");
}

#[test]
fn pod_anti_affinity_holds_in_both_directions() {
    let mut cluster = three();
    let host = "kubernetes.io/hostname";
    let alone = labelled(affinity("podAntiAffinity", host, "web"), json!({"app": "web"}));
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(decide_for(&cluster, &alone).unwrap(), name);
        place(&mut cluster, &format!("web-{number}"), alone.clone(), name);
    }
    assert!(refused(&cluster, &alone).starts_with(
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are \
         available: 3 No preemption victims found for incoming pod."
    ));
    // One that does not mind the others is minded by them.
    let visitor = labelled(json!({}), json!({"app": "web"}));
    assert!(
        refused(&cluster, &visitor).starts_with(
            "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."
        )
    );
    decide_for(&cluster, &labelled(json!({}), json!({"app": "other"}))).unwrap();
}

#[test]
fn pods_are_spread_over_domains() {
    let mut cluster = three();
    cluster.set_node(node("d", json!({})));
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    let spread = labelled(json!({"topologySpreadConstraints": [constraint]}), json!({"app": "web"}));
    place(&mut cluster, "web-0", spread.clone(), "a");
    assert_eq!(decide_for(&cluster, &spread).unwrap(), "c");
    place(&mut cluster, "web-1", spread.clone(), "c");
    place(&mut cluster, "web-2", spread.clone(), "b");
    cluster.set_node(node("c", json!({"labels": {"zone": "west"}, "spec": {"unschedulable": true}})));
    let text = refused(&cluster, &spread);
    assert!(
        text.starts_with(
            "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required \
             label), 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."
        ),
        "{text}"
    );
    let mut soft = constraint.clone();
    soft["whenUnsatisfiable"] = "ScheduleAnyway".into();
    let soft = labelled(json!({"topologySpreadConstraints": [soft]}), json!({"app": "web"}));
    assert!(["a", "b"].contains(&decide_for(&cluster, &soft).unwrap().as_str()));
}

fn sized(cpu: &str, priority: i64) -> Pod {
    let mut pod =
        pod(json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}], "priority": priority}));
    pod.priority = priority;
    pod
}

#[test]
fn the_least_important_go_for_more_important_ones() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    cluster.set_node(node("b", json!({})));
    place(&mut cluster, "a-low", sized("1", 1), "a");
    place(&mut cluster, "a-mid", sized("1", 5), "a");
    place(&mut cluster, "b-mid", sized("2", 5), "b");
    let refusal = decide_for(&cluster, &sized("1", 10)).unwrap_err();
    let sacrifice = refusal.sacrifice.unwrap();
    let victims: Vec<_> = sacrifice.victims.iter().map(|key| key.name.as_str()).collect();
    assert_eq!((sacrifice.node.as_str(), victims), ("a", vec!["a-low"]));
    // Nobody of the same importance is evicted.
    assert!(decide_for(&cluster, &sized("2", 5)).unwrap_err().sacrifice.is_none());
    assert!(refused(&cluster, &sized("3", 100)).ends_with("2 Preemption is not helpful for scheduling."));
    let mut humble = sized("1", 10);
    humble.wishes.as_mut().unwrap().preempts = false;
    assert!(refused(&cluster, &humble).ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[test]
fn room_made_for_a_pod_is_kept_for_it() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    let mut urgent = sized("2", 10);
    urgent.key.name = "urgent".to_owned();
    cluster.set_pod(urgent.clone());
    cluster.nominate(&urgent.key, "a");
    assert!(decide_for(&cluster, &sized("1", 1)).is_err(), "a lesser one must not take it");
    assert_eq!(decide_for(&cluster, &sized("1", 11)).unwrap(), "a", "a greater one may");
    assert_eq!(decide_for(&cluster, &urgent).unwrap(), "a");
    let mut leaving = sized("2", 1);
    leaving.ending = true;
    place(&mut cluster, "leaving", leaving.clone(), "a");
    assert!(!refused(&cluster, &urgent).contains("nominated node"), "somebody else deletes it");
    leaving.preempted = true;
    place(&mut cluster, "leaving", leaving, "a");
    assert!(
        refused(&cluster, &urgent)
            .ends_with("preemption: not eligible due to terminating pod on the nominated node.")
    );
    // Nothing to wait for on a node that takes nobody any more.
    cluster.set_node(node("a", json!({"spec": {"unschedulable": true}})));
    assert!(!refused(&cluster, &urgent).contains("nominated node"), "{}", refused(&cluster, &urgent));
    cluster.remove_pod(&urgent.key);
    assert_eq!(cluster.nominated(&urgent.key), None);
}

#[test]
fn preemption_spares_who_a_budget_protects() {
    let mut cluster = Cluster::default();
    for name in ["a", "b"] {
        cluster.set_node(node(name, json!({})));
    }
    let app = |app: &str, cpu: &str, priority: i64| {
        let mut pod = sized(cpu, priority);
        pod.labels = json!({"app": app}).as_object().unwrap().clone();
        pod
    };
    place(&mut cluster, "db-0", app("db", "1", 1), "a");
    place(&mut cluster, "web-0", app("web", "1", 5), "a");
    place(&mut cluster, "web-1", app("web", "2", 7), "b");
    let key = |name: &str| PodKey { namespace: "default".into(), name: name.into() };
    let chosen = |cluster: &Cluster, cpu: &str| {
        let sacrifice = decide_for(cluster, &sized(cpu, 10)).unwrap_err().sacrifice.unwrap();
        let victims: Vec<_> = sacrifice.victims.iter().map(|key| key.name.clone()).collect();
        format!("{} {}", sacrifice.node, victims.join(" "))
    };
    assert_eq!(chosen(&cluster, "1"), "a db-0");
    let budget = |namespace: &str, selector: Value, status: Value| {
        let object = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "db", "namespace": namespace},
            "spec": {"selector": selector}, "status": status,
        });
        Some(Budget::read(&serde_json::from_value(object).unwrap()))
    };
    let db = json!({"matchLabels": {"app": "db"}});
    cluster.set_budget(key("db"), budget("default", db.clone(), json!({"disruptionsAllowed": 0})));
    assert_eq!(chosen(&cluster, "1"), "a web-0", "on the same node somebody else goes");
    assert_eq!(chosen(&cluster, "2"), "b web-1", "another node, though its pod is more important");
    // Budgets that say nothing about it.
    for (namespace, selector, status) in [
        ("other", db.clone(), json!({"disruptionsAllowed": 0})),
        ("default", json!({}), json!({"disruptionsAllowed": 0})),
        ("default", db.clone(), json!({"disruptionsAllowed": 1})),
        ("default", db.clone(), json!({"disruptionsAllowed": 0, "disruptedPods": {"db-0": null}})),
    ] {
        cluster.set_budget(key("db"), budget(namespace, selector, status));
        assert_eq!(chosen(&cluster, "1"), "a db-0");
    }
    // Where nothing else helps, the budget does not.
    let all = json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]});
    cluster.set_budget(key("db"), budget("default", all, json!({"disruptionsAllowed": 0})));
    assert_eq!(chosen(&cluster, "2"), "b web-1", "one breach rather than two");
    cluster.set_budget(key("db"), None);
    assert_eq!(chosen(&cluster, "1"), "a db-0");
}

#[test]
fn a_more_important_pod_takes_over_a_nominated_node() {
    let mut cluster = Cluster::default();
    cluster.set_node(node("a", json!({})));
    for (name, priority) in [("first", 10), ("second", 20), ("third", 15)] {
        let mut waiting = sized("2", priority);
        waiting.key.name = name.to_owned();
        cluster.set_pod(waiting);
    }
    let key = |name: &str| PodKey { namespace: "default".into(), name: name.into() };
    assert_eq!(cluster.nominate(&key("first"), "a"), []);
    assert_eq!(cluster.nominate(&key("second"), "a"), [key("first")]);
    assert_eq!(cluster.nominated(&key("first")), None);
    assert_eq!(cluster.nominate(&key("third"), "a"), [], "the more important one keeps its room");
    assert_eq!(cluster.nominated(&key("second")), Some("a"));
}

#[test]
fn only_what_the_scheduler_deletes_makes_room() {
    let read = |reason: &str, deleted: Option<&str>| {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "deletionTimestamp": deleted},
            "spec": {"containers": []},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]},
        });
        Pod::read(&serde_json::from_value(object).unwrap()).unwrap().preempted
    };
    let deleted = Some("2026-01-01T00:00:00Z");
    assert!(read("PreemptionByScheduler", deleted));
    assert!(!read("PreemptionByScheduler", None));
    assert!(!read("EvictionByEvictionAPI", deleted));
}
