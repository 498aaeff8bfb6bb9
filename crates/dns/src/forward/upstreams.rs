//! The machine's name servers, as its `resolv.conf` has them now.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use tokio::time::{Duration, Instant};

use super::Upstreams;

/// How often is looked whether the file changed.
const PERIOD: Duration = Duration::from_secs(5);
/// More are not asked; the C library takes three.
const MOST: usize = 3;
/// A file beyond this is no `resolv.conf`.
const LARGEST_FILE: u64 = 1 << 20;

pub(super) struct UpstreamList {
    source: Upstreams,
    own: Vec<IpAddr>,
    read: Mutex<Option<Read>>,
}

struct Read {
    looked: Instant,
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl UpstreamList {
    pub(super) fn new(source: Upstreams, own: Vec<IpAddr>) -> Self {
        Self { source, own, read: Mutex::default() }
    }

    /// The servers to ask, in order.
    pub(super) fn current(&self) -> Vec<SocketAddr> {
        let path = match &self.source {
            Upstreams::Fixed(servers) => return servers.clone(),
            Upstreams::ResolvConf(path) => path,
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = &*read
            && read.looked.elapsed() < PERIOD
        {
            return read.servers.clone();
        }
        let metadata = std::fs::metadata(path).ok();
        let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        if let Some(read) = &mut *read
            && read.changed == changed
        {
            read.looked = Instant::now();
            return read.servers.clone();
        }
        let small = metadata.is_some_and(|metadata| metadata.len() <= LARGEST_FILE);
        let servers = if small { self.parse(path) } else { Vec::new() };
        *read = Some(Read { looked: Instant::now(), changed, servers: servers.clone() });
        servers
    }

    fn parse(&self, path: &Path) -> Vec<SocketAddr> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let servers = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
            // A zone (`fe80::1%eth0`) names an interface of the machine; such servers are left out.
            address.parse::<IpAddr>().ok()
        });
        let others = servers.filter(|address| !self.own.contains(address));
        others.take(MOST).map(|address| SocketAddr::new(address, 53)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_when_it_changes_and_the_server_never_asks_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let list =
            UpstreamList::new(Upstreams::ResolvConf(path.clone()), vec!["10.43.0.10".parse().unwrap()]);
        assert!(list.current().is_empty());
        std::fs::write(&path, "search x\nnameserver 10.43.0.10\nnameserver 9.9.9.9 # x\nnameserver no\n")
            .unwrap();
        assert!(list.current().is_empty(), "not yet");
        tokio::time::advance(PERIOD).await;
        assert_eq!(list.current(), ["9.9.9.9:53".parse().unwrap()]);
    }
}
