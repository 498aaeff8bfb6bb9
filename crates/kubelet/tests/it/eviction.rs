//! A node that is short of something.

use std::time::Duration;

use sampan_kubelet::eviction::Signal;
use serde_json::{Value, json};

use crate::fake_runtime::Script;
use crate::world::World;

const OTHER: &str = "/api/v1/namespaces/default/pods/q";

/// Makes a second pod, `q`, with a container `d`.
fn create_other(world: &World, mut spec: Value) {
    spec["nodeName"] = json!("node");
    spec["terminationGracePeriodSeconds"] = json!(30);
    spec["containers"] = json!([{"name": "d", "image": "local:1", "imagePullPolicy": "IfNotPresent"}]);
    world.api.put(
        OTHER,
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "q", "namespace": "default", "uid": "uid-2", "generation": 1},
        "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}),
    );
}

fn phase_of_other(world: &World) -> Value {
    world.api.get(OTHER).expect("the other pod")["status"]["phase"].clone()
}

/// The disk of images is short until the runtime has no container called `name` any more.
fn short_until_removed(world: &World, name: &'static str) {
    let (signals, runtime) = (world.signals.clone(), world.runtime.clone());
    signals.set(Signal::ImageFsAvailable, 1, 100);
    tokio::spawn(async move {
        while runtime.containers().iter().any(|run| run.metadata.as_ref().unwrap().name == name) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        signals.set(Signal::ImageFsAvailable, 90, 100);
    });
}

