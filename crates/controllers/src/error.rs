//! What can go wrong in the controllers as a whole; failures of single objects are retried with back-off.

/// A failure that ends the controllers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A controller's task ended or panicked.
    #[error("the {0} controller stopped unexpectedly")]
    Stopped(&'static str),
}
