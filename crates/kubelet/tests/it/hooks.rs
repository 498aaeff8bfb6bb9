//! Lifecycle hooks: their order, their failures, their time, their repetition.

use std::time::Duration;

use sampan_kubelet::ShutdownMode;
use serde_json::{Value, json};

use crate::fake_runtime::Script;
use crate::world::{POD, World};

fn exec(command: &str) -> Value {
    json!({"exec": {"command": [command]}})
}

/// A pod whose only container has these hooks.
fn hooked(grace: i64, lifecycle: Value) -> Value {
    json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": grace,
        "containers": [{"name": "c", "lifecycle": lifecycle}]})
}

fn count(world: &World, call: &str) -> usize {
    world.runtime.times_of(call).len()
}

#[tokio::test(start_paused = true)]
async fn hook_02_03_04_post_start_holds_up_what_comes_after_the_container() {
    let world = World::new().await;
    world.runtime.exec_result("hook", 0, Duration::from_secs(7));
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "a", "lifecycle": {"postStart": exec("hook")}, "readinessProbe": exec("ready")},
        {"name": "b"}]}));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.runtime.call_names(), ["run sandbox", "create a", "start a", "exec hook"]);
    let status = world.status();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(status["containerStatuses"][0]["started"], false);
    world.until_phase("Running").await;
    world.until("probed", |world| count(world, "exec ready") > 0).await;
    assert_eq!(world.runtime.times_of("start b"), [7]);
    assert_eq!(count(&world, "exec hook"), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_02_post_start_runs_again_after_a_restart() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(3), 1), Script::Runs(0)]);
    world.create(hooked(30, json!({"postStart": exec("hook")})));
    world.until("restarted", |world| world.status()["containerStatuses"][0]["restartCount"] == 1).await;
    world.until("hooks", |world| count(world, "exec hook") == 2).await;
    let names: Vec<String> = world.hook_logs("c").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0-postStart.log", "1-postStart.log"]);
}

#[tokio::test(start_paused = true)]
async fn hook_18_19_a_command_that_is_not_there_shows_the_documented_events() {
    let world = World::new().await;
    world.create(hooked(30, json!({"postStart": exec("badcommand-unstarted")})));
    world.until("back-off", |world| world.has_event("BackOff")).await;
    let reasons: Vec<String> =
        world.events().iter().map(|event| event.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(reasons, ["Pulled", "Created", "Started", "FailedPostStartHook", "Killing", "BackOff"]);
    let event = world.events().into_iter().find(|event| event.contains("FailedPostStartHook")).unwrap();
    assert_eq!(
        event,
        "Warning FailedPostStartHook spec.containers{c}: Exec lifecycle hook ([badcommand-unstarted]) for \
         Container \"c\" in Pod \"p_default(uid-1)\" failed - error: command 'badcommand-unstarted' exited with \
         126: , message: \"OCI runtime exec failed: exec: \\\"badcommand\\\": executable file not found in $PATH\""
    );
    assert!(world.has_event("Normal Killing spec.containers{c}: FailedPostStartHook"));
}

#[tokio::test(start_paused = true)]
async fn hook_17_with_never_the_pod_ends_by_the_killed_containers_code() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.runtime.exec_result("bad", 3, Duration::ZERO);
    world.create(json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [
        {"name": "c", "lifecycle": {"postStart": exec("bad"), "preStop": exec("bye")}}]}));
    world.until_phase("Failed").await;
    let status = &world.status()["containerStatuses"][0];
    assert_eq!(status["state"]["terminated"]["exitCode"], 137);
    // HOOK-16: the container is stopped as any other is, with its preStop hook.
    assert_eq!(count(&world, "exec bye"), 1);
    assert_eq!(world.runtime.times_of("stop c 5"), [0]);
}

