//! The table of pod actions.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::pods::runtime_pod::RuntimeSandbox;
use crate::probes::ProbeKind;

fn pod(policy: &str, init: &[serde_json::Value], containers: &[&str]) -> Pod {
    let containers: Vec<_> = containers.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": containers}}))
    .unwrap()
}

fn plain_init(name: &str) -> serde_json::Value {
    json!({"name": name, "image": "i"})
}

fn sidecar(name: &str) -> serde_json::Value {
    json!({"name": name, "image": "i", "restartPolicy": "Always"})
}

fn sandbox(ready: bool, attempt: u32) -> RuntimeSandbox {
    RuntimeSandbox {
        id: format!("s{attempt}"),
        ready,
        attempt,
        created_at: None,
        ips: vec!["10.0.0.2".into()],
        host_network: false,
        runtime_handler: String::new(),
    }
}

fn run(name: &str, state: State, exit_code: i32) -> RuntimeContainer {
    let container = Container { name: name.into(), image: Some("i".into()), ..Default::default() };
    RuntimeContainer {
        id: format!("id-{name}"),
        sandbox_id: "s0".into(),
        name: name.into(),
        restart_count: 0,
        hash: container_hash(&container),
        state,
        created_at: None,
        started_at: None,
        finished_at: None,
        exit_code,
        image: "i".into(),
        image_ref: "i".into(),
        reason: String::new(),
        message: String::new(),
        user: None,
        stop_signal: None,
        log_path: String::new(),
        replaced: false,
        annotations: Default::default(),
    }
}

fn runtime(containers: Vec<RuntimeContainer>) -> RuntimePod {
    RuntimePod { sandboxes: vec![sandbox(true, 0)], containers }
}

fn plan(pod: &Pod, runtime: &RuntimePod) -> PodActions {
    pod_actions(pod, runtime, &ProbeResults::default())
}

use State::{Created, Exited, Running};

#[test]
fn pod_01_a_new_pod_gets_a_sandbox_and_all_containers() {
    let actions = plan(&pod("Always", &[], &["a", "b"]), &RuntimePod::default());
    assert!(actions.create_sandbox && actions.kill_pod);
    assert_eq!((actions.attempt, actions.start), (0, vec![0, 1]));
}

#[test]
fn pod_22_a_new_pod_with_init_containers_starts_the_first_only() {
    let actions = plan(&pod("Always", &[plain_init("i1"), plain_init("i2")], &["a"]), &RuntimePod::default());
    assert_eq!((actions.start_init, actions.start), (vec![0], vec![]));
}

#[test]
fn nothing_to_do_when_all_run() {
    let actions = plan(&pod("Always", &[], &["a"]), &runtime(vec![run("a", Running, 0)]));
    assert_eq!(actions, PodActions::default());
}

#[test]
fn pod_20_a_dead_sandbox_is_replaced() {
    let dead = RuntimePod { sandboxes: vec![sandbox(false, 2)], containers: vec![run("a", Exited, 137)] };
    let actions = plan(&pod("Always", &[], &["a"]), &dead);
    assert!(actions.create_sandbox && actions.kill_pod);
    assert_eq!((actions.attempt, actions.start), (3, vec![0]));
}

