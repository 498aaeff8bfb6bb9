//! Pods of every handler, side by side on one node, through kubectl: each has what every pod has. And handlers that
//! come, go, or do not work.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage, eventually, streams};

/// A server whose configuration file has this `runtime` section.
fn start(runtime: &str) -> Node {
    let mut node = Node::prepare(&["--stop-pods=true"]);
    configure(&node, runtime);
    let file = node.path("sampan.yaml").display().to_string();
    node.add_option("--config", &file);
    node.launch();
    node
}

fn configure(node: &Node, runtime: &str) {
    fs::write(node.path("sampan.yaml"), format!("runtime:\n{runtime}")).unwrap();
}

const GVISOR: &str = "  handlers:\n    gvisor: {path: /usr/bin/runsc, args: [--platform=ptrace]}\n";

/// What every pod has, whoever runs it. Skipped (with a word) where the engine is not installed.
fn suite(handler: &str, binary: &str, own_kernel: bool) {
    if !binary.is_empty() && !PathBuf::from(binary).exists() {
        eprintln!("{binary} is not here: `cargo xtask setup` installs it");
        return;
    }
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    let node = start(GVISOR);
    // RTC-20: a class of the handler's name is made by itself.
    node.wait_for(&format!("runtimeclass/{handler}"), "{.handler}", handler);
    fs::create_dir(node.path("out")).unwrap();
    let out = node.path("out").display().to_string();
    node.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  runtimeClassName: {handler}
  terminationGracePeriodSeconds: 5
  volumes: [{{name: out, hostPath: {{path: {out}}}}}]
  containers:
  - name: web
    image: {image}
    command: [sh, -c, "echo to stdout; echo to stderr >&2; trap exit TERM; while :; do sleep 1; done"]
    resources: {{limits: {{memory: 96Mi, cpu: 500m}}}}
    volumeMounts: [{{name: out, mountPath: /out}}]
    lifecycle:
      postStart: {{exec: {{command: [touch, /started]}}}}
      preStop: {{exec: {{command: [sh, -c, "echo stopped > /out/stopped"]}}}}
    livenessProbe: {{exec: {{command: [cat, /started]}}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}}
  # Not busybox's: on Debian's gVisor read(2) of a socket answers EAGAIN instead of waiting, and busybox hangs up.
  - name: page
    image: sampan.local/toolbox
    command: [httpd, -p, "8080", -t, page]
    readinessProbe: {{httpGet: {{port: 8080, path: /}}, periodSeconds: 1}}
  - {{name: shell, image: sampan.local/toolbox, stdin: true, command: [cat]}}
"#
    ));
    node.wait_for("pod/web", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    // RTC-17: all containers of the pod are the handler's.
    let ids = node.field("pod/web", "{.status.containerStatuses[*].containerID}");
    for id in ids.split_whitespace() {
        let id = id.trim_start_matches("sampan://");
        let root = node.path("run/oci").join(handler);
        let state = fs::read_dir(&root).unwrap().flatten();
        let names: Vec<_> = state.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name.contains(id)), "{id} is not in {}: {names:?}", root.display());
    }
    let release = node.kubectl(&["exec", "web", "-c", "web", "--", "cat", "/proc/version"]).ok();
    let ours = fs::read_to_string("/proc/version").unwrap();
    assert_eq!(release.trim() != ours.trim(), own_kernel, "the container sees kernel {release}");
    let logs = node.kubectl(&["logs", "web", "-c", "web"]).ok();
    assert!(logs.contains("to stdout\n") && logs.contains("to stderr\n"), "{logs}");
    assert_eq!(node.kubectl(&["exec", "web", "-c", "web", "--", "sh", "-c", "exit 7"]).code, 7);
    // The containers share the pod's network, whatever kernel they have.
    let page = ["exec", "web", "-c", "shell", "--", "wget", "-q", "-O-", "http://127.0.0.1:8080/"];
    assert_eq!(node.kubectl(&page).ok(), "page\n");
    streams::attach(&node);
    streams::forward(&node);
    let stats =
        node.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/stats/summary", node.name())]).ok();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let containers = stats.pointer("/pods/0/containers").and_then(|list| list.as_array()).unwrap();
    for container in containers {
        assert!(container["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{container}");
    }
    assert_eq!(containers.len(), 3);
    // A probe that fails has the container replaced.
    node.kubectl(&["exec", "web", "-c", "web", "--", "rm", "/started"]).ok();
    node.wait_for("pod/web", "{.status.containerStatuses[?(@.name==\"web\")].restartCount}", "1");
    node.wait_for("pod/web", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    let _ = fs::remove_file(node.path("out/stopped"));
    node.kubectl(&["delete", "pod", "web", "--timeout=60s"]).ok();
    assert_eq!(fs::read_to_string(node.path("out/stopped")).unwrap(), "stopped\n", "the preStop hook ran");
}

#[test]
fn rtc_17_every_pod_has_the_same_on_the_embedded_handler() {
    suite("sampan", "", false);
}

#[test]
fn rtc_17_every_pod_has_the_same_on_runc() {
    suite("runc", "/usr/sbin/runc", false);
}

#[test]
fn rtc_17_every_pod_has_the_same_on_crun() {
    suite("crun", "/usr/bin/crun", false);
}

#[test]
fn rtc_17_every_pod_has_the_same_on_gvisor() {
    suite("gvisor", "/usr/bin/runsc", true);
}

fn sleeper(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}  containers:\n  - {{name: c, image: sampan.local/toolbox, command: [sleep, '600']}}\n"
    )
}