#[tokio::test(start_paused = true)]
async fn hook_04_17_the_waiting_message_is_the_whole_text() {
    let world = World::new().await;
    world.runtime.exec_result("bad", 3, Duration::from_secs(1));
    let seen = world.api.statuses(POD);
    world.create(hooked(30, json!({"postStart": exec("bad")})));
    let message = "Exec lifecycle hook ([bad]) for Container \"c\" in Pod \"p_default(uid-1)\" failed - error: \
                   command 'bad' exited with 3: , message: \"\"";
    // It shows only until the container is started again: whoever looks now and then may miss it.
    let shown = |status: &Value| {
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "PostStartHookError" && waiting["message"] == message
    };
    world.until("the waiting message", |_| seen.lock().unwrap().iter().any(shown)).await;
    let running = |status: &Value| status["containerStatuses"][0]["state"]["running"].is_object();
    assert!(!seen.lock().unwrap().iter().any(running), "it never was said to run");
    world.until("the event", |world| world.has_event(message)).await;
    assert!(!world.has_event("secret output"), "what a hook printed is in no event");
    let (_, log) = &world.hook_logs("c")[0];
    assert!(log.contains("stdout F secret output\n"), "{log}");
    assert!(
        log.contains("-- postStart failed after 1") && log.ends_with(": command 'bad' exited with 3\n"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_hangs_does_not_hold_up_a_deletion() {
    let world = World::new().await;
    world.runtime.exec_result("hang", 0, Duration::from_secs(1_000_000));
    world.create(hooked(30, json!({"postStart": exec("hang"), "preStop": exec("bye")})));
    world.until("the hook", |world| count(world, "exec hang") == 1).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.waiting_reason(), "ContainerCreating");
    world.delete(30);
    world.until_gone().await;
    assert_eq!(count(&world, "exec hang killed"), 1);
    assert_eq!(count(&world, "exec bye"), 1);
    assert!(!world.has_event("FailedPostStartHook"));
}

#[tokio::test(start_paused = true)]
async fn hook_16_17_a_container_that_ends_during_a_hook_of_the_node_failed_no_hook() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(4), 0), Script::Runs(0)]);
    let seen = world.api.statuses(POD);
    world.create(hooked(30, json!({"postStart": {"sleep": {"seconds": 20}}})));
    world.until("the next run", |world| world.status()["containerStatuses"][0]["restartCount"] == 1).await;
    world.until_phase("Running").await;
    assert!(!world.has_event("FailedPostStartHook"));
    let reason = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    assert!(seen.lock().unwrap().iter().all(|status| reason(status) != "PostStartHookError"));
    // The hook is not waited for: it is nobody's any more.
    assert_eq!(world.runtime.times_of("start c"), [0, 4]);
    let (name, log) = &world.hook_logs("c")[0];
    assert_eq!(name, "0-postStart.log");
    assert!(log.contains("cut after 4.1s, the container ended\n"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn hook_06_16_a_container_that_ends_takes_its_command_with_it() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(4), 0), Script::Runs(0)]);
    world.runtime.exec_result("hook", 0, Duration::from_secs(20));
    world.create(hooked(30, json!({"postStart": exec("hook")})));
    world
        .until("the event", |world| {
            world.has_event("FailedPostStartHook") && world.has_event("command 'hook' exited with 137: ")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn hook_14_26_a_sleep_longer_than_the_grace_period_is_cut() {
    let world = World::new().await;
    world.create(hooked(5, json!({"preStop": {"sleep": {"seconds": 5}}})));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.delete(2);
    world.until_gone().await;
    // HOOK-27: two seconds are left for the signal.
    assert_eq!(world.runtime.times_of("stop c 2"), [began + 2]);
    assert!(world.has_event(
        "Warning FailedPreStopHook spec.containers{c}: Sleep lifecycle hook (5) for Container \"c\" in Pod \
         \"p_default(uid-1)\" failed - error: container terminated before sleep hook finished: cut after 2s, the \
         grace period was over"
    ));
}

#[tokio::test(start_paused = true)]
async fn hook_26_27_29_an_exec_that_is_cut_says_so_and_keeps_what_it_printed() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.runtime.exec_result("long", 0, Duration::from_secs(1_000));
    world.create(hooked(30, json!({"preStop": exec("long")})));
    world.until_phase("Running").await;
    world.delete(30);
    world.until("the cut", |world| world.has_event("FailedPreStopHook")).await;
    assert!(world.has_event("failed - error: cut after 30s, the grace period was over, message: \"\""));
    // The container is being stopped now, and the pod still says that it runs.
    assert_eq!(world.status()["phase"], "Running");
    let (name, log) = &world.hook_logs("c")[0];
    assert_eq!(name, "0-preStop.log");
    assert!(log.contains("stdout F so far\n"), "{log}");
    world.until_gone().await;
    assert_eq!(count(&world, "exec long killed"), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_27_the_documented_60_55_10_example() {
    let world = World::new().await;
    // The process would need 10 s after SIGTERM: in what is left it does not come to its end.
    world.runtime.script("c", &[Script::Stubborn]);
    world.runtime.exec_result("hook", 0, Duration::from_secs(55));
    world.create(json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 60, "containers": [
        {"name": "c", "lifecycle": {"preStop": exec("hook")}}]}));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    let seen = world.api.statuses(POD);
    world.delete(60);
    world.until_gone().await;
    assert_eq!(world.runtime.now() - began, 60);
    assert_eq!(world.runtime.times_of("stop c 5"), [began + 55]);
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last["phase"], "Failed");
    assert_eq!(last["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

#[tokio::test(start_paused = true)]
async fn hook_28_29_a_failing_pre_stop_hook_delays_nothing() {
    let world = World::new().await;
    world.runtime.exec_result("bad", 1, Duration::from_secs(3));
    world.create(hooked(30, json!({"preStop": exec("bad")})));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.delete(30);
    world.until_gone().await;
    assert_eq!(world.runtime.times_of("stop c 27"), [began + 3]);
    assert!(world.has_event(
        "Warning FailedPreStopHook spec.containers{c}: Exec lifecycle hook ([bad]) for Container \"c\" in Pod \
         \"p_default(uid-1)\" failed - error: command 'bad' exited with 1: , message: \"\""
    ));
}

#[tokio::test(start_paused = true)]
async fn hook_20_21_42_a_failed_probe_runs_pre_stop_with_the_probes_own_grace() {
    for probe in ["livenessProbe", "startupProbe"] {
        let world = World::new().await;
        world.runtime.script("c", &[Script::Stubborn]);
        world.runtime.exec_result("alive", 1, Duration::ZERO);
        let mut container = json!({"name": "c", "lifecycle": {"preStop": exec("bye")}});
        container[probe] = json!({"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1,
            "terminationGracePeriodSeconds": 100});
        world.create(
            json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 7, "containers": [container]}),
        );
        world.until("restarted", |world| world.status()["containerStatuses"][0]["restartCount"] == 1).await;
        assert!(count(&world, "exec bye") >= 1, "{probe}");
        assert!(count(&world, "stop c 100") >= 1, "{probe}: {:?}", world.runtime.call_names());
    }
}

#[tokio::test(start_paused = true)]
async fn hook_22_pod_33_readiness_is_probed_during_pre_stop_and_liveness_is_not() {
    let world = World::new().await;
    world.runtime.exec_result("hook", 0, Duration::from_secs(20));
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "containers": [
        {"name": "c", "lifecycle": {"preStop": exec("hook")},
         "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1},
         "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1, "failureThreshold": 1}}]}));
    world.until("ready", |world| world.status()["containerStatuses"][0]["ready"] == true).await;
    world.delete(30);
    world.until("the hook", |world| count(world, "exec hook") == 1).await;
    let (alive, ready) = (count(&world, "exec alive"), count(&world, "exec ready"));
    world.runtime.exec_result("alive", 1, Duration::ZERO);
    world.runtime.exec_result("ready", 1, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(count(&world, "exec alive"), alive);
    assert!(count(&world, "exec ready") >= ready + 9);
    let status = world.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["ready"], false);
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    world.until_gone().await;
}

#[tokio::test(start_paused = true)]
async fn hook_23_a_container_that_ends_by_itself_gets_no_pre_stop() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Ends(Duration::from_secs(2), 0)]);
    world.create(json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "lifecycle": {"preStop": exec("bye")}}]}));
    world.until_phase("Succeeded").await;
    world.delete(30);
    world.until_gone().await;
    assert_eq!(count(&world, "exec bye"), 0);
}

