//! Services, endpoints, Ingresses, network policies.

use serde_json::Value;

use super::{Errors, invalid_all, label_selector, labels, one_of, port, required_text};
use crate::{
    FieldError,
    field::Path,
    meta::{self, items, list, str_at, str_of},
    names,
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn service(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    let kind = str_of(spec, "type");
    one_of(kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &path.child("type"), out);
    let cluster_ip = str_of(spec, "clusterIP");
    let ports = items(spec, "ports");
    if ports.is_empty() && cluster_ip != "None" && kind != "ExternalName" {
        out.push(FieldError::required(path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if cluster_ip == "None" => {
            let message = format!("may not be set to 'None' for {kind} services");
            out.push(FieldError::invalid(path.child("clusterIPs").index(0), cluster_ip, message));
        }
        "ExternalName" => {
            if !cluster_ip.is_empty() {
                let message = "may not be set for ExternalName services";
                out.push(FieldError::forbidden(path.child("clusterIPs"), message));
            }
            let name = str_of(spec, "externalName");
            if name.is_empty() {
                out.push(FieldError::required(path.child("externalName"), ""));
            } else {
                let name = name.strip_suffix('.').unwrap_or(name);
                invalid_all(names::dns1123_subdomain(name), name, &path.child("externalName"), out);
            }
        }
        _ => {}
    }
    if !matches!(cluster_ip, "" | "None") {
        invalid_all(names::ip_address(cluster_ip), cluster_ip, &path.child("clusterIPs").index(0), out);
    }
    service_ports(ports, kind, &path.child("ports"), out);
    labels(spec.get("selector"), &path.child("selector"), out);
    let affinity = str_of(spec, "sessionAffinity");
    if affinity.is_empty() {
        out.push(FieldError::required(path.child("sessionAffinity"), ""));
    } else {
        one_of(affinity, &["ClientIP", "None"], &path.child("sessionAffinity"), out);
    }
    if let Some(n) = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64)
        && !(1..=86400).contains(&n)
    {
        let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        out.push(FieldError::invalid(path, n, "must be greater than 0 and less than 86400"));
    }
    for (i, ip) in items(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        invalid_all(names::non_special_ip(ip), ip, &path.child("externalIPs").index(i), out);
    }
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        let policy = str_of(spec, field);
        if !policy.is_empty() {
            one_of(policy, &["Cluster", "Local"], &path.child(field), out);
        }
    }
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && !items(spec, "externalIPs").is_empty();
    let policy = str_of(spec, "externalTrafficPolicy");
    if !policy.is_empty() && !external {
        let message = "may only be set for externally-accessible services";
        out.push(FieldError::invalid(path.child("externalTrafficPolicy"), policy, message));
    }
    for (i, cidr) in items(spec, "loadBalancerSourceRanges").iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default().trim();
        invalid_all(names::cidr(cidr), cidr, &path.child("loadBalancerSourceRanges").index(i), out);
    }
}

fn service_ports(ports: &[Value], kind: &str, path: &Path, out: &mut Errors) {
    let number = |p: &Value, field: &str| p.get(field).and_then(Value::as_i64).unwrap_or(0);
    for (i, entry) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = str_of(entry, "name");
        if ports.len() > 1 && name.is_empty() {
            out.push(FieldError::required(path.child("name"), ""));
        } else if !name.is_empty() {
            invalid_all(names::dns1123_label(name), name, &path.child("name"), out);
            if ports[..i].iter().any(|p| str_of(p, "name") == name) {
                out.push(FieldError::duplicate(path.child("name"), name));
            }
        }
        let n = number(entry, "port");
        out.extend(names::port_number(n).into_iter().map(|m| FieldError::invalid(path.child("port"), n, m)));
        let protocol = str_of(entry, "protocol");
        if protocol.is_empty() {
            out.push(FieldError::required(path.child("protocol"), ""));
        } else {
            one_of(protocol, &PROTOCOLS, &path.child("protocol"), out);
        }
        if kind != "ExternalName" || entry.get("targetPort").is_some() {
            port(entry.get("targetPort"), &path.child("targetPort"), out);
        }
        if kind == "ClusterIP" && number(entry, "nodePort") != 0 {
            let message = "may not be used when `type` is 'ClusterIP'";
            out.push(FieldError::forbidden(path.child("nodePort"), message));
        }
        if ports[..i].iter().any(|p| str_of(p, "protocol") == protocol && number(p, "port") == n) {
            let shown = serde_json::json!({"protocol": protocol, "port": n});
            out.push(FieldError::duplicate(&path, shown));
        }
    }
}

