//! When leases run out. Deadlines are wall-clock times, so that a restart does not prolong them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest sleep: after it the clock is looked at again, it may have been set.
const LONGEST: Duration = Duration::from_secs(60);

/// The deadlines of all leases.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(i64, i64)>);

impl Deadlines {
    pub(super) fn insert(&mut self, lease: i64, deadline_millis: i64) {
        self.0.insert((deadline_millis, lease));
    }

    /// Takes the leases that have run out at `now_millis`.
    pub(super) fn take_expired(&mut self, now_millis: i64) -> Vec<i64> {
        let mut expired = Vec::new();
        while let Some((deadline, lease)) = self.0.first().copied()
            && deadline <= now_millis
        {
            self.0.pop_first();
            expired.push(lease);
        }
        expired
    }

    /// How long the writer may sleep; `None` when there is nothing to wait for.
    pub(super) fn sleep(&self, now_millis: i64) -> Option<Duration> {
        let (deadline, _) = self.0.first()?;
        let millis = u64::try_from(deadline - now_millis).unwrap_or(0);
        Some(Duration::from_millis(millis).min(LONGEST))
    }
}

/// Milliseconds since 1970.
pub(super) fn now_millis() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_expire_in_the_order_of_their_deadlines() {
        let mut deadlines = Deadlines::default();
        deadlines.insert(1, 3_000);
        deadlines.insert(2, 1_000);
        deadlines.insert(3, 2_000);
        assert_eq!(deadlines.sleep(500), Some(Duration::from_millis(500)));
        assert_eq!(deadlines.take_expired(2_000), [2, 3]);
        assert_eq!(deadlines.sleep(9_000), Some(Duration::ZERO));
        assert_eq!(deadlines.take_expired(9_000), [1]);
        assert_eq!(deadlines.sleep(9_000), None);
    }
}
