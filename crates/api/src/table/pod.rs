//! Pods: the READY, STATUS and RESTARTS columns, which sum up a whole status in a word.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    duration,
    meta::{self, items, list, str_at, str_of},
    resources::is_sidecar,
};

/// Row conditions of finished pods (kubectl's older `--show-all` reads them).
pub(super) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match str_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let finished = meta::parse_time(str_at(status, "/lastState/terminated/finishedAt"));
        self.last = self.last.max(finished);
    }
}

/// A terminated state's reason: `Error`, `Signal:9`, `ExitCode:3`.
fn ended(terminated: &Value) -> String {
    let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or(0);
    match (str_of(terminated, "reason"), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_true(status: &Value, field: &str) -> bool {
    status.get(field).and_then(Value::as_bool).unwrap_or(false)
}

/// READY, STATUS, RESTARTS.
fn summary(pod: &Value, now: Timestamp) -> (String, String, String) {
    let phase = str_at(pod, "/status/phase");
    let mut reason = match str_at(pod, "/status/reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let scheduled = meta::condition(pod, "PodScheduled");
    if scheduled.is_some_and(|c| str_of(c, "reason") == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let init = list(pod, "/spec/initContainers");
    let sidecar = |name: &str| init.iter().any(|c| str_of(c, "name") == name && is_sidecar(c));
    let total = list(pod, "/spec/containers").len() + init.iter().filter(|c| is_sidecar(c)).count();
    let (mut ready, mut initializing) = (0, false);
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    for (i, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let is_sidecar = sidecar(str_of(status, "name"));
        restarts.add(status);
        if is_sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = status.pointer("/state/terminated");
        let waiting = str_at(status, "/state/waiting/reason");
        if terminated.is_some_and(|t| t.get("exitCode").and_then(Value::as_i64).unwrap_or(0) == 0) {
            continue;
        }
        if is_sidecar && is_true(status, "started") {
            ready += usize::from(is_true(status, "ready"));
            continue;
        }
        reason = match terminated {
            Some(terminated) => format!("Init:{}", ended(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", init.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || meta::condition_is_true(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
            let waiting = str_at(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                reason = ended(terminated);
            } else if is_true(status, "ready") && status.pointer("/state/running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if meta::condition_is_true(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }
    if meta::is_deleting(pod) {
        if str_at(pod, "/status/reason") == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let restarts = match restarts.last {
        Some(at) if restarts.count != 0 => {
            format!("{} ({} ago)", restarts.count, duration::since(Some(at), now))
        }
        _ => restarts.count.to_string(),
    };
    (format!("{ready}/{total}"), reason, restarts)
}

pub(super) fn cells(pod: &Value, age: String, now: Timestamp) -> Vec<Value> {
    let (ready, status, restarts) = summary(pod, now);
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let ip = match str_at(pod, "/status/podIPs/0/ip") {
        "" => str_at(pod, "/status/podIP"),
        ip => ip,
    };
    let gates = list(pod, "/spec/readinessGates");
    let passed = gates.iter().filter(|g| meta::condition_is_true(pod, str_of(g, "conditionType"))).count();
    let gates = if gates.is_empty() { "<none>".into() } else { format!("{passed}/{}", gates.len()) };
    vec![
        meta::name(pod).into(),
        ready.into(),
        status.into(),
        restarts.into(),
        age.into(),
        or_none(ip),
        or_none(str_at(pod, "/spec/nodeName")),
        or_none(str_at(pod, "/status/nominatedNodeName")),
        gates.into(),
    ]
}

/// Names and images of a template's containers, comma-separated.
pub(super) fn containers(template: &Value) -> (String, String) {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let join = |field: &str| {
        items(spec, "containers").iter().map(|c| str_of(c, field)).collect::<Vec<_>>().join(",")
    };
    (join("name"), join("image"))
}
