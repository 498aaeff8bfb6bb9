//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;

use crate::Revision;

/// A store's failure: the operation and what it concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is older than the history that is kept.
    #[error("required revision {requested} has been compacted (oldest is {oldest})", requested = requested.0, oldest = oldest.0)]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("required revision {number} is a future revision", number = .0.0)]
    Future(Revision),
    /// A transaction wrote the same key twice.
    #[error("duplicate key {0:?} in one transaction")]
    DuplicateKey(String),
    /// The lease does not exist (any more).
    #[error("requested lease {0} not found")]
    LeaseNotFound(i64),
    /// Another process has the store's directory open.
    #[error("store directory {} is in use by process {pid}", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The process that holds it; 0 when it did not leave its number.
        pid: u32,
    },
    /// The store's file is not what was written. It is never repaired by starting anew: that loses the cluster.
    #[error(
        "store file {path} is damaged: {reason}; restore it from a backup, or move it away to start with an empty store",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system of the store has no room for the write; nothing was written, reads go on.
    #[error("no space left for the store in {}", directory.display())]
    Full {
        /// The directory.
        directory: PathBuf,
    },
    /// A file operation failed.
    #[error("{operation} {path}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The embedded database failed.
    #[error("{operation} in the embedded store")]
    Embedded {
        /// What was tried.
        operation: &'static str,
        /// Why it failed; shared, since all transactions of a commit fail together.
        #[source]
        source: std::sync::Arc<redb::Error>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The etcd endpoint cannot be reached or its TLS files cannot be used.
    #[error("connect to etcd at {endpoint}")]
    Connect {
        /// The endpoint as it was given.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<tonic::transport::Error>,
    },
    /// etcd refused a request.
    #[error("etcd: {operation}")]
    Etcd {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        #[source]
        source: Box<tonic::Status>,
    },
    /// etcd answered something that the protocol does not allow.
    #[error("etcd answered {operation} without {missing}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// What is missing.
        missing: &'static str,
    },
}
