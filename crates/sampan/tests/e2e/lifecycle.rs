//! A pod's way through unmodified kubectl.

use std::process::Stdio;

use crate::fixture::{Node, Registry, Said, TestImage, eventually};

#[test]
fn a_pod_from_a_real_registry_lives_and_dies() {
    let registry = Registry::start();
    let image =
        registry.push("team/app:1.0", &TestImage::busybox(&serde_json::json!({"Env": ["FROM_IMAGE=yes"]})));
    let node = Node::start();
    let applied = node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: app, labels: {{app: app}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {image}\n    command: [sh, -c, 'echo started; exec sleep 3600']\n"
    ));
    assert_eq!(applied, "pod/app created\n");
    node.wait_for("pod/app", "{.status.phase}", "Running");
    let table = node.kubectl(&["get", "pods"]).ok();
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(words[1][..4], ["app", "1/1", "Running", "0"]);
    assert_eq!(node.kubectl(&["logs", "app"]).ok(), "started\n");
    assert_eq!(
        node.kubectl(&["exec", "app", "--", "sh", "-c", "echo $FROM_IMAGE; hostname"]).ok(),
        "yes\napp\n"
    );
    let said = node.kubectl(&["exec", "app", "--", "sh", "-c", "exit 7"]);
    assert_eq!(said.code, 7);
    assert!(said.err.contains("command terminated with exit code 7"), "{}", said.err);
    let described = node.kubectl(&["describe", "pod", "app"]).ok();
    for event in [
        "Successfully assigned default/app to",
        "Pulling image",
        "Successfully pulled image",
        "Container created",
        "Container started",
    ] {
        assert!(described.contains(event), "{event} in {described}");
    }
    assert_eq!(node.kubectl(&["delete", "pod", "app"]).ok(), "pod \"app\" deleted\n");
    assert!(
        node.kubectl(&["get", "pod", "app"])
            .fails()
            .contains("Error from server (NotFound): pods \"app\" not found")
    );
}

#[test]
fn pod_33_a_pod_that_ends_by_itself_is_succeeded_with_its_log() {
    let node = Node::start();
    node.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: once}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: c, image: sampan.local/toolbox, command: [echo, done]}\n");
    node.wait_for("pod/once", "{.status.phase}", "Succeeded");
    assert_eq!(node.field("pod/once", "{.status.containerStatuses[0].state.terminated.reason}"), "Completed");
    assert_eq!(eventually("the log", || Some(node.kubectl(&["logs", "once"]).ok())), "done\n");
}

#[test]
fn pod_32_a_second_deletion_and_another_daemon_send_no_second_signal() {
    let (registry, mut node) = (Registry::start(), Node::start());
    let image = registry.push("busybox:1", &TestImage::busybox(&serde_json::json!({})));
    let script = "trap \"echo t\" TERM; echo ready; while :; do sleep 0.1; done";
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: twice}}\nspec:\n  terminationGracePeriodSeconds: 60\n  containers:\n  - {{name: c, image: {image}, command: [sh, -c, '{script}']}}\n"
    ));
    let log_is = |node: &Node, text: &str| {
        eventually(text, || (node.kubectl(&["logs", "twice"]).out == text).then_some(()));
    };
    log_is(&node, "ready\n");
    node.kubectl(&["delete", "pod", "twice", "--wait=false"]).ok();
    log_is(&node, "ready\nt\n");
    node.kill_9();
    node.launch();
    let mut follow = node.kubectl_command(&["logs", "-f", "twice"]);
    let follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    node.kubectl(&["delete", "pod", "twice", "--wait=false", "--grace-period=5"]).ok();
    eventually("its end", || (node.kubectl(&["get", "pod", "twice"]).code == 1).then_some(()));
    let said: Said = follow.wait_with_output().unwrap().into();
    assert_eq!(said.out, "ready\nt\n");
}
