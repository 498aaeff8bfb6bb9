//! The network with real namespaces, bridges and rules. Needs root; every test has a bridge and a range of its
//! own and leaves nothing behind.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::HashSet,
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sampan_network::{Error, Network, NetworkConfig, PortMapping, Protocol, SandboxNetwork};

/// A network in a temporary directory and the namespaces made for it.
struct Fixture {
    network: Arc<Network>,
    dir: tempfile::TempDir,
    config: NetworkConfig,
}

impl Fixture {
    async fn new(bridge: &str, cidr: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NetworkConfig {
            bridge: bridge.to_owned(),
            pod_cidr: cidr.parse().unwrap(),
            state_dir: dir.path().join("state"),
            mtu: None,
        };
        let network = Network::new(config.clone()).await.unwrap();
        Self { network, dir, config }
    }

    fn netns(&self, id: &str) -> PathBuf {
        let path = self.dir.path().join(format!("ns-{id}"));
        File::create(&path).unwrap();
        let made = Command::new("unshare").arg(format!("--net={}", path.display())).arg("true").status();
        assert!(made.unwrap().success());
        path
    }

    async fn sandbox(&self, id: &str, port_mappings: Vec<PortMapping>) -> (PathBuf, Ipv4Addr) {
        let netns = self.netns(id);
        let sandbox = SandboxNetwork { id: id.to_owned(), netns: netns.clone(), port_mappings };
        let status = self.network.setup(&sandbox).await.unwrap();
        let [IpAddr::V4(ip)] = status.ips[..] else { panic!("{status:?}") };
        (netns, ip)
    }

    /// Takes everything away and checks that nothing is left.
    async fn clean(self, ids: &[&str]) {
        for id in ids {
            self.network.teardown(id).await.unwrap();
            self.network.teardown(id).await.unwrap();
            let _ = Command::new("umount").arg(self.dir.path().join(format!("ns-{id}"))).status();
        }
        self.network.destroy().await.unwrap();
        let bridge = &self.config.bridge;
        assert!(!Path::new(&format!("/sys/class/net/{bridge}")).exists());
        self.network.destroy().await.unwrap();
        if let Ok(tables) = Command::new("nft").args(["list", "tables"]).output() {
            assert!(!String::from_utf8_lossy(&tables.stdout).contains(&format!("table ip {bridge}\n")));
        }
    }
}

fn enter(netns: &Path) {
    let file = File::open(netns).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Serves one greeting a connection on `port` in the namespace, until the test ends.
fn serve(netns: &Path, port: u16) {
    let (netns, ready) = (netns.to_owned(), std::sync::mpsc::channel());
    thread::spawn(move || {
        enter(&netns);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        ready.0.send(()).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "hello {peer}");
        }
    });
    ready.1.recv().unwrap();
}

fn greet(address: impl Into<SocketAddr>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn greet_from(netns: &Path, address: impl Into<SocketAddr>) -> std::io::Result<String> {
    let (netns, address) = (netns.to_owned(), address.into());
    thread::spawn(move || {
        enter(&netns);
        greet(address)
    })
    .join()
    .unwrap()
}

#[tokio::test]
async fn sandboxes_reach_each_other_and_the_host_and_the_host_reaches_them() {
    let net = Fixture::new("smpt-reach", "10.213.1.0/24").await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (b, b_ip) = net.sandbox("b", vec![]).await;
    assert_ne!(a_ip, b_ip);
    serve(&a, 8080);
    assert_eq!(greet_from(&b, (a_ip, 8080)).unwrap(), format!("hello {b_ip}"));
    assert_eq!(greet((a_ip, 8080)).unwrap(), format!("hello {}", net.network.gateway()));

    let host = TcpListener::bind((net.network.gateway(), 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    let gateway = net.network.gateway();
    thread::spawn(move || {
        let (mut stream, peer) = host.accept().unwrap();
        write!(stream, "from {}", peer.ip()).unwrap();
    });
    assert_eq!(greet_from(&b, (gateway, port)).unwrap(), format!("from {b_ip}"));
    assert!(greet_from(&b, (Ipv4Addr::LOCALHOST, 1)).is_err(), "loopback is up and nobody listens");
    net.clean(&["a", "b"]).await;
}

#[tokio::test]
async fn host_ports_lead_inside_from_everywhere_and_are_exclusive() {
    let net = Fixture::new("smpt-ports", "10.213.2.0/24").await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mapping = PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: free, host_ip: None };
    let (a, _) = net.sandbox("a", vec![mapping]).await;
    let (b, _) = net.sandbox("b", vec![]).await;
    serve(&a, 80);
    let gateway = net.network.gateway();
    assert_eq!(greet((Ipv4Addr::LOCALHOST, free)).unwrap(), format!("hello {gateway}"));
    assert!(greet((gateway, free)).is_ok(), "by an address of the host");
    assert!(greet_from(&b, (gateway, free)).is_ok(), "from another sandbox");
    assert!(greet_from(&a, (gateway, free)).is_ok(), "from the sandbox itself");

    let c = SandboxNetwork { id: "c".into(), netns: net.netns("c"), port_mappings: vec![mapping] };
    let refused = net.network.setup(&c).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("host port {free}/TCP is used by another pod"));
    net.network.teardown("a").await.unwrap();
    net.network.setup(&c).await.unwrap();
    net.clean(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn a_restart_keeps_addresses_and_ports_and_reconcile_frees_the_dead() {
    let net = Fixture::new("smpt-again", "10.213.3.0/24").await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    net.sandbox("dead", vec![]).await;
    serve(&a, 80);
    let again = Network::new(net.config.clone()).await.unwrap();
    assert!(greet((a_ip, 80)).is_ok(), "the running sandbox is not disturbed");
    again.reconcile(&HashSet::from(["a".to_owned()])).await.unwrap();
    assert!(greet((a_ip, 80)).is_ok());
    let leases: Vec<_> = std::fs::read_dir(net.dir.path().join("state/leases")).unwrap().collect();
    assert_eq!(leases.len(), 1);
    net.clean(&["a", "dead"]).await;
}

#[tokio::test]
async fn a_missing_namespace_leaves_no_lease_and_says_which_file() {
    let net = Fixture::new("smpt-none", "10.213.4.0/24").await;
    let netns = net.dir.path().join("nowhere");
    let sandbox = SandboxNetwork { id: "a".into(), netns: netns.clone(), port_mappings: vec![] };
    let error = net.network.setup(&sandbox).await.unwrap_err();
    assert!(matches!(&error, Error::Netns { path, .. } if *path == netns), "{error}");
    assert_eq!(std::fs::read_dir(net.dir.path().join("state/leases")).unwrap().count(), 0);
    net.clean(&[]).await;
}
