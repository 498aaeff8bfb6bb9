//! redb's errors as ours; which of its error types it was tells what was tried.

use std::sync::Arc;

use crate::Error;

/// An error of redb, with what was tried when it happened.
fn embedded(operation: &'static str, source: redb::Error) -> Error {
    Error::Embedded { operation, source: Arc::new(source) }
}

/// A record that cannot be read although redb's checksums hold.
pub(super) fn unreadable(record: &str) -> Error {
    embedded("read a record", redb::Error::Corrupted(format!("unreadable {record}")))
}

impl From<redb::StorageError> for Error {
    fn from(source: redb::StorageError) -> Self {
        embedded("access a table", source.into())
    }
}

impl From<redb::TableError> for Error {
    fn from(source: redb::TableError) -> Self {
        embedded("open a table", source.into())
    }
}

impl From<redb::TransactionError> for Error {
    fn from(source: redb::TransactionError) -> Self {
        embedded("begin a transaction", source.into())
    }
}

impl From<redb::CommitError> for Error {
    fn from(source: redb::CommitError) -> Self {
        embedded("commit", source.into())
    }
}

impl Error {
    /// Whether redb refused only because a write before had failed; opening the file again cures it.
    pub(super) fn is_useless_handle(&self) -> bool {
        matches!(self, Self::Embedded { source, .. } if matches!(**source, redb::Error::PreviousIo))
    }

    /// The same failure for the next transaction of the commit that failed.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Embedded { operation, source } => Self::Embedded { operation, source: source.clone() },
            Self::Full { directory } => Self::Full { directory: directory.clone() },
            _ => Self::Closed,
        }
    }
}
