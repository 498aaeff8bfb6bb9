//! Nodes, events, leases and the classes.

use serde_json::Value;

use super::{Errors, immutable, invalid_all, labels, non_negative, one_of, quantities, required_text};
use crate::{
    FieldError,
    field::Path,
    meta::{self, items, str_at, str_of},
    names,
};

pub(super) fn node(object: &Value, out: &mut Errors) {
    let spec = Path::new("spec");
    let mut seen = Vec::new();
    for (i, taint) in meta::list(object, "/spec/taints").iter().enumerate() {
        let path = spec.child("taints").index(i);
        let (key, value, effect) = (str_of(taint, "key"), str_of(taint, "value"), str_of(taint, "effect"));
        invalid_all(names::qualified_name(key), key, &path.child("key"), out);
        invalid_all(names::label_value(value), value, &path.child("value"), out);
        if effect.is_empty() {
            out.push(FieldError::required(path.child("effect"), ""));
        } else {
            one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path.child("effect"), out);
        }
        if seen.contains(&(key, effect)) {
            let message = "taints must be unique by key and effect pair";
            let mut duplicate = FieldError::duplicate(&path, taint.clone());
            duplicate.detail = message.into();
            out.push(duplicate);
        }
        seen.push((key, effect));
    }
    for (i, cidr) in meta::list(object, "/spec/podCIDRs").iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default();
        invalid_all(names::cidr(cidr), cidr, &spec.child("podCIDRs").index(i), out);
    }
    node_status(object, out);
}

pub(super) fn node_status(object: &Value, out: &mut Errors) {
    let status = Path::new("status");
    for field in ["capacity", "allocatable"] {
        quantities(object.pointer(&format!("/status/{field}")), &status.child(field), out);
    }
    let mut seen = Vec::new();
    for (i, address) in meta::list(object, "/status/addresses").iter().enumerate() {
        if seen.contains(&address) {
            out.push(FieldError::duplicate(status.child("addresses").index(i), address.clone()));
        }
        seen.push(address);
    }
}

pub(super) fn node_update(new: &Value, old: &Value, out: &mut Errors) {
    for (field, pointer) in [("podCIDRs", "/spec/podCIDRs"), ("providerID", "/spec/providerID")] {
        let (have, had) = (new.pointer(pointer), old.pointer(pointer));
        let set = had.is_some_and(|v| v.as_str().is_none_or(|s| !s.is_empty()));
        if set && have != had {
            let message = format!("node updates may not change {field} except from \"\" to valid");
            out.push(FieldError::forbidden(Path::new("spec").child(field), message));
        }
    }
}

