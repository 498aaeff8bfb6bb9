//! Static pods and their mirrors.

use serde_json::{Value, json};

use crate::fake_runtime::Script;
use crate::world::World;

const MIRROR: &str = "/api/v1/namespaces/default/pods/web-node";

fn manifest(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 7\n  \
         containers: [{{name: c, image: {image}, imagePullPolicy: IfNotPresent}}]\n"
    )
}

fn write(world: &World, image: &str) {
    std::fs::write(world.manifests().join("web.yaml"), manifest(image)).unwrap();
}

fn mirror(world: &World) -> Option<Value> {
    world.api.get(MIRROR)
}

async fn until_running(world: &World) {
    world.until("mirror Running", |w| mirror(w).is_some_and(|m| m["status"]["phase"] == "Running")).await;
}

fn starts(world: &World) -> usize {
    world.runtime.call_names().iter().filter(|call| call.starts_with("start")).count()
}

#[tokio::test(start_paused = true)]
async fn pod_49_a_manifest_runs_and_has_a_mirror_that_the_node_owns() {
    let world = World::new().await;
    write(&world, "local:1");
    until_running(&world).await;
    let mirror = mirror(&world).unwrap();
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    assert!(annotations["kubernetes.io/config.seen"].is_string());
    let owner = &mirror["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"], &owner["controller"]),
        (&json!("Node"), &json!("node"), &json!(true))
    );
    // POD-57: nobody's generation is observed.
    assert_eq!(mirror["status"]["observedGeneration"], Value::Null);
    assert_eq!(world.runtime.sandboxes(), 1, "the mirror itself is not run");
}

#[tokio::test(start_paused = true)]
async fn pod_50_a_deleted_mirror_comes_back_and_nothing_restarts() {
    let world = World::new().await;
    write(&world, "local:1");
    until_running(&world).await;
    let before = starts(&world);
    world.api.remove(MIRROR);
    until_running(&world).await;
    // Gracefully, as `kubectl delete` does: the object stays with a deletion time.
    let mut deleting = mirror(&world).unwrap();
    deleting["metadata"]["uid"] = json!("graceful");
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    world.api.put(MIRROR, deleting);
    world
        .until("new mirror", |w| mirror(w).is_some_and(|m| m["metadata"]["deletionTimestamp"].is_null()))
        .await;
    until_running(&world).await;
    assert_eq!(starts(&world), before);
}

#[tokio::test(start_paused = true)]
async fn pod_50_an_edited_manifest_is_another_pod_and_a_removed_one_ends() {
    let world = World::new().await;
    write(&world, "local:1");
    until_running(&world).await;
    let hash = |world: &World| {
        mirror(world).map(|m| m["metadata"]["annotations"]["kubernetes.io/config.mirror"].clone())
    };
    let first = hash(&world);
    world.runtime.add_image("local:2");
    write(&world, "local:2");
    world.until("the new one's mirror", |w| hash(w).is_some_and(|hash| Some(hash) != first)).await;
    until_running(&world).await;
    assert_eq!(mirror(&world).unwrap()["spec"]["containers"][0]["image"], "local:2");
    assert_eq!(world.runtime.sandboxes(), 1, "the old one is gone");
    // A mistake in an edit does not end what runs.
    std::fs::write(world.manifests().join("web.yaml"), "kind: [").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.runtime.sandboxes(), 1);
    std::fs::remove_file(world.manifests().join("web.yaml")).unwrap();
    world.until("gone", |w| mirror(w).is_none() && w.runtime.sandboxes() == 0).await;
    let stops = world.runtime.call_names().iter().filter(|call| *call == "stop c 7").count();
    assert_eq!(stops, 2, "each with its own grace period: {:?}", world.runtime.call_names());
}

#[tokio::test(start_paused = true)]
async fn pod_51_static_pods_run_without_an_api_server() {
    let world = World::without_api().await;
    write(&world, "local:1");
    world.until("running", |w| starts(w) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn pod_51_a_manifest_edited_while_no_kubelet_ran_replaces_its_pod_without_an_overlap() {
    let mut world = World::without_api().await;
    world.runtime.script("c", &[Script::Stubborn]);
    write(&world, "local:1");
    world.until("running", |world| starts(world) == 1).await;
    world.kill_kubelet().await;
    world.runtime.add_image("local:2");
    write(&world, "local:2");
    let restarted = world.runtime.now();
    world.start_kubelet().await;
    world.until("replaced", |world| starts(world) == 2).await;
    assert_eq!(world.runtime.now() - restarted, 7, "the grace period of the old one");
    let calls = world.runtime.call_names();
    let at = |call: &str| calls.iter().rposition(|name| name == call).unwrap();
    assert!(at("stop c 7") < at("start c"), "{calls:?}");
    world.until("one sandbox", |world| world.runtime.sandboxes() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn pod_49_a_directory_that_cannot_be_read_ends_no_pod() {
    let world = World::new().await;
    write(&world, "local:1");
    until_running(&world).await;
    let (there, aside) = (world.manifests(), world.dir().join("aside"));
    std::fs::rename(&there, &aside).unwrap();
    std::os::unix::fs::symlink(&there, &there).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    assert!(!world.runtime.call_names().iter().any(|call| call.starts_with("stop")));
    // Nothing there is an answer.
    std::fs::remove_file(&there).unwrap();
    world.until("ended", |world| world.runtime.sandboxes() == 0).await;
}
