//! The same kubelet over another runtime: Debian's containerd, with several handlers.

use std::{os::unix::net::UnixListener, process::Stdio};

use serde_json::json;

use crate::fixture::{Node, Said, TestImage, containerd::Containerd, streams};

#[test]
fn rtc_17_rtc_18_pods_on_containerd() {
    let mut containerd = Containerd::start();
    let image = containerd.registry.push("busybox:1", &TestImage::busybox(&json!({"Env": ["PATH=/bin"]})));
    let endpoint = containerd.endpoint();
    let node = Node::start_with(&["--stop-pods=true", "--container-runtime-endpoint", &endpoint]);
    let version = node.field("nodes", "{.items[0].status.nodeInfo.containerRuntimeVersion}");
    assert!(version.starts_with("containerd://1."), "{version}");
    node.apply(&format!(
        r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: second}}
handler: second
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: nowhere}}
handler: no-such-handler
---
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: web
    image: {image}
    command: [sh, -c, "mkdir /w; echo page > /w/index.html; echo to stdout; echo to stderr >&2; httpd -f -p 8080 -h /w"]
    lifecycle: {{postStart: {{exec: {{command: [touch, /started]}}}}}}
    livenessProbe: {{exec: {{command: [cat, /started]}}, periodSeconds: 1}}
    readinessProbe: {{httpGet: {{port: 8080, path: /}}, periodSeconds: 1}}
  - {{name: shell, image: {image}, stdin: true, command: [cat]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: other}}
spec:
  runtimeClassName: second
  restartPolicy: Never
  containers: [{{name: c, image: {image}, command: [sh, -c, exit 3]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: lost}}
spec:
  runtimeClassName: nowhere
  containers: [{{name: c, image: {image}, command: [sleep, '60']}}]
"#
    ));
    node.wait_for("pod/web", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    node.wait_for("pod/other", "{.status.containerStatuses[0].state.terminated.exitCode}", "3");
    node.wait_for("pod/lost", "{.status.phase}", "Failed");
    node.wait_for_event(
        "lost",
        "FailedCreatePodSandBox",
        "Warning Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \"no-such-handler\" is configured",
    );
    let logs = node.kubectl(&["logs", "web", "-c", "web"]).ok();
    assert!(logs.contains("to stdout\n") && logs.contains("to stderr\n"), "{logs}");
    assert_eq!(node.kubectl(&["exec", "web", "-c", "web", "--", "cat", "/w/index.html"]).ok(), "page\n");
    assert_eq!(node.kubectl(&["exec", "web", "-c", "web", "--", "sh", "-c", "exit 7"]).code, 7);
    streams::attach(&node);
    streams::forward(&node);

    // containerd dies under the kubelet: the node says so, the pods go on, and everything works again afterwards.
    let id =
        |node: &Node| node.field("pod/web", "{.status.containerStatuses[?(@.name==\"web\")].containerID}");
    let before = id(&node);
    assert!(before.starts_with("containerd://"), "{before}");
    containerd.kill_9();
    node.wait_for("nodes", "{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "False");
    assert!(node.kubectl(&["exec", "web", "-c", "web", "--", "true"]).code != 0);
    containerd.launch();
    node.wait_for("nodes", "{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True");
    assert_eq!(node.kubectl(&["exec", "web", "-c", "web", "--", "cat", "/w/index.html"]).ok(), "page\n");
    assert_eq!(id(&node), before, "the container was not replaced");
    node.kubectl(&["exec", "web", "-c", "web", "--", "rm", "/started"]).ok();
    node.wait_for("pod/web", "{.status.containerStatuses[?(@.name==\"web\")].restartCount}", "1");
    node.kubectl(&["delete", "pods", "--all", "--wait=true", "--timeout=60s"]).ok();
    drop(node);
}

/// The manifests that the documentation shows, as they are.
const EXAMPLE: &str = include_str!("../../../../examples/runtime-classes.yaml");

/// Applies the example; what each of its pods saw of its kernel.
fn kernels(node: &Node) -> [String; 3] {
    node.apply(EXAMPLE);
    ["embedded", "crun", "gvisor"].map(|name| {
        let pod = format!("pod/kernel-{name}");
        node.wait_for(&pod, "{.status.phase}", "Succeeded");
        node.kubectl(&["logs", &pod]).ok()
    })
}

#[test]
fn rtc_17_the_example_runs_unchanged_on_the_embedded_runtime_and_on_containerd() {
    let ours = std::fs::read_to_string("/proc/version").unwrap();
    let gvisor = |[embedded, crun, gvisor]: [String; 3]| {
        assert_eq!([&embedded, &crun], [&ours, &ours]);
        assert!(gvisor.starts_with("Linux version 4.4.0"), "{gvisor}");
        gvisor
    };
    let mut node = Node::prepare(&["--stop-pods=true"]);
    // Debian's gVisor does not have the platform that later ones choose by themselves.
    let file = node.path("sampan.yaml");
    let handler = "runtime: {handlers: {runsc: {path: /usr/bin/runsc, args: [--platform=ptrace]}}}\n";
    std::fs::write(&file, handler).unwrap();
    node.add_option("--config", &file.display().to_string());
    node.launch();
    let here = gvisor(kernels(&node));
    // The built-in image for an engine that has none.
    let archive = node.path("toolbox.tar");
    let path = archive.display().to_string();
    node.sampan(&["image", "save", "sampan.local/toolbox", "-o", &path]).ok();
    let containerd = Containerd::start();
    containerd.import(&archive);
    let other =
        Node::start_with(&["--stop-pods=true", "--container-runtime-endpoint", &containerd.endpoint()]);
    assert_eq!(gvisor(kernels(&other)), here);
    for node in [&node, &other] {
        node.kubectl(&["delete", "pods", "--all", "--wait=true", "--timeout=60s"]).ok();
    }
}

#[test]
fn a_socket_that_is_no_runtime_is_told_apart() {
    let node = Node::prepare(&[]);
    let refused = |endpoint: &str| {
        let mut command = node.command();
        command.args(["--container-runtime-endpoint", endpoint]);
        let said: Said = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap().into();
        said.fails()
    };
    let socket = node.path("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Accepts and says nothing, as many other servers would.
    let held = std::thread::spawn(move || {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept() {
            connections.push(connection);
            if connections.len() > 8 {
                break;
            }
        }
    });
    let endpoint = format!("unix://{}", socket.display());
    let said = refused(&endpoint);
    assert!(said.contains("--container-runtime-endpoint") && said.contains("CRI"), "{said}");
    let said = refused("unix:///no/such.sock");
    assert!(said.contains("/no/such.sock"), "{said}");
    let said = refused("tcp://127.0.0.1:1");
    assert!(said.contains("unix"), "{said}");
    drop(held);
}
