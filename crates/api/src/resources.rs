//! Requests and limits of pods and containers: sums over containers, init peaks, sidecars, overhead (RTC-22, RTC-25).
//!
//! Source: component-helpers `resource.PodRequests`/`PodLimits` of v1.36, with pod-level resources (KEP-2837).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{meta, quantity::Quantity};

/// Amounts by resource name (`cpu`, `memory`, …).
pub type ResourceList = BTreeMap<String, Quantity>;

/// Reads a resource list, skipping what is no quantity (validation refused it before).
pub fn parse(list: Option<&Value>) -> ResourceList {
    let entries = list.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), Quantity::from_value(v).ok()?))).collect()
}

/// A resource list as JSON, canonical.
pub fn to_value(list: &ResourceList) -> Value {
    Value::Object(list.iter().map(|(k, q)| (k.clone(), q.to_value())).collect())
}

/// `resources.requests` of a container.
pub fn container_requests(container: &Value) -> ResourceList {
    parse(container.pointer("/resources/requests"))
}

/// `resources.limits` of a container.
pub fn container_limits(container: &Value) -> ResourceList {
    parse(container.pointer("/resources/limits"))
}

/// Whether an init container keeps running beside the others (`restartPolicy: Always`).
pub fn is_sidecar(init_container: &Value) -> bool {
    meta::str_of(init_container, "restartPolicy") == "Always"
}

/// Adds amounts.
pub fn add(to: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        *to.entry(name.clone()).or_default() += *quantity;
    }
}

/// Takes the larger amount of each.
pub fn max(to: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        let entry = to.entry(name.clone()).or_insert(*quantity);
        *entry = Quantity::max(*entry, *quantity);
    }
}

/// Sum over containers and sidecars, or the peak while init containers run, whichever is larger.
fn aggregate(pod: &Value, of: impl Fn(&Value) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in meta::list(pod, "/spec/containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for container in meta::list(pod, "/spec/initContainers") {
        let mut now = of(container);
        if is_sidecar(container) {
            add(&mut total, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        max(&mut peak, &now);
    }
    max(&mut total, &peak);
    total
}

/// Whether a resource may be set for the pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod asks for altogether, overhead included.
pub fn pod_requests(pod: &Value) -> ResourceList {
    let mut total = aggregate(pod, container_requests);
    total.extend(
        parse(pod.pointer("/spec/resources/requests")).into_iter().filter(|(name, _)| is_pod_level(name)),
    );
    add(&mut total, &parse(pod.pointer("/spec/overhead")));
    total
}

/// What a pod takes of its node altogether: for each container the most of what its spec asks for, what the node has
/// allocated and what it has now, so that a resize on its way neither frees nor takes too much (KEP-1287). A resize
/// that can never be counts only what was allocated.
pub fn pod_requests_in_use(pod: &Value) -> ResourceList {
    let infeasible = meta::list(pod, "/status/conditions").iter().any(|condition| {
        meta::str_of(condition, "type") == "PodResizePending"
            && meta::str_of(condition, "reason") == "Infeasible"
    });
    let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let status = |name: &str| {
        lists.iter().flat_map(|list| meta::list(pod, list)).find(|s| meta::str_of(s, "name") == name)
    };
    let mut total = aggregate(pod, |container| {
        let asked = container_requests(container);
        let Some(status) = status(meta::str_of(container, "name")) else { return asked };
        let mut most = parse(status.get("allocatedResources"));
        max(&mut most, &parse(status.pointer("/resources/requests")));
        // A node that does not resize reports neither.
        if !infeasible || most.is_empty() {
            max(&mut most, &asked);
        }
        most
    });
    let own = parse(pod.pointer("/spec/resources/requests"));
    let mut level = parse(pod.pointer("/status/allocatedResources"));
    max(&mut level, &parse(pod.pointer("/status/resources/requests")));
    if !infeasible || level.is_empty() {
        max(&mut level, &own);
    }
    total.extend(level.into_iter().filter(|(name, _)| own.contains_key(name) && is_pod_level(name)));
    add(&mut total, &parse(pod.pointer("/spec/overhead")));
    total
}

/// What a pod may use altogether; overhead counts only where a limit exists (RTC-26).
pub fn pod_limits(pod: &Value) -> ResourceList {
    let mut total = aggregate(pod, container_limits);
    total.extend(
        parse(pod.pointer("/spec/resources/limits")).into_iter().filter(|(name, _)| is_pod_level(name)),
    );
    for (name, quantity) in parse(pod.pointer("/spec/overhead")) {
        if let Some(limit) = total.get_mut(&name).filter(|q| !q.is_zero()) {
            *limit += quantity;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rtc_22_requests_are_the_sum_or_the_init_peak_plus_overhead() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = c("100m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {
            "containers": [c("100m"), c("200m")],
            "initContainers": [sidecar, c("1")],
            "overhead": {"cpu": "50m"},
        }});
        assert_eq!(pod_requests(&pod)["cpu"].to_string(), "1150m");
        let pod = json!({"spec": {"containers": [c("100m"), c("2")], "initContainers": [c("1")]}});
        assert_eq!(pod_requests(&pod)["cpu"].to_string(), "2100m");
    }

    #[test]
    fn a_resize_on_its_way_counts_with_the_most_it_may_need() {
        let pod = |spec: &str, allocated: &str, actual: &str, reason: &str| {
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": spec}}}]},
                "status": {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": allocated},
                    "resources": {"requests": {"cpu": actual}}}],
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}]}})
        };
        for (spec, allocated, actual, reason, most) in [
            ("1", "500m", "500m", "Deferred", "1"),
            ("1", "500m", "500m", "Infeasible", "500m"),
            ("100m", "100m", "500m", "", "500m"),
            ("100m", "500m", "500m", "", "500m"),
        ] {
            let pod = pod(spec, allocated, actual, reason);
            assert_eq!(pod_requests_in_use(&pod)["cpu"].to_string(), most, "{pod}");
        }
        let fresh = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        assert_eq!(pod_requests_in_use(&fresh), pod_requests(&fresh));
    }

    #[test]
    fn rtc_26_limits_grow_by_overhead_only_where_set() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"limits": {"memory": "100Mi"}}}],
            "overhead": {"cpu": "200m", "memory": "140Mi"},
        }});
        let limits = pod_limits(&pod);
        assert_eq!(limits["memory"].value(), 251_658_240);
        assert!(!limits.contains_key("cpu"));
    }
}
