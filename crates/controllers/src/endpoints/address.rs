//! What slices and Endpoints have in common: which pods count, and which ports of theirs a Service means.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use sampan_api::meta::{list, str_at, str_of};
use serde_json::{Value, json};

use crate::pods::PodSummary;

/// Whether addresses count although their pods are not ready.
pub(super) fn publishes_not_ready(service: &DynamicObject) -> bool {
    service.data.pointer("/spec/publishNotReadyAddresses").and_then(Value::as_bool).unwrap_or(false)
}

/// The labels of a Service's endpoints objects: its own and those that say what the object is.
pub(super) fn labels(service: &DynamicObject, own: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove("service.kubernetes.io/headless");
    if str_at(&service.data, "/spec/clusterIP") == "None" {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    labels.extend(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    labels
}

/// The Service's ports as they are on this pod; a named port that the pod does not have is left out.
pub(super) fn ports(service: &DynamicObject, pod: &PodSummary) -> Vec<Value> {
    let ports = list(&service.data, "/spec/ports").iter();
    ports
        .filter_map(|port| {
            let protocol = Some(str_of(port, "protocol")).filter(|name| !name.is_empty()).unwrap_or("TCP");
            let number = match &port["targetPort"] {
                Value::String(name) => {
                    let named = |(found, of, _): &&(String, String, i64)| found == name && of == protocol;
                    pod.ports.iter().find(named)?.2
                }
                Value::Number(number) if number.as_i64() != Some(0) => number.as_i64()?,
                _ => port["port"].as_i64()?,
            };
            let mut found = json!({"name": str_of(port, "name"), "port": number, "protocol": protocol});
            if let Some(application) = port.get("appProtocol") {
                found["appProtocol"] = application.clone();
            }
            Some(found)
        })
        .collect()
}

/// The pod, as an address refers to it.
pub(super) fn target(pod: &PodSummary) -> Value {
    json!({"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid})
}

/// The name under which DNS knows the pod within the Service.
pub(super) fn hostname<'a>(service: &DynamicObject, pod: &'a PodSummary) -> Option<&'a str> {
    let same = service.metadata.name.as_deref() == Some(&pod.subdomain);
    (same && !pod.hostname.is_empty()).then_some(&pod.hostname)
}
