//! Where the requests of a registry host go.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// What an endpoint is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Say which digest a tag means.
    Resolve,
    /// Give manifests and blobs.
    Pull,
}

/// One place that answers for a registry host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host[:port]`, without a path and slash at the end.
    pub origin: String,
    /// Certificates are not checked.
    pub skip_verify: bool,
    /// The pull's credentials may be sent to it (they belong to the registry host, not to mirrors).
    pub credentials: bool,
}

/// Decides the endpoints of a registry host, in the order they are tried.
pub trait Hosts: Send + Sync {
    /// The endpoints for `host` (as in image names, `docker.io`, `h:5000`) that can do `capability`.
    fn endpoints(&self, host: &str, capability: Capability) -> Vec<Endpoint>;
}

/// Every host answers for itself: over HTTPS, or HTTP when it is a loopback address or configured as
/// insecure.
#[derive(Debug, Clone, Default)]
pub struct StaticHosts {
    insecure: BTreeSet<String>,
}

impl StaticHosts {
    /// With these hosts insecure.
    pub fn new(insecure: BTreeSet<String>) -> Self {
        Self { insecure }
    }

    fn is_insecure(&self, host: &str) -> bool {
        self.insecure.contains(host) || is_loopback(host)
    }
}

impl Hosts for StaticHosts {
    fn endpoints(&self, host: &str, _: Capability) -> Vec<Endpoint> {
        let server = server_of(host);
        let endpoint = |scheme: &str, skip_verify| Endpoint {
            origin: format!("{scheme}://{server}"),
            skip_verify,
            credentials: true,
        };
        if !self.is_insecure(host) {
            return vec![endpoint("https", false)];
        }
        // As other runtimes do: TLS when the server speaks it, else plain HTTP.
        match port_of(server) {
            Some(443) => vec![endpoint("https", true)],
            _ => vec![endpoint("http", true), endpoint("https", true)],
        }
    }
}

/// The server behind a name's host: Docker Hub's registry has another name than its images.
fn server_of(host: &str) -> &str {
    if host == crate::reference::DEFAULT_HOST { "registry-1.docker.io" } else { host }
}

fn port_of(server: &str) -> Option<u16> {
    let (_, port) = server.rsplit_once(':')?;
    port.parse().ok()
}

/// `localhost`, `127.0.0.0/8` and `[::1]`, with or without port.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_insecure_hosts_get_http() {
        let hosts = StaticHosts::new(BTreeSet::from(["reg.lan:5000".to_owned()]));
        let origins = |host: &str| -> Vec<String> {
            hosts.endpoints(host, Capability::Pull).into_iter().map(|e| e.origin).collect()
        };
        assert_eq!(origins("docker.io"), ["https://registry-1.docker.io"]);
        assert_eq!(origins("quay.io"), ["https://quay.io"]);
        assert_eq!(origins("127.0.0.1:5000"), ["http://127.0.0.1:5000", "https://127.0.0.1:5000"]);
        assert_eq!(origins("[::1]:5000")[0], "http://[::1]:5000");
        assert_eq!(origins("reg.lan:5000")[0], "http://reg.lan:5000");
        assert_eq!(origins("reg.lan:5001"), ["https://reg.lan:5001"]);
        assert!(!is_loopback("localhost.example.com"));
    }
}
