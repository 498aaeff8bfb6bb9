//! Host names to addresses without the C library: a static glibc has no name service switch.
//!
//! `localhost` and addresses need nobody; then `/etc/hosts`; then DNS as `/etc/resolv.conf` says. Both files
//! are read again when they change, because machines move between networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot resolve host {name:?}: {reason}")]
pub struct ResolveError {
    /// The host name.
    pub name: String,
    /// The resolver's message.
    pub reason: String,
    /// There is no such name; else nobody answered who could know.
    pub no_such_host: bool,
}

/// Resolves host names by files and DNS; cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    hosts: PathBuf,
    conf: PathBuf,
    /// The DNS client, and when the resolv.conf that it was made from was written.
    dns: Arc<Mutex<Option<Client>>>,
}

type Client = (Option<SystemTime>, Arc<TokioResolver>);

impl Resolver {
    /// Uses `/etc/hosts` and `/etc/resolv.conf`.
    pub fn from_system() -> Self {
        Self { hosts: "/etc/hosts".into(), conf: "/etc/resolv.conf".into(), dns: Arc::default() }
    }

    /// The addresses of a name, best first.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let name = name.trim_matches(['[', ']']);
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let plain = name.trim_end_matches('.').to_ascii_lowercase();
        if plain == "localhost" || plain.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let listed = in_hosts_file(&self.hosts, &plain);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let fail =
            |reason: String, no_such_host| ResolveError { name: name.to_owned(), reason, no_such_host };
        let dns = self.dns().map_err(|reason| fail(reason, false))?;
        let answer = dns.lookup_ip(name).await.map_err(|e| fail(e.to_string(), e.is_no_records_found()))?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err(fail("no such host".to_owned(), true)) } else { Ok(addresses) }
    }

    /// The DNS client for the present resolv.conf.
    fn dns(&self) -> Result<Arc<TokioResolver>, String> {
        let changed = std::fs::metadata(&self.conf).and_then(|m| m.modified()).ok();
        let mut slot = self.dns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((when, dns)) = slot.as_ref()
            && *when == changed
        {
            return Ok(dns.clone());
        }
        let mut builder =
            TokioResolver::builder_tokio().map_err(|e| format!("{}: {e}", self.conf.display()))?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 64;
        let dns = Arc::new(builder.build().map_err(|e| e.to_string())?);
        *slot = Some((changed, dns.clone()));
        Ok(dns)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let addresses = this.lookup(name.as_str()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

/// The addresses of `name` (lower case) in a hosts file; none when it is not there or unreadable.
fn in_hosts_file(path: &Path, name: &str) -> Vec<IpAddr> {
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn names_that_need_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::write(&hosts, "# a comment\n10.1.2.3 reg.lan Reg\n::2 reg.lan # v6\nbroken reg.lan\n")
            .unwrap();
        let r = Resolver { hosts, conf: dir.path().join("none"), dns: Arc::default() };
        assert_eq!(r.lookup("127.0.0.1").await.unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(r.lookup("[::1]").await.unwrap(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert_eq!(r.lookup("localhost").await.unwrap().len(), 2);
        assert_eq!(r.lookup("REG.lan.").await.unwrap().len(), 2);
        assert_eq!(r.lookup("reg").await.unwrap(), [IpAddr::from([10, 1, 2, 3])]);
    }
}
