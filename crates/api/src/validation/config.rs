//! Secrets and ConfigMaps.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::{Errors, IMMUTABLE, invalid_all};
use crate::{
    FieldError,
    field::Path,
    meta::{self, str_of},
    names,
};

/// Bytes that the values of one object may take together.
const MAX_SIZE: usize = 1024 * 1024;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

fn map<'a>(object: &'a Value, field: &str) -> Option<&'a Map<String, Value>> {
    object.get(field).and_then(Value::as_object)
}

fn bytes(value: Option<&Value>) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(value?.as_str()?).ok()
}

/// Length of base64 text's content.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

pub(super) fn secret(object: &Value, out: &mut Errors) {
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in map(object, "data").into_iter().flatten() {
        invalid_all(names::config_map_key(key), key, &path.key(key), out);
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MAX_SIZE {
        out.push(FieldError::too_long(&path, MAX_SIZE));
    }
    let data = |key: &str| object.get("data").and_then(|d| d.get(key));
    let mut require = |key: &str| {
        let missing = data(key).is_none();
        if missing {
            out.push(FieldError::required(path.key(key), ""));
        }
        !missing
    };
    match str_of(object, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if meta::annotation(object, key).unwrap_or_default().is_empty() {
                out.push(FieldError::required(Path::new("metadata").child("annotations").key(key), ""));
            }
        }
        kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
            let key = if kind.ends_with("json") { ".dockerconfigjson" } else { ".dockercfg" };
            if require(key)
                && let Some(error) = docker_config_error(&bytes(data(key)).unwrap_or_default())
            {
                out.push(FieldError::invalid(path.key(key), "<secret contents redacted>", error));
            }
        }
        "kubernetes.io/basic-auth" => {
            if data("username").is_none() && data("password").is_none() {
                out.push(FieldError::required(path.key("username"), ""));
                out.push(FieldError::required(path.key("password"), ""));
            }
        }
        "kubernetes.io/ssh-auth" => {
            if bytes(data("ssh-privatekey")).unwrap_or_default().is_empty() {
                out.push(FieldError::required(path.key("ssh-privatekey"), ""));
            }
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
}

/// Upstream decodes into a map; the texts are those of Go's decoder for the usual mistakes.
fn docker_config_error(bytes: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => None,
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
        }
        Err(_) if bytes.is_empty() => Some("unexpected end of JSON input".into()),
        Err(e) if e.is_eof() => Some("unexpected end of JSON input".into()),
        Err(e) => {
            // serde_json counts columns from 1 within the line.
            let line_start: usize = bytes
                .split_inclusive(|b| *b == b'\n')
                .take(e.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            let at = line_start + e.column().saturating_sub(1);
            let c = bytes.get(at).map_or(' ', |b| char::from(*b));
            Some(format!("invalid character '{c}' looking for beginning of value"))
        }
    }
}

pub(super) fn secret_update(new: &Value, old: &Value, out: &mut Errors) {
    if str_of(new, "type") != str_of(old, "type") {
        out.push(FieldError::invalid("type", str_of(new, "type"), IMMUTABLE));
    }
    immutable_data(new, old, &["data"], out);
}

pub(super) fn config_map(object: &Value, out: &mut Errors) {
    let mut size = 0;
    let (data, binary) = (Path::new("data"), Path::new("binaryData"));
    for (key, value) in map(object, "data").into_iter().flatten() {
        invalid_all(names::config_map_key(key), key, &data.key(key), out);
        if map(object, "binaryData").is_some_and(|b| b.contains_key(key)) {
            out.push(FieldError::invalid(
                data.key(key),
                key.as_str(),
                "duplicate of key present in binaryData",
            ));
        }
        size += value.as_str().unwrap_or_default().len();
    }
    for (key, value) in map(object, "binaryData").into_iter().flatten() {
        invalid_all(names::config_map_key(key), key, &binary.key(key), out);
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MAX_SIZE {
        // Upstream's text for the path of the whole object.
        out.push(FieldError::too_long("[]", MAX_SIZE));
    }
}

pub(super) fn config_map_update(new: &Value, old: &Value, out: &mut Errors) {
    immutable_data(new, old, &["data", "binaryData"], out);
}

fn immutable_data(new: &Value, old: &Value, fields: &[&str], out: &mut Errors) {
    let is_immutable = |o: &Value| o.get("immutable").and_then(Value::as_bool) == Some(true);
    if !is_immutable(old) {
        return;
    }
    if !is_immutable(new) {
        out.push(FieldError::forbidden("immutable", IMMUTABLE_SET));
    }
    let empty = Map::new();
    for field in fields {
        if map(new, field).unwrap_or(&empty) != map(old, field).unwrap_or(&empty) {
            out.push(FieldError::forbidden(field, IMMUTABLE_SET));
        }
    }
}
