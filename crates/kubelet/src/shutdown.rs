//! A graceful end of the node: pods end by priority, the critical ones last, each group in its own time.

pub(crate) mod inhibitor;

use std::time::Duration;

/// Pods of at least this priority (and below the next step's) end together, within this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownStep {
    /// The lowest priority of the group.
    pub priority: i32,
    /// How long the group has; the pods' own grace periods are cut to it.
    pub grace_period: Duration,
}