#[tokio::test(start_paused = true)]
async fn hook_24_31_pod_27_hooks_begin_together_and_signals_go_in_order() {
    let world = World::new().await;
    for (name, seconds) in [("hook-s1", 1), ("hook-s2", 2), ("hook-c", 4)] {
        world.runtime.exec_result(name, 0, Duration::from_secs(seconds));
    }
    let sidecar = |name: &str| {
        json!({"name": name, "restartPolicy": "Always",
            "lifecycle": {"postStart": exec(&format!("post-{name}")), "preStop": exec(&format!("hook-{name}"))}})
    };
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "initContainers": [sidecar("s1"), sidecar("s2")],
        "containers": [{"name": "c", "lifecycle": {"preStop": exec("hook-c")}}]}));
    world.until_phase("Running").await;
    let calls = world.runtime.call_names();
    let position = |call: &str| calls.iter().position(|name| name == call).unwrap();
    assert!(position("exec post-s1") < position("start s2"));
    let began = world.runtime.now();
    world.delete(30);
    world.until_gone().await;
    for hook in ["exec hook-s1", "exec hook-s2", "exec hook-c"] {
        assert_eq!(world.runtime.times_of(hook), [began], "{hook}");
    }
    let stops: Vec<String> =
        world.runtime.call_names().into_iter().filter(|call| call.starts_with("stop ")).take(3).collect();
    assert_eq!(stops, ["stop c 26", "stop s2 26", "stop s1 26"]);
}

