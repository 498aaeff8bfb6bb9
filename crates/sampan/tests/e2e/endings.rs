//! How pods end, also those that do not want to; debugging, sidecars, restarts.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage, eventually, process_of};

fn image(registry: &Registry) -> String {
    registry.push("busybox:1", &TestImage::busybox(&json!({})))
}

/// A pod of these containers (name, script); `spec` are lines of its spec, indented by two.
fn pod(name: &str, image: &str, spec: &str, containers: &[(&str, &str)]) -> String {
    let containers: String = containers
        .iter()
        .map(|(name, script)| {
            format!("  - {{name: {name}, image: {image}, command: [sh, -c, '{script}']}}\n")
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{spec}  containers:\n{containers}---\n"
    )
}

fn delete(node: &Node, pod: &str) -> Duration {
    let began = Instant::now();
    node.kubectl(&["delete", "pod", pod]).ok();
    began.elapsed()
}

#[test]
fn pod_35_processes_that_do_not_want_to_end() {
    let (registry, node) = (Registry::start(), Node::start());
    let (image, mark) = (image(&registry), node.name().to_owned());
    let grace = "  terminationGracePeriodSeconds: 1\n";
    let shared = format!("{grace}  shareProcessNamespace: true\n");
    let ignores = format!("trap \"\" TERM; while :; do sleep 0.1; done # {mark} ignores");
    // Children that make children and end, for ever, in a PID namespace that outlives the container.
    let forks = format!(
        "echo \"sleep 0.02; sh /tmp/f & # {mark}\" > /tmp/f; trap \"\" TERM; sh /tmp/f & sh /tmp/f & while :; do sleep 0.1; done # {mark} forks"
    );
    // A child that holds the output open.
    let holds = format!("sh -c \"sleep 3600; echo # {mark} holds\" & echo bye; exit 3");
    node.apply(&format!(
        "{}{}{}{}",
        pod("ignores", &image, grace, &[("c", &ignores)]),
        pod("forks", &image, &shared, &[("c", &forks)]),
        pod("holds", &image, &format!("{shared}  restartPolicy: Never\n"), &[("c", &holds)]),
        pod("held", &image, grace, &[("c", &holds.replace("exit 3", "exit 4"))]),
    ));
    node.wait_for("pod/ignores", "{.status.phase}", "Running");
    node.wait_for("pod/forks", "{.status.phase}", "Running");
    let took = delete(&node, "ignores");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(process_of(&format!("{mark} ignores")), None);
    delete(&node, "forks");
    assert_eq!(process_of(&format!("{mark} forks")), None);
    // Its end is known although its output stays open, and what is left goes with the pod.
    node.wait_for("pod/holds", "{.status.phase}", "Failed");
    assert_eq!(node.field("pod/holds", "{.status.containerStatuses[0].state.terminated.exitCode}"), "3");
    assert_eq!(node.kubectl(&["logs", "holds"]).ok(), "bye\n");
    delete(&node, "holds");
    node.wait_for("pod/held", "{.status.containerStatuses[0].restartCount}", "1");
    delete(&node, "held");
    eventually("no process", || process_of(&format!("{mark} holds")).is_none().then_some(()));
}

/// Freezes process `$1`, in its cgroup or, where it has none of its own, in one called `$2`, until its input ends. The
/// freezer is that of cgroup v1, which a machine with v2 has besides: what v2 freezes can be killed.
const FREEZE: &str = r#"
mount -t cgroup -o freezer none /mnt
cgroup=$(sed -n 's/.*:freezer://p' /proc/$1/cgroup)
if [ "$cgroup" = / ]; then
    cgroup=/$2
    mkdir /mnt$cgroup
    echo $1 > /mnt$cgroup/cgroup.procs
fi
echo FROZEN > /mnt$cgroup/freezer.state
until grep -q FROZEN /mnt$cgroup/freezer.state; do sleep 0.01; done
echo frozen
cat
echo THAWED > /mnt$cgroup/freezer.state
if [ $cgroup = /$2 ]; then
    echo $1 > /mnt/cgroup.procs || true
    rmdir /mnt$cgroup
fi
"#;

/// A process that takes no signal, SIGKILL included, as one in an uninterruptible sleep, until this is dropped.
struct Frozen(Child);

impl Frozen {
    fn new(pid: u32, cgroup: &str) -> Self {
        // The mount is nobody else's and goes with the script.
        let mut script = Command::new("unshare")
            .args(["--mount", "sh", "-ec", FREEZE, "sh", &pid.to_string(), cgroup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(script.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let frozen = Self(script);
        assert_eq!(
            said, "frozen\n",
            "this kernel has no freezer of cgroup v1: no process can be made unkillable"
        );
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_that_cannot_be_killed_holds_up_nobody_else() {
    let (registry, node) = (Registry::start(), Node::start());
    let (image, mark) = (image(&registry), node.name().to_owned());
    let grace = "  terminationGracePeriodSeconds: 1\n";
    node.apply(&pod(
        "stuck",
        &image,
        grace,
        &[("c", &format!("while :; do sleep 0.1; done # {mark} stuck"))],
    ));
    node.wait_for("pod/stuck", "{.status.phase}", "Running");
    let (pid, _) = process_of(&format!("{mark} stuck")).unwrap();
    let frozen = Frozen::new(pid, &format!("{mark}-frozen"));
    node.kubectl(&["delete", "pod", "stuck", "--wait=false"]).ok();
    node.apply(&pod("other", &image, grace, &[("c", "while :; do sleep 0.1; done")]));
    node.wait_for("pod/other", "{.status.phase}", "Running");
    delete(&node, "other");
    drop(frozen);
    eventually("its end", || (node.kubectl(&["get", "pod", "stuck"]).code == 1).then_some(()));
    assert_eq!(process_of(&format!("{mark} stuck")), None);
}

#[test]
fn pod_47_debug_containers_see_the_processes_of_their_target() {
    let (registry, node) = (Registry::start(), Node::start());
    let (image, mark) = (image(&registry), node.name().to_owned());
    let sleeper = format!("while :; do sleep 0.1; done # {mark} app");
    node.apply(&pod("app", &image, "  terminationGracePeriodSeconds: 1\n", &[("main", &sleeper)]));
    node.apply(&pod(
        "shared",
        &image,
        "  terminationGracePeriodSeconds: 1\n  shareProcessNamespace: true\n",
        &[("a", &sleeper), ("b", "while :; do sleep 0.1; done")],
    ));
    node.wait_for("pod/app", "{.status.phase}", "Running");
    let debug = |name: &str, more: &[&str]| {
        let image = format!("--image={image}");
        let base = ["debug", "app", "-c", name, &image];
        node.kubectl(&[&base[..], more, &["--", "sh", "-c", "ps -o args; echo; exit 5"]].concat()).ok();
        let path = format!(
            "{{.status.ephemeralContainerStatuses[?(@.name==\"{name}\")].state.terminated.exitCode}}"
        );
        node.wait_for("pod/app", &path, "5");
        node.kubectl(&["logs", "app", "-c", name]).ok()
    };
    assert!(!debug("alone", &[]).contains("app"), "a PID namespace of its own");
    let seen = debug("with", &["--target=main"]);
    assert!(seen.contains(&format!("{mark} app")), "{seen}");
    // Never started again, never changed, never removed.
    std::thread::sleep(Duration::from_millis(500));
    let count = "{.status.ephemeralContainerStatuses[*].restartCount}";
    assert_eq!(node.field("pod/app", count), "0 0");
    let error =
        node.kubectl(&["debug", "app", "-c", "third", "--image=x", "--target=nobody", "--", "sh"]).fails();
    assert!(error.contains("targetContainerName: Not found: \"nobody\""), "{error}");
    // POD-47 with shareProcessNamespace: everybody sees everybody.
    node.wait_for("pod/shared", "{.status.phase}", "Running");
    let seen = node.kubectl(&["exec", "shared", "-c", "b", "--", "ps", "-o", "args"]).ok();
    assert!(seen.contains(&format!("{mark} app")), "{seen}");
}

#[test]
fn pod_25_26_27_sidecars_begin_first_and_end_last() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let says = |name: &str| {
        format!(
            "echo begin {name} >> /log/all; trap \"echo end {name} >> /log/all; exit 7\" TERM; while :; do sleep 0.05; done"
        )
    };
    let sidecar = |name: &str| {
        format!(
            "  - {{name: {name}, image: {image}, restartPolicy: Always, command: [sh, -c, '{}'], volumeMounts: [{{name: log, mountPath: /log}}]}}\n",
            says(name)
        )
    };
    let dir = node.path("shared-log");
    fs::create_dir_all(&dir).unwrap();
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: job}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: log, hostPath: {{path: {}}}}}]\n  initContainers:\n{}{}  containers:\n  - {{name: main, image: {image}, command: [sh, -c, 'echo main >> /log/all; sleep 1'], volumeMounts: [{{name: log, mountPath: /log}}]}}\n",
        dir.display(),
        sidecar("s1"),
        sidecar("s2"),
    ));
    // POD-26: the sidecars' exit codes do not count.
    node.wait_for("pod/job", "{.status.phase}", "Succeeded");
    let log = fs::read_to_string(dir.join("all")).unwrap();
    assert_eq!(log, "begin s1\nbegin s2\nmain\nend s2\nend s1\n");
    assert_eq!(node.field("pod/job", "{.status.initContainerStatuses[*].state.terminated.exitCode}"), "7 7");
}