fn class(name: &str, handler: &str, more: &str) -> String {
    format!(
        "---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {handler}\n{more}---\n"
    )
}

#[test]
fn rtc_16_rtc_18_rtc_19_rtc_20_rtc_21_handlers_come_and_go() {
    let broken = "    broken: {path: /bin/true}\n    missing: {path: /no/such/runtime}\n";
    let node = start(&format!("  handlers:\n{broken}"));
    let names = || node.field("nodes", "{.items[0].status.runtimeHandlers[*].name}");
    // RTC-21: the default one has no name; what cannot be used is not offered.
    assert!(!names().contains("broken") && !names().contains("missing"), "{}", names());
    assert_eq!(node.field("nodes", "{.items[0].status.runtimeHandlers[0].name}"), "");
    assert_eq!(
        node.field("nodes", "{.items[0].status.runtimeHandlers[0].features.recursiveReadOnlyMounts}"),
        "true"
    );
    assert_eq!(node.field("nodes", "{.items[0].status.features.supplementalGroupsPolicy}"), "true");
    node.apply(
        &[
            class("lost", "no-such-handler", ""),
            class("broken", "broken", ""),
            class("missing", "missing", ""),
            class("vanishing", "sampan", ""),
            sleeper("plain", ""),
            "---\n".to_owned(),
            sleeper("lost", "  runtimeClassName: lost\n"),
            "---\n".to_owned(),
            sleeper("broken", "  runtimeClassName: broken\n"),
            "---\n".to_owned(),
            sleeper("missing", "  runtimeClassName: missing\n"),
            "---\n".to_owned(),
            sleeper(
                "gated",
                "  runtimeClassName: vanishing\n  schedulingGates: [{name: example.com/wait}]\n",
            ),
        ]
        .concat(),
    );
    node.wait_for("pod/plain", "{.status.phase}", "Running");
    for (pod, text) in [
        ("lost", "rpc error: code = InvalidArgument desc = no runtime for \"no-such-handler\" is configured"),
        (
            "broken",
            "rpc error: code = FailedPrecondition desc = the runtime for \"broken\" cannot be used: /bin/true is no OCI runtime: --version printed \"true (GNU coreutils) 9.1\"",
        ),
        (
            "missing",
            "rpc error: code = FailedPrecondition desc = the runtime for \"missing\" cannot be used: /no/such/runtime does not exist",
        ),
    ] {
        // As documented, unlike upstream, where it waits for ever: the event, and then the pod has failed.
        node.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Failed");
        let events = node.events(pod, "FailedCreatePodSandBox");
        assert_eq!(events[0], format!("Warning Failed to create pod sandbox: {text}"));
        assert_eq!(node.field(&format!("pod/{pod}"), "{.status.podIP}"), "");
    }
    // The class vanished between admission and start.
    let reason = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    node.wait_for("pod/gated", reason, "SchedulingGated");
    node.kubectl(&["delete", "runtimeclass", "vanishing"]).ok();
    let open = r#"[{"op": "remove", "path": "/spec/schedulingGates"}]"#;
    node.kubectl(&["patch", "pod", "gated", "--type=json", "-p", open]).ok();
    node.wait_for("pod/gated", "{.status.phase}", "Failed");
    let events = node.events("gated", "FailedCreatePodSandBox");
    assert_eq!(
        events[0],
        "Warning Failed to create pod sandbox: runtimeclass.node.k8s.io \"vanishing\" not found"
    );
    // The file is read again; the same runtime twice with other options is two handlers.
    if PathBuf::from("/usr/sbin/runc").exists() {
        let late = "    late: {path: /usr/sbin/runc, annotations: ['example.com/*']}\n    later: {path: /usr/sbin/runc, args: [--debug]}\n";
        configure(&node, &format!("  handlers:\n{late}"));
        for name in ["late", "later"] {
            node.wait_for(&format!("runtimeclass/{name}"), "{.handler}", name);
            node.apply(&sleeper(name, &format!("  runtimeClassName: {name}\n")));
            node.wait_for(&format!("pod/{name}"), "{.status.phase}", "Running");
        }
        // A mistake changes nothing, and a pod outlives its handler.
        configure(&node, "  handlers:\n    Bad_Name: {path: /usr/sbin/runc}\n");
        eventually("the mistake to be told", || node.log().contains("Bad_Name").then_some(()));
        configure(&node, "  handlers: {}\n");
        eventually("the handler to go", || (!names().contains("late")).then_some(()));
        assert!(node.kubectl(&["exec", "late", "--", "true"]).code == 0, "running pods are not affected");
        node.kubectl(&["delete", "pod", "late", "later", "--timeout=60s"]).ok();
    }
}

