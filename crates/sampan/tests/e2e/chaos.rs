//! Chaos, bounded and seeded: pods are made, deleted and forced away; their containers, sidecars and pause processes
//! are killed, found dead by their probe, given another image; the daemon is killed with SIGKILL and started again, in
//! an order that only the seed knows. Some pods have hooks, probes, sidecars, volumes, a PID namespace for all. Then
//! everything has to be true: no leaked resource (the fixture looks), every status as it must be, every log line there
//! once, restart counts right.
//!
//! `SAMPAN_CHAOS_SECONDS` (45) and `SAMPAN_CHAOS_SEED` (4) choose another run.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
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
    /// Counts in its log and never ends by itself; started again as often as it was ended.
    Counter,
    /// Ends with this code soon after its start, once.
    Once(u8),
}

/// How something of a pod ends that is then started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Kill,
    Sidecar,
    /// With the pause process of a PID namespace go all that are in it, and the sandbox.
    Pause,
    Liveness,
    Image,
}

impl Way {
    fn fits(self, pod: &Expected) -> bool {
        let counter = pod.kind == Kind::Counter;
        match self {
            Self::Kill | Self::Image => counter,
            Self::Sidecar => pod.sidecar,
            Self::Pause => counter && pod.shared,
            Self::Liveness => counter && pod.liveness,
        }
    }
}

#[derive(Debug)]
struct Expected {
    kind: Kind,
    sidecar: bool,
    /// Whether its containers share a PID namespace.
    shared: bool,
    liveness: bool,
    /// Which of the images it has.
    image: usize,
    /// Ends of its container.
    ends: u64,
    sidecar_ends: u64,
    /// Ends of its pause process.
    pauses: u64,
}

/// What the pods with volumes show.
const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: v}\n";

/// What a pod has besides its container.
struct Extras {
    /// Fields of the container.
    container: String,
    /// Lines of the pod's spec.
    pod: String,
    sidecar: bool,
    shared: bool,
    liveness: bool,
}

/// `mark` is for the sidecar's command line.
fn extras(dice: &mut Dice, image: &str, mark: &str) -> Extras {
    let (mut container, mut pod) = (String::new(), String::new());
    let [hooks, readiness, liveness, sidecar, volumes, shared] = std::array::from_fn(|_| dice.roll(2) == 0);
    let exec = "{exec: {command: [sh, -c, 'exit 0']}";
    if hooks {
        container += &format!(", lifecycle: {{postStart: {exec}}}, preStop: {exec}}}}}");
    }
    if readiness {
        container += &format!(", readinessProbe: {exec}, periodSeconds: 1, timeoutSeconds: 60}}");
    }
    if liveness {
        container += ", livenessProbe: {exec: {command: [test, '!', -e, /sick]}, periodSeconds: 2, failureThreshold: 1, timeoutSeconds: 60}";
    }
    if sidecar {
        let script = format!("trap \"exit 0\" TERM; : > /on; while :; do sleep 0.1; done # {mark} sidecar");
        pod += &format!(
            "  initContainers:\n  - {{name: s, image: {image}, restartPolicy: Always, command: [sh, -c, '{script}']}}\n"
        );
    }
    if volumes {
        container += ", volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m/k, subPath: k}]";
        pod += "  volumes: [{name: e, emptyDir: {}}, {name: m, configMap: {name: m}}]\n";
    }
    if shared {
        pod += "  shareProcessNamespace: true\n";
    }
    Extras { container, pod, sidecar, shared, liveness }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // The pod may be ending a sidecar at the same time.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// The first process of the PID namespace that a process is in.
fn first_of_namespace(pid: u32) -> Option<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(pid)?;
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_first = status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        is_first && namespace(*pid).as_ref() == Some(&own)
    })
}

struct Chaos {
    node: Node,
    /// Names of one image.
    images: [String; 2],
    dice: Dice,
    pods: BTreeMap<String, Expected>,
    made: u32,
    crashes: u32,
    ended: BTreeMap<Way, u32>,
}

