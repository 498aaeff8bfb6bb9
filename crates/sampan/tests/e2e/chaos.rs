//! Chaos, bounded and seeded: pods are made, deleted and forced away, their processes are killed, the daemon is killed
//! with SIGKILL and started again, in an order that only the seed knows; some have hooks, probes, sidecars, volumes. Then everything has to be true: no leaked
//! resource (the fixture looks), every status as it must be, every log line there once, restart counts right.
//!
//! `SAMPAN_CHAOS_SECONDS` (20) and `SAMPAN_CHAOS_SEED` (4) choose another run.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::fixture::{Node, Registry, TestImage, eventually, process_of};

/// xorshift64: the same order of things for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a pod is, and so how it must be found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Counts in its log and never ends; restarted as often as it was killed.
    Counter,
    /// Ends with this code soon after its start, once.
    Once(u8),
}

#[derive(Debug)]
struct Expected {
    kind: Kind,
    kills: u32,
    sidecar: bool,
}

/// What the pods with volumes show.
const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: v}\n";

/// What a pod has besides its container: fields of the container, fields of the pod, whether there is a sidecar.
fn extras(dice: &mut Dice, image: &str) -> (String, String, bool) {
    let (mut container, mut pod) = (String::new(), String::new());
    let [hooks, probe, sidecar, volumes] = std::array::from_fn(|_| dice.roll(3) == 0);
    let exec = "{exec: {command: [sh, -c, 'exit 0']}";
    if hooks {
        container += &format!(", lifecycle: {{postStart: {exec}}}, preStop: {exec}}}}}");
    }
    if probe {
        container += &format!(", readinessProbe: {exec}, periodSeconds: 1, timeoutSeconds: 60}}");
    }
    if sidecar {
        let script = "trap \"exit 0\" TERM; while :; do sleep 0.1; done";
        pod += &format!(
            "  initContainers:\n  - {{name: s, image: {image}, restartPolicy: Always, command: [sh, -c, '{script}']}}\n"
        );
    }
    if volumes {
        container += ", volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m/k, subPath: k}]";
        pod += "  volumes: [{name: e, emptyDir: {}}, {name: m, configMap: {name: m}}]\n";
    }
    (container, pod, sidecar)
}

struct Chaos {
    node: Node,
    image: String,
    dice: Dice,
    pods: BTreeMap<String, Expected>,
    made: u32,
    crashes: u32,
}

