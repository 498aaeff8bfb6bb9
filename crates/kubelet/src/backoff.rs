//! Exponential back-off by key, for image pulls (IMG-36, IMG-37) and container restarts (POD-12): 10 s,
//! doubled at each failure, at most 300 s, forgotten after a quiet time.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;

/// The first wait, for pulls and restarts.
pub const INITIAL: Duration = Duration::from_secs(10);
/// The longest wait, for pulls and restarts.
pub const MAXIMUM: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Entry {
    wait: Duration,
    last_update: Timestamp,
    /// The rest of this wait is not waited for.
    excused: bool,
}

/// Back-off per key.
#[derive(Debug)]
pub struct Backoff {
    clock: Clock,
    initial: Duration,
    maximum: Duration,
    /// An entry older than this no longer counts.
    forget_after: Duration,
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// A back-off of 10 s to 300 s whose entries are forgotten after `forget_after`.
    #[must_use]
    pub fn new(clock: Clock, forget_after: Duration) -> Self {
        Self { clock, initial: INITIAL, maximum: MAXIMUM, forget_after, entries: HashMap::new() }
    }

    /// The longest wait, where it is configured (POD-15).
    #[must_use]
    pub fn with_maximum(mut self, maximum: Duration) -> Self {
        self.maximum = maximum;
        self.initial = self.initial.min(maximum);
        self
    }

    /// The wait that `key` is at.
    #[must_use]
    pub fn current(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.wait)
    }

    /// How much longer `key` must wait when its wait counts from `event` (a container's end), else `None`.
    #[must_use]
    pub fn remaining_since(&self, key: &str, event: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key).filter(|entry| !self.is_stale(entry, event))?;
        entry.wait.checked_sub(self.clock.since(event)).filter(|left| !left.is_zero())
    }

    /// How much longer `key` must wait when its wait counts from its last failure, else `None`.
    #[must_use]
    pub fn remaining_since_update(&self, key: &str) -> Option<Duration> {
        let counts = |entry: &&Entry| !entry.excused && !self.is_stale(entry, self.clock.now());
        let entry = self.entries.get(key).filter(counts)?;
        entry.wait.checked_sub(self.clock.since(entry.last_update)).filter(|left| !left.is_zero())
    }

    /// Counts one more failure of `key`, which happened at `event`.
    pub fn next(&mut self, key: &str, event: Timestamp) {
        let now = self.clock.now();
        let wait = match self.entries.get(key) {
            Some(entry) if !self.is_stale(entry, event) => (entry.wait * 2).min(self.maximum),
            _ => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { wait, last_update: now, excused: false });
    }

    /// Lets `key` try again now; its next failure still counts as one more in the row.
    pub fn excuse(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.excused = true;
        }
    }

    /// Drops everything that is forgotten by now.
    pub fn collect_garbage(&mut self) {
        let now = self.clock.now();
        let forget_after = self.forget_after;
        self.entries.retain(|_, entry| older_by(now, entry.last_update) <= forget_after);
    }

    /// Drops all keys that begin with `prefix` (a pod's UID).
    pub fn forget_prefix(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }

    fn is_stale(&self, entry: &Entry, event: Timestamp) -> bool {
        older_by(event, entry.last_update) > self.forget_after
    }
}

fn older_by(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn clock() -> Clock {
        Clock::following_tokio("2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn pod_12_13_restart_waits_double_from_10s_to_300s_after_the_end() {
        let clock = clock();
        let mut backoff = Backoff::new(clock.clone(), Duration::from_secs(600));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = clock.now();
            let mut waited = 0;
            while backoff.remaining_since("k", finished).is_some() {
                tokio::time::advance(Duration::from_secs(1)).await;
                waited += 1;
            }
            waits.push(waited);
            backoff.next("k", finished);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn pod_12_a_container_that_ran_over_ten_minutes_starts_afresh() {
        let clock = clock();
        let mut backoff = Backoff::new(clock.clone(), Duration::from_secs(600));
        for _ in 0..4 {
            backoff.next("k", clock.now());
        }
        assert_eq!(backoff.current("k"), Duration::from_secs(80));
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(backoff.remaining_since("k", clock.now()), None);
        backoff.next("k", clock.now());
        assert_eq!(backoff.current("k"), INITIAL);
    }

    #[tokio::test(start_paused = true)]
    async fn img_36_pull_waits_count_from_the_last_failure() {
        let clock = clock();
        let mut backoff = Backoff::new(clock.clone(), Duration::from_secs(600));
        assert_eq!(backoff.remaining_since_update("uid_image"), None);
        backoff.next("uid_image", clock.now());
        assert_eq!(backoff.remaining_since_update("uid_image"), Some(INITIAL));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(backoff.remaining_since_update("uid_image"), None);
        backoff.next("uid_image", clock.now());
        assert_eq!(backoff.remaining_since_update("uid_image"), Some(Duration::from_secs(20)));
        backoff.excuse("uid_image");
        assert_eq!(backoff.remaining_since_update("uid_image"), None);
        backoff.next("uid_image", clock.now());
        assert_eq!(backoff.remaining_since_update("uid_image"), Some(Duration::from_secs(40)));
        backoff.forget_prefix("uid_");
        assert_eq!(backoff.remaining_since_update("uid_image"), None);
    }
}
