//! The wall clock, injected: back-off, conditions and deadlines compare wall-clock times (a container's
//! `finishedAt` outlives the daemon), yet tests run them on tokio's paused clock in milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// Where "now" comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A fixed origin that advances with tokio's clock, paused or not.
    Tokio {
        /// The wall-clock time at `start`.
        origin: Timestamp,
        /// The tokio instant that `origin` belongs to.
        start: tokio::time::Instant,
        /// Seconds by which the clock was set since.
        jumped: Arc<AtomicI64>,
    },
}

impl Clock {
    /// A clock that begins at `origin` and follows tokio's (pausable) clock.
    #[must_use]
    pub fn following_tokio(origin: Timestamp) -> Self {
        Self::Tokio { origin, start: tokio::time::Instant::now(), jumped: Arc::default() }
    }

    /// Sets a tokio clock by this many seconds, as an administrator or a time server does with a machine's.
    pub fn jump(&self, seconds: i64) {
        if let Self::Tokio { jumped, .. } = self {
            jumped.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { origin, start, jumped } => {
                let jumped = jiff::SignedDuration::from_secs(jumped.load(Ordering::Relaxed));
                let now = origin.checked_add(start.elapsed()).and_then(|now| now.checked_add(jumped));
                now.unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The time now in whole seconds, as API objects hold it.
    #[must_use]
    pub fn now_seconds(&self) -> Timestamp {
        truncate_to_seconds(self.now())
    }

    /// How long ago `then` was; zero for the future.
    #[must_use]
    pub fn since(&self, then: Timestamp) -> Duration {
        Duration::try_from(self.now().duration_since(then)).unwrap_or_default()
    }
}

/// `at` without its fraction of a second.
#[must_use]
pub fn truncate_to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The time `nanos` nanoseconds after the epoch, as the CRI gives times; zero means "not yet".
#[must_use]
pub fn from_cri(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}