#[tokio::test(start_paused = true)]
async fn hook_30_a_forced_deletion_leaves_the_hook_a_second() {
    let world = World::new().await;
    world.runtime.script("c", &[Script::Stubborn]);
    world.runtime.exec_result("hook", 0, Duration::from_secs(50));
    world.create(hooked(30, json!({"preStop": exec("hook")})));
    world.until_phase("Running").await;
    let began = world.runtime.now();
    world.api.remove(POD);
    world.until_gone().await;
    assert_eq!(world.runtime.times_of("exec hook"), [began]);
    assert_eq!(world.runtime.times_of("stop c 2"), [began + 1]);
}

#[tokio::test(start_paused = true)]
async fn hook_33_a_pre_stop_hook_is_sent_again_by_the_next_daemon() {
    let mut world = World::new().await;
    world.runtime.exec_result("hook", 0, Duration::from_secs(10));
    world.create(hooked(30, json!({"preStop": exec("hook")})));
    world.until_phase("Running").await;
    world.delete(30);
    world.until("the hook", |world| count(world, "exec hook") == 1).await;
    world.start_kubelet().await;
    world.until_gone().await;
    assert_eq!(count(&world, "exec hook"), 2);
    assert_eq!(count(&world, "stop c 20"), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_33_a_post_start_hook_is_not_lost_with_the_daemon() {
    let mut world = World::new().await;
    world.runtime.exec_result("hook", 0, Duration::from_secs(10));
    world.create(hooked(30, json!({"postStart": exec("hook")})));
    world.until("the hook", |world| count(world, "exec hook") == 1).await;
    world.start_kubelet().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.waiting_reason(), "ContainerCreating");
    world.until_phase("Running").await;
    assert_eq!(count(&world, "exec hook"), 2);
    // A hook that had its end is not repeated.
    world.shut_down(ShutdownMode::KeepPods).await;
    world.start_kubelet().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(count(&world, "exec hook"), 2);
    assert_eq!(count(&world, "start c"), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_34_once_per_start_and_stop() {
    let world = World::new().await;
    world.create(hooked(30, json!({"postStart": exec("hello"), "preStop": exec("bye")})));
    world.until_phase("Running").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    world.delete(30);
    world.until_gone().await;
    assert_eq!((count(&world, "exec hello"), count(&world, "exec bye")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn hook_33_pod_32_an_end_of_the_pod_in_the_middle_of_a_restart_runs_the_hook_again() {
    let world = World::new().await;
    world.runtime.exec_result("alive", 1, Duration::ZERO);
    world.runtime.exec_result("bye", 0, Duration::from_secs(100));
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 300, "containers": [
        {"name": "c", "lifecycle": {"preStop": exec("bye")},
         "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}}]}));
    world.until("the hook", |world| count(world, "exec bye") == 1).await;
    // The restart has five minutes; the deletion has less patience.
    let began = world.runtime.now();
    world.delete(5);
    world.until_gone().await;
    assert!(world.runtime.now() - began <= 8, "{}", world.runtime.now() - began);
    assert_eq!(count(&world, "exec bye"), 2);
}

#[tokio::test(start_paused = true)]
async fn pod_39_a_hook_of_one_container_keeps_no_other_ready() {
    let world = World::new().await;
    world.runtime.exec_result("hook", 0, Duration::from_secs(600));
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "a", "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1, "failureThreshold": 1}},
        {"name": "b", "lifecycle": {"postStart": exec("hook")}}]}));
    let ready = |world: &World| world.status()["containerStatuses"][0]["ready"] == true;
    world.until("ready", ready).await;
    world.until("the hook", |world| count(world, "exec hook") == 1).await;
    let before = tokio::time::Instant::now();
    world.runtime.exec_result("ready", 1, Duration::ZERO);
    world.until("unready", |world| !ready(world)).await;
    world.runtime.exec_result("ready", 0, Duration::ZERO);
    world.until("ready again", ready).await;
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}
