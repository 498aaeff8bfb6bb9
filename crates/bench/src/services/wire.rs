//! Connections and bytes between the network namespaces of two pods: the server and the client are threads of this process
//! that went there, so that nothing of a container's programs is in the figures.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the server listens in its pod.
pub(super) const PORT: u16 = 9090;
/// What a client says that wants bytes.
const SEND: u8 = b'b';
/// How many it gets.
const BYTES: usize = 256 << 20;
const PIECE: usize = 256 << 10;

/// A pod's network namespace, by one of its processes.
pub(super) fn namespace(uid: &str) -> Result<PathBuf> {
    let underscored = uid.replace('-', "_");
    let entries = fs::read_dir("/proc")?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_pod = pids.find(|pid| {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroup.contains(uid) || cgroup.contains(&underscored)
    });
    let pid = of_pod.context("the pod has no process")?;
    Ok(format!("/proc/{pid}/ns/net").into())
}

/// Does something in a thread that is in the namespace; `None` is this process's own.
pub(super) fn within<T: Send>(
    namespace: Option<&PathBuf>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            if let Some(path) = namespace {
                let file = File::open(path)?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            work()
        });
        running.join().map_err(|_| anyhow::anyhow!("a thread of the benchmark ended badly"))?
    })
}

/// Listens in the namespace until the process ends.
pub(super) fn serve(namespace: &PathBuf) -> Result<()> {
    let listener = within(Some(namespace), || Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
    thread::spawn(move || {
        let piece = vec![0; PIECE];
        while let Ok((mut client, _)) = listener.accept() {
            let mut wish = [0];
            if client.read(&mut wish).is_ok_and(|read| read == 1) && wish[0] == SEND {
                // A client that leaves early is its own business.
                let _left = (0..BYTES / PIECE).try_for_each(|_| client.write_all(&piece));
            }
        }
    });
    Ok(())
}

/// The time of one connection to each of these, `count` times over. Who is first takes turns: what one leaves behind (a
/// connection that is being closed) is on every other's way equally often.
pub(super) fn connect<const N: usize>(to: [SocketAddrV4; N], count: usize) -> Result<[Vec<Duration>; N]> {
    let mut times = [const { Vec::new() }; N];
    for round in 0..count {
        for turn in 0..N {
            let at = (round + turn) % N;
            let started = Instant::now();
            let _closed_after_the_measurement = TcpStream::connect(to[at])?;
            times[at].push(started.elapsed());
        }
    }
    Ok(times)
}

/// The time that [`BYTES`] take from each of these, in turns as well.
pub(super) fn receive<const N: usize>(from: [SocketAddrV4; N], count: usize) -> Result<[Vec<Duration>; N]> {
    let mut times = [const { Vec::new() }; N];
    let mut piece = vec![0; PIECE];
    for round in 0..count {
        for turn in 0..N {
            let at = (round + turn) % N;
            let mut stream = TcpStream::connect(from[at])?;
            let started = Instant::now();
            stream.write_all(&[SEND])?;
            while stream.read(&mut piece)? > 0 {}
            times[at].push(started.elapsed());
        }
    }
    Ok(times)
}

/// Megabytes a second, in each of these times.
pub(super) fn rates(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| BYTES as f64 / 1e6 / time.as_secs_f64()).collect()
}
