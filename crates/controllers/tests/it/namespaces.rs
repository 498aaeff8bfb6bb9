//! What every namespace gets, and how one goes.

use kube::api::DeleteParams;
use sampan_api::meta::list;
use serde_json::json;

use crate::cluster::{CA, Cluster, pod};

#[tokio::test]
async fn every_namespace_has_its_account_and_the_root_ca() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    for namespace in ["team", "default", "kube-system"] {
        cluster.until_there("serviceaccounts", namespace, "default").await;
        let map = cluster.until_there("configmaps", namespace, "kube-root-ca.crt").await;
        assert_eq!(map.data["data"]["ca.crt"], CA);
        assert!(map.metadata.annotations.unwrap().contains_key("kubernetes.io/description"));
    }
    cluster.delete("serviceaccounts", "team", "default", &DeleteParams::default()).await;
    cluster.until_there("serviceaccounts", "team", "default").await;
    cluster
        .patch("configmaps", "team", "kube-root-ca.crt", json!({"data": {"ca.crt": "forged", "x": "y"}}))
        .await;
    let restored =
        |found: Option<&kube::core::DynamicObject>| found.is_some_and(|map| map.data["data"]["ca.crt"] == CA);
    cluster.until("configmaps", "team", "kube-root-ca.crt", restored).await;
}

#[tokio::test]
async fn deleted_namespace_empties_itself_and_goes() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.create("secrets", "team", json!({"metadata": {"name": "s"}})).await;
    cluster.create("pods", "team", pod("web", json!({}))).await;
    let kept = json!({"metadata": {"name": "kept", "finalizers": ["example.com/keep"]}});
    cluster.create("configmaps", "team", kept).await;
    cluster.delete("namespaces", "", "team", &DeleteParams::default()).await;
    let waits = |found: Option<&kube::core::DynamicObject>| {
        let namespace = found.unwrap();
        list(&namespace.data, "/status/conditions").iter().any(|condition| {
            condition["type"] == "NamespaceFinalizersRemaining"
                && condition["status"] == "True"
                && condition["message"]
                    == "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"
        })
    };
    let namespace = cluster.until("namespaces", "", "team", waits).await.unwrap();
    assert_eq!(namespace.data["status"]["phase"], "Terminating");
    let remains = list(&namespace.data, "/status/conditions")
        .iter()
        .find(|condition| condition["type"] == "NamespaceContentRemaining")
        .unwrap();
    assert_eq!(remains["message"], "Some resources are remaining: configmaps. has 1 resource instances");
    cluster.until_gone("pods", "team", "web").await;
    cluster.until_gone("secrets", "team", "s").await;
    cluster.patch("configmaps", "team", "kept", json!({"metadata": {"finalizers": []}})).await;
    cluster.until_gone("namespaces", "", "team").await;
    assert!(cluster.get("serviceaccounts", "team", "default").await.is_none());
}

#[tokio::test]
async fn pods_go_before_what_they_live_on() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.create("secrets", "team", json!({"metadata": {"name": "s"}})).await;
    let mut slow = pod("slow", json!({}));
    slow["metadata"]["finalizers"] = json!(["example.com/keep"]);
    cluster.create("pods", "team", slow).await;
    cluster.delete("namespaces", "", "team", &DeleteParams::default()).await;
    let waits = |found: Option<&kube::core::DynamicObject>| {
        list(&found.unwrap().data, "/status/conditions").iter().any(|condition| {
            condition["message"] == "Some resources are remaining: pods. has 1 resource instances"
        })
    };
    cluster.until("namespaces", "", "team", waits).await;
    assert!(cluster.get("secrets", "team", "s").await.is_some());
    cluster.patch("pods", "team", "slow", json!({"metadata": {"finalizers": []}})).await;
    cluster.until_gone("namespaces", "", "team").await;
}