#[test]
fn pod_20_what_still_runs_in_a_lost_sandbox_starts_in_the_next() {
    let start = |policy: &str, containers: Vec<RuntimeContainer>| {
        let lost = RuntimePod { sandboxes: vec![sandbox(false, 0)], containers };
        let actions = plan(&pod(policy, &[], &["a", "b"]), &lost);
        assert!(actions.kill_pod, "{policy}");
        (actions.create_sandbox, actions.start)
    };
    let both = || vec![run("a", Running, 0), run("b", Running, 0)];
    assert_eq!(start("Always", both()), (true, vec![0, 1]));
    assert_eq!(start("OnFailure", both()), (true, vec![0, 1]));
    assert_eq!(start("Never", both()), (false, vec![]));
    let one_ended = |code| vec![run("a", Running, 0), run("b", Exited, code)];
    assert_eq!(start("Always", one_ended(0)), (true, vec![0, 1]));
    assert_eq!(start("OnFailure", one_ended(0)), (true, vec![0]));
    assert_eq!(start("OnFailure", one_ended(1)), (true, vec![0, 1]));
    // The turn of the other had not come; `Never` does not begin a pod twice.
    assert_eq!(start("Never", vec![run("a", Running, 0)]), (false, vec![]));
    assert_eq!(start("Never", vec![]), (true, vec![0, 1]));
    // A sandbox that lost its address is no better.
    let mut without = sandbox(true, 0);
    without.ips.clear();
    let lost = RuntimePod { sandboxes: vec![without], containers: both() };
    assert_eq!(plan(&pod("Always", &[], &["a", "b"]), &lost).start, [0, 1]);
}

#[test]
fn pod_20_29_a_rule_of_a_container_outlives_the_sandbox() {
    let mut ruled = pod("Never", &[], &["a"]);
    ruled.spec.as_mut().unwrap().containers[0] = serde_json::from_value(json!({"name": "a", "image": "i",
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}))
    .unwrap();
    let plan_of = |last: RuntimeContainer| {
        plan(&ruled, &RuntimePod { sandboxes: vec![sandbox(false, 0)], containers: vec![last] })
    };
    assert_eq!(plan_of(run("a", Exited, 42)).start, [0]);
    assert!(!plan_of(run("a", Running, 0)).create_sandbox);
}

#[test]
fn pod_20_no_new_sandbox_for_a_finished_pod() {
    let dead = RuntimePod { sandboxes: vec![sandbox(false, 0)], containers: vec![run("a", Exited, 0)] };
    for policy in ["OnFailure", "Never"] {
        let actions = plan(&pod(policy, &[], &["a"]), &dead);
        assert!(!actions.create_sandbox && actions.kill_pod, "{policy}");
    }
}

#[test]
fn pod_24_init_containers_run_again_in_a_new_sandbox() {
    let mut old = run("a", Exited, 137);
    old.sandbox_id = "old".into();
    let mut done = run("i1", Exited, 0);
    done.sandbox_id = "old".into();
    let pod = pod("Always", &[plain_init("i1")], &["a"]);
    let actions = plan(&pod, &runtime(vec![old.clone(), done.clone()]));
    assert_eq!((actions.start_init, actions.start), (vec![0], vec![]));
    let again = plan(&pod, &runtime(vec![run("i1", Exited, 0), old, done]));
    assert_eq!((again.start_init, again.start), (vec![], vec![0]));
}

#[test]
fn pod_03_ended_containers_by_policy() {
    let case =
        |policy: &str, code: i32| plan(&pod(policy, &[], &["a"]), &runtime(vec![run("a", Exited, code)]));
    assert_eq!(case("Always", 0).start, [0]);
    assert_eq!(case("OnFailure", 1).start, [0]);
    assert!(case("OnFailure", 0).kill_pod);
    assert!(case("Never", 1).kill_pod);
}

#[test]
fn a_container_made_but_never_started_is_started() {
    let actions = plan(&pod("Never", &[], &["a"]), &runtime(vec![run("a", Created, 0)]));
    assert_eq!(actions.start, [0]);
}

#[test]
fn pod_45_a_changed_image_restarts_in_place_even_with_never() {
    let mut old = run("a", Running, 0);
    old.hash = "other".into();
    let actions = plan(&pod("Never", &[], &["a"]), &runtime(vec![old]));
    assert_eq!(actions.kill[0].message, "Container a definition changed, will be restarted");
    assert_eq!(actions.start, [0]);
    assert!(!actions.kill_pod);
}

