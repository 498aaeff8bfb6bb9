//! What options come to.

use std::fs;

use anyhow::Result;

use super::*;

fn file(text: &str) -> Result<ServerOptions> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("config.yaml");
    fs::write(&path, text)?;
    ServerOptions::read(&path)
}

fn decided(node: NodeOptions) -> Result<NodeConfig> {
    let node = NodeOptions { node_name: node.node_name.or(Some("n".into())), ..node };
    Ok(ServerConfig::try_from(ServerOptions { node, ..ServerOptions::default() })?.node)
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
    let node = NodeOptions { bridge: Some("typed0".into()), ..Default::default() };
    let typed = ServerOptions { node, ..Default::default() };
    let read = file("bridge: read0\nmax-pods: 7\nenable-admission-plugins: [AlwaysPullImages]\n").unwrap();
    let options = typed.over(read);
    assert_eq!(options.enable_admission_plugins.as_deref(), Some(&["AlwaysPullImages".to_owned()][..]));
    let config = decided(options.node).unwrap();
    assert_eq!((config.bridge.as_str(), config.max_pods, config.kubelet_port), ("typed0", 7, 10250));
    assert_eq!(config.pod_cidr.to_string(), "10.42.0.0/24");
}

#[test]
fn handlers_are_read_from_the_file() {
    let read = file(
        "runtime:\n  defaultHandler: runc\n  handlers:\n    gvisor: {path: /usr/bin/runsc, args: [--platform=ptrace]}\n",
    );
    let runtime = decided(read.unwrap().node).unwrap().runtime;
    assert_eq!(runtime.default_handler.as_deref(), Some("runc"));
    assert_eq!(runtime.handlers["gvisor"].args, ["--platform=ptrace"]);
}

#[test]
fn mistakes_are_named() {
    let unknown = format!("{:#}", file("brigde: x\n").unwrap_err());
    assert!(unknown.contains("brigde") && unknown.contains("config.yaml"), "{unknown}");
    for (options, part) in [
        (NodeOptions { cluster_cidr: Some("10.0.0.0".into()), ..Default::default() }, "--cluster-cidr"),
        (
            NodeOptions { pod_cidr: Some("10.0.0.0/24".into()), ..Default::default() },
            "no part of --cluster-cidr",
        ),
        (NodeOptions { service_cidr: Some("10.42.0.0/24".into()), ..Default::default() }, "overlap"),
        (NodeOptions { bridge: Some("much-too-long-a-name".into()), ..Default::default() }, "--bridge"),
        (NodeOptions { node_name: Some("Böse".into()), ..Default::default() }, "--node-name"),
        (NodeOptions { node_labels: Some(vec!["x".into()]), ..Default::default() }, "key=value"),
    ] {
        let error = format!("{:#}", decided(options).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    let handler = file("runtime:\n  handlers:\n    arm: {path: /usr/bin/runc, platform: arm64}\n").unwrap();
    let error = format!("{:#}", decided(handler.node).unwrap_err());
    assert!(error.contains("runtime.handlers `arm`: platform"), "{error}");
    let homeless = format!("{:#}", AgentConfig::try_from(AgentOptions::default()).unwrap_err());
    assert!(homeless.contains("--kubeconfig") && homeless.contains("sampan kubeconfig --node"), "{homeless}");
}
