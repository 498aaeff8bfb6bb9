//! One decision: the best node for a pod, or why there is none. Pure.

use crate::cluster::Cluster;
use crate::filter::{self, Rejection};
use crate::pod::{Pod, Wishes};
use crate::score::score;

/// The name of the node on which the pod should run.
pub(crate) fn decide(cluster: &Cluster, pod: &Pod, wishes: &Wishes) -> Result<String, Vec<Rejection>> {
    let mut rejections = Vec::new();
    let mut best = None;
    for (node, state) in cluster.nodes() {
        match filter::check(pod, wishes, node, state) {
            Ok(()) => {
                let score = score(pod, wishes, node, state);
                if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                    best = Some((score, node.name.as_str()));
                }
            }
            Err(rejection) => rejections.push(rejection),
        }
    }
    best.map(|(_, name)| name.to_owned()).ok_or(rejections)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::filter::tests::{node, pod};

    fn decide_for(cluster: &Cluster, pod: &Pod) -> Result<String, Vec<Rejection>> {
        decide(cluster, pod, pod.wishes.as_ref().unwrap())
    }

    #[test]
    fn emptiest_node_wins_unless_something_speaks_against_it() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", json!({})));
        cluster.set_node(node("b", json!({"labels": {"zone": "near"}})));
        let soft = json!({"spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}});
        cluster.set_node(node("c", soft));
        let mut busy = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
        busy.node = Some("a".into());
        busy.key.name = "busy".into();
        cluster.set_pod(busy);
        assert_eq!(decide_for(&cluster, &pod(json!({}))).unwrap(), "b");
        let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}}
        ]}}});
        assert_eq!(decide_for(&cluster, &pod(preferred)).unwrap(), "a");
    }

    #[test]
    fn no_node_is_told_apart_from_no_fitting_node() {
        let mut cluster = Cluster::default();
        assert_eq!(decide_for(&cluster, &pod(json!({}))).unwrap_err().len(), 0);
        cluster.set_node(node("a", json!({"spec": {"unschedulable": true}})));
        assert_eq!(decide_for(&cluster, &pod(json!({}))).unwrap_err().len(), 1);
    }
}