pub(super) fn service_update(new: &Value, old: &Value, out: &mut Errors) {
    let external = |o: &Value| str_at(o, "/spec/type") == "ExternalName";
    if external(old) || external(new) {
        return;
    }
    let (had, have) = (str_at(old, "/spec/clusterIP"), str_at(new, "/spec/clusterIP"));
    if !had.is_empty() && had != have {
        let ips = new.pointer("/spec/clusterIPs").cloned().unwrap_or_else(|| serde_json::json!([have]));
        out.push(FieldError::invalid("spec.clusterIPs[0]", ips, "may not change once set"));
    }
}

pub(super) fn endpoints(object: &Value, out: &mut Errors) {
    for (i, subset) in items(object, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(i);
        if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
            out.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (i, address) in items(subset, field).iter().enumerate() {
                let ip = str_of(address, "ip");
                let path = path.child(field).index(i);
                invalid_all(endpoint_address(object, ip), ip, &path.child("ip"), out);
                hostname(address, &path, out);
            }
        }
        let several = items(subset, "ports").len() > 1;
        for (i, entry) in items(subset, "ports").iter().enumerate() {
            let path = path.child("ports").index(i);
            if several {
                required_text(entry, "name", &path, out);
            }
            let n = entry.get("port").and_then(Value::as_i64).unwrap_or(0);
            out.extend(
                names::port_number(n).into_iter().map(|m| FieldError::invalid(path.child("port"), n, m)),
            );
            one_of(str_of(entry, "protocol"), &PROTOCOLS, &path.child("protocol"), out);
        }
    }
}

pub(super) fn endpoint_slice(object: &Value, out: &mut Errors) {
    let kind = str_of(object, "addressType");
    if kind.is_empty() {
        out.push(FieldError::required("addressType", ""));
    } else {
        one_of(kind, &["FQDN", "IPv4", "IPv6"], &Path::new("addressType"), out);
    }
    let endpoints = items(object, "endpoints");
    if endpoints.len() > 1000 {
        out.push(FieldError::too_many("endpoints", endpoints.len(), 1000));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = Path::new("endpoints").index(i);
        hostname(endpoint, &path, out);
        let path = path.child("addresses");
        if items(endpoint, "addresses").is_empty() {
            out.push(FieldError::required(&path, "must contain at least 1 address"));
        }
        for (i, address) in items(endpoint, "addresses").iter().enumerate() {
            let address = address.as_str().unwrap_or_default();
            let messages = match kind {
                "FQDN" => names::dns1123_subdomain(address),
                _ => endpoint_address(object, address),
            };
            invalid_all(messages, address, &path.index(i), out);
        }
    }
    let ports = items(object, "ports");
    for (i, entry) in ports.iter().enumerate() {
        let (path, name) = (Path::new("ports").index(i), str_of(entry, "name"));
        if !name.is_empty() {
            invalid_all(names::dns1123_label(name), name, &path.child("name"), out);
        }
        if ports[..i].iter().any(|p| str_of(p, "name") == name) {
            out.push(FieldError::duplicate(path.child("name"), name));
        }
        one_of(str_of(entry, "protocol"), &PROTOCOLS, &path.child("protocol"), out);
        if let Some(n) = entry.get("port").and_then(Value::as_i64) {
            let wrong = names::port_number(n).into_iter();
            out.extend(wrong.map(|m| FieldError::invalid(path.child("port"), n, m)));
        }
    }
}

pub(super) fn endpoint_slice_update(new: &Value, old: &Value, out: &mut Errors) {
    let kind = str_of(new, "addressType");
    if kind != str_of(old, "addressType") {
        out.push(FieldError::invalid("addressType", kind, super::IMMUTABLE));
    }
}

/// Those of the Service of the API server itself may be of this machine: it may listen there only.
fn endpoint_address(object: &Value, address: &str) -> Vec<String> {
    match (meta::namespace(object), meta::name(object)) {
        ("default", "kubernetes") => names::ip_address(address),
        _ => names::non_special_ip(address),
    }
}

