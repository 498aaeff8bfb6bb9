//! The node authorizer: what a kubelet may do, by upstream's rules.
//!
//! What depends on the object's content (writing another node's Node or a pod that is bound elsewhere) is the
//! business of the NodeRestriction admission plugin.

use sampan_api::selector::FieldSelector;

use super::Attributes;
use super::defaults;
use super::graph::{Kind, NodeGraph};

/// The namespace of the nodes' Leases.
const NODE_LEASE: &str = "kube-node-lease";

/// Decides for the kubelet of `node`; the error is upstream's reason, often empty.
pub(super) fn authorize(graph: &NodeGraph, node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    if !ask.is_resource {
        return by_rules(ask);
    }
    match (ask.group, ask.resource) {
        ("", "secrets") => read_namespaced(graph, node, Kind::Secret, ask),
        ("", "configmaps") => read_namespaced(graph, node, Kind::ConfigMap, ask),
        ("", "persistentvolumeclaims") if ask.subresource == "status" => match ask.verb {
            "update" | "patch" => related(graph, node, Kind::PersistentVolumeClaim, ask),
            _ => Err("can only get/update/patch this type".to_owned()),
        },
        ("", "persistentvolumeclaims") => get(graph, node, Kind::PersistentVolumeClaim, ask),
        ("", "persistentvolumes") => get(graph, node, Kind::PersistentVolume, ask),
        ("", "serviceaccounts") if ask.subresource.is_empty() => {
            // For credential provider plugins, and to see when a waiting pod is worth another try.
            read_namespaced(graph, node, Kind::ServiceAccount, ask)
        }
        ("", "serviceaccounts") => token(graph, node, ask),
        ("", "nodes") => own_node(node, ask),
        ("", "pods") => pod(graph, node, ask),
        ("coordination.k8s.io", "leases") => lease(node, ask),
        ("storage.k8s.io", "csinodes") => csi_node(node, ask),
        _ => by_rules(ask),
    }
}

fn by_rules(ask: &Attributes<'_>) -> Result<(), String> {
    if defaults::node_rules().iter().any(|rule| rule.allows(ask)) { Ok(()) } else { Err(String::new()) }
}

fn related(graph: &NodeGraph, node: &str, kind: Kind, ask: &Attributes<'_>) -> Result<(), String> {
    if ask.name.is_empty() {
        return Err("No Object name found".to_owned());
    }
    let namespace = if kind == Kind::PersistentVolume { "" } else { ask.namespace };
    if graph.reaches(node, kind, namespace, ask.name) {
        return Ok(());
    }
    Err(format!("no relationship found between node '{node}' and this object"))
}

fn read_namespaced(graph: &NodeGraph, node: &str, kind: Kind, ask: &Attributes<'_>) -> Result<(), String> {
    if !matches!(ask.verb, "get" | "list" | "watch") {
        return Err("can only read resources of this type".to_owned());
    }
    if !ask.subresource.is_empty() {
        return Err("cannot read subresource".to_owned());
    }
    if ask.namespace.is_empty() {
        return Err("can only read namespaced object of this type".to_owned());
    }
    related(graph, node, kind, ask)
}

fn get(graph: &NodeGraph, node: &str, kind: Kind, ask: &Attributes<'_>) -> Result<(), String> {
    if ask.verb != "get" {
        return Err("can only get individual resources of this type".to_owned());
    }
    if !ask.subresource.is_empty() {
        return Err("cannot get subresource".to_owned());
    }
    related(graph, node, kind, ask)
}

fn token(graph: &NodeGraph, node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    if ask.verb != "create" || ask.name.is_empty() {
        return Err("can only create tokens for individual service accounts".to_owned());
    }
    if ask.subresource != "token" {
        return Err("can only create token subresource of serviceaccount".to_owned());
    }
    related(graph, node, Kind::ServiceAccount, ask)
}

fn lease(node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    if !matches!(ask.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if ask.namespace != NODE_LEASE {
        return Err(format!("can only access leases in the {NODE_LEASE:?} system namespace"));
    }
    // The name is not known when one is created; admission looks at it then.
    if ask.verb != "create" && ask.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn csi_node(node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    if !matches!(ask.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
    }
    if !ask.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".to_owned());
    }
    if ask.verb != "create" && ask.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn own_node(node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    match (ask.subresource, ask.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match ask.name {
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name if name == node => Ok(()),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => Err(String::new()),
    }
}

fn pod(graph: &NodeGraph, node: &str, ask: &Attributes<'_>) -> Result<(), String> {
    match (ask.subresource, ask.verb) {
        ("", "get") => get(graph, node, Kind::Pod, ask),
        ("", "list" | "watch") => {
            if selects_node(ask.field_selector, node) {
                return Ok(());
            }
            if !ask.name.is_empty() {
                return related(graph, node, Kind::Pod, ask);
            }
            Err("can only list/watch pods with spec.nodeName field selector".to_owned())
        }
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        _ => Err(String::new()),
    }
}

/// Whether one of the selector's terms is `spec.nodeName=NODE`.
fn selects_node(selector: &str, node: &str) -> bool {
    FieldSelector::parse(selector)
        .is_ok_and(|selector| selector.requires_exact("spec.nodeName") == Some(node))
}
