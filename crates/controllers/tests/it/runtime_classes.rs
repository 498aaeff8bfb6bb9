//! Handlers of nodes become RuntimeClasses.

use std::time::Duration;

use sampan_controllers::ControllersConfig;
use serde_json::json;

use crate::cluster::Cluster;

const CLASSES: &str = "runtimeclasses";

/// From now on the node offers these handlers and no others.
async fn offer(cluster: &Cluster, names: &[&str]) {
    let all: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    cluster.patch_status("nodes", "", "n1", json!({"runtimeHandlers": all})).await;
}

#[tokio::test]
async fn rtc_20_every_handler_of_a_node_has_a_class_of_its_name() {
    let idle_runtime_classes = Duration::ZERO;
    let cluster = Cluster::with(ControllersConfig { idle_runtime_classes, ..Default::default() }).await;
    cluster.create(CLASSES, "", json!({"metadata": {"name": "mine"}, "handler": "special"})).await;
    cluster.create("nodes", "", json!({"metadata": {"name": "n1"}})).await;
    offer(&cluster, &["", "changed", "crun", "mine"]).await;
    cluster
        .until(CLASSES, "", "crun", |found| found.is_some_and(|class| class.data["handler"] == "crun"))
        .await;
    cluster.until_there(CLASSES, "", "changed").await;
    cluster.patch(CLASSES, "", "changed", json!({"overhead": {"podFixed": {"memory": "64Mi"}}})).await;
    offer(&cluster, &["", "gvisor", "mine"]).await;
    cluster.until_there(CLASSES, "", "gvisor").await;
    cluster.until_gone(CLASSES, "", "crun").await;
    // What people have put into one of ours is theirs. (It comes before "crun" in the list.)
    assert!(cluster.get(CLASSES, "", "changed").await.is_some());
    let mine = cluster.get(CLASSES, "", "mine").await.expect("somebody else's class");
    assert_eq!(mine.data["handler"], "special");
}

#[tokio::test]
async fn rtc_20_a_class_outlives_a_moment_without_its_handler() {
    let cluster = Cluster::start().await;
    cluster.create("nodes", "", json!({"metadata": {"name": "n1"}})).await;
    offer(&cluster, &["", "crun"]).await;
    let before = cluster.until_there(CLASSES, "", "crun").await;
    offer(&cluster, &["", "gvisor"]).await;
    cluster.until_there(CLASSES, "", "gvisor").await;
    offer(&cluster, &["", "crun", "runc"]).await;
    // All that was to be done about the one before is done by then.
    cluster.until_there(CLASSES, "", "runc").await;
    let after = cluster.get(CLASSES, "", "crun").await.expect("the class");
    assert_eq!(after.metadata.uid, before.metadata.uid);
}
