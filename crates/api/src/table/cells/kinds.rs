//! The kinds whose cells take more than a look at a path: jobs, services, nodes, events and their like.

use jiff::Timestamp;
use serde_json::Value;

use super::words::{NONE, UNKNOWN, int, join_or, or, scalar, selector_text};
use crate::{
    duration,
    field_error::go_quote,
    meta::{self, items, list, str_at, str_of},
    table::pod,
};

pub(super) fn job(object: &Value, now: Timestamp, age: String) -> Vec<Value> {
    let succeeded = int(object, "/status/succeeded");
    let parallelism = int(object, "/spec/parallelism");
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(n) => format!("{succeeded}/{n}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |pointer: &str| meta::parse_time(str_at(object, pointer));
    let took = match (time("/status/startTime"), time("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration::human(end.unwrap_or(now).as_second() - start.as_second()),
    };
    let has = |condition: &str| meta::condition_is_true(object, condition);
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::is_deleting(object) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let (names, images) = pod::containers(object.pointer("/spec/template").unwrap_or(&Value::Null));
    let selector = selector_text(object.pointer("/spec/selector"));
    let cells =
        [meta::name(object).to_owned(), status.to_owned(), completions, took, age, names, images, selector];
    cells.map(Value::from).to_vec()
}

pub(super) fn external_ip(service: &Value) -> String {
    let external: Vec<String> =
        list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match str_at(service, "/spec/type") {
        "ExternalName" => str_at(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<String> = list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|i| or(str_of(i, "ip"), str_of(i, "hostname")).to_owned())
                .collect();
            all.extend(external);
            join_or(all, "<pending>")
        }
        _ => join_or(external, NONE),
    }
}

pub(super) fn service_ports(service: &Value) -> String {
    let ports = list(service, "/spec/ports").iter().map(|p| {
        let (port, protocol) = (scalar(p.get("port"), "0"), str_of(p, "protocol"));
        match p.get("nodePort").and_then(Value::as_i64) {
            Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
            _ => format!("{port}/{protocol}"),
        }
    });
    join_or(ports.collect(), NONE)
}

/// At most three, then how many more.
pub(super) fn few(all: impl Iterator<Item = String>, otherwise: &str) -> String {
    let all: Vec<String> = all.collect();
    match all.len() {
        0 => otherwise.to_owned(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

pub(super) fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(object, "subsets") {
        let addresses = || items(subset, "addresses").iter().map(|a| str_of(a, "ip"));
        if items(subset, "ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in items(subset, "ports") {
            let number = scalar(port.get("port"), "0");
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
            }));
        }
    }
    few(all.into_iter(), NONE)
}

pub(super) fn node(object: &Value, age: String) -> Vec<Value> {
    let mut status = match meta::condition(object, "Ready") {
        Some(c) if str_of(c, "status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<String> = meta::labels(object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            None if key == "kubernetes.io/role" => {
                value.as_str().filter(|v| !v.is_empty()).map(str::to_owned)
            }
            _ => None,
        })
        .collect();
    roles.sort();
    roles.dedup();
    let address = |kind: &str| {
        let found = list(object, "/status/addresses").iter().find(|a| str_of(a, "type") == kind);
        found.map_or(NONE, |a| str_of(a, "address")).to_owned()
    };
    let info = |field: &str| or(str_at(object, &format!("/status/nodeInfo/{field}")), UNKNOWN).to_owned();
    let cells = [
        meta::name(object).to_owned(),
        status,
        join_or(roles, NONE),
        age,
        str_at(object, "/status/nodeInfo/kubeletVersion").to_owned(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ];
    cells.map(Value::from).to_vec()
}

/// Both shapes of events: core/v1 and events.k8s.io/v1.
pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, new: &str| or(str_at(object, core), str_at(object, new)).to_owned();
    let time = |pointers: &[&str]| pointers.iter().find_map(|p| meta::parse_time(str_at(object, p)));
    let first = time(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = time(&["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp"]).or(first);
    let count =
        ["/series/count", "/count", "/deprecatedCount"].iter().map(|p| int(object, p)).find(|n| *n > 0);
    let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
    let target = either("/involvedObject/name", "/regarding/name");
    let target = if target.is_empty() { kind } else { format!("{kind}/{target}") };
    let component = or(
        &either("/source/component", "/deprecatedSource/component"),
        &either("/reportingComponent", "/reportingController"),
    )
    .to_owned();
    let host = or(&either("/source/host", "/deprecatedSource/host"), "").to_owned();
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        duration::since(last, now).into(),
        str_of(object, "type").into(),
        str_of(object, "reason").into(),
        target.into(),
        either("/involvedObject/fieldPath", "/regarding/fieldPath").into(),
        source.into(),
        either("/message", "/note").trim().into(),
        duration::since(first, now).into(),
        count.unwrap_or(1).into(),
        meta::name(object).into(),
    ]
}

pub(super) fn certificate_condition(object: &Value) -> String {
    let has = |kind: &str| meta::condition_is_true(object, kind);
    let mut words = Vec::new();
    match (has("Approved"), has("Denied")) {
        (_, true) => words.push("Denied"),
        (true, false) => words.push("Approved"),
        _ => words.push("Pending"),
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !str_at(object, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

/// `cpu: 10%/80%`, at most two, then how many more.
pub(super) fn autoscaler_targets(object: &Value) -> String {
    let (wanted, current) = (list(object, "/spec/metrics"), list(object, "/status/currentMetrics"));
    let one = |(i, metric): (usize, &Value)| {
        let part = match str_of(metric, "type") {
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            _ => "external",
        };
        let inner = &metric[part];
        let now = current.get(i).map_or(&Value::Null, |c| &c[part]["current"]);
        let target = &inner["target"];
        let percent =
            |v: &Value| v.get("averageUtilization").and_then(Value::as_i64).map(|n| format!("{n}%"));
        let amount = |v: &Value| {
            let value = v.get("averageValue").or_else(|| v.get("value"));
            value.map(|q| scalar(Some(q), UNKNOWN))
        };
        let pair = match percent(target) {
            Some(target) => format!("{}/{target}", percent(now).unwrap_or(UNKNOWN.into())),
            None => format!(
                "{}/{}",
                amount(now).unwrap_or(UNKNOWN.into()),
                amount(target).unwrap_or(UNKNOWN.into())
            ),
        };
        match part {
            "resource" => format!("{}: {pair}", str_of(inner, "name")),
            "containerResource" => format!("{}: {pair}", go_quote(str_of(inner, "name")).trim_matches('"')),
            _ => pair,
        }
    };
    let all: Vec<String> = wanted.iter().enumerate().map(one).collect();
    match all.len() {
        0 => NONE.into(),
        1 | 2 => all.join(", "),
        n => format!("{} + {} more...", all[..2].join(", "), n - 2),
    }
}
