//! Lets Events go after an hour. Events that come within a minute share one lease of the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_api::{Resource, Status};
use sampan_store::Store;
use tokio::sync::Mutex;

use super::store_failure;

/// How long an Event is kept (upstream's `--event-ttl`).
const TTL: Duration = Duration::from_secs(3600);
/// How long a lease is given to new Events.
const SHARED_FOR: Duration = Duration::from_secs(60);

pub(super) struct EventLeases {
    store: Arc<dyn Store>,
    current: Mutex<Option<(i64, Instant)>>,
}

impl EventLeases {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, current: Mutex::default() }
    }

    /// The lease for an object of a resource: 0, none, for everything but Events.
    pub(super) async fn of(&self, resource: &Resource) -> Result<i64, Status> {
        if !(resource.group.is_empty() && resource.plural == "events") {
            return Ok(0);
        }
        let mut current = self.current.lock().await;
        if let Some((lease, since)) = *current
            && since.elapsed() < SHARED_FOR
        {
            return Ok(lease);
        }
        let seconds = (TTL + SHARED_FOR).as_secs() as i64;
        let lease = self.store.grant_lease(seconds).await.map_err(|error| store_failure(&error))?;
        *current = Some((lease, Instant::now()));
        Ok(lease)
    }
}