fn condition(world: &World, type_: &str) -> Option<Value> {
    let node = world.api.get("/api/v1/nodes/node")?;
    let conditions = node["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_).cloned()
}

fn is(world: &World, type_: &str, status: &str) -> bool {
    condition(world, type_).is_some_and(|condition| condition["status"] == status)
}

#[tokio::test(start_paused = true)]
async fn pod_56_memory_pressure_ends_a_pod_and_shows_on_the_node() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "c"}], "restartPolicy": "Always"}));
    world.until_phase("Running").await;
    world.signals.set(Signal::MemoryAvailable, 50 << 20, 1 << 30);
    world.until_phase("Failed").await;
    let status = world.status();
    assert_eq!(status["reason"], "Evicted");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        ),
        "{message}"
    );
    let conditions = status["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert!(world.has_event("Warning Evicted : The node was low on resource: memory."));
    world.until("condition", |w| is(w, "MemoryPressure", "True")).await;
    assert_eq!(condition(&world, "MemoryPressure").unwrap()["reason"], "KubeletHasInsufficientMemory");
    // Back in order, the condition stays for the transition period.
    world.signals.set(Signal::MemoryAvailable, 900 << 20, 1 << 30);
    tokio::time::sleep(Duration::from_secs(280)).await;
    assert!(is(&world, "MemoryPressure", "True"));
    world.until("relief", |w| is(w, "MemoryPressure", "False")).await;
    // Evicted is final: it is never started again.
    assert_eq!(world.status()["phase"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn pod_56_an_evicted_pod_is_failed_when_nothing_of_it_runs() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.create(json!({"containers": [{"name": "c"}], "restartPolicy": "Always"}));
    world.until_phase("Running").await;
    let stops = |world: &World| world.runtime.call_names().iter().any(|call| call.starts_with("stop c"));
    world.signals.set(Signal::MemoryAvailable, 50 << 20, 1 << 30);
    world.until("stopping", stops).await;
    let running = || world.runtime.containers().iter().any(|run| run.finished_at == 0);
    let seen = world.api.statuses(crate::world::POD);
    world.until_phase("Failed").await;
    assert!(!running());
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|status| status["phase"] == "Failed" || status["reason"].is_null()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn pod_56_images_that_nobody_uses_go_before_pods() {
    let world = World::new().await;
    world.runtime.add_image("unused:1");
    world.create(json!({"containers": [{"name": "c"}], "restartPolicy": "Always"}));
    world.until_phase("Running").await;
    // New images stay for a while: somebody may be about to use them.
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.signals.set(Signal::ImageFsAvailable, 1, 100);
    world.until("removal", |w| w.runtime.call_names().contains(&"remove image unused:1".to_owned())).await;
    world.until_phase("Failed").await;
    let calls = world.runtime.call_names();
    let at = |call: &str| calls.iter().position(|other| other.starts_with(call)).unwrap();
    assert!(at("remove image unused:1") < at("stop c"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn pod_56_what_an_evicted_pod_wrote_goes_with_it_and_saves_its_neighbour() {
    let mut world = World::new().await;
    world.runtime.script("c", &[Script::Runs(3)]);
    world.create(json!({"containers": [{"name": "c"}], "restartPolicy": "Always"}));
    create_other(&world, json!({"restartPolicy": "Always", "priority": 100}));
    world.until_phase("Running").await;
    world.until("the other one", |w| phase_of_other(w) == "Running").await;
    let log = world.dir().join("logs/default_p_uid-1/c/0.log");
    assert!(log.exists());
    short_until_removed(&world, "c");
    world.until_phase("Failed").await;
    world.until("removal", |w| w.runtime.sandboxes() == 1).await;
    assert!(!log.exists());
    let is_told = |world: &World| {
        let status = world.status();
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
        let end = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&end["exitCode"], &end["reason"]), (&json!(3), &json!("Error")));
        assert_eq!(phase_of_other(world), "Running");
    };
    tokio::time::sleep(Duration::from_secs(120)).await;
    is_told(&world);
    world.start_kubelet().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    is_told(&world);
    assert_eq!(world.runtime.times_of("start c").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pod_56_what_ended_pods_wrote_goes_before_images_and_pods() {
    let world = World::new().await;
    world.runtime.add_image("unused:1");
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(1), 3)]);
    world.create(json!({"containers": [{"name": "c"}], "restartPolicy": "Never"}));
    create_other(&world, json!({"restartPolicy": "Always"}));
    world.until_phase("Failed").await;
    // The image is old enough to go as well.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.runtime.sandboxes(), 2);
    short_until_removed(&world, "c");
    world.until("removal", |w| w.runtime.sandboxes() == 1).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(phase_of_other(&world), "Running");
    assert!(world.runtime.images().contains(&"unused:1".to_owned()));
    let status = world.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &Value::Null));
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(world.runtime.times_of("start c").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pod_56_a_critical_pod_may_exceed_its_own_limits() {
    let world = World::new().await;
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    world.create(json!({"containers": [{"name": "c"}], "volumes": volumes, "priority": 2_000_000_000}));
    create_other(&world, json!({"volumes": volumes, "priority": 1_999_999_999}));
    world.until_phase("Running").await;
    world.until("the other one", |w| phase_of_other(w) == "Running").await;
    for uid in ["uid-1", "uid-2"] {
        let volume = world.dir().join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v"));
        std::fs::write(volume.join("large"), vec![1; 4 << 20]).unwrap();
    }
    world.until("the eviction", |w| phase_of_other(w) == "Failed").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.status()["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn pod_55_a_node_under_disk_pressure_takes_no_pod() {
    let world = World::new().await;
    world.signals.set(Signal::NodeFsAvailable, 1, 100);
    world.until("pressure", |w| is(w, "DiskPressure", "True")).await;
    world.create(json!({"containers": [{"name": "c"}]}));
    world.until_phase("Failed").await;
    assert_eq!(world.status()["reason"], "Evicted");
    assert_eq!(world.status()["message"], "Pod was rejected: The node had condition: [DiskPressure]. ");
    // Images that nothing uses go, and nothing comes.
    let calls = world.runtime.call_names();
    assert!(calls.iter().all(|call| call.starts_with("remove image ")), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn pod_55_what_does_not_fit_is_refused() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "9999"}}}]}));
    world.until_phase("Failed").await;
    assert_eq!(world.status()["reason"], "OutOfcpu");
    let message = world.status()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 9999000, used: 0, capacity: "
        ),
        "{message}"
    );
    assert!(world.has_event("Warning OutOfcpu : Node didn't have enough resource: cpu"));
}
