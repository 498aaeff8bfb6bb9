//! CPU and memory of running pods, resized in place with real kubectl (KEP-1287): seen from inside the container.

use serde_json::{Value, json};

use crate::fixture::{Node, Registry, Said, TestImage, eventually};

/// What a container finds in its cgroup: its quota per period and its memory limit, in v2's and in v1's files.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat cpu.max memory.max; else \
    cpu=cpu; [ -e cpu ] || cpu=cpu,cpuacct; \
    cat $cpu/cpu.cfs_quota_us $cpu/cpu.cfs_period_us memory/memory.limit_in_bytes; fi";

/// Two containers and a sidecar; `restarts` is restarted for memory.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: side
    image: IMAGE
    restartPolicy: Always
    command: [sleep, \"3600\"]
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 500m, memory: 32Mi}}
  containers:
  - name: stays
    image: IMAGE
    command: [sleep, \"3600\"]
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 500m, memory: 128Mi}}
  - name: restarts
    image: IMAGE
    command: [sleep, \"3600\"]
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 500m, memory: 32Mi}}
";

/// Runs the pod.
fn running(node: &Node, registry: &Registry) {
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    node.apply(&POD.replace("IMAGE", &image));
    node.wait_for("pod/p", "{.status.phase}", "Running");
}

/// Asks for other resources of a container of the pod.
fn resize(node: &Node, list: &str, container: &str, resources: &Value) -> Said {
    let patch = json!({"spec": {list: [{"name": container, "resources": resources}]}}).to_string();
    node.kubectl(&["patch", "pod", "p", "--subresource", "resize", "--patch", &patch])
}

/// Thousandths of a core and bytes that the container may use, as it sees them.
fn limits(node: &Node, container: &str) -> Option<(u64, u64)> {
    let said = node.kubectl(&["exec", "p", "-c", container, "--", "sh", "-c", LIMITS]);
    let numbers: Vec<u64> = said.out.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [quota, period, memory] = numbers[..] else { return None };
    Some((quota * 1_000 / period, memory))
}

#[track_caller]
fn until_limits(node: &Node, container: &str, milli: u64, mebibytes: u64) {
    let mut last = None;
    eventually(&format!("{container} to have {milli}m and {mebibytes}Mi"), || {
        last = limits(node, container);
        (last == Some((milli, mebibytes << 20))).then_some(())
    });
}

fn restarts(node: &Node, container: &str) -> String {
    let path = format!("{{.status.containerStatuses[?(@.name==\"{container}\")].restartCount}}");
    node.field("pod/p", &path)
}

const PENDING: &str = r#"{.status.conditions[?(@.type=="PodResizePending")].reason}"#;
const PROGRESS: &str = r#"{.status.conditions[?(@.type=="PodResizeInProgress")].reason}"#;

