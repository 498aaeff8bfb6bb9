//! The difference between two pod statuses as a strategic merge patch. Only what changed is sent, so that
//! conditions which others set at the same time survive.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// The patch that turns `old` into `new`, guarded by the pod's UID; `None` when there is nothing to change.
#[must_use]
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
        (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return None;
    };
    let mut changes = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let change = match key.as_str() {
            "conditions" => match changed_conditions(before, value) {
                Some(conditions) => conditions,
                None => continue,
            },
            // Merged by address otherwise, which would keep old addresses.
            "podIPs" | "hostIPs" if before.is_some() => replaced_list(value),
            _ => value.clone(),
        };
        changes.insert(key.clone(), change);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

fn changed_conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let none = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&none);
    let changed: Vec<Value> = new
        .as_array()?
        .iter()
        .filter(|condition| !old.contains(condition))
        .map(|condition| {
            let mut condition = condition.clone();
            let before = old.iter().find(|before| before["type"] == condition["type"]);
            // Fields that went away have to be named.
            if let (Some(Value::Object(before)), Value::Object(fields)) = (before, &mut condition) {
                for key in before.keys() {
                    fields.entry(key.clone()).or_insert(Value::Null);
                }
            }
            condition
        })
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

fn replaced_list(value: &Value) -> Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(value.as_array().into_iter().flatten().cloned());
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_changes_are_sent() {
        let old = status(json!({"phase": "Pending", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "x", "status": "True"}]}));
        assert_eq!(status_patch("u", &old, &old), None);
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "x", "status": "True"}]}));
        let patch = status_patch("u", &old, &new).unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]}})
        );
    }

    #[test]
    fn addresses_are_replaced_and_missing_fields_removed() {
        let old = status(json!({"podIPs": [{"ip": "10.0.0.2"}], "message": "m"}));
        let new = status(json!({"podIPs": [{"ip": "10.0.0.3"}]}));
        let patch = status_patch("u", &old, &new).unwrap();
        assert_eq!(patch["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.0.0.3"}]));
        assert_eq!(patch["status"]["message"], Value::Null);
    }
}
