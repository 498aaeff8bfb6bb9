//! Restarts: of containers by policy and back-off, and of the kubelet itself.

use std::time::Duration;

use sampan_kubelet::ShutdownMode;
use sampan_kubelet::shutdown::ShutdownStep;
use serde_json::json;

use crate::fake_runtime::Script;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn pod_03_restart_policy_matrix() {
    for (policy, phase, restarts) in
        [("Always", "Running", 2), ("OnFailure", "Succeeded", 1), ("Never", "Failed", 0)]
    {
        let world = World::new().await;
        let second = Duration::from_secs(1);
        world.runtime.script("c", &[Script::Ends(second, 1), Script::Ends(second, 0), Script::Runs(0)]);
        world.create(json!({"restartPolicy": policy, "containers": [{"name": "c"}]}));
        world
            .until(policy, |world| {
                let status = world.status();
                status["phase"] == phase && status["containerStatuses"][0]["restartCount"] == restarts
            })
            .await;
        if policy == "Always" {
            world.until("ready", |world| world.status()["containerStatuses"][0]["ready"] == true).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pod_12_14_21_crash_loops_back_off() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(1), 1)]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until("CrashLoopBackOff", |world| world.waiting_reason() == "CrashLoopBackOff").await;
    let status = world.status();
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["message"], "back-off 10s restarting failed container=c pod=p_default(uid-1)");
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["phase"], "Running");
    world.until("event", |world| world.has_event("Warning BackOff spec.containers{c}: Back-off restarting failed container c in pod p_default(uid-1)")).await;
    world.until("ten runs", |world| world.runtime.times_of("start c").len() >= 9).await;
    let times = world.runtime.times_of("start c");
    // Each run lasts a second; the wait counts from its end.
    let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0] - 1).take(8).collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert!(world.runtime.containers().len() <= 3, "old runs are removed");
}

#[tokio::test(start_paused = true)]
async fn pod_11_a_container_that_cannot_start() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::FailsToStart]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until("RunContainerError", |world| world.has_event("Error: exec: \"nope\"")).await;
    world.until("crash loop", |world| world.waiting_reason() == "CrashLoopBackOff").await;
    let last = &world.status()["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((last["reason"].as_str(), last["exitCode"].as_i64()), (Some("StartError"), Some(128)));
    world
        .until("ten attempts", |world| {
            world.status()["containerStatuses"][0]["restartCount"] == 9
                && world.waiting_reason() == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(world.runtime.times_of("start c").len(), 10);
    assert_eq!(world.runtime.containers().len(), 1, "old runs are removed");
}

#[tokio::test(start_paused = true)]
async fn a_killed_kubelet_finds_its_containers_again() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(1), 1), Script::Runs(0)]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world
        .until("second run", |world| {
            world.status()["containerStatuses"][0]["restartCount"] == 1
                && world.status()["containerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, calls, events) = (world.status(), world.runtime.call_names(), world.events());
    world.start_kubelet().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.status(), status);
    assert_eq!(world.runtime.call_names(), calls);
    assert_eq!(world.events(), events);
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_kubelet_was_away_is_seen() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(50), 3)]);
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.shut_down(ShutdownMode::KeepPods).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    world.start_kubelet().await;
    world.until_phase("Failed").await;
    assert_eq!(world.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(
        world.status()["containerStatuses"][0]["state"]["terminated"]["finishedAt"],
        "2026-01-01T00:00:50Z"
    );
}

#[tokio::test(start_paused = true)]
async fn hook_36_a_pod_deleted_while_the_kubelet_was_away_is_removed() {
    let mut world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 7, "containers": [
        {"name": "c", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}]}));
    world.until_phase("Running").await;
    world.shut_down(ShutdownMode::KeepPods).await;
    world.api.remove(crate::world::POD);
    world.start_kubelet().await;
    world.until_gone().await;
    assert!(world.runtime.call_names().contains(&"exec bye".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn stopped_pods_run_again_after_a_start() {
    let mut world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.shut_down(ShutdownMode::StopPods).await;
    assert!(world.runtime.call_names().contains(&"stop sandbox".to_owned()));
    assert!(world.api.get(crate::world::POD).is_some());
    world.start_kubelet().await;
    world
        .until("running again", |world| {
            world.status()["containerStatuses"][0]["restartCount"] == 1
                && world.status()["containerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn hook_20_a_graceful_shutdown_of_the_node_ends_its_pods_for_good() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.shutdown = vec![ShutdownStep { priority: 0, grace_period: Duration::from_secs(5) }];
    world.start_kubelet().await;
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.shut_down(ShutdownMode::StopPods).await;
    assert!(world.runtime.now() - began < 10, "the shutdown's patience, not the pod's");
    let ended = |world: &World| {
        let status = world.status();
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Terminated")));
        assert_eq!(status["message"], "Pod was terminated in response to imminent node shutdown.");
        let target = world.condition("DisruptionTarget").unwrap();
        assert_eq!(target["reason"], "TerminationByKubelet");
    };
    ended(&world);
    let calls = world.runtime.call_names();
    world.start_kubelet().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    ended(&world);
    assert_eq!(
        world.runtime.call_names().iter().filter(|call| call.starts_with("start")).count(),
        1,
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn pod_12_13_another_image_ends_the_wait() {
    let world = World::new().await;
    let fails = Script::Ends(Duration::from_secs(1), 1);
    world.runtime.script("c", &[fails, fails, fails, fails, Script::Runs(0)]);
    world.runtime.add_image("local:2");
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until("four runs", |world| world.runtime.times_of("start c").len() == 4).await;
    world.until("a wait of 40 s", |world| world.waiting_reason() == "CrashLoopBackOff").await;
    let before = tokio::time::Instant::now();
    world.change_image("local:2");
    world.until("the new run", |world| world.status()["containerStatuses"][0]["image"] == "local:2").await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}
