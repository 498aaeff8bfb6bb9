//! What can go wrong in the scheduler as a whole; failures of single pods become events and conditions.

/// A failure that ends the scheduler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch ended although it restarts itself.
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}
