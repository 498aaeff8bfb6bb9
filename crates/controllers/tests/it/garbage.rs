//! Dependents go with their owner, before it, or stay.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn owned(name: &str, owners: &[(&str, &str)]) -> Value {
    let owners = owners.iter().map(|(name, uid)| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true})
    });
    json!({"metadata": {"name": name, "ownerReferences": owners.collect::<Vec<_>>()}})
}

/// `owner` <- `child` <- `grandchild`, and `both`, which has another owner too.
async fn family(cluster: &Cluster) {
    let map = |name: &str| json!({"metadata": {"name": name}});
    let owner = cluster.create("configmaps", "default", map("owner")).await;
    let other = cluster.create("configmaps", "default", map("other")).await;
    let child = cluster.create("configmaps", "default", owned("child", &[("owner", &owner)])).await;
    cluster.create("secrets", "default", owned("grandchild", &[("child", &child)])).await;
    cluster.create("configmaps", "default", owned("both", &[("owner", &owner), ("other", &other)])).await;
}

async fn owners(cluster: &Cluster, plural: &str, name: &str) -> Vec<String> {
    let object = cluster.get(plural, "default", name).await.unwrap();
    object.metadata.owner_references.unwrap_or_default().into_iter().map(|owner| owner.name).collect()
}

async fn until_owners(cluster: &Cluster, name: &str, expected: &[&str]) {
    for _ in 0..1000 {
        if owners(cluster, "configmaps", name).await == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} has the owners {:?}", owners(cluster, "configmaps", name).await);
}

#[tokio::test]
async fn dependents_go_after_their_owner() {
    let cluster = Cluster::start().await;
    family(&cluster).await;
    cluster.delete("configmaps", "default", "owner", &DeleteParams::background()).await;
    cluster.until_gone("configmaps", "default", "child").await;
    cluster.until_gone("secrets", "default", "grandchild").await;
    assert!(cluster.get("configmaps", "default", "both").await.is_some(), "its other owner keeps it");
}

#[tokio::test]
async fn owner_goes_after_its_dependents() {
    let cluster = Cluster::start().await;
    family(&cluster).await;
    cluster
        .patch("secrets", "default", "grandchild", json!({"metadata": {"finalizers": ["example.com/wait"]}}))
        .await;
    cluster.delete("configmaps", "default", "owner", &DeleteParams::foreground()).await;
    let deleting =
        |found: Option<&kube::core::DynamicObject>| found.unwrap().metadata.deletion_timestamp.is_some();
    cluster.until("secrets", "default", "grandchild", deleting).await;
    until_owners(&cluster, "both", &["other"]).await;
    for name in ["owner", "child"] {
        let waiting = cluster.get("configmaps", "default", name).await.unwrap();
        assert_eq!(waiting.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    }
    cluster.patch("secrets", "default", "grandchild", json!({"metadata": {"finalizers": []}})).await;
    cluster.until_gone("configmaps", "default", "owner").await;
    for (plural, name) in [("configmaps", "child"), ("secrets", "grandchild")] {
        assert!(cluster.get(plural, "default", name).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn orphans_stay() {
    let cluster = Cluster::start().await;
    family(&cluster).await;
    cluster.delete("configmaps", "default", "owner", &DeleteParams::orphan()).await;
    cluster.until_gone("configmaps", "default", "owner").await;
    assert!(owners(&cluster, "configmaps", "child").await.is_empty());
    assert_eq!(owners(&cluster, "configmaps", "both").await, ["other"]);
    assert_eq!(owners(&cluster, "secrets", "grandchild").await, ["child"]);
}

#[tokio::test]
async fn dependent_of_an_owner_that_never_was_goes() {
    let cluster = Cluster::start().await;
    let stray = owned("stray", &[("nobody", "00000000-0000-0000-0000-000000000000")]);
    cluster.create("configmaps", "default", stray).await;
    cluster.until_gone("configmaps", "default", "stray").await;
}
