//! What namespaces use is counted.

use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test]
async fn rtc_24_quota_status_follows_the_pods() {
    let cluster = Cluster::start().await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "configmaps": "10"});
    cluster
        .create("resourcequotas", "default", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))
        .await;
    let used = |pods: &'static str, cpu: &'static str| {
        move |found: Option<&kube::core::DynamicObject>| {
            let status = &found.unwrap().data["status"];
            status["used"]["pods"] == pods
                && status["used"]["requests.cpu"] == cpu
                && status["hard"]["pods"] == "2"
        }
    };
    cluster.until("resourcequotas", "default", "q", used("0", "0")).await;
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "300m"}}});
    for name in ["one", "two"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [container]}});
        cluster.create("pods", "default", pod).await;
    }
    cluster.until("resourcequotas", "default", "q", used("2", "600m")).await;
    cluster.patch_status("pods", "default", "one", json!({"phase": "Succeeded"})).await;
    cluster.until("resourcequotas", "default", "q", used("1", "300m")).await;
    cluster
        .patch(
            "resourcequotas",
            "default",
            "q",
            json!({"spec": {"hard": {"pods": "2", "requests.cpu": "2"}}}),
        )
        .await;
    cluster
        .until("resourcequotas", "default", "q", |found| {
            found.unwrap().data["status"]["hard"]["requests.cpu"] == "2"
        })
        .await;
}
