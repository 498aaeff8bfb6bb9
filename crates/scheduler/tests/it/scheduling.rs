//! Pods come, nodes come, pods get bound.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::FakeApi;

struct Running {
    api: FakeApi,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn start() -> Running {
    let running = Running { api: FakeApi::new(), shutdown: CancellationToken::new() };
    let (client, shutdown) = (running.api.client(), running.shutdown.clone());
    tokio::spawn(async move { sampan_scheduler::run(client, shutdown).await.unwrap() });
    running
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name},
        "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}},
    })
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
        "status": {"phase": "Pending"},
    })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn pod_19_pod_is_bound_and_the_event_says_so() {
    let Running { api, .. } = &start();
    api.put("nodes", node("n1", "2"));
    api.put("pods", pod("web", "100m"));
    until("the pod is bound", || api.node_of("web").is_some()).await;
    until("the event is written", || !api.events("Scheduled").is_empty()).await;
    let event = &api.events("Scheduled")[0];
    assert_eq!(event["message"], "Successfully assigned default/web to n1");
    assert_eq!(
        (&event["type"], &event["reportingComponent"]),
        (&json!("Normal"), &json!("default-scheduler"))
    );
    assert_eq!(event["involvedObject"]["uid"], "uid-web");
    assert!(api.events("FailedScheduling").is_empty());
}

#[tokio::test]
async fn rtc_22_pod_that_fits_nowhere_says_why_and_is_bound_once_it_fits() {
    let Running { api, .. } = &start();
    api.put("nodes", node("n1", "1"));
    api.put("pods", pod("first", "800m"));
    until("the first is bound", || api.node_of("first").is_some()).await;
    api.put("pods", pod("second", "500m"));
    until("the event is written", || !api.events("FailedScheduling").is_empty()).await;
    until("the condition is written", || !api.patches().is_empty()).await;
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No \
                   preemption victims found for incoming pod.";
    let event = &api.events("FailedScheduling")[0];
    assert_eq!((&event["message"], &event["type"]), (&json!(message), &json!("Warning")));
    let condition = &api.patches()[0]["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("False")));
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Unschedulable"), &json!(message)));
    // Its own condition does not make it try again; a node of the same size does, and counts.
    api.put("nodes", node("n0", "100m"));
    until("it was tried again", || api.events("FailedScheduling").len() == 2).await;
    api.delete("nodes", "n0");
    api.delete("pods", "first");
    until("the second is bound", || api.node_of("second").is_some()).await;
}

#[tokio::test]
async fn same_failure_is_counted_not_repeated() {
    let Running { api, .. } = &start();
    api.put("nodes", node("n1", "1"));
    api.put("pods", pod("big", "3"));
    until("the event is written", || !api.events("FailedScheduling").is_empty()).await;
    api.put("nodes", node("n1", "2"));
    until("it is counted", || api.events("FailedScheduling")[0]["series"]["count"] == 2).await;
    assert_eq!((api.events("FailedScheduling").len(), api.patches().len()), (1, 1));
    let message = api.events("FailedScheduling")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("1 Preemption is not helpful for scheduling."), "{message}");
}

#[tokio::test]
async fn gated_foreign_and_deleted_pods_are_left_alone() {
    let Running { api, .. } = &start();
    let mut gated = pod("gated", "1m");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let mut foreign = pod("foreign", "1m");
    foreign["spec"]["schedulerName"] = "somebody-else".into();
    let mut deleted = pod("deleted", "1m");
    deleted["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z".into();
    for pod in [gated.clone(), foreign, deleted] {
        api.put("pods", pod);
    }
    api.put("nodes", node("n1", "2"));
    api.put("pods", pod("plain", "1m"));
    until("the plain one is bound", || api.node_of("plain").is_some()).await;
    assert!(["gated", "foreign", "deleted"].iter().all(|name| api.node_of(name).is_none()));
    gated["spec"]["schedulingGates"] = json!([]);
    api.put("pods", gated);
    until("the gate is open", || api.node_of("gated").is_some()).await;
}

#[tokio::test]
async fn failed_binding_is_tried_again() {
    let Running { api, .. } = &start();
    api.refuse_bindings(1);
    api.put("nodes", node("n1", "2"));
    api.put("pods", pod("web", "1"));
    let start = Instant::now();
    until("the pod is bound in the end", || api.node_of("web").is_some()).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "not without a pause");
    assert_eq!(api.events("FailedScheduling").len(), 1);
}

#[tokio::test]
async fn failed_eviction_is_tried_again() {
    let Running { api, .. } = &start();
    api.refuse_deletions(1);
    api.put("nodes", node("n1", "2"));
    api.put("pods", pod("lesser", "2"));
    until("the lesser pod is bound", || api.node_of("lesser").is_some()).await;
    let mut greater = pod("greater", "2");
    greater["spec"]["priority"] = json!(1000);
    api.put("pods", greater);
    until("it gets the room in the end", || api.node_of("greater").is_some()).await;
    assert_eq!(api.events("Preempted").len(), 1);
    let conditions = |patch: &&Value| patch["status"]["conditions"][0]["type"] == "DisruptionTarget";
    assert_eq!(api.patches().iter().filter(conditions).count(), 2, "once for each attempt");
}

#[tokio::test]
async fn burst_never_overcommits_and_is_quick() {
    let Running { api, .. } = &start();
    api.put("nodes", node("n1", "2"));
    api.put("nodes", node("n2", "3"));
    api.put("pods", pod("warm-up", "1m"));
    until("the scheduler runs", || api.node_of("warm-up").is_some()).await;
    let start = Instant::now();
    for number in 0..60 {
        api.put("pods", pod(&format!("p{number}"), "100m"));
    }
    let bound =
        |node: &str| (0..60).filter(|n| api.node_of(&format!("p{n}")).as_deref() == Some(node)).count();
    until("48 fit", || bound("n1") + bound("n2") >= 48).await;
    println!("48 of 60 pods bound in {:?}", start.elapsed());
    until("the others are reported", || api.events("FailedScheduling").len() == 12 - 1).await;
    assert!(bound("n1") <= 20 && bound("n2") <= 30);
    let start = Instant::now();
    api.put("nodes", node("n3", "2"));
    until("the rest fits there", || bound("n1") + bound("n2") + bound("n3") == 60).await;
    println!("the rest in {:?}", start.elapsed());
}
