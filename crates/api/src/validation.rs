//! Validation: what a kind's fields may hold, in upstream's words (`pkg/apis/*/validation`).
//!
//! Objects come here decoded (types are right) and defaulted. Every finding names its field; [`crate::Status::invalid`]
//! turns a list of them into the answer.

// `match` arms that hold one check each read better than guards that hold the check.
#![allow(clippy::collapsible_match)]

mod config;
mod metadata;
mod misc;
mod pod;
mod rbac;
mod service;
#[cfg(test)]
mod tests;
mod trust_bundle;
mod warnings;
mod workload;

use serde_json::Value;

use crate::{
    FieldError, Quantity,
    field::Path,
    meta::{self, items, str_of},
    names,
    scheme::Resource,
};

pub use metadata::{name_messages, validate_metadata, validate_metadata_update};
pub use warnings::warnings;

/// Findings are gathered here.
type Errors = Vec<FieldError>;

const IMMUTABLE: &str = "field is immutable";
const NON_NEGATIVE: &str = "must be greater than or equal to 0";

/// Checks an object that is to be created (after defaulting). Empty = valid.
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    if resource.is_stored() {
        metadata::validate_metadata(resource, object, &mut out);
    }
    validate_content(resource, object, &mut out);
    out
}

fn validate_content(resource: &Resource, object: &Value, out: &mut Errors) {
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::validate(object, out),
        ("", "PodTemplate") => workload::template(&object["template"], &Path::new("template"), out),
        ("", "Secret") => config::secret(object, out),
        ("", "ConfigMap") => config::config_map(object, out),
        ("", "Service") => service::service(object, out),
        ("", "Endpoints") => service::endpoints(object, out),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(object, out),
        ("", "Node") => misc::node(object, out),
        ("", "Binding") => misc::binding(object, out),
        ("" | "events.k8s.io", "Event") => misc::event(object, out),
        ("", "ReplicationController") | ("apps", _) => workload::apps(resource, object, out),
        ("batch", "Job") => workload::job(object, out),
        ("batch", "CronJob") => workload::cron_job(object, out),
        ("autoscaling", _) => workload::autoscaler(object, out),
        ("policy", "PodDisruptionBudget") => workload::disruption_budget(object, out),
        ("rbac.authorization.k8s.io", _) => rbac::validate(resource, object, out),
        ("certificates.k8s.io", "ClusterTrustBundle") => trust_bundle::validate(object, out),
        ("node.k8s.io", "RuntimeClass") => misc::runtime_class(object, out),
        ("coordination.k8s.io", "Lease") => misc::lease(object, out),
        ("scheduling.k8s.io", "PriorityClass") => misc::priority_class(object, out),
        ("storage.k8s.io", "StorageClass") => misc::storage_class(object, out),
        ("", "PersistentVolumeClaim") => misc::persistent_volume_claim(object, out),
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy(object, out),
        ("networking.k8s.io", "Ingress") => service::ingress(object, out),
        _ => {}
    }
}

/// Checks an object that is to replace `old`.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    metadata::validate_metadata_update(new, old, &mut out);
    match (resource.group, resource.kind) {
        ("", "Pod") => return pod::validate_update(new, old, out),
        ("", "Secret") => config::secret_update(new, old, &mut out),
        ("", "ConfigMap") => config::config_map_update(new, old, &mut out),
        ("", "Service") => service::service_update(new, old, &mut out),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice_update(new, old, &mut out),
        ("", "Node") => misc::node_update(new, old, &mut out),
        ("", "PersistentVolumeClaim") => misc::persistent_volume_claim_update(new, old, &mut out),
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            return trust_bundle::validate_update(new, old, out);
        }
        ("apps", _) => workload::apps_update(resource, new, old, &mut out),
        ("batch", "Job") => workload::job_update(new, old, &mut out),
        ("node.k8s.io", "RuntimeClass") => {
            immutable(new.get("handler"), old.get("handler"), &Path::new("handler"), &mut out);
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            if new.get("roleRef") != old.get("roleRef") {
                out.push(FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef"));
            }
        }
        ("scheduling.k8s.io", _) => {
            if new.get("value") != old.get("value") {
                out.push(FieldError::forbidden("value", "may not be changed in an update."));
            }
            immutable(
                new.get("preemptionPolicy"),
                old.get("preemptionPolicy"),
                &Path::new("preemptionPolicy"),
                &mut out,
            );
        }
        ("storage.k8s.io", "StorageClass") => {
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if new.get(field) != old.get(field) {
                    out.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
                }
            }
            immutable(
                new.get("volumeBindingMode"),
                old.get("volumeBindingMode"),
                &Path::new("volumeBindingMode"),
                &mut out,
            );
        }
        _ => {}
    }
    validate_content(resource, new, &mut out);
    out
}