pub(super) fn binding(object: &Value, out: &mut Errors) {
    let path = Path::new("target");
    let kind = str_at(object, "/target/kind");
    if !matches!(kind, "" | "Node") {
        out.push(FieldError::not_supported(path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if str_at(object, "/target/name").is_empty() {
        out.push(FieldError::required(path.child("name"), ""));
    }
}

pub(super) fn event(object: &Value, out: &mut Errors) {
    let (path, involved) = match object.get("regarding") {
        Some(regarding) => (Path::new("regarding").child("namespace"), regarding),
        None => (Path::new("involvedObject").child("namespace"), &object["involvedObject"]),
    };
    let (event_namespace, namespace) = (meta::namespace(object), str_of(involved, "namespace"));
    let matches = if namespace.is_empty() {
        // Objects of the cluster report into `default`.
        matches!(event_namespace, "" | "default" | "kube-system")
    } else {
        namespace == event_namespace
    };
    if !matches {
        out.push(FieldError::invalid(path, namespace, "does not match event.namespace"));
    }
    if meta::api_version(object) == "events.k8s.io/v1" {
        if str_of(object, "eventTime").is_empty() {
            out.push(FieldError::required("eventTime", ""));
        }
        for field in ["reportingController", "reportingInstance", "action", "reason"] {
            if str_of(object, field).is_empty() {
                out.push(FieldError::required(field, ""));
            }
        }
        let kind = str_of(object, "type");
        one_of(kind, &["Normal", "Warning"], &Path::new("type"), out);
    }
}

pub(super) fn lease(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if let Some(n) = spec.get("leaseDurationSeconds").and_then(Value::as_i64).filter(|n| *n <= 0) {
        out.push(FieldError::invalid(path.child("leaseDurationSeconds"), n, "must be greater than 0"));
    }
    non_negative(spec, "leaseTransitions", &path, out);
}

/// RTC-03, RTC-04, RTC-05.
pub(super) fn runtime_class(object: &Value, out: &mut Errors) {
    let handler = str_of(object, "handler");
    if handler.is_empty() {
        out.push(FieldError::required("handler", ""));
    } else {
        invalid_all(names::dns1123_label(handler), handler, &Path::new("handler"), out);
    }
    let fixed = Path::new("overhead").child("podFixed");
    quantities(object.pointer("/overhead/podFixed"), &fixed, out);
    let path = Path::new("scheduling");
    labels(object.pointer("/scheduling/nodeSelector"), &path.child("nodeSelector"), out);
    let tolerations = meta::list(object, "/scheduling/tolerations");
    super::pod::tolerations(tolerations, &path.child("tolerations"), out);
    for (i, toleration) in tolerations.iter().enumerate() {
        let same = |other: &Value| {
            ["key", "operator", "value", "effect"].iter().all(|f| str_of(other, f) == str_of(toleration, f))
        };
        if tolerations[..i].iter().any(same) {
            out.push(FieldError::duplicate(path.child("tolerations").index(i), toleration.clone()));
        }
    }
}

pub(super) fn priority_class(object: &Value, out: &mut Errors) {
    const MAX: i64 = 1_000_000_000;
    let (name, value) = (meta::name(object), object.get("value").and_then(Value::as_i64).unwrap_or(0));
    let system = [("system-cluster-critical", 2 * MAX), ("system-node-critical", 2 * MAX + 1000)];
    if name.starts_with("system-") {
        if !system.contains(&(name, value)) {
            out.push(FieldError::forbidden(
                "metadata.name",
                "priority class names with 'system-' prefix are reserved for system use only. error: unknown system priority class",
            ));
        }
    } else if value > MAX {
        out.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {MAX}"),
        ));
    }
    let policy = str_of(object, "preemptionPolicy");
    if !policy.is_empty() {
        one_of(policy, &["Never", "PreemptLowerPriority"], &Path::new("preemptionPolicy"), out);
    }
}

pub(super) fn storage_class(object: &Value, out: &mut Errors) {
    let path = Path::default();
    if required_text(object, "provisioner", &path, out) {
        let provisioner = str_of(object, "provisioner");
        invalid_all(
            names::qualified_name(&provisioner.to_lowercase()),
            provisioner,
            &Path::new("provisioner"),
            out,
        );
    }
    one_of(str_of(object, "reclaimPolicy"), &["Delete", "Retain"], &Path::new("reclaimPolicy"), out);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(str_of(object, "volumeBindingMode"), &modes, &Path::new("volumeBindingMode"), out);
}

pub(super) fn persistent_volume_claim(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if items(spec, "accessModes").is_empty() {
        out.push(FieldError::required(path.child("accessModes"), "at least 1 access mode is required"));
    }
    let modes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in items(spec, "accessModes") {
        one_of(mode.as_str().unwrap_or_default(), &modes, &path.child("accessModes"), out);
    }
    let storage = path.child("resources").key("storage");
    match spec.pointer("/resources/requests/storage") {
        None => out.push(FieldError::required(storage, "")),
        Some(value) => {
            let quantity = crate::Quantity::or_zero(Some(value));
            if quantity.is_zero() || quantity.is_negative() {
                out.push(FieldError::invalid(storage, quantity.to_string(), "must be greater than zero"));
            }
        }
    }
}

pub(super) fn persistent_volume_claim_update(new: &Value, old: &Value, out: &mut Errors) {
    let strip = |object: &Value| {
        let mut spec = object["spec"].clone();
        for field in ["resources", "volumeAttributesClassName", "volumeName"] {
            crate::meta::object_mut(&mut spec).remove(field);
        }
        spec
    };
    let bound = !str_at(old, "/spec/volumeName").is_empty();
    if strip(new) != strip(old) {
        out.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    if bound {
        immutable(
            new.pointer("/spec/volumeName"),
            old.pointer("/spec/volumeName"),
            &Path::new("spec").child("volumeName"),
            out,
        );
    }
}
