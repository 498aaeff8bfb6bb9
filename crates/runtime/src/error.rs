//! What can go wrong when a runtime starts; single calls fail with a gRPC status.

use std::path::PathBuf;

/// A runtime that could not be started or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the runtime cannot be used.
    #[error("{operation} {}", path.display())]
    Directory {
        /// A verb.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The default handler is not one of the handlers.
    #[error("the default runtime handler {0:?} is not configured")]
    DefaultHandler(String),
    /// The gRPC or streaming server failed.
    #[error(transparent)]
    Cri(#[from] sampan_cri::Error),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Images(#[from] crate::images::ImageError),
}
