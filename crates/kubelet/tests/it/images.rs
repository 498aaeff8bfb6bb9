//! Pulls: policies, events, back-off.

use std::time::Duration;

use serde_json::json;
use tonic::Status;

use sampan_kubelet::ImageConfig;
use sampan_kubelet::eviction::Signal;

use crate::fake_runtime::Script;
use crate::world::World;

fn with_image(image: &str, policy: &str) -> serde_json::Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]})
}

#[tokio::test(start_paused = true)]
async fn img_24_38_39_an_absent_image_is_pulled_once() {
    let world = World::new().await;
    world.create(with_image("far:1", "IfNotPresent"));
    world.until_phase("Running").await;
    world.until("events", |world| world.has_event("Started")).await;
    let events = world.events();
    assert_eq!(events[0], "Normal Pulling spec.containers{c}: Pulling image \"far:1\"");
    assert!(
        events[1].starts_with("Normal Pulled spec.containers{c}: Successfully pulled image \"far:1\" in ")
    );
    assert!(events[1].ends_with(" including waiting). Image size: 7 bytes."), "{}", events[1]);
    assert_eq!(world.runtime.times_of("pull far:1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn img_16_23_always_pulls_with_the_default_tag() {
    let world = World::new().await;
    world.runtime.add_image("far:latest");
    world.create(with_image("far", "Always"));
    world.until_phase("Running").await;
    assert_eq!(world.runtime.times_of("pull far:latest").len(), 1);
    assert!(world.has_event("Pulling image \"far\""));
}

#[tokio::test(start_paused = true)]
async fn img_27_never_waits_for_somebody_else() {
    let world = World::new().await;
    world.create(with_image("far:1", "Never"));
    world.until("ErrImageNeverPull", |world| world.waiting_reason() == "ErrImageNeverPull").await;
    world.until("events", |world| world.has_event("Error: ErrImageNeverPull")).await;
    assert!(world.has_event("Warning ErrImageNeverPull spec.containers{c}: Container image \"far:1\" is not present with pull policy of Never"));
    world.runtime.add_image("far:1");
    world.until_phase("Running").await;
    assert!(world.runtime.times_of("pull far:1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn img_28_a_bad_name_is_never_pulled() {
    let world = World::new().await;
    world.create(with_image("FAILED_IMAGE", "IfNotPresent"));
    world.until("InvalidImageName", |world| world.waiting_reason() == "InvalidImageName").await;
    world.until("events", |world| world.has_event("Error: InvalidImageName")).await;
    assert!(world.has_event("Warning InspectFailed spec.containers{c}: Failed to apply default image tag \"FAILED_IMAGE\": couldn't parse image name \"FAILED_IMAGE\": invalid reference format: repository name (library/FAILED_IMAGE) must be lowercase"));
    assert_eq!(world.status()["phase"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn img_30_33_34_36_failing_pulls_back_off() {
    let world = World::new().await;
    world.runtime.pulls((0..4).map(|_| Err(Status::unknown("no such thing"))).collect());
    world.create(with_image("far:1", "IfNotPresent"));
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    let error = "no such thing (tried: anonymous)";
    assert_eq!(world.status()["containerStatuses"][0]["state"]["waiting"]["message"], error);
    world.until("ImagePullBackOff", |world| world.waiting_reason() == "ImagePullBackOff").await;
    assert_eq!(
        world.status()["containerStatuses"][0]["state"]["waiting"]["message"],
        format!("Back-off pulling image \"far:1\": ErrImagePull: {error}")
    );
    world.until("events", |world| world.has_event("Error: ImagePullBackOff")).await;
    assert!(world.has_event("Normal BackOff spec.containers{c}: Back-off pulling image \"far:1\""));
    assert!(
        world.has_event(&format!(
            "Warning Failed spec.containers{{c}}: Failed to pull image \"far:1\": {error}"
        ))
    );
    assert!(world.has_event("Warning Failed spec.containers{c}: Error: ErrImagePull"));
    world.until_phase("Running").await;
    let times = world.runtime.times_of("pull far:1");
    let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [10, 20, 40, 80]);
}

#[tokio::test(start_paused = true)]
async fn img_70_a_missing_pull_secret_is_only_a_warning() {
    let world = World::new().await;
    let mut spec = with_image("far:1", "IfNotPresent");
    spec["imagePullSecrets"] = json!([{"name": "a"}, {"name": "b"}]);
    world.create(spec);
    world.until_phase("Running").await;
    world.until("event", |world| world.has_event("Warning FailedToRetrieveImagePullSecret : Unable to retrieve some image pull secrets (a, b); attempting to pull the image may not succeed.")).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_for_a_pull() {
    let world = World::new().await;
    world.runtime.pulls(vec![Err(Status::unknown("x"))]);
    world.create(with_image("far:1", "IfNotPresent"));
    world.until("failed", |world| world.waiting_reason() == "ErrImagePull").await;
    let began = tokio::time::Instant::now();
    world.delete(30);
    world.until_gone().await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn img_27_an_image_that_appears_ends_every_wait_at_once() {
    for policy in ["Never", "IfNotPresent"] {
        let world = World::new().await;
        world.runtime.pulls((0..9).map(|_| Err(Status::unknown("away"))).collect());
        world.create(with_image("far:1", policy));
        let waits = ["ErrImageNeverPull", "ImagePullBackOff"];
        world.until("the wait", |world| waits.contains(&world.waiting_reason().as_str())).await;
        let began = tokio::time::Instant::now();
        world.runtime.add_image("far:1");
        world.until_phase("Running").await;
        assert!(began.elapsed() < Duration::from_secs(4), "{policy}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn img_29_a_look_up_that_fails_is_told() {
    let world = World::new().await;
    world.runtime.image_status_fails(Some(Status::unknown("disk on fire")));
    world.create(with_image("far:1", "IfNotPresent"));
    world.until("ImageInspectError", |world| world.waiting_reason() == "ImageInspectError").await;
    let message = "Failed to inspect image \"\": rpc error: code = Unknown desc = disk on fire";
    assert_eq!(world.waiting_message(), message);
    world
        .until("event", |world| {
            world.has_event(&format!("Warning InspectFailed spec.containers{{c}}: {message}"))
        })
        .await;
    world.runtime.image_status_fails(None);
    world.until_phase("Running").await;
}

#[tokio::test(start_paused = true)]
async fn img_31_img_34_an_unavailable_registry_has_its_own_reason() {
    let world = World::new().await;
    world.runtime.pulls(vec![Err(Status::unknown("RegistryUnavailable: connection refused"))]);
    world.create(with_image("far:1", "IfNotPresent"));
    world.until("RegistryUnavailable", |world| world.waiting_reason() == "RegistryUnavailable").await;
    let message = "image pull failed for far:1 because the registry is unavailable: connection refused (tried: anonymous)";
    assert_eq!(world.waiting_message(), message);
    world.until("back-off", |world| world.waiting_reason() == "ImagePullBackOff").await;
    assert_eq!(
        world.waiting_message(),
        format!("Back-off pulling image \"far:1\": RegistryUnavailable: {message}")
    );
}

#[tokio::test(start_paused = true)]
async fn img_44_pulls_over_the_limit_fail_at_once() {
    let images = ImageConfig { registry_pull_qps: 1, registry_burst: 1, ..Default::default() };
    let world = World::with_images(images).await;
    world.create(json!({"containers": [
        {"name": "a", "image": "far:1", "imagePullPolicy": "Always"},
        {"name": "b", "image": "far:2", "imagePullPolicy": "Always"}]}));
    world
        .until("the limit", |world| world.has_event("Failed to pull image \"far:2\": pull QPS exceeded"))
        .await;
    world.until_phase("Running").await;
    assert_eq!(world.runtime.times_of("pull far:2").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn img_37_a_success_does_not_reset_the_back_off() {
    let world = World::new().await;
    let fails = || Err(Status::unknown("away"));
    world.runtime.pulls(vec![fails(), fails(), Ok(()), fails()]);
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(1), 1), Script::Runs(0)]);
    world.create(with_image("far:1", "Always"));
    world.until_phase("Running").await;
    world.until("the restart", |world| world.status()["containerStatuses"][0]["restartCount"] == 1).await;
    let times = world.runtime.times_of("pull far:1");
    let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 10 s, 20 s; the container ran for a second and failed; the next failure waits twice as long again.
    assert_eq!((waits[0], waits[1], waits[3]), (10, 20, 40), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_pull_says_how_far_it_has_come_and_floods_nobody() {
    use sampan_cri::progress::{Layer, LayerState, Phase, WatchResponse};
    let world = World::new().await;
    let state = |mib: u64| WatchResponse {
        phase: Phase::Pulling.into(),
        layers: vec![
            Layer {
                state: LayerState::Complete.into(),
                downloaded: 20 << 20,
                total: 20 << 20,
                ..Default::default()
            },
            Layer {
                state: LayerState::Downloading.into(),
                downloaded: mib << 20,
                total: 100 << 20,
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    world.runtime.slow_pulls(Duration::from_secs(60), (0..50).map(state).collect());
    world.create(with_image("far:1", "IfNotPresent"));
    world
        .until("progress", |world| {
            world
                .waiting_message()
                .starts_with("Pulling image \"far:1\": 26.0 MiB of 120.0 MiB (1 of 2 layers)")
        })
        .await;
    assert_eq!(world.waiting_reason(), "ContainerCreating");
    let patches =
        || world.api.writes.lock().unwrap().iter().filter(|write| write.ends_with("/pods/p/status")).count();
    let before = patches();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!((5..=11).contains(&(patches() - before)), "{}", patches() - before);
    world.until_phase("Running").await;
}

/// A node with an image that nothing uses, and one that a container uses.
async fn with_an_unused_image(images: ImageConfig) -> World {
    let world = World::with_images(images).await;
    world.runtime.image_disk("/");
    world.runtime.add_image("unused:1");
    world.create(with_image("local:1", "IfNotPresent"));
    world.until_phase("Running").await;
    world
}

async fn until_only_the_unused_image_is_gone(world: &World) {
    world.until("removed", |world| !world.runtime.images().contains(&"unused:1".to_owned())).await;
    assert!(world.runtime.images().contains(&"local:1".to_owned()), "in use");
}

#[tokio::test(start_paused = true)]
async fn img_83_unused_images_go_when_the_disk_is_full() {
    // Any disk is over one percent, and none gets empty.
    let (high, low) = (1, 0);
    let world = with_an_unused_image(ImageConfig {
        image_gc_high_threshold_percent: high,
        image_gc_low_threshold_percent: low,
        ..Default::default()
    })
    .await;
    until_only_the_unused_image_is_gone(&world).await;
    world
        .until("told", |world| {
            world.api.list("events").iter().any(|event| {
                event["reason"] == "FreeDiskSpaceFailed" && event["involvedObject"]["kind"] == "Node"
            })
        })
        .await;
    // The same failure again is the node's business.
    world
        .until("told", |world| {
            world.api.list("events").iter().any(|event| event["reason"] == "ImageGCFailed")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn img_83_a_threshold_of_a_hundred_percent_switches_it_off() {
    let world = with_an_unused_image(ImageConfig {
        image_gc_high_threshold_percent: 100,
        image_gc_low_threshold_percent: 0,
        ..Default::default()
    })
    .await;
    // Not even looked at: it has no capacity.
    world.runtime.image_disk("/proc");
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert!(!world.api.list("events").iter().any(|event| event["reason"] == "InvalidDiskCapacity"));
    assert!(world.runtime.images().contains(&"unused:1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn img_83_disk_pressure_takes_unused_images_before_it_takes_a_pod() {
    let world = with_an_unused_image(ImageConfig::default()).await;
    // Old enough to go, and long before the next round.
    tokio::time::sleep(Duration::from_secs(130)).await;
    let began = tokio::time::Instant::now();
    world.signals.set(Signal::ImageFsAvailable, 1, 100);
    until_only_the_unused_image_is_gone(&world).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    // That was not enough, so a pod goes.
    world.until_phase("Failed").await;
    assert_eq!(world.status()["reason"], "Evicted");
}

#[tokio::test(start_paused = true)]
async fn img_84_images_unused_for_too_long_go_with_the_disk_empty() {
    let world = with_an_unused_image(ImageConfig {
        image_gc_high_threshold_percent: 100,
        image_maximum_gc_age: Duration::from_secs(3_600),
        ..Default::default()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert!(
        world.runtime.images().contains(&"unused:1".to_owned()),
        "not before the kubelet is up that long"
    );
    until_only_the_unused_image_is_gone(&world).await;
}

#[tokio::test(start_paused = true)]
async fn img_41_img_87_an_image_volume_is_pulled_with_its_policy_and_mounted_by_the_runtime() {
    let world = World::new().await;
    world.create(json!({
        "volumes": [{"name": "v", "image": {"reference": "far:1", "pullPolicy": "IfNotPresent"}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "dir"}]}]}));
    world.until_phase("Running").await;
    let mounts = world.runtime.mounts("c");
    let mount = mounts.iter().find(|mount| mount.container_path == "/v").unwrap();
    assert_eq!(mount.image.as_ref().unwrap().image, "far:1");
    assert_eq!((mount.image_sub_path.as_str(), mount.readonly), ("dir", true));
    // IMG-41: about the pod, not about a container.
    world.until("events", |world| world.has_event("Normal Pulling : Pulling image \"far:1\"")).await;
}

#[tokio::test(start_paused = true)]
async fn img_88_an_image_volume_that_cannot_be_had_blocks_only_who_mounts_it() {
    let world = World::new().await;
    world.runtime.pulls((0..2).map(|_| Err(Status::not_found("no such image"))).collect());
    world.create(json!({
        "volumes": [{"name": "v", "image": {"reference": "far:1", "pullPolicy": "IfNotPresent"}},
                    {"name": "unused", "image": {"reference": "BAD", "pullPolicy": "IfNotPresent"}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, {"name": "free"}]}));
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    world
        .until("the other one", |world| {
            world.status()["containerStatuses"][1]["state"]["running"].is_object()
        })
        .await;
    world.until("back-off", |world| world.waiting_reason() == "ImagePullBackOff").await;
    world.until("all", |world| world.status()["containerStatuses"][0]["state"]["running"].is_object()).await;
}

#[tokio::test(start_paused = true)]
async fn pod_13_44_another_image_does_not_wait_for_the_first_ones_back_off() {
    let world = World::new().await;
    world.runtime.pulls((0..3).map(|_| Err(Status::unknown("no such thing"))).collect());
    world.create(with_image("far:1", "IfNotPresent"));
    world.until("three pulls", |world| world.runtime.times_of("pull far:1").len() == 3).await;
    world.until("ImagePullBackOff", |world| world.waiting_reason() == "ImagePullBackOff").await;
    let before = tokio::time::Instant::now();
    world.change_image("far:2");
    world.until_phase("Running").await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(world.runtime.times_of("pull far:2").len(), 1);
}