impl Chaos {
    fn step(&mut self) {
        match self.dice.roll(100) {
            0..25 if self.pods.len() < 12 => self.create(),
            25..38 => self.delete(),
            38..60 => self.end(Way::Kill),
            60..68 => self.end(Way::Sidecar),
            68..76 => self.end(Way::Pause),
            76..82 => self.end(Way::Liveness),
            82..88 => self.end(Way::Image),
            88..95 => self.crash(),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("p{}", self.made);
        let kind = if self.dice.roll(3) == 0 { Kind::Once(self.dice.roll(4) as u8) } else { Kind::Counter };
        let mark = format!("{} {name}", self.node.name());
        // There is `/on` once it has shown a line. It ignores its stop signal, so each end of it is a SIGKILL.
        let (policy, script) = match kind {
            Kind::Counter => (
                "Always",
                format!(
                    "trap \"\" TERM; i=0; while :; do echo line $i; : > /on; i=$((i+1)); sleep 0.02; done # {mark} main"
                ),
            ),
            Kind::Once(code) => ("Never", format!("echo bye; sleep 0.2; exit {code}")),
        };
        let image = &self.images[0];
        let Extras { container, pod, sidecar, shared, liveness } = extras(&mut self.dice, image, &mark);
        self.node.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n{pod}  containers:\n  - {{name: c, image: {image}, command: [sh, -c, '{script}']{container}}}\n"
        ));
        let expected =
            Expected { kind, sidecar, shared, liveness, image: 0, ends: 0, sidecar_ends: 0, pauses: 0 };
        self.pods.insert(name, expected);
    }

    fn any(&mut self, fits: impl Fn(&Expected) -> bool) -> Option<String> {
        let fitting: Vec<&String> =
            self.pods.iter().filter(|(_, pod)| fits(pod)).map(|(name, _)| name).collect();
        let count = fitting.len() as u64;
        let at = if count == 0 { return None } else { self.dice.roll(count) };
        Some(fitting[at as usize].clone())
    }

    fn delete(&mut self) {
        let Some(name) = self.any(|_| true) else { return };
        self.pods.remove(&name);
        let forced = self.dice.roll(2) == 0;
        let how = if forced { ["--force", "--grace-period=0"] } else { ["--wait=false", "--grace-period=1"] };
        self.node.kubectl(&["delete", "pod", &name, how[0], how[1], "--wait=false"]).ok();
    }

    /// The process of a pod's container, once it has shown that it runs.
    fn process(&self, pod: &str, container: &str) -> Option<u32> {
        let (pid, _) = process_of(&format!("{} {pod} {container}", self.node.name()))?;
        fs::exists(format!("/proc/{pid}/root/on")).unwrap_or(false).then_some(pid)
    }

    /// Ends something of a pod, if it runs, at times while the daemon dies too; when this returns it has ended. So each
    /// run has one cause of its end, and is counted once.
    fn end(&mut self, way: Way) {
        let Some(name) = self.any(|pod| way.fits(pod)) else { return };
        let crash = self.dice.roll(4) == 0;
        let (main, sidecar) = (self.process(&name, "main"), self.process(&name, "sidecar"));
        let pod = self.pods.get_mut(&name).unwrap();
        let doomed = match (way, main, sidecar) {
            (Way::Sidecar, _, Some(sidecar)) => {
                kill(sidecar);
                vec![sidecar]
            }
            (Way::Pause, Some(main), _) if pod.sidecar == sidecar.is_some() => {
                kill(first_of_namespace(main).unwrap());
                pod.pauses += 1;
                [main].into_iter().chain(sidecar).collect()
            }
            (Way::Kill, Some(main), _) => {
                kill(main);
                vec![main]
            }
            (Way::Liveness, Some(main), _) => {
                fs::write(format!("/proc/{main}/root/sick"), "").unwrap();
                vec![main]
            }
            (Way::Image, Some(main), _) => {
                pod.image = 1 - pod.image;
                let image = format!("c={}", self.images[pod.image]);
                self.node.kubectl(&["set", "image", &format!("pod/{name}"), &image]).ok();
                vec![main]
            }
            _ => return,
        };
        pod.ends += u64::from(main.is_some_and(|main| doomed.contains(&main)));
        pod.sidecar_ends += u64::from(sidecar.is_some_and(|sidecar| doomed.contains(&sidecar)));
        *self.ended.entry(way).or_default() += 1;
        if crash {
            self.crash();
        }
        for pid in doomed {
            eventually(&format!("the end of {name} ({way:?})"), || {
                (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
            });
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.node.kill_9();
        self.node.launch();
    }

    fn check(&self) {
        for (name, expected) in &self.pods {
            match expected.kind {
                Kind::Counter => self.check_counter(name, expected),
                Kind::Once(code) => {
                    let pod = format!("pod/{name}");
                    let first = |field: &str| {
                        self.node.field(&pod, &format!("{{.status.containerStatuses[0].{field}}}"))
                    };
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

    /// It runs again, after one restart for each end.
    fn check_counter(&self, name: &str, expected: &Expected) {
        let status = eventually(&format!("{name} to be {expected:?}"), || {
            let pod = self.node.kubectl(&["get", "pod", name, "-o", "json"]).ok();
            let mut pod: Value = serde_json::from_str(&pod).unwrap();
            let status = pod["status"].take();
            let runs = |list: &str, ends: u64| {
                let container = &status[list][0];
                let restarts = container["restartCount"].as_u64().unwrap_or_default();
                // One that is started before the end of its sandbox is known fails, which is a run as well.
                container["ready"] == true && (ends..=ends + expected.pauses).contains(&restarts)
            };
            let right = status["phase"] == "Running"
                && runs("containerStatuses", expected.ends)
                && (!expected.sidecar || runs("initContainerStatuses", expected.sidecar_ends));
            right.then_some(status)
        });
        self.lines_once(name, &[]);
        let container = &status["containerStatuses"][0];
        if expected.ends > 0 && container["restartCount"] == expected.ends {
            assert_eq!(container["lastState"]["terminated"]["exitCode"], 137, "{name}");
            self.lines_once(name, &["--previous"]);
        }
    }

    fn lines_once(&self, name: &str, args: &[&str]) {
        // It has just begun, perhaps.
        let log = eventually(&format!("lines of {name} {args:?}"), || {
            let log = self.node.kubectl(&[&["logs", name], args].concat()).ok();
            (!log.is_empty()).then_some(log)
        });
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
    let (seconds, seed) = (number("SAMPAN_CHAOS_SECONDS", 45), number("SAMPAN_CHAOS_SEED", 4));
    eprintln!("SAMPAN_CHAOS_SEED={seed} SAMPAN_CHAOS_SECONDS={seconds}");
    let registry = Registry::start();
    let images = ["busybox:1", "busybox:2"].map(|name| registry.push(name, &TestImage::busybox(&json!({}))));
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
    let mut chaos = Chaos {
        node,
        images,
        dice: Dice(seed * 2 + 1),
        pods: BTreeMap::new(),
        made: 0,
        crashes: 0,
        ended: BTreeMap::new(),
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.step();
    }
    chaos.crash();
    eprintln!(
        "{} pods made, {} left, {} crashes, ended {:?}",
        chaos.made,
        chaos.pods.len(),
        chaos.crashes,
        chaos.ended
    );
    chaos.check();
}
