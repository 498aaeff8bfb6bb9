//! Who pulls with what, and who may use what is there: Secrets, the node's file, records (IMG-45, IMG-55 to
//! IMG-82, IMG-89).

use std::time::Duration;

use sampan_kubelet::{ImageConfig, VerificationPolicy};
use serde_json::{Value, json};
use tonic::Status;

use crate::world::{POD, World};

fn denied() -> Status {
    Status::permission_denied("401 Unauthorized")
}

fn pod(image: &str, policy: &str, secrets: &[&str]) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"restartPolicy": "Always", "imagePullSecrets": secrets,
        "containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]})
}

async fn replace(world: &World, spec: Value) {
    world.delete(0);
    world.until("the end", |world| world.runtime.sandboxes() == 0).await;
    world.api.remove(POD);
    world.until_gone().await;
    world.create(spec);
    // Same name, another pod.
    let mut pod = world.pod();
    let uid = format!("uid-{}", world.runtime.call_names().len());
    pod["metadata"]["uid"] = json!(uid);
    world.api.remove(POD);
    world.api.put(POD, pod);
}

#[test]
fn docker_configurations_of_any_bytes() {
    let auths = r#"{"https://reg.io/v1/":{"auth":"dTpodW50ZXIy"},"*.io:5000/a":{"username":"u","password":"hunter2"}}"#;
    let new =
        format!("reg.io/a\n{{\"auths\":{auths},\"credHelpers\":{{\"b.io\":\"x\"}},\"credsStore\":\"y\"}}");
    let old = format!("b.io:5000/a/c\n{auths}");
    sampan_oci::fuzzing::run(sampan_kubelet::fuzzing::docker_config, &[&new, &old]);
}

#[tokio::test(start_paused = true)]
async fn img_64_img_66_img_67_all_matching_credentials_are_tried_in_order() {
    let world = World::new().await;
    world.runtime.private("right", denied());
    world.pull_secret("a", "wrong", "1");
    world.pull_secret("b", "right", "2");
    world.create(pod("far.io/x:1", "IfNotPresent", &["a", "b"]));
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins(), ["wrong:1", "right:2"]);
}

#[tokio::test(start_paused = true)]
async fn img_44_a_pull_counts_once_however_many_credentials_it_takes() {
    let images = ImageConfig { registry_pull_qps: 1, registry_burst: 1, ..Default::default() };
    let world = World::with_images(images).await;
    world.runtime.private("right", denied());
    world.pull_secret("a", "wrong", "1");
    world.pull_secret("b", "right", "2");
    world.create(pod("far.io/x:1", "IfNotPresent", &["a", "b"]));
    world.until_phase("Running").await;
    assert!(!world.has_event("pull QPS exceeded"));
}

