//! What the scheduler keeps of a pod: a few hundred bytes, not the object.

use std::fmt;

use kube::core::DynamicObject;
use sampan_api::meta::{items, list, str_at, str_of};
use sampan_api::resources::{self, ResourceList};
use serde_json::Value;

mod spread;
mod term;

pub(crate) use spread::SpreadConstraint;
pub(crate) use term::{Labels, PodTerm, selector};

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    /// `metadata.generation`, for the condition's `observedGeneration`.
    pub(crate) generation: i64,
    /// Where it runs, or is assumed to run.
    pub(crate) node: Option<String>,
    /// What it takes: init containers, sidecars, overhead (RTC-22) and a resize on its way included.
    pub(crate) requests: ResourceList,
    /// The host's ports that it takes.
    pub(crate) ports: Vec<HostPort>,
    /// What other pods' affinity and spread constraints look at.
    pub(crate) labels: Labels,
    /// Who may be evicted for whom.
    pub(crate) priority: i64,
    /// Whether it is being deleted.
    pub(crate) ending: bool,
    /// Whether that is to make room for a more important one.
    pub(crate) preempted: bool,
    /// When it was created, in seconds: of two victims the younger one goes.
    pub(crate) created: i64,
    /// Pods that it does not want near it; it is not put near them, and they not near it.
    pub(crate) anti_affinity: Vec<PodTerm>,
    /// What decides where it may run; only kept while it has no node.
    pub(crate) wishes: Option<Box<Wishes>>,
}

/// What a pod without a node says of where it wants to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wishes {
    pub(crate) scheduler: String,
    /// Whether others may be evicted for it (`preemptionPolicy`).
    pub(crate) preempts: bool,
    /// The node that is being made free for it (`status.nominatedNodeName`).
    pub(crate) nominated: Option<String>,
    /// Whether it must not be scheduled yet (`schedulingGates`).
    pub(crate) gated: bool,
    pub(crate) node_selector: Vec<(String, String)>,
    /// `nodeSelectorTerms` of the required node affinity, if there is one.
    pub(crate) required_terms: Option<Vec<Value>>,
    /// `preferredDuringSchedulingIgnoredDuringExecution` of the node affinity.
    pub(crate) preferred_terms: Vec<Value>,
    pub(crate) tolerations: Vec<Value>,
    /// Required pod affinity.
    pub(crate) affinity: Vec<PodTerm>,
    /// Preferred pod affinity, and anti-affinity with negative weights.
    pub(crate) preferred_pods: Vec<(i64, PodTerm)>,
    /// `topologySpreadConstraints`.
    pub(crate) spread: Vec<SpreadConstraint>,
}

/// A port of the host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// The address; empty for all of them.
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i64,
}

impl HostPort {
    /// Whether two pods cannot have both.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let anywhere = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (anywhere(&self.ip) || anywhere(&other.ip) || self.ip == other.ip)
    }
}

/// The key of an object.
pub(crate) fn key(object: &DynamicObject) -> PodKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodKey { namespace: text(&object.metadata.namespace), name: text(&object.metadata.name) }
}

impl Pod {
    /// Reads a pod; `None` when it has ended and takes nothing any more.
    pub(crate) fn read(object: &DynamicObject) -> Option<Self> {
        let data = &object.data;
        if matches!(str_at(data, "/status/phase"), "Succeeded" | "Failed") {
            return None;
        }
        let node = Some(str_at(data, "/spec/nodeName")).filter(|node| !node.is_empty());
        // A pod that is being deleted before it ran will not run.
        let schedulable = node.is_none() && object.metadata.deletion_timestamp.is_none();
        let key = key(object);
        let namespace = key.namespace.clone();
        let labels = object.metadata.labels.iter().flatten();
        let labels: Labels =
            labels.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        Some(Self {
            key,
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            node: node.map(ToOwned::to_owned),
            requests: resources::pod_requests_in_use(data),
            ports: host_ports(data),
            priority: data.pointer("/spec/priority").and_then(Value::as_i64).unwrap_or(0),
            ending: object.metadata.deletion_timestamp.is_some(),
            preempted: object.metadata.deletion_timestamp.is_some() && makes_room(data),
            created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            anti_affinity: required_terms(data, "podAntiAffinity", &namespace, &labels),
            wishes: schedulable.then(|| Box::new(Wishes::read(data, &namespace, &labels))),
            labels,
        })
    }
}

