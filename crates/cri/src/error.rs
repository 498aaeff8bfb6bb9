//! What can go wrong with a CRI connection, on either side.

use std::path::PathBuf;

/// An operation of this crate that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is neither `unix:///path` nor an absolute path.
    #[error("CRI endpoint {endpoint:?} is not of the form unix:///path")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Nothing answers on the socket.
    #[error("connecting to the container runtime at {endpoint}")]
    Connect {
        /// The endpoint as it was given.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server's socket could not be made.
    #[error("listening on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process answers on the socket.
    #[error("{} is served by another process", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The server stopped with an error.
    #[error("serving CRI on {}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The streaming server's listener could not be made.
    #[error("listening for exec, attach and port-forward on {address}")]
    Streaming {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