/// Checks an object whose status is to replace that of `old`.
pub fn validate_status_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    metadata::validate_metadata_update(new, old, &mut out);
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::validate_status_update(new, old, &mut out),
        ("", "Node") => misc::node_status(new, &mut out),
        (_, "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController") => {
            for (name, count) in new.get("status").and_then(Value::as_object).into_iter().flatten() {
                if count.as_i64().is_some_and(|n| n < 0) {
                    out.push(FieldError::invalid(format!("status.{name}"), count.clone(), NON_NEGATIVE));
                }
            }
        }
        _ => {}
    }
    out
}

/// Checks a write through another subresource (`ephemeralcontainers`, `resize`, `binding`, `finalize`, …).
pub fn validate_subresource(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut out = Errors::new();
    match (resource.kind, subresource) {
        (_, "status") => return validate_status_update(resource, new, old),
        ("Pod", "ephemeralcontainers") => {
            metadata::validate_metadata_update(new, old, &mut out);
            pod::validate_ephemeral_update(new, old, &mut out);
        }
        ("Pod", "resize") => {
            metadata::validate_metadata_update(new, old, &mut out);
            pod::validate_resize(new, old, &mut out);
        }
        ("Pod", "binding") => misc::binding(new, &mut out),
        ("Namespace", "finalize") => {
            metadata::validate_metadata_update(new, old, &mut out);
            for (i, finalizer) in meta::list(new, "/spec/finalizers").iter().enumerate() {
                let path = Path::new("spec").child("finalizers").index(i);
                metadata::finalizer(finalizer.as_str().unwrap_or_default(), &path, &mut out);
            }
        }
        (_, "scale") => {
            let replicas = new.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
            if replicas < 0 {
                out.push(FieldError::invalid("spec.replicas", replicas, NON_NEGATIVE));
            }
        }
        (_, "token") => {
            let seconds = new.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
            if seconds < 600 {
                out.push(FieldError::invalid(
                    "spec.expirationSeconds",
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            } else if seconds > 1 << 32 {
                out.push(FieldError::invalid(
                    "spec.expirationSeconds",
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                ));
            }
        }
        _ => {}
    }
    out
}

// The small checks that most kinds share.

fn invalid_all(messages: Vec<String>, value: &str, path: &Path, out: &mut Errors) {
    out.extend(messages.into_iter().map(|m| FieldError::invalid(path, value, m)));
}

fn immutable(new: Option<&Value>, old: Option<&Value>, path: &Path, out: &mut Errors) {
    if new != old {
        out.push(FieldError::invalid(path, new.cloned().unwrap_or_default(), IMMUTABLE));
    }
}

fn non_negative(object: &Value, field: &str, path: &Path, out: &mut Errors) {
    if let Some(n) = object.get(field).and_then(Value::as_i64).filter(|n| *n < 0) {
        out.push(FieldError::invalid(path.child(field), n, NON_NEGATIVE));
    }
}

fn one_of(value: &str, supported: &[&str], path: &Path, out: &mut Errors) {
    if !supported.contains(&value) {
        out.push(FieldError::not_supported(path, value, supported));
    }
}

fn required_text(object: &Value, field: &str, path: &Path, out: &mut Errors) -> bool {
    let missing = str_of(object, field).is_empty();
    if missing {
        out.push(FieldError::required(path.child(field), ""));
    }
    !missing
}

fn labels(map: Option<&Value>, path: &Path, out: &mut Errors) {
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        invalid_all(names::qualified_name(key), key, path, out);
        let value = value.as_str().unwrap_or_default();
        invalid_all(names::label_value(value), value, path, out);
    }
}

/// A `metav1.LabelSelector`.
fn label_selector(selector: &Value, path: &Path, out: &mut Errors) {
    labels(selector.get("matchLabels"), &path.child("matchLabels"), out);
    for (i, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = items(expression, "values");
        selector_operator(str_of(expression, "operator"), values, &path, out);
        let key = str_of(expression, "key");
        invalid_all(names::qualified_name(key), key, &path.child("key"), out);
    }
}

/// The operators that all selectors have, and how many values they take.
fn selector_operator(operator: &str, values: &[Value], path: &Path, out: &mut Errors) {
    match operator {
        "In" | "NotIn" if values.is_empty() => out.push(FieldError::required(
            path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => out.push(FieldError::forbidden(
            path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            out.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator"))
        }
    }
}

/// A port: a number, or a name.
fn port(value: Option<&Value>, path: &Path, out: &mut Errors) {
    match value {
        Some(Value::String(name)) => invalid_all(names::port_name(name), name, path, out),
        other => {
            let n = other.and_then(Value::as_i64).unwrap_or(0);
            out.extend(names::port_number(n).into_iter().map(|m| FieldError::invalid(path, n, m)));
        }
    }
}

/// A map of quantities: names known or qualified, amounts not negative.
fn quantities(list: Option<&Value>, path: &Path, out: &mut Errors) {
    for (name, value) in list.and_then(Value::as_object).into_iter().flatten() {
        let path = path.key(name);
        pod::resource_name(name, &path, out);
        let quantity = Quantity::or_zero(Some(value));
        if quantity.is_negative() {
            out.push(FieldError::invalid(&path, quantity.to_string(), NON_NEGATIVE));
        }
    }
}
