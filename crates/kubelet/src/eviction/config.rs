//! When pods are evicted: upstream's settings and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use super::signal::{Amount, Signal};

/// A limit below which pods are evicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is looked at.
    pub signal: Signal,
    /// The least that must be available.
    pub least: Amount,
    /// How long it must have been below: zero for a hard threshold.
    pub grace_period: Duration,
    /// A soft threshold gives pods their (limited) grace period to end.
    pub soft: bool,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionConfig {
    /// Hard and soft thresholds.
    pub thresholds: Vec<Threshold>,
    /// How long a pressure condition stays after the pressure is gone.
    pub pressure_transition_period: Duration,
    /// The longest grace period of a soft eviction, in seconds; 0 for none at all, -1 for the pod's own.
    pub max_pod_grace_period: i64,
    /// How much more than the threshold is made free once it was crossed.
    pub minimum_reclaim: BTreeMap<Signal, Amount>,
}

/// Bytes of a disk that are enough, however large it is.
const ENOUGH: i64 = 1 << 30;

/// The hard thresholds: upstream's, but that 1Gi of a disk is enough: a machine that does other things as well is
/// often fuller than 10 or 15 % of a large disk, and a node that takes no pods at all helps nobody.
pub(crate) fn default_hard() -> BTreeMap<Signal, Amount> {
    BTreeMap::from([
        (Signal::MemoryAvailable, Amount::Exactly(100 << 20)),
        (Signal::NodeFsAvailable, Amount::PartUpTo(0.10, ENOUGH)),
        (Signal::NodeFsInodesFree, Amount::Part(0.05)),
        (Signal::ImageFsAvailable, Amount::PartUpTo(0.15, ENOUGH)),
        (Signal::ImageFsInodesFree, Amount::Part(0.05)),
    ])
}

impl Default for EvictionConfig {
    fn default() -> Self {
        Self {
            thresholds: hard(default_hard()),
            pressure_transition_period: Duration::from_secs(300),
            max_pod_grace_period: 0,
            minimum_reclaim: BTreeMap::new(),
        }
    }
}

/// Hard thresholds; those that are switched off are left out.
pub(crate) fn hard(amounts: BTreeMap<Signal, Amount>) -> Vec<Threshold> {
    amounts
        .into_iter()
        .filter(|(_, least)| !least.is_off())
        .map(|(signal, least)| Threshold { signal, least, grace_period: Duration::ZERO, soft: false })
        .collect()
}

impl EvictionConfig {
    /// No thresholds at all.
    #[must_use]
    pub fn none() -> Self {
        Self { thresholds: Vec::new(), ..Self::default() }
    }

    /// The hard threshold of `signal`.
    pub(crate) fn hard_threshold(&self, signal: Signal) -> Option<Amount> {
        self.thresholds.iter().find(|t| t.signal == signal && !t.soft).map(|threshold| threshold.least)
    }
}
