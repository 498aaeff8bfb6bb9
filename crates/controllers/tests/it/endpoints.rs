//! Services lead to the pods that are ready.

use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use sampan_api::meta::list;
use serde_json::{Value, json};

use crate::cluster::{Cluster, pod};

async fn slice(cluster: &Cluster, condition: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
    let api = cluster.api("endpointslices", "default");
    for _ in 0..1000 {
        let slices = api.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap();
        if let Some(found) = slices.items.into_iter().find(&condition) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no such slice: {:?}", api.list(&ListParams::default()).await.unwrap().items);
}

fn running(ip: &str, ready: &str) -> Value {
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}],
    })
}

#[tokio::test]
async fn endpoints_follow_pods() {
    let cluster = Cluster::start().await;
    let labels = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": "n1"}});
    cluster.create("pods", "default", pod("a", labels.clone())).await;
    cluster.patch_status("pods", "default", "a", running("10.42.0.5", "False")).await;
    let service = json!({
        "metadata": {"name": "web", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    cluster.create("services", "default", service).await;
    let one =
        |ready: bool| move |slice: &DynamicObject| slice.data["endpoints"][0]["conditions"]["ready"] == ready;
    let found = slice(&cluster, one(false)).await;
    assert_eq!(found.data["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(found.data["addressType"], "IPv4");
    assert_eq!(found.data["endpoints"][0]["nodeName"], "n1");
    assert_eq!(found.metadata.owner_references.unwrap()[0].kind, "Service");
    assert_eq!(found.metadata.labels.unwrap()["team"], "x");
    cluster.patch_status("pods", "default", "a", running("10.42.0.5", "True")).await;
    slice(&cluster, one(true)).await;
    cluster.create("pods", "default", pod("b", labels)).await;
    cluster.patch_status("pods", "default", "b", running("10.42.0.6", "True")).await;
    slice(&cluster, |slice| list(&slice.data, "/endpoints").len() == 2).await;
    let two = |found: Option<&DynamicObject>| {
        found.is_some_and(|endpoints| list(&endpoints.data, "/subsets/0/addresses").len() == 2)
    };
    let endpoints = cluster.until("endpoints", "default", "web", two).await.unwrap();
    assert_eq!(endpoints.data["subsets"][0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    cluster.delete("pods", "default", "a", &DeleteParams::default().grace_period(0)).await;
    slice(&cluster, |slice| list(&slice.data, "/endpoints").len() == 1).await;
    cluster.delete("services", "default", "web", &DeleteParams::default()).await;
    cluster.until_gone("endpoints", "default", "web").await;
    let api = cluster.api("endpointslices", "default");
    for _ in 0..1000 {
        let left = api.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap();
        if left.items.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the garbage collector left the slices");
}
