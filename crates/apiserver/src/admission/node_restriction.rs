//! NodeRestriction: a kubelet writes only its own Node, Lease and pods.

use async_trait::async_trait;
use sampan_api::{Status, meta, scheme};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::user::NODES;

/// Labels that only administrators set.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels below `kubernetes.io` and `k8s.io` that a kubelet may set.
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let user = &attributes.scope.context.user;
        if !user.is_in(NODES) {
            return Ok(());
        }
        let Some(node) = user.node_name().map(str::to_owned) else {
            return Err(
                attributes.forbidden(format!("could not determine node from user {:?}", user.username))
            );
        };
        let resource = attributes.resource();
        match (resource.group, resource.plural, attributes.scope.subresource) {
            ("", "pods", "") => pod(attributes, &node),
            ("", "pods", "status") => pod_status(attributes, &node),
            ("", "pods", "eviction") => eviction(attributes, &node).await,
            ("", "nodes", _) => node_object(attributes, &node),
            ("", "persistentvolumeclaims", _) => {
                Err(attributes.forbidden(format!("node {node:?} may only update PVC status")))
            }
            ("coordination.k8s.io", "leases", _) => lease(attributes, &node),
            ("storage.k8s.io", "csinodes", _) if attributes.name != node => Err(attributes
                .forbidden(format!("node {node:?} is not allowed to modify CSINode {:?}", attributes.name))),
            _ => Ok(()),
        }
    }
}

fn pod(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    match attributes.operation {
        Operation::Create => {
            let pod = &attributes.object;
            if meta::annotation(pod, MIRROR).is_none() {
                let why = format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                );
                return Err(attributes.forbidden(why));
            }
            if meta::str_at(pod, "/spec/nodeName") != node {
                let why = format!("node {node:?} can only create pods with spec.nodeName set to itself");
                return Err(attributes.forbidden(why));
            }
            if !meta::str_at(pod, "/spec/serviceAccountName").is_empty() {
                let why = format!("node {node:?} can not create pods that reference a service account");
                return Err(attributes.forbidden(why));
            }
            let volumes = meta::list(pod, "/spec/volumes").iter();
            for (field, word) in [
                ("secret", "secrets"),
                ("configMap", "configmaps"),
                ("persistentVolumeClaim", "persistentvolumeclaims"),
            ] {
                if volumes.clone().any(|volume| volume.get(field).is_some_and(|source| !source.is_null())) {
                    let why = format!("node {node:?} can not create pods that reference {word}");
                    return Err(attributes.forbidden(why));
                }
            }
            Ok(())
        }
        Operation::Delete => own_pod(attributes, node, "delete pods"),
        Operation::Update => Err(attributes.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
    }
}

fn own_pod(attributes: &Attributes<'_>, node: &str, what: &str) -> Result<(), Status> {
    let bound = attributes.old.map(|pod| meta::str_at(pod, "/spec/nodeName")).unwrap_or_default();
    if bound == node {
        return Ok(());
    }
    Err(attributes.forbidden(format!("node {node:?} can only {what} with spec.nodeName set to itself")))
}

fn pod_status(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    own_pod(attributes, node, "update pod status for pods")?;
    if attributes.old.is_some_and(|old| meta::labels(old) != meta::labels(&attributes.object)) {
        return Err(attributes.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

async fn eviction(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let Some(pods) = scheme::find("", "v1", "pods") else { return Ok(()) };
    let scope = attributes.scope;
    let pod = scope.server.registry.get_fresh(pods, scope.namespace, &attributes.name).await?;
    let pod = pod.ok_or_else(|| scope.not_found(&attributes.name))?.value();
    if meta::str_at(&pod, "/spec/nodeName") == node {
        return Ok(());
    }
    Err(attributes.forbidden(format!("node {node:?} can only evict pods with spec.nodeName set to itself")))
}

fn node_object(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let name = if attributes.name.is_empty() { meta::name(&attributes.object) } else { &attributes.name };
    if name != node {
        return Err(attributes.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let empty = Value::Null;
    let (new, old) = match attributes.operation {
        Operation::Create => (&attributes.object, &empty),
        Operation::Update => (&attributes.object, attributes.old.unwrap_or(&empty)),
        Operation::Delete => return Ok(()),
    };
    let mut refused = changed_labels(new, old);
    refused.retain(|label| !may_set(label));
    if let Some(label) = refused.first() {
        return Err(attributes.forbidden(format!(
            "is not allowed to modify labels: {}",
            if refused.len() == 1 { label.clone() } else { refused.join(", ") }
        )));
    }
    if attributes.operation == Operation::Update {
        if new.pointer("/spec/taints") != old.pointer("/spec/taints") {
            return Err(attributes.forbidden(format!("node {node:?} is not allowed to modify taints")));
        }
        if meta::owner_references(new) != meta::owner_references(old) {
            return Err(
                attributes.forbidden(format!("node {node:?} is not allowed to modify ownerReferences"))
            );
        }
    }
    Ok(())
}

/// The keys of labels that are not the same in both.
fn changed_labels(new: &Value, old: &Value) -> Vec<String> {
    let (new, old) = (meta::labels(new), meta::labels(old));
    let mut keys: Vec<String> =
        new.into_iter().chain(old).flat_map(|labels| labels.keys().cloned()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| new.and_then(|labels| labels.get(key)) != old.and_then(|labels| labels.get(key)));
    keys
}

fn may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let below = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if below(RESTRICTED) {
        return false;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return true;
    }
    KUBELET_LABELS.contains(&label) || KUBELET_LABEL_DOMAINS.iter().any(|domain| below(domain))
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attributes.scope.namespace != LEASE_NAMESPACE {
        let why = format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace");
        return Err(attributes.forbidden(why));
    }
    let name = if attributes.name.is_empty() { meta::name(&attributes.object) } else { &attributes.name };
    if name != node {
        return Err(
            attributes.forbidden("can only access node lease with the same name as the requesting node")
        );
    }
    Ok(())
}
