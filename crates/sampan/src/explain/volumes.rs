//! Volumes that are not there, and sandboxes that cannot be made: what comes before any container.

use super::{Finding, Story};

pub(super) fn findings(story: &Story) -> Vec<Finding> {
    let mut findings = Vec::new();
    let namespace = story.namespace();
    for (claim, phase) in &story.claims {
        match phase.as_deref() {
            None => findings.push(
                Finding::new(format!("PersistentVolumeClaim {claim} does not exist"))
                    .fix(format!("create it in namespace {namespace}")),
            ),
            Some("Bound") => {}
            Some(phase) => findings.push(
                Finding::new(format!("PersistentVolumeClaim {claim} is {phase}: no volume belongs to it"))
                    .fix(format!("kubectl -n {namespace} describe pvc {claim}")),
            ),
        }
    }
    if before_containers(story) {
        for (reason, what) in [
            ("FailedMount", "a volume cannot be mounted"),
            ("FailedAttachVolume", "a volume cannot be attached to the node"),
            ("FailedCreatePodSandBox", "the pod's sandbox (its network and namespaces) cannot be made"),
        ] {
            if let Some(message) = story.last_event(reason) {
                let finding = Finding::new(what).detail(&message);
                findings.push(advice(namespace, &message, finding));
            }
        }
    }
    findings
}

/// Whether no container has run yet: later, old events explain nothing.
fn before_containers(story: &Story) -> bool {
    let started =
        |(_, status): &(_, k8s_openapi::api::core::v1::ContainerStatus)| status.container_id.is_some();
    matches!(story.phase().as_str(), "Pending" | "Failed") && !story.container_statuses().iter().any(started)
}

fn advice(namespace: &str, message: &str, finding: Finding) -> Finding {
    let name = message.rsplit('"').nth(1).unwrap_or("NAME");
    let has = |words: &str| message.to_lowercase().contains(words);
    if has("configmap") && has("not found") {
        finding.fix(format!("kubectl -n {namespace} create configmap {name} --from-literal=KEY=VALUE"))
    } else if has("secret") && has("not found") {
        finding.fix(format!("kubectl -n {namespace} create secret generic {name} --from-literal=KEY=VALUE"))
    } else if has("runtimeclass") || has("handler") {
        finding.fix(
            "kubectl get runtimeclasses; the node needs the handler (runtime.handlers in its configuration)",
        )
    } else if has("hostpath") {
        finding.fix("make the path on the node, or use type: DirectoryOrCreate")
    } else {
        finding.fix("repair what the message names; attempts go on by themselves")
    }
}