/// It becomes a name of the cluster's DNS.
fn hostname(endpoint: &Value, path: &Path, out: &mut Errors) {
    let name = str_of(endpoint, "hostname");
    if !name.is_empty() {
        invalid_all(names::dns1123_label(name), name, &path.child("hostname"), out);
    }
}

pub(super) fn network_policy(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    label_selector(&spec["podSelector"], &path.child("podSelector"), out);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(i);
            for (i, entry) in items(rule, "ports").iter().enumerate() {
                let path = path.child("ports").index(i);
                one_of(str_of(entry, "protocol"), &PROTOCOLS, &path.child("protocol"), out);
                if entry.get("port").is_some() {
                    port(entry.get("port"), &path.child("port"), out);
                }
            }
            for (i, peer) in items(rule, peers).iter().enumerate() {
                let path = path.child(peers).index(i);
                let given = ["podSelector", "namespaceSelector", "ipBlock"].map(|f| peer.get(f).is_some());
                match given {
                    [false, false, false] => out.push(FieldError::required(&path, "must specify a peer")),
                    [pods, namespaces, true] if pods || namespaces => {
                        let message = "may not specify both ipBlock and another peer";
                        out.push(FieldError::forbidden(&path, message));
                    }
                    _ => {}
                }
                for field in ["podSelector", "namespaceSelector"] {
                    label_selector(&peer[field], &path.child(field), out);
                }
                if let Some(block) = peer.get("ipBlock") {
                    let cidr = str_of(block, "cidr");
                    invalid_all(names::cidr(cidr), cidr, &path.child("ipBlock").child("cidr"), out);
                }
            }
        }
    }
    for (i, kind) in items(spec, "policyTypes").iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        one_of(kind, &["Egress", "Ingress"], &path.child("policyTypes").index(i), out);
    }
}

pub(super) fn ingress(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if items(spec, "rules").is_empty() && spec.get("defaultBackend").is_none() {
        let message = "either `defaultBackend` or `rules` must be specified";
        out.push(FieldError::invalid(&path, items(spec, "rules").to_vec(), message));
    }
    if let Some(found) = spec.get("defaultBackend") {
        backend(found, &path.child("defaultBackend"), out);
    }
    for (i, rule) in list(object, "/spec/rules").iter().enumerate() {
        let path = path.child("rules").index(i);
        let host = str_of(rule, "host");
        if host.contains('*') {
            invalid_all(names::wildcard_dns1123_subdomain(host), host, &path.child("host"), out);
        } else if !host.is_empty() {
            invalid_all(names::dns1123_subdomain(host), host, &path.child("host"), out);
        }
        for (i, entry) in meta::list(rule, "/http/paths").iter().enumerate() {
            let path = path.child("http").child("paths").index(i);
            let kind = str_of(entry, "pathType");
            if kind.is_empty() {
                out.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
            } else {
                one_of(kind, &["Exact", "ImplementationSpecific", "Prefix"], &path.child("pathType"), out);
            }
            let at = str_of(entry, "path");
            if matches!(kind, "Exact" | "Prefix") && !at.starts_with('/') {
                out.push(FieldError::invalid(path.child("path"), at, "must be an absolute path"));
            }
            backend(&entry["backend"], &path.child("backend"), out);
        }
    }
}

fn backend(backend: &Value, path: &Path, out: &mut Errors) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            out.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => out.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(service), None) => {
            let path = path.child("service");
            if required_text(service, "name", &path, out) {
                let name = str_of(service, "name");
                invalid_all(names::dns1035_label(name), name, &path.child("name"), out);
            }
            let number = service.pointer("/port/number").and_then(Value::as_i64).unwrap_or(0);
            match (number, str_at(service, "/port/name")) {
                (0, "") => out.push(FieldError::required(&path, "port name or number is required")),
                (0, name) => {
                    invalid_all(names::port_name(name), name, &path.child("port").child("name"), out)
                }
                (n, _) => {
                    let path = path.child("port").child("number");
                    out.extend(names::port_number(n).into_iter().map(|m| FieldError::invalid(&path, n, m)));
                }
            }
        }
        _ => {}
    }
}
