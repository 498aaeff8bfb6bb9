//! Pods that end, were ended, or cannot leave.

use super::{Finding, Story};

pub(super) fn findings(story: &Story) -> Vec<Finding> {
    let metadata = &story.pod.metadata;
    let (namespace, name) = (story.namespace(), story.name());
    let status = story.status();
    let mut findings = Vec::new();
    if metadata.deletion_timestamp.is_some() {
        let finalizers = metadata.finalizers.clone().unwrap_or_default();
        let finding = Finding::new("it is being deleted");
        findings.push(if finalizers.is_empty() {
            finding
                .detail(format!(
                    "its containers have {} s to end",
                    metadata.deletion_grace_period_seconds.unwrap_or(30)
                ))
                .fix(format!("should its node be gone: kubectl -n {namespace} delete pod {name} --grace-period=0 --force"))
        } else {
            finding
                .detail(format!("finalizers keep it: {}", finalizers.join(", ")))
                .fix("the controllers of these finalizers have to let it go")
        });
    }
    let reason = status.reason.unwrap_or_default();
    let message = status.message.unwrap_or_default();
    let verdict = match reason.as_str() {
        "Evicted" => Some((
            "the node evicted it",
            "free what the message names on the node, or set requests that the pod keeps to",
        )),
        "DeadlineExceeded" => {
            Some(("it ran longer than activeDeadlineSeconds", "raise the deadline, or make it faster"))
        }
        "NodeLost" | "NodeShutdown" => Some((
            "its node went away",
            "its controller makes another one; a bare pod has to be created again",
        )),
        "" => None,
        _ if story.phase() == "Failed" => {
            Some(("the node refused it", "repair what the message names and create it again"))
        }
        _ => None,
    };
    if let Some((what, fix)) = verdict {
        findings.push(Finding::new(format!("{what} ({reason})")).detail(message).fix(fix));
    }
    findings
}
