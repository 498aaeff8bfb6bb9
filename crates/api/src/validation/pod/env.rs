//! Environment: variables, their sources, and the field paths of the downward API (ENV-18..22, ENV-28, ENV-29).

use serde_json::Value;

use crate::{
    FieldError, Quantity,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, required_text},
};

/// Fields that a variable may take, sorted as messages list them.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a downward API volume may show.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SEVERAL: &str = "may not have more than one field specified at a time";

pub(super) fn variables(container: &Value, path: &Path, out: &mut Errors) {
    for (i, variable) in items(container, "env").iter().enumerate() {
        let path = path.child("env").index(i);
        let name = str_of(variable, "name");
        if name.is_empty() {
            out.push(FieldError::required(path.child("name"), ""));
        } else {
            invalid_all(names::env_var_name(name), name, &path.child("name"), out);
        }
        if let Some(from) = variable.get("valueFrom") {
            value_from(from, str_of(variable, "value"), &path.child("valueFrom"), out);
        }
    }
}

fn value_from(from: &Value, value: &str, path: &Path, out: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = from.get("fieldRef") {
        sources += 1;
        field_ref(field, &ENV_FIELDS, &path.child("fieldRef"), out);
    }
    if let Some(resource) = from.get("resourceFieldRef") {
        sources += 1;
        resource_ref(resource, false, &path.child("resourceFieldRef"), out);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(key) = from.get(field) {
            sources += 1;
            key_ref(key, &path.child(field), out);
        }
    }
    if let Some(file) = from.get("fileKeyRef") {
        sources += 1;
        let path = path.child("fileKeyRef");
        for field in ["key", "volumeName"] {
            required_text(file, field, &path, out);
        }
        let key = str_of(file, "key");
        if !key.is_empty() {
            invalid_all(names::env_var_name(key), key, &path.child("key"), out);
        }
        if required_text(file, "path", &path, out) {
            super::volume::non_reserved(str_of(file, "path"), &path.child("path"), out);
        }
    }
    if sources == 0 {
        let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        out.push(FieldError::invalid(path, "", message));
    } else if !value.is_empty() {
        out.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        out.push(FieldError::invalid(path, "", SEVERAL));
    }
}

/// The volumes of all `fileKeyRef` of a pod: only what the pod's own containers write to (ENV-43).
pub(super) fn files(spec: &Value, path: &Path, out: &mut Errors) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in items(spec, kind).iter().enumerate() {
            for (j, variable) in items(container, "env").iter().enumerate() {
                let name = str_of(&variable["valueFrom"]["fileKeyRef"], "volumeName");
                if name.is_empty() {
                    continue;
                }
                let path = path.child(kind).index(i).child("env").index(j);
                let at = path.child("valueFrom").child("fileKeyRef").child("volumeName");
                match items(spec, "volumes").iter().find(|volume| str_of(volume, "name") == name) {
                    None => out.push(FieldError::not_found(at, name)),
                    Some(volume) if volume.get("emptyDir").is_none() => {
                        out.push(FieldError::invalid(at, name, "referenced volume must be of type emptyDir"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

fn key_ref(reference: &Value, path: &Path, out: &mut Errors) {
    required_text(reference, "name", path, out);
    if required_text(reference, "key", path, out) {
        let key = str_of(reference, "key");
        invalid_all(names::config_map_key(key), key, &path.child("key"), out);
    }
}

/// A `fieldRef`: one of the allowed fields, or one label or annotation by its key.
pub(super) fn field_ref(reference: &Value, allowed: &[&str], path: &Path, out: &mut Errors) {
    if !required_text(reference, "apiVersion", path, out) || !required_text(reference, "fieldPath", path, out)
    {
        return;
    }
    if str_of(reference, "apiVersion") != "v1" {
        let at = path.child("fieldPath");
        let message = "error converting fieldPath: unsupported pod version: ".to_owned()
            + str_of(reference, "apiVersion");
        out.push(FieldError::invalid(at, str_of(reference, "fieldPath"), message));
        return;
    }
    let (at, field) = (path.child("fieldPath"), str_of(reference, "fieldPath"));
    if let Some((map, key)) = subscript(field) {
        match map {
            "metadata.annotations" => invalid_all(names::qualified_name(&key.to_lowercase()), key, path, out),
            "metadata.labels" => invalid_all(names::qualified_name(key), key, path, out),
            other => {
                out.push(FieldError::invalid(path, other, "does not support subscript"));
            }
        }
        return;
    }
    let known = ENV_FIELDS.contains(&field)
        || VOLUME_FIELDS.contains(&field)
        || matches!(field, "spec.restartPolicy" | "spec.schedulerName" | "status.phase" | "spec.host");
    if !known {
        let message = format!("error converting fieldPath: field label not supported: {field}");
        out.push(FieldError::invalid(at, field, message));
    } else if !allowed.contains(&field) {
        out.push(FieldError::not_supported(at, field, allowed));
    }
}

/// `metadata.labels['k']` as (`metadata.labels`, `k`).
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (map, rest) = field.strip_suffix("']")?.split_once("['")?;
    Some((map, rest))
}

pub(super) fn resource_ref(reference: &Value, volume: bool, path: &Path, out: &mut Errors) {
    if volume && str_of(reference, "containerName").is_empty() {
        out.push(FieldError::required(path.child("containerName"), ""));
        return;
    }
    if !required_text(reference, "resource", path, out) {
        return;
    }
    let resource = str_of(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if !RESOURCES.contains(&resource) && !huge {
        out.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
    }
    let divisor = Quantity::or_zero(reference.get("divisor"));
    if divisor.is_zero() {
        return;
    }
    let (name, supported): (&str, &[&str]) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => ("cpu", &["1m", "1"]),
        Some("memory") => ("memory", &BYTES),
        Some("ephemeral-storage") => ("local ephemeral storage", &BYTES),
        _ if huge => ("hugepages", &BYTES),
        _ => return,
    };
    if !supported.contains(&divisor.to_string().as_str()) {
        let message = if name == "cpu" {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        } else {
            format!(
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {name} resource"
            )
        };
        out.push(FieldError::invalid(
            path.child("divisor"),
            resource.split_once('.').map_or("", |(_, n)| n),
            message,
        ));
    }
}

const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn sources(container: &Value, path: &Path, out: &mut Errors) {
    for (i, source) in items(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(i);
        let prefix = str_of(source, "prefix");
        if !prefix.is_empty() {
            invalid_all(names::env_var_name(prefix), prefix, &path.child("prefix"), out);
        }
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            if let Some(reference) = source.get(field) {
                count += 1;
                required_text(reference, "name", &path.child(field), out);
            }
        }
        if count == 0 {
            out.push(FieldError::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if count > 1 {
            out.push(FieldError::invalid(&path, "", SEVERAL));
        }
    }
}
