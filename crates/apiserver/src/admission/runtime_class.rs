//! RuntimeClass: a pod's class must exist; its overhead and scheduling become the pod's (RTC-07..15).

use std::collections::BTreeMap;

use async_trait::async_trait;
use sampan_api::{Quantity, Status, meta, scheme};
use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNDEFINED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(class) = class(attributes).await? else { return Ok(()) };
        if let Some(fixed) = pod_fixed(&class) {
            if let Some(own) = attributes.object["spec"].get("overhead").filter(|own| !own.is_null())
                && !same(own, fixed)
            {
                return Err(attributes.forbidden(MISMATCH));
            }
            meta::object_mut(&mut attributes.object["spec"]).insert("overhead".into(), fixed.clone());
        }
        if let Some(selector) = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object) {
            merge_selector(attributes, selector)?;
        }
        let theirs = meta::list(&class, "/scheduling/tolerations");
        if !theirs.is_empty() {
            let merged = merge_tolerations(meta::list(&attributes.object, "/spec/tolerations"), theirs);
            meta::object_mut(&mut attributes.object["spec"])
                .insert("tolerations".into(), Value::Array(merged));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let class = class(attributes).await?;
        let own = attributes.object["spec"].get("overhead").filter(|own| !own.is_null());
        match (class.as_ref().and_then(pod_fixed), own) {
            (Some(fixed), Some(own)) if same(own, fixed) => Ok(()),
            (Some(_), _) => Err(attributes.forbidden(MISMATCH)),
            (None, Some(own)) if own.as_object().is_some_and(|own| !own.is_empty()) => {
                Err(attributes.forbidden(UNDEFINED))
            }
            (None, _) => Ok(()),
        }
    }
}

/// The pod's class. None or an empty name is the node's default handler (RTC-16).
async fn class(attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    let name = meta::str_at(&attributes.object, "/spec/runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let found = match scheme::find("node.k8s.io", "v1", "runtimeclasses") {
        Some(resource) => attributes.scope.server.registry.get_fresh(resource, "", name).await?,
        None => None,
    };
    match found {
        Some(class) => Ok(Some(class.value())),
        None => Err(attributes.forbidden(format!("pod rejected: RuntimeClass \"{name}\" not found"))),
    }
}

fn pod_fixed(class: &Value) -> Option<&Value> {
    class.pointer("/overhead/podFixed").filter(|fixed| fixed.is_object())
}

/// Whether two resource lists hold the same amounts, however they are written.
fn same(one: &Value, other: &Value) -> bool {
    let amounts = |list: &Value| -> Option<BTreeMap<String, Quantity>> {
        let pairs = list.as_object()?.iter();
        pairs.map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
    };
    match (amounts(one), amounts(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn quantity(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn merge_selector(attributes: &mut Attributes<'_>, theirs: &Map<String, Value>) -> Result<(), Status> {
    let mut merged = attributes
        .object
        .pointer("/spec/nodeSelector")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for (key, value) in theirs {
        if let Some(own) = merged.get(key).filter(|own| *own != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(attributes.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            )));
        }
        merged.insert(key.clone(), value.clone());
    }
    meta::object_mut(&mut attributes.object["spec"]).insert("nodeSelector".into(), Value::Object(merged));
    Ok(())
}

/// Both lists, the first one first, without entries that another one covers; of equal ones the first stays.
fn merge_tolerations(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let wider = |other: &&Value| *other != *toleration && covers(other, toleration);
        let covered =
            all[index + 1..].iter().any(wider) || merged.iter().any(|other| covers(other, toleration));
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether `wide` tolerates everything that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (wide_key, wide_operator) = (meta::str_of(wide, "key"), meta::str_of(wide, "operator"));
    let exists = wide_operator == "Exists";
    if wide_key != meta::str_of(narrow, "key") && !(wide_key.is_empty() && exists) {
        return false;
    }
    let wide_effect = meta::str_of(wide, "effect");
    if !wide_effect.is_empty() && wide_effect != meta::str_of(narrow, "effect") {
        return false;
    }
    if wide_effect == "NoExecute"
        && let Some(seconds) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|other| other > seconds)
    {
        return false;
    }
    exists
        || (wide_operator == meta::str_of(narrow, "operator")
            && meta::str_of(wide, "value") == meta::str_of(narrow, "value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rtc_12_covered_tolerations_are_dropped() {
        let own = [
            json!({"key": "a", "operator": "Equal", "value": "1"}),
            json!({"key": "b", "operator": "Exists"}),
        ];
        let class = [
            json!({"key": "a", "operator": "Exists"}),
            json!({"key": "b", "operator": "Exists", "effect": "NoSchedule"}),
        ];
        assert_eq!(merge_tolerations(&own, &class), [own[1].clone(), class[0].clone()]);
        assert_eq!(merge_tolerations(&own, &own[..1]), own);
    }

    #[test]
    fn rtc_09_amounts_are_compared_by_value() {
        assert!(same(&json!({"cpu": "100m"}), &json!({"cpu": "0.1"})));
        assert!(!same(&json!({"cpu": "100m"}), &json!({"cpu": "0.2"})));
        assert!(!same(&json!({}), &json!({"cpu": "0.2"})));
    }
}
