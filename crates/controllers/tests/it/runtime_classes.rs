//! Handlers of nodes become RuntimeClasses.

use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test]
async fn rtc_20_every_handler_of_a_node_has_a_class_of_its_name() {
    let cluster = Cluster::start().await;
    let classes = "runtimeclasses";
    cluster.create(classes, "", json!({"metadata": {"name": "mine"}, "handler": "special"})).await;
    cluster.create("nodes", "", json!({"metadata": {"name": "n1"}})).await;
    let handlers = |names: &[&str]| {
        let all: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"runtimeHandlers": all})
    };
    cluster.patch_status("nodes", "", "n1", handlers(&["", "crun", "mine"])).await;
    cluster
        .until(classes, "", "crun", |found| found.is_some_and(|class| class.data["handler"] == "crun"))
        .await;
    cluster.patch_status("nodes", "", "n1", handlers(&["", "gvisor", "mine"])).await;
    cluster.until(classes, "", "gvisor", |found| found.is_some()).await;
    cluster.until(classes, "", "crun", |found| found.is_none()).await;
    cluster
        .until(classes, "", "mine", |found| found.is_some_and(|class| class.data["handler"] == "special"))
        .await;
}
