//! Nodes, their taints, and pods that nobody runs.

use kube::core::DynamicObject;
use sampan_api::meta::list;
use serde_json::json;

use crate::cluster::Cluster;

fn taints(node: Option<&DynamicObject>) -> Vec<String> {
    let taints = list(&node.unwrap().data, "/spec/taints");
    taints
        .iter()
        .map(|taint| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn conditions_of_a_node_become_taints_at_once() {
    let cluster = Cluster::start().await;
    cluster.create("nodes", "", json!({"metadata": {"name": "n1"}})).await;
    let not_ready = |found: Option<&DynamicObject>| {
        taints(found) == ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
    };
    cluster.until("nodes", "", "n1", not_ready).await;
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    cluster.patch_status("nodes", "", "n1", ready).await;
    cluster.until("nodes", "", "n1", |found| taints(found).is_empty()).await;
    cluster.patch("nodes", "", "n1", json!({"spec": {"unschedulable": true}})).await;
    cluster
        .until("nodes", "", "n1", |found| taints(found) == ["node.kubernetes.io/unschedulable:NoSchedule"])
        .await;
}
