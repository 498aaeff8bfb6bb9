//! A pod's life: start, status, deletion, hooks, probes.

use std::time::Duration;

use serde_json::json;
use tonic::Status;

use crate::fake_runtime::Script;
use crate::world::World;

fn one() -> serde_json::Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "c"}]})
}

#[tokio::test(start_paused = true)]
async fn pod_01_04_16_17_53_a_pod_starts() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    let status = world.status();
    assert_eq!(status["podIP"], "10.0.0.1");
    assert_eq!(status["hostIP"], "10.9.9.9");
    assert_eq!(status["containerStatuses"][0]["containerID"], "fake://container2");
    let conditions = status["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 5);
    assert!(
        conditions
            .iter()
            .all(|condition| condition["status"] == "True" && condition["observedGeneration"] == 1)
    );
    world.until("events", |world| world.has_event("Started")).await;
    assert_eq!(
        world.events(),
        [
            "Normal Pulled spec.containers{c}: Container image \"local:1\" already present on machine and can be accessed by the pod",
            "Normal Created spec.containers{c}: Container created",
            "Normal Started spec.containers{c}: Container started",
        ]
    );
    assert_eq!(world.runtime.call_names(), ["run sandbox", "create c", "start c"]);
}

#[tokio::test(start_paused = true)]
async fn a_status_is_not_written_without_a_change() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let count = |world: &World| {
        world.api.writes.lock().unwrap().iter().filter(|w| w.contains("/pods/p/status")).count()
    };
    let before = count(&world);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(count(&world), before);
    assert!(before <= 3, "{before}");
}

#[tokio::test(start_paused = true)]
async fn pod_18_33_34_a_deleted_pod_ends_and_is_confirmed() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Runs(0)]);
    world.create(one());
    world.until_phase("Running").await;
    world.delete(30);
    world.until_gone().await;
    assert!(world.has_event("Normal Killing spec.containers{c}: Stopping container c"));
    assert!(world.runtime.call_names().contains(&"stop c 30".to_owned()));
    assert!(world.runtime.containers().is_empty());
    assert!(
        world
            .api
            .writes
            .lock()
            .unwrap()
            .iter()
            .any(|write| write == "DELETE /api/v1/namespaces/default/pods/p")
    );
}

#[tokio::test(start_paused = true)]
async fn pod_32_a_second_deletion_shortens_the_grace_period() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(one());
    world.until_phase("Running").await;
    let began = tokio::time::Instant::now();
    world.delete(300);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.delete(10);
    world.until_gone().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn hook_30_a_pod_that_vanished_from_the_api_is_removed_from_the_node() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(one());
    world.until_phase("Running").await;
    world.api.remove(crate::world::POD);
    world.until_gone().await;
}

#[tokio::test(start_paused = true)]
async fn pod_02_34_a_finished_pod_is_cleaned_up_but_stays() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(5), 0)]);
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
    world.until_phase("Succeeded").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status["podIP"], "10.0.0.1");
    assert_eq!(world.runtime.call_names().iter().filter(|call| *call == "run sandbox").count(), 1);
    world.delete(0);
    world.until_gone().await;
}

