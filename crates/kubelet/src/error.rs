//! What can go wrong in the kubelet as a whole; what goes wrong for one pod becomes an event and a waiting
//! reason instead.

use std::path::PathBuf;

/// A failure that stops the kubelet, or keeps it from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the kubelet could not be made.
    #[error("cannot create the directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error("kubelet configuration: {reason}")]
    Config {
        /// The field, and what is wrong with it.
        reason: String,
    },
    /// The container runtime did not answer.
    #[error("the container runtime does not answer `{call}`")]
    Runtime {
        /// The CRI call.
        call: &'static str,
        /// What it said.
        #[source]
        source: tonic::Status,
    },
    /// The HTTPS port could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address and port.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The serving certificate, its key or the client CA cannot be used.
    #[error("cannot use the kubelet's {what}")]
    Tls {
        /// Which of the PEM files.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
