//! What may change in a pod once it exists (POD-37, POD-44, POD-47, POD-48).

use serde_json::{Map, Value};

use crate::{
    FieldError,
    field::Path,
    field_error::go_quote,
    meta::{self, items, list, object_mut, str_of},
    validation::Errors,
};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
    `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Continues `out`, which has the findings on the metadata.
pub(in crate::validation) fn validate_update(new: &Value, old: &Value, mut out: Errors) -> Errors {
    let path = Path::new("spec");
    super::spec(&new["spec"], &path, true, &mut out);
    for field in ["containers", "initContainers"] {
        let count = |pod: &Value| list(pod, &format!("/spec/{field}")).len();
        if count(new) != count(old) {
            out.push(FieldError::forbidden(
                path.child(field),
                "pod updates may not add or remove containers",
            ));
            return out;
        }
    }
    deadline(new, old, &path.child("activeDeadlineSeconds"), &mut out);
    gates(new, old, &path.child("schedulingGates"), &mut out);
    tolerations(new, old, &path.child("tolerations"), &mut out);
    let (have, had) = (frozen(new, old), frozen(old, old));
    if have != had {
        let mut lines = Vec::new();
        difference(&mut String::from("spec"), &had, &have, &mut lines);
        out.push(FieldError::forbidden(&path, format!("{ONLY}\n{}", lines.join("\n"))));
    }
    out
}

/// The spec without what may change.
fn frozen(pod: &Value, old: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for field in ["containers", "initContainers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            object_mut(container).remove("image");
        }
    }
    let map = object_mut(&mut spec);
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.remove(field);
    }
    // A negative period may become 1.
    let negative =
        old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|n| n < 0);
    if negative && map.get("terminationGracePeriodSeconds").and_then(Value::as_i64) == Some(1) {
        map.insert(
            "terminationGracePeriodSeconds".into(),
            old["spec"]["terminationGracePeriodSeconds"].clone(),
        );
    }
    // While a gate holds the pod, where it may go can still be narrowed.
    if !list(old, "/spec/schedulingGates").is_empty() {
        map.remove("nodeSelector");
        map.remove("affinity");
    }
    spec
}

/// Lines `- path: before` and `+ path: after` for every place that differs.
fn difference(path: &mut String, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new || lines.len() > 40 {
        return;
    }
    let length = path.len();
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                path.push('.');
                path.push_str(key);
                difference(
                    path,
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    lines,
                );
                path.truncate(length);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                path.push_str(&format!("[{i}]"));
                difference(path, a.get(i).unwrap_or(&Value::Null), b.get(i).unwrap_or(&Value::Null), lines);
                path.truncate(length);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    lines.push(format!("{sign} \t{path}: {value}"));
                }
            }
        }
    }
}

fn deadline(new: &Value, old: &Value, path: &Path, out: &mut Errors) {
    let of = |pod: &Value| pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
    match (of(new), of(old)) {
        (Some(have), Some(had)) if have > had => {
            out.push(FieldError::invalid(path, have, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            out.push(FieldError::invalid(
                path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn gates(new: &Value, old: &Value, path: &Path, out: &mut Errors) {
    let had = list(old, "/spec/schedulingGates");
    for gate in list(new, "/spec/schedulingGates") {
        if !had.contains(gate) {
            let name = str_of(gate, "name");
            let message = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            out.push(FieldError::forbidden(path, message));
        }
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path, out: &mut Errors) {
    let bare = |t: &Value| {
        let mut map = t.as_object().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        map
    };
    let have: Vec<Map<String, Value>> = list(new, "/spec/tolerations").iter().map(bare).collect();
    if list(old, "/spec/tolerations").iter().any(|t| !have.contains(&bare(t))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        out.push(FieldError::forbidden(path, message));
    }
}

/// A status must not take back that a container of a non-restarting pod has ended.
pub(in crate::validation) fn validate_status_update(new: &Value, old: &Value, out: &mut Errors) {
    let policy = str_of(&old["spec"], "restartPolicy");
    if policy != "Never" && policy != "OnFailure" {
        return;
    }
    let spec = &old["spec"];
    let containers = items(spec, "containers").iter().chain(items(spec, "initContainers"));
    // POD-29: one container's end may begin all of them again.
    let mut rules = containers.clone().flat_map(|container| items(container, "restartPolicyRules"));
    if rules.any(|rule| str_of(rule, "action") == "RestartAllContainers") {
        return;
    }
    for field in ["containerStatuses", "initContainerStatuses"] {
        let sidecar = |name: &str| {
            items(&old["spec"], "initContainers")
                .iter()
                .any(|c| str_of(c, "name") == name && crate::resources::is_sidecar(c))
        };
        let own_policy = |name: &str| {
            containers.clone().any(|c| str_of(c, "name") == name && c.get("restartPolicy").is_some())
        };
        for before in items(&old["status"], field) {
            let name = str_of(before, "name");
            let Some(ended) = before.pointer("/state/terminated") else { continue };
            let failed = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0;
            if (failed && policy == "OnFailure") || sidecar(name) || own_policy(name) {
                continue;
            }
            let after = items(&new["status"], field).iter().find(|s| str_of(s, "name") == name);
            if after.is_some_and(|s| s.pointer("/state/terminated").is_none()) {
                let at = Path::new("status").child(field).child("state");
                out.push(FieldError::forbidden(at, "may not be transitioned to non-terminated state"));
            }
        }
    }
}

/// Ephemeral containers can be added, nothing else.
pub(in crate::validation) fn validate_ephemeral_update(new: &Value, old: &Value, out: &mut Errors) {
    let path = Path::new("spec");
    if meta::annotation(old, "kubernetes.io/config.mirror").is_some() {
        out.push(FieldError::forbidden("", "static pods do not support ephemeral containers"));
        return;
    }
    super::spec(&new["spec"], &path, true, out);
    let at = path.child("ephemeralContainers");
    let have = list(new, "/spec/ephemeralContainers");
    for before in list(old, "/spec/ephemeralContainers") {
        let name = str_of(before, "name");
        match have.iter().find(|c| str_of(c, "name") == name) {
            None => {
                let message =
                    format!("existing ephemeral containers {} may not be removed\n", go_quote(name));
                out.push(FieldError::forbidden(&at, message));
            }
            Some(after) if after != before => {
                let message =
                    format!("existing ephemeral containers {} may not be changed\n", go_quote(name));
                out.push(FieldError::forbidden(&at, message));
            }
            Some(_) => {}
        }
    }
}
