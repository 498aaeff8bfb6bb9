//! DNS: questions per second and their 99th percentile, against Debian's dnsmasq with the same record.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};

use crate::report::Report;

const NAME: &str = "kubernetes.default.svc.cluster.local";
/// Clients at once, questions of each per round, rounds.
const CLIENTS: usize = 8;
const QUESTIONS: usize = 1000;
const ROUNDS: usize = 5;

/// Asks both, in turns.
pub(crate) async fn measure(client: &Client, peers: bool, report: &mut Report) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "kube-system");
    let slice = slices.get("kube-dns").await.context("cluster DNS")?;
    let ip = slice.endpoints.iter().flatten().next().and_then(|endpoint| endpoint.addresses.first().cloned());
    let port = slice.ports.iter().flatten().next().and_then(|port| port.port);
    let ours = SocketAddr::new(ip.context("no address")?.parse()?, u16::try_from(port.context("no port")?)?);
    let peer = if peers { Dnsmasq::start()? } else { None };
    let (mut our_rates, mut our_times) = (Vec::new(), Vec::new());
    let (mut their_rates, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (rate, times) = tokio::task::spawn_blocking(move || ask(ours)).await??;
        our_rates.push(rate);
        our_times.extend(times);
        if let Some(address) = peer.as_ref().map(|peer| peer.address) {
            let (rate, times) = tokio::task::spawn_blocking(move || ask(address)).await??;
            their_rates.push(rate);
            their_times.extend(times);
        }
    }
    report.rate("DNS, questions per second", our_rates);
    report.figure("DNS, one answer", "", our_times);
    if peer.is_some() {
        report.rate("dnsmasq, questions per second", their_rates);
        report.figure("dnsmasq, one answer", "", their_times);
    }
    Ok(())
}

/// Questions per second, and how long each took.
fn ask(server: SocketAddr) -> Result<(f64, Vec<Duration>)> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        packet.push(u8::try_from(label.len())?);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let packet = packet.clone();
            std::thread::spawn(move || -> Result<Vec<Duration>> {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(server)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut times = Vec::with_capacity(QUESTIONS);
                let mut answer = [0; 512];
                for _ in 0..QUESTIONS {
                    let asked = Instant::now();
                    socket.send(&packet)?;
                    let length =
                        socket.recv(&mut answer).with_context(|| format!("no answer of {server}"))?;
                    ensure!(length > packet.len() && answer[3] & 15 == 0, "{server} does not know {NAME}");
                    times.push(asked.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok((times.len() as f64 / started.elapsed().as_secs_f64(), times))
}

/// Debian's dnsmasq, with one record.
struct Dnsmasq {
    process: Child,
    address: SocketAddr,
}

impl Dnsmasq {
    fn start() -> Result<Option<Self>> {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
            ])
            .args(["--listen-address=127.0.0.1", "--user=root", &format!("--port={port}")])
            .args([&format!("--host-record={NAME},10.43.0.1"), "--pid-file="])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("dnsmasq is not installed (`cargo xtask setup --peers`): nothing to compare with");
            return Ok(None);
        };
        let peer = Self { process, address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port) };
        let deadline = Instant::now() + Duration::from_secs(5);
        while ask(peer.address).is_err() {
            ensure!(Instant::now() < deadline, "dnsmasq does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(peer))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
