//! Whole statuses from whole situations.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::pods::runtime_pod::{RuntimeContainer, RuntimeSandbox, State};
use crate::probes::ProbeKind;

struct Situation {
    pod: Pod,
    runtime: RuntimePod,
    old: PodStatus,
    start_errors: HashMap<String, StartError>,
    probes: ProbeResults,
    in_post_start: HashSet<String>,
    terminal: bool,
}

impl Situation {
    fn new(spec: serde_json::Value) -> Self {
        let pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec}),
        )
        .unwrap();
        Self {
            pod,
            runtime: RuntimePod::default(),
            old: PodStatus::default(),
            start_errors: HashMap::new(),
            probes: ProbeResults::default(),
            in_post_start: HashSet::new(),
            terminal: false,
        }
    }

    fn with_sandbox(mut self) -> Self {
        self.runtime.sandboxes.push(RuntimeSandbox {
            id: "s".into(),
            ready: true,
            attempt: 0,
            created_at: None,
            ips: vec!["10.0.0.2".into()],
            host_network: false,
            runtime_handler: String::new(),
        });
        self
    }

    fn with(mut self, name: &str, state: State, exit_code: i32, restart_count: u32) -> Self {
        let second = |second: i64| Timestamp::from_second(second).ok();
        self.runtime.containers.insert(
            0,
            RuntimeContainer {
                id: format!("{name}{restart_count}"),
                sandbox_id: "s".into(),
                name: name.into(),
                restart_count,
                hash: String::new(),
                state,
                created_at: second(10),
                started_at: second(11),
                finished_at: (state == State::Exited).then(|| second(12)).flatten(),
                exit_code,
                image: "busybox:1".into(),
                image_ref: "busybox@sha256:1".into(),
                reason: String::new(),
                message: String::new(),
                user: None,
                stop_signal: None,
                log_path: String::new(),
                annotations: HashMap::new(),
            },
        );
        self
    }

    fn status(&self) -> PodStatus {
        pod_status(&StatusInputs {
            pod: &self.pod,
            runtime: &self.runtime,
            old: &self.old,
            start_errors: &self.start_errors,
            probes: &self.probes,
            in_post_start: &self.in_post_start,
            reset: &HashSet::new(),
            runtime_name: "sampan",
            terminal: self.terminal,
            volumes_ready: true,
            recursive_read_only: true,
            verdict: None,
            host_ips: &["10.9.9.9".to_owned()],
            now: Timestamp::from_second(100).unwrap(),
        })
    }

    fn container(&self) -> serde_json::Value {
        serde_json::to_value(&self.status().container_statuses.unwrap()[0]).unwrap()
    }
}

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "c", "image": "busybox"}]})
}

#[test]
fn pod_08_default_waiting_reasons() {
    let plain = Situation::new(one()).container();
    assert_eq!(plain["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(plain["started"], false);
    let with_init = Situation::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    assert_eq!(with_init.container()["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn pod_53_img_86_a_running_pod() {
    let situation = Situation::new(one()).with_sandbox().with("c", State::Running, 0, 0);
    let status = situation.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("10.9.9.9"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.unwrap().iter().all(|condition| condition.status == "True"));
    let container = situation.container();
    assert_eq!(container["containerID"], "sampan://c0");
    assert_eq!(container["imageID"], "busybox@sha256:1");
    assert_eq!(container["image"], "busybox:1");
    assert_eq!(container["state"]["running"]["startedAt"], "1970-01-01T00:00:11Z");
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
}

#[test]
fn pod_09_terminated_states_and_the_previous_run() {
    let container = Situation::new(one())
        .with_sandbox()
        .with("c", State::Exited, 3, 0)
        .with("c", State::Exited, 0, 1)
        .container();
    assert_eq!(container["state"]["terminated"]["reason"], "Completed");
    assert_eq!(container["state"]["terminated"]["finishedAt"], "1970-01-01T00:00:12Z");
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["restartCount"], 1);
}

#[test]
fn img_35_pod_14_a_start_error_shows_while_the_container_should_run() {
    let mut situation = Situation::new(one()).with_sandbox().with("c", State::Exited, 1, 2);
    situation
        .start_errors
        .insert("c".into(), StartError { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() });
    let container = situation.container();
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(situation.status().phase.as_deref(), Some("Running"));
    let mut never = Situation::new(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}))
        .with_sandbox()
        .with("c", State::Exited, 1, 0);
    never.start_errors = situation.start_errors;
    assert_eq!(never.container()["state"]["terminated"]["exitCode"], 1);
    assert_eq!(never.status().phase.as_deref(), Some("Failed"));
}

#[test]
fn hook_04_a_post_start_hook_keeps_the_container_waiting() {
    let mut situation = Situation::new(one()).with_sandbox().with("c", State::Running, 0, 0);
    situation.in_post_start.insert("c0".into());
    assert_eq!(situation.container()["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(situation.status().phase.as_deref(), Some("Pending"));
}

#[test]
fn pod_39_41_probes_decide_started_and_ready() {
    let probe = json!({"exec": {"command": ["x"]}});
    let spec = json!({"containers": [{"name": "c", "startupProbe": probe, "readinessProbe": probe}]});
    let situation = Situation::new(spec).with_sandbox().with("c", State::Running, 0, 0);
    let seen = |situation: &Situation| {
        let container = situation.container();
        (container["started"].clone(), container["ready"].clone())
    };
    assert_eq!(seen(&situation), (json!(false), json!(false)));
    situation.probes.set(ProbeKind::Startup, "c0", true);
    assert_eq!(seen(&situation), (json!(true), json!(false)));
    situation.probes.set(ProbeKind::Readiness, "c0", true);
    assert_eq!(seen(&situation), (json!(true), json!(true)));
}

#[test]
fn pod_10_a_lost_container_is_said_to_be_lost() {
    let mut situation = Situation::new(one());
    situation.old =
        serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "",
        "ready": true, "restartCount": 4, "containerID": "sampan://x", "state": {"running": {}}}]}))
        .unwrap();
    let container = situation.container();
    assert_eq!(container["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(container["restartCount"], 5);
    situation.terminal = true;
    assert_eq!(situation.container()["state"]["terminated"]["reason"], "ContainerStatusUnknown");
}

#[test]
fn pod_34_terminal_phases() {
    let ended = |code| {
        let mut situation = Situation::new(one()).with("c", State::Exited, code, 0);
        situation.terminal = true;
        situation.status().phase.unwrap()
    };
    assert_eq!((ended(0).as_str(), ended(137).as_str()), ("Succeeded", "Failed"));
    let mut pending = Situation::new(one());
    pending.terminal = true;
    assert_eq!(pending.status().phase.as_deref(), Some("Failed"));
}

#[test]
fn pod_02_53_a_finished_pod_stays_finished_and_keeps_its_addresses() {
    let mut situation = Situation::new(one());
    situation.old = serde_json::from_value(
        json!({"phase": "Succeeded", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}),
    )
    .unwrap();
    let status = situation.status();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
}
