//! The loop of every controller: keys come in, a function brings the world of each to where it should be.
//!
//! A key is never worked on twice at once; one that comes while it is worked on is done again afterwards. Failures are
//! tried again after 50 ms, doubling up to a minute.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::pin::pin;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::time::{Duration, Instant, sleep_until};

/// How many keys are worked on at once.
const WORKERS: usize = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What to do after a key was brought in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until something changes.
    Wait,
    /// Look again after this time.
    After(Duration),
}

/// Runs `reconcile` for every key of `keys`. Ends when the keys do and all work is done.
pub(crate) async fn run<K, Work>(
    controller: &'static str,
    keys: impl Stream<Item = K>,
    reconcile: impl Fn(K) -> Work,
) where
    K: Clone + Eq + Hash + std::fmt::Debug,
    Work: Future<Output = Result<Next, kube::Error>>,
{
    let mut keys = pin!(keys.fuse());
    let mut queue: Queue<K> = Queue::default();
    let mut work = FuturesUnordered::new();
    loop {
        while work.len() < WORKERS
            && let Some(key) = queue.take()
        {
            let result = reconcile(key.clone());
            work.push(async move { (key, result.await) });
        }
        let due = queue.next_due();
        tokio::select! {
            Some(key) = keys.next() => queue.add(key),
            Some((key, result)) = work.next() => {
                if let Err(error) = &result {
                    // A conflict only says that somebody else was quicker.
                    if crate::kinds::code(error) == 409 {
                        tracing::debug!(controller, ?key, %error, "trying again");
                    } else {
                        tracing::warn!(controller, ?key, %error, "failed; trying again");
                    }
                }
                queue.done(&key, result.ok());
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => queue.wake_due(),
            else => return,
        }
    }
}

/// The keys that wait, those that are worked on, and those that come later.
struct Queue<K> {
    ready: std::collections::VecDeque<K>,
    queued: HashSet<K>,
    /// In work; true when it came again meanwhile.
    active: HashMap<K, bool>,
    later: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: std::collections::VecDeque::new(),
            queued: HashSet::new(),
            active: HashMap::new(),
            later: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    fn add(&mut self, key: K) {
        self.later.remove(&key);
        if let Some(again) = self.active.get_mut(&key) {
            *again = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.active.insert(key.clone(), false);
        Some(key)
    }

    /// `next` is `None` after a failure.
    fn done(&mut self, key: &K, next: Option<Next>) {
        let again = self.active.remove(key).unwrap_or(false);
        let delay = match next {
            Some(next) => {
                self.failures.remove(key);
                match next {
                    Next::Wait => None,
                    Next::After(delay) => Some(delay),
                }
            }
            None => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                let delay = FIRST_BACKOFF.saturating_mul(1 << (*failures).min(16)).min(LONGEST_BACKOFF);
                *failures += 1;
                Some(delay)
            }
        };
        if let Some(delay) = delay.filter(|_| !again || next.is_none()) {
            self.later.insert(key.clone(), Instant::now() + delay);
        } else if again {
            self.add(key.clone());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.later.values().min().copied()
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        let due: Vec<K> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        due.into_iter().for_each(|key| self.add(key));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;

    use super::*;

    fn failure() -> kube::Error {
        kube::Error::LinesCodecMaxLineLengthExceeded
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_they_succeed() {
        let start = Instant::now();
        let tries = Mutex::new(Vec::new());
        run("test", stream::iter(["a"]), |_| {
            let mut tries = tries.lock().expect("no panic");
            tries.push(start.elapsed().as_millis());
            let succeed = tries.len() == 4;
            async move { if succeed { Ok(Next::Wait) } else { Err(failure()) } }
        })
        .await;
        let tries = tries.into_inner().expect("no panic");
        assert_eq!(tries, [0, 50, 150, 350]);
    }

    #[tokio::test(start_paused = true)]
    async fn key_in_work_is_done_again_once_and_never_twice_at_once() {
        let running = Mutex::new((0, 0));
        let keys = stream::iter(0..5).then(|number| async move {
            tokio::time::sleep(Duration::from_millis(10 * u64::from(number > 0))).await;
            "a"
        });
        run("test", keys, |_| {
            let running = &running;
            async move {
                let begun = {
                    let mut running = running.lock().expect("no panic");
                    running.0 += 1;
                    running.1 += 1;
                    running.0
                };
                assert_eq!(begun, 1);
                tokio::time::sleep(Duration::from_secs(1)).await;
                running.lock().expect("no panic").0 -= 1;
                Ok(Next::Wait)
            }
        })
        .await;
        assert_eq!(running.into_inner().expect("no panic").1, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn looks_again_after_the_time_it_was_told() {
        let start = Instant::now();
        let times = Mutex::new(Vec::new());
        run("test", stream::iter(["a"]), |_| {
            let mut times = times.lock().expect("no panic");
            times.push(start.elapsed().as_secs());
            let next = if times.len() < 3 { Next::After(Duration::from_secs(20)) } else { Next::Wait };
            async move { Ok(next) }
        })
        .await;
        assert_eq!(times.into_inner().expect("no panic"), [0, 20, 40]);
    }
}
