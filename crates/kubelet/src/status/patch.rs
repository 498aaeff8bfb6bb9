//! The difference between two pod statuses as a strategic merge patch. Only what changed is sent, so that
//! conditions which others set at the same time survive.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::OWNED;

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
    let new = new.as_array()?;
    let mut changed: Vec<Value> = new
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
    // A resize that is over has no condition any more. What others have set since is not ours to remove.
    let ours = |condition: &&Value| condition["type"].as_str().is_some_and(|type_| OWNED.contains(&type_));
    let missing = |before: &&Value| !new.iter().any(|condition| condition["type"] == before["type"]);
    let gone = old.iter().filter(ours).filter(missing);
    changed.extend(gone.map(|before| json!({"type": before["type"], "$patch": "delete"})));
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
    fn our_conditions_go_and_others_stay() {
        let old = status(json!({"conditions": [{"type": "PodResizeInProgress", "status": "True"},
            {"type": "x", "status": "True"}]}));
        let patch = status_patch("u", &old, &status(json!({"conditions": []}))).unwrap();
        let gone = json!([{"type": "PodResizeInProgress", "$patch": "delete"}]);
        assert_eq!(patch["status"]["conditions"], gone);
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
