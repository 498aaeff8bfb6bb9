//! Requests and limits.

use serde_json::{Map, Value};

use crate::{
    FieldError, Quantity,
    field::Path,
    meta::items,
    names,
    validation::{Errors, invalid_all},
};

/// A resource by name: a standard one, or one qualified by a domain.
pub(in crate::validation) fn resource_name(name: &str, path: &Path, out: &mut Errors) {
    invalid_all(names::qualified_name(name), name, path, out);
    if !name.contains('/') && !is_standard(name) && !is_counted(name) {
        out.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// What a container may ask for without a domain.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// What only nodes and quotas have.
fn is_counted(name: &str) -> bool {
    matches!(name, "pods" | "storage") || name.starts_with("attachable-volumes-")
}

/// Resources of extensions are counted in whole numbers and cannot be overcommitted.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/") && !name.contains(".kubernetes.io/")
}

pub(super) fn requirements(resources: &Value, path: &Path, pod_level: bool, out: &mut Errors) {
    let empty = Map::new();
    let map = |field: &str| resources.get(field).and_then(Value::as_object).unwrap_or(&empty);
    let (limits, requests) = (map("limits"), map("requests"));
    for (field, list) in [("limits", limits), ("requests", requests)] {
        for (name, value) in list {
            let path = path.child(field).key(name);
            invalid_all(names::qualified_name(name), name, &path, out);
            if pod_level && !crate::resources::is_pod_level(name) {
                out.push(FieldError::not_supported(&path, name.as_str(), &["cpu", "hugepages-", "memory"]));
            } else if !name.contains('/') && !is_standard(name) {
                out.push(FieldError::invalid(
                    &path,
                    name.as_str(),
                    "must be a standard resource for containers",
                ));
            }
            let quantity = Quantity::or_zero(Some(value));
            if quantity.is_negative() {
                out.push(FieldError::invalid(&path, quantity.to_string(), crate::validation::NON_NEGATIVE));
            }
            if is_extended(name) && !quantity.is_integer() {
                out.push(FieldError::invalid(&path, quantity.to_string(), "must be an integer"));
            }
        }
    }
    for (name, value) in requests {
        let request = Quantity::or_zero(Some(value));
        let at = path.child("requests");
        let overcommit = !is_extended(name) && !name.starts_with("hugepages-");
        match limits.get(name).map(|l| Quantity::or_zero(Some(l))) {
            Some(limit) if !overcommit && request != limit => {
                let message = format!("must be equal to {name} limit of {limit}");
                out.push(FieldError::invalid(at, request.to_string(), message));
            }
            Some(limit) if overcommit && request > limit => {
                let message = format!("must be less than or equal to {name} limit of {limit}");
                out.push(FieldError::invalid(at, request.to_string(), message));
            }
            None if !overcommit => {
                out.push(FieldError::required(
                    path.child("limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            _ => {}
        }
    }
    let huge = |m: &Map<String, Value>| m.keys().any(|k| k.starts_with("hugepages-"));
    let plain = |m: &Map<String, Value>| m.contains_key("cpu") || m.contains_key("memory");
    if (huge(limits) || huge(requests)) && !(plain(limits) || plain(requests)) {
        let message = "HugePages require cpu or memory";
        out.push(FieldError::forbidden(path, message));
    }
    for (i, claim) in items(resources, "claims").iter().enumerate() {
        crate::validation::required_text(claim, "name", &path.child("claims").index(i), out);
    }
}
