//! What can go wrong while an API server starts or serves. Requests fail with a `Status` instead.

/// A failure of the server itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be read or written.
    #[error("cannot {operation}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: sampan_store::Error,
    },
    /// A setting makes no sense.
    #[error("{setting}: {reason}")]
    Config {
        /// Which.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// Default objects could not be written.
    #[error("cannot create the {subject}: {reason}")]
    Bootstrap {
        /// Which object.
        subject: String,
        /// The API's answer.
        reason: String,
    },
    /// Certificates, keys or tokens could not be made or read.
    #[error("cannot {operation}")]
    Identity {
        /// What was tried.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listener or a connection failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
