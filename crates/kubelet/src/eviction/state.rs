//! Which thresholds are crossed, since when, and which conditions follow: what must be remembered between two
//! looks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{EvictionConfig, Observation, Pressure, Signal, Threshold};

/// The memory of eviction.
#[derive(Default)]
pub(super) struct PressureState {
    /// Since when a threshold is crossed, by its place in the configuration.
    since: BTreeMap<usize, Instant>,
    /// When a pressure was last there.
    seen: BTreeMap<Pressure, Instant>,
}

/// What a look comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdicts {
    /// The conditions that are true now.
    pub(super) pressure: Vec<Pressure>,
    /// The worst threshold that calls for an eviction, and what was seen.
    pub(super) evict: Option<(Threshold, Observation)>,
}

impl PressureState {
    /// Takes a look in.
    pub(super) fn update(
        &mut self,
        config: &EvictionConfig,
        observed: &BTreeMap<Signal, Observation>,
        now: Instant,
    ) -> Verdicts {
        let mut due = Vec::new();
        for (index, threshold) in config.thresholds.iter().enumerate() {
            let Some(seen) = observed.get(&threshold.signal) else { continue };
            let mut least = threshold.least.of(seen.capacity);
            // Once crossed, it takes more than the threshold to be content again.
            if self.since.contains_key(&index)
                && let Some(reclaim) = config.minimum_reclaim.get(&threshold.signal)
            {
                least += reclaim.of(seen.capacity);
            }
            if seen.available >= least {
                self.since.remove(&index);
                continue;
            }
            let since = *self.since.entry(index).or_insert(now);
            self.seen.insert(threshold.signal.pressure(), now);
            if now.duration_since(since) >= threshold.grace_period {
                due.push((*threshold, *seen));
            }
        }
        let period = config.pressure_transition_period;
        self.seen.retain(|pressure, at| {
            let crossed = self.since.keys().any(|index| {
                config
                    .thresholds
                    .get(*index)
                    .is_some_and(|threshold| threshold.signal.pressure() == *pressure)
            });
            crossed || now.duration_since(*at) < period
        });
        // Memory before everything: it is lost soonest. A hard threshold before a soft one.
        due.sort_by_key(|(threshold, _)| (threshold.signal.pressure(), threshold.soft, threshold.signal));
        Verdicts { pressure: self.seen.keys().copied().collect(), evict: due.into_iter().next() }
    }

    /// Whether anything is or was short: then the node is looked at more often.
    pub(super) fn is_tense(&self) -> bool {
        !self.seen.is_empty()
    }
}

/// How often the node is looked at when all is well, and when it is not.
pub(super) const CALM: Duration = Duration::from_secs(10);
pub(super) const TENSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::Amount;

    fn threshold(least: i64, grace: u64) -> Threshold {
        Threshold {
            signal: Signal::MemoryAvailable,
            least: Amount::Exactly(least),
            grace_period: Duration::from_secs(grace),
            soft: grace > 0,
        }
    }

    fn seen(available: i64) -> BTreeMap<Signal, Observation> {
        BTreeMap::from([(Signal::MemoryAvailable, Observation { available, capacity: 1_000 })])
    }

    #[tokio::test(start_paused = true)]
    async fn pod_56_soft_thresholds_wait_and_conditions_stay_a_while() {
        let config = EvictionConfig {
            thresholds: vec![threshold(100, 0), threshold(300, 60)],
            minimum_reclaim: BTreeMap::from([(Signal::MemoryAvailable, Amount::Exactly(50))]),
            ..EvictionConfig::default()
        };
        let mut state = PressureState::default();
        let at = Instant::now();
        let mut look = |after: u64, available: i64| {
            let verdicts = state.update(&config, &seen(available), at + Duration::from_secs(after));
            (verdicts.pressure.len(), verdicts.evict.map(|(threshold, _)| threshold.soft))
        };
        assert_eq!(look(0, 500), (0, None));
        assert_eq!(look(10, 200), (1, None), "below the soft one: pressure at once, eviction later");
        assert_eq!(look(69, 200), (1, None));
        assert_eq!(look(70, 200), (1, Some(true)));
        assert_eq!(look(80, 90), (1, Some(false)), "the hard one does not wait");
        assert_eq!(look(90, 120), (1, Some(false)), "not content before 150");
        assert_eq!(look(100, 160), (1, Some(true)));
        assert_eq!(look(110, 400), (1, None), "the condition stays for the transition period");
        assert_eq!(look(399, 400), (1, None));
        assert_eq!(look(401, 400), (0, None));
    }
}
