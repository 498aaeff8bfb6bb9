//! Typed access to what every object has (`apiVersion`, `kind`, `metadata`) without decoding the object, and the
//! time formats of the API.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::scheme::Resource;

/// A string at `metadata.{field}`, "" when absent.
fn metadata_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion`, "" when absent.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `kind`, "" when absent.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, "" when absent.
pub fn name(object: &Value) -> &str {
    metadata_str(object, "name")
}

/// `metadata.generateName`, "" when absent.
pub fn generate_name(object: &Value) -> &str {
    metadata_str(object, "generateName")
}

/// `metadata.namespace`, "" when absent.
pub fn namespace(object: &Value) -> &str {
    metadata_str(object, "namespace")
}

/// `metadata.uid`, "" when absent.
pub fn uid(object: &Value) -> &str {
    metadata_str(object, "uid")
}

/// `metadata.resourceVersion`, "" when absent.
pub fn resource_version(object: &Value) -> &str {
    metadata_str(object, "resourceVersion")
}

/// `metadata.generation`, 0 when absent.
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp`.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(metadata_str(object, "creationTimestamp"))
}

/// `metadata.deletionTimestamp`; its presence means that the object is being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(metadata_str(object, "deletionTimestamp"))
}

/// Whether deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string)
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64)
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.pointer("/metadata/labels").and_then(Value::as_object)
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.pointer("/metadata/annotations").and_then(Value::as_object)
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/finalizers").iter().filter_map(Value::as_str)
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    list(object, "/metadata/ownerReferences")
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|r| r.get("controller").and_then(Value::as_bool) == Some(true))
}

/// The items at a JSON pointer; empty when there is no list.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The items of a field; empty when there is no list.
pub fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The string at a JSON pointer, "" when absent.
pub fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The string in a field, "" when absent.
pub fn str_of<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The metadata map, created when missing. Anything that is not an object is replaced: decoding refused it before.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_mut(object_mut(object).entry("metadata").or_insert_with(|| Value::Object(Map::new())))
}

/// The value as a map, made one when it is something else (`null` for instance).
pub fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a string in the metadata; "" removes the field.
pub fn set_metadata(object: &mut Value, field: &str, value: &str) {
    let metadata = metadata_mut(object);
    if value.is_empty() {
        metadata.remove(field);
    } else {
        metadata.insert(field.to_owned(), Value::String(value.to_owned()));
    }
}

/// Sets `metadata.resourceVersion`.
pub fn set_resource_version(object: &mut Value, version: &str) {
    set_metadata(object, "resourceVersion", version);
}

/// Sets a label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    let labels = metadata_mut(object).entry("labels").or_insert(Value::Null);
    object_mut(labels).insert(key.to_owned(), Value::String(value.to_owned()));
}

/// Sets an annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    let annotations = metadata_mut(object).entry("annotations").or_insert(Value::Null);
    object_mut(annotations).insert(key.to_owned(), Value::String(value.to_owned()));
}

/// Sets `apiVersion` and `kind` to those of the resource.
pub fn set_type(object: &mut Value, resource: &Resource) {
    let map = object_mut(object);
    map.insert("apiVersion".into(), Value::String(resource.api_version()));
    map.insert("kind".into(), Value::String(resource.kind.into()));
}

/// The condition of that type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, condition_type: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|c| str_of(c, "type") == condition_type)
}

/// Whether the condition of that type has status "True".
pub fn condition_is_true(object: &Value, condition_type: &str) -> bool {
    condition(object, condition_type).is_some_and(|c| str_of(c, "status") == "True")
}

/// A PartialObjectMetadata (meta.k8s.io/v1) with the object's metadata.
pub fn partial_object_metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    serde_json::json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A time as API objects carry it: RFC 3339, UTC, whole seconds.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A MicroTime (leases, events.k8s.io): six digits of a second.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A time in RFC 3339, with or without fractions; None when empty or malformed.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}
