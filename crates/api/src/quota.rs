//! What objects use of a ResourceQuota, which objects it counts, and the sums that decide (RTC-24). Pure; the admission
//! plugin and the controller that keeps `status` share it.
//!
//! Source: `pkg/quota/v1` and its evaluators of v1.36.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    Resource, meta, qos,
    quantity::Quantity,
    resources::{self, ResourceList},
};

/// Names by which some kinds are counted beside `count/<resource>.<group>`.
const PLAIN_COUNTS: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "pods",
];

/// `count/pods`, `count/deployments.apps`.
pub fn count_name(resource: &Resource) -> String {
    match resource.group {
        "" => format!("count/{}", resource.plural),
        group => format!("count/{}.{group}", resource.plural),
    }
}

/// What an object uses, by the names that quotas have for it.
pub fn usage(resource: &Resource, object: &Value) -> ResourceList {
    let one = Quantity::new(1, crate::quantity::Format::DecimalSi);
    let mut used = ResourceList::from([(count_name(resource), one)]);
    if !resource.group.is_empty() {
        return used;
    }
    if PLAIN_COUNTS.contains(&resource.plural) && resource.plural != "pods" {
        used.insert(resource.plural.to_owned(), one);
    }
    match resource.plural {
        // A pod that has ended uses nothing but its place in the store.
        "pods" if !has_ended(object) => {
            used.insert("pods".to_owned(), one);
            pod_compute(object, &mut used);
        }
        "services" => {
            let ports = meta::list(object, "/spec/ports");
            let kind = meta::str_at(object, "/spec/type");
            if kind == "LoadBalancer" {
                used.insert("services.loadbalancers".to_owned(), one);
            }
            let allocates =
                object.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
            if kind == "NodePort" || kind == "LoadBalancer" && allocates {
                let count = i64::try_from(ports.len()).unwrap_or(i64::MAX);
                used.insert("services.nodeports".to_owned(), Quantity::new(count, one.format()));
            }
        }
        "persistentvolumeclaims" => {
            let asked = Quantity::or_zero(object.pointer("/spec/resources/requests/storage"));
            used.insert("requests.storage".to_owned(), asked);
            let class = meta::str_at(object, "/spec/storageClassName");
            if !class.is_empty() {
                let of = |name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
                used.insert(of("requests.storage"), asked);
                used.insert(of("persistentvolumeclaims"), one);
            }
        }
        _ => {}
    }
    used
}

/// Whether a pod's containers have all ended for good.
pub fn has_ended(pod: &Value) -> bool {
    matches!(meta::str_at(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Requests and limits of a pod, overhead included: for requests always, for limits where there is one.
fn pod_compute(pod: &Value, used: &mut ResourceList) {
    for (name, quantity) in resources::pod_requests_in_use(pod) {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(format!("requests.{name}"), quantity);
                used.insert(name, quantity);
            }
            _ if name.starts_with("hugepages-") => {
                used.insert(format!("requests.{name}"), quantity);
                used.insert(name, quantity);
            }
            // Extended resources cannot be overcommitted: their limits are their requests.
            _ => drop(used.insert(format!("requests.{name}"), quantity)),
        }
    }
    for (name, quantity) in resources::pod_limits(pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), quantity);
        }
    }
}

/// Whether a quota counts this object at all, by its scopes. Only pods have any.
pub fn in_scope(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let plain = meta::list(quota, "/spec/scopes").iter().filter_map(Value::as_str);
    let mut all = plain.map(|scope| (scope, "Exists", &[][..]));
    let selected = meta::list(quota, "/spec/scopeSelector/matchExpressions").iter().map(|expression| {
        let name = meta::str_of(expression, "scopeName");
        (name, meta::str_of(expression, "operator"), meta::items(expression, "values"))
    });
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let mut matches = |(scope, operator, values): (&str, &str, &[Value])| {
        is_pod && scope_matches(object, scope, operator, values)
    };
    all.all(&mut matches) && selected.collect::<Vec<_>>().into_iter().all(matches)
}

fn scope_matches(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let terminating =
        pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|s| s >= 0);
    let best_effort = || qos::of(pod) == qos::QosClass::BestEffort;
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = meta::str_at(pod, "/spec/priorityClassName");
            let listed = values.iter().any(|value| value == class);
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
            let of = |when: &str| meta::list(pod, &format!("/spec/affinity/{kind}/{when}"));
            let soft = of("preferredDuringSchedulingIgnoredDuringExecution").iter();
            let soft = soft.filter_map(|weighted| weighted.get("podAffinityTerm"));
            let mut terms = of("requiredDuringSchedulingIgnoredDuringExecution").iter().chain(soft);
            terms.any(|term| {
                !meta::items(term, "namespaces").is_empty()
                    || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
            })
        }),
        _ => false,
    }
}

/// `spec.hard`.
pub fn hard(quota: &Value) -> ResourceList {
    resources::parse(quota.pointer("/spec/hard"))
}

