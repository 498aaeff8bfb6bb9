//! Probes over the whole kubelet: what they decide, when they ask.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_runtime::Script;
use crate::world::World;

fn probe(command: &str, more: Value) -> Value {
    let mut probe = json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1});
    for (key, value) in more.as_object().unwrap() {
        probe[key] = value.clone();
    }
    probe
}

fn container(world: &World) -> Value {
    world.status()["containerStatuses"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn pod_41_readiness_begins_right_after_the_startup_probe() {
    let world = World::new().await;
    world.runtime.exec_result("up", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c",
        "startupProbe": probe("up", json!({"periodSeconds": 5, "failureThreshold": 1_000})),
        "livenessProbe": probe("alive", json!({})),
        "readinessProbe": probe("ready", json!({"periodSeconds": 100}))}]}));
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(container(&world)["started"], false);
    assert!(
        world.runtime.times_of("exec alive").is_empty() && world.runtime.times_of("exec ready").is_empty()
    );
    world.runtime.exec_result("up", 0, Duration::ZERO);
    world.until("ready", |world| container(world)["ready"] == true).await;
    assert_eq!(world.runtime.times_of("exec ready"), [65]);
    assert_eq!(world.runtime.times_of("exec alive")[0], 65);
    assert_eq!(container(&world)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn pod_41_the_initial_delay_counts_from_the_containers_start() {
    let world = World::new().await;
    world.runtime.exec_result("up", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c",
        "startupProbe": probe("up", json!({"periodSeconds": 5, "failureThreshold": 1_000})),
        "livenessProbe": probe("alive", json!({"initialDelaySeconds": 90})),
        "readinessProbe": probe("ready", json!({"initialDelaySeconds": 30}))}]}));
    tokio::time::sleep(Duration::from_secs(62)).await;
    world.runtime.exec_result("up", 0, Duration::ZERO);
    world.until("alive", |world| !world.runtime.times_of("exec alive").is_empty()).await;
    assert_eq!(world.runtime.times_of("exec ready")[0], 65);
    assert_eq!(world.runtime.times_of("exec alive"), [90]);
}

#[tokio::test(start_paused = true)]
async fn hook_22_pod_33_a_kubelet_that_begins_during_a_termination_probes_readiness() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c",
        "livenessProbe": probe("alive", json!({})), "readinessProbe": probe("ready", json!({}))}]}));
    world.until("ready", |world| container(world)["ready"] == true).await;
    world.delete(300);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.start_kubelet().await;
    let asked = world.runtime.times_of("exec alive").len();
    world.runtime.exec_result("ready", 1, Duration::ZERO);
    world.until("unready", |world| container(world)["ready"] == false).await;
    assert!(world.runtime.now() < 60, "{}", world.runtime.now());
    assert_eq!(world.runtime.times_of("exec alive").len(), asked);
}

#[tokio::test(start_paused = true)]
async fn pod_41_28_a_failed_startup_probe_restarts() {
    let world = World::new().await;
    world.runtime.exec_result("up", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "startupProbe": probe("up", json!({"failureThreshold": 3}))}]}));
    world.until("restarted", |world| container(world)["restartCount"] == 1).await;
    assert!(world.has_event("Warning Unhealthy spec.containers{c}: Startup probe failed: secret output"));
    assert!(
        world.has_event("Killing spec.containers{c}: Container c failed startup probe, will be restarted")
    );
}

#[tokio::test(start_paused = true)]
async fn pod_39_a_container_that_could_not_be_killed_is_killed_again() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Unkillable(30)]);
    world.runtime.exec_result("alive", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "livenessProbe": probe("alive", json!({"failureThreshold": 1}))}]}));
    world.until("restarted", |world| container(world)["restartCount"] == 1).await;
    let calls = world.runtime.call_names();
    let stops = calls.iter().filter(|call| call.starts_with("stop c")).count();
    assert!(stops >= 3, "{calls:?}");
    // It has no successor before it is gone.
    assert_eq!(world.runtime.containers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pod_40_43_a_probe_that_takes_too_long_failed() {
    let world = World::new().await;
    world.runtime.exec_result("slow", 0, Duration::from_secs(100));
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "readinessProbe": probe("slow", json!({"timeoutSeconds": 2}))}]}));
    world
        .until("the event", |world| {
            world.has_event("Readiness probe failed: command timed out: \"slow\" timed out after 2s")
        })
        .await;
    assert_eq!(container(&world)["ready"], false);
    assert!(!world.runtime.times_of("exec slow killed").is_empty());
}

#[tokio::test(start_paused = true)]
async fn pod_38_thresholds_count_in_a_row_and_a_slow_answer_moves_no_later_question() {
    let world = World::new().await;
    world.runtime.exec_result("ready", 0, Duration::from_millis(900));
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c", "readinessProbe":
        probe("ready", json!({"timeoutSeconds": 5, "initialDelaySeconds": 3, "successThreshold": 3, "failureThreshold": 2}))}]}));
    world.until("ready", |world| container(world)["ready"] == true).await;
    assert_eq!(world.runtime.times_of("exec ready"), [3, 4, 5]);
    assert_eq!(world.runtime.now(), 5);
    world.runtime.exec_result("ready", 0, Duration::from_millis(1_500));
    tokio::time::sleep(Duration::from_secs(60)).await;
    // One after the other, as fast as they are answered; then back in step.
    let slow = world.runtime.times_of("exec ready").len() - 3;
    assert!((39..=42).contains(&slow), "{slow}");
    world.runtime.exec_result("ready", 1, Duration::ZERO);
    world.until("not ready", |world| container(world)["ready"] == false).await;
    assert_eq!(container(&world)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn pod_43_a_question_that_could_not_be_asked_is_no_failure() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "livenessProbe": probe("badcommand-unstarted", json!({}))}]}));
    world
        .until("the event", |world| {
            world.has_event("Liveness probe errored and resulted in unknown state: rpc error: code = Unknown")
        })
        .await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(container(&world)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn pod_38_zero_negative_and_huge_numbers_are_survived() {
    let world = World::new().await;
    let max = i32::MAX;
    let numbers = |n: i32| json!({"periodSeconds": n, "timeoutSeconds": n, "failureThreshold": n, "successThreshold": n});
    let with = |command: &str, n: i32| probe(command, numbers(n));
    // The API server refuses the negative ones; a static pod or another API server may not.
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c",
        "startupProbe": with("up", 0), "livenessProbe": with("alive", -7), "readinessProbe": with("ready", max)}]}));
    world.until_phase("Running").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.runtime.times_of("exec alive").len() >= 50);
    assert_eq!(world.runtime.times_of("exec ready").len(), 1);
    assert_eq!(container(&world)["restartCount"], 0);
    world.delete(i64::MAX);
    world.until_gone().await;
}

#[tokio::test(start_paused = true)]
async fn pod_28_39_a_sidecar_is_restarted_by_its_liveness_probe_without_blocking() {
    let world = World::new().await;
    world.runtime.script("s", &[Script::Runs(0)]);
    world.create(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "restartPolicy": "Always", "livenessProbe": probe("alive", json!({}))}],
        "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.runtime.exec_result("alive", 1, Duration::ZERO);
    world.until("restarted", |world| world.status()["initContainerStatuses"][0]["restartCount"] == 1).await;
    assert!(world.has_event("Killing spec.initContainers{s}: Init container s failed liveness probe"));
    assert_eq!(container(&world)["restartCount"], 0);
    assert_eq!(world.runtime.times_of("start c").len(), 1);
}
