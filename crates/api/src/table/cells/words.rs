//! What cells are made of: values at a path, as upstream's printers word them.

use serde_json::{Map, Value};

use crate::{meta::list, selector::LabelSelector};

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

pub(super) fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

pub(super) fn join_or(parts: Vec<String>, otherwise: &str) -> String {
    if parts.is_empty() { otherwise.to_owned() } else { parts.join(",") }
}

pub(super) fn entries(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).and_then(Value::as_object).map_or(0, Map::len)
}

pub(super) fn boolean(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer).and_then(Value::as_bool) {
        Some(true) => "true".into(),
        Some(false) => "false".into(),
        None => UNSET.into(),
    }
}

/// A number or text.
pub(super) fn scalar(value: Option<&Value>, otherwise: &str) -> String {
    match value {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Null) | None => otherwise.to_owned(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn selector_text(selector: Option<&Value>) -> String {
    match LabelSelector::from_object(selector) {
        Ok(s) if s.is_empty() => NONE.into(),
        Ok(s) => or(&s.to_string(), NONE).to_owned(),
        Err(_) => "<error>".into(),
    }
}

pub(super) fn map_text(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    join_or(pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect(), NONE)
}

pub(super) fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let have = list(object, pointer);
    let shown: Vec<&str> = modes
        .iter()
        .filter(|(name, _)| have.iter().any(|m| m.as_str() == Some(name)))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",")
}