#[test]
fn rtc_22_rtc_23_classes_steer_scheduling() {
    let node = Node::start();
    node.kubectl(&["label", "node", node.name(), "example.com/disk=fast"]).ok();
    node.kubectl(&["taint", "node", node.name(), "example.com/special=yes:NoSchedule"]).ok();
    let fits = "scheduling:\n  nodeSelector: {example.com/disk: fast}\n  tolerations: [{key: example.com/special, operator: Exists}]\n";
    let elsewhere = "scheduling:\n  nodeSelector: {example.com/disk: slow}\n  tolerations: [{key: example.com/special, operator: Exists}]\n";
    let heavy = "overhead: {podFixed: {cpu: '1000'}}\nscheduling:\n  tolerations: [{key: example.com/special, operator: Exists}]\n";
    node.apply(
        &[
            class("fits", "sampan", fits),
            class("elsewhere", "sampan", elsewhere),
            class("heavy", "sampan", heavy),
            sleeper("fits", "  runtimeClassName: fits\n"),
            "---\n".to_owned(),
            sleeper("elsewhere", "  runtimeClassName: elsewhere\n"),
            "---\n".to_owned(),
            sleeper("heavy", "  runtimeClassName: heavy\n"),
            "---\n".to_owned(),
            sleeper("none", ""),
        ]
        .concat(),
    );
    node.wait_for("pod/fits", "{.status.phase}", "Running");
    let help = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    for (pod, why) in [
        ("elsewhere", "node(s) didn't match Pod's node affinity/selector"),
        ("heavy", "Insufficient cpu"),
        ("none", "node(s) had untolerated taint(s)"),
    ] {
        node.wait_for_event(
            pod,
            "FailedScheduling",
            &format!("Warning 0/1 nodes are available: 1 {why}. {help}"),
        );
        let reason = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
        assert_eq!(node.field(&format!("pod/{pod}"), reason), "Unschedulable");
        assert_eq!(node.field(&format!("pod/{pod}"), "{.status.phase}"), "Pending");
    }
    // Something changes, and they are tried again at once.
    node.kubectl(&["label", "node", node.name(), "example.com/disk=slow", "--overwrite"]).ok();
    node.wait_for("pod/elsewhere", "{.status.phase}", "Running");
    node.kubectl(&["taint", "node", node.name(), "example.com/special-"]).ok();
    node.wait_for("pod/none", "{.status.phase}", "Running");
}

