//! Pods: first status, grace period, and what each subresource may write.

use serde_json::{Value, json};

use crate::{
    defaulting,
    meta::{self, object_mut, str_of},
    qos,
};

pub(super) fn create(object: &mut Value) {
    normalise(object);
    let mut status = json!({"phase": "Pending", "qosClass": qos::of(object).as_str()});
    if !meta::list(object, "/spec/schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    object["status"] = status;
}

pub(super) fn update(new: &mut Value) {
    normalise(new);
}

/// A negative grace period means 1 (POD-36); the two names of the service account agree.
fn normalise(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    defaulting::mirror_service_account(spec);
}

/// The quality-of-service class never changes.
pub(super) fn update_status(new: &mut Value, old: &Value) {
    let status = object_mut(object_mut(new).entry("status").or_insert(Value::Null));
    if let Some(class) = old.pointer("/status/qosClass") {
        status.insert("qosClass".into(), class.clone());
    }
}

/// Through `/ephemeralcontainers` only these come from the client.
pub(super) fn update_ephemeral_containers(new: &mut Value, old: &Value) {
    let wanted = new.pointer("/spec/ephemeralContainers").cloned();
    let resource_version = meta::resource_version(new).to_owned();
    *new = old.clone();
    if let Some(list) = wanted {
        new["spec"]["ephemeralContainers"] = list;
    }
    restore_version(new, &resource_version);
}

/// Through `/resize` only the resources of containers (and the pod's own) come from the client. Lists that hold other
/// containers than before stay as they came: validation says what is wrong with them.
pub(super) fn update_resize(new: &mut Value, old: &Value) {
    let sent = std::mem::take(new);
    *new = old.clone();
    let spec = object_mut(&mut new["spec"]);
    match sent.pointer("/spec/resources") {
        Some(resources) => spec.insert("resources".into(), resources.clone()),
        None => spec.remove("resources"),
    };
    for field in ["containers", "initContainers"] {
        let wanted = meta::list(&sent, &format!("/spec/{field}"));
        let Some(have) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        let same = |(a, b): (&Value, &Value)| str_of(a, "name") == str_of(b, "name");
        if wanted.len() != have.len() || !wanted.iter().zip(have.iter()).all(same) {
            *have = wanted.to_vec();
            continue;
        }
        for (container, source) in have.iter_mut().zip(wanted) {
            let container = object_mut(container);
            for name in ["resources", "resizePolicy"] {
                match source.get(name) {
                    Some(value) => container.insert(name.into(), value.clone()),
                    None => container.remove(name),
                };
            }
        }
    }
    restore_version(new, meta::resource_version(&sent));
}

fn restore_version(new: &mut Value, resource_version: &str) {
    if !resource_version.is_empty() {
        meta::set_resource_version(new, resource_version);
    }
}
