//! What is in a running pod's volumes, as time goes by.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::world::{POD, World};

const MAP: &str = "/api/v1/namespaces/default/configmaps/x";

/// Content of a file in the container's mount.
fn read(world: &World, mount: &str, file: &str) -> String {
    let containers = world.runtime.containers();
    let mount = containers[0].mounts.iter().find(|have| have.container_path == mount).unwrap();
    std::fs::read_to_string(format!("{}/{file}", mount.host_path)).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn env_25_env_47_content_follows_the_api_within_two_seconds() {
    let world = World::new().await;
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": value}});
    world.api.put(MAP, map("1"));
    let labels = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    world.create(json!({
        "volumes": [{"name": "v", "configMap": {"name": "x"}}, {"name": "w", "downwardAPI": {"items": labels}}],
        "containers": [{"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}]}]}));
    world.until_phase("Running").await;
    assert_eq!((read(&world, "/v", "a").as_str(), read(&world, "/w", "labels").as_str()), ("1", ""));
    let began = Instant::now();
    world.api.put(MAP, map("2"));
    world.until("the map", |world| read(world, "/v", "a") == "2").await;
    let mut pod = world.pod();
    pod["metadata"]["labels"] = json!({"k": "v"});
    world.api.put(POD, pod);
    world.until("the label", |world| read(world, "/w", "labels") == "k=\"v\"").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Nobody's watch any more: the files of a pod that goes are not written again.
    world.delete(1);
    world.until_gone().await;
    world.api.put(MAP, map("3"));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!world.dir().join("kubelet/pods/uid-1").exists());
}

#[tokio::test(start_paused = true)]
async fn env_50_a_token_is_renewed_before_it_ends() {
    let world = World::new().await;
    let source = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}});
    world.create(json!({
        "volumes": [{"name": "v", "projected": {"sources": [source]}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}));
    world.until_phase("Running").await;
    let asked = |world: &World| {
        let writes = world.api.writes.lock().unwrap();
        writes.iter().filter(|write| write.ends_with("/serviceaccounts/default/token")).count()
    };
    assert_eq!((read(&world, "/v", "token").as_str(), asked(&world)), ("the-token", 1));
    // It is good until one o'clock; 48 minutes are four fifths of that.
    tokio::time::sleep(Duration::from_secs(47 * 60)).await;
    assert_eq!(asked(&world), 1);
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(asked(&world), 2);
}
