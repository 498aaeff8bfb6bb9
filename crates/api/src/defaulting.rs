//! Defaults: what upstream's `SetDefaults_*` functions fill in before validation and storage.

mod image;
mod pod;
mod service;
#[cfg(test)]
mod tests;
mod workload;

use serde_json::{Map, Value, json};

use crate::{
    meta::{self, str_of},
    scheme::Resource,
};

pub use image::default_pull_policy;
pub(crate) use pod::mirror_service_account;

/// Fills in the defaults of an object. Values that are there stay.
pub fn apply_defaults(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::pod(object),
        ("", "PodTemplate") => {
            if let Some(template) = object.get_mut("template") {
                pod::template(template);
            }
        }
        ("", "Service") => service::service(object),
        ("", "Endpoints") => service::endpoints(object),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(object),
        ("", "Secret") => secret(object),
        ("", "Namespace") => {
            let name = meta::name(object).to_owned();
            if !name.is_empty() && meta::label(object, "kubernetes.io/metadata.name").is_none() {
                meta::set_label(object, "kubernetes.io/metadata.name", &name);
            }
        }
        ("", "Node") => {
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
                && let Some(capacity) = status.get("capacity").cloned()
            {
                status.entry("allocatable").or_insert(capacity);
            }
        }
        ("", "PersistentVolume") => persistent_volume(object),
        ("", "PersistentVolumeClaim") => persistent_volume_claim(object),
        ("", "LimitRange") => limit_range(object),
        ("", "ReplicationController") => workload::replication_controller(object),
        ("apps", kind) => workload::apps(kind, object),
        ("batch", "Job") => workload::job(object),
        ("batch", "CronJob") => workload::cron_job(object),
        ("autoscaling", _) => workload::autoscaler(resource.version, object),
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy(object),
        ("networking.k8s.io", "IngressClass") => {
            if let Some(parameters) = object.pointer_mut("/spec/parameters") {
                set(parameters, "scope", "Cluster");
            }
        }
        ("rbac.authorization.k8s.io", _) => rbac(object),
        ("scheduling.k8s.io", _) => set(object, "preemptionPolicy", "PreemptLowerPriority"),
        ("storage.k8s.io", "StorageClass") => {
            set(object, "reclaimPolicy", "Delete");
            set(object, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => csi_driver(object),
        ("admissionregistration.k8s.io", kind) => admission(kind, object),
        ("authentication.k8s.io", "TokenRequest") => token_request(object),
        _ => {}
    }
}

/// TokenRequest is only a subresource, so it has an entry of its own.
pub fn token_request(object: &mut Value) {
    set(field_mut(object, "spec"), "expirationSeconds", 3600);
}

/// Sets a field that is absent.
fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    meta::object_mut(object).entry(field).or_insert_with(|| value.into());
}

/// Sets a field that is absent or an empty string.
fn set_text(object: &mut Value, field: &str, value: &str) {
    if str_of(object, field).is_empty() {
        meta::object_mut(object).insert(field.to_owned(), value.into());
    }
}

/// A field as a map, made when missing.
fn field_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    let value = meta::object_mut(object).entry(field).or_insert_with(|| Value::Object(Map::new()));
    meta::object_mut(value);
    value
}

/// The items of a list field.
fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// `stringData` is write-only: it goes into `data`, where it wins.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    set(object, "type", "Opaque");
    if let Some(Value::Object(plain)) = meta::object_mut(object).remove("stringData") {
        let data = meta::object_mut(field_mut(object, "data"));
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
        }
    }
}

fn persistent_volume(object: &mut Value) {
    set_text(field_mut(object, "status"), "phase", "Pending");
    let spec = field_mut(object, "spec");
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath") {
        set(path, "type", "");
    }
}

fn persistent_volume_claim(object: &mut Value) {
    set_text(field_mut(object, "status"), "phase", "Pending");
    set(field_mut(object, "spec"), "volumeMode", "Filesystem");
}

/// For containers: `default` from `max`, `defaultRequest` from `default`, then from `min`.
fn limit_range(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for item in each(spec, "limits").filter(|i| str_of(i, "type") == "Container") {
        let copy = |item: &mut Value, from: &str, to: &str| {
            let entries = item.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
            if !entries.is_empty() {
                let target = meta::object_mut(field_mut(item, to));
                for (name, quantity) in entries {
                    target.entry(name).or_insert(quantity);
                }
            }
        };
        copy(item, "max", "default");
        copy(item, "default", "defaultRequest");
        copy(item, "min", "defaultRequest");
    }
}

fn rbac(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = object.get_mut("roleRef") {
        set_text(role, "apiGroup", GROUP);
    }
    for subject in each(object, "subjects") {
        if matches!(str_of(subject, "kind"), "User" | "Group") {
            set_text(subject, "apiGroup", GROUP);
        }
    }
}

fn csi_driver(object: &mut Value) {
    let spec = field_mut(object, "spec");
    for (field, value) in [
        ("attachRequired", json!(true)),
        ("podInfoOnMount", json!(false)),
        ("storageCapacity", json!(false)),
        ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ("volumeLifecycleModes", json!(["Persistent"])),
        ("requiresRepublish", json!(false)),
        ("seLinuxMount", json!(false)),
    ] {
        set(spec, field, value);
    }
}

fn admission(kind: &str, object: &mut Value) {
    for webhook in each(object, "webhooks") {
        set(webhook, "failurePolicy", "Fail");
        set(webhook, "matchPolicy", "Equivalent");
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", 10);
        if kind == "MutatingWebhookConfiguration" {
            set(webhook, "reinvocationPolicy", "Never");
        }
        for rule in each(webhook, "rules") {
            set(rule, "scope", "*");
        }
        if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
            set(service, "port", 443);
        }
    }
    if kind.ends_with("AdmissionPolicy") {
        let spec = field_mut(object, "spec");
        set(spec, "failurePolicy", "Fail");
        if let Some(constraints) = spec.get_mut("matchConstraints") {
            set(constraints, "matchPolicy", "Equivalent");
            set(constraints, "namespaceSelector", json!({}));
            set(constraints, "objectSelector", json!({}));
        }
    }
}
