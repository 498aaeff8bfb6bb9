//! What the server itself writes into an object on create and update: status reset, generation, phase.
//!
//! Upstream's REST strategies (`pkg/registry/*/strategy.go`): clients cannot set the status through the object nor the
//! spec through `/status`, and `metadata.generation` counts changes of the spec (POD-57).

mod pod;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::{
    meta::{self, object_mut},
    scheme::Resource,
};

/// The writable part of an object besides metadata and status; None for kinds without generations.
fn counts_generations(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.kind),
        ("", "Pod" | "PodTemplate" | "ReplicationController")
            | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
            | ("batch", _)
            | ("networking.k8s.io", "Ingress" | "IngressClass" | "NetworkPolicy")
            | ("policy" | "discovery.k8s.io" | "admissionregistration.k8s.io" | "scheduling.k8s.io", _)
    )
}

/// Nodes and PersistentVolumes register with their status; everything else starts without.
fn keeps_status_on_create(resource: &Resource) -> bool {
    matches!((resource.group, resource.kind), ("", "Node" | "ComponentStatus"))
        || resource.group == "authentication.k8s.io"
        || resource.group == "authorization.k8s.io"
}

/// Before an object is stored for the first time. Call after the system fields (uid, creation time) are set.
pub fn prepare_for_create(resource: &Resource, object: &mut Value) {
    if !keeps_status_on_create(resource) {
        object_mut(object).remove("status");
    }
    let metadata = meta::metadata_mut(object);
    if counts_generations(resource) {
        metadata.insert("generation".into(), 1.into());
    } else {
        metadata.remove("generation");
    }
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::create(object),
        ("", "Namespace") => {
            object["status"] = json!({"phase": "Active"});
            let finalizers = object_mut(object_mut(object).entry("spec").or_insert(Value::Null))
                .entry("finalizers")
                .or_insert_with(|| json!([]));
            if let Some(list) = finalizers.as_array_mut().filter(|l| !l.contains(&json!("kubernetes"))) {
                list.push("kubernetes".into());
            }
        }
        ("", "PersistentVolume" | "PersistentVolumeClaim") => object["status"] = json!({"phase": "Pending"}),
        ("", "Service") | ("networking.k8s.io", "Ingress") => object["status"] = json!({"loadBalancer": {}}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => object["status"] = json!({"replicas": 0}),
        ("apps", "DaemonSet") => {
            object["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0});
        }
        ("apps", "StatefulSet") => object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        ("apps", "Deployment") | ("batch", _) | ("", "ResourceQuota") => object["status"] = json!({}),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            object["status"] = json!({"currentReplicas": 0, "desiredReplicas": 0});
        }
        ("policy", "PodDisruptionBudget") => {
            object["status"] =
                json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        }
        _ => {}
    }
    if (resource.group, resource.kind) == ("batch", "Job") {
        generate_job_selector(object);
    }
}

/// A Job without `manualSelector` selects its own pods by its uid.
fn generate_job_selector(object: &mut Value) {
    let manual = object.pointer("/spec/manualSelector").and_then(Value::as_bool).unwrap_or(false);
    let (uid, name) = (meta::uid(object).to_owned(), meta::name(object).to_owned());
    if manual || uid.is_empty() {
        return;
    }
    let spec = object_mut(object_mut(object).entry("spec").or_insert(Value::Null));
    let template = object_mut(spec.entry("template").or_insert(Value::Null));
    let metadata = object_mut(template.entry("metadata").or_insert(Value::Null));
    let labels = object_mut(metadata.entry("labels").or_insert(Value::Null));
    for (key, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels.entry(key).or_insert_with(|| value.clone().into());
    }
    let selector = object_mut(spec.entry("selector").or_insert(Value::Null));
    let wanted = object_mut(selector.entry("matchLabels").or_insert(Value::Null));
    wanted.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| uid.into());
}

/// Before `new` replaces `old`, through the object itself (None) or a subresource ("status", …).
pub fn prepare_for_update(resource: &Resource, new: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        None => update_main(resource, new, old),
        Some("status") => update_status(resource, new, old),
        Some("ephemeralcontainers") => pod::update_ephemeral_containers(new, old),
        Some("resize") => pod::update_resize(new, old),
        // `finalize` of namespaces: only the spec's finalizers may change.
        Some("finalize") => keep(new, old, &["status"]),
        Some("approval") => keep_all_but(new, old, "status"),
        Some(_) => {}
    }
    if counts_generations(resource) {
        bump_generation(new, old);
    } else {
        let metadata = meta::metadata_mut(new);
        match old.pointer("/metadata/generation") {
            Some(generation) => metadata.insert("generation".into(), generation.clone()),
            None => metadata.remove("generation"),
        };
    }
}

fn has_status(resource: &Resource) -> bool {
    resource.subresource("status").is_some()
}

fn update_main(resource: &Resource, new: &mut Value, old: &Value) {
    if has_status(resource) {
        keep(new, old, &["status"]);
    }
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::update(new),
        ("", "Namespace") => {
            // Finalizers of the spec change only through `/finalize`.
            let finalizers = old.pointer("/spec/finalizers").cloned();
            let spec = object_mut(object_mut(new).entry("spec").or_insert(Value::Null));
            match finalizers {
                Some(list) => spec.insert("finalizers".into(), list),
                None => spec.remove("finalizers"),
            };
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => keep(new, old, &["spec"]),
        _ => {}
    }
}

fn update_status(resource: &Resource, new: &mut Value, old: &Value) {
    keep_all_but(new, old, "status");
    let (old_meta, new_meta) = (old.get("metadata"), meta::metadata_mut(new));
    let mut keep_meta = |field: &str| match old_meta.and_then(|m| m.get(field)) {
        Some(value) => {
            new_meta.insert(field.to_owned(), value.clone());
        }
        None => {
            new_meta.remove(field);
        }
    };
    keep_meta("ownerReferences");
    keep_meta("deletionTimestamp");
    keep_meta("deletionGracePeriodSeconds");
    if matches!(resource.group, "apps" | "batch" | "networking.k8s.io") {
        keep_meta("labels");
    }
    if resource.kind == "Pod" {
        pod::update_status(new, old);
    }
}

/// Takes these fields from the old object.
fn keep(new: &mut Value, old: &Value, fields: &[&str]) {
    let map = object_mut(new);
    for field in fields {
        match old.get(*field) {
            Some(value) => map.insert((*field).to_owned(), value.clone()),
            None => map.remove(*field),
        };
    }
}

/// Takes everything but metadata and one field from the old object.
fn keep_all_but(new: &mut Value, old: &Value, field: &str) {
    let mut out = old.as_object().cloned().unwrap_or_default();
    for name in ["metadata", field] {
        match new.get(name) {
            Some(value) => out.insert(name.to_owned(), value.clone()),
            None => out.remove(name),
        };
    }
    *new = Value::Object(out);
}

/// The generation counts changes of everything but metadata and status.
fn bump_generation(new: &mut Value, old: &Value) {
    fn desired(object: &Value) -> Map<String, Value> {
        let mut map = object.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "status", "apiVersion", "kind"] {
            map.remove(field);
        }
        map
    }
    let mirror = meta::annotation(old, "kubernetes.io/config.mirror").is_some();
    let before = meta::generation(old).max(1);
    let after = if !mirror && desired(new) != desired(old) { before + 1 } else { before };
    meta::metadata_mut(new).insert("generation".into(), after.into());
}
