//! Pods that run and are not ready.

use super::{Finding, Story};

pub(super) fn findings(story: &Story) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, status) in story.container_statuses() {
        let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        if kind != "container" || !running || status.ready {
            continue;
        }
        let probe = if status.started == Some(false) { "startup" } else { "readiness" };
        let path = format!("spec.containers{{{}}}", status.name);
        let unhealthy = story.events.iter().rev().find(|event| {
            event.reason.as_deref() == Some("Unhealthy")
                && event.involved_object.field_path.as_deref() == Some(&path)
        });
        let finding = Finding::new(format!(
            "container {}: it runs, but its {probe} probe has not succeeded",
            status.name
        ));
        findings.push(match unhealthy.and_then(|event| event.message.clone()) {
            Some(message) => finding
                .detail(message)
                .fix(format!("until it succeeds no Service sends it anything: check port, path and command of {probe}Probe")),
            None => finding.fix(format!("it may just need time: the probe's initialDelaySeconds and periodSeconds say how much ({probe}Probe)")),
        });
    }
    let gates = story.spec().readiness_gates.unwrap_or_default();
    let conditions = story.status().conditions.unwrap_or_default();
    for gate in gates {
        let is_true = |condition: &k8s_openapi::api::core::v1::PodCondition| {
            condition.type_ == gate.condition_type && condition.status == "True"
        };
        if story.phase() == "Running" && !conditions.iter().any(is_true) {
            findings.push(
                Finding::new(format!("readiness gate {} is not met", gate.condition_type))
                    .fix("whoever is named in spec.readinessGates sets that condition"),
            );
        }
    }
    findings
}
