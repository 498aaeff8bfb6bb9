//! How registries are reached.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`Client`](super::Client).
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Hosts (`name[:port]`) that are spoken to over plain HTTP when they do not speak TLS, and whose
    /// certificates are not checked. Loopback hosts always count as such.
    pub insecure: BTreeSet<String>,
    /// Directories with a directory per registry host (`certs.d`), in order; missing ones are fine.
    pub certs_d: Vec<PathBuf>,
    /// PEM files with certificate authorities, besides the system's.
    pub extra_ca: Vec<PathBuf>,
    /// Which proxies are used. Loopback hosts never go through one.
    pub proxies: Proxies,
    /// Time to establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence within a response before the connection counts as stalled.
    pub stall_timeout: Duration,
    /// Longest time for a whole manifest, configuration or token, however slowly it drips.
    pub document_timeout: Duration,
    /// A blob that brings fewer bytes than this within [`ClientConfig::stall_timeout`] counts as stalled.
    pub slowest: u64,
    /// Tries of one request, and of one blob without any progress in between.
    pub attempts: u32,
    /// First pause between tries; doubles up to thirty times itself.
    pub retry_pause: Duration,
    /// How much longer a pause may get at random, as a share of it: many nodes shall not come back at once.
    pub jitter: f64,
    /// The longest `Retry-After` that is obeyed; a registry asking for more gets its error reported.
    pub max_retry_after: Duration,
    /// Requests to one server at the same time, so also connections.
    pub connections_per_host: usize,
    /// How long a mirror that could not be reached is asked last.
    pub shun: Duration,
    /// `User-Agent`.
    pub user_agent: String,
}

/// Where proxies are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proxies {
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` of the process.
    #[default]
    Environment,
    /// Given here.
    Fixed {
        /// Proxy for `http://` URLs.
        http: Option<String>,
        /// Proxy for `https://` URLs.
        https: Option<String>,
        /// Hosts that are reached directly, as in `NO_PROXY`.
        direct: String,
    },
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            insecure: BTreeSet::new(),
            certs_d: Vec::new(),
            extra_ca: Vec::new(),
            proxies: Proxies::Environment,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            document_timeout: Duration::from_secs(60),
            slowest: 32 << 10,
            attempts: 4,
            retry_pause: Duration::from_millis(250),
            jitter: 0.3,
            max_retry_after: Duration::from_secs(60),
            connections_per_host: 12,
            shun: Duration::from_secs(30),
            user_agent: concat!("sampan/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