#[tokio::test(start_paused = true)]
async fn img_66_img_69_each_refusal_is_told_with_its_credential_and_without_secrets() {
    let world = World::new().await;
    world.runtime.private("nobody", denied());
    world.pull_secret("a", "alice", "hunter2");
    std::fs::write(
        world.dir().join("config.json"),
        r#"{"auths": {"*.io": {"username": "node", "password": "hunter3"}}}"#,
    )
    .unwrap();
    world.create(pod("far.io/x:1", "IfNotPresent", &["a"]));
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    let error = "rpc error: code = PermissionDenied desc = 401 Unauthorized";
    let file = world.dir().join("config.json");
    assert_eq!(
        world.waiting_message(),
        format!(
            "[{error} (tried: Secret default/a for far.io), {error} (tried: {} for *.io)]",
            file.display()
        )
    );
    world.until("event", |world| world.has_event("Failed to pull image \"far.io/x:1\": [rpc error")).await;
    // IMG-69: the pod's own first, then the node's.
    assert_eq!(world.runtime.logins(), ["alice:hunter2", "node:hunter3"]);
    let told = format!("{:?} {}", world.events(), world.pod());
    assert!(!told.contains("hunter") && !told.contains("alice"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn img_64_without_a_match_the_pull_is_anonymous_and_says_why() {
    let world = World::new().await;
    world.runtime.private("right", denied());
    world.pull_secret("a", "right", "1");
    world.create(pod("other.io/x:1", "IfNotPresent", &["a", "gone"]));
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    assert_eq!(world.runtime.logins(), [":"]);
    assert_eq!(
        world.waiting_message(),
        "rpc error: code = PermissionDenied desc = 401 Unauthorized (tried: anonymous; Secret default/a has no entry for other.io/x; Secret default/gone does not exist)"
    );
    assert_eq!(world.status()["phase"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn img_45_img_89_secrets_are_only_read_when_something_depends_on_them() {
    let world = World::new().await;
    world.secret("bad", "{\"auths\": hunter2}");
    // The image is there and everybody's.
    world.create(pod("local:1", "IfNotPresent", &["bad"]));
    world.until_phase("Running").await;
    // The other one would have to be pulled.
    replace(&world, pod("far.io/x:1", "IfNotPresent", &["bad"])).await;
    world.until("the parser's error", |world| world.waiting_reason().contains("line 1")).await;
    assert!(world.waiting_message().starts_with("Secret default/bad: "), "{}", world.waiting_message());
    assert!(!world.pod().to_string().contains("hunter2"));
    assert!(world.runtime.logins().is_empty());
}

#[tokio::test(start_paused = true)]
async fn img_76_img_80_img_82_a_private_image_is_not_everybodys() {
    let mut world = World::new().await;
    world.runtime.private("right", denied());
    world.pull_secret("a", "right", "1");
    world.create(pod("far.io/x:1", "IfNotPresent", &["a"]));
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins(), ["right:1"]);
    // Without the Secret: asked again, although it is here; `Never` tells nothing.
    replace(&world, pod("far.io/x:1", "IfNotPresent", &[])).await;
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    replace(&world, pod("far.io/x:1", "Never", &[])).await;
    world.until("ErrImageNeverPull", |world| world.waiting_reason() == "ErrImageNeverPull").await;
    assert_eq!(
        world.waiting_message(),
        "Container image \"far.io/x:1\" is not present with pull policy of Never"
    );
    let pulls = world.runtime.logins().len();
    // With the Secret, or another one with the same content: no pull, also after a restart of the daemon.
    world.start_kubelet().await;
    for (secret, policy) in [("a", "IfNotPresent"), ("b", "Never")] {
        world.pull_secret("b", "right", "1");
        replace(&world, pod("far.io/x:1", policy, &[secret])).await;
        world.until_phase("Running").await;
    }
    assert_eq!(world.runtime.logins().len(), pulls);
}

#[tokio::test(start_paused = true)]
async fn mirrors_are_shown_what_is_theirs_and_what_they_bring_is_not_everybodys() {
    let world = World::new().await;
    world.runtime.mirrored(&["mirror.lan:5000", "other.lan"]);
    let config = json!({"auths": {
        "mirror.lan:5000": {"username": "m", "password": "1"},
        "mirror.lan:5000/y": {"username": "no", "password": "2"},
        "other.lan/x": {"username": "o", "password": "3"}}});
    world.secret("a", &config.to_string());
    world.create(pod("far.io/x:1", "IfNotPresent", &["a"]));
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins(), [":"], "nothing is known for the registry itself");
    assert_eq!(world.runtime.mirror_logins(), ["mirror.lan:5000 m:1", "other.lan o:3"]);
    // Whoever has no credential for a mirror may not use what may have come from there.
    replace(&world, pod("far.io/x:1", "Never", &[])).await;
    world.until("ErrImageNeverPull", |world| world.waiting_reason() == "ErrImageNeverPull").await;
    replace(&world, pod("far.io/x:1", "Never", &["a"])).await;
    world.until_phase("Running").await;
    // The registry's credential goes to the registry only.
    world.pull_secret("b", "far", "4");
    world.runtime.private("nobody", denied());
    replace(&world, pod("far.io/y:1", "IfNotPresent", &["a", "b"])).await;
    world.until("ErrImagePull", |world| world.waiting_reason() == "ErrImagePull").await;
    assert_eq!(world.runtime.logins().last().unwrap(), "far:4");
    assert_eq!(world.runtime.mirror_logins(), ["mirror.lan:5000 no:2", "mirror.lan:5000 m:1"]);
    let message = world.waiting_message();
    let tried = "(tried: Secret default/b for far.io; mirror mirror.lan:5000: Secret default/a for mirror.lan:5000/y; mirror mirror.lan:5000: Secret default/a for mirror.lan:5000)";
    assert!(message.ends_with(tried), "{message}");
}

#[tokio::test(start_paused = true)]
async fn img_40_img_77_img_79_preloaded_and_node_pulled_images_are_everybodys() {
    let world = World::new().await;
    world.runtime.add_image("far.io/loaded:1");
    world.create(pod("far.io/loaded:1", "Never", &[]));
    world.until_phase("Running").await;
    let here = "Normal Pulled spec.containers{c}: Container image \"far.io/loaded:1\" already present on machine and can be accessed by the pod";
    world.until("the event", |world| world.has_event(here)).await;
    std::fs::write(
        world.dir().join("config.json"),
        r#"{"auths": {"far.io": {"username": "right", "password": "1"}}}"#,
    )
    .unwrap();
    world.runtime.private("right", denied());
    replace(&world, pod("far.io/x:1", "IfNotPresent", &[])).await;
    world.until_phase("Running").await;
    std::fs::remove_file(world.dir().join("config.json")).unwrap();
    replace(&world, pod("far.io/x:1", "IfNotPresent", &[])).await;
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins(), ["right:1"]);
}

#[tokio::test(start_paused = true)]
async fn img_78_always_verify_asks_for_preloaded_images_too() {
    let world = World::with_images(ImageConfig {
        image_pull_credentials_verification_policy: VerificationPolicy::AlwaysVerify,
        ..Default::default()
    })
    .await;
    world.runtime.add_image("far.io/loaded:1");
    world.create(pod("far.io/loaded:1", "IfNotPresent", &[]));
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins(), [":"]);
}

#[tokio::test(start_paused = true)]
async fn img_81_a_pull_that_a_crash_interrupted_leaves_no_free_image() {
    let mut world = World::new().await;
    world.runtime.slow_pulls(Duration::from_secs(600), Vec::new());
    world.create(pod("far.io/x:1", "IfNotPresent", &[]));
    world.until("the pull", |world| world.runtime.logins().len() == 1).await;
    // The kubelet dies; the runtime finishes what it began.
    world.runtime.add_image("far.io/x:1");
    world.runtime.slow_pulls(Duration::ZERO, Vec::new());
    world.start_kubelet().await;
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins().len(), 2, "it was asked for again");
}

#[tokio::test(start_paused = true)]
async fn img_81_a_pull_that_a_deletion_interrupted_leaves_no_free_image() {
    let world = World::new().await;
    world.runtime.slow_pulls(Duration::from_secs(600), Vec::new());
    world.create(pod("far.io/x:1", "IfNotPresent", &[]));
    world.until("the pull", |world| world.runtime.logins().len() == 1).await;
    replace(&world, pod("far.io/y:1", "IfNotPresent", &[])).await;
    world.until("the next pull", |world| world.runtime.logins().len() == 2).await;
    // The runtime finishes what it began.
    world.runtime.add_image("far.io/x:1");
    world.runtime.slow_pulls(Duration::ZERO, Vec::new());
    replace(&world, pod("far.io/x:1", "IfNotPresent", &[])).await;
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins().len(), 3, "it was asked for again");
    // So it is for what nobody has asked for meanwhile.
    world.runtime.add_image("far.io/y:1");
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    replace(&world, pod("far.io/y:1", "IfNotPresent", &[])).await;
    world.until_phase("Running").await;
    assert_eq!(world.runtime.logins().len(), 4, "it was asked for again");
}