#[test]
fn pod_18_39_a_failed_liveness_probe_restarts_unless_never() {
    let probes = ProbeResults::default();
    probes.set(ProbeKind::Liveness, "id-a", false);
    let running = runtime(vec![run("a", Running, 0)]);
    let actions = pod_actions(&pod("Always", &[], &["a"]), &running, &probes);
    assert_eq!(actions.kill[0].message, "Container a failed liveness probe, will be restarted");
    assert_eq!(actions.start, [0]);
    let never = pod_actions(&pod("Never", &[], &["a"]), &running, &probes);
    assert_eq!(never.kill[0].message, "Container a failed liveness probe");
    assert!(never.start.is_empty());
}

#[test]
fn pod_22_23_init_containers_in_order() {
    let init = [plain_init("i1"), plain_init("i2")];
    let step = |policy: &str, containers: Vec<RuntimeContainer>| {
        plan(&pod(policy, &init, &["a"]), &runtime(containers))
    };
    assert_eq!(step("Always", vec![]).start_init, [0]);
    assert_eq!(step("Always", vec![run("i1", Running, 0)]), PodActions::default());
    assert_eq!(step("Always", vec![run("i1", Exited, 0)]).start_init, [1]);
    assert_eq!(step("Always", vec![run("i1", Exited, 1)]).start_init, [0]);
    let failed = step("Never", vec![run("i1", Exited, 1)]);
    assert!(failed.kill_pod && failed.start_init.is_empty() && failed.start.is_empty());
    let done = step("Always", vec![run("i2", Exited, 0), run("i1", Exited, 0)]);
    assert_eq!((done.start_init, done.start), (vec![], vec![0]));
}

#[test]
fn pod_24_done_init_containers_are_not_repeated_when_an_app_restarts() {
    let pod = pod("Always", &[plain_init("i1")], &["a"]);
    let actions = plan(&pod, &runtime(vec![run("a", Exited, 1), run("i1", Exited, 0)]));
    assert_eq!((actions.start_init, actions.start), (vec![], vec![0]));
}

#[test]
fn pod_25_a_sidecar_lets_the_next_one_start_and_is_restarted() {
    let pod = pod("Never", &[sidecar("s"), plain_init("i")], &["a"]);
    assert_eq!(plan(&pod, &runtime(vec![run("s", Running, 0)])).start_init, [1]);
    let both = plan(&pod, &runtime(vec![run("i", Exited, 0), run("s", Exited, 1)]));
    assert_eq!((both.start_init, both.start), (vec![0], vec![0]));
    let app = vec![run("a", Running, 0), run("i", Exited, 0), run("s", Exited, 0)];
    assert_eq!(plan(&pod, &runtime(app)).start_init, [0]);
}

#[test]
fn pod_26_sidecars_end_with_the_pod() {
    let pod = pod("Never", &[sidecar("s")], &["a"]);
    let actions = plan(&pod, &runtime(vec![run("a", Exited, 0), run("s", Running, 0)]));
    assert!(actions.kill_pod && actions.start_init.is_empty());
}

#[test]
fn pod_28_a_sidecar_with_a_failed_startup_probe_blocks_the_next() {
    let probed = json!({"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}});
    let pod = pod("Always", &[probed, plain_init("i")], &["a"]);
    let running = runtime(vec![run("s", Running, 0)]);
    assert!(plan(&pod, &running).start_init.is_empty());
    let probes = ProbeResults::default();
    probes.set(ProbeKind::Startup, "id-s", true);
    assert_eq!(pod_actions(&pod, &running, &probes).start_init, [1]);
    probes.set(ProbeKind::Startup, "id-s", false);
    let failed = pod_actions(&pod, &running, &probes);
    assert_eq!(failed.start_init, [0]);
    assert_eq!(failed.kill[0].message, "Init container s failed startup probe");
}

#[test]
fn pod_47_ephemeral_containers_start_once() {
    let mut pod = pod("Always", &[], &["a"]);
    pod.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "debug", "image": "i"}])).unwrap();
    let running = runtime(vec![run("a", Running, 0)]);
    assert_eq!(plan(&pod, &running).start_ephemeral, [0]);
    let ended = runtime(vec![run("debug", Exited, 1), run("a", Running, 0)]);
    assert!(plan(&pod, &ended).start_ephemeral.is_empty());
}
