//! How objects are written into the store, and read back with their resource version.
//!
//! The value is the object's JSON without `metadata.resourceVersion`, and it always begins with
//! `{"kind":K,"apiVersion":V,"metadata":{`. So the version (the key's `mod_revision`, known only once it is
//! written) is put in by copying bytes at a known place: lists and watches never parse what they deliver.

use bytes::Bytes;
use sampan_api::{Resource, Status, meta};
use serde_json::{Map, Value};

/// What the bytes of every object of a (storage) resource begin with.
pub fn head(resource: &Resource) -> String {
    format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{", resource.kind, resource.api_version())
}

/// The bytes for the store.
pub fn encode(resource: &Resource, object: &Value) -> Bytes {
    let mut out = head(resource).into_bytes();
    let empty = Map::new();
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    write_fields(&mut out, metadata, &["resourceVersion", "selfLink"], false);
    out.push(b'}');
    if let Some(object) = object.as_object() {
        write_fields(&mut out, object, &["kind", "apiVersion", "metadata"], true);
    }
    out.push(b'}');
    out.into()
}

fn write_fields(out: &mut Vec<u8>, map: &Map<String, Value>, without: &[&str], mut comma: bool) {
    for (name, value) in map.iter().filter(|(name, _)| !without.contains(&name.as_str())) {
        if comma {
            out.push(b',');
        }
        comma = true;
        // Writing a Value into memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, name);
        out.push(b':');
        let _ = serde_json::to_writer(&mut *out, value);
    }
}

/// The object of a stored value, with its resource version.
///
/// # Errors
/// 500 when the value is no JSON object.
pub fn decode(value: &[u8], revision: i64) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(value)
        .map_err(|error| Status::internal_error(format!("a stored object cannot be read: {error}")))?;
    meta::set_resource_version(&mut object, &revision.to_string());
    Ok(object)
}

/// The object's JSON with its resource version, and how many bytes of the head stand before that.
pub fn versioned(head: &str, value: &[u8], revision: i64) -> Bytes {
    if let Some(rest) = value.strip_prefix(head.as_bytes()) {
        let mut out = Vec::with_capacity(value.len() + 48);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
        if rest.first() != Some(&b'}') {
            out.push(b',');
        }
        out.extend_from_slice(rest);
        return out.into();
    }
    // Not written by `encode`: the long way.
    match decode(value, revision) {
        Ok(object) => serde_json::to_vec(&object).unwrap_or_default().into(),
        Err(_) => Bytes::copy_from_slice(value),
    }
}

/// Versioned bytes with another version: what a watch reports of a deleted object.
pub fn reversioned(head: &str, versioned_value: &[u8], revision: i64) -> Bytes {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let rest = versioned_value.strip_prefix(head.as_bytes()).and_then(|rest| rest.strip_prefix(FIELD));
    if let Some(rest) = rest
        && let Some(quote) = rest.iter().position(|byte| *byte == b'"')
    {
        let mut out = Vec::with_capacity(versioned_value.len() + 8);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(FIELD);
        out.extend_from_slice(revision.to_string().as_bytes());
        out.extend_from_slice(&rest[quote..]);
        return out.into();
    }
    match decode(versioned_value, revision) {
        Ok(object) => serde_json::to_vec(&object).unwrap_or_default().into(),
        Err(_) => Bytes::copy_from_slice(versioned_value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sampan_api::scheme;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_is_put_in_without_parsing() {
        let resource = scheme::find("", "v1", "configmaps").unwrap();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "\"metadata\":{"},
            "metadata": {"name": "x", "resourceVersion": "3", "labels": {"l": "1"}}});
        let stored = encode(resource, &object);
        let head = head(resource);
        let seven = versioned(&head, &stored, 7);
        let mut expected = object.clone();
        meta::set_resource_version(&mut expected, "7");
        assert_eq!(serde_json::from_slice::<Value>(&seven).unwrap(), expected);
        assert_eq!(decode(&stored, 7).unwrap(), expected);
        meta::set_resource_version(&mut expected, "1234");
        assert_eq!(serde_json::from_slice::<Value>(&reversioned(&head, &seven, 1234)).unwrap(), expected);
    }
}
