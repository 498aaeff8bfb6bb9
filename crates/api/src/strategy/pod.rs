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

/// Through `/resize` only the resources of containers (and the pod's own) come from the client.
pub(super) fn update_resize(new: &mut Value, old: &Value) {
    let sent = std::mem::take(new);
    *new = old.clone();
    if let Some(resources) = sent.pointer("/spec/resources") {
        new["spec"]["resources"] = resources.clone();
    }
    for list in ["containers", "initContainers"] {
        let wanted = meta::list(&sent, &format!("/spec/{list}"));
        let have = new.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in have.into_iter().flatten() {
            let Some(source) = wanted.iter().find(|c| str_of(c, "name") == str_of(container, "name")) else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match source.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => {
                        object_mut(container).remove(field);
                    }
                }
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
