//! What pulls and containers that are being made need, so that a collection at the same time leaves it alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sampan_oci::Digest;
use tokio::sync::Mutex;

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: HashMap<u64, HashSet<Digest>>,
}

/// All leases. The lock is also what a collection holds while it decides and removes.
#[derive(Debug, Default, Clone)]
pub(super) struct Leases(Arc<Mutex<State>>);

/// One pull's or container's; ends with it.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    id: std::sync::OnceLock<u64>,
}

impl Leases {
    pub(super) fn open(&self) -> Lease {
        Lease { leases: self.clone(), id: std::sync::OnceLock::new() }
    }

    /// Runs a collection with everything that is held; no pull can take anything meanwhile. Blocks.
    pub(super) fn collect<T>(&self, collect: impl FnOnce(HashSet<Digest>) -> T) -> T {
        let state = self.0.blocking_lock();
        collect(state.held.values().flatten().cloned().collect())
    }
}

impl Lease {
    /// Holds these too. Call it before looking whether they are there.
    pub(super) async fn hold(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut state = self.leases.0.lock().await;
        let id = *self.id.get_or_init(|| {
            state.next += 1;
            state.next
        });
        state.held.entry(id).or_default().extend(digests);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(id) = self.id.get().copied() else { return };
        // A collection may hold the lock for long; the end of a pull does not wait for it.
        if let Ok(mut state) = self.leases.0.try_lock() {
            state.held.remove(&id);
            return;
        }
        let leases = self.leases.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                leases.0.lock().await.held.remove(&id);
            });
        }
    }
}
