//! Pulls: policies, events, back-off.

use std::time::Duration;

use serde_json::json;
use tonic::Status;

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
    let error = "rpc error: code = Unknown desc = no such thing";
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