#[tokio::test(start_paused = true)]
async fn img_77_a_preloaded_image_stays_one_when_a_pull_of_it_is_given_up() {
    let world = World::new().await;
    world.runtime.add_image("far.io/x:1");
    world.runtime.slow_pulls(Duration::from_secs(6_000), Vec::new());
    world.create(pod("far.io/x:1", "Always", &[]));
    world.until("the pull", |world| world.runtime.logins().len() == 1).await;
    for wait in [0, 1_000] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        replace(&world, pod("far.io/x:1", "IfNotPresent", &[])).await;
        world.until_phase("Running").await;
    }
    assert_eq!(world.runtime.logins().len(), 1, "nothing was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_appears_or_changes_ends_the_back_off() {
    let world = World::new().await;
    world.runtime.private("right", denied());
    world.create(pod("far.io/x:1", "IfNotPresent", &["a"]));
    let backs_off = |world: &World| world.waiting_reason() == "ImagePullBackOff";
    let pulls = |world: &World| world.runtime.times_of("pull far.io/x:1");
    world.until("back-off", backs_off).await;
    world.pull_secret("a", "wrong", "1");
    world.until("a second attempt", |world| pulls(world).len() == 2).await;
    world.until("back-off", backs_off).await;
    assert!(world.waiting_message().contains("Secret default/a for far.io"), "{}", world.waiting_message());
    world.pull_secret("a", "right", "1");
    world.until_phase("Running").await;
    let times = pulls(&world);
    assert!(times[2] - times[0] < 8, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn img_59_the_nodes_file_ends_the_back_off_when_it_changes() {
    let world = World::new().await;
    world.runtime.private("right", denied());
    world.create(pod("far.io/x:1", "Always", &[]));
    world.until("back-off", |world| world.waiting_reason() == "ImagePullBackOff").await;
    std::fs::write(
        world.dir().join("config.json"),
        r#"{"auths": {"far.io": {"username": "right", "password": "1"}}}"#,
    )
    .unwrap();
    world.until_phase("Running").await;
    let times = world.runtime.times_of("pull far.io/x:1");
    assert!(times[1] - times[0] < 8, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn img_59_the_nodes_file_is_corrected_while_an_attempt_runs() {
    let world = World::new().await;
    world.runtime.private("right", denied());
    world.runtime.slow_pulls(Duration::from_secs(60), Vec::new());
    world.create(pod("far.io/x:1", "Always", &[]));
    world.until("the pull", |world| world.runtime.logins().len() == 1).await;
    std::fs::write(
        world.dir().join("config.json"),
        r#"{"auths": {"far.io": {"username": "right", "password": "1"}}}"#,
    )
    .unwrap();
    world.until_phase("Running").await;
    let times = world.runtime.times_of("pull far.io/x:1");
    assert!(times[1] - times[0] < 60 + 8, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_help_does_not_shorten_the_next_wait() {
    let world = World::new().await;
    world.runtime.private("nobody", denied());
    world.create(pod("far.io/x:1", "Always", &["a"]));
    for round in 0..3 {
        world.until("back-off", |world| world.waiting_reason() == "ImagePullBackOff").await;
        let pulls = world.runtime.logins().len();
        world.pull_secret("a", "wrong", &round.to_string());
        world.until("an attempt", |world| world.runtime.logins().len() == pulls + 1).await;
    }
    let before = world.runtime.times_of("pull far.io/x:1");
    world.until("the next", |world| world.runtime.times_of("pull far.io/x:1").len() > before.len()).await;
    let times = world.runtime.times_of("pull far.io/x:1");
    // Four failures in a row: 80 s.
    assert_eq!(times[times.len() - 1] - times[times.len() - 2], 80);
}
