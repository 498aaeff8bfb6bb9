//! Ports, DNS, host names and aliases.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, one_of},
};

fn number(port: &Value, field: &str) -> i64 {
    port.get(field).and_then(Value::as_i64).unwrap_or(0)
}

pub(super) fn ports(container: &Value, path: &Path, host_network: bool, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, port) in items(container, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = str_of(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                out.push(FieldError::duplicate(path.child("name"), name));
            }
            invalid_all(messages, name, &path.child("name"), out);
        }
        let (inner, host) = (number(port, "containerPort"), number(port, "hostPort"));
        if inner == 0 {
            out.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            let at = path.child("containerPort");
            out.extend(names::port_number(inner).into_iter().map(|m| FieldError::invalid(&at, inner, m)));
        }
        if host != 0 {
            let at = path.child("hostPort");
            out.extend(names::port_number(host).into_iter().map(|m| FieldError::invalid(&at, host, m)));
        }
        // ENV-12
        if host_network && host != inner {
            let message = "must match `containerPort` when `hostNetwork` is true";
            out.push(FieldError::invalid(path.child("hostPort"), host, message));
        }
        let protocol = str_of(port, "protocol");
        if protocol.is_empty() {
            out.push(FieldError::required(path.child("protocol"), ""));
        } else {
            one_of(protocol, &["SCTP", "TCP", "UDP"], &path.child("protocol"), out);
        }
        let ip = str_of(port, "hostIP");
        if !ip.is_empty() {
            invalid_all(names::ip_address(ip), ip, &path.child("hostIP"), out);
        }
    }
}

pub(super) fn host_port_conflicts(containers: &[Value], path: &Path, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let host = number(port, "hostPort");
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", str_of(port, "protocol"), str_of(port, "hostIP"));
            if !seen.insert(key.clone()) {
                out.push(FieldError::duplicate(path.index(i).child("ports").index(j).child("hostPort"), key));
            }
        }
    }
}

/// ENV-17.
pub(super) fn dns_config(spec: &Value, path: &Path, out: &mut Errors) {
    let path = path.child("dnsConfig");
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    let servers = items(config, "nameservers");
    if str_of(spec, "dnsPolicy") == "None" {
        if spec.get("dnsConfig").is_none() {
            out.push(FieldError::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            out.push(FieldError::required(path.child("nameservers"), message));
            return;
        }
    }
    if servers.len() > 3 {
        let shown = Value::from(servers.to_vec());
        out.push(FieldError::invalid(
            path.child("nameservers"),
            shown,
            "must not have more than 3 nameservers",
        ));
    }
    for (i, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        invalid_all(names::ip_address(server), server, &path.child("nameservers").index(i), out);
    }
    let searches = items(config, "searches");
    if searches.len() > 32 {
        let shown = Value::from(searches.to_vec());
        out.push(FieldError::invalid(
            path.child("searches"),
            shown,
            "must not have more than 32 search paths",
        ));
    }
    let length: usize = searches.iter().map(|s| s.as_str().unwrap_or_default().len() + 1).sum();
    if length.saturating_sub(1) > 2048 {
        let message = "must not have more than 2048 characters (including spaces) in the search list";
        out.push(FieldError::invalid(path.child("searches"), Value::from(searches.to_vec()), message));
    }
    for (i, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        if search == "." {
            continue;
        }
        let trimmed = search.strip_suffix('.').unwrap_or(search);
        // Underscores occur in real search paths (SRV names).
        invalid_all(
            names::dns1123_subdomain(&trimmed.replace('_', "a")),
            search,
            &path.child("searches").index(i),
            out,
        );
    }
    for (i, option) in items(config, "options").iter().enumerate() {
        if str_of(option, "name").is_empty() {
            out.push(FieldError::required(path.child("options").index(i), "must not be empty"));
        }
    }
}

pub(super) fn host_aliases(spec: &Value, path: &Path, out: &mut Errors) {
    for (i, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        let ip = str_of(alias, "ip");
        invalid_all(names::ip_address(ip), ip, &path.child("ip"), out);
        for (j, name) in items(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            invalid_all(names::dns1123_subdomain(name), name, &path.child("hostnames").index(j), out);
        }
    }
}

/// ENV-11.
pub(super) fn hostname_override(spec: &Value, path: &Path, out: &mut Errors) {
    let Some(name) = spec.get("hostnameOverride").and_then(Value::as_str) else { return };
    let at = path.child("hostnameOverride");
    let on = |field: &str| spec.get(field).and_then(Value::as_bool) == Some(true);
    if on("setHostnameAsFQDN") {
        out.push(FieldError::forbidden(&at, "may not be specified when setHostnameAsFQDN is true"));
    }
    if on("hostNetwork") {
        out.push(FieldError::forbidden(&at, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        out.push(FieldError::too_long(&at, 64));
    }
    invalid_all(names::dns1123_subdomain(name), name, &at, out);
}