/// Whether the scheduler has said that it deletes the pod.
fn makes_room(data: &Value) -> bool {
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        let is = |field: &str, text: &str| condition[field] == text;
        is("type", "DisruptionTarget") && is("status", "True") && is("reason", "PreemptionByScheduler")
    })
}

impl Wishes {
    fn read(data: &Value, namespace: &str, labels: &Labels) -> Self {
        let selector = data.pointer("/spec/nodeSelector").and_then(Value::as_object);
        let pairs = selector.into_iter().flatten();
        let affinity = data.pointer("/spec/affinity/nodeAffinity").unwrap_or(&Value::Null);
        let terms = affinity.pointer("/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        Self {
            scheduler: str_at(data, "/spec/schedulerName").to_owned(),
            preempts: str_at(data, "/spec/preemptionPolicy") != "Never",
            nominated: Some(str_at(data, "/status/nominatedNodeName"))
                .filter(|node| !node.is_empty())
                .map(ToOwned::to_owned),
            gated: !list(data, "/spec/schedulingGates").is_empty(),
            node_selector: pairs
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            required_terms: terms.and_then(Value::as_array).cloned(),
            preferred_terms: items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").to_vec(),
            tolerations: list(data, "/spec/tolerations").to_vec(),
            affinity: required_terms(data, "podAffinity", namespace, labels),
            preferred_pods: preferred_terms(data, namespace, labels),
            spread: list(data, "/spec/topologySpreadConstraints")
                .iter()
                .map(|constraint| SpreadConstraint::read(constraint, labels))
                .collect(),
        }
    }

    /// Whether a pod that is placed somewhere can make a node fit that did not.
    pub(crate) fn wants_company(&self) -> bool {
        !self.affinity.is_empty() || self.spread.iter().any(|constraint| constraint.required)
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn required_terms(data: &Value, kind: &str, namespace: &str, labels: &Labels) -> Vec<PodTerm> {
    let terms = list(data, &format!("/spec/affinity/{kind}/{REQUIRED}"));
    terms.iter().map(|term| PodTerm::read(term, namespace, labels)).collect()
}

fn preferred_terms(data: &Value, namespace: &str, labels: &Labels) -> Vec<(i64, PodTerm)> {
    let mut all = Vec::new();
    for (kind, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
        for weighted in list(data, &format!("/spec/affinity/{kind}/{PREFERRED}")) {
            let weight = weighted.get("weight").and_then(Value::as_i64).unwrap_or(0);
            let term = weighted.get("podAffinityTerm").unwrap_or(&Value::Null);
            all.push((sign * weight, PodTerm::read(term, namespace, labels)));
        }
    }
    all
}

/// The host ports of containers and sidecars; plain init containers have ended when the others start.
fn host_ports(data: &Value) -> Vec<HostPort> {
    let sidecars = list(data, "/spec/initContainers").iter().filter(|init| resources::is_sidecar(init));
    let containers = list(data, "/spec/containers").iter().chain(sidecars);
    let ports = containers.flat_map(|container| items(container, "ports"));
    ports
        .filter_map(|port| {
            let number = port.get("hostPort").and_then(Value::as_i64).filter(|number| *number > 0)?;
            let protocol = match str_of(port, "protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            Some(HostPort {
                ip: str_of(port, "hostIP").to_owned(),
                protocol: protocol.to_owned(),
                port: number,
            })
        })
        .collect()
}
