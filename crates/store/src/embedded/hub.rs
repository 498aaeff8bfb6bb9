//! The fan-out of committed changes to the watches that are live.
//!
//! The writer never waits for a watch: each has a bounded queue, and one that is full loses its place here and
//! goes on from the log (see [`super::watch`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::{KeyRange, Revision, WatchBatch};

/// How many batches wait for a watch before it is sent back to the log.
const QUEUE: usize = 256;
/// How old the last batch of a watch may become while others change before it gets a progress mark.
const PROGRESS: Duration = Duration::from_secs(5);

/// All live watches.
#[derive(Debug)]
pub(super) struct Hub(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// The newest revision that the watches were told of.
    revision: i64,
    watchers: Vec<Watcher>,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    queue: mpsc::Sender<WatchBatch>,
    last: Instant,
}

/// What becomes of a watch that wants to be live.
pub(super) enum Subscription {
    /// It is live: everything after the hub's revision comes through the queue.
    Live(mpsc::Receiver<WatchBatch>),
    /// It has to read on in the log first.
    Behind,
    /// The store was closed.
    Closed,
}

impl Hub {
    pub(super) fn new(revision: i64) -> Self {
        Self(Mutex::new(Inner { revision, watchers: Vec::new(), closed: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest revision that is durable and published.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.lock().revision)
    }

    /// Makes a watch live that has seen everything before `next`.
    pub(super) fn subscribe(&self, range: &KeyRange, next: i64) -> Subscription {
        let mut inner = self.lock();
        if inner.closed {
            return Subscription::Closed;
        }
        if next <= inner.revision {
            return Subscription::Behind;
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        inner.watchers.push(Watcher { range: range.clone(), queue, last: Instant::now() });
        Subscription::Live(receiver)
    }

    /// Hands committed changes to the watches; they were made durable before.
    pub(super) fn publish(&self, batches: &[WatchBatch]) {
        let Some(newest) = batches.last() else { return };
        let now = Instant::now();
        let mut inner = self.lock();
        inner.revision = newest.revision.0;
        inner.watchers.retain_mut(|watcher| watcher.offer(batches, now));
    }

    /// Sends all watches back to the log, whose newest revision is `revision`.
    pub(super) fn rewind(&self, revision: i64) {
        let mut inner = self.lock();
        inner.revision = revision;
        inner.watchers.clear();
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.watchers.clear();
    }
}

impl Watcher {
    /// Queues what concerns this watch; false when it is gone or too slow.
    fn offer(&mut self, batches: &[WatchBatch], now: Instant) -> bool {
        for batch in batches {
            let wanted = batch.events.iter().filter(|event| self.range.contains(&event.kv.key)).count();
            let batch = if wanted == batch.events.len() {
                batch.clone()
            } else if wanted > 0 {
                let events = batch.events.iter().filter(|event| self.range.contains(&event.kv.key));
                WatchBatch { revision: batch.revision, events: events.cloned().collect() }
            } else if now.duration_since(self.last) > PROGRESS {
                WatchBatch { revision: batch.revision, events: [].into() }
            } else {
                continue;
            };
            self.last = now;
            if self.queue.try_send(batch).is_err() {
                return false;
            }
        }
        !self.queue.is_closed()
    }
}
