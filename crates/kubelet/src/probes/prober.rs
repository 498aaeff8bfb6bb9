//! One probe of one container: when it runs, what it asks, what the answer means.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ProbeKind, ProbeResults};
use crate::context::NodeContext;
use crate::events::EventType;
use crate::generate::expansion::expand;
use crate::http_get::{self, HttpGet};
use crate::pod_ref::{self, ContainerKind};

/// Bytes of a probe's output in an event.
const MAX_OUTPUT: usize = 1_024;
/// How much later than its own limit an answer of the runtime may come; then the probe gives up by itself.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Everything that a probe needs.
pub(crate) struct Prober {
    pub(crate) ctx: Arc<NodeContext>,
    pub(crate) results: ProbeResults,
    pub(crate) pod: Arc<Pod>,
    pub(crate) kind: ContainerKind,
    pub(crate) container: Arc<Container>,
    pub(crate) container_id: String,
    pub(crate) pod_ip: String,
    /// How long the container already runs.
    pub(crate) running_for: Duration,
    /// Called when a verdict changed.
    pub(crate) changed: Arc<dyn Fn() + Send + Sync>,
}

/// The answer to one question.
enum Outcome {
    Success,
    /// Counts as a success, with a warning (POD-40).
    Warning(String),
    Failure(String),
    /// The question could not be asked: an event tells of it, but it counts as no answer (POD-43).
    Error(String),
}

impl Prober {
    /// Asks until the task is aborted, or, for a startup probe, until it succeeded.
    pub(crate) async fn run(self, probe_kind: ProbeKind) {
        let Some(probe) = probe_kind.of(&self.container).cloned() else { return };
        let at_least =
            |value: Option<i32>, default: i32| u32::try_from(value.unwrap_or(default).max(1)).unwrap_or(1);
        let period = Duration::from_secs(u64::from(at_least(probe.period_seconds, 10)));
        let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        let success_threshold = at_least(probe.success_threshold, 1);
        let failure_threshold = at_least(probe.failure_threshold, 3);
        if probe_kind == ProbeKind::Startup && self.results.get(probe_kind, &self.container_id) == Some(true)
        {
            // Known from an earlier daemon.
            return;
        }
        // From the container's start, however long it takes to start up.
        let begins = tokio::time::Instant::now() + delay.saturating_sub(self.running_for);
        self.wait_for_startup(probe_kind).await;
        tokio::time::sleep_until(begins).await;
        let mut ticks = tokio::time::interval(period);
        // A slow answer moves no later question.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut last = None;
        let mut in_a_row = 0;
        loop {
            ticks.tick().await;
            let Some(success) = self.ask(probe_kind, &probe).await else { continue };
            in_a_row = if last == Some(success) { in_a_row + 1 } else { 1 };
            last = Some(success);
            let threshold = if success { success_threshold } else { failure_threshold };
            // Readiness is false from the first failure on when it never was true.
            let undecided = probe_kind == ProbeKind::Readiness
                && self.results.get(probe_kind, &self.container_id).is_none();
            let decided_at_once = undecided && !success;
            if in_a_row < threshold && !decided_at_once {
                continue;
            }
            if self.results.set(probe_kind, &self.container_id, success) {
                (self.changed)();
            }
            if probe_kind == ProbeKind::Startup && success {
                return;
            }
            if probe_kind != ProbeKind::Readiness && !success {
                // The container is killed for it; its successor has a prober of its own.
                return;
            }
        }
    }

    async fn wait_for_startup(&self, kind: ProbeKind) {
        if kind == ProbeKind::Startup || self.container.startup_probe.is_none() {
            return;
        }
        self.results.started_up(&self.container_id).await;
    }

    /// The verdict; `None` when the question could not be asked.
    async fn ask(&self, kind: ProbeKind, probe: &Probe) -> Option<bool> {
        let timeout =
            Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
        let began = tokio::time::Instant::now();
        let outcome = if let Some(exec) = &probe.exec {
            self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await
        } else if let Some(get) = &probe.http_get {
            self.http(get, timeout).await
        } else if let Some(tcp) = &probe.tcp_socket {
            self.tcp(tcp.host.as_deref(), &tcp.port, timeout).await
        } else if let Some(grpc) = &probe.grpc {
            self.grpc(grpc.port, grpc.service.as_deref().unwrap_or_default(), timeout).await
        } else {
            Outcome::Error("missing probe handler".to_owned())
        };
        let result = match &outcome {
            Outcome::Success | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Error(_) => "unknown",
        };
        let seconds = began.elapsed().as_secs_f64();
        self.ctx.metrics.probes.ended(&self.pod, &self.container.name, kind.as_str(), result, seconds);
        self.report(kind, outcome)
    }

