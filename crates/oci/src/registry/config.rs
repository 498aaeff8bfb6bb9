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
    /// PEM files with certificate authorities, besides the system's.
    pub extra_ca: Vec<PathBuf>,
    /// Time to establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence within a response before the connection counts as stalled.
    pub stall_timeout: Duration,
    /// Tries of one request, and of one blob without any progress in between.
    pub attempts: u32,
    /// First pause between tries; doubles up to thirty times itself.
    pub retry_pause: Duration,
    /// The longest `Retry-After` that is obeyed; a registry asking for more gets its error reported.
    pub max_retry_after: Duration,
    /// `User-Agent`.
    pub user_agent: String,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            insecure: BTreeSet::new(),
            extra_ca: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            attempts: 4,
            retry_pause: Duration::from_millis(250),
            max_retry_after: Duration::from_secs(60),
            user_agent: concat!("sampan/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
