//! Another database: a real etcd in the place of the embedded store.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use crate::fixture::{Node, eventually, free_port};

struct Etcd {
    process: Child,
    endpoint: String,
    _dir: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let dir =
            tempfile::Builder::new().prefix(&format!("smpt-{}-etcd-", std::process::id())).tempdir().unwrap();
        let (port, peer) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
        let endpoint = format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path())
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed by `cargo xtask setup`");
        let etcd = Self { process, endpoint, _dir: dir };
        eventually("etcd", || TcpStream::connect(("127.0.0.1", port)).ok());
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_pod_lives_on_etcd_and_survives_the_daemon() {
    let etcd = Etcd::start();
    let mut node = Node::start_with(&["--stop-pods=true", "--datastore-endpoint", &etcd.endpoint]);
    node.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: c, image: sampan.local/toolbox, command: [httpd, -p, '8080']}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n");
    node.wait_for("pod/web", "{.status.phase}", "Running");
    let id = node.field("pod/web", "{.status.containerStatuses[0].containerID}");
    // Nothing is kept beside etcd.
    assert!(!node.path("data/store").exists());
    node.kill_9();
    node.launch();
    assert_eq!(node.field("configmap/kept", "{.data.a}"), "b");
    assert_eq!(node.field("pod/web", "{.status.containerStatuses[0].containerID}"), id);
    assert_eq!(node.field("pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
    let said =
        node.kubectl(&["exec", "web", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/healthz"]).ok();
    assert_eq!(said, "ok\n");
    assert_eq!(node.kubectl(&["delete", "pod", "web"]).ok(), "pod \"web\" deleted\n");
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let node = Node::prepare(&["--datastore-endpoint", &endpoint]);
    let mut process = node.command().spawn().unwrap();
    let status = eventually("the server to give up", || process.try_wait().unwrap());
    assert!(!status.success());
    let log = node.log();
    assert!(log.contains("--datastore-endpoint") && log.matches(&endpoint).count() == 1, "{log}");
    // Nothing was started, so nothing is to be stopped.
    std::fs::remove_dir_all(node.path("run")).unwrap();
}
