//! How pods end: grace periods, deadlines, phases.

use std::time::Duration;

use serde_json::json;

use crate::fake_runtime::Script;
use crate::world::{POD, World};

#[tokio::test(start_paused = true)]
async fn pod_34_phases_of_deleted_pods_under_every_policy() {
    for policy in ["Always", "OnFailure", "Never"] {
        for (script, phase) in [(Script::Runs(0), "Succeeded"), (Script::Stubborn, "Failed")] {
            let world = World::new().await;
            world.runtime.script("c", &[script]);
            world.create(json!({"restartPolicy": policy, "containers": [{"name": "c"}]}));
            world.until_phase("Running").await;
            let seen = world.api.statuses(POD);
            world.delete(3);
            world.until_gone().await;
            assert_eq!(seen.lock().unwrap().last().unwrap()["phase"], phase, "{policy} {script:?}");
        }
        // Deleted before it ever ran.
        let world = World::new().await;
        world.runtime.pulls(vec![Err(tonic::Status::unknown("no")); 50]);
        world.create(json!({"restartPolicy": policy, "containers": [
            {"name": "c", "image": "nowhere:1", "imagePullPolicy": "Always"}]}));
        world.until("pulling", |world| world.has_event("Pulling image")).await;
        let seen = world.api.statuses(POD);
        world.delete(30);
        world.until_gone().await;
        assert_eq!(seen.lock().unwrap().last().unwrap()["phase"], "Failed", "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn pod_35_a_process_that_ignores_the_signal_gets_its_whole_grace_period() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 45,
        "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.delete(45);
    world.until_gone().await;
    assert_eq!(world.runtime.now() - began, 45);
}

/// A running pod whose process ignores its signal.
async fn stubborn() -> World {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world
}

#[tokio::test(start_paused = true)]
async fn pod_32_a_shorter_deletion_stops_again_with_what_is_left_and_a_longer_one_does_not() {
    let world = stubborn().await;
    let began = world.runtime.now();
    world.delete(300);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.delete(10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A longer one changes nothing.
    world.delete(100);
    world.until_gone().await;
    assert_eq!(world.runtime.now() - began, 10);
    assert_eq!(world.runtime.times_of("stop c 300"), [began]);
    assert_eq!(world.runtime.times_of("stop c 5"), [began + 5]);
}

#[tokio::test(start_paused = true)]
async fn pod_32_a_forced_second_deletion_kills_what_had_its_signal() {
    let world = stubborn().await;
    let began = world.runtime.now();
    world.delete(300);
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.api.remove(POD);
    world.until_gone().await;
    assert_eq!(world.runtime.now() - began, 20);
    assert_eq!(world.runtime.times_of("stop c 0"), [began + 20]);
}

#[tokio::test(start_paused = true)]
async fn pod_27_when_the_grace_period_is_over_sidecars_wait_for_nobody() {
    let world = World::new().await;
    for name in ["c", "s1", "s2"] {
        world.runtime.script(name, &[Script::Stubborn]);
    }
    let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    world.create(json!({"restartPolicy": "Always", "initContainers": [sidecar("s1"), sidecar("s2")],
        "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.delete(10);
    world.until_gone().await;
    assert_eq!(world.runtime.times_of("stop c 10"), [began]);
    for call in ["stop s1 2", "stop s2 2"] {
        assert_eq!(world.runtime.times_of(call), [began + 10], "{call}");
    }
    assert_eq!(world.runtime.now() - began, 12);
}

#[tokio::test(start_paused = true)]
async fn pod_33_the_status_follows_containers_that_end_before_others() {
    let world = World::new().await;
    world.runtime.script("slow", &[Script::Stubborn]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "fast"}, {"name": "slow"}]}));
    world.until_phase("Running").await;
    world.delete(20);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = world.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    assert!(status["containerStatuses"][1]["state"]["running"].is_object());
    world.until_gone().await;
}

#[tokio::test(start_paused = true)]
async fn pod_37_the_deadline_does_not_wait_for_a_hook_that_hangs() {
    let world = World::new().await;
    world.runtime.exec_result("hang", 0, Duration::from_secs(1_000_000));
    world.create(json!({"restartPolicy": "Always", "activeDeadlineSeconds": 30, "containers": [
        {"name": "c", "lifecycle": {"postStart": {"exec": {"command": ["hang"]}}}}]}));
    world.until_phase("Failed").await;
    assert_eq!(world.status()["reason"], "DeadlineExceeded");
    assert_eq!(world.runtime.times_of("stop c 30"), [30]);
    assert!(world.has_event(
        "Normal DeadlineExceeded : Pod was active on the node longer than the specified deadline"
    ));
}

#[tokio::test(start_paused = true)]
async fn pod_37_a_pod_past_its_deadline_is_failed_when_nothing_of_it_runs() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(
        json!({"restartPolicy": "Always", "activeDeadlineSeconds": 30, "containers": [{"name": "c"}]}),
    );
    world.until("stopping", |world| !world.runtime.times_of("stop c 30").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let status = world.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Running"), &serde_json::Value::Null));
    world.until_phase("Failed").await;
    assert_eq!(world.status()["reason"], "DeadlineExceeded");
    assert_eq!(world.runtime.now(), 60);
}

#[tokio::test(start_paused = true)]
async fn pod_37_a_kubelet_killed_while_the_deadline_ends_a_pod_goes_on() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(
        json!({"restartPolicy": "Always", "activeDeadlineSeconds": 30, "containers": [{"name": "c"}]}),
    );
    world.until("stopping", |world| !world.runtime.times_of("stop c 30").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.start_kubelet().await;
    world.until_phase("Failed").await;
    let status = world.status();
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert!(status["containerStatuses"][0]["state"]["terminated"].is_object(), "{status}");
}

/// How many seconds a stop of the node takes whose API does not answer any more.
async fn stop_without_api(graceful: bool, deleted: bool) -> u64 {
    let mut world = World::new().await;
    if graceful {
        let grace_period = Duration::from_secs(20);
        world.shutdown = vec![sampan_kubelet::shutdown::ShutdownStep { priority: 0, grace_period }];
        world.start_kubelet().await;
    }
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.api.down.store(true, std::sync::atomic::Ordering::Relaxed);
    if deleted {
        world.delete(30);
    }
    let began = tokio::time::Instant::now();
    world.shut_down(sampan_kubelet::ShutdownMode::StopPods).await;
    assert!(world.runtime.call_names().iter().any(|call| call.starts_with("stop c")));
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn pod_56_a_node_whose_api_is_gone_stops_all_the_same() {
    for (graceful, deleted) in [(true, false), (false, false), (true, true), (false, true)] {
        let seconds = stop_without_api(graceful, deleted).await;
        assert!(seconds < 60, "{graceful} {deleted}: {seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn pod_37_a_deadline_that_is_lowered_counts_at_once_and_a_huge_one_never() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "activeDeadlineSeconds": i64::from(i32::MAX),
        "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut pod = world.pod();
    pod["spec"]["activeDeadlineSeconds"] = json!(120);
    world.api.put(POD, pod);
    world.until_phase("Failed").await;
    assert_eq!(world.runtime.times_of("stop c 30"), [120]);
}
