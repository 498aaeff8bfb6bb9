//! Restart rules of containers (POD-29), back-off under odd clocks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_runtime::Script;
use crate::world::World;

fn rule(action: &str, code: i32) -> Value {
    json!([{"action": action, "exitCodes": {"operator": "In", "values": [code]}}])
}

#[tokio::test(start_paused = true)]
async fn pod_29_a_rule_restarts_in_a_pod_that_never_does() {
    let world = World::new().await;
    let second = Duration::from_secs(1);
    world.runtime.script("c", &[Script::Ends(second, 42), Script::Ends(second, 1)]);
    world.create(json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "restartPolicy": "Never", "restartPolicyRules": rule("Restart", 42)}]}));
    world.until_phase("Failed").await;
    let status = &world.status()["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["state"]["terminated"]["exitCode"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 42);
}

#[tokio::test(start_paused = true)]
async fn pod_29_a_containers_own_policy_stands_above_the_pods() {
    let world = World::new().await;
    world.runtime.script("once", &[Script::Ends(Duration::from_secs(1), 1)]);
    world.runtime.script("again", &[Script::Ends(Duration::from_secs(1), 1), Script::Runs(0)]);
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "once", "restartPolicy": "Never"}, {"name": "again"}]}));
    world.until("restarted", |world| world.status()["containerStatuses"][1]["restartCount"] == 1).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(world.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert_eq!(world.status()["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn pod_29_restart_all_containers_begins_again_in_the_same_sandbox() {
    let world = World::new().await;
    world.runtime.script("i", &[Script::Ends(Duration::from_secs(1), 0)]);
    world.runtime.script("trigger", &[Script::Ends(Duration::from_secs(20), 42), Script::Runs(0)]);
    world.runtime.script("other", &[Script::Stubborn]);
    world.create(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [
            {"name": "trigger", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", 42)},
            {"name": "other", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}]}));
    world.until_phase("Running").await;
    let ip = world.status()["podIP"].clone();
    world
        .until("everything again", |world| {
            let status = world.status();
            let all = ["initContainerStatuses", "containerStatuses"];
            all.iter().flat_map(|list| status[*list].as_array().unwrap()).all(|c| c["restartCount"] == 1)
                && status["containerStatuses"][1]["state"]["running"].is_object()
        })
        .await;
    let starts: Vec<String> =
        world.runtime.call_names().into_iter().filter(|call| call.starts_with("start ")).collect();
    let once = ["start i", "start s", "start trigger", "start other"];
    assert_eq!(starts, [once, once].concat());
    assert_eq!(world.runtime.call_names().iter().filter(|call| *call == "run sandbox").count(), 1);
    assert!(world.runtime.times_of("exec bye").is_empty(), "no hooks");
    let status = world.status();
    assert_eq!(status["podIP"], ip);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 42);
    assert_eq!(status["containerStatuses"][1]["lastState"]["terminated"]["exitCode"], 137);
    let conditions = status["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|c| c["type"] == "AllContainersRestarting").unwrap();
    assert_eq!(condition["status"], "False");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(world.status()["phase"], "Running");
    assert_eq!(world.runtime.times_of("start other").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pod_29_restart_all_backs_off_and_survives_the_daemon() {
    let mut world = World::new().await;
    world.runtime.script("trigger", &[Script::Ends(Duration::from_secs(1), 42)]);
    world.create(json!({"restartPolicy": "Never", "containers": [
        {"name": "trigger", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", 42)},
        {"name": "other"}]}));
    world.until("two rounds", |world| world.runtime.times_of("start trigger").len() >= 2).await;
    world.start_kubelet().await;
    world.until("more rounds", |world| world.runtime.times_of("start trigger").len() >= 5).await;
    let times = world.runtime.times_of("start trigger");
    assert!(times[4] - times[3] >= 20, "{times:?}");
    let status = world.status();
    assert_eq!(status["containerStatuses"][1]["restartCount"], 4);
    assert!(!["Failed", "Succeeded"].contains(&status["phase"].as_str().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn pod_29_47_an_ephemeral_container_ends_with_all_and_stays_ended() {
    let world = World::new().await;
    world.runtime.script("trigger", &[Script::Ends(Duration::from_secs(20), 42), Script::Runs(0)]);
    world.create(json!({"restartPolicy": "Never", "containers": [
        {"name": "trigger", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", 42)}]}));
    world.until_phase("Running").await;
    let mut pod = world.pod();
    pod["spec"]["ephemeralContainers"] =
        json!([{"name": "debug", "image": "local:1", "imagePullPolicy": "IfNotPresent"}]);
    world.api.put(crate::world::POD, pod);
    world.until("debug", |w| !w.runtime.times_of("start debug").is_empty()).await;
    world.until("everything again", |w| w.runtime.times_of("start trigger").len() == 2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = &world.status()["ephemeralContainerStatuses"][0];
    assert!(status["state"]["terminated"].is_object(), "{status}");
    assert_eq!(world.runtime.times_of("start debug").len(), 1);
    assert_eq!(world.status()["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn pod_12_a_clock_that_is_set_back_does_not_stop_restarts() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(1), 1)]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until("crash loop", |world| world.runtime.times_of("start c").len() == 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Now the container has ended in the future.
    world.clock.jump(-86_400);
    world.until("restarts", |world| world.runtime.times_of("start c").len() >= 5).await;
    let waits = |world: &World| -> Vec<i64> {
        world.runtime.times_of("start c").windows(2).map(|pair| pair[1] - pair[0] - 1).collect()
    };
    assert_eq!(waits(&world), [0, 10, 20, 40]);
    // A jump ahead looks like ten quiet minutes, no more.
    world.clock.jump(86_400);
    world.until("restarts", |world| world.runtime.times_of("start c").len() >= 8).await;
    assert!(waits(&world).iter().all(|wait| *wait <= 80), "{:?}", waits(&world));
}
