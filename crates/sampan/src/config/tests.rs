//! What options come to.

use super::*;

fn file(text: &str) -> Result<ServerOptions> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("config.yaml");
    fs::write(&path, text)?;
    ServerOptions::read(&path)
}

fn decided(options: ServerOptions) -> Result<ServerConfig> {
    ServerConfig::try_from(ServerOptions { node_name: Some("n".into()), ..options })
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
    let typed = ServerOptions { bridge: Some("typed0".into()), ..Default::default() };
    let read = file("bridge: read0\nmax-pods: 7\nenable-admission-plugins: [AlwaysPullImages]\n").unwrap();
    let config = decided(typed.over(read)).unwrap();
    assert_eq!((config.bridge.as_str(), config.max_pods, config.https_listen_port), ("typed0", 7, 6443));
    assert_eq!(config.enable_admission_plugins, ["AlwaysPullImages"]);
    assert_eq!(config.pod_cidr.to_string(), "10.42.0.0/24");
}

#[test]
fn handlers_are_read_from_the_file() {
    let read = file(
        "runtime:\n  defaultHandler: runc\n  handlers:\n    gvisor: {path: /usr/bin/runsc, args: [--platform=ptrace]}\n",
    );
    let runtime = decided(read.unwrap()).unwrap().runtime;
    assert_eq!(runtime.default_handler.as_deref(), Some("runc"));
    assert_eq!(runtime.handlers["gvisor"].args, ["--platform=ptrace"]);
}

#[test]
fn mistakes_are_named() {
    let unknown = format!("{:#}", file("brigde: x\n").unwrap_err());
    assert!(unknown.contains("brigde") && unknown.contains("config.yaml"), "{unknown}");
    for (options, part) in [
        (ServerOptions { cluster_cidr: Some("10.0.0.0".into()), ..Default::default() }, "--cluster-cidr"),
        (ServerOptions { service_cidr: Some("10.42.0.0/24".into()), ..Default::default() }, "overlap"),
        (ServerOptions { bridge: Some("much-too-long-a-name".into()), ..Default::default() }, "--bridge"),
        (ServerOptions { node_name: Some("Böse".into()), ..Default::default() }, "--node-name"),
        (ServerOptions { node_labels: Some(vec!["x".into()]), ..Default::default() }, "key=value"),
    ] {
        let error = match options.node_name {
            Some(_) => ServerConfig::try_from(options),
            None => decided(options),
        };
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