#[test]
fn running_containers_get_other_resources_and_keep_them_over_a_crash_of_the_daemon() {
    let (registry, mut node) = (Registry::start(), Node::start());
    running(&node, &registry);
    until_limits(&node, "stays", 500, 128);
    let more = json!({"requests": {"cpu": "20m"}, "limits": {"cpu": "250m", "memory": "192Mi"}});
    assert_eq!(resize(&node, "containers", "stays", &more).ok(), "pod/p patched\n");
    until_limits(&node, "stays", 250, 192);
    let side = json!({"limits": {"cpu": "600m", "memory": "48Mi"}});
    resize(&node, "initContainers", "side", &side).ok();
    until_limits(&node, "side", 600, 48);
    assert_eq!(restarts(&node, "stays"), "0");
    let has = r#"{.status.containerStatuses[?(@.name=="stays")].resources.limits.memory}"#;
    node.wait_for("pod/p", has, "192Mi");
    let allocated = r#"{.status.containerStatuses[?(@.name=="stays")].allocatedResources.cpu}"#;
    assert_eq!(node.field("pod/p", allocated), "20m");
    node.wait_for("pod/p", "{.metadata.generation}={.status.observedGeneration}", "3=3");
    eventually("the events", || {
        let told =
            |reason: &str| node.events("p", reason).iter().any(|event| event.contains(r#""generation":3"#));
        (told("ResizeStarted") && told("ResizeCompleted")).then_some(())
    });
    // The policy of this one wants a restart for memory.
    resize(&node, "containers", "restarts", &json!({"limits": {"cpu": "300m"}})).ok();
    until_limits(&node, "restarts", 300, 32);
    assert_eq!(restarts(&node, "restarts"), "0");
    resize(&node, "containers", "restarts", &json!({"limits": {"memory": "64Mi"}})).ok();
    until_limits(&node, "restarts", 300, 64);
    assert_eq!(restarts(&node, "restarts"), "1");
    assert_eq!(restarts(&node, "stays"), "0");
    // What is asked for while nobody is there is done by the next daemon, and nothing twice.
    let id = r#"{.status.containerStatuses[?(@.name=="stays")].containerID}"#;
    let before = node.field("pod/p", id);
    node.kill_9();
    node.launch();
    assert_eq!(limits(&node, "stays"), Some((250, 192 << 20)));
    resize(&node, "containers", "stays", &json!({"limits": {"cpu": "400m", "memory": "96Mi"}})).ok();
    until_limits(&node, "stays", 400, 96);
    assert_eq!((node.field("pod/p", id), restarts(&node, "stays")), (before, "0".to_owned()));
}

#[test]
fn what_cannot_be_is_said_and_leaves_everything_as_it_was() {
    let (registry, node) = (Registry::start(), Node::start());
    running(&node, &registry);
    for (list, container, resources, text) in [
        ("containers", "stays", json!({"limits": null}), "resource limits cannot be removed"),
        (
            "containers",
            "stays",
            json!({"limits": {"ephemeral-storage": "1Gi"}}),
            "only cpu and memory resources are mutable",
        ),
        (
            "containers",
            "stays",
            json!({"requests": {"cpu": "2"}}),
            "must be less than or equal to cpu limit of 500m",
        ),
    ] {
        let said = resize(&node, list, container, &resources).fails();
        assert!(said.contains(text), "{said}");
    }
    // In memory that is in use: a file in /dev/shm, which nothing but its removal makes free.
    let fill = "dd if=/dev/zero of=/dev/shm/full bs=1048576 count=48";
    node.kubectl(&["exec", "p", "-c", "stays", "--", "sh", "-c", fill]).ok();
    resize(&node, "containers", "stays", &json!({"limits": {"memory": "32Mi"}})).ok();
    node.wait_for("pod/p", PROGRESS, "Error");
    let message = node.field("pod/p", r#"{.status.conditions[?(@.type=="PodResizeInProgress")].message}"#);
    assert!(message.starts_with("cannot decrease memory limits: "), "{message}");
    let text = "attempting to set container \"stays\" memory limit (33554432) below current usage (";
    assert!(message.contains(text), "{message}");
    assert_eq!(limits(&node, "stays"), Some((500, 128 << 20)));
    eventually("the event", || {
        node.events("p", "ResizeError")
            .iter()
            .any(|event| event.starts_with("Warning Pod resize error: "))
            .then_some(())
    });
    // It is tried again until it can be.
    node.kubectl(&["exec", "p", "-c", "stays", "--", "rm", "/dev/shm/full"]).ok();
    until_limits(&node, "stays", 500, 32);
    node.wait_for("pod/p", PROGRESS, "");
    resize(&node, "containers", "stays", &json!({"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}))
        .ok();
    node.wait_for("pod/p", PENDING, "Infeasible");
    eventually("the event", || {
        let described = node.kubectl(&["describe", "pod", "p"]).out;
        let told = described.contains("ResizeInfeasible")
            && described.contains("Node didn't have enough capacity: cpu, requested: ");
        told.then_some(())
    });
    assert_eq!(limits(&node, "stays"), Some((500, 32 << 20)));
    resize(&node, "containers", "stays", &json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "500m"}}))
        .ok();
    node.wait_for("pod/p", PENDING, "");
}

#[test]
fn the_resources_of_the_pod_as_a_whole_are_resized() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  terminationGracePeriodSeconds: 1\n  resources: {{requests: {{cpu: 100m, memory: 64Mi}}, limits: {{cpu: 500m, memory: 96Mi}}}}\n  containers:\n  - {{name: a, image: {image}, command: [sleep, '3600']}}\n  - {{name: b, image: {image}, command: [sleep, '3600']}}\n"
    ));
    node.wait_for("pod/p", "{.status.phase}", "Running");
    let uid = node.field("pod/p", "{.metadata.uid}");
    let pod = format!("{}/kubepods/burstable/pod{uid}", node.name());
    let has = |milli: i64, mebibytes: u64| {
        eventually(&format!("the pod to have {milli}m and {mebibytes}Mi"), || {
            let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
            let read = |file: String| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
            let (cpu, memory) = match v2 {
                true => (read(format!("{pod}/cpu.max"))?, read(format!("{pod}/memory.max"))?),
                false => (
                    read(format!("cpu/{pod}/cpu.cfs_quota_us"))?,
                    read(format!("memory/{pod}/memory.limit_in_bytes"))?,
                ),
            };
            let quota = cpu.split_whitespace().next()?.parse::<i64>().ok()?;
            let limit = memory.trim().parse::<u64>().ok()?;
            ((quota, limit) == (milli * 100, mebibytes << 20)).then_some(())
        });
    };
    let resize = |resources: Value| {
        let patch = json!({"spec": {"resources": resources}}).to_string();
        node.kubectl(&["patch", "pod", "p", "--subresource", "resize", "--patch", &patch])
    };
    has(500, 96);
    let ids = "{.status.containerStatuses[*].containerID}";
    let before = node.field("pod/p", ids);
    resize(json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "800m", "memory": "128Mi"}})).ok();
    has(800, 128);
    node.wait_for("pod/p", "{.status.resources.limits.memory}", "128Mi");
    node.wait_for("pod/p", "{.status.allocatedResources.cpu}", "200m");
    resize(json!({"limits": {"cpu": "300m", "memory": "64Mi"}})).ok();
    has(300, 64);
    node.wait_for("pod/p", PROGRESS, "");
    // Less than is in use by all of them together.
    for container in ["a", "b"] {
        let fill = format!("dd if=/dev/zero of=/dev/shm/{container} bs=1048576 count=24");
        node.kubectl(&["exec", "p", "-c", container, "--", "sh", "-c", &fill]).ok();
    }
    let less = json!({"requests": {"memory": "32Mi"}, "limits": {"memory": "32Mi"}});
    resize(less).ok();
    node.wait_for("pod/p", PROGRESS, "Error");
    let message = node.field("pod/p", r#"{.status.conditions[?(@.type=="PodResizeInProgress")].message}"#);
    let text =
        "cannot decrease memory limits: attempting to set pod memory limit (33554432) below current usage (";
    assert!(message.starts_with(text), "{message}");
    has(300, 64);
    assert_eq!(node.field("pod/p", ids), before, "nobody was restarted");
}