    fn report(&self, kind: ProbeKind, outcome: Outcome) -> Option<bool> {
        let event = |reason: &str, message: String| {
            let reference = pod_ref::container_reference(&self.pod, self.kind, &self.container.name);
            self.ctx.recorder.record(reference, EventType::Warning, reason, message);
        };
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(output) => {
                event("ProbeWarning", format!("{} probe warning: {}", kind.as_str(), cut(&output)));
                Some(true)
            }
            Outcome::Failure(output) => {
                event("Unhealthy", format!("{} probe failed: {}", kind.as_str(), cut(&output)));
                Some(false)
            }
            Outcome::Error(error) => {
                event(
                    "Unhealthy",
                    format!("{} probe errored and resulted in unknown state: {}", kind.as_str(), cut(&error)),
                );
                None
            }
        }
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        // Only the static environment is known here (ENV-40).
        let environment: std::collections::HashMap<&str, &str> = self
            .container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| Some((variable.name.as_str(), variable.value.as_deref()?)))
            .collect();
        let command: Vec<String> = command
            .iter()
            .map(|part| expand(part, |name| environment.get(name).map(|value| (*value).to_owned())))
            .collect();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(1);
        let timed_out = || {
            let words = command.join(" ");
            Outcome::Failure(format!("command timed out: {words:?} timed out after {seconds}s"))
        };
        let call = self.ctx.config.cri.exec_sync(&self.container_id, command.clone(), seconds);
        match tokio::time::timeout(timeout.saturating_add(ANSWER_TIME), call).await {
            Ok(Ok(answer)) if answer.exit_code == 0 => Outcome::Success,
            Ok(Ok(answer)) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                output.truncate(MAX_OUTPUT);
                Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
            }
            Err(_) => timed_out(),
            Ok(Err(status)) if status.code() == tonic::Code::DeadlineExceeded => timed_out(),
            Ok(Err(status)) => Outcome::Error(crate::cri::go_error(&status)),
        }
    }

    async fn http(&self, get: &k8s_openapi::api::core::v1::HTTPGetAction, timeout: Duration) -> Outcome {
        let port = match resolve_port(&get.port, &self.container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let request = HttpGet {
            https: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| self.pod_ip.clone()),
            port,
            path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
            headers: http_get::headers(get.http_headers.as_ref(), "kube-probe/1.36"),
            whole: true,
        };
        match tokio::time::timeout(timeout, http_get::get(&request)).await {
            Ok(Ok(answer)) if answer.status.is_success() => Outcome::Success,
            Ok(Ok(answer)) if answer.status.is_redirection() => {
                Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
            }
            Ok(Ok(answer)) => {
                Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
            }
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!(
                "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            )),
        }
    }

    async fn tcp(&self, host: Option<&str>, port: &IntOrString, timeout: Duration) -> Outcome {
        let port = match resolve_port(port, &self.container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let host = host.filter(|host| !host.is_empty()).unwrap_or(&self.pod_ip);
        match tokio::time::timeout(timeout, http_get::dial(host, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", http_get::authority(host, port))),
        }
    }

    async fn grpc(&self, port: i32, service: &str, timeout: Duration) -> Outcome {
        let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else {
            return Outcome::Error(format!("invalid port number: {port}"));
        };
        match super::grpc_health::check(&self.pod_ip, port, service, timeout).await {
            Ok(()) => Outcome::Success,
            Err(error) => Outcome::Failure(error),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_OUTPUT).collect()
}

/// A port by number, numeric text or name (HOOK-10).
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name.as_str()));
            match (named, name.parse::<i64>()) {
                (Some(port), _) => i64::from(port.container_port),
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("port {name} not found")),
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hook_10_ports_by_number_text_and_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        let resolve = |port: IntOrString| resolve_port(&port, &container);
        assert_eq!(resolve(IntOrString::Int(80)), Ok(80));
        assert_eq!(resolve(IntOrString::String("81".into())), Ok(81));
        assert_eq!(resolve(IntOrString::String("web".into())), Ok(8080));
        assert_eq!(resolve(IntOrString::String("nope".into())).unwrap_err(), "port nope not found");
        assert_eq!(resolve(IntOrString::Int(70_000)).unwrap_err(), "invalid port number: 70000");
        assert_eq!(resolve(IntOrString::Int(0)).unwrap_err(), "invalid port number: 0");
    }
}
