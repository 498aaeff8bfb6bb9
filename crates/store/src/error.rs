//! What can go wrong in a store.

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
    #[error("required revision {0} is a future revision", .0.0)]
    Future(Revision),
}
