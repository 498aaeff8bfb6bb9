//! Whether this node takes a pod that was given to it (POD-55): its system, its labels, the resources that are
//! left. What the scheduler checked is checked again: it may have known less, and static pods have none.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use sampan_api::meta::{items, list, str_at, str_of};
use sampan_api::resources::{self, ResourceList};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::cgroups::as_value;
use crate::config::KubeletConfig;
use crate::eviction::Pressure;
use crate::node::capacity::Resources;
use crate::node::resize::WaitingResizes;
use crate::pod_ref;
use crate::static_pods::is_static;

/// The lowest priority of a critical pod (upstream's system-critical).
pub(crate) const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// `OutOfcpu`, `NodeAffinity`, …: the status's reason and the event's.
    pub(crate) reason: String,
    /// The event's message; in the status `Pod was rejected: ` stands before it.
    pub(crate) message: String,
}

impl Rejection {
    /// The machine is going down.
    pub(crate) fn shutting_down() -> Self {
        let message = "Pod was rejected as the node is shutting down.";
        Self { reason: "NodeShutdown".to_owned(), message: message.to_owned() }
    }
}

fn reject(reason: &str, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason: reason.to_owned(), message: message.into() })
}

/// What the pods that were taken asked for, by UID. Held while one is looked at, so that two cannot both have
/// the last core.
#[derive(Default)]
pub(crate) struct Admitted {
    pub(crate) pods: Mutex<HashMap<String, ResourceList>>,
    /// Running pods that wait to get more.
    pub(crate) waiting: WaitingResizes,
}

/// What a pod is judged by.
pub(crate) struct NodeView<'a> {
    pub(crate) config: &'a KubeletConfig,
    /// Whether the kernel enforces AppArmor profiles.
    pub(crate) apparmor: bool,
    /// The Node's labels.
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) allocatable: &'a Resources,
    /// What is short now.
    pub(crate) pressure: &'a [Pressure],
    /// What the others asked for.
    pub(crate) others: &'a HashMap<String, ResourceList>,
}

/// A pod that must not go: system-critical by priority, or this node's own.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod_ref::spec(pod).priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// Takes the pod or says why not, in upstream's order.
pub(crate) fn admit(pod: &Pod, requests: &ResourceList, node: &NodeView<'_>) -> Result<(), Rejection> {
    pressure(pod, node)?;
    sysctls(pod, node)?;
    apparmor(pod, node)?;
    system(pod)?;
    fits(pod, requests, node)?;
    affinity(pod, node)
}

fn pressure(pod: &Pod, node: &NodeView<'_>) -> Result<(), Rejection> {
    use crate::generate::resources::{QosClass, qos_class};
    if node.pressure.is_empty() || is_critical(pod) {
        return Ok(());
    }
    // Memory pressure alone keeps out only who asked for nothing and does not say that it can bear it.
    if node.pressure == [Pressure::Memory] {
        let tolerates = pod_ref::spec(pod).tolerations.iter().flatten().any(|toleration| {
            toleration.key.as_deref().is_none_or(|key| key == "node.kubernetes.io/memory-pressure")
                && toleration.effect.as_deref().is_none_or(|effect| effect == "NoSchedule")
        });
        if qos_class(pod) != QosClass::BestEffort || tolerates {
            return Ok(());
        }
    }
    let names: Vec<&str> = node.pressure.iter().map(|pressure| pressure.condition()).collect();
    reject("Evicted", format!("The node had condition: [{}]. ", names.join(" ")))
}

/// Sysctls that are namespaced and harmless, as upstream lists them.
const SAFE_SYSCTLS: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
];

fn sysctls(pod: &Pod, node: &NodeView<'_>) -> Result<(), Rejection> {
    let context = pod_ref::spec(pod).security_context.as_ref();
    for sysctl in context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let allowed =
            node.config.allowed_unsafe_sysctls.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == *allowed,
            });
        if !allowed && !SAFE_SYSCTLS.contains(&name.as_str()) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted"));
        }
    }
    Ok(())
}

