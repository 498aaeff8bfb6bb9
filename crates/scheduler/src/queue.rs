//! The pods that wait for a node, in three places.
//!
//! *Ready* ones are tried at once, by priority and then age. *Parked* ones fit nowhere; they come back when something
//! in the cluster changes, at the latest after five minutes. Those whose binding *failed* come back after 1 s, 2 s, 4 s
//! and so on up to 10 s, since nothing tells when the API works again.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use tokio::time::{Duration, Instant};

use crate::pod::PodKey;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_PARKED: Duration = Duration::from_secs(300);

/// By priority, highest first, then by arrival.
type Order = (Reverse<i64>, u64);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: BTreeSet<(Order, PodKey)>,
    waiting: HashMap<PodKey, Waiting>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    order: Order,
    place: Place,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    /// Left [`Queue::ready`] and is being decided or bound.
    Tried,
    Parked {
        until: Instant,
    },
    Failed {
        until: Instant,
    },
}

impl Queue {
    /// A pod that is new or has changed is worth trying.
    pub(crate) fn offer(&mut self, key: PodKey, priority: i64) {
        self.arrivals += 1;
        let arrival = self.arrivals;
        let waiting = self.waiting.entry(key.clone()).or_insert(Waiting {
            order: (Reverse(priority), arrival),
            place: Place::Parked { until: Instant::now() },
            failures: 0,
        });
        if let Place::Parked { .. } = waiting.place {
            waiting.place = Place::Ready;
            self.ready.insert((waiting.order, key));
        }
    }

    /// A pod that is gone, bound or not ours.
    pub(crate) fn remove(&mut self, key: &PodKey) {
        if let Some(waiting) = self.waiting.remove(key) {
            self.ready.remove(&(waiting.order, key.clone()));
        }
    }

    /// The next pod to try. It has to be parked, failed or removed then.
    pub(crate) fn take(&mut self) -> Option<PodKey> {
        let (_, key) = self.ready.pop_first()?;
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.place = Place::Tried;
        }
        Some(key)
    }

    /// A pod that fits nowhere now.
    pub(crate) fn park(&mut self, key: &PodKey) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.place = Place::Parked { until: Instant::now() + LONGEST_PARKED };
        }
    }

    /// A pod whose binding failed.
    pub(crate) fn fail(&mut self, key: &PodKey) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << waiting.failures.min(8)).min(LONGEST_BACKOFF);
            waiting.failures += 1;
            waiting.place = Place::Failed { until: Instant::now() + backoff };
        }
    }

    /// Something changed: whatever fitted nowhere is tried again.
    pub(crate) fn wake(&mut self) {
        self.ready_where(|place| matches!(place, Place::Parked { .. }));
    }

    /// What has waited long enough is tried again.
    pub(crate) fn wake_due(&mut self) {
        let now = Instant::now();
        self.ready_where(|place| match place {
            Place::Parked { until } | Place::Failed { until } => until <= now,
            Place::Ready | Place::Tried => false,
        });
    }

    /// When [`Queue::wake_due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.waiting.values().filter_map(|waiting| match waiting.place {
            Place::Parked { until } | Place::Failed { until } => Some(until),
            Place::Ready | Place::Tried => None,
        });
        due.min()
    }

    fn ready_where(&mut self, wanted: impl Fn(Place) -> bool) {
        for (key, waiting) in &mut self.waiting {
            if wanted(waiting.place) {
                waiting.place = Place::Ready;
                self.ready.insert((waiting.order, key.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PodKey {
        PodKey { namespace: "default".into(), name: name.into() }
    }

    fn take_all(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take()).map(|key| key.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_before_age() {
        let mut queue = Queue::default();
        for (name, priority) in [("first", 0), ("second", 0), ("urgent", 1000)] {
            queue.offer(key(name), priority);
            queue.offer(key(name), priority);
        }
        queue.remove(&key("second"));
        assert_eq!(take_all(&mut queue), ["urgent", "first"]);
    }

    #[tokio::test(start_paused = true)]
    async fn parked_pods_wait_for_a_change_or_five_minutes() {
        let mut queue = Queue::default();
        queue.offer(key("a"), 0);
        queue.take();
        queue.park(&key("a"));
        assert_eq!(queue.take(), None);
        queue.wake();
        assert_eq!(queue.take(), Some(key("a")));
        queue.park(&key("a"));
        tokio::time::advance(Duration::from_secs(299)).await;
        queue.wake_due();
        assert_eq!(queue.take(), None);
        tokio::time::sleep_until(queue.next_due().unwrap_or_else(Instant::now)).await;
        queue.wake_due();
        assert_eq!(queue.take(), Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_from_one_to_ten_seconds() {
        let mut queue = Queue::default();
        queue.offer(key("a"), 0);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(queue.take(), Some(key("a")));
            queue.fail(&key("a"));
            queue.wake();
            queue.offer(key("a"), 0);
            assert_eq!(queue.take(), None, "a change does not mend the API");
            assert_eq!(queue.next_due(), Some(Instant::now() + Duration::from_secs(seconds)));
            tokio::time::advance(Duration::from_secs(seconds)).await;
            queue.wake_due();
        }
    }
}
