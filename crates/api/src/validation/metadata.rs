//! `metadata` of every kind: names, labels, annotations, finalizers, owners, and what an update may not change.

use serde_json::Value;

use super::{Errors, IMMUTABLE, invalid_all, labels, trust_bundle};
use crate::{
    FieldError,
    field::Path,
    field_error::go_quote,
    meta::{self, str_of},
    names,
    scheme::Resource,
};

/// Bytes that all annotations together may take.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What is wrong with a name of this kind; `prefix` for a `generateName`.
pub fn name_messages(resource: &Resource, name: &str, prefix: bool) -> Vec<String> {
    let masked = if prefix { names::mask_trailing_dash(name) } else { name.to_owned() };
    match (resource.group, resource.kind) {
        ("", "Namespace") => names::dns1123_label(&masked),
        ("", "Service") => names::dns1035_label(&masked),
        ("rbac.authorization.k8s.io", _) => names::path_segment(name),
        ("networking.k8s.io", "IPAddress") if !prefix => names::ip_address(name),
        _ => names::dns1123_subdomain(&masked),
    }
}

/// Checks the metadata of an object that is to be created.
pub fn validate_metadata(resource: &Resource, object: &Value, out: &mut Vec<FieldError>) {
    let path = Path::new("metadata");
    let (name, generate) = (meta::name(object), meta::generate_name(object));
    let messages = |name: &str, prefix: bool| match resource.kind {
        "ClusterTrustBundle" => {
            trust_bundle::name_messages(meta::str_at(object, "/spec/signerName"), name, prefix)
        }
        _ => name_messages(resource, name, prefix),
    };
    if !generate.is_empty() {
        invalid_all(messages(generate, true), generate, &path.child("generateName"), out);
    }
    if name.is_empty() {
        out.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        invalid_all(messages(name, false), name, &path.child("name"), out);
    }
    let namespace = meta::namespace(object);
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => out.push(FieldError::required(path.child("namespace"), "")),
        (true, false) => {
            invalid_all(names::dns1123_label(namespace), namespace, &path.child("namespace"), out)
        }
        (false, false) => {
            out.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type"))
        }
        (false, true) => {}
    }
    common(object, &path, out);
}

/// Labels and annotations alone: pod templates have no more.
pub(super) fn labels_and_annotations(object: &Value, path: &Path, out: &mut Errors) {
    labels(object.pointer("/metadata/labels"), &path.child("labels"), out);
    annotations(object, &path.child("annotations"), out);
}

fn common(object: &Value, path: &Path, out: &mut Errors) {
    if meta::generation(object) < 0 {
        out.push(FieldError::invalid(
            path.child("generation"),
            meta::generation(object),
            super::NON_NEGATIVE,
        ));
    }
    labels_and_annotations(object, path, out);
    owners(object, &path.child("ownerReferences"), out);
    for value in meta::finalizers(object) {
        finalizer(value, &path.child("finalizers"), out);
    }
}

fn annotations(object: &Value, path: &Path, out: &mut Errors) {
    let mut size = 0;
    for (key, value) in meta::annotations(object).into_iter().flatten() {
        invalid_all(names::qualified_name(&key.to_lowercase()), key, path, out);
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        out.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

/// A finalizer: qualified by a domain, or one of the standard ones.
pub(super) fn finalizer(value: &str, path: &Path, out: &mut Errors) {
    invalid_all(names::qualified_name(value), value, path, out);
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    if !value.contains('/') && !standard.contains(&value) {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        out.push(FieldError::invalid(path, value, message));
    }
}

fn owners(object: &Value, path: &Path, out: &mut Errors) {
    let mut controller: Option<&str> = None;
    for (i, owner) in meta::owner_references(object).iter().enumerate() {
        let path = path.index(i);
        for (field, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if str_of(owner, field).is_empty() {
                out.push(FieldError::invalid(path.child(field), "", message));
            }
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let name = str_of(owner, "name");
            if let Some(first) = controller {
                let message = format!(
                    "Only one reference can have Controller set to true. Found {} in references for {first} and {name}",
                    go_quote("true")
                );
                out.push(FieldError::invalid("metadata.ownerReferences", Value::Null, message));
            }
            controller = Some(name);
        }
    }
}

/// Checks what an update does to the metadata. Fields that a client left out count as unchanged.
pub fn validate_metadata_update(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let path = Path::new("metadata");
    let field = |object: &Value, name: &str| object.get("metadata").and_then(|m| m.get(name)).cloned();
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (have, had) = (field(new, name), field(old, name));
        if have.is_some() && have != had {
            out.push(FieldError::invalid(path.child(name), have.unwrap_or_default(), IMMUTABLE));
        }
    }
    if meta::generation(new) != 0 && meta::generation(new) < meta::generation(old) {
        out.push(FieldError::invalid(
            path.child("generation"),
            meta::generation(new),
            "must not be decremented",
        ));
    }
    if meta::is_deleting(old) {
        let had: Vec<&str> = meta::finalizers(old).collect();
        let added: Vec<&str> = meta::finalizers(new).filter(|f| !had.contains(f)).collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| go_quote(f)).collect::<Vec<_>>().join(", ")
            );
            out.push(FieldError::forbidden(path.child("finalizers"), message));
        }
    }
    common(new, &path, out);
}
