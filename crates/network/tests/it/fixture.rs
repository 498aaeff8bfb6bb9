//! A network in a temporary directory, namespaces on it, and programs in them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sampan_network::{Network, NetworkConfig, PortMapping, SandboxNetwork};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network in a temporary directory and the namespaces made for it.
pub(crate) struct Fixture {
    pub(crate) network: Arc<Network>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: NetworkConfig,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let (owner, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let number = owner * 3 + count;
        let (high, low) = (number >> 8 & 15, number & 255);
        let bridge = format!("smpt-{owner}-{count}");
        let dir = tempfile::Builder::new().prefix(&format!("{bridge}-")).tempdir().unwrap();
        let config = NetworkConfig {
            bridge,
            pod_cidr: format!("10.{}.{low}.0/24", 208 + high).parse().unwrap(),
            cluster_cidr: format!("10.{}.{low}.0/24", 208 + high).parse().unwrap(),
            service_cidr: format!("10.{}.{low}.0/24", 224 + high).parse().unwrap(),
            state_dir: dir.path().join("state"),
            mtu: None,
        };
        let network = Network::new(config.clone()).await.unwrap();
        Self { network, dir, config }
    }

    pub(crate) fn netns(&self, id: &str) -> PathBuf {
        let path = self.dir.path().join(format!("ns-{id}"));
        File::create(&path).unwrap();
        let made = Command::new("unshare").arg(format!("--net={}", path.display())).arg("true").status();
        assert!(made.unwrap().success());
        path
    }

    pub(crate) async fn sandbox(&self, id: &str, port_mappings: Vec<PortMapping>) -> (PathBuf, Ipv4Addr) {
        let netns = self.netns(id);
        let sandbox = SandboxNetwork { id: id.to_owned(), netns: netns.clone(), port_mappings };
        let status = self.network.setup(&sandbox).await.unwrap();
        let [IpAddr::V4(ip)] = status.ips[..] else { panic!("{status:?}") };
        (netns, ip)
    }

    /// An address for a Service.
    pub(crate) fn service_ip(&self, number: u32) -> Ipv4Addr {
        self.config.service_cidr.nth(number)
    }

    /// What `nft` reads in the table.
    pub(crate) fn listing(&self) -> String {
        let said = Command::new("nft").args(["list", "table", "ip", &self.config.bridge]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    /// Takes everything away and checks that nothing is left.
    pub(crate) async fn clean(self, ids: &[&str]) {
        for id in ids {
            self.network.teardown(id).await.unwrap();
            self.network.teardown(id).await.unwrap();
            let _ = Command::new("umount").arg(self.dir.path().join(format!("ns-{id}"))).status();
        }
        self.network.destroy().await.unwrap();
        let bridge = &self.config.bridge;
        assert!(!Path::new(&format!("/sys/class/net/{bridge}")).exists());
        self.network.destroy().await.unwrap();
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&tables.stdout).contains(&format!("table ip {bridge}\n")));
    }
}

/// A test that failed leaves nothing either.
impl Drop for Fixture {
    fn drop(&mut self) {
        let bridge = &self.config.bridge;
        if !Path::new(&format!("/sys/class/net/{bridge}")).exists() {
            return;
        }
        let _ = Command::new("nft").args(["delete", "table", "ip", bridge]).output();
        for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg(entry.path()).output();
        }
        let _ = Command::new("ip").args(["link", "delete", bridge]).output();
    }
}

fn enter(netns: &Path) {
    let file = File::open(netns).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Runs `work` inside of the namespace.
pub(crate) fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = netns.to_owned();
    let work = move || {
        enter(&netns);
        work()
    };
    thread::spawn(work).join().unwrap()
}

/// Serves one greeting a connection on `port` in the namespace, until the test ends.
pub(crate) fn serve(netns: &Path, port: u16) {
    serve_as(netns, port, "hello");
}

/// The same with another word.
pub(crate) fn serve_as(netns: &Path, port: u16, word: &str) {
    let word = word.to_owned();
    let listener = inside(netns, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{word} {peer}");
        }
    });
}

/// Answers every datagram with a word, until the test ends.
pub(crate) fn serve_udp(netns: &Path, port: u16, word: &'static str) {
    let socket = inside(netns, move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(word.as_bytes(), peer);
        }
    });
}

pub(crate) fn greet(address: impl Into<SocketAddr>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn greet_from(netns: &Path, address: impl Into<SocketAddr>) -> std::io::Result<String> {
    let address = address.into();
    inside(netns, move || greet(address))
}