#[tokio::test(start_paused = true)]
async fn pod_22_23_init_containers_come_first() {
    let world = World::new().await;
    world.runtime.script("i1", &[Script::Ends(Duration::from_secs(1), 0)]);
    world.runtime.script("i2", &[Script::Ends(Duration::from_secs(1), 0)]);
    world.create(json!({"restartPolicy": "Always", "initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "c"}]}));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let early = world.status();
    assert_eq!(early["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let initialized =
        early["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Initialized").cloned().unwrap();
    assert_eq!(initialized["message"], "containers with incomplete status: [i1 i2]");
    world.until_phase("Running").await;
    let starts: Vec<_> =
        world.runtime.call_names().into_iter().filter(|call| call.starts_with("start")).collect();
    assert_eq!(starts, ["start i1", "start i2", "start c"]);
    assert_eq!(world.status()["initContainerStatuses"][0]["ready"], true);
}

#[tokio::test(start_paused = true)]
async fn pod_25_26_27_sidecars_serve_and_end_last() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(5), 0)]);
    world.create(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    world.until_phase("Succeeded").await;
    let calls = world.runtime.call_names();
    let position = |call: &str| calls.iter().position(|name| name.starts_with(call)).unwrap();
    assert!(position("start s1") < position("start s2") && position("start s2") < position("start c"));
    assert!(position("stop s2") < position("stop s1"));
}

#[tokio::test(start_paused = true)]
async fn pod_25_a_sidecar_in_its_back_off_holds_up_nobody() {
    let world = World::new().await;
    // The sidecar runs while the app starts; then it crashes again and again.
    world.runtime.script("s", &[Script::Ends(Duration::from_secs(5), 1), Script::Ends(Duration::ZERO, 1)]);
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(400), 1), Script::Runs(0)]);
    world.create(
        json!({"restartPolicy": "Always", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "c"}]}),
    );
    world.until_phase("Running").await;
    world.until("again", |world| world.runtime.times_of("start c").len() == 2).await;
    let sidecar = &world.status()["initContainerStatuses"][0];
    assert_eq!(sidecar["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let (first, second) = (world.runtime.times_of("start c")[0], world.runtime.times_of("start c")[1]);
    assert!(second - first < 400 + 30, "{first} {second}");
}

#[tokio::test(start_paused = true)]
async fn pod_37_the_deadline_fails_the_pod() {
    let world = World::new().await;
    world.create(
        json!({"restartPolicy": "Always", "activeDeadlineSeconds": 30, "containers": [{"name": "c"}]}),
    );
    world.until_phase("Running").await;
    world.until_phase("Failed").await;
    let status = world.status();
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(status["message"], "Pod was active on the node longer than the specified deadline");
    assert_eq!(world.runtime.times_of("stop c 30"), [30]);
}

#[tokio::test(start_paused = true)]
async fn pod_20_24_a_dead_sandbox_is_replaced_and_init_runs_again() {
    let world = World::new().await;
    world.runtime.script("i", &[Script::Ends(Duration::from_secs(1), 0)]);
    world.create(
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}),
    );
    world.until_phase("Running").await;
    world.runtime.kill_sandbox();
    world
        .until("running again", |world| {
            world.status()["containerStatuses"][0]["restartCount"] == 1
                && world.status()["containerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
    assert!(world.has_event("SandboxChanged : Pod sandbox changed, it will be killed and re-created."));
    assert_eq!(world.runtime.call_names().iter().filter(|call| *call == "start i").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn pod_20_replaced_sandboxes_go_with_the_runs_in_them() {
    let world = World::new().await;
    world.runtime.script("i", &[Script::Ends(Duration::from_secs(1), 0)]);
    world.create(
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}),
    );
    world.until_phase("Running").await;
    for restarts in 1..=3 {
        world.runtime.kill_sandbox();
        world
            .until("running again", |world| {
                let container = &world.status()["containerStatuses"][0];
                container["restartCount"] == restarts && container["state"]["running"].is_object()
            })
            .await;
    }
    // The one that is used, and that of the runs before.
    world.until("removal", |world| world.runtime.sandboxes() == 2).await;
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    let init = &status["initContainerStatuses"][0];
    assert_eq!((&init["restartCount"], &init["ready"]), (&json!(3), &json!(true)));
    assert_eq!(world.runtime.times_of("start i").len(), 4, "init containers ran once in each sandbox");
}

#[tokio::test(start_paused = true)]
async fn rtc_18_only_a_handler_that_is_not_there_fails_the_pod() {
    for (error, phase) in [
        (
            Status::unavailable("the runtime for \"slow\" cannot be used: it did not answer within 5 s"),
            "Running",
        ),
        (Status::failed_precondition("the runtime for \"slow\" cannot be used: it does not exist"), "Failed"),
    ] {
        let world = World::new().await;
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": "class"}, "handler": "slow"});
        world.api.put("/apis/node.k8s.io/v1/runtimeclasses/class", class);
        world.runtime.handlers(&["", "sampan"]);
        world.runtime.sandboxes_fail(vec![error]);
        world.create(
            json!({"restartPolicy": "Always", "runtimeClassName": "class", "containers": [{"name": "c"}]}),
        );
        world.until_phase(phase).await;
        assert!(world.has_event("FailedCreatePodSandBox : Failed to create pod sandbox: rpc error: code = "));
    }
}

#[tokio::test(start_paused = true)]
async fn pod_20_a_pod_whose_containers_outlive_their_sandbox_begins_again() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}, {"name": "d"}]}));
    world.until_phase("Running").await;
    let seen = world.api.statuses(crate::world::POD);
    world.runtime.lose_sandbox();
    world
        .until("both again", |world| {
            let status = world.status();
            (0..2).all(|index| {
                let container = &status["containerStatuses"][index];
                container["restartCount"] == 1 && container["state"]["running"].is_object()
            })
        })
        .await;
    assert!(seen.lock().unwrap().iter().all(|status| status["phase"] == "Running"));
    let calls = world.runtime.call_names();
    assert_eq!(calls.iter().filter(|call| *call == "run sandbox").count(), 2, "{calls:?}");
    assert!(calls.contains(&"stop c 30".to_owned()) && calls.contains(&"stop d 30".to_owned()), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn hook_04_16_17_18_a_failing_post_start_hook() {
    let world = World::new().await;
    world.runtime.exec_result("badcommand", 127, Duration::from_secs(3));
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "lifecycle": {"postStart": {"exec": {"command": ["badcommand"]}}}}]}));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.waiting_reason(), "ContainerCreating");
    world.until("PostStartHookError", |world| world.has_event("FailedPostStartHook")).await;
    assert!(world.has_event("Exec lifecycle hook ([badcommand]) for Container \"c\" in Pod"));
    assert!(world.has_event("exited with 127"));
    assert!(!world.has_event("secret output"));
    world.until("killed", |world| world.has_event("Killing spec.containers{c}: FailedPostStartHook")).await;
    world.until("back-off", |world| world.waiting_reason() == "CrashLoopBackOff").await;
}

