//! The taints that stand for a node's conditions.

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use sampan_api::meta::{format_time, list, str_of};
use serde_json::{Value, json};

use super::condition;
use crate::kinds::or_gone;

const PREFIX: &str = "node.kubernetes.io/";
/// The taints that this controller alone gives and takes, beside `unschedulable`'s.
const OWN: [&str; 7] = [
    "not-ready",
    "unreachable",
    "memory-pressure",
    "disk-pressure",
    "pid-pressure",
    "network-unavailable",
    "unschedulable",
];

/// The names and effects of the taints that a node should have.
fn wanted(node: &DynamicObject) -> Vec<(&'static str, &'static str)> {
    let status = |name| condition(node, name).map_or("", |condition| str_of(condition, "status"));
    let mut taints = Vec::new();
    match status("Ready") {
        "True" => {}
        "Unknown" => taints.extend([("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]),
        _ => taints.extend([("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]),
    }
    let pressures = [
        ("MemoryPressure", "memory-pressure"),
        ("DiskPressure", "disk-pressure"),
        ("PIDPressure", "pid-pressure"),
        ("NetworkUnavailable", "network-unavailable"),
    ];
    taints.extend(
        pressures.iter().filter(|(name, _)| status(name) == "True").map(|(_, taint)| (*taint, "NoSchedule")),
    );
    if node.data.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        taints.push(("unschedulable", "NoSchedule"));
    }
    taints
}

/// All taints as they should be; `None` when they are.
fn corrected(node: &DynamicObject, now: jiff::Timestamp) -> Option<Vec<Value>> {
    let is_own =
        |taint: &Value| str_of(taint, "key").strip_prefix(PREFIX).is_some_and(|key| OWN.contains(&key));
    let have = list(&node.data, "/spec/taints");
    let mut taints: Vec<_> = have.iter().filter(|taint| !is_own(taint)).cloned().collect();
    for (name, effect) in wanted(node) {
        let key = format!("{PREFIX}{name}");
        let same = |taint: &&Value| str_of(taint, "key") == key && str_of(taint, "effect") == effect;
        let taint = have.iter().find(same).cloned();
        taints.push(
            taint.unwrap_or_else(|| json!({"key": key, "effect": effect, "timeAdded": format_time(now)})),
        );
    }
    let same = taints.len() == have.len() && taints.iter().all(|taint| have.contains(taint));
    (!same).then_some(taints)
}

/// Writes the taints when they have to change.
pub(super) async fn set(api: &kube::Api<DynamicObject>, node: &DynamicObject) -> Result<(), kube::Error> {
    let Some(taints) = corrected(node, jiff::Timestamp::now()) else { return Ok(()) };
    // The version makes a conflict of a change in between: the list is written as a whole.
    let version = node.metadata.resource_version.as_deref();
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}));
    let name = node.metadata.name.as_deref().unwrap_or_default();
    or_gone(api.patch(name, &PatchParams::default(), &patch).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn node(ready: &str, pressure: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "spec": spec,
            "status": {"conditions": [
                {"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": pressure},
            ]},
        }))
        .unwrap()
    }

    fn keys(node: &DynamicObject) -> Option<Vec<String>> {
        let taints = corrected(node, jiff::Timestamp::UNIX_EPOCH)?;
        Some(
            taints
                .iter()
                .map(|taint| format!("{}:{}", str_of(taint, "key"), str_of(taint, "effect")))
                .collect(),
        )
    }

    #[test]
    fn conditions_become_taints() {
        assert_eq!(keys(&node("True", "False", json!({}))), None);
        assert_eq!(
            keys(&node("False", "False", json!({}))).unwrap(),
            ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
        );
        assert_eq!(
            keys(&node("Unknown", "True", json!({"unschedulable": true}))).unwrap(),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/disk-pressure:NoSchedule",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
    }

    #[test]
    fn taints_of_others_stay_and_times_too() {
        let old = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule", "timeAdded": "then"});
        let other = json!({"key": "gpu", "effect": "NoSchedule"});
        let ready = node("True", "False", json!({"taints": [old, other]}));
        assert_eq!(keys(&ready).unwrap(), ["gpu:NoSchedule"]);
        let not_ready = node("False", "False", json!({"taints": [other, old]}));
        let taints = corrected(&not_ready, jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((&taints[0], &taints[1], taints.len()), (&other, &old, 3));
    }
}
