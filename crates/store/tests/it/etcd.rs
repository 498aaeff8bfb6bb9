//! The suite against a real etcd, which is started for the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_store::etcd::Etcd;
use sampan_store::{Error, Store, conformance};

struct Server {
    child: Child,
    endpoint: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts etcd on free loopback ports; `None` when the machine has none.
async fn start() -> Option<(Server, Arc<Etcd>)> {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let spawned = Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path())
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("etcd does not start: {error}"),
    };
    let server = Server { child, endpoint, _directory: directory };
    let patience = Instant::now();
    loop {
        if let Ok(store) = Etcd::connect(&server.endpoint, None).await
            && store.revision().await.is_ok()
        {
            return Some((server, store));
        }
        assert!(patience.elapsed() < Duration::from_secs(20), "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let Some((_server, store)) = start().await else {
        println!("no etcd on this machine: the suite did not run against it");
        return;
    };
    conformance::run(|| async { store.clone() as Arc<dyn Store> }).await;
}

#[tokio::test]
async fn nobody_there_is_said() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let error = Etcd::connect(&endpoint, None).await.unwrap_err();
    assert!(matches!(&error, Error::Connect { .. }));
    assert_eq!(error.to_string(), format!("connect to etcd at {endpoint}"));
}
