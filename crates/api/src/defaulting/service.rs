//! Services, endpoints and network policies.

use serde_json::{Value, json};

use super::{each, field_mut, set, set_text};
use crate::meta::{items, str_of};

pub(super) fn service(object: &mut Value) {
    let spec = field_mut(object, "spec");
    set_text(spec, "sessionAffinity", "None");
    if str_of(spec, "sessionAffinity") == "None" {
        crate::meta::object_mut(spec).remove("sessionAffinityConfig");
    } else {
        let client = field_mut(field_mut(spec, "sessionAffinityConfig"), "clientIP");
        set(client, "timeoutSeconds", 10800);
    }
    set_text(spec, "type", "ClusterIP");
    let kind = str_of(spec, "type").to_owned();
    for port in each(spec, "ports") {
        set_text(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(n) => n.as_i64() == Some(0),
        };
        if let (true, Some(number)) = (unset, port.get("port").cloned()) {
            port["targetPort"] = number;
        }
    }
    let exposed = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if exposed || (kind == "ClusterIP" && !items(spec, "externalIPs").is_empty()) {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if exposed || kind == "ClusterIP" {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub(super) fn endpoints(object: &mut Value) {
    for port in each(object, "subsets").flat_map(|s| each(s, "ports")) {
        set_text(port, "protocol", "TCP");
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in each(object, "ports") {
        set(port, "name", "");
        set(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(object: &mut Value) {
    let spec = field_mut(object, "spec");
    for list in ["ingress", "egress"] {
        for port in each(spec, list).flat_map(|rule| each(rule, "ports")) {
            set(port, "protocol", "TCP");
        }
    }
    if items(spec, "policyTypes").is_empty() {
        let egress = !items(spec, "egress").is_empty();
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}
