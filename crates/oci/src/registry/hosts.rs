//! Where the requests of a registry host go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::auth::Credentials;

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
    /// What stands before `/<repository>/manifests/…`: `/v2`, unless a mirror has it elsewhere.
    pub path: String,
    /// The registry host that a mirror is asked about (`?ns=docker.io`); `None` for the registry itself.
    pub namespace: Option<String>,
    /// Certificates are not checked.
    pub skip_verify: bool,
    /// The pull's credentials may be sent to it (they belong to the registry host, not to mirrors).
    pub credentials: bool,
    /// A credential of its own, as a session has it for a mirror.
    pub login: Option<Credentials>,
    /// Headers for requests to it, and to nobody else.
    pub headers: HeaderMap,
    /// Certificates of its own; shared, and compared by content.
    pub tls: Option<Arc<EndpointTls>>,
    /// Time to establish a connection, when it has its own.
    pub connect_timeout: Option<Duration>,
}

impl Endpoint {
    /// The registry itself at `origin`.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            path: "/v2".to_owned(),
            namespace: None,
            skip_verify: false,
            credentials: true,
            login: None,
            headers: HeaderMap::new(),
            tls: None,
            connect_timeout: None,
        }
    }
}

/// Certificates of one endpoint, as PEM text. Keys are never printed.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EndpointTls {
    /// Authorities, besides the system's.
    pub authorities: Vec<Vec<u8>>,
    /// What we show: certificate chain and private key (one PEM text may hold both).
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EndpointTls({} authorities, client: {})", self.authorities.len(), self.client.is_some())
    }
}

/// Why the endpoints of a host are not known.
#[derive(Debug, Clone, thiserror::Error)]
#[error("registry configuration {}: {reason}", path.display())]
pub struct HostsError {
    /// The file that is wrong.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Decides the endpoints of a registry host, in the order they are tried.
pub trait Hosts: Send + Sync {
    /// The endpoints for `host` (as in image names, `docker.io`, `h:5000`) that can do `capability`.
    ///
    /// # Errors
    /// When what an administrator wrote about the host cannot be understood.
    fn endpoints(&self, host: &str, capability: Capability) -> Result<Vec<Endpoint>, HostsError>;
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

    /// The host itself.
    pub(super) fn of(&self, host: &str) -> Vec<Endpoint> {
        let server = server_of(host);
        let endpoint = |scheme: &str, skip_verify| Endpoint {
            skip_verify,
            ..Endpoint::new(format!("{scheme}://{server}"))
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

impl Hosts for StaticHosts {
    fn endpoints(&self, host: &str, _: Capability) -> Result<Vec<Endpoint>, HostsError> {
        Ok(self.of(host))
    }
}

/// The server behind a name's host: Docker Hub's registry has another name than its images.
pub(super) fn server_of(host: &str) -> &str {
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_and_insecure_hosts_get_http() {
        let hosts = StaticHosts::new(BTreeSet::from(["reg.lan:5000".to_owned()]));
        let origins = |host: &str| -> Vec<String> {
            hosts.endpoints(host, Capability::Pull).unwrap().into_iter().map(|e| e.origin).collect()
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