/// A profile that nobody enforces is less than what the pod asks for.
fn apparmor(pod: &Pod, node: &NodeView<'_>) -> Result<(), Rejection> {
    let spec = pod_ref::spec(pod);
    let pods = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod));
    let of_containers = containers
        .filter_map(|container| container.security_context.as_ref())
        .filter_map(|context| context.app_armor_profile.as_ref());
    let asks = of_containers.chain(pods).any(|profile| profile.type_ != "Unconfined");
    if asks && !node.apparmor {
        return reject("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    Ok(())
}

fn system(pod: &Pod) -> Result<(), Rejection> {
    let spec = pod_ref::spec(pod);
    let wanted = spec.node_selector.as_ref().and_then(|selector| selector.get("kubernetes.io/os"));
    if wanted.is_some_and(|os| os != "linux") {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    Ok(())
}

fn fits(pod: &Pod, requests: &ResourceList, node: &NodeView<'_>) -> Result<(), Rejection> {
    let out_of = |resource: &str, requested: i64, used: i64, capacity: i64| {
        reject(
            &format!("OutOf{resource}"),
            format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    };
    let count = i64::try_from(node.others.len()).unwrap_or(i64::MAX);
    let pods = crate::quantities::listed(Some(node.allocatable), "pods").unwrap_or(i64::MAX);
    if count + 1 > pods {
        return out_of("pods", 1, count, pods);
    }
    // Nobody ends a critical pod to make room, but one that is critical is not refused for its size either.
    if is_static(pod) {
        return Ok(());
    }
    let mut used = ResourceList::new();
    for other in node.others.values() {
        resources::add(&mut used, other);
    }
    for (name, quantity) in requests.iter().filter(|(_, quantity)| !quantity.is_zero()) {
        let amount = |quantity: &sampan_api::Quantity| match name.as_str() {
            "cpu" => quantity.milli_value(),
            _ => quantity.value(),
        };
        let requested = amount(quantity);
        let used = used.get(name).map_or(0, amount);
        let capacity = match name.as_str() {
            "cpu" => crate::quantities::listed_milli(Some(node.allocatable), name),
            _ => crate::quantities::listed(Some(node.allocatable), name),
        };
        // What the node does not know at all belongs to a device plugin, which is nobody here.
        let capacity = capacity.unwrap_or(0);
        if requested + used > capacity {
            return out_of(name, requested, used, capacity);
        }
    }
    Ok(())
}

fn affinity(pod: &Pod, node: &NodeView<'_>) -> Result<(), Rejection> {
    let refused = || {
        reject(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    };
    let selector = pod_ref::spec(pod).node_selector.iter().flatten();
    for (key, value) in selector {
        if node.labels.get(key) != Some(value) {
            return refused();
        }
    }
    let pod = as_value(pod);
    let terms = list(
        &pod,
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let required = pod
        .pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution")
        .is_some_and(|required| !required.is_null());
    if required && !terms.iter().any(|term| matches_term(term, node)) {
        return refused();
    }
    Ok(())
}

fn matches_term(term: &Value, node: &NodeView<'_>) -> bool {
    let (expressions, fields) = (items(term, "matchExpressions"), items(term, "matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|expression| {
        matches_expression(expression, node.labels.get(str_of(expression, "key")).map(String::as_str))
    }) && fields.iter().all(|field| {
        let name = (str_at(field, "/key") == "metadata.name").then_some(node.config.node_name.as_str());
        matches_expression(field, name)
    })
}

fn matches_expression(expression: &Value, value: Option<&str>) -> bool {
    let values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match str_of(expression, "operator") {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, than)| have > than),
        "Lt" => numbers().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    fn judged(
        pod: &Pod,
        pressure: &[Pressure],
        others: &HashMap<String, ResourceList>,
    ) -> Result<(), Rejection> {
        let config = KubeletConfig {
            allowed_unsafe_sysctls: vec!["net.core.*".into()],
            ..crate::config::tests::config()
        };
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")]
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .into();
        let apparmor = false;
        let node = NodeView {
            config: &config,
            apparmor,
            labels: &labels,
            allocatable: &allocatable,
            pressure,
            others,
        };
        admit(pod, &resources::pod_requests(&as_value(pod)), &node)
    }

    fn reason(pod: &Pod) -> String {
        judged(pod, &[], &HashMap::new()).map_or_else(|rejection| rejection.reason, |()| "taken".to_owned())
    }

    #[tokio::test]
    async fn pod_55_reasons_are_upstreams() {
        let asking = |cpu: &str| json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        for (spec, expected) in [
            (json!({}), "taken"),
            (json!({"containers": asking("2")}), "taken"),
            (json!({"containers": asking("2001m")}), "OutOfcpu"),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}),
                "OutOfexample.com/gpu",
            ),
            (json!({"nodeSelector": {"disk": "ssd"}}), "taken"),
            (json!({"nodeSelector": {"disk": "hdd"}}), "NodeAffinity"),
            (json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "PodOSSelectorNodeLabelDoesNotMatch"),
            (json!({"os": {"name": "windows"}}), "PodOSNotSupported"),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": "net.core.somaxconn", "value": "9"}]}}),
                "taken",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                "SysctlForbidden",
            ),
            (json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}), "AppArmor"),
            (json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}), "taken"),
        ] {
            assert_eq!(reason(&pod(spec.clone())), expected, "{spec}");
        }
        let terms = |expression: Value| {
            pod(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}),
            )
        };
        assert_eq!(reason(&terms(json!({"key": "disk", "operator": "In", "values": ["ssd"]}))), "taken");
        assert_eq!(reason(&terms(json!({"key": "disk", "operator": "DoesNotExist"}))), "NodeAffinity");
    }

    #[tokio::test]
    async fn pod_55_what_others_have_is_gone() {
        let one = pod(
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}]}),
        );
        let requests = resources::pod_requests(&as_value(&one));
        let others = |count: usize| (0..count).map(|index| (index.to_string(), requests.clone())).collect();
        assert_eq!(judged(&one, &[], &others(1)), Ok(()));
        let refused = judged(&one, &[], &others(2)).unwrap_err();
        assert_eq!(refused.reason, "OutOfmemory");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: memory, requested: 536870912, used: 1073741824, capacity: 1073741824"
        );
        let refused = judged(&pod(json!({})), &[], &others(3)).unwrap_err();
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
    }

    #[tokio::test]
    async fn pod_56_a_node_under_pressure_takes_nobody_who_makes_it_worse() {
        let none = HashMap::new();
        let small = pod(json!({}));
        let asking =
            pod(json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]}));
        let critical = pod(json!({"priority": CRITICAL_PRIORITY}));
        assert_eq!(
            judged(&small, &[Pressure::Memory], &none).unwrap_err().message,
            "The node had condition: [MemoryPressure]. "
        );
        assert_eq!(judged(&asking, &[Pressure::Memory], &none), Ok(()));
        assert_eq!(judged(&asking, &[Pressure::Disk], &none).unwrap_err().reason, "Evicted");
        assert_eq!(judged(&critical, &[Pressure::Disk], &none), Ok(()));
    }
}
