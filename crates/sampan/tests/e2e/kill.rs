//! The daemon is not the pod: it may die at any moment.

use std::{fs, time::Duration};

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage, eventually, process_of};

const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    image: sampan.local/toolbox
    command: [httpd, -p, "8080"]
"#;

fn pod(name: &str, image: &str, policy: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: {image}\n    command: [sh, -c, '{script}']\n---\n"
    )
}

/// What a pod's container is, and how often events told of it.
fn identity(node: &Node, pod: &str) -> [String; 4] {
    let first =
        |field: &str| node.field(&format!("pod/{pod}"), &format!("{{.status.containerStatuses[0].{field}}}"));
    let selector = format!("--field-selector=involvedObject.name={pod}");
    let path = r#"jsonpath={range .items[*]}{.reason} {.count};{end}"#;
    let mut events: Vec<String> =
        node.kubectl(&["get", "events", &selector, "-o", path]).ok().split(';').map(str::to_owned).collect();
    events.sort();
    [
        first("containerID"),
        first("restartCount"),
        node.field(&format!("pod/{pod}"), "{.status.podIP}"),
        events.join(";"),
    ]
}

#[test]
fn pods_survive_kill_9_and_what_ended_meanwhile_is_known() {
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    let mut node = Node::start();
    let mark = node.name().to_owned();
    let count = format!("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.005; done # {mark} counter");
    let ends =
        |code: u8| format!("while [ ! -e /go ]; do sleep 0.02; done; echo bye; exit {code} # {mark} ends");
    node.apply(&format!(
        "{}{}{}{WEB}",
        pod("counter", &image, "Always", &count),
        pod("once", &image, "Never", &ends(33)),
        pod("again", &image, "Always", &ends(34)),
    ));
    for pod in ["counter", "once", "again", "web"] {
        node.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
    }
    let process = process_of(&format!("{mark} counter")).unwrap();
    // Events are written a moment after what they tell of.
    eventually("the events", || (node.events("web", "Started").len() == 1).then_some(()));
    let before: Vec<_> = ["counter", "web"].iter().map(|pod| identity(&node, pod)).collect();
    assert_eq!(before[0][1], "0");

    node.kill_9();
    for code in [33, 34] {
        let (pid, _) = process_of(&format!("exit {code} # {mark}")).unwrap();
        fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        eventually("its end", || {
            (!fs::exists(format!("/proc/{pid}/root/go")).unwrap_or(false)).then_some(())
        });
    }
    node.launch();

    node.wait_for("pod/once", "{.status.phase}", "Failed");
    assert_eq!(node.field("pod/once", "{.status.containerStatuses[0].state.terminated.exitCode}"), "33");
    assert_eq!(node.field("pod/once", "{.status.containerStatuses[0].state.terminated.reason}"), "Error");
    assert_eq!(node.kubectl(&["logs", "once"]).ok(), "bye\n");
    node.wait_for("pod/again", "{.status.containerStatuses[0].restartCount}", "1");
    assert_eq!(node.field("pod/again", "{.status.containerStatuses[0].lastState.terminated.exitCode}"), "34");
    assert_eq!(node.kubectl(&["logs", "again", "--previous"]).ok(), "bye\n");

    assert_eq!(process_of(&format!("{mark} counter")), Some(process), "the same process");
    std::thread::sleep(Duration::from_millis(300));
    for (pod, before) in ["counter", "web"].iter().zip(&before) {
        assert_eq!(identity(&node, pod), *before);
    }
    let log = node.kubectl(&["logs", "counter"]).ok();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() > 50, "{}", lines.len());
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number}"));
    }
    let answer =
        node.kubectl(&["exec", "web", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/healthz"]).ok();
    assert_eq!(answer, "ok\n");
    assert!(node.kubectl(&["logs", "web"]).ok().contains("GET /healthz"), "the log goes on");
    // A pod that is deleted while nobody is there to do it.
    assert_eq!(node.kubectl(&["delete", "pod", "counter", "--wait=false"]).code, 0);
    node.kill_9();
    node.launch();
    eventually("its end", || (node.kubectl(&["get", "pod", "counter"]).code == 1).then_some(()));
    assert_eq!(process_of(&format!("{mark} counter")), None);
}

#[test]
fn a_clean_stop_keeps_pods_and_exits_with_0() {
    let mut node = Node::start_with(&[]);
    node.apply(WEB);
    node.wait_for("pod/web", "{.status.phase}", "Running");
    let id = node.field("pod/web", "{.status.containerStatuses[0].containerID}");
    assert_eq!(node.terminate(), 0, "{}", node.log());
    node.launch();
    assert_eq!(node.field("pod/web", "{.status.containerStatuses[0].containerID}"), id);
    assert_eq!(node.field("pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
}

#[test]
fn a_clean_stop_without_pods_takes_the_network_away() {
    let mut node = Node::start_with(&[]);
    let bridge = std::path::Path::new("/sys/class/net").join(node.option("--bridge"));
    let tables = || {
        let said = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let table = format!("table ip {}\n", node.option("--bridge"));
    assert!(bridge.exists() && tables().contains(&table));
    assert_eq!(node.terminate(), 0, "{}", node.log());
    assert!(!bridge.exists() && !tables().contains(&table), "{}", tables());
    // And the next start makes it again.
    node.launch();
    assert!(bridge.exists() && tables().contains(&table));
}

#[test]
fn stopped_pods_run_again_with_the_node() {
    let mut node = Node::start();
    node.apply(WEB);
    node.wait_for("pod/web", "{.status.phase}", "Running");
    let first = node.field("pod/web", "{.status.containerStatuses[0].containerID}");
    assert_eq!(node.terminate(), 0, "{}", node.log());
    node.launch();
    eventually("another container", || {
        let id = node.field("pod/web", "{.status.containerStatuses[0].containerID}");
        let phase = node.field("pod/web", "{.status.phase}{.status.containerStatuses[0].ready}");
        (id != first && !id.is_empty() && phase == "Runningtrue").then_some(())
    });
    assert_eq!(node.field("pod/web", "{.status.containerStatuses[0].restartCount}"), "1");
    let answer =
        node.kubectl(&["exec", "web", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/healthz"]).ok();
    assert_eq!(answer, "ok\n");
}

/// A pod of the built-in image, which has no shell.
const TOOLS: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: c, image: sampan.local/toolbox, command: [sleep, '3600']}\n";

#[test]
fn another_binary_takes_over_what_the_one_before_left() {
    let (registry, mut node) = (Registry::start(), Node::prepare(&[]));
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    // To everything that looks at it, a file of another content is another version.
    let old = node.path("sampan-before");
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_sampan")).unwrap();
    bytes.extend_from_slice(b"another version");
    fs::write(&old, bytes).unwrap();
    fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.set_binary(&old);
    node.launch();
    node.apply(&format!(
        "{}{}",
        pod("runs", &image, "Always", "while :; do sleep 0.1; done"),
        TOOLS.replace("NAME", "tools"),
    ));
    for name in ["runs", "tools"] {
        node.wait_for(&format!("pod/{name}"), "{.status.phase}", "Running");
    }
    let before = ["runs", "tools"].map(|name| identity(&node, name));
    node.kill_9();
    fs::remove_file(&old).unwrap();
    node.set_binary(env!("CARGO_BIN_EXE_sampan"));
    node.launch();
    for name in ["runs", "tools"] {
        assert_eq!(node.kubectl(&["exec", name, "--", "echo", "still here"]).ok(), "still here\n");
    }
    assert_eq!(["runs", "tools"].map(|name| identity(&node, name)), before);
    // Its shims do what they did, and the image that is made of the binary is the new one's.
    let end = ["exec", "runs", "--", "sh", "-c", "kill -9 -1"];
    let _ = node.kubectl(&end);
    node.apply(&TOOLS.replace("NAME", "fresh"));
    node.wait_for("pod/fresh", "{.status.phase}", "Running");
    node.kubectl(&["delete", "pod", "runs", "tools", "fresh", "--timeout=60s"]).ok();
}
