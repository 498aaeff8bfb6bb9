//! Resize in place (KEP-1287): what is wished for, what is given, what the containers have.

use serde_json::{Value, json};
use tonic::Status;

use crate::fake_runtime::Script;
use crate::world::World;

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

fn spec(policy: &str, restart_policy: &str) -> Value {
    json!({"restartPolicy": restart_policy, "containers": [{"name": "c", "resources": resources("100m", "64Mi"),
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}]})
}

async fn running(spec: Value) -> World {
    let world = World::new().await;
    world.create(spec);
    world.until_phase("Running").await;
    world
}

fn has(world: &World) -> Value {
    world.status()["containerStatuses"][0]["resources"].clone()
}

async fn until_has(world: &World, cpu: &str, memory: &str) {
    world.until("resources", |w| has(w) == resources(cpu, memory)).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_container_gets_more_without_a_restart() {
    let world = running(spec("NotRequired", "Always")).await;
    assert_eq!(has(&world), resources("100m", "64Mi"));
    world.resize(resources("200m", "96Mi"));
    until_has(&world, "200m", "96Mi").await;
    let status = &world.status()["containerStatuses"][0];
    assert_eq!(status["restartCount"], 0);
    assert_eq!(status["allocatedResources"], json!({"cpu": "200m", "memory": "96Mi"}));
    world.until("the end", |w| w.condition("PodResizeInProgress").is_none()).await;
    assert_eq!(
        world.runtime.call_names(),
        ["run sandbox", "create c", "start c", "update c quota=20000 memory=96Mi"]
    );
    let given = r#"{"containers":[{"name":"c","resources":{"limits":{"cpu":"200m","memory":"96Mi"},"requests":{"cpu":"200m","memory":"96Mi"}}}],"generation":2}"#;
    for (reason, text) in [("ResizeStarted", "started"), ("ResizeCompleted", "completed")] {
        let event = format!("Normal {reason} : Pod resize {text}: {given}");
        world.until(reason, |w| w.events().contains(&event)).await;
    }
    assert_eq!(world.status()["observedGeneration"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_want_a_restart() {
    let world = running(spec("RestartContainer", "OnFailure")).await;
    // Less cpu alone restarts nothing.
    world.resize(resources("50m", "64Mi"));
    until_has(&world, "50m", "64Mi").await;
    world.resize(resources("50m", "128Mi"));
    world.until("restart", |w| w.status()["containerStatuses"][0]["restartCount"] == 1).await;
    until_has(&world, "50m", "128Mi").await;
    let killing = "Normal Killing spec.containers{c}: Container c resize requires restart";
    world.until("event", |w| w.has_event(killing)).await;
    let calls = world.runtime.call_names();
    assert_eq!(calls[3..], ["update c quota=5000 memory=64Mi", "stop c 30", "create c", "start c"]);
    world.until("the end", |w| w.condition("PodResizeInProgress").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_node_never_has_is_infeasible_and_what_others_have_is_deferred() {
    let world = running(spec("NotRequired", "Always")).await;
    world.resize(resources("9999", "64Mi"));
    world.until("verdict", |w| w.condition("PodResizePending").is_some()).await;
    let condition = world.condition("PodResizePending").unwrap();
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("Infeasible"), &json!(2)));
    let message = condition["message"].as_str().unwrap();
    let text = "Node didn't have enough capacity: cpu, requested: 9999000, capacity: ";
    assert!(message.starts_with(text), "{message}");
    world.until("event", |w| w.has_event("Warning ResizeInfeasible : Pod resize Infeasible: {")).await;
    assert_eq!(has(&world), resources("100m", "64Mi"));
    // Another one has nearly everything: there is enough for both, and not for more.
    let cpus = std::thread::available_parallelism().unwrap().get() * 1_000;
    let mut other = world.pod();
    other["metadata"] = json!({"name": "q", "namespace": "default", "uid": "uid-2", "generation": 1});
    other["status"] = json!({"phase": "Pending"});
    let most = format!("{}m", cpus - 150);
    other["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": most}});
    let path = "/api/v1/namespaces/default/pods/q";
    world.api.put(path, other);
    world.until("q", |w| w.api.get(path).unwrap()["status"]["phase"] == "Running").await;
    world.resize(resources("400m", "64Mi"));
    world
        .until("deferral", |w| w.condition("PodResizePending").is_some_and(|c| c["reason"] == "Deferred"))
        .await;
    let message = world.condition("PodResizePending").unwrap()["message"].clone();
    let text = format!(
        "Node didn't have enough resource: cpu, requested: 400, used: {}, capacity: {cpus}",
        cpus - 150
    );
    assert_eq!(message, text);
    // What the other one gives back is taken at once.
    let mut gone = world.api.get(path).unwrap();
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    gone["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    world.api.put(path, gone);
    until_has(&world, "400m", "64Mi").await;
    assert_eq!(world.condition("PodResizePending"), None);
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_in_use_is_not_taken_away() {
    let world = running(spec("NotRequired", "Always")).await;
    world.runtime.memory("c", 50 << 20);
    world.resize(resources("100m", "32Mi"));
    let failed = |w: &World| w.condition("PodResizeInProgress").is_some_and(|c| c["reason"] == "Error");
    world.until("refusal", failed).await;
    let text = "cannot decrease memory limits: attempting to set container \"c\" memory limit (33554432) below current usage (52428800)";
    assert_eq!(world.condition("PodResizeInProgress").unwrap()["message"], text);
    world.until("event", |w| w.has_event("Warning ResizeError : Pod resize error: {")).await;
    assert_eq!(has(&world), resources("100m", "64Mi"), "it has what it had");
    // It is tried again until the memory is free.
    world.runtime.memory("c", 1 << 20);
    until_has(&world, "100m", "32Mi").await;
    world.until("the end", |w| w.condition("PodResizeInProgress").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_kubelet_goes_on_with_what_was_given_and_takes_no_wish_for_a_fact() {
    let mut world = running(spec("NotRequired", "Always")).await;
    world.runtime.updates_fail(Some(Status::internal("not now")));
    world.resize(resources("200m", "64Mi"));
    let failed = |w: &World| w.condition("PodResizeInProgress").is_some_and(|c| c["reason"] == "Error");
    world.until("failure", failed).await;
    assert_eq!(world.condition("PodResizeInProgress").unwrap()["message"], "container \"c\": not now");
    world.start_kubelet().await;
    world.runtime.updates_fail(None);
    until_has(&world, "200m", "64Mi").await;
    // Asked for while nobody was there.
    world.resize(resources("9999", "64Mi"));
    world.start_kubelet().await;
    world.until("verdict", |w| w.condition("PodResizePending").is_some()).await;
    assert_eq!(has(&world), resources("200m", "64Mi"));
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn pod_44_an_image_change_of_a_pod_that_never_restarts_survives_a_kill() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn, Script::Runs(0)]);
    world.runtime.add_image("local:2");
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.change_image("local:2");
    world.until("stop", |w| w.runtime.call_names().contains(&"stop c 30".to_owned())).await;
    // The container ends while no kubelet is there.
    world.kill_kubelet().await;
    world.runtime.end_all(0);
    world.start_kubelet().await;
    world.until("the new run", |w| w.status()["containerStatuses"][0]["image"] == "local:2").await;
    assert_eq!(world.status()["phase"], "Running");
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 1);
}
