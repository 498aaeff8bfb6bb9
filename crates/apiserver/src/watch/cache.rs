//! The cache of one resource: its objects, and the ring of its last events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_api::Resource;
use tokio::sync::watch;

use super::object::{Event, EventKind, Object};
use crate::registry::codec;

/// How many events the ring keeps at most.
const RING_EVENTS: usize = 2048;
/// From how many events on the ring is also bounded by its bytes.
const RING_EVENTS_ALWAYS: usize = 128;
/// The bound in bytes.
const RING_BYTES: usize = 2 << 20;

/// The newest state of all objects of a resource, and how it came about.
pub struct Cache {
    /// The (storage) resource.
    pub resource: &'static Resource,
    head: String,
    state: Mutex<State>,
    /// The number of the next event; changes wake the followers.
    next: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Arc<Object>>,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// The number of the next event. The ring holds those right before it.
    next: u64,
    /// Everything that happened after this revision is in the ring.
    floor: i64,
    /// The revision of the last event.
    revision: i64,
}

/// All objects at one moment.
pub struct Snapshot {
    /// The objects, by namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// At which revision.
    pub revision: i64,
    /// Follows what happens afterwards.
    pub follower: Follower,
}

/// What lies before the ring: the follower must begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision from which a watch can begin.
    pub oldest: i64,
}

/// A place in a cache's ring.
pub struct Follower {
    cache: Arc<Cache>,
    next: u64,
    changed: watch::Receiver<u64>,
}

impl Cache {
    pub(super) fn new(resource: &'static Resource) -> Self {
        Self { resource, head: codec::head(resource), state: Mutex::default(), next: watch::channel(0).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object as the cache knows it. A write that was just answered may take a moment to get here.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state().objects.get(&crate::registry::key::suffix(namespace, name)).cloned()
    }

    /// Changes whenever an object changes: lets what is computed from a snapshot know that it is stale.
    pub fn sequence(&self) -> u64 {
        self.state().next
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All objects (of a namespace, unless it is empty) and a follower of what comes after. `reached` is the revision
    /// that all caches are known to have reached.
    pub fn snapshot(self: &Arc<Self>, namespace: &str, reached: i64) -> Snapshot {
        let changed = self.next.subscribe();
        let state = self.state();
        let objects = if namespace.is_empty() {
            state.objects.values().cloned().collect()
        } else {
            // '0' is the character after '/'.
            let range = format!("{namespace}/")..format!("{namespace}0");
            state.objects.range(range).map(|(_, object)| object.clone()).collect()
        };
        let follower = Follower { cache: self.clone(), next: state.next, changed };
        Snapshot { objects, revision: state.revision.max(reached), follower }
    }

    /// A follower of everything after a revision.
    ///
    /// # Errors
    /// When the ring does not reach back so far.
    pub fn follow(self: &Arc<Self>, after: i64) -> Result<Follower, TooOld> {
        let changed = self.next.subscribe();
        let state = self.state();
        if after < state.floor {
            return Err(TooOld { oldest: state.floor });
        }
        let first = state.next - state.ring.len() as u64;
        let seen = state.ring.partition_point(|event| event.object.revision <= after);
        Ok(Follower { cache: self.clone(), next: first + seen as u64, changed })
    }

    /// Takes in changes that happened at one or more revisions, in order. `None` is a deletion.
    pub(super) fn apply(&self, changes: impl IntoIterator<Item = (String, i64, Option<bytes::Bytes>)>) {
        let mut state = self.state();
        for (suffix, revision, value) in changes {
            let event = match value {
                Some(value) => {
                    let bytes = codec::versioned(&self.head, &value, revision);
                    let object = Arc::new(Object::new(suffix.clone(), revision, bytes));
                    let previous = state.objects.insert(suffix, object.clone());
                    let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                    Event::new(kind, object, previous)
                }
                None => {
                    let Some(previous) = state.objects.remove(&suffix) else { continue };
                    let bytes = codec::reversioned(&self.head, &previous.bytes, revision);
                    let object = Arc::new(Object::new(suffix, revision, bytes));
                    Event::new(EventKind::Deleted, object, Some(previous))
                }
            };
            state.revision = revision;
            state.push(event);
        }
        let next = state.next;
        drop(state);
        self.next.send_replace(next);
    }

    /// Begins anew with these objects at a revision: the ring is emptied, so that all followers begin anew too.
    pub(super) fn reset(
        &self,
        objects: impl IntoIterator<Item = (String, i64, bytes::Bytes)>,
        revision: i64,
    ) {
        let mut state = self.state();
        state.objects = objects
            .into_iter()
            .map(|(suffix, at, value)| {
                let bytes = codec::versioned(&self.head, &value, at);
                (suffix.clone(), Arc::new(Object::new(suffix, at, bytes)))
            })
            .collect();
        state.ring.clear();
        state.ring_bytes = 0;
        state.floor = revision;
        state.revision = revision;
        // A gap in the numbers is what tells followers that they missed something.
        state.next += 1;
        let next = state.next;
        drop(state);
        self.next.send_replace(next);
    }
}

impl State {
    fn push(&mut self, event: Event) {
        self.ring_bytes += event.object.bytes.len();
        self.ring.push_back(Arc::new(event));
        self.next += 1;
        while self.ring.len() > RING_EVENTS
            || (self.ring.len() > RING_EVENTS_ALWAYS && self.ring_bytes > RING_BYTES)
        {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.object.bytes.len();
            self.floor = oldest.object.revision;
        }
    }
}

impl Follower {
    /// The next events, at most `limit`; none when there is nothing new. The revision is one up to which they are all.
    ///
    /// # Errors
    /// When events were missed.
    pub fn take(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, TooOld> {
        self.changed.borrow_and_update();
        let state = self.cache.state();
        let first = state.next - state.ring.len() as u64;
        if self.next < first {
            return Err(TooOld { oldest: state.floor });
        }
        let skip = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        let events: Vec<_> = state.ring.iter().skip(skip).take(limit).cloned().collect();
        self.next += events.len() as u64;
        Ok(events)
    }

    /// Waits until there may be more. False when the server is going away.
    pub async fn changed(&mut self) -> bool {
        if *self.changed.borrow() > self.next {
            return true;
        }
        self.changed.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests;
