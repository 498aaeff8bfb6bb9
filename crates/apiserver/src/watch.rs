//! The caches: one per resource, all fed by one watch of the store.
//!
//! Each cache holds the newest bytes of its objects and a bounded ring of the last events. A watcher has no
//! queue of its own: it keeps its place in the ring and is woken when there is more, so a thousand watchers
//! cost a thousand numbers. One that falls off the ring is told 410 Expired and lists again, as upstream.

mod cache;
mod dispatcher;
mod object;
pub(crate) mod socket;
pub mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sampan_api::{Resource, scheme};
use sampan_store::Store;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use cache::{Cache, Follower, Snapshot, TooOld};
pub use object::{Event, EventKind, Object};

use crate::Error;
use crate::registry::key;

/// How long a reader waits for the caches to reach the store's revision before it reads the store itself.
const FRESH_WITHIN: Duration = Duration::from_secs(1);

/// All caches.
pub struct Caches {
    by_prefix: HashMap<String, Arc<Cache>>,
    progress: watch::Receiver<i64>,
    dispatcher: AbortHandle,
}

impl Caches {
    /// Reads everything below `/registry/` and follows it from then on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>) -> Result<Self, Error> {
        let mut by_prefix = HashMap::new();
        for resource in scheme::resources().iter().filter(|resource| resource.is_stored()) {
            let resource = resource.storage();
            by_prefix.entry(key::prefix(resource)).or_insert_with(|| Arc::new(Cache::new(resource)));
        }
        let (sender, progress) = watch::channel(0);
        let dispatcher = dispatcher::start(store, by_prefix.clone(), sender).await?;
        Ok(Self { by_prefix, progress, dispatcher })
    }

    /// The cache of a resource; `None` when objects of it are not stored.
    pub fn cache(&self, resource: &Resource) -> Option<&Arc<Cache>> {
        self.by_prefix.get(&key::prefix(resource.storage()))
    }

    /// Up to which revision all caches have seen everything.
    pub fn revision(&self) -> i64 {
        *self.progress.borrow()
    }

    /// Waits until all caches have seen `revision`; false when that takes too long.
    pub async fn wait_for(&self, revision: i64) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|now| *now >= revision);
        matches!(tokio::time::timeout(FRESH_WITHIN, reached).await, Ok(Ok(_)))
    }

    /// Tells the revision that the caches have reached, and its changes.
    pub fn progress(&self) -> watch::Receiver<i64> {
        self.progress.clone()
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}