impl Chaos {
    fn step(&mut self) {
        match self.dice.roll(100) {
            0..30 if self.pods.len() < 12 => self.create(),
            30..45 => self.delete(),
            45..85 => self.kill(),
            85..93 => self.crash(),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("p{}", self.made);
        let kind = if self.dice.roll(3) == 0 { Kind::Once(self.dice.roll(4) as u8) } else { Kind::Counter };
        let mark = self.node.name();
        let (policy, script) = match kind {
            Kind::Counter => (
                "Always",
                format!("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done # {mark} {name} end"),
            ),
            Kind::Once(code) => ("Never", format!("echo bye; sleep 0.2; exit {code}")),
        };
        let image = &self.image;
        let (fields, pod, sidecar) = extras(&mut self.dice, image);
        self.node.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n{pod}  containers:\n  - {{name: c, image: {image}, command: [sh, -c, '{script}']{fields}}}\n"
        ));
        self.pods.insert(name, Expected { kind, kills: 0, sidecar });
    }

    fn any(&mut self) -> Option<String> {
        let count = self.pods.len() as u64;
        let at = if count == 0 { return None } else { self.dice.roll(count) };
        self.pods.keys().nth(at as usize).cloned()
    }

    fn delete(&mut self) {
        let Some(name) = self.any() else { return };
        self.pods.remove(&name);
        let forced = self.dice.roll(2) == 0;
        let how = if forced { ["--force", "--grace-period=0"] } else { ["--wait=false", "--grace-period=1"] };
        self.node.kubectl(&["delete", "pod", &name, how[0], how[1], "--wait=false"]).ok();
    }

    fn kill(&mut self) {
        let Some(name) = self.any() else { return };
        if let Some((pid, _)) = process_of(&format!("{} {name} end", self.node.name())) {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            if rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok() {
                // Wait until it is gone, or the same one would be counted twice.
                eventually("its end", || rustix::process::test_kill_process(pid).is_err().then_some(()));
                self.pods.get_mut(&name).unwrap().kills += 1;
            }
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.node.kill_9();
        self.node.launch();
    }

    fn check(&self) {
        for (name, expected) in &self.pods {
            let pod = format!("pod/{name}");
            let first =
                |field: &str| self.node.field(&pod, &format!("{{.status.containerStatuses[0].{field}}}"));
            match expected.kind {
                Kind::Counter => {
                    self.node.wait_for(
                        &pod,
                        "{.status.phase} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}",
                        &format!("Running true {}", expected.kills),
                    );
                    if expected.sidecar {
                        let restarts = "{.status.initContainerStatuses[0].restartCount}";
                        assert_eq!(self.node.field(&pod, restarts), "0", "{name}");
                    }
                    self.lines_once(name, &[]);
                    if expected.kills > 0 {
                        assert_eq!(first("lastState.terminated.exitCode"), "137", "{name}");
                        self.lines_once(name, &["--previous"]);
                    }
                }
                Kind::Once(code) => {
                    let phase = if code == 0 { "Succeeded" } else { "Failed" };
                    self.node.wait_for(&pod, "{.status.phase}", phase);
                    assert_eq!(first("state.terminated.exitCode"), code.to_string(), "{name}");
                    assert_eq!(first("restartCount"), "0", "{name}");
                    assert_eq!(self.node.kubectl(&["logs", name]).ok(), "bye\n", "{name}");
                }
            }
        }
        self.nothing_of_others();
    }

    fn lines_once(&self, name: &str, args: &[&str]) {
        let log = self.node.kubectl(&[&["logs", name], args].concat()).ok();
        for (number, line) in log.lines().enumerate() {
            assert_eq!(line, format!("line {number}"), "{name} {args:?}");
        }
    }

    /// No pod, directory or log of a pod that was deleted.
    fn nothing_of_others(&self) {
        let names: Vec<&String> = self.pods.keys().collect();
        eventually("the deleted pods to be gone", || {
            let list = self.node.kubectl(&["get", "pods", "-o", "json"]).ok();
            let list: Value = serde_json::from_str(&list).unwrap();
            let items = list["items"].as_array().unwrap();
            let listed: Vec<&str> = items.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            let uids: Vec<&str> = items.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
            let below = |dir: &str| -> Vec<String> {
                let entries = fs::read_dir(self.node.path(dir)).into_iter().flatten().flatten();
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
            };
            let ours = |name: &String| uids.iter().any(|uid| name.ends_with(uid));
            let rest = below("data/kubelet/pods").into_iter().chain(below("logs")).filter(|name| !ours(name));
            let rest: Vec<String> = rest.collect();
            (listed.len() == names.len() && rest.is_empty()).then_some(())
        });
    }
}

#[test]
fn chaos_leaves_everything_true() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (seconds, seed) = (number("SAMPAN_CHAOS_SECONDS", 20), number("SAMPAN_CHAOS_SEED", 4));
    eprintln!("SAMPAN_CHAOS_SEED={seed} SAMPAN_CHAOS_SECONDS={seconds}");
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    // Restarts after a second at most, so that many fit into the time.
    let mut node = Node::prepare(&["--stop-pods=true"]);
    let config = node.path("kubelet.yaml");
    fs::write(
        &config,
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncrashLoopBackOff: {maxContainerRestartPeriod: 1s}\n",
    )
    .unwrap();
    node.add_option("--kubelet-config", config.to_str().unwrap());
    node.launch();
    node.apply(CONFIG);
    let mut chaos =
        Chaos { node, image, dice: Dice(seed * 2 + 1), pods: BTreeMap::new(), made: 0, crashes: 0 };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.step();
    }
    chaos.crash();
    let kills: u32 = chaos.pods.values().map(|pod| pod.kills).sum();
    eprintln!(
        "{} pods made, {} left with {kills} kills, {} crashes",
        chaos.made,
        chaos.pods.len(),
        chaos.crashes
    );
    chaos.check();
}
