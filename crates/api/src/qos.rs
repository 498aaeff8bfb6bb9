//! A pod's quality-of-service class (POD-52), from cpu and memory of its containers; overhead plays no part.

use serde_json::Value;

use crate::{meta, quantity::Quantity, resources};

/// The class, in order of who is evicted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has cpu and memory limits, equal to its requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// As in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Computes the class from the spec.
pub fn of(pod: &Value) -> QosClass {
    let spec_level =
        pod.pointer("/spec/resources").filter(|r| has_entries(r, "requests") || has_entries(r, "limits"));
    let holders: Vec<&Value> = match spec_level {
        Some(_) => pod.get("spec").into_iter().collect(),
        None => meta::list(pod, "/spec/containers")
            .iter()
            .chain(meta::list(pod, "/spec/initContainers"))
            .collect(),
    };
    let positive = |q: Option<&Quantity>| q.copied().filter(|q| *q > Quantity::ZERO);
    let (mut any, mut guaranteed) = (false, !holders.is_empty());
    for holder in holders {
        let (requests, limits) = (resources::container_requests(holder), resources::container_limits(holder));
        for name in ["cpu", "memory"] {
            let (request, limit) = (positive(requests.get(name)), positive(limits.get(name)));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

fn has_entries(resources: &Value, field: &str) -> bool {
    resources.get(field).and_then(Value::as_object).is_some_and(|m| !m.is_empty())
}

/// The class a pod has: the one recorded in its status, else computed.
pub fn recorded_or_computed(pod: &Value) -> QosClass {
    match meta::str_at(pod, "/status/qosClass") {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        "BestEffort" => QosClass::BestEffort,
        _ => of(pod),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_52_classes() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let pod = |r: Value| json!({"spec": {"containers": [{"resources": r}]}});
        assert_eq!(of(&pod(json!({}))), QosClass::BestEffort);
        assert_eq!(of(&pod(json!({"requests": {"cpu": "1"}}))), QosClass::Burstable);
        assert_eq!(of(&pod(json!({"requests": full, "limits": full}))), QosClass::Guaranteed);
        assert_eq!(of(&pod(json!({"requests": {"cpu": "0"}}))), QosClass::BestEffort);
    }
}
