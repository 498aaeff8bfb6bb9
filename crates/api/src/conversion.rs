//! Between the shapes of kinds that share storage: core and events.k8s.io Events, autoscaling v1 and v2.
//!
//! Both directions keep everything that the other shape can say; what it cannot say stays under the name it has.

use serde_json::{Map, Value, json};

use crate::{meta, scheme::Resource};

/// Turns an object as a client sent it into the shape that is stored.
pub fn to_storage(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.version, resource.kind) {
        ("events.k8s.io", _, "Event") => rename(object, &EVENT_FIELDS, true),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => autoscaler_v1_to_v2(object),
        _ => return,
    }
    meta::set_type(object, resource.storage());
}

/// Turns a stored object into the shape of the resource under which it is asked for.
pub fn from_storage(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.version, resource.kind) {
        ("events.k8s.io", _, "Event") => rename(object, &EVENT_FIELDS, false),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => autoscaler_v2_to_v1(object),
        _ => return,
    }
    meta::set_type(object, resource);
}

/// (events.k8s.io/v1, core/v1)
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(object: &mut Value, fields: &[(&str, &str)], to_core: bool) {
    let map = meta::object_mut(object);
    for (new, core) in fields {
        let (from, to) = if to_core { (new, core) } else { (core, new) };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn cpu_metric(field: &str, utilization: Value) -> Value {
    let mut target = json!({"averageUtilization": utilization});
    if field == "target" {
        target["type"] = "Utilization".into();
    }
    json!({"type": "Resource", "resource": {"name": "cpu", field: target}})
}

fn is_cpu(metric: &Value) -> bool {
    meta::str_of(metric, "type") == "Resource" && meta::str_at(metric, "/resource/name") == "cpu"
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = meta::metadata_mut(object);
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

/// Moves `part.{field}` of v1 into a metrics list of v2, with the rest from an annotation.
fn autoscaler_v1_to_v2(object: &mut Value) {
    let parts = [
        ("spec", "targetCPUUtilizationPercentage", METRICS, "metrics", "target"),
        ("status", "currentCPUUtilizationPercentage", CURRENT_METRICS, "currentMetrics", "current"),
    ];
    for (part, field, annotation, list, inner) in parts {
        let rest = take_annotation(object, annotation);
        let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        let mut metrics = rest.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = map.remove(field) {
            metrics.insert(0, cpu_metric(inner, percent));
        }
        if !metrics.is_empty() {
            map.insert(list.to_owned(), Value::Array(metrics));
        }
    }
    for (part, annotation, field) in [("spec", BEHAVIOR, "behavior"), ("status", CONDITIONS, "conditions")] {
        if let Some(value) = take_annotation(object, annotation) {
            meta::object_mut(&mut object[part]).insert(field.to_owned(), value);
        }
    }
}

/// Keeps the CPU utilization in its v1 field, everything else as JSON in upstream's annotations.
fn autoscaler_v2_to_v1(object: &mut Value) {
    let parts = [
        ("spec", "targetCPUUtilizationPercentage", METRICS, "metrics", "target"),
        ("status", "currentCPUUtilizationPercentage", CURRENT_METRICS, "currentMetrics", "current"),
    ];
    let mut kept = Map::new();
    for (part, field, annotation, list, inner) in parts {
        let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        let Some(Value::Array(mut metrics)) = map.remove(list) else { continue };
        let percent = |m: &Value| m.pointer(&format!("/resource/{inner}/averageUtilization")).cloned();
        if let Some(at) = metrics.iter().position(|m| is_cpu(m) && percent(m).is_some()) {
            let metric = metrics.remove(at);
            map.insert(field.to_owned(), percent(&metric).unwrap_or_default());
        }
        if !metrics.is_empty() {
            kept.insert(annotation.to_owned(), Value::Array(metrics));
        }
    }
    for (part, annotation, field) in [("spec", BEHAVIOR, "behavior"), ("status", CONDITIONS, "conditions")] {
        if let Some(value) = object.get_mut(part).and_then(Value::as_object_mut).and_then(|m| m.remove(field))
        {
            kept.insert(annotation.to_owned(), value);
        }
    }
    for (annotation, value) in kept {
        meta::set_annotation(object, &annotation, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scheme;

    #[test]
    fn events_round_trip() {
        let new = scheme::find("events.k8s.io", "v1", "events").unwrap();
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"kind": "Pod"},
            "reportingController": "c", "eventTime": "2026-01-01T00:00:00.000000Z"});
        let mut object = sent.clone();
        to_storage(new, &mut object);
        assert_eq!(object["message"], "n");
        assert_eq!(object["apiVersion"], "v1");
        from_storage(new, &mut object);
        assert_eq!(object, sent);
    }

    #[test]
    fn autoscalers_round_trip_from_v2_through_v1() {
        let v1 = scheme::find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let stored = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "x"}}}]}});
        let mut object = stored.clone();
        from_storage(v1, &mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
        to_storage(v1, &mut object);
        assert_eq!(object, stored);
    }
}
