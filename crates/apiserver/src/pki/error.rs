//! What can go wrong with the files of the PKI.

use std::path::PathBuf;

/// A failure of [`super::Pki::ensure`]: the file, what is wrong, and how to get out.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system refused.
    #[error("{operation} {}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("{} is damaged: {problem}; restore it from a backup, or delete {delete} to have it made anew", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// Which files to remove to start over, and what that costs.
        delete: String,
    },
    /// No server has made its authority there.
    #[error("{} holds no certificate authority: name the --data-dir of a server that has run", .directory.display())]
    NoAuthority {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A certificate could not be made.
    #[error("issue the certificate of {subject}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// What was sent is no signing request.
    #[error("{0}")]
    Request(&'static str),
    /// PEM handed to TLS is unreadable.
    #[error("read the {what} from PEM")]
    Pem {
        /// Certificate or key.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
}