/// Whether objects of this resource can use anything of these amounts: saves looking at them.
pub fn may_count(resource: &Resource, hard: &ResourceList) -> bool {
    let core = resource.group.is_empty();
    hard.keys().any(|name| match name.strip_prefix("count/") {
        Some(_) => *name == count_name(resource),
        None if core => match resource.plural {
            "pods" => !PLAIN_COUNTS.contains(&name.as_str()) || name == "pods",
            "services" => name.starts_with("services"),
            "persistentvolumeclaims" => {
                name.ends_with("requests.storage") || name.ends_with("persistentvolumeclaims")
            }
            plural => name == plural,
        },
        None => false,
    })
}

/// The amounts of `list` whose names are in `names`.
pub fn mask(list: &ResourceList, names: &ResourceList) -> ResourceList {
    list.iter().filter(|(name, _)| names.contains_key(*name)).map(|(name, q)| (name.clone(), *q)).collect()
}

/// The names of which `used` is more than `hard` allows.
pub fn exceeded(used: &ResourceList, hard: &ResourceList) -> BTreeSet<String> {
    let over = used.iter().filter(|(name, amount)| hard.get(*name).is_some_and(|limit| *amount > limit));
    over.map(|(name, _)| name.clone()).collect()
}

/// `cpu=500m,pods=1`, as errors show amounts.
pub fn describe(list: &ResourceList) -> String {
    let texts: Vec<_> = list.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect();
    texts.join(",")
}

/// What a quota with compute resources demands that containers say: the text of the refusal.
pub fn unspecified(quota: &Value, pod: &Value) -> Option<String> {
    const DEMANDED: [&str; 6] =
        ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let hard = hard(quota);
    let pod_level = pod.pointer("/spec/resources");
    let mut texts = Vec::new();
    for name in DEMANDED.iter().filter(|name| hard.contains_key(**name)) {
        let (field, resource) = name.split_once('.').unwrap_or(("requests", name));
        let has = |holder: Option<&Value>| {
            holder.and_then(|r| r.get(field)).is_some_and(|r| r.get(resource).is_some())
        };
        if has(pod_level) {
            continue;
        }
        let containers =
            meta::list(pod, "/spec/containers").iter().chain(meta::list(pod, "/spec/initContainers"));
        let missing: BTreeSet<&str> = containers
            .filter(|container| !has(container.get("resources")))
            .map(|container| meta::str_of(container, "name"))
            .collect();
        if !missing.is_empty() {
            texts.push(format!("{name} for: {}", missing.into_iter().collect::<Vec<_>>().join(",")));
        }
    }
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::scheme;

    fn pods() -> &'static Resource {
        scheme::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn rtc_24_quota_counts_overhead() {
        let pod = json!({"spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}}],
            "overhead": {"cpu": "250m", "memory": "32Mi"},
        }});
        let used = usage(pods(), &pod);
        let text = |name: &str| used.get(name).map(ToString::to_string);
        assert_eq!(text("requests.cpu").as_deref(), Some("350m"));
        assert_eq!(text("cpu").as_deref(), Some("350m"));
        assert_eq!(text("requests.memory").as_deref(), Some("96Mi"));
        assert_eq!(text("limits.memory").as_deref(), Some("160Mi"));
        assert_eq!(text("limits.cpu"), None, "no limit, no overhead on it");
        assert_eq!((text("pods").as_deref(), text("count/pods").as_deref()), (Some("1"), Some("1")));
        let mut ended = pod;
        ended["status"] = json!({"phase": "Succeeded"});
        let used = usage(pods(), &ended);
        assert_eq!(used.keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |spec: Value| json!({"spec": spec});
        let best_effort = json!({"spec": {"containers": [{"name": "c"}]}});
        let mut timed = best_effort.clone();
        timed["spec"]["activeDeadlineSeconds"] = json!(5);
        timed["spec"]["priorityClassName"] = json!("high");
        for (spec, plain, other) in [
            (json!({}), true, true),
            (json!({"scopes": ["BestEffort"]}), true, true),
            (json!({"scopes": ["NotBestEffort"]}), false, false),
            (json!({"scopes": ["Terminating"]}), false, true),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), true, false),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                false,
                true,
            ),
        ] {
            let quota = quota(spec);
            assert_eq!(in_scope(&quota, pods(), &best_effort), plain, "{quota}");
            assert_eq!(in_scope(&quota, pods(), &timed), other, "{quota}");
        }
        let secrets = scheme::find("", "v1", "secrets").unwrap();
        assert!(!in_scope(&quota(json!({"scopes": ["BestEffort"]})), secrets, &json!({})));
    }

    #[test]
    fn what_has_to_be_said_is_named() {
        let quota = json!({"spec": {"hard": {"requests.cpu": "1", "limits.memory": "1Gi", "pods": "4"}}});
        let pod = json!({"spec": {"containers": [
            {"name": "b", "resources": {"requests": {"cpu": "1"}}}, {"name": "a"},
        ]}});
        assert_eq!(
            unspecified(&quota, &pod).unwrap(),
            "must specify limits.memory for: a,b; requests.cpu for: a"
        );
        assert_eq!(unspecified(&json!({"spec": {"hard": {"pods": "4"}}}), &pod), None);
    }
}
