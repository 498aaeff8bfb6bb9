//! ClusterRoles that are made of others: `aggregationRule` selects ClusterRoles by label, and their rules are written
//! into the role that aggregates.
//!
//! Upstream does this in a controller; here it stands beside the index that already knows every ClusterRole.

use std::collections::BTreeMap;

use sampan_store::{Compare, Op, Revision, Txn};
use serde_json::Value;

use super::PolicyRule;
use super::rbac::ClusterRole;

/// Whether a label selector (metav1.LabelSelector) selects these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels[key].as_str();
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let by_labels = equal.into_iter().all(|(key, value)| label(key) == value.as_str());
    let expressions = selector["matchExpressions"].as_array().map(Vec::as_slice).unwrap_or_default();
    by_labels
        && expressions.iter().all(|expression| {
            let have = label(expression["key"].as_str().unwrap_or_default());
            let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
            let listed = have.is_some_and(|have| values.iter().any(|value| value.as_str() == Some(have)));
            match expression["operator"].as_str().unwrap_or_default() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

/// The rules of the roles that aggregate, where they are not what they should be. Roles may aggregate roles that
/// aggregate: the caller repeats until nothing is left.
pub(super) fn outdated<'a>(
    roles: impl IntoIterator<Item = (&'a String, &'a ClusterRole)> + Clone,
) -> Vec<(String, Vec<PolicyRule>)> {
    let sorted: BTreeMap<&String, &ClusterRole> = roles.into_iter().collect();
    let mut out = Vec::new();
    for (name, role) in &sorted {
        let Some(selectors) = &role.selectors else { continue };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in selectors {
            for (other, source) in &sorted {
                if other != name && selects(selector, &source.labels) {
                    for rule in source.rules.iter() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
        }
        if rules[..] != role.rules[..] {
            out.push(((*name).clone(), rules));
        }
    }
    out
}

/// A write of `object` over the value that was read at `revision`.
pub(super) fn replace(key: String, value: bytes::Bytes, revision: Revision) -> Txn {
    let key = bytes::Bytes::from(key);
    Txn {
        when: vec![Compare::ModRevision(key.clone(), revision)],
        then: vec![Op::Put { key, value, lease: 0 }],
        read: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_and_labels_both_count() {
        let selector = json!({"matchLabels": {"a": "1"},
            "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["x"]}]});
        assert!(selects(&selector, &json!({"a": "1"})));
        assert!(!selects(&selector, &json!({"a": "1", "b": "x"})));
        assert!(!selects(&selector, &Value::Null));
        assert!(selects(&json!({}), &Value::Null));
    }
}