#[test]
fn pod_12_29_45_restarts() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let second = registry.push("busybox:2", &TestImage::busybox(&json!({})));
    // The first restart is immediate: the time between two lines of the log.
    let script =
        "echo begin; if [ -e /d/again ]; then sleep 3600; fi; touch /d/again; sleep 0.3; echo end; exit 1";
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: again}}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{{name: d, emptyDir: {{}}}}]\n  containers:\n  - {{name: c, image: {image}, command: [sh, -c, '{script}'], volumeMounts: [{{name: d, mountPath: /d}}]}}\n"
    ));
    node.wait_for("pod/again", "{.status.containerStatuses[0].restartCount}", "1");
    node.wait_for("pod/again", "{.status.containerStatuses[0].ready}", "true");
    let time = |args: &[&str]| -> jiff::Timestamp {
        let log = eventually("the log", || {
            let log = node.kubectl(&[&["logs", "again", "--timestamps", "--tail=1"], args].concat()).out;
            (!log.is_empty()).then_some(log)
        });
        log.split(' ').next().unwrap().parse().unwrap()
    };
    let gap = time(&[]).duration_since(time(&["--previous"]));
    eprintln!("from the last line of a container to the first line of its restart: {} ms", gap.as_millis());
    assert!(gap.as_millis() < 3_000, "{gap}");

    // POD-45: a new image restarts in place, also where nothing else does.
    let never = "  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n";
    node.apply(&pod("inplace", &image, never, &[("c", "while :; do sleep 0.1; done")]));
    node.wait_for("pod/inplace", "{.status.phase}", "Running");
    let ip = node.field("pod/inplace", "{.status.podIP}");
    node.kubectl(&["set", "image", "pod/inplace", &format!("c={second}")]).ok();
    node.wait_for("pod/inplace", "{.status.containerStatuses[0].restartCount}", "1");
    node.wait_for("pod/inplace", "{.status.containerStatuses[0].ready}", "true");
    assert_eq!(node.field("pod/inplace", "{.status.podIP}"), ip);
    node.wait_for_event("inplace", "Killing", "Normal Container c definition changed, will be restarted");

    // POD-29: one container's end begins the pod again, in its sandbox.
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: all}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  initContainers:\n  - {{name: i, image: {image}, command: [\"true\"]}}\n  containers:\n  - name: trigger\n    image: {image}\n    command: [sh, -c, 'echo run; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 42']\n    restartPolicy: Never\n    restartPolicyRules: [{{action: RestartAllContainers, exitCodes: {{operator: In, values: [42]}}}}]\n  - {{name: other, image: {image}, command: [sh, -c, 'while :; do sleep 0.1; done']}}\n"
    ));
    node.wait_for("pod/all", "{.status.phase}", "Running");
    let ip = node.field("pod/all", "{.status.podIP}");
    node.kubectl(&["exec", "all", "-c", "trigger", "--", "touch", "/tmp/go"]).ok();
    node.wait_for(
        "pod/all",
        "{.status.containerStatuses[*].restartCount} {.status.initContainerStatuses[0].restartCount}",
        "1 1 1",
    );
    node.wait_for("pod/all", "{.status.containerStatuses[*].ready}", "true true");
    assert_eq!(node.field("pod/all", "{.status.podIP}"), ip);
    assert_eq!(node.kubectl(&["logs", "all", "-c", "trigger", "--previous"]).ok(), "run\n");
}

#[test]
fn pod_40_a_probe_whose_time_is_up_leaves_no_process() {
    let (registry, node) = (Registry::start(), Node::start());
    let (image, mark) = (image(&registry), node.name().to_owned());
    let script = format!(
        "sh -c \"sleep 3600; echo # {mark} child\" & sh -c \"sleep 3600; echo # {mark} second\"; wait"
    );
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: {image}\n    command: [sh, -c, 'while :; do sleep 1; done']\n    readinessProbe: {{exec: {{command: [sh, -c, '{script}']}}, timeoutSeconds: 1, periodSeconds: 600, failureThreshold: 1}}\n"
    ));
    let event = eventually("the event", || node.events("slow", "Unhealthy").into_iter().next());
    assert!(event.starts_with("Warning Readiness probe failed: command timed out: "), "{event}");
    eventually("no process", || process_of(&mark).is_none().then_some(()));
    assert_eq!(node.field("pod/slow", "{.status.containerStatuses[0].ready}"), "false");
}
