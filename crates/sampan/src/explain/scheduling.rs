//! Pods that no node takes.

use super::{Finding, Story};

pub(super) fn findings(story: &Story) -> Vec<Finding> {
    let spec = story.spec();
    if spec.node_name.as_deref().is_some_and(|node| !node.is_empty())
        || story.pod.metadata.deletion_timestamp.is_some()
    {
        return Vec::new();
    }
    let gates = spec.scheduling_gates.unwrap_or_default();
    if !gates.is_empty() {
        let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
        return vec![
            Finding::new("it is held back by its scheduling gates")
                .detail(names.join(", "))
                .fix("whoever set spec.schedulingGates removes them when the pod may start"),
        ];
    }
    let conditions = story.status().conditions.unwrap_or_default();
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let message = condition
        .and_then(|condition| condition.message.clone())
        .or_else(|| story.last_event("FailedScheduling"));
    let Some(message) = message else {
        let scheduler = spec.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned());
        return vec![Finding::new("no scheduler has looked at it yet").fix(format!(
            "wait a moment; then check that the scheduler {scheduler:?} runs (spec.schedulerName)"
        ))];
    };
    let mut finding = Finding::new("no node can run it").detail(&message);
    for (words, fix) in [
        (
            "Insufficient",
            "lower resources.requests, delete other pods, or add a node (kubectl describe nodes shows what is taken)",
        ),
        ("Too many pods", "the node has its maxPods: delete pods, or raise --max-pods"),
        (
            "untolerated taint",
            "add a toleration to the pod, or remove the taint: kubectl taint nodes NODE KEY-",
        ),
        (
            "node affinity",
            "no node has the labels of nodeSelector or affinity: kubectl label node NODE KEY=VALUE",
        ),
        (
            "node selector",
            "no node has the labels of nodeSelector or affinity: kubectl label node NODE KEY=VALUE",
        ),
        ("free ports", "another pod holds the hostPort: use another port, or none"),
        ("unschedulable", "the node is cordoned: kubectl uncordon NODE"),
        ("persistentvolumeclaim", "the claim is not bound: kubectl describe pvc"),
        ("topology spread", "spec.topologySpreadConstraints cannot be met by these nodes"),
    ] {
        if message.contains(words) && !finding.fix.iter().any(|known| known == fix) {
            finding = finding.fix(fix);
        }
    }
    if finding.fix.is_empty() {
        finding = finding.fix("change what the message names");
    }
    vec![finding]
}
