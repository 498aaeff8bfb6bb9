//! Pods on the network: each other, the host, the world outside.

use std::net::{Ipv4Addr, SocketAddr};

use crate::fixture::{Node, eventually, free_port, peer};

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}---\n"
    )
}

const WEB: &str =
    "  containers:\n  - {name: web, image: sampan.local/toolbox, command: [httpd, -p, '8080']}\n";

#[test]
fn pods_reach_each_other_the_host_and_the_outside() {
    let mut node = Node::start();
    let outside = peer::Peer::start();
    let (host_port, own_port) = (free_port(), free_port());
    node.apply(&format!(
        "{}{}{}{}",
        pod("a", "  containers:\n  - {name: c, image: sampan.local/toolbox, command: [sleep, '600']}\n"),
        pod("b", WEB),
        pod(
            "port",
            &WEB.replace("}\n", &format!(", ports: [{{containerPort: 8080, hostPort: {host_port}}}]}}\n"))
        ),
        pod("own", &format!("  hostNetwork: true\n{}", WEB.replace("8080", &own_port.to_string()))),
    ));
    for pod in ["a", "b", "port", "own"] {
        node.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
    }
    let address = |node: &Node, pod: &str| -> Ipv4Addr {
        node.field(&format!("pod/{pod}"), "{.status.podIP}").parse().unwrap()
    };
    let (a, b) = (address(&node, "a"), address(&node, "b"));
    assert_ne!(a, b);
    let from_a =
        |node: &Node, url: &str| node.kubectl(&["exec", "a", "--", "wget", "-T", "5", "-q", "-O", "-", url]);
    // Pod to pod, host to pod.
    assert_eq!(from_a(&node, &format!("http://{b}:8080/healthz")).ok(), "ok\n");
    assert!(peer::http_get(SocketAddr::new(b.into(), 8080)).unwrap().ends_with("ok\n"));
    // Pod to host: the registry's machine, by the bridge's address.
    let gateway = Ipv4Addr::from(u32::from(a) & 0xffff_ff00 | 1);
    assert_eq!(from_a(&node, &format!("http://{gateway}:{own_port}/healthz")).ok(), "ok\n");
    // hostNetwork: the host's addresses and name.
    assert_eq!(node.field("pod/own", "{.status.podIP}"), node.field("pod/own", "{.status.hostIP}"));
    assert!(peer::http_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), own_port)).unwrap().ends_with("ok\n"));
    // Masquerade: outside sees the host, not the pod.
    let telling = outside.tell_the_source(7777);
    assert_eq!(
        from_a(&node, &format!("http://{}:7777/", outside.address)).ok(),
        format!("{}\n", outside.host)
    );
    telling.join().unwrap();
    // hostPort: from outside, from the host, from another pod and from the pod itself.
    let to = SocketAddr::new(outside.host.into(), host_port);
    assert!(outside.get(to).unwrap().ends_with("ok\n"));
    assert!(peer::http_get(to).unwrap().ends_with("ok\n"));
    assert!(
        peer::http_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), host_port))
            .is_some_and(|said| said.ends_with("ok\n")),
        "on loopback"
    );
    assert_eq!(from_a(&node, &format!("http://{}:{host_port}/healthz", outside.host)).ok(), "ok\n");
    let hairpin = format!("http://{}:{host_port}/healthz", outside.host);
    assert_eq!(node.kubectl(&["exec", "port", "--", "wget", "-q", "-O", "-", &hairpin]).ok(), "ok\n");
    // The same host port twice does not fit.
    node.apply(&pod(
        "second",
        &WEB.replace("}\n", &format!(", ports: [{{containerPort: 8080, hostPort: {host_port}}}]}}\n")),
    ));
    eventually("FailedScheduling", || {
        node.events("second", "FailedScheduling")
            .iter()
            .any(|event| event.contains("free ports"))
            .then_some(())
    });
    // Addresses and rules outlive the daemon, and go with the pod.
    node.kill_9();
    assert!(outside.get(to).unwrap().ends_with("ok\n"), "without a daemon");
    node.launch();
    assert_eq!((address(&node, "a"), address(&node, "b")), (a, b));
    assert!(outside.get(to).unwrap().ends_with("ok\n"));
    node.kubectl(&["delete", "pod", "port", "second"]).ok();
    assert_eq!(outside.get(to), None);
    node.apply(&pod("c", WEB));
    node.wait_for("pod/c", "{.status.phase}", "Running");
    assert!(![a, b].contains(&address(&node, "c")));
}

#[test]
fn two_servers_side_by_side() {
    let (first, second) = (Node::start(), Node::start());
    for node in [&first, &second] {
        node.apply(&pod("web", WEB));
    }
    for node in [&first, &second] {
        node.wait_for("pod/web", "{.status.phase}", "Running");
        assert_eq!(node.kubectl(&["get", "nodes", "-o", "name"]).ok(), format!("node/{}\n", node.name()));
    }
    assert_ne!(first.field("pod/web", "{.status.podIP}"), second.field("pod/web", "{.status.podIP}"));
    drop(first);
    let answer =
        second.kubectl(&["exec", "web", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/healthz"]).ok();
    assert_eq!(answer, "ok\n");
    let ip: Ipv4Addr = second.field("pod/web", "{.status.podIP}").parse().unwrap();
    assert!(peer::http_get(SocketAddr::new(ip.into(), 8080)).unwrap().ends_with("ok\n"));
}