#[tokio::test(start_paused = true)]
async fn hook_25_27_the_hook_and_the_signal_share_one_budget() {
    for (grace, hook, left) in [(60, 55, 5), (60, 100, 2), (30, 0, 30)] {
        let world = World::new().await;
        world.runtime.script("c", &[Script::Stubborn]);
        world.runtime.exec_result("hook", 0, Duration::from_secs(hook));
        world.create(
            json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": grace, "containers": [
            {"name": "c", "lifecycle": {"preStop": {"exec": {"command": ["hook"]}}}}]}),
        );
        world.until_phase("Running").await;
        world.delete(grace);
        world.until_gone().await;
        assert!(
            world.runtime.call_names().contains(&format!("stop c {left}")),
            "{:?}",
            world.runtime.call_names()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pod_18_39_a_failing_liveness_probe_restarts_the_container() {
    let world = World::new().await;
    world.runtime.exec_result("alive", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 10, "failureThreshold": 3}}]}));
    world.until("restarted", |world| world.status()["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(world.has_event("Warning Unhealthy spec.containers{c}: Liveness probe failed: secret output"));
    assert!(
        world.has_event("Killing spec.containers{c}: Container c failed liveness probe, will be restarted")
    );
}

#[tokio::test(start_paused = true)]
async fn pod_39_readiness_makes_ready() {
    let world = World::new().await;
    world.runtime.exec_result("ready", 1, Duration::ZERO);
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 5}}]}));
    world.until_phase("Running").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.status()["containerStatuses"][0]["ready"], false);
    world.runtime.exec_result("ready", 0, Duration::ZERO);
    world.until("ready", |world| world.status()["containerStatuses"][0]["ready"] == true).await;
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn env_42_pod_11_a_missing_config_map_is_waited_for() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "envFrom": [{"configMapRef": {"name": "x"}}]}]}));
    world.until("error", |world| world.waiting_reason() == "CreateContainerConfigError").await;
    assert_eq!(
        world.status()["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"x\" not found"
    );
    world
        .until("event", |world| {
            world.has_event("Warning Failed spec.containers{c}: Error: configmap \"x\" not found")
        })
        .await;
    // Its creation is told at once: nobody waits for the next attempt, which is up to 10 s away.
    let created = tokio::time::Instant::now();
    world.api.put(
        "/api/v1/namespaces/default/configmaps/x",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"A": "1"}}),
    );
    world.until_phase("Running").await;
    assert!(created.elapsed() < Duration::from_secs(1), "{:?}", created.elapsed());
}

#[tokio::test(start_paused = true)]
async fn env_48_pod_05_a_missing_volume_source_blocks_the_pod() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Always", "volumes": [{"name": "v", "configMap": {"name": "x"}}], "containers": [
        {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}));
    world
        .until("event", |world| {
            world.has_event(
                "Warning FailedMount : MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found",
            )
        })
        .await;
    assert_eq!(world.waiting_reason(), "ContainerCreating");
    let ready = |world: &World| {
        let conditions = world.status()["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "PodReadyToStartContainers").map(|c| c["status"].clone())
    };
    assert_eq!(ready(&world), Some(json!("False")));
    world.api.put(
        "/api/v1/namespaces/default/configmaps/x",
        json!({"metadata": {"name": "x"}, "data": {"A": "1"}}),
    );
    world.until_phase("Running").await;
    assert_eq!(ready(&world), Some(json!("True")));
    let mount = &world.runtime.containers()[0].mounts[0];
    assert!(mount.readonly && mount.container_path == "/v");
    assert_eq!(std::fs::read_to_string(format!("{}/A", mount.host_path)).unwrap(), "1");
}
