//! The Node object and its Lease.

use std::time::Duration;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_node_is_ready_at_once_and_keeps_its_lease() {
    let world = World::new().await;
    world.until("node", |world| world.api.get("/api/v1/nodes/node").is_some()).await;
    let node = world.api.get("/api/v1/nodes/node").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let texts: Vec<String> = conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {}: {}",
                c["type"].as_str().unwrap(),
                c["status"].as_str().unwrap(),
                c["reason"].as_str().unwrap(),
                c["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        texts,
        [
            "MemoryPressure=False KubeletHasSufficientMemory: kubelet has sufficient memory available",
            "DiskPressure=False KubeletHasNoDiskPressure: kubelet has no disk pressure",
            "PIDPressure=False KubeletHasSufficientPID: kubelet has sufficient PID available",
            "Ready=True KubeletReady: kubelet is posting ready status",
        ]
    );
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node");
    assert_eq!(node["status"]["addresses"][0]["address"], "10.9.9.9");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node";
    world.until("lease", |world| world.api.get(lease).is_some()).await;
    let first = world.api.get(lease).unwrap();
    assert_eq!(first["spec"]["leaseDurationSeconds"], 40);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_ne!(world.api.get(lease).unwrap()["spec"]["renewTime"], first["spec"]["renewTime"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_deleted_registers_again() {
    const NODE: &str = "/api/v1/nodes/node";
    let world = World::new().await;
    world.until("node", |world| world.api.get(NODE).is_some()).await;
    world.api.remove(NODE);
    // With its next report.
    let ready = |node: serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    world.until("node again", |world| world.api.get(NODE).is_some_and(ready)).await;
}
