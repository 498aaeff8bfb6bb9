//! The daemon is not the pod: it may die at any moment.

use crate::fixture::Node;

const COUNTER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  containers:
  - name: web
    image: sampan.local/toolbox
    command: [httpd, -p, "8080"]
"#;

#[test]
fn a_pod_survives_kill_9_of_the_daemon_as_the_same_process() {
    let mut node = Node::start();
    node.apply(COUNTER);
    node.wait_for("pod/counter", "{.status.phase}", "Running");
    let before = |node: &Node| {
        let id = node.field("pod/counter", "{.status.containerStatuses[0].containerID}");
        let restarts = node.field("pod/counter", "{.status.containerStatuses[0].restartCount}");
        let ip = node.field("pod/counter", "{.status.podIP}");
        (id, restarts, ip, node.kubectl(&["logs", "counter"]).ok())
    };
    let first = before(&node);
    assert_eq!(first.1, "0");
    node.kill_9();
    node.launch();
    node.wait_for("pod/counter", "{.status.phase}", "Running");
    assert_eq!(before(&node), first);
    let answer = node.kubectl(&["exec", "counter", "--", "wget", "-q", "http://127.0.0.1:8080/healthz"]).ok();
    assert_eq!(answer, "ok\n");
    assert!(node.kubectl(&["logs", "counter"]).ok().contains("GET /healthz"), "the log goes on");
}

#[test]
fn a_clean_stop_keeps_pods_and_exits_with_0() {
    let mut node = Node::start();
    node.apply(COUNTER);
    node.wait_for("pod/counter", "{.status.phase}", "Running");
    let id = node.field("pod/counter", "{.status.containerStatuses[0].containerID}");
    assert_eq!(node.terminate(), 0, "{}", node.log());
    node.launch();
    assert_eq!(node.field("pod/counter", "{.status.containerStatuses[0].containerID}"), id);
}
