//! What can go wrong with a DNS server.

use std::{io, net::SocketAddr};

/// A failure of the server as a whole; a failed query is an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("listening for DNS on {address}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The domain is no domain name.
    #[error("`{0}` is not a domain name")]
    Domain(String),
}