#[test]
fn preemption_makes_room_for_who_is_more_important() {
    let node = Node::start();
    let cpu: i64 = node.field("nodes", "{.items[0].status.allocatable.cpu}").parse().unwrap();
    let pod = |name: &str, class: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  priorityClassName: {class}\n  containers:\n  - {{name: c, image: sampan.local/toolbox, command: [sleep, '600'], resources: {{requests: {{cpu: {}m}}}}}}\n",
            cpu * 700
        )
    };
    let priority = |name: &str, value: i32| {
        format!(
            "---\napiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: {name}}}\nvalue: {value}\n"
        )
    };
    node.apply(&[priority("low", 1), priority("high", 100), pod("victim", "low")].concat());
    node.wait_for("pod/victim", "{.status.phase}", "Running");
    node.apply(&pod("urgent", "high"));
    node.wait_for("pod/urgent", "{.status.phase}", "Running");
    assert_eq!(node.field("pod/victim", "{.metadata.name}"), "");
    let uid = node.field("pod/urgent", "{.metadata.uid}");
    assert_eq!(
        node.events("victim", "Preempted"),
        [format!("Normal Preempted by pod {uid} on node {}", node.name())]
    );
    assert_eq!(
        node.events("urgent", "FailedScheduling")[0],
        "Warning 0/1 nodes are available: 1 Insufficient cpu."
    );
}

#[test]
fn rtc_25_the_pods_cgroup_has_overhead_and_its_containers_do_not() {
    let node = Node::start();
    let overhead = class("heavy", "sampan", "overhead: {podFixed: {cpu: 200m, memory: 140Mi}}\n");
    let resources =
        "    resources: {requests: {cpu: 100m, memory: 100Mi}, limits: {cpu: 100m, memory: 100Mi}}\n";
    node.apply(
        &[overhead, sleeper("exact", "  runtimeClassName: heavy\n"), resources.to_owned()].concat().replace(
            "  - {name: c, image: sampan.local/toolbox, command: [sleep, '600']}\n",
            "  - name: c\n    image: sampan.local/toolbox\n    command: [sleep, '600']\n",
        ),
    );
    node.wait_for("pod/exact", "{.status.phase}", "Running");
    assert_eq!(node.field("pod/exact", "{.status.qosClass}"), "Guaranteed");
    let pod = format!("{}/kubepods/pod{}", node.name(), node.field("pod/exact", "{.metadata.uid}"));
    let id = node.field("pod/exact", "{.status.containerStatuses[0].containerID}");
    let container = format!("{pod}/{}", id.trim_start_matches("sampan://"));
    let v2 = PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists();
    let read = |controller: &str, cgroup: &str, v1: &str, file: &str| {
        let root = PathBuf::from("/sys/fs/cgroup");
        let path =
            if v2 { root.join(cgroup).join(file) } else { root.join(controller).join(cgroup).join(v1) };
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.split_whitespace().next().unwrap_or_default().to_owned()
    };
    for (cgroup, quota, memory) in [(&pod, "30000", "251658240"), (&container, "10000", "104857600")] {
        assert_eq!(read("cpu", cgroup, "cpu.cfs_quota_us", "cpu.max"), quota, "{cgroup}");
        assert_eq!(read("memory", cgroup, "memory.limit_in_bytes", "memory.max"), memory, "{cgroup}");
    }
    let described = node.kubectl(&["describe", "node", node.name()]).ok();
    let line = described.lines().find(|line| line.contains(" exact ")).unwrap_or_default().to_owned();
    assert!(line.contains("300m") && line.contains("240Mi"), "RTC-26: {line}");
}

#[test]
fn rtc_27_images_belong_to_all_handlers() {
    if !PathBuf::from("/usr/sbin/runc").exists() {
        return;
    }
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    let node = Node::start();
    node.wait_for("runtimeclass/runc", "{.handler}", "runc");
    let pod = |name: &str| {
        sleeper(name, &format!("  runtimeClassName: {name}\n")).replace("sampan.local/toolbox", &image)
    };
    node.apply(&pod("sampan"));
    node.wait_for("pod/sampan", "{.status.phase}", "Running");
    node.apply(&pod("runc"));
    node.wait_for("pod/runc", "{.status.phase}", "Running");
    let events = node.events("runc", "Pulled");
    assert!(events[0].contains("already present on machine"), "{events:?}");
}
